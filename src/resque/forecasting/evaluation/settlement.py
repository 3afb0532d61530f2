"""Forecasts beside what happened: which intervals held, how far off they were, which predictor came closest."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from resque._display import Display, Displayable
from resque._format import COST_NAMES, NOT_MEASURED, format_probability, format_share
from resque.errors import SettingError
from resque.ledger.records import COSTS, Forecast, Update

if TYPE_CHECKING:
    from torch import nn

    from resque.training.job import RetrainingJob

FORECAST = "the forecast"
_BROKEN_OFF = ("max hours", "max kWh", "the user")


@dataclass(frozen=True)
class PredictorScore:
    """How well one predictor foretold the steps of the settled updates.

    Attributes:
        predictor: ``"the forecast"`` as it was made, or what it would have rested on alone.
        n: Updates that reached their target.
        median_error: Median of ``|forecast - measured| / measured``.
        median_factor: Median of the larger of forecast and measured over the smaller.
        within_factor_2: Share within a factor of two.
        forecast_factor: The median factor of the forecast itself, on the same updates.
    """

    predictor: str
    n: int
    median_error: float
    median_factor: float
    within_factor_2: float
    forecast_factor: float


def score_predictors(settled: Sequence[tuple[Forecast, Update]]) -> list[PredictorScore]:
    """Each predictor's errors on updates that were forecast, then done; the best (smallest factor) first."""
    pairs: dict[str, list[tuple[float, int, float]]] = {}
    for said, update in settled:
        if update.reached and update.cost.steps and said.alternatives:
            own = said.estimates["steps"].value
            for name, steps in {FORECAST: own, **said.alternatives}.items():
                pairs.setdefault(name, []).append((steps, update.cost.steps, own))
    scores = []
    for name, both in pairs.items():
        said_steps, done, own_steps = np.array(both, dtype=float).T
        factors, own_factors = (np.exp(np.abs(np.log(each / done))) for each in (said_steps, own_steps))
        error = float(np.median(np.abs(said_steps - done) / done))
        middles = float(np.median(factors)), float(np.median(own_factors))
        scores.append(PredictorScore(name, len(both), error, middles[0], float((factors <= 2).mean()), middles[1]))
    return sorted(scores, key=lambda score: score.median_factor)


def is_covered(said: Forecast, update: Update, cost: str) -> bool | None:
    """Whether an interval held what was measured; None where one of the two is missing.

    An update that never reached its target took longer than it ran: the interval held it if it ends later.
    """
    estimate, measured = said.estimates.get(cost), comparable_cost(said, update, cost)
    if estimate is None or measured is None:
        return None
    if update.reached:
        return measured in estimate.interval
    return estimate.interval.high is None or estimate.interval.high >= measured


def comparable_cost(said: Forecast, update: Update, cost: str) -> float | None:
    """A measured cost that a forecast can be judged by; None where it cannot.

    The energy of a run too short for the meter rests on a probe as the forecast does; the emissions of another
    grid were not what was asked for.
    """
    if cost == "carbon_kg" and said.grid != update.grid:
        return None
    if cost in ("energy_kwh", "carbon_kg") and update.energy.energy_kwh is None:
        return None
    measured: float | None = getattr(update.cost, cost)
    return measured


def relative_error(said: Forecast, update: Update, cost: str) -> float | None:
    """``(forecast - measured) / measured`` of an update that reached its target; None where it cannot be judged."""
    estimate, measured = said.estimates.get(cost), comparable_cost(said, update, cost)
    if estimate is None or not measured or not update.reached:
        return None
    return (estimate.value - measured) / measured


@dataclass(frozen=True)
class ProbabilityScore:
    """Chances of reaching the target beside what came.

    Attributes:
        n: Runs that reached it, or ended by the rules of their recipe without.
        reached: Those that did.
        said: Mean chance.
        brier: Mean squared error of the chance.
    """

    n: int
    reached: int
    said: float
    brier: float


@dataclass(frozen=True)
class Settlement(Displayable):
    """Forecasts beside what happened, summed up.

    Attributes:
        n: Settled forecasts that foretold any training.
        covered: Cost → (intervals that covered the measured cost, intervals that could be judged).
        median_error: Cost → median of ``|forecast - measured| / measured``, over updates that reached the target.
        scores: Predictors by their error in steps, best first.
        asking_s: Seconds that the forecasts took together.
        asking_kwh: Their energy, None if unknown.
        doing_s: Seconds of training in the updates.
        doing_kwh: Their energy, None if unknown.
        chances: Of reaching the target; None where no run shows whether it would have.
    """

    n: int
    covered: Mapping[str, tuple[int, int]]
    median_error: Mapping[str, float]
    scores: Sequence[PredictorScore]
    asking_s: float
    asking_kwh: float | None
    doing_s: float
    doing_kwh: float | None
    chances: ProbabilityScore | None = None

    def _display(self) -> Display:
        lines = []
        if self.chances is not None:
            lines.append(
                f"probability of reaching the target: forecast {format_probability(self.chances.said)} on average, "
                f"reached {format_share(self.chances.reached, self.chances.n)} (Brier score {self.chances.brier:.3f})"
            )
        return Display(
            f"Forecast accuracy over {self.n} settled update{'s' * (self.n != 1)}",
            ("cost", "intervals that covered", "median error"),
            [
                (
                    COST_NAMES[cost],
                    format_share(*counts),
                    f"{self.median_error[cost]:.0%}" if cost in self.median_error else NOT_MEASURED,
                )
                for cost, counts in self.covered.items()
            ],
            lines,
        )


def summarize_settlements(settled: Sequence[tuple[Forecast, Update]]) -> Settlement:
    """Sum up all settled forecasts that foretold any training."""
    pairs = [(said, update) for said, update in settled if said.alternatives]
    verdicts = {cost: [is_covered(said, update, cost) for said, update in pairs] for cost in COSTS}
    errors: dict[str, list[float]] = {}
    for said, update in pairs:
        for cost in said.estimates:
            error = relative_error(said, update, cost)
            if error is not None:
                errors.setdefault(cost, []).append(abs(error))
    return Settlement(
        n=len(pairs),
        covered={c: (sum(v is True for v in all_), sum(v is not None for v in all_)) for c, all_ in verdicts.items()},
        median_error={cost: float(np.median(values)) for cost, values in errors.items()},
        scores=score_predictors(pairs),
        asking_s=math.fsum(said.overhead.wall_s for said, _ in pairs),
        asking_kwh=_total([said.overhead.energy_kwh for said, _ in pairs]),
        doing_s=math.fsum(update.cost.wall_s for _, update in pairs),
        doing_kwh=_total([update.cost.energy_kwh for _, update in pairs]),
        chances=_chances(pairs),
    )


def _chances(settled: Sequence[tuple[Forecast, Update]]) -> ProbabilityScore | None:
    """A run that somebody or a budget broke off does not say whether it would have arrived."""
    known = [
        (said.probability_reached, update.reached)
        for said, update in settled
        if update.reached or update.stopped_by not in _BROKEN_OFF
    ]
    if not known:
        return None
    said, came = np.array(known, dtype=float).T
    return ProbabilityScore(len(known), int(came.sum()), float(said.mean()), float(((said - came) ** 2).mean()))


def _total(values: Sequence[float | None]) -> float | None:
    """The sum, or None if any part is unknown: a sum with an unmeasured part is not called a total."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def check_settles(model: "nn.Module", job: "RetrainingJob", said: Forecast) -> None:
    """Refuse to settle a forecast with an update that it was not made for.

    Raises:
        SettingError: Another model, data set or target.
    """
    from resque.models.weights import fingerprint
    from resque.training.recipe import recipe_to_dict

    here = {
        "model": job.parent or fingerprint(model),
        "training data": job.train.name,
        "test data": job.test.name,
        "target accuracy": job.target_accuracy,
        "shift_type": job.effective_shift_type,
        "recipe": recipe_to_dict(job.recipe),
    }
    there = said.parent, said.train_data, said.test_data, said.target_accuracy, said.shift_type, dict(said.recipe)
    for (what, mine), theirs in zip(here.items(), there, strict=True):
        if isinstance(mine, dict) and isinstance(theirs, dict):
            other = [name for name in mine if mine[name] != theirs.get(name)]
            mine, theirs = (", ".join(f"{name} {each.get(name)}" for name in other) for each in (mine, theirs))
        if mine != theirs:
            raise SettingError(f"forecast {said.id} was made for {what} {theirs}, not {mine}: make a new forecast")
