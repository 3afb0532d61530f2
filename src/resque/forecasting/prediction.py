"""Predict the steps of an update by one predictor, from finished updates: what a forecast is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass

from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.history import ForecastQuery, HistoryRow, has_shift_type, history_rows
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.mixed_model import MixedModel
from resque.ledger.records import Update

__all__ = ["FEWEST_ROWS", "StepsPrediction", "predict_steps"]

FEWEST_ROWS = 3
"""Fewest updates."""


@dataclass(frozen=True)
class StepsPrediction:
    """Prediction of the steps by some predictors.

    Attributes:
        rows: Training rows, own updates first.
        distribution: Predictive distribution of the log steps.
    """

    rows: Sequence[HistoryRow]
    distribution: PredictiveDistribution


def predict_steps(
    history: Sequence[Update], query: ForecastQuery, predictors: Sequence[str], bundled: Sequence[Update] = ()
) -> StepsPrediction:
    """Predict the steps of an update from finished ones, by a mixed model of some predictors.

    Args:
        history: The user's own finished updates.
        query: Update to forecast.
        predictors: Names of the predictors.
        bundled: Updates from other models.

    Raises:
        TooFewUpdatesError: Fewer than three updates have the predictors.
        SettingError: A predictor is unknown for the update.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> prediction = predict_steps(bundled_updates()[1:30], query, ["accuracy gap"])
        >>> len(prediction.rows), 1.0 < prediction.distribution.normal.mean < 4.0
        (29, True)
    """
    values = query.values(predictors)
    if values is None:
        raise SettingError(f"a predictor is not known for this update: {', '.join(predictors)}")
    rows = history_rows(history, "steps", query, predictors, bundled)
    if len(rows) < FEWEST_ROWS:
        raise TooFewUpdatesError(f"{len(rows)} updates have the predictor ({', '.join(predictors)}): do more updates")
    model = MixedModel([row.example for row in rows])
    seen = has_shift_type((row.example for row in rows if row.own), query)
    return StepsPrediction(rows, predict(model, query.example(values), seen))
