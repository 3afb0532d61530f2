"""Compare settled forecasts with outcomes: errors, coverage and the best predictor.

A forecast is settled once the update that it was made for is in the ledger.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from resque._display import Display, Displayable
from resque._format import COST_NAMES, NOT_MEASURED, format_count, format_probability, format_share
from resque.energy.price import Spending, Tariff
from resque.forecasting.price import forecast_price
from resque.ledger.records import BY_BUDGET, BY_USER, COSTS, MEASURED, Estimate, Forecast, Update
from resque.types import Interval

__all__ = [
    "BUSY", "BUSY_SHARE", "FORECAST", "IDLE", "LIKELY", "PRICE", "CostAccuracy", "PredictorScore", "ProbabilityScore",
    "Settlement", "brier_scores", "comparable_cost", "comparable_estimate", "covers", "is_covered", "relative_error",
    "score_predictors", "settled_tariff", "summarize_settlements",
]  # fmt: skip

FORECAST = "forecast"
"""Name of the forecast itself among the predictors."""
PRICE = "price"
"""Name of the price among the costs that are settled: of training, evaluation and asking once."""
BUSY_SHARE = 0.1
"""Share of a machine's processors that other processes use, from which on it counts as busy."""
IDLE, BUSY = "idle", "busy"
"""Names of the machine's load while the cost of a step was probed."""
_TIMED = "wall_s", "energy_kwh"
_OF_PROCESSES = *_TIMED, "carbon_kg", PRICE
"""Costs that depend on the number of processes that train; a forecast is made for one."""
_NORMAL_95 = 1.644854
_ROUNDING = 1e-9  # relative difference of equal costs
LIKELY = 0.9
"""Chance from which on a forecast is one that should hardly ever miss."""
_INTERRUPTED = ("max hours", "max kWh", BY_USER, BY_BUDGET)


@dataclass(frozen=True)
class CostAccuracy:
    """Accuracy of the settled forecasts of one cost.

    Attributes:
        cost: Name of a field of :class:`resque.ledger.records.Cost`, or :data:`PRICE`.
        load: :data:`IDLE` or :data:`BUSY` for the forecasts whose probe ran on such a machine; empty for all forecasts.
        n: Number of updates that reached the target and whose measured cost can be compared.
        median_factor: Median of the larger of forecast and measured over the smaller; None without such updates.
        median_error: Median of ``|forecast - measured| / measured``.
        within_factor_2: Share of updates within a factor of 2.
        covered: Number of intervals that covered the measured cost.
        intervals: Number of intervals that could be evaluated.
        coverage_interval: 90 % interval of the coverage (Wilson, 1927); None without intervals.
    """

    cost: str
    load: str
    n: int
    median_factor: float | None
    median_error: float | None
    within_factor_2: float | None
    covered: int
    intervals: int
    coverage_interval: Interval | None


@dataclass(frozen=True)
class PredictorScore:
    """Accuracy of one predictor's forecasts of steps.

    Attributes:
        predictor: ``"forecast"``, or the name of an alternative in it.
        n: Number of updates; all of them reached their target.
        median_error: Median of ``|forecast - measured| / measured``.
        median_factor: Median of the larger of forecast and measured over the smaller.
        within_factor_2: Share of updates within a factor of 2.
        forecast_factor: Median factor of the forecast itself on the same updates.
    """

    predictor: str
    n: int
    median_error: float
    median_factor: float
    within_factor_2: float
    forecast_factor: float


@dataclass(frozen=True)
class ProbabilityScore:
    """Accuracy of the probabilities of reaching the target.

    Attributes:
        n: Number of runs that were not interrupted.
        reached: Number of them that reached the target.
        mean_probability: Mean forecast probability.
        brier: Mean squared error of the probability.
        base_rate_brier: That of the share of these runs that reached the target, which is known in hindsight only.
    """

    n: int
    reached: int
    mean_probability: float
    brier: float
    base_rate_brier: float


@dataclass(frozen=True)
class Settlement(Displayable):
    """Summary of settled forecasts.

    Attributes:
        n: Number of settled forecasts; those with nothing to train are not counted.
        covered: Cost → (number of covering intervals, number of intervals that could be evaluated).
        median_error: Cost → median of ``|forecast - measured| / measured``, over updates that reached the target.
        scores: Predictors by their error in steps, best first.
        overhead_s: Seconds spent on computing the forecasts, with the pilots that no update continued.
        overhead_kwh: Energy of computing the forecasts, with those pilots; None if unknown.
        training_s: Seconds of training in the updates.
        training_kwh: Energy of the training; None if unknown.
        probability_score: Accuracy of the probabilities of reaching the target; None if all runs were interrupted.
        accuracy: Accuracy of the forecasts of each cost; of time and energy also on an idle and on a busy machine.
        likely: Number of forecasts that gave the target a chance of :data:`LIKELY` or more.
        likely_missed: Number of these whose run ended below the target, and was not interrupted.
    """

    n: int
    covered: Mapping[str, tuple[int, int]]
    median_error: Mapping[str, float]
    scores: Sequence[PredictorScore]
    overhead_s: float
    overhead_kwh: float | None
    training_s: float
    training_kwh: float | None
    probability_score: ProbabilityScore | None = None
    accuracy: tuple[CostAccuracy, ...] = ()
    likely: int = 0
    likely_missed: int = 0

    def _display(self) -> Display:
        lines = ["factor: median of the larger over the smaller of forecast and measured; ≤2×: share below 2",
                 "covered: by the prediction interval, of all; 90% interval of that share (Wilson)"]  # fmt: skip
        if any(each.load for each in self.accuracy):
            lines.append(f"busy: other processes used {BUSY_SHARE:.0%} of the processors or more during the probe")
        score = self.probability_score
        if score is not None:
            lines.append(
                f"probability of reaching the target: forecast {format_probability(score.mean_probability)} on "
                f"average, reached {format_share(score.reached, score.n)} (Brier score {score.brier:.3f}; of the base "
                f"rate, that share itself, {score.base_rate_brier:.3f})"
            )
        title = f"Forecast accuracy over {format_count(self.n, 'settled update')}"
        columns = "cost", "n", "factor", "error", "≤2×", "covered", "90% interval"
        return Display(title, columns, [_accuracy_row(each) for each in self.accuracy], lines)


def _accuracy_row(found: CostAccuracy) -> list[str]:
    """Return one cost's cells of the printed table."""
    name = COST_NAMES[found.cost] + (f", {found.load} machine" if found.load else "")
    numbers = (found.median_factor, "{:.2f}"), (found.median_error, "{:.0%}"), (found.within_factor_2, "{:.0%}")
    cells = [NOT_MEASURED if value is None else form.format(value) for value, form in numbers]
    bounds = found.coverage_interval
    interval = NOT_MEASURED if bounds is None else f"{bounds.low:.0%} to {bounds.high:.0%}"
    return [name, str(found.n), *cells, format_share(found.covered, found.intervals), interval]


def summarize_settlements(settled: Sequence[tuple[Forecast, Update]]) -> Settlement:
    """Summarize settled forecasts; those with nothing to train are left out.

    Args:
        settled: Forecasts with the updates that settle them.
    """
    pairs = [(forecast, update) for forecast, update in settled if forecast.alternatives]
    priced = [PRICE] if any(settled_tariff(*pair) for pair in pairs) else []
    accuracy = [_cost_accuracy(pairs, cost) for cost in (*COSTS, *priced)]
    for load in (IDLE, BUSY):
        some = [pair for pair in pairs if _load(pair[0]) == load]
        accuracy += [_cost_accuracy(some, cost, load) for cost in _TIMED if some]
    likely = [reached for probability, reached in _known_outcomes(pairs) if probability >= LIKELY]
    return Settlement(
        n=len(pairs),
        covered={each.cost: (each.covered, each.intervals) for each in accuracy if not each.load},
        median_error={e.cost: e.median_error for e in accuracy if not e.load and e.median_error is not None},
        scores=score_predictors(pairs),
        overhead_s=math.fsum(_asking(*pair).wall_s for pair in pairs),
        overhead_kwh=_total([_asking(*pair).energy_kwh for pair in pairs]),
        training_s=math.fsum(update.cost.wall_s for _, update in pairs),
        training_kwh=_total([update.cost.energy_kwh for _, update in pairs]),
        probability_score=_probability_score(pairs),
        accuracy=tuple(accuracy),
        likely=len(likely),
        likely_missed=likely.count(False),
    )


def _load(forecast: Forecast) -> str | None:
    """Return whether the machine was idle or busy during the probe; None if that was not measured."""
    share = forecast.step_cost.others_busy_share
    return None if share is None else BUSY if share >= BUSY_SHARE else IDLE


def _cost_accuracy(pairs: Sequence[tuple[Forecast, Update]], cost: str, load: str = "") -> CostAccuracy:
    known = [each for pair in pairs if (each := is_covered(*pair, cost)) is not None]
    errors = np.array([error for pair in pairs if (error := relative_error(*pair, cost)) is not None])
    logs = np.abs(np.log1p(errors))
    return CostAccuracy(
        cost=cost,
        load=load,
        n=len(errors),
        median_factor=float(np.exp(np.median(logs))) if len(errors) else None,
        median_error=float(np.median(np.abs(errors))) if len(errors) else None,
        within_factor_2=float((logs <= math.log(2.0)).mean()) if len(errors) else None,
        covered=sum(known),
        intervals=len(known),
        coverage_interval=_wilson(sum(known), len(known)) if known else None,
    )


def _wilson(part: int, whole: int) -> Interval:
    """Return the 90 % interval of a share by Wilson's score."""
    square = _NORMAL_95**2
    center = (part + square / 2.0) / (whole + square)
    spread = _NORMAL_95 * math.sqrt(part * (whole - part) / whole + square / 4.0) / (whole + square)
    return Interval(max(center - spread, 0.0), min(center + spread, 1.0), 0.9, "Wilson's score; approximate")


def score_predictors(settled: Sequence[tuple[Forecast, Update]]) -> list[PredictorScore]:
    """Score the forecast and each of its alternatives by their steps, best (smallest factor) first.

    Args:
        settled: Forecasts with the updates that settle them; only updates that reached their target are scored.
    """
    steps: dict[str, list[tuple[float, int, float]]] = {}
    for forecast, update in settled:
        if update.reached and update.cost.steps and forecast.alternatives:
            own = forecast.estimates["steps"].value
            for name, predicted in {FORECAST: own, **forecast.alternatives}.items():
                steps.setdefault(name, []).append((predicted, update.cost.steps, own))
    scores = []
    for name, each in steps.items():
        predicted, measured, own_steps = np.array(each, dtype=float).T
        factors, own_factors = (np.exp(np.abs(np.log(values / measured))) for values in (predicted, own_steps))
        score = PredictorScore(
            predictor=name,
            n=len(each),
            median_error=float(np.median(np.abs(predicted - measured) / measured)),
            median_factor=float(np.median(factors)),
            within_factor_2=float((factors <= 2).mean()),
            forecast_factor=float(np.median(own_factors)),
        )
        scores.append(score)
    return sorted(scores, key=lambda score: score.median_factor)


def is_covered(forecast: Forecast, update: Update, cost: str) -> bool | None:
    """Return whether the forecast interval covers the measured cost; None if one of the two is missing.

    A cost that had been measured before was not forecast, so it is no evidence either. Ends of an interval are compared
    up to rounding.

    A run that its budget ended because it looked bad is no evidence for the interval. It counts only as not covered,
    once its cost is above the interval.
    """
    estimate, measured = comparable_estimate(forecast, update, cost), comparable_cost(forecast, update, cost)
    if estimate is None or measured is None or _is_known(estimate):
        return None
    low, high = estimate.interval.low, math.inf if estimate.interval.high is None else estimate.interval.high
    covered = covers(low * (1.0 - _ROUNDING), high * (1.0 + _ROUNDING), measured, update.reached)
    return None if covered and update.ended_by_budget and not update.reached else covered


def _is_known(estimate: Estimate) -> bool:
    return estimate.interval.low == estimate.interval.high and estimate.interval.guarantee.startswith(MEASURED)


def covers(lower: float, upper: float, cost: float, reached: bool) -> bool:
    """Return whether an interval covers a cost; a right-censored cost is covered if the interval ends above it.

    Args:
        lower: Lower end of the interval.
        upper: Upper end of the interval.
        cost: Measured cost, or its lower bound if the target was not reached.
        reached: Whether the target was reached.

    Example:
        >>> covers(1.0, 2.0, 0.5, reached=True), covers(1.0, 2.0, 0.5, reached=False)
        (False, True)
    """
    return (lower <= cost or not reached) and cost <= upper


def settled_tariff(forecast: Forecast, update: Update) -> Tariff | None:
    """Return the tariff by which both are priced: that of the update, else that of the forecast."""
    return update.tariff or forecast.tariff


def comparable_estimate(forecast: Forecast, update: Update, cost: str) -> Estimate | None:
    """Return the forecast of a cost or of the price; None if there is none."""
    if cost != PRICE:
        return forecast.estimates.get(cost)
    tariff = settled_tariff(forecast, update)
    return None if tariff is None else forecast_price(forecast, tariff)


def comparable_cost(forecast: Forecast, update: Update, cost: str) -> float | None:
    """Return the measured cost if it can be compared with the forecast; else None.

    Emissions on another grid are not comparable. Nor is the energy of a run too short for the meter: it rests on a
    probe, as the forecast does. The price includes evaluation and asking once, by the tariff of the update. A forecast
    is for one process, so of an update in several, time, energy, carbon and price are not comparable.
    """
    if update.processes > 1 and cost in _OF_PROCESSES:
        return None
    if cost == PRICE:
        tariff = settled_tariff(forecast, update)
        return None if tariff is None else dataclasses.replace(update, tariff=tariff).asked_by(forecast).price
    if cost == "carbon_kg" and forecast.grid != update.grid:
        return None
    if cost in ("energy_kwh", "carbon_kg") and update.energy.energy_kwh is None:
        return None
    measured: float | None = getattr(update.cost, cost)
    return measured


def relative_error(forecast: Forecast, update: Update, cost: str) -> float | None:
    """Return ``(forecast - measured) / measured``; None for a missed target or without a comparable cost."""
    estimate, measured = comparable_estimate(forecast, update, cost), comparable_cost(forecast, update, cost)
    if estimate is None or not measured or not update.reached:
        return None
    return (estimate.value - measured) / measured


def _known_outcomes(settled: Sequence[tuple[Forecast, Update]]) -> list[tuple[float, bool]]:
    """Return probability and outcome; interrupted runs do not show whether they would have reached their target."""
    return [
        (forecast.probability_reached, update.reached)
        for forecast, update in settled
        if update.reached or not update.stopped_by.startswith(_INTERRUPTED)
    ]


def _probability_score(settled: Sequence[tuple[Forecast, Update]]) -> ProbabilityScore | None:
    """Score the probabilities of reaching the target."""
    known = _known_outcomes(settled)
    if not known:
        return None
    probability, reached = np.array(known, dtype=float).T
    return ProbabilityScore(len(known), int(reached.sum()), float(probability.mean()), *brier_scores(known))


def brier_scores(known: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """Return the Brier score of probabilities, and that of the base rate of the outcomes.

    Args:
        known: Probability and outcome of each update, at least one.

    Example:
        >>> brier_scores([(0.75, True), (0.75, True), (0.25, False), (0.25, False)])
        (0.0625, 0.25)
    """
    probability, reached = np.array(known, dtype=float).T
    rate = float(reached.mean())
    return float(((probability - reached) ** 2).mean()), rate * (1.0 - rate)


def _asking(forecast: Forecast, update: Update) -> Spending:
    return forecast.asking(continued=bool(update.pilot_steps))


def _total(values: Sequence[float | None]) -> float | None:
    """Return the sum of costs; None if one of them is unknown."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
