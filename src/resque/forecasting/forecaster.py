"""Forecast every cost of an update from a history, one forward pass and a probe of this machine.

``cost = steps × cost per step``. Only steps, gradient norm and parameter change are learned from the ledger
(:mod:`resque.forecasting.cost_model`). Time and energy per step come from the probe, and carbon from the grid
intensity. So a history from one machine or region serves another.

The probability of reaching the target uses other predictors than the steps: the distance to a target does not show
whether it can be reached. Runs that missed their target are right-censored. Bundled updates from other models may
shape a forecast while the user's own updates are few.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting import costs
from resque.forecasting.history import ForecastQuery, HistoryRow, evaluation_lag, starts_at_target
from resque.forecasting.intervals import LEVEL, check_level
from resque.forecasting.prediction import CostPrediction, predict_cost, success_distribution
from resque.forecasting.predictors import PREDICTORS
from resque.forecasting.reliability import INDEX, history_notes, unreliability_reasons
from resque.forecasting.selection import choose_predictors, predictors_of_success
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import COSTS, Estimate, Features, Forecast, StepCost, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict
from resque.types import Interval

__all__ = ["AUTOMATIC", "CONSTANT", "forecast_from_features", "steps_by_predictor"]

AUTOMATIC = "automatic selection"
"""Value of ``predictor`` that lets the forecast choose its predictors."""
CONSTANT = "constant median"
"""Name of the alternative forecast by the median of the history."""
_LEARNED = ("steps", "gradient_norm", "parameter_change")
_LARGEST_LOG = 700.0  # beyond, exp overflows float64


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
    predictor: str = AUTOMATIC,
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
        predictor: One of :data:`resque.forecasting.predictors.PREDICTORS`; by default, several are chosen.
        level: Nominal coverage of the intervals.
        bundled: Updates from other models, each read at its own target. They carry no coverage guarantee.

    Returns:
        Forecast of each cost that the history and the probe allow, with its interval and coverage guarantee.

    Raises:
        TooFewUpdatesError: Fewer than five usable updates.
        SettingError: Unknown predictor, level outside (0, 1), or missing feature for the predictor.
    """
    if predictor not in (AUTOMATIC, *PREDICTORS):
        raise SettingError(f"unknown predictor {predictor!r}: use one of {', '.join(PREDICTORS)}")
    check_level(level)
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
    )
    per_step = costs.costs_per_step(step_cost, grid)
    if starts_at_target(features, job.target_accuracy):
        return _forecast_nothing(record, predictor, (*_LEARNED, "epochs", *per_step), level)
    query = ForecastQuery.of(job, features, parent, model_name)
    names = choose_predictors(history, query, bundled) if predictor == AUTOMATIC else (predictor,)
    steps = predict_cost(history, "steps", query, names, bundled, level)
    success = success_distribution(history, query, bundled) or steps.distribution
    probability = success.probability_below(math.log(job.max_steps))
    learned = {"steps": steps}
    for cost in _LEARNED[1:] if job.recipe.fixed_epochs is None else ():
        with contextlib.suppress(TooFewUpdatesError):  # imported histories may hold steps alone
            learned[cost] = predict_cost(history, cost, query, names, bundled, level)
    own, used = steps.own_rows, (*names, *predictors_of_success(history, query, bundled))
    return record(
        predictor=", ".join(names),
        estimates=_estimates(learned, job, probability, level, per_step, costs.step_time_spread(history)),
        probability_reached=probability,
        n_history=len(own),
        n_bundled=len(steps.rows) - len(own),
        shift_types_history=tuple(sorted({str(row.example.shift_type or "unnamed") for row in own})),
        alternatives=_alternatives(history, query, job, bundled, own or steps.rows),
        notes=history_notes(history, own, job, parent),
        reliability_issues=unreliability_reasons(own, history, query, used, level, step_cost.wall_s),
    )


def steps_by_predictor(
    history: Sequence[Update], query: ForecastQuery, predictor: str, job: RetrainingJob, bundled: Sequence[Update] = ()
) -> float | None:
    """Return the median steps to the target, predicted from one predictor; None where that is impossible."""
    try:
        prediction = predict_cost(history, "steps", query, (predictor,), bundled)
    except (TooFewUpdatesError, SettingError):
        return None
    limit = math.log(job.max_steps)
    distribution = prediction.distribution
    median = _exp(distribution.truncated_at(limit, distribution.probability_below(limit), LEVEL).median)
    return job.evaluation_at_or_after(median * (1.0 - evaluation_lag(prediction.rows)(median) / 2.0))


def _estimates(
    learned: Mapping[str, CostPrediction],
    job: RetrainingJob,
    probability: float,
    level: float,
    per_step: Mapping[str, float],
    spread: costs.StepTimeSpread | None,
) -> dict[str, Estimate]:
    """Return the forecast of every cost of a run that stops at an evaluation."""
    rows = learned["steps"].rows
    interval = Interval(0.0, None, level, _coverage_guarantee(learned["steps"], level))
    estimates = {cost: _estimate(each, job, probability, interval) for cost, each in learned.items()}
    steps = estimates["steps"]
    estimates["steps"] = costs.round_up_to_evaluation(steps, job, evaluation_lag(rows))
    for cost in learned.keys() - {"steps"}:  # they grow until the run stops
        estimates[cost] = costs.rescale_with_steps(estimates[cost], steps, estimates["steps"])
    estimates["epochs"] = costs.scale(estimates["steps"], 1.0 / job.steps_per_epoch)
    for cost, factor in per_step.items():
        estimates[cost] = costs.widen_by_step_time(costs.scale(estimates["steps"], factor), spread)
    return {name: estimates[name] for name in COSTS if name in estimates}


def _estimate(prediction: CostPrediction, job: RetrainingJob, probability: float, interval: Interval) -> Estimate:
    """Return a forecast on the original scale, bounded by the cost of the step budget.

    For gradient norm and parameter change, that cost is the step budget times the largest cost per step in the history.
    """
    limit = job.max_steps * max(row.per_step for row in prediction.rows)
    run = prediction.distribution.truncated_at(math.log(limit), probability, interval.level)
    interval = dataclasses.replace(interval, low=_exp(run.lower), high=_exp(run.upper))
    return Estimate(_exp(run.median), interval, _exp(run.upper_bound))


def _coverage_guarantee(prediction: CostPrediction, level: float) -> str:
    if prediction.distribution.conformal:
        return f"jackknife+: at least {max(0.0, 2 * level - 1):.0%} coverage if exchangeable with the history"
    unseen = "no own update has this shift type with this model and recipe"
    reason = "too few updates for this level" if prediction.shift_type_seen else unseen
    return f"no coverage guarantee (nominal level, not calibrated): {reason}"


def _alternatives(
    history: Sequence[Update],
    query: ForecastQuery,
    job: RetrainingJob,
    bundled: Sequence[Update],
    rows: Sequence[HistoryRow],
) -> dict[str, float]:
    """Return the steps by each predictor alone and by the median of the rows, for the comparison afterwards."""
    steps = {name: steps_by_predictor(history, query, name, job) for name in PREDICTORS}
    if steps[INDEX] is None:
        steps[INDEX] = steps_by_predictor(history, query, INDEX, job, bundled)
    median = job.evaluation_at_or_after(_exp(float(np.median([row.example.log_cost for row in rows]))))
    return {**{name: each for name, each in steps.items() if each is not None}, CONSTANT: median}


def _exp(log: float) -> float:
    return math.exp(log) if log < _LARGEST_LOG else math.inf


def _forecast_nothing(
    record: "functools.partial[Forecast]", predictor: str, names: Sequence[str], level: float
) -> Forecast:
    """Return the forecast for a model that is at the target already: every cost is zero."""
    zero = Estimate(0.0, Interval(0.0, 0.0, level, "measured: the model is already at the target"), 0.0)
    return record(
        predictor=predictor,
        estimates={name: zero for name in COSTS if name in names},
        probability_reached=1.0,
        n_history=0,
        shift_types_history=(),
        alternatives={},
        notes=("the model is already at the target: there is nothing to retrain",),
    )
