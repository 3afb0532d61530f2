"""History + one forward pass + a probe of this machine → every cost of an update, with its interval.

``cost = steps × what a step takes``: only the steps, the gradient norm and the parameter change are learned from the
ledger (:mod:`resque.forecasting.cost_model`), from what passes without training tell; seconds and joules per step come
from the probe, carbon from the named grid. So history made on one machine or in one region serves another.

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

from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.cost_model import CostModel
from resque.forecasting.costs import (
    rescale_with_steps,
    round_up_to_evaluation,
    scale,
    step_time_spread,
    widen_by_step_time,
)
from resque.forecasting.history import (
    ForecastQuery,
    HistoryRow,
    evaluation_lag,
    has_shift_type,
    history_rows,
    starts_at_target,
)
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.predictors import PREDICTORS
from resque.forecasting.reliability import (
    FEWEST_REACHED,
    FEWEST_UPDATES,
    INDEX,
    foreign_history_notes,
    history_notes,
    unreliability_reasons,
)
from resque.forecasting.selection import choose_predictors, predictors_of_success
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import COSTS, Estimate, Features, Forecast, StepCost, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict
from resque.types import Interval

LEVEL = 0.8
LEARNED = ("steps", "gradient_norm", "parameter_change")
ALL = "the chosen ones"
CONSTANT = "constant median"
_LARGEST_LOG = 700.0


@dataclass(frozen=True)
class FittedCost:
    """One cost, learned.

    Attributes:
        rows: What it was learned from.
        outlook: What follows for the update.
        known: Whether the user's own history holds this kind of shift on this model.
    """

    rows: Sequence[HistoryRow]
    outlook: PredictiveDistribution
    known: bool


def forecast_from_features(
    history: Sequence[Update],
    job: RetrainingJob,
    features: Features,
    *,
    step_cost: StepCost,
    overhead: EnergyReading,
    parent: str,
    grid: Grid | None = None,
    model_name: str = "",
    predictor: str = ALL,
    level: float = LEVEL,
    bundled: Sequence[Update] = (),
) -> Forecast:
    """What an update will cost, before anything is trained.

    Args:
        history: Finished updates; those that started at or above the target teach nothing and are left out.
        job: What would be done.
        features: What one forward pass said of it.
        step_cost: The probe of this machine.
        overhead: What the passes and the probe took.
        parent: Fingerprint of the model.
        grid: The electricity it is priced with; without it there is no carbon figure.
        model_name: For the record, and to know whose costs are of one size.
        predictor: One of :data:`resque.forecasting.predictors.PREDICTORS` alone, or all of the chosen ones.
        level: Nominal coverage of the intervals.
        bundled: Updates of others, read at targets of their own; they shape the law and promise nothing.

    Returns:
        Every cost that can be told, with its interval and what that promises.

    Raises:
        TooFewUpdatesError: Fewer than five usable updates.
        SettingError: Unknown predictor, a level outside (0, 1), or an index that was not computed.
    """
    if predictor not in (ALL, *PREDICTORS):
        raise SettingError(f"unknown predictor {predictor!r}: use one of {', '.join(PREDICTORS)}")
    check_level(level)
    query = ForecastQuery.of(job, features, parent, model_name)
    common: dict[str, Any] = {
        "id": new_id(),
        "created_utc": utc_now(),
        "model": model_name,
        "parent": parent,
        "train_data": job.train.name,
        "test_data": job.test.name,
        "shift_type": job.effective_shift_type,
        "recipe": recipe_to_dict(job.recipe),
        "target_accuracy": job.target_accuracy,
        "features": features,
        "max_steps": job.max_steps,
        "step_cost": step_cost,
        "overhead": overhead,
        "grid": grid,
        "level": level,
    }
    if starts_at_target(features, job.target_accuracy):
        return _nothing_to_do(common, predictor, grid, step_cost, level)
    names = choose_predictors(history, query, bundled) if predictor == ALL else (predictor,)
    steps = fit_cost(history, bundled, "steps", query, names, level)
    chance = (success_distribution(history, bundled, query) or steps.outlook).chance(math.log(job.max_steps))
    learned = {"steps": steps}
    for cost in LEARNED[1:] if job.recipe.fixed_epochs is None else ():
        with contextlib.suppress(TooFewUpdatesError):  # a history from elsewhere may tell of steps alone
            learned[cost] = fit_cost(history, bundled, cost, query, names, level)
    mine = [row for row in steps.rows if row.own]
    interval, pace = _promise(level, steps), step_time_spread(history)
    estimates = {cost: _estimate(found, job, chance, interval) for cost, found in learned.items()}
    seen, lag = estimates["steps"], evaluation_lag(steps.rows)
    estimates["steps"] = round_up_to_evaluation(seen, job, lag)
    for cost in learned.keys() - {"steps"}:  # they grow until the run is seen to have arrived
        estimates[cost] = rescale_with_steps(estimates[cost], seen, estimates["steps"])
    estimates["epochs"] = scale(estimates["steps"], 1.0 / job.steps_per_epoch)
    for name, factor in _factors(step_cost, grid).items():
        estimates[name] = widen_by_step_time(scale(estimates["steps"], factor), pace)
    others = {name: steps_by_predictor(history, (), query, name, job) for name in PREDICTORS}
    if others[INDEX] is None:
        others[INDEX] = steps_by_predictor(history, bundled, query, INDEX, job)
    return Forecast(
        **common,
        predictor=", ".join(names),
        estimates={name: estimates[name] for name in COSTS if name in estimates},
        probability_reached=chance,
        n_history=len(mine),
        n_bundled=len(steps.rows) - len(mine),
        shift_types_history=tuple(sorted({str(row.example.shift_type or "unnamed") for row in mine})),
        alternatives={
            **{name: said for name, said in others.items() if said is not None},
            CONSTANT: job.evaluation_at_or_after(
                _exp(float(np.median([row.example.log_cost for row in mine or steps.rows])))
            ),
        },
        notes=(*history_notes(mine), *foreign_history_notes(history, mine, job, parent)),
        reliability_issues=tuple(
            unreliability_reasons(mine, history, query, names, predictors_of_success(history, query, bundled), level)
        ),
    )


def check_level(level: float) -> None:
    """Refuse a nominal coverage that is none."""
    if not 0.0 < level < 1.0:
        raise SettingError(f"level (--confidence) {level:g}: expected a share between 0 and 1, e.g. 0.8 for 80 %")


def success_distribution(
    history: Sequence[Update], bundled: Sequence[Update], query: ForecastQuery
) -> PredictiveDistribution | None:
    """The steps by what sees which accuracy is within reach: for chances alone; None where too few updates know it."""
    names = predictors_of_success(history, query, bundled)
    if names:
        with contextlib.suppress(TooFewUpdatesError):
            return fit_cost(history, bundled, "steps", query, names).outlook
    return None


def reach_distribution(
    history: Sequence[Update], bundled: Sequence[Update], query: ForecastQuery
) -> PredictiveDistribution | None:
    """What the chance of reaching the target rests on in a forecast; None where there is none."""
    with contextlib.suppress(TooFewUpdatesError, SettingError):
        reach_distribution = success_distribution(history, bundled, query)
        return (
            reach_distribution
            or fit_cost(history, bundled, "steps", query, choose_predictors(history, query, bundled)).outlook
        )
    return None


def fit_cost(
    history: Sequence[Update],
    bundled: Sequence[Update],
    cost: str,
    query: ForecastQuery,
    names: Sequence[str],
    level: float = LEVEL,
) -> FittedCost:
    """One cost of an update, from finished ones.

    Raises:
        TooFewUpdatesError: The history teaches nothing of it.
        SettingError: A predictor is not known of the update.
    """
    if None in query.values(names):
        raise SettingError(f"not known of this update: {', '.join(names)}; let the forecast choose its predictors")
    mine = history_rows(history, cost, query, names)
    rows = mine + history_rows(bundled, cost, query, names, own=False)
    _check_enough(mine, rows, query, names)
    known = has_shift_type((row.example for row in mine), query)
    law = CostModel([row.example for row in rows])
    outlook = predict(law, query.example(names), [row.own for row in rows], known, level)
    return FittedCost(rows, outlook, known)


def _check_enough(
    mine: Sequence[HistoryRow], rows: Sequence[HistoryRow], query: ForecastQuery, names: Sequence[str]
) -> None:
    if len(rows) > len(mine):
        return
    reached = sum(not row.example.censored for row in mine)
    if mine and reached < FEWEST_REACHED:
        raise TooFewUpdatesError(
            f"{reached} of {len(mine)} updates in the ledger ever reached accuracy {query.target_accuracy:g}; "
            f"a forecast needs {FEWEST_REACHED}: ask for a lower target, or let them run longer"
        )
    if len(mine) < FEWEST_UPDATES and query.features.task_index is not None:
        raise TooFewUpdatesError(
            f"{len(mine)} new tasks in the ledger started below accuracy {query.target_accuracy:g}; a forecast "
            f"needs {FEWEST_UPDATES}: learn other tasks with `resque retrain --new-head` (or --extend)"
        )
    if len(mine) < FEWEST_UPDATES:
        raise TooFewUpdatesError(
            f"{len(mine)} updates in the ledger started below accuracy {query.target_accuracy:g} and have the "
            f"predictor ({', '.join(names)}); a forecast needs {FEWEST_UPDATES}: run `resque calibrate`, or "
            "`resque retrain` with --original"
        )
    if len({row.example.condition for row in mine}) == 1:
        raise TooFewUpdatesError(f"all {len(mine)} updates in the ledger are repeats of one: retrain for other shifts")


def steps_by_predictor(
    history: Sequence[Update], bundled: Sequence[Update], query: ForecastQuery, name: str, job: RetrainingJob
) -> float | None:
    """The steps that another predictor would foretell, by the same method; None where it cannot."""
    try:
        learned, longest = fit_cost(history, bundled, "steps", query, (name,)), math.log(job.max_steps)
    except (TooFewUpdatesError, SettingError):
        return None
    arriving = _exp(learned.outlook.until(longest, learned.outlook.chance(longest), LEVEL).center)
    return job.evaluation_at_or_after(arriving * (1.0 - evaluation_lag(learned.rows)(arriving) / 2.0))


def _factors(step_cost: StepCost, grid: Grid | None) -> dict[str, float]:
    factors = {"wall_s": step_cost.wall_s}
    if step_cost.energy_kwh is not None:
        factors["energy_kwh"] = step_cost.energy_kwh
        if grid is not None:
            factors["carbon_kg"] = step_cost.energy_kwh * grid.kg_per_kwh
    return factors


def _estimate(learned: FittedCost, job: RetrainingJob, chance: float, interval: Interval) -> Estimate:
    """Back from the log scale, and never beyond the recipe's longest run.

    A gradient norm or parameter change is bounded by that run at the largest one per step in the history.
    """
    longest = job.max_steps * max(row.per_step for row in learned.rows)
    found = learned.outlook.until(math.log(longest), chance, interval.level)
    value, low, high, upper = map(_exp, (found.center, found.low, found.high, found.upper))
    return Estimate(value, dataclasses.replace(interval, low=low, high=high), upper)


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf


def _promise(level: float, learned: FittedCost) -> Interval:
    if learned.outlook.conformal:
        share = f"{max(0.0, 2 * level - 1):.0%}"
        promise = f"jackknife+: at least {share} if exchangeable with the history"
    elif learned.known:
        promise = "empirical only, no guarantee: too few updates for the level"
    else:
        unknown = "the history holds no update of this kind of shift on this model by this recipe"
        promise = f"empirical only, no guarantee: {unknown}"
    return Interval(0.0, None, level, promise)


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
        shift_types_history=(),
        alternatives={},
        notes=("the model is at the target already: nothing to retrain",),
    )
