"""Predict held-out updates from the rest of a history, and score the predictions."""

import math
import statistics
from collections.abc import Hashable, Iterator, Sequence

from resque.forecasting.cost_model import CostModel
from resque.forecasting.evaluation.metrics import FEWEST_GROUPS, ScoredForecast
from resque.forecasting.evaluation.settlement import FORECAST
from resque.forecasting.forecaster import CONSTANT
from resque.forecasting.history import (
    ForecastQuery,
    HistoryRow,
    has_shift_type,
    history_rows,
    index_definition,
)
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.landmarking import CurveHistory
from resque.forecasting.predictors import PREDICTORS
from resque.forecasting.selection import choose_predictors, predictors_of_success
from resque.ledger.records import Update

__all__ = [
    "CONSTANT", "NO_PREDICTOR", "OWN_ONLY", "STEP_BUDGET", "TrainingFolds", "fold_predictions", "score_distribution",
    "score_forecast",
]  # fmt: skip

OWN_ONLY, NO_PREDICTOR, STEP_BUDGET = "own updates only", "no predictor", "step budget"
"""Names of the baselines in reports."""


class TrainingFolds:
    """History without its held-out fold; each cost model is fitted once.

    Args:
        rest: The user's own updates outside the fold.
        bundled: Updates from other models.
        level: Nominal coverage of the intervals.
    """

    def __init__(self, rest: Sequence[Update], bundled: Sequence[Update], level: float) -> None:
        self.rest, self.bundled, self.level = rest, bundled, level
        self.own_only = TrainingFolds(rest, (), level) if bundled else None
        self._models: dict[Hashable, tuple[CostModel, list[HistoryRow]] | None] = {}
        self._curves: dict[Hashable, CurveHistory] = {}
        self._selected: dict[Hashable, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def predict(
        self, query: ForecastQuery, predictors: tuple[str, ...], bundled: Sequence[Update] = ()
    ) -> PredictiveDistribution | None:
        """Predict log steps from the training folds; return None with an unknown predictor or too few updates.

        Args:
            query: Update to predict.
            predictors: Names of the predictors.
            bundled: Updates from other models, empty or those of this object.
        """
        values = query.values(predictors)
        fitted = None if values is None else self._fitted(query, predictors, bundled)
        if values is None or fitted is None:
            return None
        model, rows = fitted
        seen = has_shift_type((row.example for row in rows if row.own), query)
        return predict(model, query.example(values), [row.own for row in rows], seen, self.level)

    def forecast(self, query: ForecastQuery) -> PredictiveDistribution | None:
        """Predict log steps as a forecast does, with its choice of predictors."""
        predictors, _ = self._select(query)
        return self.predict(query, predictors, self.bundled) if predictors else None

    def success(self, query: ForecastQuery) -> PredictiveDistribution | None:
        """Predict log steps from the predictors of success; return None if there are none."""
        _, predictors = self._select(query)
        return self.predict(query, predictors, self.bundled) if predictors else None

    def curves(self, query: ForecastQuery) -> CurveHistory:
        """Return the learning curves of the training folds, for in-run forecasts."""
        key = query.features.task_index is not None, query.group, query.parent
        if key not in self._curves:
            self._curves[key] = CurveHistory.of(self.rest, query, self.bundled)
        return self._curves[key]

    def median(self, query: ForecastQuery) -> float | None:
        """Return the median of the log steps in the training folds; None if they hold too few updates."""
        fitted = self._fitted(query, ())
        return None if fitted is None else statistics.median(row.example.log_cost for row in fitted[1])

    def score(self, update: Update, query: ForecastQuery) -> ScoredForecast | None:
        """Score the forecast of a held-out update; return None without a forecast."""
        forecast = self.forecast(query)
        if forecast is None:
            return None
        return score_distribution(forecast, update, query, self.level, self.success(query))

    def _select(self, query: ForecastQuery) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the predictors of the steps and of success."""
        key = *_training_key(query), tuple(query.values([name]) is None for name in PREDICTORS)
        if key not in self._selected:
            arguments = self.rest, query, self.bundled
            self._selected[key] = choose_predictors(*arguments), predictors_of_success(*arguments)
        return self._selected[key]

    def _fitted(
        self, query: ForecastQuery, predictors: tuple[str, ...], bundled: Sequence[Update] = ()
    ) -> tuple[CostModel, list[HistoryRow]] | None:
        key = predictors, bool(bundled), *_training_key(query)
        if key not in self._models:
            rows = history_rows(self.rest, "steps", query, predictors, bundled)
            enough = len(rows) >= FEWEST_GROUPS
            self._models[key] = (CostModel([row.example for row in rows]), rows) if enough else None
        return self._models[key]


def _training_key(query: ForecastQuery) -> tuple[Hashable, ...]:
    """Return what of a query determines the training rows."""
    is_task = query.features.task_index is not None
    definition = index_definition(query.features)
    return is_task, definition, query.group, query.parent, query.target_accuracy, query.max_steps


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
        (['forecast', 'BN-adapted gap', 'BN-adapted k-NN'], ['no predictor', 'constant median', 'step budget'])
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
    distribution: PredictiveDistribution,
    update: Update,
    query: ForecastQuery,
    level: float,
    success: PredictiveDistribution | None = None,
) -> ScoredForecast:
    """Score a predictive distribution of log steps.

    Args:
        distribution: Predictive distribution.
        update: Outcome.
        query: Query that the distribution answers.
        level: Nominal coverage of the interval.
        success: Distribution for the probability of reaching the target; None uses the first one.
    """
    limit = math.log(query.max_steps)
    probability = (success or distribution).probability_below(limit)
    run = distribution.truncated_at(limit, probability, level)
    return score_forecast(update, query, run.median, (run.lower, run.upper), probability)


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
