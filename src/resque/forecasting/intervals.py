"""Prediction intervals and probabilities from a cost model.

If the history holds the shift type of the query, the interval is jackknife+ (Barber et al., 2021). Each condition is
left out in turn, with all of its repeats. The residuals of its examples, in units of their predictive standard
deviation, are added to the prediction for the query without that condition. The bounds are the values of rank
``ceil((n + 1) · level)`` among n conditions. They cover at least ``2 · level - 1`` of new updates that are exchangeable
with the history.

A shift type that is not in the history breaks exchangeability, so no coverage is guaranteed. The interval is then
Student's t about the model's prediction, whose variance includes the variance between shift types. Few shift types
estimate that variance, so the t distribution has one degree of freedom less than there are types. Probabilities follow
Student's t in both cases; for a known shift type, conditions count instead of types.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from resque.errors import SettingError
from resque.forecasting.cost_model import CostModel, NormalPrediction, TrainingExample

__all__ = ["LEVEL", "PredictiveDistribution", "check_level", "predict", "standardized_residuals"]

LEVEL = 0.8
"""Nominal coverage of intervals by default."""
_FEWEST_DEGREES_OF_FREEDOM = 2


@dataclass(frozen=True)
class PredictiveDistribution:
    """Predictive distribution of a log cost.

    Attributes:
        median: Median of the log cost.
        lower: Lower end of the prediction interval.
        upper: Upper end of the prediction interval.
        upper_bound: One-sided upper prediction bound with the level of the interval.
        conformal: Whether the interval is jackknife+ rather than Student's t.
        normal: Mean and standard deviation of the cost model's prediction.
        degrees_of_freedom: Degrees of freedom of Student's t about that mean.
    """

    median: float
    lower: float
    upper: float
    upper_bound: float
    conformal: bool
    normal: NormalPrediction
    degrees_of_freedom: int

    def probability_below(self, log_limit: float) -> float:
        """Return the probability of a log cost of at most the limit, by Student's t."""
        return float(special.stdtr(self.degrees_of_freedom, (log_limit - self.normal.mean) / self.normal.deviation))

    def truncated_at(self, log_limit: float, probability_reached: float, level: float) -> "PredictiveDistribution":
        """Return the distribution of a run that ends at a limit, whether or not it has reached the target.

        A run that reaches the target costs what this distribution, truncated at the limit, gives. Any other run costs
        the limit. The median is that of runs that reach the target. The interval and the bound are those of all runs,
        but the lower end never exceeds the lower end without truncation. Jackknife+ ends are kept below the limit. They
        move to the limit if more runs miss the target than their tail allows.

        Args:
            log_limit: Log cost at which the run ends.
            probability_reached: Probability of reaching the target by then, possibly from another model.
            level: Nominal coverage of the interval.
        """
        probability_below = self.probability_below(log_limit)

        def quantile(share: float) -> float:
            if share <= 0.0:  # the model excludes any cost below the limit
                return log_limit
            standard = float(special.stdtrit(self.degrees_of_freedom, share))
            return min(log_limit, self.normal.mean + self.normal.deviation * standard)

        def quantile_of_all_runs(share: float) -> float:
            if share >= probability_reached:
                return log_limit
            return quantile(min(share * probability_below / probability_reached, 1.0))

        median, two_sided = quantile(0.5 * probability_below), (1 + level) / 2
        if self.conformal:
            lower = min(self.lower, log_limit)
            upper = log_limit if two_sided >= probability_reached else min(self.upper, log_limit)
            upper_bound = log_limit if level >= probability_reached else min(self.upper_bound, log_limit)
        else:
            lower = min(quantile(1 - two_sided), quantile_of_all_runs(1 - two_sided))
            upper, upper_bound = quantile_of_all_runs(two_sided), quantile_of_all_runs(level)
        return dataclasses.replace(
            self,
            median=median,
            lower=min(lower, median),
            upper=max(upper, median),
            upper_bound=max(upper_bound, median) if level >= 0.5 else upper_bound,
        )


def check_level(level: float) -> None:
    """Raise SettingError unless 0 < level < 1."""
    if not 0.0 < level < 1.0:
        raise SettingError(f"level (--confidence) {level:g}: expected a share between 0 and 1, e.g. 0.8 for 80 %")


def predict(
    model: CostModel, query: TrainingExample, is_own: Sequence[bool], shift_type_seen: bool, level: float
) -> PredictiveDistribution:
    """Predict the log cost of an update, with an interval.

    Args:
        model: Cost model, fitted to the history.
        query: The update to predict.
        is_own: Whether each example of the model is the user's own; only these enter the jackknife+.
        shift_type_seen: Whether the user's own updates hold this shift type for this model and recipe.
        level: Nominal coverage of the interval, in (0, 1).

    Example:
        >>> rows = [TrainingExample((), math.log(100 + i), shift_type="blur", condition=i) for i in range(9)]
        >>> query = TrainingExample((), shift_type="blur", condition="new")
        >>> prediction = predict(CostModel(rows), query, [True] * 9, shift_type_seen=True, level=0.8)
        >>> prediction.conformal, 100 < math.exp(prediction.median) < 108
        (True, True)
    """
    normal = model.predict(query)
    folds = [example.condition if shift_type_seen else example.shift_type for example in model.examples]
    degrees = max(_FEWEST_DEGREES_OF_FREEDOM, len(set(folds)) - 1)
    ends = _jackknife_plus(model, query, folds, is_own, level) if shift_type_seen else None
    if ends is not None:
        lower, upper, bound = ends
        lower, upper = min(lower, normal.mean), max(upper, normal.mean)
    else:
        half, one_sided = (normal.deviation * float(special.stdtrit(degrees, p)) for p in ((1 + level) / 2, level))
        lower, upper, bound = normal.mean - half, normal.mean + half, normal.mean + one_sided
    return PredictiveDistribution(normal.mean, lower, upper, bound, ends is not None, normal, degrees)


def standardized_residuals(model: CostModel, folds: Sequence[Hashable]) -> np.ndarray:
    """Compute leave-fold-out residuals of the log costs, in units of their predictive standard deviation.

    A censored cost is a lower bound, so its residual is the residual of the bound, and at least zero.

    Args:
        model: Cost model.
        folds: Fold of each example.

    Returns:
        Residuals of shape ``(n,)``, positive where the cost exceeded the prediction.
    """
    predictions = zip(model.examples, model.leave_fold_out_predictions(folds), strict=True)
    residuals = ((example, (example.log_cost - normal.mean) / normal.deviation) for example, normal in predictions)
    return np.array([max(z, 0.0) if example.censored else z for example, z in residuals])


def _jackknife_plus(
    model: CostModel, query: TrainingExample, folds: Sequence[Hashable], is_own: Sequence[bool], level: float
) -> tuple[float, float, float] | None:
    """Return lower end, upper end and one-sided upper bound; None if the conditions are too few for the level."""
    conditions = list(dict.fromkeys(fold for fold, own in zip(folds, is_own, strict=True) if own))
    rank = math.ceil((len(conditions) + 1) * level - 1e-9)
    if rank > len(conditions):
        return None
    residuals = standardized_residuals(model, folds)
    masks = [
        np.array([own and fold == condition for fold, own in zip(folds, is_own, strict=True)])
        for condition in conditions
    ]
    lowers, uppers, bounds, weights = [], [], [], []
    for mask, normal in zip(masks, model.predict_without(masks, query), strict=True):
        for z in residuals[mask]:
            lowers.append(normal.mean - abs(z) * normal.deviation)
            uppers.append(normal.mean + abs(z) * normal.deviation)
            bounds.append(normal.mean + z * normal.deviation)
            weights.append(1.0 / mask.sum())
    shares = np.array(weights)
    lower, upper, bound = (_at_rank(np.array(v), shares, rank) for v in ([-x for x in lowers], uppers, bounds))
    return -lower, upper, bound


def _at_rank(values: np.ndarray, weights: np.ndarray, rank: int) -> float:
    """Return the smallest value with a cumulative weight of at least the rank; each condition has weight one."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), rank - 1e-9)])
