"""History + one forward pass + a probe of this machine → every cost of an update, with its interval.

``cost = steps × what a step takes``: only the steps, the gradient norm and the parameter change are learned from the
ledger (:mod:`resque.difficulty`), from what passes without training tell; seconds and joules per step come from the
probe, carbon from the named grid. So history made on one machine or in one region serves another.

The chance of reaching the target is asked of other predictors than the steps are: how far a model has to go is not how
far it can come. Runs that never reached their target enter as "longer than this" (censored). Updates of others may
shape the law where own ones are few, and are outweighed by them.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resque.difficulty import Law
from resque.errors import SettingError, TooFewUpdatesError
from resque.estimates import along, pace_of, taking, times, until_seen
from resque.evidence import PREDICTORS, Past, Question, at_start, chosen, knows, lag_of, of_reaching, pasts
from resque.outlook import Outlook, look
from resque.readings import EnergyReading, Grid, Interval
from resque.recipes import Retraining, plain_recipe
from resque.records import COSTS, Estimate, Features, Forecast, StepCost, Update, new_id, utc_now

LEVEL = 0.8
LEARNED = ("steps", "gradient_norm", "parameter_change")
FEWEST_UPDATES = 5
FEWEST_REACHED = 3
ALL = "the chosen ones"
CONSTANT = "constant median"
INDEX = "index"
_LARGEST_LOG = 700.0
_BEYOND = 0.1


@dataclass(frozen=True)
class Learned:
    """One cost, learned.

    Attributes:
        rows: What it was learned from.
        outlook: What follows for the update.
        known: Whether the user's own history holds this kind of shift on this model.
    """

    rows: Sequence[Past]
    outlook: Outlook
    known: bool


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
    predictor: str = ALL,
    level: float = LEVEL,
    prior: Sequence[Update] = (),
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
        model_name: For the record, and to know whose costs are of one size.
        predictor: One of :data:`resque.evidence.PREDICTORS` alone, or all of the chosen ones.
        level: Nominal coverage of the intervals.
        prior: Updates of others, read at targets of their own; they shape the law and promise nothing.

    Returns:
        Every cost that can be told, with its interval and what that promises.

    Raises:
        TooFewUpdatesError: Fewer than five usable updates.
        SettingError: Unknown predictor, a level outside (0, 1), or an index that was not computed.
    """
    if predictor not in (ALL, *PREDICTORS):
        raise SettingError(f"unknown predictor {predictor!r}: use one of {', '.join(PREDICTORS)}")
    check_level(level)
    question = Question.of(job, features, parent, model_name)
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
        "max_steps": job.max_steps,
        "step_cost": step_cost,
        "asking": asking,
        "grid": grid,
        "level": level,
    }
    if at_start(features, job.target_accuracy):
        return _nothing_to_do(common, predictor, grid, step_cost, level)
    names = chosen(history, question, prior) if predictor == ALL else (predictor,)
    steps = learn(history, prior, "steps", question, names, level)
    chance = (reaching(history, prior, question) or steps.outlook).chance(math.log(job.max_steps))
    learned = {"steps": steps}
    for cost in LEARNED[1:] if job.recipe.fixed_epochs is None else ():
        with contextlib.suppress(TooFewUpdatesError):  # a history from elsewhere may tell of steps alone
            learned[cost] = learn(history, prior, cost, question, names, level)
    mine = [row for row in steps.rows if row.own]
    interval, pace = _promise(level, steps), pace_of(history)
    estimates = {cost: _estimate(found, job, chance, interval) for cost, found in learned.items()}
    seen, lag = estimates["steps"], lag_of(steps.rows)
    estimates["steps"] = until_seen(seen, job, lag)
    for cost in learned.keys() - {"steps"}:  # they grow until the run is seen to have arrived
        estimates[cost] = along(estimates[cost], seen, estimates["steps"])
    estimates["epochs"] = times(estimates["steps"], 1.0 / job.steps_per_epoch)
    for name, factor in _factors(step_cost, grid).items():
        estimates[name] = taking(times(estimates["steps"], factor), pace)
    others = {name: steps_by(history, (), question, name, job) for name in PREDICTORS}
    if others[INDEX] is None:
        others[INDEX] = steps_by(history, prior, question, INDEX, job)
    return Forecast(
        **common,
        predictor=", ".join(names),
        estimates={name: estimates[name] for name in COSTS if name in estimates},
        probability_reached=chance,
        n_history=len(mine),
        n_shipped=len(steps.rows) - len(mine),
        kinds_history=tuple(sorted({str(row.example.kind or "unnamed") for row in mine})),
        alternatives={
            **{name: said for name, said in others.items() if said is not None},
            CONSTANT: job.ends_at(_exp(float(np.median([row.example.log_cost for row in mine or steps.rows])))),
        },
        notes=(*_notes(mine), *_foreign(history, mine, job, parent)),
        doubts=tuple(_doubts(mine, history, question, names, of_reaching(history, question, prior), level)),
    )


def check_level(level: float) -> None:
    """Refuse a nominal coverage that is none."""
    if not 0.0 < level < 1.0:
        raise SettingError(f"level (--confidence) {level:g}: expected a share between 0 and 1, e.g. 0.8 for 80 %")


def reaching(history: Sequence[Update], prior: Sequence[Update], question: Question) -> Outlook | None:
    """The steps by what sees which accuracy is within reach: for chances alone; None where too few updates know it."""
    names = of_reaching(history, question, prior)
    if names:
        with contextlib.suppress(TooFewUpdatesError):
            return learn(history, prior, "steps", question, names).outlook
    return None


def chances(history: Sequence[Update], prior: Sequence[Update], question: Question) -> Outlook | None:
    """What the chance of reaching the target rests on in a forecast; None where there is none."""
    with contextlib.suppress(TooFewUpdatesError, SettingError):
        within_reach = reaching(history, prior, question)
        return within_reach or learn(history, prior, "steps", question, chosen(history, question, prior)).outlook
    return None


def learn(
    history: Sequence[Update],
    prior: Sequence[Update],
    cost: str,
    question: Question,
    names: Sequence[str],
    level: float = LEVEL,
) -> Learned:
    """One cost of an update, from finished ones.

    Raises:
        TooFewUpdatesError: The history teaches nothing of it.
        SettingError: A predictor is not known of the update.
    """
    if None in question.values(names):
        raise SettingError(f"not known of this update: {', '.join(names)}; let the forecast choose its predictors")
    mine = pasts(history, cost, question, names)
    rows = mine + pasts(prior, cost, question, names, own=False)
    _check_enough(mine, rows, question, names)
    known = knows((row.example for row in mine), question)
    law = Law([row.example for row in rows])
    outlook = look(law, question.example(names), [row.own for row in rows], known, level)
    return Learned(rows, outlook, known)


def _check_enough(mine: Sequence[Past], rows: Sequence[Past], question: Question, names: Sequence[str]) -> None:
    if len(rows) > len(mine):
        return
    reached = sum(not row.example.censored for row in mine)
    if mine and reached < FEWEST_REACHED:
        raise TooFewUpdatesError(
            f"{reached} of {len(mine)} updates in the ledger ever reached accuracy {question.target_accuracy:g}; "
            f"a forecast needs {FEWEST_REACHED}: ask for a lower target, or let them run longer"
        )
    if len(mine) < FEWEST_UPDATES and question.features.task_index is not None:
        raise TooFewUpdatesError(
            f"{len(mine)} new tasks in the ledger started below accuracy {question.target_accuracy:g}; a forecast "
            f"needs {FEWEST_UPDATES}: learn other tasks with `resque retrain --new-head` (or --extend)"
        )
    if len(mine) < FEWEST_UPDATES:
        raise TooFewUpdatesError(
            f"{len(mine)} updates in the ledger started below accuracy {question.target_accuracy:g} and have the "
            f"predictor ({', '.join(names)}); a forecast needs {FEWEST_UPDATES}: run `resque calibrate`, or "
            "`resque retrain` with --original"
        )
    if len({row.example.condition for row in mine}) == 1:
        raise TooFewUpdatesError(f"all {len(mine)} updates in the ledger are repeats of one: retrain for other shifts")


def steps_by(
    history: Sequence[Update], prior: Sequence[Update], question: Question, name: str, job: Retraining
) -> float | None:
    """The steps that another predictor would foretell, by the same method; None where it cannot."""
    try:
        learned, longest = learn(history, prior, "steps", question, (name,)), math.log(job.max_steps)
    except (TooFewUpdatesError, SettingError):
        return None
    arriving = _exp(learned.outlook.until(longest, learned.outlook.chance(longest), LEVEL).center)
    return job.ends_at(arriving * (1.0 - lag_of(learned.rows)(arriving) / 2.0))


def _factors(step_cost: StepCost, grid: Grid | None) -> dict[str, float]:
    factors = {"wall_s": step_cost.wall_s}
    if step_cost.energy_kwh is not None:
        factors["energy_kwh"] = step_cost.energy_kwh
        if grid is not None:
            factors["carbon_kg"] = step_cost.energy_kwh * grid.kg_per_kwh
    return factors


def _estimate(learned: Learned, job: Retraining, chance: float, interval: Interval) -> Estimate:
    """Back from the log scale, and never beyond the recipe's longest run.

    A gradient norm or parameter change is bounded by that run at the largest one per step in the history.
    """
    longest = job.max_steps * max(row.per_step for row in learned.rows)
    found = learned.outlook.until(math.log(longest), chance, interval.level)
    value, low, high, upper = map(_exp, (found.center, found.low, found.high, found.upper))
    return Estimate(value, dataclasses.replace(interval, low=low, high=high), upper)


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf


def _promise(level: float, learned: Learned) -> Interval:
    if learned.outlook.conformal:
        share = f"{max(0.0, 2 * level - 1):.0%}"
        promise = f"jackknife+: at least {share} if exchangeable with the history"
    elif learned.known:
        promise = "empirical only, no guarantee: too few updates for the level"
    else:
        unknown = "the history holds no update of this kind of shift on this model by this recipe"
        promise = f"empirical only, no guarantee: {unknown}"
    return Interval(0.0, None, level, promise)


def _doubts(
    mine: Sequence[Past],
    history: Sequence[Update],
    question: Question,
    names: Sequence[str],
    reach: Sequence[str],
    level: float,
) -> list[str]:
    """Why nobody should decide by this forecast: whatever others teach, own updates must bear it out."""
    if not mine:
        task = question.features.task_index is not None
        advice = "learn a few new tasks of your own" if task else "run `resque calibrate`, or a few updates of your own"
        return [f"it rests on updates of others alone: {advice}"]
    kin = [row for row in mine if row.example.group == question.group]
    reached = sum(not row.example.censored for row in kin)
    found = []
    if len(kin) < FEWEST_UPDATES:
        found.append(f"{len(kin)} own updates of this model and recipe; {FEWEST_UPDATES} are needed")
    elif reached < FEWEST_REACHED:
        found.append(f"{reached} of {len(kin)} own updates ever reached the target; {FEWEST_REACHED} are needed")
    elif len(different := {row.example.condition for row in kin}) == 1:
        found.append(f"all {len(kin)} own updates are repeats of one")
    elif len(different) < _needed(level):
        found.append(
            f"to be {100 * level:g}% sure takes {_needed(level)} different own updates, and there are {len(different)}"
        )
    for name in dict.fromkeys((*names, *reach) if kin else ()):
        (given,), seen = question.values([name]), _seen(history, question, name)
        if not seen:
            found.append(f"no own update of this model and recipe has its {name}")
        elif given is None or not min(seen) - _slack(seen) <= given <= max(seen) + _slack(seen):
            found.append(_extrapolated(name, "below" if given is not None and given < min(seen) else "above"))
    (index,), seen = question.values([INDEX]), _seen(history, question, INDEX)
    beside = INDEX not in (*names, *reach) and len(seen) >= FEWEST_UPDATES
    if beside and index is not None and index > max(seen) + _slack(seen):  # it decides nothing; nor was it ever seen
        found.append(_extrapolated(INDEX, "above"))
    return found


def _extrapolated(name: str, side: str) -> str:
    return f"extrapolated: {name} {side} all that this model's own updates by this recipe had"


def _seen(history: Sequence[Update], question: Question, name: str) -> list[float]:
    rows = pasts(history, "steps", question, [name])
    return [row.example.features[0] for row in rows if row.example.group == question.group]


def _slack(seen: Sequence[float]) -> float:
    """A tenth of the range; at most .1, which of a logarithm is a tenth of the number, and at least .01."""
    return min(_BEYOND, max(_BEYOND * (max(seen) - min(seen)), _BEYOND**2))


def _needed(level: float) -> int:
    """Updates that an interval of that level takes, whatever their distribution."""
    return math.ceil(level / (1.0 - level) - 1e-9)


def _notes(mine: Sequence[Past]) -> tuple[str, ...]:
    censored = sum(row.example.censored for row in mine)
    if not censored:
        return ()
    return (f"{censored} of {len(mine)} updates ended below the target: they count as longer than they ran",)


def _foreign(history: Sequence[Update], mine: Sequence[Past], job: Retraining, parent: str) -> tuple[str, ...]:
    """Say what of the history is of another model or recipe, where steps are not quite the same, or of no use."""
    names = ("optimizer", "learning_rate", "batch_size")
    own = [plain_recipe(job.recipe)[name] for name in names]
    counted = {
        "are of another model": sum(row.example.parent != parent for row in mine),
        "used another optimizer, learning rate or batch size": sum(
            [update.recipe.get(name) for name in names] != own for update in history
        ),
        "trained another part of the model": sum(
            update.recipe.get("trains", "all") != job.recipe.trains for update in history
        ),
        "were left out: begun at the target or from scratch, another layer's index, or another change": len(history)
        - len(mine),
    }
    return tuple(f"{n} of {len(history)} updates in the ledger {what}" for what, n in counted.items() if n)


def _nothing_to_do(
    common: Mapping[str, Any], predictor: str, grid: Grid | None, step_cost: StepCost, level: float
) -> Forecast:
    names = [*LEARNED, "epochs", "wall_s"]
    if step_cost.energy_kwh is not None:
        names += ["energy_kwh", *(["carbon_kg"] if grid else [])]
    zero = Estimate(0.0, Interval(0.0, 0.0, level, "measured: the model is at the target already"), 0.0)
    return Forecast(
        **common,
        predictor=predictor,
        estimates={name: zero for name in COSTS if name in names},
        probability_reached=1.0,
        n_history=0,
        kinds_history=(),
        alternatives={},
        notes=("the model is at the target already: nothing to retrain",),
    )
