"""Revise a forecast while its update runs, from the learning curve so far (dynamic prediction by landmarking).

At a landmark step, the training data are the runs of the history still below their target then: the risk set (van
Houwelingen, 2007). Their features are the state of the run at the landmark: the log gap to the target, and the steps to
go if its recent slope continues. Their cost is the number of further steps to the target. New tasks use only new
tasks, and shifts only shifts.

A forecast is revised at every evaluation. Estimating the variances of the cost model takes most of the time, so they
are estimated again only when the steps have doubled.
"""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.cost_model import CostModel, TrainingExample
from resque.forecasting.costs import round_up_to_evaluation
from resque.forecasting.history import (
    ForecastQuery,
    cost_or_lower_bound,
    evaluation_lag,
    has_shift_type,
    history_rows,
    is_comparable,
    target_for,
    training_example,
)
from resque.forecasting.intervals import LEVEL, PredictiveDistribution, predict
from resque.forecasting.prediction import predict_cost, success_distribution
from resque.forecasting.selection import choose_predictors, updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, Forecast, ForecastRevision, LearningCurve, Update
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.types import Interval

__all__ = ["FEWEST_AT_RISK", "FIRST_LANDMARK", "ForecastReviser", "landmark_state", "revise_forecast"]

FEWEST_AT_RISK = 5
"""Fewest runs in a risk set."""
FIRST_LANDMARK = 8
"""First step at which a forecast is revised."""
_REFIT_RATIO = 2.0
_RECENT = 0.25  # share of the steps so far from which evaluations are recent
_SMALLEST_GAP, _SMALLEST_SLOPE = 3e-3, 3e-3
_LARGEST_EXTRAPOLATION = 6.0  # in log steps


def landmark_state(curve: LearningCurve, step: int, target_accuracy: float) -> tuple[float, float] | None:
    """Return the state of a run at a landmark: its log gap to the target and extrapolated steps to go.

    A line is fitted to the accuracy at recent evaluations over log steps.

    Args:
        curve: Learning curve; evaluations after the landmark are ignored.
        step: Landmark.
        target_accuracy: Accuracy to reach.

    Returns:
        ``(log gap, log(1 + log steps to go))``; None with fewer than two evaluations, or none in the last half of the
        steps.

    Example:
        >>> nothing = (None,) * 3
        >>> curve = LearningCurve((0, 10, 20), (0.5, 0.7, 0.75), *[nothing] * 5, steps_per_epoch=None)
        >>> gap, to_go = landmark_state(curve, 20, 0.8)
        >>> round(math.exp(gap), 2), round(math.expm1(to_go), 2)
        (0.05, 0.65)
    """
    past = [place for place, at in enumerate(curve.steps) if at <= step]
    recent = [place for place in past if curve.steps[place] >= _RECENT * step]
    places = recent if len(recent) > 1 else past[-2:]
    if len(places) < 2 or curve.steps[places[-1]] < step / 2:
        return None
    log_steps = [math.log1p(curve.steps[place]) for place in places]
    slope, intercept = statistics.linear_regression(log_steps, [curve.accuracy[place] for place in places])
    gap = max(target_accuracy - (intercept + slope * math.log1p(step)), _SMALLEST_GAP)
    return math.log(gap), math.log1p(min(gap / max(slope, _SMALLEST_SLOPE), _LARGEST_EXTRAPOLATION))


def revise_forecast(
    history: Sequence[Update],
    query: ForecastQuery,
    curve: LearningCurve,
    bundled: Sequence[Update] = (),
    level: float = LEVEL,
    success: PredictiveDistribution | None = None,
    model: CostModel | None = None,
) -> ForecastRevision | None:
    """Forecast the total steps of an update that is running.

    The curve so far says little about its ceiling. So the probability of reaching the target is that of the forecast
    from features, given that the target has not been reached yet.

    Args:
        history: The user's own finished updates.
        query: Update that was forecast before it started.
        curve: Learning curve up to now.
        bundled: Updates from other models, see :func:`resque.forecasting.forecaster.forecast_from_features`.
        level: Nominal coverage of the interval.
        success: Predictive distribution of log steps for that probability; None takes it from the risk set.
        model: Cost model of this landmark, or of an earlier one whose variances are reused; None fits one here.

    Returns:
        The revised forecast; None with fewer than five runs at risk.
    """
    step, state = curve.steps[-1], landmark_state(curve, curve.steps[-1], query.target_accuracy)
    examples, is_own = _risk_set(history, bundled, query, step)
    if state is None or len(examples) < FEWEST_AT_RISK or step >= query.max_steps:
        return None
    seen = has_shift_type((example for example, own in zip(examples, is_own, strict=True) if own), query)
    if model is None or model.examples != examples:
        model = CostModel(examples, None if model is None else model.log_deviations)
    distribution = predict(model, query.example(state), is_own, seen, level)
    probability = _probability_reached(success, distribution, step, query.max_steps)
    further = distribution.truncated_at(math.log(query.max_steps - step), probability, level)
    return ForecastRevision(
        step=step,
        accuracy=curve.accuracy[-1],
        steps=_total_steps(further, step, level, query.max_steps),
        probability_reached=probability,
        n_history=sum(is_own),
    )


class ForecastReviser:
    """Callback that revises a forecast at each evaluation from step 8 on.

    Args:
        history: The user's own finished updates.
        query: Update that was forecast.
        bundled: Updates from other models.
        level: Nominal coverage of the interval.
        job: Retraining job, to round steps up to its evaluations; None if these are unknown.

    Example:
        >>> updates = bundled_updates()
        >>> running = updates[4]
        >>> query = ForecastQuery.of_update(running, target_accuracy=0.85, max_steps=1000)
        >>> reviser = ForecastReviser(updates[5:60], query)
        >>> revisions = [reviser(running.curve.until(step)) for step in running.curve.steps]
        >>> [revision.step for revision in revisions if revision is not None][:3]
        [9, 15, 25]
    """

    def __init__(
        self,
        history: Sequence[Update],
        query: ForecastQuery,
        bundled: Sequence[Update] = (),
        level: float = LEVEL,
        job: RetrainingJob | None = None,
    ) -> None:
        self._history, self._query, self._bundled, self._level, self._job = history, query, bundled, level, job
        self._success = _forecast_distribution(history, query, bundled)
        self._lag = evaluation_lag(history_rows(history, "steps", query, (), bundled))
        self._models: dict[int, CostModel | None] = {}

    @classmethod
    def of_forecast(
        cls, forecast: Forecast, history: Sequence[Update], job: RetrainingJob | None = None
    ) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the bundled history if the forecast used it."""
        bundled = bundled_updates() if forecast.n_bundled else ()
        return cls(history, ForecastQuery.of_forecast(forecast), bundled, forecast.level, job)

    @classmethod
    def of_ledger(cls, forecast: Forecast, ledger: Ledger, job: RetrainingJob | None = None) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the updates of a ledger that the forecast learns from."""
        updates = updates_to_learn_from(ledger, forecast.parent, forecast.features.task_index is not None)
        return cls.of_forecast(forecast, updates, job)

    def __call__(self, curve: LearningCurve) -> ForecastRevision | None:
        """Revise the forecast.

        Args:
            curve: Learning curve up to now.

        Returns:
            The revision; None before step 8, at the target, or with too few runs at risk.
        """
        step, revision = curve.steps[-1], None
        if step < FIRST_LANDMARK or curve.accuracy[-1] >= self._query.target_accuracy:
            return None
        with contextlib.suppress(np.linalg.LinAlgError):  # a failed forecast must not end the training
            settings = self._bundled, self._level, self._success, self._model_at(_latest_doubling(curve))
            revision = revise_forecast(self._history, self._query, curve, *settings)
        if revision is None or self._job is None:
            return revision
        steps = round_up_to_evaluation(revision.steps, self._job, self._lag, step + 1)
        return dataclasses.replace(revision, steps=steps)

    def _model_at(self, step: int) -> CostModel | None:
        """Return the cost model of a landmark, fitted once; None with too few runs at risk."""
        if step not in self._models:
            examples, _ = _risk_set(self._history, self._bundled, self._query, step)
            self._models[step] = CostModel(examples) if len(examples) >= FEWEST_AT_RISK else None
        return self._models[step]


def _forecast_distribution(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update]
) -> PredictiveDistribution | None:
    """Return the distribution from which a forecast takes the probability of reaching the target."""
    with contextlib.suppress(TooFewUpdatesError, SettingError):
        success = success_distribution(history, query, bundled)
        if success is not None:
            return success
        predictors = choose_predictors(history, query, bundled)
        return predict_cost(history, "steps", query, predictors, bundled).distribution
    return None


def _latest_doubling(curve: LearningCurve) -> int:
    """Return the last evaluation at which the steps had doubled since the previous such evaluation."""
    latest = 0
    for step in curve.steps:
        if step >= max(FIRST_LANDMARK, _REFIT_RATIO * latest):
            latest = step
    return latest


def _risk_set(
    history: Sequence[Update], bundled: Sequence[Update], query: ForecastQuery, step: int
) -> tuple[list[TrainingExample], list[bool]]:
    """Return the runs still below their target at that step, and whether each is the user's own."""
    examples = [(_landmark_example(update, query, step, own=True), True) for update in history]
    examples += [(_landmark_example(update, query, step, own=False), False) for update in bundled]
    at_risk = [(example, own) for example, own in examples if example is not None]
    return [example for example, _ in at_risk], [own for _, own in at_risk]


def _landmark_example(update: Update, query: ForecastQuery, step: int, own: bool) -> TrainingExample | None:
    """Return a finished run as a training example at a landmark step; None if it had ended or is unclear."""
    target = target_for(update, query, own)
    if not is_comparable(update, query, target):
        return None
    steps, censored = cost_or_lower_bound(update, target, "steps", query.max_steps)
    state = landmark_state(update.curve, step, target)
    if not steps or steps <= step or state is None:
        return None
    return training_example(update, query, state, math.log(steps - step), censored)


def _probability_reached(
    success: PredictiveDistribution | None, further: PredictiveDistribution, step: int, max_steps: int
) -> float:
    """Return the probability of reaching the target within the step budget, given that it is not reached yet."""
    if success is None:
        return further.probability_below(math.log(max_steps - step))
    so_far, in_all = (success.probability_below(math.log(steps)) for steps in (step, max_steps))
    return (in_all - so_far) / (1.0 - so_far) if so_far < 1.0 else 0.0


def _total_steps(further: PredictiveDistribution, step: int, level: float, max_steps: int) -> Estimate:
    """Return the forecast of steps so far plus further steps."""
    logs = further.median, further.lower, further.upper, further.upper_bound
    value, low, high, upper = (min(step + math.exp(log), max_steps) for log in logs)
    guarantee = "jackknife+" if further.conformal else "no coverage guarantee"
    return Estimate(value, Interval(low, high, level, f"{guarantee}; revised after {step} steps"), upper)
