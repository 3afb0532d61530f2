"""Plan the updates of a model, from its windows, the forecast of an update now, and what decides."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from resque._format import COST_NAMES, format_cost, format_count, format_interval, format_probability
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.budget import UNSURE, WITHIN, Budget, Decision, decide
from resque.forecasting.drift import FEWEST_WINDOWS, AccuracyPoint, Drift, fit_drift
from resque.forecasting.history import starts_at_target
from resque.forecasting.objective import Objective
from resque.forecasting.plan import NOW, Plan, PlanWindow, UpdateNow
from resque.forecasting.planning import Year
from resque.forecasting.price import price_with_labels
from resque.forecasting.recommendation import Recommendation
from resque.forecasting.windows import Calendar
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate, Forecast

__all__ = ["make_plan"]

_COSTS = "wall_s", "energy_kwh", "carbon_kg"


def make_plan(
    forecast: Forecast,
    windows: Sequence[PlanWindow],
    calendar: Calendar,
    objective: Objective,
) -> Plan:
    """Decide when to update.

    Args:
        forecast: Forecast of an update on the newest batch.
        windows: The windows, the oldest first.
        calendar: Their dates.
        objective: Floor, prices and yearly budget that decide.

    Raises:
        SettingError: Errors have a price, and an update has none.
    """
    newest, floor = windows[-1], objective.floor
    now = _update_now(forecast, newest, objective.tariff)
    if objective.price_per_error is not None and "price" not in now.estimates:
        raise SettingError("energy has a price, and no meter measured it: give --price-per-hour in its place")
    points = [
        AccuracyPoint(position, each.accuracy, each.samples, each.accuracy_error_logit)
        for position, each in zip(calendar.positions, windows, strict=True)
    ]
    drift = fit_drift(points, forecast.level)
    found = Recommendation.of_today(now, newest, objective, len(windows))
    if drift is not None and (now.is_needed or floor is not None):
        year = Year(
            drift,
            calendar,
            now.accuracy_after,
            now.estimates if now.is_needed else {},
            floor,
            floor is not None and newest.accuracy < floor,
            objective.price_of_errors if now.is_needed else None,
            {cost: limit for cost, limit in objective.yearly.limits.items() if cost in (*_COSTS, "price")},
        )
        found = Recommendation.of_year(year, now, newest, objective)
    return Plan(
        model=forecast.model,
        target_accuracy=forecast.target_accuracy,
        decision=found.decision,
        recommendation=f"{found.sentence}{_unlikely(found.decision, now, forecast.level)}",
        windows=tuple(windows),
        now=now,
        later=found.later,
        cadences=found.cadences,
        drift=drift,
        budget=_decide_budget(forecast, objective.yearly, found.needed_updates, len(windows)),
        floor=floor,
        price_per_error=objective.price_per_error,
        samples_per_window=objective.samples_per_window,
        currency=objective.tariff.currency,
        level=forecast.level,
        notes=tuple(_notes(now, windows, drift if found.cadences else None, calendar, objective.tariff.currency)),
    )


def _update_now(forecast: Forecast, newest: PlanWindow, tariff: Tariff) -> UpdateNow:
    """Return what the forecast says of an update now, with its price."""
    price, best = price_with_labels(forecast, tariff), forecast.best_accuracy
    estimates = {name: forecast.estimates[name] for name in _COSTS if name in forecast.estimates}
    target = forecast.target_accuracy
    is_needed = not starts_at_target(forecast.features, target)
    return UpdateNow(
        forecast_id=forecast.id,
        train_data=forecast.train_data,
        test_data=forecast.test_data,
        accuracy=newest.accuracy,
        accuracy_after=target if best is None or not is_needed else min(target, best.value),
        target_accuracy=target,
        chance=forecast.probability_reached,
        estimates=estimates if price is None else {**estimates, "price": price},
        is_needed=is_needed,
        reliability_issues=forecast.reliability_issues,
    )


def _unlikely(decision: str, now: UpdateNow, level: float) -> str:
    """Return what to do first where an update is due that is less likely to arrive than its intervals are to hold."""
    if decision != NOW or now.chance >= level:
        return ""
    chance = format_probability(now.chance)
    return f" A chance of {chance} is less than {level:.0%}: ask for other ways first, by `resque compare`."


def _decide_budget(forecast: Forecast, yearly: Budget, updates: int | None, n_windows: int) -> Decision | None:
    """Compare the updates of a year with the budget of a year; None without one."""
    if not yearly.is_given:
        return None
    if updates is None:
        known = format_count(n_windows, "window")
        reason = (
            f"how many updates a year needs cannot be told from {known}; {FEWEST_WINDOWS} are needed, below the target"
        )
        return Decision(UNSURE, (reason,), ())
    if not updates:
        return Decision(UNSURE if forecast.reliability_issues else WITHIN, forecast.reliability_issues, ())
    found = decide(forecast, yearly, updates)
    reasons = [reason.replace("--max-", "--yearly-") for reason in found.reasons]
    counted = [f"these costs are of {format_count(updates, 'update')} in a year"] if reasons else []
    return dataclasses.replace(found, reasons=(*reasons, *counted))


def _notes(
    now: UpdateNow, windows: Sequence[PlanWindow], drift: Drift | None, calendar: Calendar, currency: str
) -> Iterator[str]:
    """Yield assumptions, what they rest on, and what to read with care."""
    if now.is_needed:
        yield f"an update now: {_intervals(now.estimates, currency)} ({_level(now):.0%} intervals)"
    if drift is not None:
        rise = "; a rise is not extrapolated" if drift.slope > 0.0 else ""
        yield (
            f"drift: {drift.slope:+.3f} ± {drift.slope_error:.3f} a window on the logit scale, a line through "
            f"{drift.n} windows{rise}; a year reaches {calendar.per_year} windows ahead"
        )
        yield (
            f"assumed: an update brings accuracy {now.accuracy_after:.2f} on its batch, from there the drift starts "
            "anew, and each update costs what one costs now"
        )
    estimated = sum(each.accuracy_method != MEASURED for each in windows)
    if estimated:
        yield f"the accuracy of {estimated} of {len(windows)} windows is estimated without labels"
    if now.reliability_issues:
        yield "not reliable enough for a decision:"
        yield from (f"- {issue}" for issue in now.reliability_issues)


def _level(now: UpdateNow) -> float:
    return next(estimate.interval.level for estimate in now.estimates.values())


def _intervals(estimates: Mapping[str, Estimate], currency: str) -> str:
    shown = []
    for cost, estimate in estimates.items():
        unit = f" {currency}" if cost == "price" else ""
        bounds = format_interval(cost, estimate.value, estimate.interval) + unit
        shown.append(f"{COST_NAMES.get(cost, cost)} {format_cost(cost, estimate.value)}{unit} ({bounds})")
    return ", ".join(shown)
