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
from typing import Any

import numpy as np

from resque.errors import SettingError, TooFewUpdatesError
from resque.powerlaw import Past, Predicted, held_out
from resque.readings import EnergyReading, Grid, Interval
from resque.recipes import Retraining, plain_recipe
from resque.records import COSTS, Estimate, Features, Forecast, StepCost, Update, new_id, utc_now

LEVEL = 0.8
LEARNED = ("steps", "gradient_norm", "parameter_change")
FEWEST_UPDATES = 5
FEWEST_REACHED = 3
_TINY = 1e-6
_LARGEST_LOG = 700.0

Predictor = Callable[[Features, float], float | None]
PREDICTORS: dict[str, Predictor] = {
    "index": lambda features, target: features.index_rad,
    "accuracy drop": lambda features, target: None if features.accuracy is None else target - features.accuracy,
    "initial loss": lambda features, target: features.loss,
}
"""What a forecast can rest on: a positive number that is known before the update."""
CONSTANT = "constant median"


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
        raise SettingError(f"level (--confidence) {level:g}: expected a share between 0 and 1, e.g. 0.8 for 80 %")
    common: dict[str, Any] = {
        "id": new_id(),
        "created_utc": utc_now(),
        "model": model_name,
        "parent": parent,
        "train_data": job.train.name,
        "test_data": job.test.name,
        "kind": job.shift_kind,
        "recipe": plain_recipe(job.recipe),
        "target_accuracy": job.target_accuracy,
        "features": features,
        "predictor": predictor,
        "max_steps": job.max_steps,
        "step_cost": step_cost,
        "asking": asking,
        "grid": grid,
    }
    if _at_target(features, job.target_accuracy):
        return _nothing_to_do(common, grid, step_cost, level)
    pasts_of = {name: pasts(history, name, features, job.target_accuracy, predictor) for name in LEARNED}
    learned = {name: predict(rows, features, job, parent, predictor, level) for name, rows in pasts_of.items()}
    others = {name: steps_by(history, features, job, parent, name) for name in PREDICTORS if name != predictor}
    rows = pasts_of["steps"]
    known = _known(job, rows, parent)
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
            **{name: steps for name, steps in others.items() if steps is not None},
            CONSTANT: float(np.exp(np.median([row.y for row in rows]))),
        },
        notes=(*_notes(rows, features, job, predictor), *_foreign(history, rows, job, parent)),
    )


def steps_by(
    history: Sequence[Update], features: Features, job: Retraining, parent: str, predictor: str
) -> float | None:
    """The steps that another predictor would foretell, by the same method; None where it cannot."""
    rows = pasts(history, "steps", features, job.target_accuracy, predictor)
    try:
        return min(job.max_steps, _exp(predict(rows, features, job, parent, predictor, LEVEL).center))
    except (TooFewUpdatesError, SettingError):
        return None


def pasts(
    history: Sequence[Update], cost: str, features: Features, target_accuracy: float, predictor: str
) -> list[Past]:
    """The history's rows for one cost: every retraining that started below the target, read off its curve.

    An index of another layer or reduction is another quantity: those updates are left out.
    """
    rows = []
    for update in history:
        x = PREDICTORS[predictor](update.features, target_accuracy)
        at_target = update.cost_at(target_accuracy)
        spent = at_target or update.cost
        value = getattr(spent, cost)
        if x is None or value is None or value <= 0 or _at_target(update.features, target_accuracy):
            continue
        if update.from_scratch:
            continue
        if predictor == "index" and _kind_of_index(update.features) != _kind_of_index(features):
            continue
        rows.append(
            Past(
                x=math.log(max(x, _TINY)),
                y=math.log(value),
                censored=at_target is None,
                kind=update.kind,
                per_step=value / spent.steps,
                condition=f"{update.parent} {update.train_data}",
                parent=update.parent,
                gave_up=not update.reached,
            )
        )
    return rows


def _at_target(features: Features, target_accuracy: float) -> bool:
    return features.accuracy is not None and features.accuracy >= target_accuracy


def _kind_of_index(features: Features) -> tuple[str, str]:
    return features.layer, features.reduction


def predict(
    rows: Sequence[Past], features: Features, job: Retraining, parent: str, predictor: str, level: float
) -> Predicted:
    """One cost on the log scale, from the history's rows for it.

    Where the history knows this kind of shift on this model, the kind has an offset of its own and each update
    is held out in turn, together with its repeats. Where it does not, there are no offsets and each whole kind is held
    out: then the spread between kinds is in the width.
    """
    reached = sum(not row.censored for row in rows)
    if rows and reached < FEWEST_REACHED:
        raise TooFewUpdatesError(
            f"{reached} of {len(rows)} updates in the ledger ever reached accuracy {job.target_accuracy:g}; "
            f"a forecast needs {FEWEST_REACHED}: ask for a lower target, or let them run longer"
        )
    if len(rows) < FEWEST_UPDATES:
        raise TooFewUpdatesError(
            f"{len(rows)} updates in the ledger started below accuracy {job.target_accuracy:g} and have the "
            f"predictor ({predictor}); a forecast needs {FEWEST_UPDATES}: run `resque retrain` with --original"
        )
    given = PREDICTORS[predictor](features, job.target_accuracy)
    if given is None:
        raise SettingError("this forecast rests on the index: give --original and --shifted, or another predictor")
    kinds = [row.kind for row in rows]
    known = _known(job, rows, parent)
    new = Past(math.log(max(given, _TINY)), math.nan, False, job.shift_kind)
    one_kind = len(set(kinds)) == 1
    folds: Sequence[str | None] = [row.condition for row in rows] if known or one_kind else kinds
    if len(set(folds)) == 1:
        raise TooFewUpdatesError(f"all {len(rows)} updates in the ledger are repeats of one: retrain for other shifts")
    return held_out(rows, new, folds, known, level)


def _known(job: Retraining, rows: Sequence[Past], parent: str) -> bool:
    """Whether the history holds this kind of shift on this model; a kind that nobody named is not known."""
    return job.shift_kind is not None and job.shift_kind in {row.kind for row in rows if row.parent == parent}


def _probability(draws: np.ndarray, max_steps: int) -> float:
    """Share of held-out distances with which the update would end in time, by the rule of succession.

    An update that ran to its end in vain lies at infinity: it counts against. One that stopped at a lower
    target of its own says nothing here (NaN).
    """
    telling = draws[~np.isnan(draws)]
    return (int((telling <= math.log(max_steps)).sum()) + 1) / (len(telling) + 2)


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
        share = f"{max(0.0, 2 * level - 1):.0%}"
        promise = (
            f"jackknife+: at least {share} if exchangeable with the history and if a step costs what the probe saw"
        )
    else:
        promise = "empirical only, no guarantee: the history holds no update of this kind of shift on this model"
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
        notes.append(f"{censored} of {len(rows)} updates ended below the target: they count as longer than they ran")
    return tuple(notes)


def _foreign(history: Sequence[Update], rows: Sequence[Past], job: Retraining, parent: str) -> tuple[str, ...]:
    """Say what of the history is of another model or recipe, where steps are not quite the same, or of no use."""
    names = ("optimizer", "learning_rate", "batch_size")
    mine = [plain_recipe(job.recipe)[name] for name in names]
    counted = {
        "are of another model": sum(row.parent != parent for row in rows),
        "used another optimizer, learning rate or batch size": sum(
            [update.recipe.get(name) for name in names] != mine for update in history
        ),
        "trained another part of the model": sum(
            update.recipe.get("trains", "all") != job.recipe.trains for update in history
        ),
        "were left out: they started at the target or from scratch, or have no index of this layer": len(history)
        - len(rows),
    }
    return tuple(f"{n} of {len(history)} updates in the ledger {what}" for what, n in counted.items() if n)


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
