"""Forecast the learning curve of an update from those of earlier runs, before it starts and while it runs.

The learning-curve model of :mod:`resque.forecasting.learning_curves` is fitted to the runs of the history, once; new
tasks use only new tasks, and shifts only shifts. It is target-free: a run counts whether or not it reached a target.
Its paths are reweighted to the milestones that forward passes tell, see :mod:`resque.forecasting.milestones`.
"""

import bisect
import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from resque.forecasting.curve_shape import CurveExample
from resque.forecasting.history import (
    ForecastQuery,
    is_new_task,
    is_same_change,
    of_like_part,
    relative_rate,
    telling,
    training_example,
)
from resque.forecasting.learning_curves import CurveModel, CurvePrediction
from resque.forecasting.milestones import EARLY_STEPS, Milestone, log_error
from resque.forecasting.mixed_model import TrainingExample
from resque.ledger.records import LAST_EPOCH, PLATEAU, Estimate, Features, LearningCurve, Update
from resque.types import Interval

__all__ = [
    "FEWEST_CURVES",
    "CurveHistory",
    "UpdateCurve",
    "best_accuracy",
    "central_share",
    "evaluations_until",
    "from_scratch_features",
    "total_steps",
]

FEWEST_CURVES = 5
"""Fewest learning curves of earlier runs, and fewest runs whose milestone was seen; bounds alone tell too little."""
EARLY_SCORES = "adapted accuracy", "warm-up accuracy"
"""Scores that tell the early accuracy, the better first."""
BEST_SCORES = ("adapted refit",)
"""Scores that tell the best accuracy. Neighbors do not: what they reach on training data need not generalize."""
NEIGHBOR_SCORES = "adapted k-NN", "k-NN accuracy"
_SCORES_OF_DATA = *BEST_SCORES, *NEIGHBOR_SCORES
_LATEST_EARLY = 2.0  # times the early steps: the latest evaluation that still tells the early accuracy
_EVALUATION_GROWTH = 0.05  # growth of the steps between evaluations that are unknown
_MOST_EVALUATIONS = 400  # most evaluations of a simulated path
_SMALLEST_SHARE, _SMALLEST_INDEX, _SMALLEST_WEIGHT = 0.01, 0.01, 1e-300
_KEPT = 6  # models: ways of another part or rate learn from another history


@functools.lru_cache(maxsize=_KEPT)
def _fitted_curves(examples: tuple[CurveExample, ...]) -> CurveModel:
    """Return the model of learning curves; forecasts of one comparison share it."""
    return CurveModel(examples)


class CurveHistory:
    """Learning curves of the runs that are comparable with an update.

    Args:
        history: The user's own finished updates.
        query: Update that is forecast.
        bundled: Updates from other models.

    Attributes:
        n_own: Number of the user's own runs.
        n_bundled: Number of bundled ones.
    """

    def __init__(self, history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()) -> None:
        told = of_like_part(history, query), telling(bundled, query)
        own, others = (_with_curves(updates, query) for updates in told)
        self.n_own, self.n_bundled = len(own), len(others)
        self._updates = own + others
        self._model: CurveModel | None = None
        if len(self._updates) >= FEWEST_CURVES:
            examples = (_example_of(update, query) for update in self._updates)
            self._model = _fitted_curves(tuple(example for example in examples if example is not None))

    def start(self, query: ForecastQuery) -> "UpdateCurve | None":
        """Return the curve of an update to be forecast; None with fewer than five curves.

        Args:
            query: The update. Its model, recipe and kind of change are those of the constructor's query.
        """
        return None if self._model is None else UpdateCurve(self._model, query, self._updates)


class UpdateCurve:
    """Learning curve of one update, forecast before it starts or from its first part.

    Args:
        model: Learning-curve model.
        query: The update.
        updates: Runs that the model was fitted to.

    Attributes:
        scores: Scores that tell its milestones.
    """

    def __init__(self, model: CurveModel, query: ForecastQuery, updates: Sequence[Update]) -> None:
        self._model, self._query = model, query
        self._early, early = _milestone(updates, query, EARLY_SCORES, _early_outcome, with_accuracy=True)
        self._best, best = _milestone(updates, query, BEST_SCORES, _best_outcome)
        self.scores = tuple(name for name in (early, best) if name)
        ended = [update.cost.steps for update in updates if _ended_by_itself(update)]
        self._whole = round(statistics.median(ended)) if ended else query.max_steps
        self._before: CurvePrediction | None = None

    def predict(self, evaluations: Sequence[int], curve: LearningCurve | None = None) -> CurvePrediction | None:
        """Predict the evaluations to come.

        Args:
            evaluations: Their steps, increasing, at least one.
            curve: Learning curve until now; None before the first step.

        Returns:
            Simulated paths; None if the accuracy before the first step is unknown.
        """
        query = self._query
        running = _example(query.features, curve, query.steps_per_epoch, query.example(()))
        if running is None:
            return None
        ahead = _some(evaluations)
        paths = self._model.predict(running, [*ahead, self._whole] if self._whole > ahead[-1] else ahead)
        milestones = [(self._best, self._whole)]
        if not running.steps or running.steps[-1] < EARLY_STEPS:
            milestones.append((self._early, EARLY_STEPS))
        logs = np.log(np.maximum(paths.weights, _SMALLEST_WEIGHT))
        for milestone, step in milestones:
            if milestone is not None:
                logs = logs + milestone.log_weights(paths, step, self._paths_before(running))
        weights, n = np.exp(logs - logs.max()), len(ahead)
        return CurvePrediction(paths.steps[:n], paths.best[:, :n], weights / weights.sum())

    def _paths_before(self, running: CurveExample) -> CurvePrediction:
        """Return the paths of the update before any step; they are simulated once."""
        if self._before is None:
            whole = [*evaluations_until(max(self._whole, EARLY_STEPS, self._query.max_steps))]
            self._before = self._model.predict(dataclasses.replace(running, steps=(), accuracy=()), _some(whole))
        return self._before


def evaluations_until(max_steps: int, after: int = 0) -> Iterator[int]:
    """Yield the steps of evaluations that a recipe does not say: about 5 % apart, up to a budget.

    Example:
        >>> list(evaluations_until(44, after=39))
        [40, 42, 44]
    """
    step = after
    while step < max_steps:
        step = min(max(step + 1, int(step * (1.0 + _EVALUATION_GROWTH))), max_steps)
        yield step


def central_share(level: float) -> float:
    """Return the share of the paths that the interval of a run takes before its first step.

    Intervals with as many paths as their nominal coverage covered too often there: 91 and 87 % of the runs at 80 %, on
    two networks. With half the odds, coverages of 50, 80, 90 and 95 % came out within three points on both, and on
    either half of the shift types. Once a run has begun, the paths cover as they say.

    Args:
        level: Nominal coverage of the interval.

    Example:
        >>> round(central_share(0.8), 3)
        0.667
    """
    return level / (2.0 - level)


def total_steps(
    prediction: CurvePrediction,
    target: float,
    evaluations: Sequence[int],
    level: float,
    guarantee: str,
    share: float | None = None,
) -> Estimate:
    """Return the forecast of the steps at which a run ends: at one of its evaluations.

    The median is that of the runs that reach the target; the interval and the bound are of all runs.

    Args:
        prediction: Paths of the evaluations.
        target: Target accuracy.
        evaluations: Steps of all evaluations to come.
        level: Nominal coverage of the interval.
        guarantee: Promise of the interval, in words.
        share: Share of the paths within the interval; None takes the level.
    """
    after = bisect.bisect_left(evaluations, prediction.median_if_reached(target))
    value = float(evaluations[min(after, len(evaluations) - 1)])
    share = level if share is None else share
    low, high, upper = (prediction.quantile(target, at) for at in ((1 - share) / 2, (1 + share) / 2, level))
    interval = Interval(min(low, value), max(high, value), level, guarantee)
    return Estimate(value, interval, max(upper, value) if level >= 0.5 else upper)


def best_accuracy(prediction: CurvePrediction, level: float, guarantee: str) -> Estimate:
    """Return the forecast of the highest accuracy of a run that goes on after its target, within its evaluations.

    Args:
        prediction: Paths of the evaluations.
        level: Nominal coverage of the interval.
        guarantee: Promise of the interval, in words.
    """
    value, low, high = (prediction.best_accuracy(share) for share in (0.5, (1.0 - level) / 2.0, (1.0 + level) / 2.0))
    return Estimate(value, Interval(low, high, level, guarantee))


def from_scratch_features(features: Features, accuracy: float, loss: float) -> Features:
    """Return what is known of training new weights, from what is known of updating a trained model.

    How well its representations separate the classes tells how much the data do. Its index, and what it does in the
    first steps, say nothing of new weights.

    Args:
        features: Features of the update of the trained model.
        accuracy: Accuracy of the new weights.
        loss: Their loss.

    Example:
        >>> known = Features(0.4, 0.5, 1.2, scores={"adapted refit": 0.8, "adapted accuracy": 0.7})
        >>> dict(from_scratch_features(known, 0.1, 2.3).scores)
        {'adapted refit': 0.8}
    """
    scores = {name: features.scores[name] for name in _SCORES_OF_DATA if name in features.scores}
    known = dataclasses.replace(features, accuracy=accuracy, loss=loss, scores=scores)
    return dataclasses.replace(known, index_rad=None, task_index=None, floor_rad=None)


def _with_curves(updates: Iterable[Update], query: ForecastQuery) -> list[Update]:
    """Return the updates that are comparable with the query and have a learning curve."""
    return [u for u in updates if is_same_change(u, query) and (each := _example_of(u, query)) and each.steps]


def _example_of(update: Update, query: ForecastQuery) -> CurveExample | None:
    """Return the learning curve of an update; None if its accuracy before the first step is unknown."""
    place = training_example(update, query, (), math.nan)
    return _example(update.features, update.curve, update.curve.steps_per_epoch, place)


def _example(
    features: Features,
    curve: LearningCurve | None,
    steps_per_epoch: int | None,
    place: TrainingExample,
) -> CurveExample | None:
    """Return a learning curve with what was known before; None if its first accuracy is unknown.

    Args:
        features: Features of the update.
        curve: Its curve so far; None before the first step.
        steps_per_epoch: Steps in an epoch; None if unknown.
        place: Group, shift type, condition and part of the update.
    """
    points = [] if curve is None else list(zip(curve.steps, curve.accuracy, strict=True))
    start = points[0][1] if points and points[0][0] == 0 else features.accuracy
    if start is None:
        return None
    later = [(step, accuracy) for step, accuracy in points if step > 0]
    steps, accuracy = zip(*later, strict=True) if later else ((), ())
    known, rate = _curve_features(features, start, steps_per_epoch), relative_rate(place.group)
    shift_type = None if is_new_task(features, place.shift_type) else place.shift_type  # that of a task is not one
    return CurveExample(steps, accuracy, start, known, place.group, shift_type, place.condition, place.part, rate)


def _curve_features(features: Features, start: float, steps_per_epoch: int | None) -> tuple[float, ...]:
    """Return what shapes a learning curve whatever the target; NaN where it is unknown."""
    scores = features.scores
    adapted, neighbors = (_first_known(scores, names) for names in (EARLY_SCORES, NEIGHBOR_SCORES))
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


def _first_known(scores: Mapping[str, float], names: Sequence[str]) -> float | None:
    return next((scores[name] for name in names if name in scores), None)


def _milestone(
    updates: Sequence[Update],
    query: ForecastQuery,
    scores: Sequence[str],
    outcome: Callable[[Update], tuple[float, bool] | None],
    with_accuracy: bool = False,
) -> tuple[Milestone | None, str]:
    """Return a milestone by the first of the scores that the update and enough runs have, and the score's name."""
    for name in scores:
        asked, rows = _log_errors(query.features, name, with_accuracy), []
        for update in updates:
            errors, seen = _log_errors(update.features, name, with_accuracy), outcome(update)
            if errors is not None and seen is not None:
                rows.append(training_example(update, query, errors, *seen))
        if asked is not None and sum(not row.censored for row in rows) >= FEWEST_CURVES:
            return Milestone(rows, query.example(asked)), name
    return None, ""


def _log_errors(features: Features, score: str, with_accuracy: bool) -> tuple[float, ...] | None:
    """Return the log error of a score, and that of the accuracy before the update; None if one is unknown."""
    known = [features.scores.get(score), *([features.accuracy] if with_accuracy else [])]
    errors = tuple(log_error(accuracy) for accuracy in known if accuracy is not None)
    return errors if len(errors) == len(known) else None


def _early_outcome(update: Update) -> tuple[float, bool] | None:
    """Return the log error after the first steps, and whether it is a bound; None without an evaluation there.

    A run that ended before was at its target: its early accuracy would have been that or more.
    """
    curve = update.curve
    if curve.steps[-1] < EARLY_STEPS:
        return log_error(max(curve.accuracy)), True
    place = next(place for place, step in enumerate(curve.steps) if step >= EARLY_STEPS)
    late = curve.steps[place] > _LATEST_EARLY * EARLY_STEPS
    return None if late else (log_error(max(curve.accuracy[: place + 1])), False)


def _best_outcome(update: Update) -> tuple[float, bool]:
    """Return the log error of the highest accuracy, and whether the run would have gone on."""
    return log_error(max(update.curve.accuracy)), not _ended_by_itself(update)


def _ended_by_itself(update: Update) -> bool:
    """Return whether a run ended on a plateau or at its last epoch, not at its target or by a budget."""
    is_end = update.stopped_by.startswith(PLATEAU) or update.stopped_by in LAST_EPOCH
    return is_end and not update.reached


def _logit(share: float) -> float:
    bounded = min(max(share, _SMALLEST_SHARE), 1.0 - _SMALLEST_SHARE)
    return math.log(bounded / (1.0 - bounded))


def _some(evaluations: Sequence[int]) -> list[int]:
    """Return at most 400 of the evaluations, evenly spaced, and the last."""
    wanted = np.linspace(0, len(evaluations) - 1, min(len(evaluations), _MOST_EVALUATIONS)).round().astype(int)
    return [evaluations[place] for place in wanted]
