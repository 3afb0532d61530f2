"""Predict the steps of an update by one predictor, from finished updates: what a forecast is compared with."""

from collections.abc import Sequence

from resque.errors import TooFewUpdatesError
from resque.forecasting.history import ForecastQuery, has_shift_type, history_rows
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.mixed_model import fitted_model
from resque.ledger.records import Update

__all__ = ["FEWEST_ROWS", "StepsModel"]

FEWEST_ROWS = 3
"""Fewest updates."""


class StepsModel:
    """Mixed model of the log steps by some predictors, fitted to finished updates at construction.

    Args:
        history: The user's own finished updates.
        query: Update to forecast; model, recipe, target accuracy and budget decide what is learned.
        predictors: Names of the predictors.
        bundled: Updates from other models.

    Attributes:
        rows: Training rows, own updates first.

    Raises:
        TooFewUpdatesError: Fewer than three updates have the predictors.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> model = StepsModel(bundled_updates()[1:30], query, ["accuracy gap"])
        >>> len(model.rows), 1.0 < model.predict(query).normal.mean < 4.0
        (29, True)
    """

    def __init__(
        self, history: Sequence[Update], query: ForecastQuery, predictors: Sequence[str], bundled: Sequence[Update] = ()
    ) -> None:
        self.rows = history_rows(history, query, predictors, bundled)
        if len(self.rows) < FEWEST_ROWS:
            named = ", ".join(predictors) or "none"
            raise TooFewUpdatesError(f"{len(self.rows)} updates have the predictor ({named}): do more updates")
        self._predictors = predictors
        self._model = fitted_model(tuple(row.example for row in self.rows))

    def predict(self, query: ForecastQuery) -> PredictiveDistribution | None:
        """Predict the log steps of an update; None if a predictor is unknown for it."""
        values = query.values(self._predictors)
        if values is None:
            return None
        seen = has_shift_type((row.example for row in self.rows if row.own), query)
        return predict(self._model, query.example(values), seen)
