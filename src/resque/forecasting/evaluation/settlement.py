"""Compare settled forecasts with outcomes: errors, coverage and the best predictor.

A forecast is settled once the update that it was made for is in the ledger.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resque._display import Display, Displayable
from resque._format import COST_NAMES, NOT_MEASURED, format_probability, format_share
from resque.energy.reading import energy_share
from resque.errors import SettingError
from resque.ledger.records import BY_BUDGET, BY_USER, COSTS, Forecast, Update

if TYPE_CHECKING:
    from torch import nn

    from resque.training.job import RetrainingJob

__all__ = [
    "FORECAST", "PredictorScore", "ProbabilityScore", "Settlement", "check_settles", "comparable_cost", "covers",
    "differing_settings", "is_covered", "relative_error", "score_predictors", "summarize_settlements",
]  # fmt: skip

FORECAST = "forecast"
"""Name of the forecast itself among the predictors."""
_INTERRUPTED = ("max hours", "max kWh", BY_USER, BY_BUDGET)


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
    """

    n: int
    reached: int
    mean_probability: float
    brier: float


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

    def _display(self) -> Display:
        errors = {cost: f"{error:.0%}" for cost, error in self.median_error.items()}
        rows = [
            (COST_NAMES[cost], format_share(*counts), errors.get(cost, NOT_MEASURED))
            for cost, counts in self.covered.items()
        ]
        lines, score = [], self.probability_score
        if score is not None:
            lines.append(
                f"probability of reaching the target: forecast {format_probability(score.mean_probability)} on "
                f"average, reached {format_share(score.reached, score.n)} (Brier score {score.brier:.3f})"
            )
        title = f"Forecast accuracy over {self.n} settled update{'s' * (self.n != 1)}"
        return Display(title, ("cost", "intervals that covered", "median error"), rows, lines)


def summarize_settlements(settled: Sequence[tuple[Forecast, Update]]) -> Settlement:
    """Summarize settled forecasts; those with nothing to train are left out.

    Args:
        settled: Forecasts with the updates that settle them.
    """
    pairs = [(forecast, update) for forecast, update in settled if forecast.alternatives]
    covered: dict[str, tuple[int, int]] = {}
    errors: dict[str, float] = {}
    for cost in COSTS:
        known = [each for pair in pairs if (each := is_covered(*pair, cost)) is not None]
        covered[cost] = sum(known), len(known)
        relative = [abs(error) for pair in pairs if (error := relative_error(*pair, cost)) is not None]
        if relative:
            errors[cost] = float(np.median(relative))
    return Settlement(
        n=len(pairs),
        covered=covered,
        median_error=errors,
        scores=score_predictors(pairs),
        overhead_s=math.fsum(_overhead(*pair)[0] for pair in pairs),
        overhead_kwh=_total([_overhead(*pair)[1] for pair in pairs]),
        training_s=math.fsum(update.cost.wall_s for _, update in pairs),
        training_kwh=_total([update.cost.energy_kwh for _, update in pairs]),
        probability_score=_probability_score(pairs),
    )


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

    A run that its budget ended because it looked bad is no evidence for the interval. It counts only as not covered,
    once its cost is above the interval.
    """
    estimate, measured = forecast.estimates.get(cost), comparable_cost(forecast, update, cost)
    if estimate is None or measured is None:
        return None
    low, high = estimate.interval.low, estimate.interval.high
    covered = covers(low, math.inf if high is None else high, measured, update.reached)
    return None if covered and update.ended_by_budget and not update.reached else covered


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


def comparable_cost(forecast: Forecast, update: Update, cost: str) -> float | None:
    """Return the measured cost if it can be compared with the forecast; else None.

    Emissions on another grid are not comparable. Nor is the energy of a run too short for the meter: it rests on a
    probe, as the forecast does.
    """
    if cost == "carbon_kg" and forecast.grid != update.grid:
        return None
    if cost in ("energy_kwh", "carbon_kg") and update.energy.energy_kwh is None:
        return None
    measured: float | None = getattr(update.cost, cost)
    return measured


def relative_error(forecast: Forecast, update: Update, cost: str) -> float | None:
    """Return ``(forecast - measured) / measured``; None for a missed target or without a comparable cost."""
    estimate, measured = forecast.estimates.get(cost), comparable_cost(forecast, update, cost)
    if estimate is None or not measured or not update.reached:
        return None
    return (estimate.value - measured) / measured


def check_settles(model: "nn.Module", job: "RetrainingJob", forecast: Forecast) -> None:
    """Check that a forecast was made for this update.

    Data that had no labels may have another name since: labels often come with another file. There must be as many
    training samples as were forecast, and no more test samples.

    Args:
        model: Model to update.
        job: Retraining job.
        forecast: Forecast to settle.

    Raises:
        SettingError: Other model, data, target accuracy, shift type or recipe.
    """
    from resque.ledger.serialization import from_dict
    from resque.models.weights import fingerprint
    from resque.training.recipe import Recipe, recipe_to_dict

    # a forecast of an earlier version lacks the newer settings, which had their defaults
    changed = differing_settings(recipe_to_dict(from_dict(Recipe, forecast.recipe)), recipe_to_dict(job.recipe))
    theirs, ours = (", ".join(f"{name} {pair[side]}" for name, pair in changed.items()) for side in (0, 1))
    compared = {
        "model": (forecast.parent, job.parent or fingerprint(model)),
        "training data": (forecast.train_data, job.train.name),
        "test data": (forecast.test_data, job.test.name),
        "target accuracy": (forecast.target_accuracy, job.target_accuracy),
        "shift type": (forecast.shift_type, job.effective_shift_type),
        "recipe": (theirs, ours),
    }
    missing = forecast.missing_labels
    if missing.train and missing.train == len(job.train):  # labels come with another file
        del compared["training data"]
    if missing.test and len(job.test) <= missing.test:
        del compared["test data"]
    for what, (expected, given) in compared.items():
        if expected != given:
            made = f"forecast {forecast.id} was made for {what} {expected}"
            raise SettingError(f"{made}, not {given}: make a new forecast")


def differing_settings(expected: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return each setting of a recipe that differs, with both values; a setting on one side only is not compared.

    Numbers may differ in the seventh digit, as single precision does; words may differ in case.

    Example:
        >>> differing_settings({"optimizer": "adam", "batch_size": 32}, {"optimizer": "Adam", "batch_size": 64})
        {'batch_size': (32, 64)}
    """
    shared = {name: (value, given[name]) for name, value in expected.items() if name in given}
    return {name: pair for name, pair in shared.items() if not _is_same(*pair)}


def _is_same(expected: Any, given: Any) -> bool:
    if isinstance(expected, int | float) and isinstance(given, int | float):
        return math.isclose(expected, given, rel_tol=1e-6)
    if isinstance(expected, str) and isinstance(given, str):
        return expected.casefold() == given.casefold()
    return bool(expected == given)


def _probability_score(settled: Sequence[tuple[Forecast, Update]]) -> ProbabilityScore | None:
    """Score the probabilities of reaching the target; interrupted runs do not show whether they would have."""
    known = [
        (forecast.probability_reached, update.reached)
        for forecast, update in settled
        if update.reached or not update.stopped_by.startswith(_INTERRUPTED)
    ]
    if not known:
        return None
    probability, reached = np.array(known, dtype=float).T
    brier = float(((probability - reached) ** 2).mean())
    return ProbabilityScore(len(known), int(reached.sum()), float(probability.mean()), brier)


def _overhead(forecast: Forecast, update: Update) -> tuple[float, float | None]:
    """Return seconds and energy of a forecast; a pilot that the update continued is a part of the update instead.

    A pilot that was too short for the meter has the power of the probe.
    """
    wall_s, energy_kwh, pilot = forecast.overhead.wall_s, forecast.overhead.energy_kwh, forecast.pilot
    if pilot is None or update.pilot_steps:
        return wall_s, energy_kwh
    more_kwh = pilot.reading.energy_kwh
    if more_kwh is None:
        more_kwh = energy_share(forecast.step_cost.reading, pilot.reading.wall_s)
    return wall_s + pilot.reading.wall_s, _total([energy_kwh, more_kwh])


def _total(values: Sequence[float | None]) -> float | None:
    """Return the sum of costs; None if one of them is unknown."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None
