"""History + one forward pass + a probe of this machine → every cost of an update, with its interval.

``cost = steps × what a step takes``: only the steps, the gradient norm and the parameter change are learned
from the ledger, as a power law of one feature; seconds and joules per step come from the probe, carbon from
the named grid. So history made on one machine or in one region serves another.

It does not know how high an accuracy can be reached; runs that never reached their target enter as
"longer than this" (censored), and where they decide, an interval has no upper bound.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from resque.errors import SettingError, TooFewUpdatesError
from resque.recipes import Retraining
from resque.records import (
    COSTS,
    EnergyReading,
    Estimate,
    Features,
    Forecast,
    Grid,
    Interval,
    StepCost,
    Update,
    new_id,
    utc_now,
)

LEVEL = 0.8
LEARNED = ("steps", "gradient_norm", "parameter_change")
FEWEST_UPDATES = 5
_TINY = 1e-6
_CENSORING_ROUNDS = 50
_LARGEST_LOG = 700.0

Predictor = Callable[[Features, float], float | None]
PREDICTORS: dict[str, Predictor] = {
    "index": lambda features, target: features.index_rad,
    "accuracy drop": lambda features, target: target - features.accuracy,
    "initial loss": lambda features, target: features.loss,
}
"""What a forecast can rest on: a positive number that is known before the update."""
CONSTANT = "constant median"


@dataclass(frozen=True)
class Past:
    """What one finished update says about one cost at one target.

    Attributes:
        x: Log of the predictor.
        y: Log of the cost; of the cost so far where it was censored.
        censored: Whether the run ended below the target.
        kind: Kind of shift.
        per_step: The cost over the steps it went with.
    """

    x: float
    y: float
    censored: bool
    kind: str | None
    per_step: float = 1.0


@dataclass(frozen=True)
class Predicted:
    """A cost on the log scale: where it is expected, and how far held-out updates were from where they were."""

    center: float
    low: float
    high: float
    draws: np.ndarray


def forecast(
    history: Sequence[Update],
    job: Retraining,
    features: Features,
    *,
    step_cost: StepCost,
    asking: EnergyReading,
    parent: str,
    grid: Grid | None = None,
    model_name: str = "",
    predictor: str = "index",
    level: float = LEVEL,
) -> Forecast:
    """What an update will cost, before anything is trained.

    Args:
        history: Finished updates; those that started at or above the target teach nothing and are left out.
        job: What would be done.
        features: What one forward pass said of it.
        step_cost: The probe of this machine.
        asking: What the passes and the probe took.
        parent: Fingerprint of the model.
        grid: The electricity it is priced with; without it there is no carbon figure.
        model_name: For the record.
        predictor: One of ``PREDICTORS``.
        level: Nominal coverage of the intervals.

    Returns:
        Every cost that can be told, with its interval and what that promises.

    Raises:
        TooFewUpdatesError: Fewer than five usable updates.
        SettingError: Unknown predictor, a level outside (0, 1), or an index that was not computed.
    """
    if predictor not in PREDICTORS:
        raise SettingError(f"unknown predictor {predictor!r}: use one of {', '.join(PREDICTORS)}")
    if not 0.0 < level < 1.0:
        raise SettingError(f"level {level}: expected a share between 0 and 1, e.g. 0.8")
    common: dict[str, Any] = {
        "id": new_id(),
        "created_utc": utc_now(),
        "model": model_name,
        "parent": parent,
        "train_data": job.train.name,
        "test_data": job.test.name,
        "kind": job.shift_kind,
        "target_accuracy": job.target_accuracy,
        "features": features,
        "predictor": predictor,
        "max_steps": job.max_steps,
        "step_cost": step_cost,
        "asking": asking,
        "grid": grid,
    }
    if features.accuracy >= job.target_accuracy:
        return _nothing_to_do(common, grid, step_cost, level)
    pasts_of = {name: pasts(history, name, job.target_accuracy, predictor) for name in LEARNED}
    learned = {name: predict(rows, features, job, predictor, level) for name, rows in pasts_of.items()}
    others = [name for name in PREDICTORS if name != predictor and PREDICTORS[name](features, job.target_accuracy)]
    rows = pasts_of["steps"]
    known = job.shift_kind in {row.kind for row in rows}
    interval = _promise(level, known)
    longest = {name: job.max_steps * max(row.per_step for row in pasts_of[name]) for name in LEARNED}
    estimates = {name: _estimate(learned[name], longest[name], interval) for name in LEARNED}
    for name, factor in _factors(job, step_cost, grid).items():
        estimates[name] = _estimate(learned["steps"], longest["steps"], interval, factor)
    return Forecast(
        **common,
        estimates={name: estimates[name] for name in COSTS if name in estimates},
        probability_reached=_probability(learned["steps"].draws, job.max_steps),
        n_history=len(rows),
        kinds_history=tuple(sorted({row.kind or "unnamed" for row in rows})),
        alternatives={
            **{name: steps_by(history, features, job, name) for name in others},
            CONSTANT: float(np.exp(np.median([row.y for row in rows]))),
        },
        notes=_notes(rows, features, job, predictor),
    )


def steps_by(history: Sequence[Update], features: Features, job: Retraining, predictor: str) -> float:
    """The steps that another predictor would foretell, by the same method."""
    rows = pasts(history, "steps", job.target_accuracy, predictor)
    return min(job.max_steps, _exp(predict(rows, features, job, predictor, LEVEL).center))


def pasts(history: Sequence[Update], cost: str, target_accuracy: float, predictor: str) -> list[Past]:
    """The history's rows for one cost: every update that started below the target, read off its curve."""
    rows = []
    for update in history:
        x = PREDICTORS[predictor](update.features, target_accuracy)
        at_target = update.cost_at(target_accuracy)
        spent = at_target or update.cost
        value = getattr(spent, cost)
        if x is None or value is None or value <= 0 or update.features.accuracy >= target_accuracy:
            continue
        rows.append(Past(math.log(max(x, _TINY)), math.log(value), at_target is None, update.kind, value / spent.steps))
    return rows


def predict(rows: Sequence[Past], features: Features, job: Retraining, predictor: str, level: float) -> Predicted:
    """A power law fitted to the history, with a jackknife+ interval (Barber et al. 2021) on the log scale.

    Where the history knows this kind of shift, the kind has an offset of its own and each update is held out
    in turn. Where it does not, there are no offsets and each whole kind is held out: then the spread between
    kinds is in the width. A censored update's distance is unknown upwards.
    """
    if len(rows) < FEWEST_UPDATES:
        raise TooFewUpdatesError(
            f"{len(rows)} updates in the ledger started below accuracy {job.target_accuracy:g} and have the "
            f"predictor ({predictor}); a forecast needs {FEWEST_UPDATES}: run `resque retrain` with --original"
        )
    given = PREDICTORS[predictor](features, job.target_accuracy)
    if given is None:
        raise SettingError("this forecast rests on the index: give --original and --shifted, or another predictor")
    kinds = [row.kind for row in rows]
    known = job.shift_kind in kinds
    new = Past(math.log(max(given, _TINY)), math.nan, False, job.shift_kind)
    folds = list(range(len(rows))) if known or len(set(kinds)) == 1 else kinds
    draws, lows, highs = (np.empty(len(rows)) for _ in range(3))
    for fold in set(folds):
        out = [i for i, other in enumerate(folds) if other == fold]
        law = PowerLaw.fitted([row for row, other in zip(rows, folds, strict=True) if other != fold], known)
        for i in out:
            residual, at_new = rows[i].y - law.at(rows[i]), law.at(new)
            draws[i] = at_new + residual
            lows[i] = at_new - abs(residual)
            highs[i] = math.inf if rows[i].censored else at_new + abs(residual)
    low, high = _outer(lows, highs, level)
    return Predicted(PowerLaw.fitted(rows, known).at(new), low, high, draws)


@dataclass(frozen=True)
class PowerLaw:
    """``log cost = intercept + slope × log predictor``, and an offset for each kind of shift.

    Attributes:
        intercept: Log of the cost where the predictor is 1.
        slope: Exponent of the predictor.
        offsets: Kind → how much its log cost lies above the line; empty where kinds are not told apart.
    """

    intercept: float
    slope: float
    offsets: Mapping[str | None, float]

    @classmethod
    def fitted(cls, rows: Sequence[Past], by_kind: bool) -> "PowerLaw":
        """Least squares, the offsets shrunk as if each were held to zero by one more update.

        A censored value is a lower bound: it is replaced by its expectation given that it lies above, until
        that settles (Schmee and Hahn, 1979).

        Args:
            rows: The history.
            by_kind: Whether to learn an offset for each kind.

        Example:
            >>> rows = [Past(x, 1 + 2 * x, False, None) for x in (0.0, 1.0, 2.0)]
            >>> PowerLaw.fitted(rows, by_kind=False)
            PowerLaw(intercept=1.0, slope=2.0, offsets={})
        """
        x, y, censored = (np.array([getattr(row, name) for row in rows]) for name in ("x", "y", "censored"))
        kinds = sorted({row.kind for row in rows}, key=str) if by_kind else []
        dummies = np.array([[row.kind == kind for kind in kinds] for row in rows], dtype=float).reshape(len(rows), -1)
        slope_column = x - x.mean() if np.ptp(x) > 1e-9 else np.zeros_like(x)
        design = np.column_stack([np.ones_like(x), slope_column, dummies])
        held = np.diag([0.0, 0.0] + [1.0] * len(kinds))[2:]  # one pseudo-update per kind, at offset zero
        filled = y.copy()
        for _ in range(_CENSORING_ROUNDS):
            stacked = np.vstack([design, held]), np.concatenate([filled, np.zeros(len(kinds))])
            weights, *_ = np.linalg.lstsq(*stacked, rcond=None)
            expected = _above(design @ weights, filled, y, censored)
            settled = np.allclose(expected, filled, atol=1e-6)
            filled = expected
            if settled:
                break
        intercept = weights[0] - weights[1] * x.mean()
        offsets = {kind: float(offset) for kind, offset in zip(kinds, weights[2:], strict=True)}
        return cls(round(float(intercept), 12), round(float(weights[1]), 12), offsets)

    def at(self, row: Past) -> float:
        """Expected log cost."""
        return self.intercept + self.slope * row.x + self.offsets.get(row.kind, 0.0)


def _above(mean: np.ndarray, filled: np.ndarray, y: np.ndarray, censored: np.ndarray) -> np.ndarray:
    """Censored values replaced by their expectation above their bound, for normal errors around ``mean``."""
    if not censored.any() or censored.all():
        return y
    sigma = max(float(np.std((filled - mean)[~censored])), 1e-6)
    bound = (y - mean) / sigma
    hazard = np.exp(stats.norm.logpdf(bound) - stats.norm.logsf(bound))
    return np.where(censored, mean + sigma * hazard, y)


def _outer(lows: np.ndarray, highs: np.ndarray, level: float) -> tuple[float, float]:
    """Jackknife+'s order statistics; unbounded where n is too small for the level."""
    n = len(lows)
    rank = math.ceil((n + 1) * level - 1e-9)
    if rank > n:
        return -math.inf, math.inf
    return float(np.sort(lows)[n - rank]), float(np.sort(highs)[rank - 1])


def _probability(draws: np.ndarray, max_steps: int) -> float:
    """Share of held-out distances with which the update would end in time, by the rule of succession."""
    return (int((draws <= math.log(max_steps)).sum()) + 1) / (len(draws) + 2)


def _factors(job: Retraining, step_cost: StepCost, grid: Grid | None) -> dict[str, float]:
    factors = {"epochs": 1.0 / job.steps_per_epoch, "wall_s": step_cost.wall_s}
    if step_cost.energy_kwh is not None:
        factors["energy_kwh"] = step_cost.energy_kwh
        if grid is not None:
            factors["carbon_kg"] = step_cost.energy_kwh * grid.intensity_g_per_kwh / 1000.0
    return factors


def _estimate(predicted: Predicted, longest: float, interval: Interval, factor: float = 1.0) -> Estimate:
    """Back from the log scale, and never beyond the recipe's longest run.

    A gradient norm or parameter change is bounded by that run at the largest one per step in the history.
    """
    value, low, high = (factor * min(longest, _exp(log)) for log in (predicted.center, predicted.low, predicted.high))
    return Estimate(value, dataclasses.replace(interval, low=low, high=high))


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf


def _promise(level: float, known: bool) -> Interval:
    if known:
        promise = f"jackknife+: at least {max(0.0, 2 * level - 1):.0%} if this update is exchangeable with the history"
    else:
        promise = "empirical only, no guarantee: the history holds no update of this kind of shift"
    return Interval(0.0, None, level, promise)


def _notes(rows: Sequence[Past], features: Features, job: Retraining, predictor: str) -> tuple[str, ...]:
    notes = []
    given = PREDICTORS[predictor](features, job.target_accuracy)
    low, high = min(row.x for row in rows), max(row.x for row in rows)
    if given is not None and not low - 1e-9 <= math.log(max(given, _TINY)) <= high + 1e-9:
        span = f"{math.exp(low):.3g} to {math.exp(high):.3g}"
        notes.append(f"{predictor} {given:.3g} lies outside the history's {span}: extrapolated")
    censored = sum(row.censored for row in rows)
    if censored:
        notes.append(f"{censored} of {len(rows)} updates never reached the target: they count as longer than they ran")
    return tuple(notes)


def _nothing_to_do(common: Mapping[str, Any], grid: Grid | None, step_cost: StepCost, level: float) -> Forecast:
    names = [*LEARNED, "epochs", "wall_s"]
    if step_cost.energy_kwh is not None:
        names += ["energy_kwh", *(["carbon_kg"] if grid else [])]
    zero = Estimate(0.0, Interval(0.0, 0.0, level, "measured: the model is at the target already"))
    return Forecast(
        **common,
        estimates={name: zero for name in COSTS if name in names},
        probability_reached=1.0,
        n_history=0,
        kinds_history=(),
        alternatives={},
        notes=("the model is at the target already: nothing to retrain",),
    )
