"""Predict held-out updates from the rest of a history, and score the predictions."""

import contextlib
import math
import statistics
from collections.abc import Hashable, Iterator, Sequence

from resque.errors import TooFewUpdatesError
from resque.forecasting.curve_history import CurveHistory, UpdateCurve, central_share, evaluations_until, total_steps
from resque.forecasting.evaluation.metrics import ScoredForecast
from resque.forecasting.evaluation.settlement import FORECAST
from resque.forecasting.forecaster import CONSTANT, NO_GUARANTEE
from resque.forecasting.history import ForecastQuery, index_definition
from resque.forecasting.intervals import PredictiveDistribution
from resque.forecasting.landmarking import known_evaluations
from resque.forecasting.learning_curves import CurvePrediction
from resque.forecasting.prediction import StepsModel
from resque.forecasting.predictors import PREDICTORS
from resque.ledger.records import Estimate, Update

__all__ = [
    "CONSTANT", "NO_PREDICTOR", "OWN_ONLY", "STEP_BUDGET", "TrainingFolds", "fold_predictions", "score_distribution",
    "score_estimate", "score_forecast",
]  # fmt: skip

OWN_ONLY, NO_PREDICTOR, STEP_BUDGET = "own updates only", "no predictor", "step budget"
"""Names of the baselines in reports."""


class TrainingFolds:
    """History without its held-out fold; each model is fitted once.

    Args:
        rest: The user's own updates outside the fold.
        bundled: Updates from other models.
        level: Nominal coverage of the intervals.
    """

    def __init__(self, rest: Sequence[Update], bundled: Sequence[Update], level: float) -> None:
        self.rest, self.bundled, self.level = rest, bundled, level
        self.own_only = TrainingFolds(rest, (), level) if bundled else None
        self._models: dict[Hashable, StepsModel | None] = {}
        self._curves: dict[Hashable, CurveHistory] = {}
        self._started: dict[Hashable, UpdateCurve | None] = {}
        self._paths: dict[Hashable, CurvePrediction | None] = {}

    def predict(self, query: ForecastQuery, predictors: tuple[str, ...]) -> PredictiveDistribution | None:
        """Predict log steps by predictors alone; return None with an unknown predictor or too few updates."""
        model = None if query.values(predictors) is None else self._model(query, predictors)
        return None if model is None else model.predict(query)

    def curve(self, query: ForecastQuery) -> UpdateCurve | None:
        """Return the forecast curve of an update; None with too few learning curves."""
        key = _update_key(query)
        if key not in self._started:
            known = query.is_new_task, query.from_scratch, query.group, query.parent
            if known not in self._curves:
                self._curves[known] = CurveHistory(self.rest, query, self.bundled)
            self._started[key] = self._curves[known].start(query)
        return self._started[key]

    def forecast(self, query: ForecastQuery, evaluations: Sequence[int]) -> CurvePrediction | None:
        """Forecast the learning curve of an update before it starts; None with too few learning curves."""
        key = *_update_key(query), tuple(evaluations)
        if key not in self._paths:
            curve = self.curve(query)
            self._paths[key] = None if curve is None else curve.predict(evaluations)
        return self._paths[key]

    def median(self, query: ForecastQuery) -> float | None:
        """Return the median of the log steps in the training folds; None if they hold too few updates."""
        model = self._model(query, ())
        return None if model is None else statistics.median(row.example.value for row in model.rows)

    def score(self, update: Update, query: ForecastQuery) -> ScoredForecast | None:
        """Score the forecast of a held-out update; return None without a forecast."""
        known = known_evaluations(update, query.max_steps) or [*evaluations_until(query.max_steps)]
        evaluations = sorted({min(step, query.max_steps) for step in known if step > 0})
        paths = self.forecast(query, evaluations)
        if paths is None:
            return None
        target, share = query.target_accuracy, central_share(self.level)
        steps = total_steps(paths, target, evaluations, self.level, NO_GUARANTEE, share)
        return score_estimate(update, query, steps, paths.probability_reached(target))

    def _model(self, query: ForecastQuery, predictors: tuple[str, ...]) -> StepsModel | None:
        key = predictors, *_training_key(query)
        if key not in self._models:
            self._models[key] = None
            with contextlib.suppress(TooFewUpdatesError):
                self._models[key] = StepsModel(self.rest, query, predictors, self.bundled)
        return self._models[key]


def _training_key(query: ForecastQuery) -> tuple[Hashable, ...]:
    """Return what of a query determines the training rows."""
    definition = index_definition(query.features)
    return (
        query.is_new_task,
        query.from_scratch,
        definition,
        query.group,
        query.parent,
        query.target_accuracy,
        query.max_steps,
    )


def _update_key(query: ForecastQuery) -> tuple[Hashable, ...]:
    """Return what of a query identifies its update, whatever the target."""
    features = query.features
    known = features.accuracy, features.index_rad, features.task_index, *sorted(features.scores.items())
    return *known, query.group, query.parent, query.shift_type, query.condition, query.max_steps


def fold_predictions(
    folds: TrainingFolds, update: Update, query: ForecastQuery
) -> Iterator[tuple[str, ScoredForecast]]:
    """Yield scored predictions of a held-out update by name: forecasts, single predictors, then baselines.

    Args:
        folds: History without the update.
        update: Held-out update.
        query: Query that could have been asked before it.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> held_out, *rest = bundled_updates()[:30]
        >>> query = ForecastQuery.of_update(held_out, target_accuracy=0.8, max_steps=1000)
        >>> names = [name for name, _ in fold_predictions(TrainingFolds(rest, (), level=0.8), held_out, query)]
        >>> names[:3], names[-3:]
        (['forecast', 'adapted gap', 'adapted k-NN'], ['no predictor', 'constant median', 'step budget'])
    """
    for name, history in (FORECAST, folds), (OWN_ONLY, folds.own_only):
        scored = None if history is None else history.score(update, query)
        if scored is not None:
            yield name, scored
    for name, predictors in {**{name: (name,) for name in PREDICTORS}, NO_PREDICTOR: ()}.items():
        distribution = folds.predict(query, predictors)
        if distribution is not None:
            yield name, score_distribution(distribution, update, query, folds.level)
    constant = folds.median(query)
    if constant is not None:
        yield CONSTANT, score_forecast(update, query, constant)
    yield STEP_BUDGET, score_forecast(update, query, math.log(query.max_steps))


def score_distribution(
    distribution: PredictiveDistribution, update: Update, query: ForecastQuery, level: float
) -> ScoredForecast:
    """Score a predictive distribution of log steps.

    Args:
        distribution: Predictive distribution.
        update: Outcome.
        query: Query that the distribution answers.
        level: Nominal coverage of the interval.
    """
    limit = math.log(query.max_steps)
    median, interval = distribution.median_before(limit), distribution.interval_before(limit, level)
    return score_forecast(update, query, median, interval, distribution.probability_below(limit))


def score_estimate(update: Update, query: ForecastQuery, steps: Estimate, probability_reached: float) -> ScoredForecast:
    """Score a forecast of the steps.

    Args:
        update: Outcome.
        query: Query that the forecast answers.
        steps: Forecast of the steps.
        probability_reached: Probability of reaching the target.
    """
    high = math.inf if steps.interval.high is None else math.log(steps.interval.high)
    interval = math.log(max(steps.interval.low, 1.0)), high
    return score_forecast(update, query, math.log(max(steps.value, 1.0)), interval, probability_reached)


def score_forecast(
    update: Update,
    query: ForecastQuery,
    log_steps: float,
    interval: tuple[float, float] | None = None,
    probability_reached: float | None = None,
) -> ScoredForecast:
    """Score a forecast of log steps, truncated at the step budget.

    Args:
        update: Outcome.
        query: Query that the forecast answers.
        log_steps: Median forecast.
        interval: Prediction interval of log steps, if there is one.
        probability_reached: Probability of reaching the target, if it was forecast.
    """
    at_target, limit = update.cost_at(query.target_accuracy), math.log(query.max_steps)
    return ScoredForecast(
        update=update.id,
        shift_type=update.shift_type,
        forecast=min(log_steps, limit),
        interval=None if interval is None else (min(interval[0], limit), min(interval[1], limit)),
        probability_reached=probability_reached,
        log_steps=math.log((at_target or update.cost).steps or 1),
        reached=at_target is not None,
    )
