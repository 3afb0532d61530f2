"""Predict one cost of an update from finished updates."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.cost_model import CostModel
from resque.forecasting.history import ForecastQuery, HistoryRow, has_shift_type, history_rows
from resque.forecasting.intervals import LEVEL, PredictiveDistribution, predict
from resque.forecasting.reliability import FEWEST_REACHED, FEWEST_UPDATES
from resque.forecasting.selection import predictors_of_success
from resque.ledger.records import Update

__all__ = ["CostPrediction", "predict_cost", "success_distribution"]


@dataclass(frozen=True)
class CostPrediction:
    """Prediction of one cost from a history.

    Attributes:
        rows: Training rows, own updates first.
        distribution: Predictive distribution of the log cost.
        shift_type_seen: Whether an own update has the shift type, model and recipe of the query.
    """

    rows: Sequence[HistoryRow]
    distribution: PredictiveDistribution
    shift_type_seen: bool

    @property
    def own_rows(self) -> list[HistoryRow]:
        """Training rows of the user's own updates."""
        return [row for row in self.rows if row.own]


def predict_cost(
    history: Sequence[Update],
    cost: str,
    query: ForecastQuery,
    predictors: Sequence[str],
    bundled: Sequence[Update] = (),
    level: float = LEVEL,
) -> CostPrediction:
    """Predict one cost of an update from finished ones.

    Args:
        history: The user's own finished updates.
        cost: Name of a field of :class:`resque.ledger.records.Cost`.
        query: Update to forecast.
        predictors: Names of the predictors.
        bundled: Updates from other models.
        level: Nominal coverage of the interval.

    Raises:
        TooFewUpdatesError: Too few updates for a prediction.
        SettingError: A predictor is unknown for the update.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> prediction = predict_cost(bundled_updates()[1:30], "steps", query, ["accuracy gap"])
        >>> prediction.shift_type_seen, prediction.distribution.conformal
        (True, True)
    """
    values = query.values(predictors)
    if values is None:
        raise SettingError(
            f"a predictor is not known for this update: {', '.join(predictors)}; let the forecast choose its predictors"
        )
    rows = history_rows(history, cost, query, predictors, bundled)
    own = [row.example for row in rows if row.own]
    if len(own) == len(rows):
        _check_enough(rows, query, predictors)
    seen = has_shift_type(own, query)
    model = CostModel([row.example for row in rows])
    distribution = predict(model, query.example(values), [row.own for row in rows], seen, level)
    return CostPrediction(rows, distribution, seen)


def success_distribution(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> PredictiveDistribution | None:
    """Predict log steps from the predictors of success, for probabilities alone; None if too few updates have them."""
    names = predictors_of_success(history, query, bundled)
    if names:
        with contextlib.suppress(TooFewUpdatesError):
            return predict_cost(history, "steps", query, names, bundled).distribution
    return None


def _check_enough(rows: Sequence[HistoryRow], query: ForecastQuery, predictors: Sequence[str]) -> None:
    """Raise TooFewUpdatesError if own updates alone do not suffice."""
    n, reached = len(rows), sum(not row.example.censored for row in rows)
    accuracy = f"accuracy {query.target_accuracy:g}"
    if n and reached < FEWEST_REACHED:
        reason = f"{reached} of {n} updates in the ledger reached {accuracy}; a forecast needs {FEWEST_REACHED}"
        advice = "lower the target, or allow more steps"
    elif n < FEWEST_UPDATES and query.features.task_index is not None:
        reason = f"{n} new tasks in the ledger started below {accuracy}; a forecast needs {FEWEST_UPDATES}"
        advice = "do more of them with `resque retrain --new-head` (or --extend)"
    elif n < FEWEST_UPDATES:
        having = f"started below {accuracy} and have the predictor ({', '.join(predictors)})"
        reason = f"{n} updates in the ledger {having}; a forecast needs {FEWEST_UPDATES}"
        advice = "run `resque calibrate`, or `resque retrain` with --original"
    elif len({row.example.condition for row in rows}) == 1:
        reason = f"all {n} updates in the ledger repeat one condition"
        advice = "do updates for other shifts"
    else:
        return
    raise TooFewUpdatesError(f"{reason}: {advice}")
