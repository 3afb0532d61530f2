"""Revise a forecast while its update runs, from the learning curve so far (dynamic prediction by landmarking).

The learning-curve model of :mod:`resque.forecasting.learning_curves` is fitted to the runs of the history, once; new
tasks use only new tasks, and shifts only shifts. It is target-free: a run counts whether or not it reached a target.
"""

import bisect
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resque.forecasting.curve_shape import CurveExample
from resque.forecasting.history import ForecastQuery, group_for, is_same_change
from resque.forecasting.intervals import LEVEL
from resque.forecasting.learning_curves import CurveModel, CurvePrediction
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, Features, Forecast, ForecastRevision, LearningCurve, Update
from resque.ledger.serialization import from_dict
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.recipe import Recipe
from resque.types import Interval

__all__ = ["FEWEST_CURVES", "FIRST_LANDMARK", "CurveHistory", "ForecastReviser", "known_evaluations", "revise_forecast"]

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
    evaluations: Sequence[int] | None = None,
    confidence: float | None = None,
) -> ForecastRevision | None:
    """Forecast the total steps of an update that is running, and its probability of reaching the target.

    Args:
        history: Learning-curve model of earlier runs.
        query: Update that was forecast before it started.
        curve: Learning curve up to now.
        level: Nominal coverage of the interval.
        evaluations: Steps of the run's evaluations, at which alone it can end; None if they are unknown.
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
    step = curve.steps[-1]
    to_come = [*_unknown_evaluations(step, query.max_steps)] if evaluations is None else evaluations
    to_come = [min(at, query.max_steps) for at in to_come if at > step] or [query.max_steps]
    prediction = history.model.predict(running, _some(to_come))
    return ForecastRevision(
        step=step,
        accuracy=curve.accuracy[-1],
        steps=_total_steps(prediction, query.target_accuracy, to_come, level, step),
        probability_reached=prediction.probability_reached(query.target_accuracy),
        n_history=history.n_own,
        steps_lower=None if confidence is None else prediction.quantile(query.target_accuracy, 1.0 - confidence),
    )


def known_evaluations(update: Update, max_steps: int) -> list[int] | None:
    """Return the steps of all evaluations of a finished update's recipe; None if it does not say them.

    Example:
        >>> known_evaluations(bundled_updates()[0], max_steps=20)
        [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21]
    """
    per_epoch = update.curve.steps_per_epoch
    if per_epoch is None or "evaluate_growth" not in update.recipe:
        return None
    return [*evaluation_steps(max_steps, per_epoch, from_dict(Recipe, update.recipe))]


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
        self._updates, self._query, self._bundled, self._level = history, query, bundled, level
        self._evaluations = None if job is None else job.evaluations
        self._ends_at_once = job is not None and job.recipe.fixed_epochs is not None
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
            model, query, level = self._history, self._query, self._level
            revision = revise_forecast(model, query, curve, level, self._evaluations, self._confidence)
            return revision if revision is None or not self._ends_at_once else _at_the_end(revision, self._query)
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


def _unknown_evaluations(step: int, max_steps: int) -> Iterator[int]:
    """Yield evaluations to come, about 5 % apart."""
    while step < max_steps:
        step = min(max(step + 1, int(step * (1.0 + _EVALUATION_GROWTH))), max_steps)
        yield step


def _some(evaluations: Sequence[int]) -> list[int]:
    """Return at most 400 of the evaluations, evenly spaced, and the last."""
    wanted = np.linspace(0, len(evaluations) - 1, min(len(evaluations), _MOST_EVALUATIONS)).round().astype(int)
    return [evaluations[place] for place in wanted]


def _total_steps(
    prediction: CurvePrediction, target: float, evaluations: Sequence[int], level: float, step: int
) -> Estimate:
    """Return the forecast of the steps at which the run ends: at one of its evaluations."""
    after = bisect.bisect_left(evaluations, prediction.median_if_reached(target))
    value = float(evaluations[min(after, len(evaluations) - 1)])
    low, high, upper = (prediction.quantile(target, share) for share in ((1 - level) / 2, (1 + level) / 2, level))
    interval = Interval(min(low, value), max(high, value), level, f"no coverage guarantee; revised after {step} steps")
    return Estimate(value, interval, max(upper, value) if level >= 0.5 else upper)


def _at_the_end(revision: ForecastRevision, query: ForecastQuery) -> ForecastRevision:
    """Return the revision of a run whose length does not depend on its accuracy."""
    steps = float(query.max_steps)
    interval = dataclasses.replace(revision.steps.interval, low=steps, high=steps)
    lower = None if revision.steps_lower is None else steps
    return dataclasses.replace(revision, steps=Estimate(steps, interval, steps), steps_lower=lower)
