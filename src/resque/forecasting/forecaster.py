"""Forecast every cost of an update from a history, forward passes and a probe of this machine.

The steps are learned from the learning curves of earlier runs (:mod:`resque.forecasting.curve_history`): simulated
curves of the update, and the first evaluation of each at the target. Their share that arrives is the probability.
Gradient norm and parameter change follow the steps. Time and energy per step come from the probe, and carbon from the
grid intensity. So a history from one machine or region serves another.

Bundled updates from other models may shape a forecast while the user's own updates are few.
"""

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.errors import TooFewUpdatesError
from resque.forecasting import costs
from resque.forecasting.curve_history import FEWEST_CURVES, CurveHistory, best_accuracy, central_share, total_steps
from resque.forecasting.history import (
    ForecastQuery,
    HistoryRow,
    evaluation_lag,
    history_rows,
    starts_at_target,
    teachers,
)
from resque.forecasting.intervals import LEVEL, check_level
from resque.forecasting.prediction import StepsModel
from resque.forecasting.predictors import PREDICTORS
from resque.forecasting.reliability import (
    beyond_earlier_runs,
    check_enough,
    history_notes,
    pilot_option,
    small_test_notes,
    unreliability_reasons,
)
from resque.forecasting.unknown_start import predict_from_start, unclear_start
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import COSTS, Estimate, Features, Forecast, StepCost, Update
from resque.training.finetuning import STATISTICS
from resque.training.job import RetrainingJob, missing_labels
from resque.training.recipe import recipe_to_dict
from resque.types import Interval

__all__ = ["CONSTANT", "NO_GUARANTEE", "forecast_from_features", "steps_by_predictor"]

CONSTANT = "constant median"
"""Name of the alternative forecast by the median of the history."""
NO_GUARANTEE = "no coverage guarantee (nominal level)"
"""What an interval of the steps promises."""
_GROWING = ("gradient_norm", "parameter_change")


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
    level: float = LEVEL,
    bundled: Sequence[Update] = (),
) -> Forecast:
    """Forecast every cost of an update before anything is trained.

    Args:
        history: The user's own finished updates. Updates that started at or above the target are not used.
        job: Retraining job to forecast.
        features: Features of the update from forward passes.
        step_cost: Cost per step, from a probe of this machine.
        overhead: Energy and time of the forward passes and the probe.
        parent: Fingerprint of the model.
        grid: Electricity grid; without it, carbon is not forecast.
        model_name: Name of the model. Updates of the same name are assumed to have costs on one scale.
        level: Nominal coverage of the intervals.
        bundled: Updates from other models.

    Returns:
        Forecast of each cost that the history and the probe allow, with its interval.

    Raises:
        TooFewUpdatesError: Fewer than five usable updates.
        SettingError: A level outside (0, 1).
    """
    check_level(level)
    missing = missing_labels(job)
    record = functools.partial(
        Forecast,
        id=new_id(),
        created_utc=utc_now(),
        model=model_name,
        parent=parent,
        train_data=job.train.name,
        test_data=job.test.name,
        shift_type=job.effective_shift_type,
        recipe=recipe_to_dict(job.recipe),
        target_accuracy=job.target_accuracy,
        features=features,
        max_steps=job.max_steps,
        step_cost=step_cost,
        overhead=overhead,
        grid=grid,
        level=level,
        missing_labels=missing,
        replay_data=job.replay_data,
        from_scratch=job.from_scratch,
    )
    per_step = costs.costs_per_step(step_cost, grid)
    if starts_at_target(features, job.target_accuracy):
        return _forecast_nothing(record, (*_GROWING, "epochs", *per_step), small_test_notes(features, job, level))
    if job.recipe.trains == STATISTICS:
        spread = costs.step_time_spread(history, costs.step_time_drift(history, step_cost.steps, bundled))
        return _forecast_pass(record, job, features, step_cost, spread)
    query = ForecastQuery.of(job, features, parent, model_name)
    own, others = ([*history_rows(updates, query, ())] for updates in (history, bundled))
    check_enough(own, others, query)
    known = CurveHistory(history, query, bundled)
    evaluations = [step for step in job.evaluations if step]
    paths, scores = predict_from_start(known, query, evaluations)
    if paths is None:
        raise TooFewUpdatesError(
            f"{known.n_own + known.n_bundled} updates have a learning curve; a forecast needs {FEWEST_CURVES}: "
            "do more updates"
        )
    probability = paths.probability_reached(job.target_accuracy)
    steps = total_steps(paths, job.target_accuracy, evaluations, level, NO_GUARANTEE, central_share(level))
    if job.recipe.fixed_epochs is not None:
        steps = Estimate(at := float(job.max_steps), Interval(at, at, level, "the recipe's epochs are fixed"), at)
    return record(
        predictor=", ".join(("learning curves", *scores)),
        estimates=_estimates(steps, job, history, query, bundled, step_cost, grid),
        probability_reached=probability,
        best_accuracy=best_accuracy(paths, level, NO_GUARANTEE),
        n_history=len(own),
        n_bundled=known.n_bundled,
        shift_types_history=tuple(sorted({str(row.example.shift_type or "unnamed") for row in own})),
        alternatives=_alternatives(history, query, job, bundled, own or others),
        notes=(*history_notes(history, own, job, parent), *small_test_notes(features, job, level)),
        reliability_issues=(
            *unreliability_reasons(own, history, query, pilot_option(job.max_steps, step_cost.wall_s, missing.total)),
            *unclear_start(features, job.target_accuracy, level),
            *beyond_earlier_runs(steps, probability, teachers(history, bundled, query), job.steps_per_epoch),
        ),
    )


def steps_by_predictor(
    history: Sequence[Update], query: ForecastQuery, predictor: str, job: RetrainingJob, bundled: Sequence[Update] = ()
) -> float | None:
    """Return the median steps to the target, predicted from one predictor; None where that is impossible."""
    if query.values((predictor,)) is None:
        return None
    try:
        model = StepsModel(history, query, (predictor,), bundled)
    except TooFewUpdatesError:
        return None
    distribution = model.predict(query)
    if distribution is None:
        return None
    median = math.exp(distribution.median_before(math.log(job.max_steps)))
    return job.evaluation_at_or_after(median * (1.0 - evaluation_lag(model.rows)(median) / 2.0))


def _estimates(
    steps: Estimate,
    job: RetrainingJob,
    history: Sequence[Update],
    query: ForecastQuery,
    bundled: Sequence[Update],
    step_cost: StepCost,
    grid: Grid | None,
) -> dict[str, Estimate]:
    """Return the forecast of every cost of a run."""
    estimates = {"steps": steps, "epochs": costs.scale(steps, 1.0 / job.steps_per_epoch)}
    for cost in _GROWING if job.recipe.fixed_epochs is None else ():
        grown = costs.cost_that_grows(cost, steps, history, query, bundled)
        if grown is not None:  # imported histories may hold steps alone
            estimates[cost] = grown
    spread = costs.step_time_spread(history, costs.step_time_drift(history, step_cost.steps, bundled))
    estimates |= costs.estimates_by_step(steps, step_cost, grid, spread)
    return {name: estimates[name] for name in COSTS if name in estimates}


def _alternatives(
    history: Sequence[Update],
    query: ForecastQuery,
    job: RetrainingJob,
    bundled: Sequence[Update],
    rows: Sequence[HistoryRow],
) -> dict[str, float]:
    """Return the steps by each predictor alone and by the median of the rows, for the comparison afterwards."""
    steps = {name: steps_by_predictor(history, query, name, job, bundled) for name in PREDICTORS}
    median = job.evaluation_at_or_after(math.exp(float(np.median([row.example.value for row in rows]))))
    return {**{name: each for name, each in steps.items() if each is not None}, CONSTANT: median}


def _forecast_pass(
    record: "functools.partial[Forecast]",
    job: RetrainingJob,
    features: Features,
    step_cost: StepCost,
    spread: costs.StepTimeSpread | None,
) -> Forecast:
    """Return the forecast of an update that is a single pass: its cost as probed; whether it arrives is a score."""
    grid, level = record.keywords["grid"], record.keywords["level"]
    one = Estimate(1.0, Interval(1.0, 1.0, level, "the update is one pass over the data"), 1.0)
    known = {"steps": one, "epochs": one, **costs.estimates_by_step(one, step_cost, grid, spread)}
    adapted = features.scores.get("adapted accuracy")
    return record(
        predictor="adapted accuracy",
        estimates={name: known[name] for name in COSTS if name in known},
        probability_reached=float(adapted is not None and adapted >= job.target_accuracy),
        best_accuracy=None if adapted is None else Estimate(adapted, Interval(adapted, adapted, level, "of a pass")),
        n_history=0,
        shift_types_history=(),
        reliability_issues=() if adapted is not None else ("the accuracy of the adapted model is unknown",),
    )


def _forecast_nothing(record: "functools.partial[Forecast]", names: Sequence[str], notes: Iterable[str]) -> Forecast:
    """Return the forecast for a model that is at the target already: every cost is zero."""
    guarantee = "measured: the model is already at the target"
    zero = Estimate(0.0, Interval(0.0, 0.0, record.keywords["level"], guarantee), 0.0)
    return record(
        predictor="accuracy",
        estimates={name: zero for name in COSTS if name in ("steps", *names)},
        probability_reached=1.0,
        n_history=0,
        shift_types_history=(),
        alternatives={},
        notes=("the model is already at the target: there is nothing to retrain", *notes),
    )
