"""Compare a forecast with a budget, before training and during it.

Before training, each cost is compared by its one-sided upper prediction bound at the confidence of the forecast. An
unreliable forecast gives no decision, even if it exceeds the budget. During training, a run ends once it is improbable
that it reaches its target within the budget.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_cost, format_count, format_probability
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.costs import scale
from resque.forecasting.price import price_with_labels
from resque.forecasting.reliability import FEWEST_UPDATES, pilot_option
from resque.ledger.records import BY_BUDGET, WOULD_NOT_REACH, Estimate, Forecast, ForecastRevision

__all__ = [
    "BEYOND", "CONFIDENCE", "UNSURE", "VERDICTS", "WITHIN", "Budget", "Decision", "check_measurable", "decide",
    "exit_code", "stop_reason",
]  # fmt: skip

WITHIN, BEYOND, UNSURE = 0, 3, 4
VERDICTS = {WITHIN: "within budget", BEYOND: "beyond budget", UNSURE: "not reliable enough to decide"}
"""Exit codes of the gate, and each in words."""
CONFIDENCE = 0.95
"""Confidence with which a budget ends a run, unless another is asked for."""
_LIMITS = {
    "max_kwh": ("energy_kwh", 1.0, "kWh"),
    "max_kg": ("carbon_kg", 1.0, "kg CO2e"),
    "max_hours": ("wall_s", 3600.0, "h"),
    "max_epochs": ("epochs", 1.0, "epochs"),
}
_SPENT = {"energy_kwh": "kWh", "carbon_kg": "kg CO2e", "wall_s": "hours", "epochs": "epochs", "price": "price"}
_ADVICE = {
    "energy_kwh": "no meter measured energy; run `resque doctor` to see which meters this machine has",
    "carbon_kg": "name a region with --country or --intensity",
    "price": "give --price-per-kwh, --price-per-hour or --price-per-label",
}
_ADVICE_FOR_A_RUN = {**_ADVICE, "price": "give --price-per-kwh or --price-per-hour"}  # which labels are no cost of


@dataclass(frozen=True)
class Budget:
    """Limits on the costs of an update; None for no limit.

    Attributes:
        max_kwh: Energy of the training, in kWh.
        max_kg: Emissions of the training, in kg CO2e.
        max_hours: Training time, in hours.
        max_epochs: Number of epochs.
        max_price: Price of training, evaluation and asking once, in the tariff's currency; for a forecast also of the
            missing labels, if the tariff prices them.
        tariff: Tariff for the price.

    Example:
        >>> Budget(max_kwh=0.5).is_given, Budget().is_given
        (True, False)
    """

    max_kwh: float | None = None
    max_kg: float | None = None
    max_hours: float | None = None
    max_epochs: float | None = None
    max_price: float | None = None
    tariff: Tariff = field(default_factory=Tariff)

    def __post_init__(self) -> None:
        for name in (*_LIMITS, "max_price"):
            limit = getattr(self, name)
            if limit is not None and not (isinstance(limit, int | float) and 0.0 <= limit < math.inf):
                raise SettingError(f"budget {name} is {limit!r}: expected a number from 0 on")
        if self.max_epochs is not None and self.max_epochs != int(self.max_epochs):
            raise SettingError(f"budget max_epochs is {self.max_epochs}: expected a whole number")

    @property
    def is_given(self) -> bool:
        """Whether there is any limit."""
        return bool(self.limits)

    @property
    def limits(self) -> dict[str, float]:
        """Each limit in the unit in which its cost is stored: kWh, kg, seconds, epochs, currency.

        Example:
            >>> Budget(max_kwh=0.5, max_hours=2.0).limits
            {'energy_kwh': 0.5, 'wall_s': 7200.0}
        """
        scaled = {cost: (getattr(self, name), scale) for name, (cost, scale, _) in _LIMITS.items()}
        scaled["price"] = self.max_price, 1.0
        return {cost: limit * scale for cost, (limit, scale) in scaled.items() if limit is not None}

    @property
    def energy_limits(self) -> list[str]:
        """Names of the limits that can be held only where energy is measured."""
        names = "max_kwh", "max_kg", *(["max_price"] if self.tariff.per_kwh else [])
        return [name for name in names if getattr(self, name) is not None]

    def priced(self, tariff: Tariff | None) -> "Budget":
        """Return the budget with another tariff, unless it has prices of its own."""
        return self if self.tariff.is_given or tariff is None else dataclasses.replace(self, tariff=tariff)


@dataclass(frozen=True)
class Decision(Displayable):
    """Decision of the budget gate.

    Attributes:
        code: Exit code: 0 within budget, 3 beyond it, 4 not reliable enough to decide.
        reasons: Reasons for a code other than 0, one sentence each.
        held: Compared costs as ``(cost, upper prediction bound, budget, unit)``.
        is_open: Whether each budget lies within its interval or above, so that the update may be affordable.
    """

    code: int
    reasons: tuple[str, ...]
    held: tuple[tuple[str, float, float, str], ...]
    is_open: bool = False

    @property
    def verdict(self) -> str:
        """Exit code in words."""
        exceeded = any(bound > limit for _, bound, limit, _ in self.held)
        if self.code == BEYOND and not exceeded:
            return "target too unlikely"
        return f"perhaps {VERDICTS[BEYOND]}" if self.code == BEYOND and self.is_open else VERDICTS[self.code]

    @property
    def amounts(self) -> dict[str, tuple[str, str]]:
        """Cost → upper bound and budget, in units that suit people."""
        return {cost: _amounts(cost, high, limit, unit) for cost, high, limit, unit in self.held}

    def _display(self) -> Display:
        rows = [(_name(cost), *both) for cost, both in self.amounts.items()]
        return Display(f"Budget decision: {self.verdict}", ("cost", "upper bound", "budget"), rows, self.reasons)


def decide(forecast: Forecast, budget: Budget, updates: int = 1, fees: float | None = None) -> Decision:
    """Compare the forecast of an update with a budget, or that of several alike.

    Args:
        forecast: Forecast; its level is the confidence.
        budget: Limits.
        updates: Number of such updates.
        fees: Price of labels and license of each; None takes that of the labels that the data lack.
    """
    compared, missing, likely_held = [], [], True
    for option, cost, limit, estimate, unit in _comparisons(forecast, budget, updates, fees):
        if estimate is None or estimate.upper is None:
            advice = _advice(forecast, cost, budget)
            missing.append(f"{option} is given, but the forecast has no {_name(cost)}: {advice}")
        else:
            compared.append((cost, estimate.upper, limit, unit))
            likely_held &= estimate.interval.low <= limit
    if unreliable := (*forecast.reliability_issues, *missing):
        return Decision(UNSURE, unreliable, tuple(compared))
    reasons = [
        f"the upper bound on {_name(cost)} at {forecast.level:.0%} confidence is {bounds[0]}; the budget is {bounds[1]}"
        for cost, bound, limit, unit in compared
        if bound > limit * (1.0 + 1e-9)
        for bounds in [_amounts(cost, bound, limit, unit)]
    ]
    if forecast.probability_reached < forecast.level:
        reasons.append(
            f"the probability of reaching accuracy {forecast.target_accuracy:g} within "
            f"{format_count(forecast.max_steps, 'step')} is {format_probability(forecast.probability_reached)}, below "
            f"{forecast.level:.0%}"
        )
    is_open = likely_held and forecast.probability_reached > 1.0 - forecast.level
    if reasons and is_open and forecast.pilot is None:
        option = pilot_option(forecast.max_steps, forecast.step_cost.wall_s, forecast.missing_labels.total)
        reasons.append(f"the budget lies within the interval: {option} narrows it, and the update goes on from there")
    return Decision(BEYOND if reasons else WITHIN, tuple(reasons), tuple(compared), bool(reasons) and is_open)


def check_measurable(budget: Budget, grid: Grid | None, measures_energy: bool = True) -> None:
    """Raise SettingError if a limit cannot be held in a run: without its region, its price, or a meter of energy.

    Example:
        >>> check_measurable(Budget(max_kg=0.1), grid=None)
        Traceback (most recent call last):
        resque.errors.SettingError: --max-kg cannot be held: name a region with --country or --intensity
    """
    needs = {
        "carbon_kg": [] if grid else ["max_kg"],
        "price": [] if budget.tariff.per_kwh or budget.tariff.per_hour else ["max_price"],
        "energy_kwh": [] if measures_energy else budget.energy_limits,
    }
    missing = [
        f"--{name.replace('_', '-')} cannot be held: {_ADVICE_FOR_A_RUN[cost]}"
        for cost, names in needs.items()
        for name in names
        if getattr(budget, name) is not None
    ]
    if missing:
        raise SettingError("; ".join(missing))


def stop_reason(
    budget: Budget,
    confidence: float,
    spent: Mapping[str, float],
    per_step: Mapping[str, float],
    revision: ForecastRevision | None,
) -> str | None:
    """Decide whether a run ends now; return the reason as :attr:`resque.Update.stopped_by` has it, or None.

    A run ends when its budget is spent. It also ends as soon as it is improbable that it reaches the target within the
    budget, P(the target is reached after at most s optimizer steps) < 1 - confidence. Here s is the largest number of
    steps that all limits and the step budget allow, if each further step costs ``per_step``. That is so in two cases:

    * The probability of reaching the target within the step budget is below 1 - confidence: ``"budget: would not
      reach"``.
    * A cost at the one-sided lower bound of the total steps (their quantile at 1 - confidence) is above its limit:
      ``"budget: kWh"``, and so on. The limit that is exceeded by the largest factor is named.

    So the run ends on evidence against it. An upper bound above the budget, as of the gate before training, is not
    enough.

    Args:
        budget: Limits.
        confidence: Confidence, in (0, 1).
        spent: Cost so far by name, in kWh, kg, seconds, epochs and currency.
        per_step: Cost of a further optimizer step, by the same names.
        revision: Forecast revised after the last step; None if there is none, so that only what is spent counts.

    Example:
        >>> from resque.types import Interval
        >>> steps = Estimate(300.0, Interval(150.0, 600.0, 0.8, ""), 500.0)
        >>> revision = ForecastRevision(100, 0.7, steps, 0.9, 5, steps_lower=200.0)
        >>> spent, per_step = {"energy_kwh": 0.1}, {"energy_kwh": 0.001}
        >>> [stop_reason(Budget(max_kwh=kwh), 0.8, spent, per_step, revision) for kwh in (0.1, 0.15, 0.25)]
        ['budget: kWh', 'budget: kWh', None]
    """
    limits = {cost: limit for cost, limit in budget.limits.items() if cost in spent}
    for cost, limit in limits.items():
        if spent[cost] >= limit:
            return BY_BUDGET + _SPENT[cost]
    if revision is None or not limits:
        return None
    if revision.probability_reached < 1.0 - confidence:
        return WOULD_NOT_REACH
    if revision.steps_lower is None:
        return None
    to_go = max(0.0, revision.steps_lower - revision.step)
    excess = {cost: (spent[cost] + to_go * per_step[cost]) / limit for cost, limit in limits.items()}
    worst = max(excess, key=lambda cost: excess[cost])
    return BY_BUDGET + _SPENT[worst] if excess[worst] > 1.0 + 1e-9 else None


def exit_code(forecast: Forecast, decision: Decision | None) -> int:
    """Return the exit code of a decision; without a budget, 4 if neither a pilot nor enough own updates support it."""
    if decision is not None:
        return decision.code
    at_target = not forecast.alternatives
    by_pilot = forecast.pilot is not None and not forecast.reliability_issues
    return WITHIN if at_target or by_pilot or forecast.n_history >= FEWEST_UPDATES else UNSURE


def _comparisons(
    forecast: Forecast, budget: Budget, updates: int, fees: float | None
) -> Iterator[tuple[str, str, float, Estimate | None, str]]:
    """Yield ``(option, cost, budget, forecast in the unit of the budget, unit)`` for each limit."""
    for name, (cost, divisor, unit) in _LIMITS.items():
        limit, estimate = getattr(budget, name), forecast.estimates.get(cost)
        if limit is not None:
            yield f"--{name.replace('_', '-')}", cost, limit, estimate and scale(estimate, updates / divisor), unit
    if budget.max_price is not None:
        price = price_with_labels(forecast, budget.tariff, fees)
        yield "--max-price", "price", budget.max_price, price and scale(price, updates), budget.tariff.currency


def _advice(forecast: Forecast, cost: str, budget: Budget) -> str:
    """Return what to do about a missing cost."""
    needs_energy = cost != "price" or budget.tariff.per_kwh
    return _ADVICE["energy_kwh" if needs_energy and "energy_kwh" not in forecast.estimates else cost]


def _name(cost: str) -> str:
    return COST_NAMES.get(cost, cost)


def _amounts(cost: str, bound: float, limit: float, unit: str) -> tuple[str, str]:
    """Return bound and budget; with more digits where a bound beyond its budget would read the same."""
    bound_text, limit_text = _amount(cost, bound, unit), _amount(cost, limit, unit)
    if bound_text == limit_text and bound > limit:
        return f"{bound:.9g} {unit}", f"{limit:.9g} {unit}"
    return bound_text, limit_text


def _amount(cost: str, value: float, unit: str) -> str:
    """Return an amount in a unit that suits people; it is given in the unit of its limit."""
    divisors = {name: divisor for name, divisor, _ in _LIMITS.values() if name != "epochs"}
    return format_cost(cost, value * divisors[cost]) if cost in divisors else f"{value:.3g} {unit}".rstrip()
