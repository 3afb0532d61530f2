"""Revise a forecast while its update runs, from the learning curve so far (dynamic prediction by landmarking).

The learning-curve model of :mod:`resque.forecasting.learning_curves` is fitted to the runs of the history, once; new
tasks use only new tasks, and shifts only shifts. It is target-free: a run counts whether or not it reached a target.
"""

import contextlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resque.forecasting.curve_shape import CurveExample
from resque.forecasting.history import ForecastQuery, group_for, is_same_change
from resque.forecasting.intervals import LEVEL
from resque.forecasting.learning_curves import CurveModel, CurvePrediction
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, Features, Forecast, ForecastRevision, LearningCurve, Update
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob, evaluation_steps
from resque.types import Interval

__all__ = ["FEWEST_CURVES", "FIRST_LANDMARK", "CurveHistory", "ForecastReviser", "revise_forecast"]

FEWEST_CURVES = 5
"""Fewest learning curves of earlier runs."""
FIRST_LANDMARK = 8
"""First step at which a forecast is revised."""
_EVALUATION_GROWTH = 0.05  # of evaluations that are unknown
_MOST_EVALUATIONS = 400  # of a simulated path
_SMALLEST_SHARE, _SMALLEST_INDEX = 0.01, 0.01


@dataclass(frozen=True)
class CurveHistory:
    """Learning-curve model of the runs that are comparable with an update.

    Attributes:
        model: The model; None with fewer than five curves.
        n_own: Number of the user's own runs in it.
    """

    model: CurveModel | None
    n_own: int

    @classmethod
    def of(cls, history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()) -> "CurveHistory":
        """Fit the model.

        Args:
            history: The user's own finished updates.
            query: Update that is forecast.
            bundled: Updates from other models.
        """
        own, others = (_examples(updates, query) for updates in (history, bundled))
        enough = len(own) + len(others) >= FEWEST_CURVES
        return cls(CurveModel(own + others) if enough else None, len(own))


def revise_forecast(
    history: CurveHistory,
    query: ForecastQuery,
    curve: LearningCurve,
    level: float = LEVEL,
    job: RetrainingJob | None = None,
    confidence: float | None = None,
) -> ForecastRevision | None:
    """Forecast the total steps of an update that is running, and its probability of reaching the target.

    Args:
        history: Learning-curve model of earlier runs.
        query: Update that was forecast before it started.
        curve: Learning curve up to now.
        level: Nominal coverage of the interval.
        job: Retraining job, whose evaluations end a run; None if these are unknown.
        confidence: Confidence of the lower bound of the steps, for a budget; None leaves it out.

    Returns:
        The revised forecast; None with too few earlier curves, or after the step budget.

    Example:
        >>> updates = bundled_updates()
        >>> running = updates[4]
        >>> query = ForecastQuery.of_update(running, target_accuracy=0.85, max_steps=1000)
        >>> revision = revise_forecast(CurveHistory.of(updates[5:60], query), query, running.curve.until(40))
        >>> revision.step, 0.0 < revision.probability_reached < 1.0
        (40, True)
    """
    running = _example(query.features, curve, query.group, query.shift_type, query.condition)
    if history.model is None or running is None or curve.steps[-1] >= query.max_steps:
        return None
    prediction = history.model.predict(running, _evaluations(curve.steps[-1], query, job))
    return ForecastRevision(
        step=curve.steps[-1],
        accuracy=curve.accuracy[-1],
        steps=_total_steps(prediction, query, curve.steps[-1], level, job),
        probability_reached=prediction.probability_reached(query.target_accuracy),
        n_history=history.n_own,
        steps_lower=None if confidence is None else _lower_bound(prediction, query, confidence, job),
    )


class ForecastReviser:
    """Callback that revises a forecast at each evaluation from step 8 on.

    Args:
        history: The user's own finished updates.
        query: Update that was forecast.
        bundled: Updates from other models.
        level: Nominal coverage of the interval.
        job: Retraining job, whose evaluations end a run; None if these are unknown.
        confidence: Confidence of a budget, see :func:`revise_forecast`.

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
        confidence: float | None = None,
    ) -> None:
        self._updates, self._query, self._bundled, self._level, self._job = history, query, bundled, level, job
        self._confidence = confidence
        self._history: CurveHistory | None = None

    @classmethod
    def of_forecast(
        cls,
        forecast: Forecast,
        history: Sequence[Update],
        job: RetrainingJob | None = None,
        confidence: float | None = None,
    ) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the bundled history if the forecast used it."""
        bundled = bundled_updates() if forecast.n_bundled else ()
        return cls(history, ForecastQuery.of_forecast(forecast), bundled, forecast.level, job, confidence)

    @classmethod
    def of_ledger(
        cls, forecast: Forecast, ledger: Ledger, job: RetrainingJob | None = None, confidence: float | None = None
    ) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the updates of a ledger that the forecast learns from."""
        updates = updates_to_learn_from(ledger, forecast.parent, forecast.features.task_index is not None)
        return cls.of_forecast(forecast, updates, job, confidence)

    def __call__(self, curve: LearningCurve) -> ForecastRevision | None:
        """Revise the forecast.

        Args:
            curve: Learning curve up to now.

        Returns:
            The revision; None before step 8, at the target, or with too few earlier curves.
        """
        if curve.steps[-1] < FIRST_LANDMARK or curve.accuracy[-1] >= self._query.target_accuracy:
            return None
        with contextlib.suppress(np.linalg.LinAlgError):  # a failed forecast must not end the training
            if self._history is None:
                self._history = CurveHistory.of(self._updates, self._query, self._bundled)
            return revise_forecast(self._history, self._query, curve, self._level, self._job, self._confidence)
        return None


def _examples(updates: Sequence[Update], query: ForecastQuery) -> list[CurveExample]:
    """Return the learning curves of the updates that are comparable with the query."""
    examples = (
        _example(update.features, update.curve, group_for(update, query), update.shift_type, update.train_data)
        for update in updates
        if is_same_change(update, query)
    )
    return [example for example in examples if example is not None and example.steps]


def _example(
    features: Features, curve: LearningCurve, group: tuple[object, ...], shift_type: str | None, condition: str
) -> CurveExample | None:
    """Return a learning curve with its features; None if the accuracy before the first step is unknown."""
    start = curve.accuracy[0] if curve.steps[0] == 0 else features.accuracy
    if start is None:
        return None
    later = [(step, accuracy) for step, accuracy in zip(curve.steps, curve.accuracy, strict=True) if step > 0]
    steps, accuracy = zip(*later, strict=True) if later else ((), ())
    known = _curve_features(features, start, curve.steps_per_epoch)
    is_task = features.task_index is not None  # whose shift type is not one
    return CurveExample(steps, accuracy, start, known, group, None if is_task else shift_type, condition)


def _curve_features(features: Features, start: float, steps_per_epoch: int | None) -> tuple[float, ...]:
    """Return what shapes a learning curve whatever the target; NaN where it is unknown."""
    scores = features.scores
    adapted = scores.get("BN-adapted accuracy", scores.get("warm-up accuracy"))
    neighbors = scores.get("BN-adapted k-NN", scores.get("k-NN accuracy"))
    index = features.task_index if features.index_rad is None else features.index_rad
    return (
        _logit(start),
        *(
            math.nan if score is None else _logit((score - start) / max(1.0 - start, 1e-3))
            for score in (adapted, neighbors)
        ),
        math.nan if index is None else math.log(max(index, _SMALLEST_INDEX)),
        math.log(features.parameters) if features.parameters else math.nan,
        math.log(steps_per_epoch) if steps_per_epoch else math.nan,
    )


def _logit(share: float) -> float:
    bounded = min(max(share, _SMALLEST_SHARE), 1.0 - _SMALLEST_SHARE)
    return math.log(bounded / (1.0 - bounded))


def _evaluations(step: int, query: ForecastQuery, job: RetrainingJob | None) -> list[int]:
    """Return the evaluations to come, at most 400 of them; about 5 % apart where they are unknown."""
    if job is None:
        growing = itertools.accumulate(
            itertools.repeat(step), lambda at, _: max(at + 1, int(at * (1.0 + _EVALUATION_GROWTH)))
        )
        steps = [*itertools.takewhile(lambda at: at < query.max_steps, growing), query.max_steps]
    else:
        steps = [*evaluation_steps(query.max_steps, job.steps_per_epoch, job.recipe)]
    steps = [min(at, query.max_steps) for at in steps if at > step]
    wanted = np.linspace(0, len(steps) - 1, min(len(steps), _MOST_EVALUATIONS)).round().astype(int)
    return [steps[place] for place in wanted]


def _lower_bound(
    prediction: CurvePrediction, query: ForecastQuery, confidence: float, job: RetrainingJob | None
) -> float:
    """Return the one-sided lower bound of the steps at which the run ends: it ends earlier with 1 - confidence."""
    if job is not None and job.recipe.fixed_epochs is not None:
        return float(query.max_steps)
    return prediction.quantile(query.target_accuracy, 1.0 - confidence)


def _total_steps(
    prediction: CurvePrediction, query: ForecastQuery, step: int, level: float, job: RetrainingJob | None
) -> Estimate:
    """Return the forecast of the steps at which the run ends."""
    guarantee = f"no coverage guarantee; revised after {step} steps"
    if job is not None and job.recipe.fixed_epochs is not None:
        steps = float(query.max_steps)
        return Estimate(steps, Interval(steps, steps, level, guarantee), steps)
    target = query.target_accuracy
    value = prediction.median_if_reached(target)
    if job is not None:
        value = float(job.evaluation_at_or_after(value))
    low, high, upper = (prediction.quantile(target, share) for share in ((1 - level) / 2, (1 + level) / 2, level))
    upper = max(upper, value) if level >= 0.5 else upper
    return Estimate(value, Interval(min(low, value), max(high, value), level, guarantee), upper)
