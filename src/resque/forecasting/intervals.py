"""Predictive distribution of the log steps by one predictor, to compare forecasts with; the level of intervals."""

from collections.abc import Hashable
from dataclasses import dataclass

from scipy import special

from resque.errors import SettingError
from resque.forecasting.mixed_model import MixedModel, NormalPrediction, TrainingExample

__all__ = ["LEVEL", "PredictiveDistribution", "check_level", "predict"]

LEVEL = 0.8
"""Nominal coverage of intervals by default."""
_FEWEST_DEGREES_OF_FREEDOM = 2


@dataclass(frozen=True)
class PredictiveDistribution:
    """Student's t distribution of the log steps to the target.

    Attributes:
        normal: Mean and standard deviation of the mixed model's prediction.
        degrees_of_freedom: Degrees of freedom about that mean.
    """

    normal: NormalPrediction
    degrees_of_freedom: int

    def probability_below(self, log_limit: float) -> float:
        """Return the probability of log steps of at most the limit."""
        return float(special.stdtr(self.degrees_of_freedom, (log_limit - self.normal.mean) / self.normal.deviation))

    def median_before(self, log_limit: float) -> float:
        """Return the median log steps of the runs that reach the target by a limit."""
        return self._quantile(0.5 * self.probability_below(log_limit), log_limit)

    def interval_before(self, log_limit: float, level: float) -> tuple[float, float]:
        """Return the interval of the log steps of all runs; those that miss the target end at the limit.

        Both ends stay on their sides of the median of the runs that reach it.

        Args:
            log_limit: Log steps at which a run ends.
            level: Nominal coverage.
        """
        median = self.median_before(log_limit)
        low, high = (self._quantile(share, log_limit) for share in ((1 - level) / 2, (1 + level) / 2))
        return min(low, median), max(high, median)

    def _quantile(self, share: float, log_limit: float) -> float:
        if share <= 0.0:  # the model excludes any cost below the limit
            return log_limit
        standard = float(special.stdtrit(self.degrees_of_freedom, share))
        return min(log_limit, self.normal.mean + self.normal.deviation * standard)


def check_level(level: float) -> None:
    """Raise SettingError unless 0 < level < 1."""
    if not 0.0 < level < 1.0:
        raise SettingError(f"level (--confidence) {level:g}: expected a share between 0 and 1, e.g. 0.8 for 80 %")


def predict(model: MixedModel, query: TrainingExample, shift_type_seen: bool) -> PredictiveDistribution:
    """Predict the log steps of an update.

    Args:
        model: Mixed model, fitted to the history.
        query: The update to predict.
        shift_type_seen: Whether the user's own updates hold this shift type for this model and recipe.

    Example:
        >>> import math
        >>> rows = [TrainingExample((), math.log(100 + i), shift_type="blur", condition=i) for i in range(9)]
        >>> query = TrainingExample((), shift_type="blur", condition="new")
        >>> distribution = predict(MixedModel(rows), query, shift_type_seen=True)
        >>> distribution.degrees_of_freedom, 100 < math.exp(distribution.median_before(math.inf)) < 108
        (8, True)
    """
    folds: set[Hashable] = {each.condition if shift_type_seen else each.shift_type for each in model.examples}
    return PredictiveDistribution(model.predict(query), max(_FEWEST_DEGREES_OF_FREEDOM, len(folds) - 1))
