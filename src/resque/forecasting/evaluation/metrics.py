"""Score forecasts against outcomes: errors, coverage, width, interval score, Brier score, rank correlation."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from resque.forecasting.evaluation.settlement import brier_scores, covers
from resque.types import Interval

__all__ = [
    "FEWEST_GROUPS", "PredictorReport", "ScoredForecast", "cluster_bootstrap_interval", "correlation_interval",
    "error_reduction", "evaluate_predictor", "spearman_with_interval",
]  # fmt: skip

FEWEST_GROUPS = 3
"""Fewest shift types for an interval clustered by shift type, and fewest folds."""
_RESAMPLES = 1000
_CLUSTERED_LEVEL = 0.9
_NORMAL_975 = 1.959964
_TOLERANCE = 1e-9
_UNBOUNDED = -math.inf, math.inf


@dataclass(frozen=True)
class ScoredForecast:
    """Forecast and outcome of one update, in log steps.

    Attributes:
        update: Id of the update.
        shift_type: Shift type of the update; the cluster of clustered intervals.
        forecast: Median forecast.
        interval: Ends of the prediction interval; None without an interval.
        probability_reached: Probability of reaching the target; None if not forecast.
        log_steps: Outcome; a lower bound if the target was not reached.
        reached: Whether the target was reached.
    """

    update: str
    shift_type: Hashable
    forecast: float
    interval: tuple[float, float] | None
    probability_reached: float | None
    log_steps: float
    reached: bool

    @property
    def error(self) -> float:
        """Absolute error in log steps."""
        return abs(self.forecast - self.log_steps)

    @property
    def covered(self) -> bool:
        """Whether the interval covers the outcome."""
        lower, upper = self.interval or _UNBOUNDED
        return covers(lower - _TOLERANCE, upper + _TOLERANCE, self.log_steps, self.reached)

    @property
    def width(self) -> float:
        """Width of the interval."""
        lower, upper = self.interval or _UNBOUNDED
        return upper - lower

    def score(self, level: float) -> float:
        """Return the interval score (Gneiting and Raftery, 2007): width plus ``2 / (1 - level)`` times the miss.

        A censored outcome cannot lie below the interval.
        """
        lower, upper = self.interval or _UNBOUNDED
        below = max(lower - self.log_steps, 0.0) if self.reached else 0.0
        return upper - lower + 2.0 / (1.0 - level) * (below + max(self.log_steps - upper, 0.0))


@dataclass(frozen=True)
class PredictorReport:
    """Accuracy of one predictor on all updates that it could predict.

    Attributes:
        predictor: Name of the predictor.
        n: Number of updates.
        reached: Number of updates that reached the target; errors are computed on these.
        median_error: Median of ``|forecast - steps| / steps``.
        median_factor: Median of the larger of forecast and steps over the smaller.
        within_factor_2: Share of forecasts within a factor of 2 of the steps.
        spearman: 95 % interval of the rank correlation of forecast and steps; None if undefined.
        spearman_value: Rank correlation of forecast and steps; None if undefined.
        brier: Mean squared error of the probability of reaching the target; None without probabilities.
        base_rate_brier: Brier score on the same updates of their base rate, the share p that reached the target:
            ``p (1 - p)``. It is known in hindsight only, so it is a hard reference; None without probabilities.
        coverage: Share of intervals that cover the outcome; None without intervals.
        coverage_interval: 90 % interval of the coverage, clustered by shift type; None without intervals.
        log_width: Median width of the intervals, in log steps; None without intervals.
        interval_score: Mean interval score in log steps, smaller is better; None without intervals.
    """

    predictor: str
    n: int
    reached: int
    median_error: float
    median_factor: float
    within_factor_2: float
    spearman: Interval | None
    spearman_value: float | None
    brier: float | None
    base_rate_brier: float | None
    coverage: float | None
    coverage_interval: Interval | None
    log_width: float | None
    interval_score: float | None


def evaluate_predictor(predictor: str, scored: Sequence[ScoredForecast], level: float) -> PredictorReport:
    """Evaluate one predictor.

    Args:
        predictor: Name of the predictor.
        scored: Its forecasts, at least one.
        level: Nominal coverage of the intervals.

    Example:
        >>> scored = [ScoredForecast(str(i), "blur", 1.1, (0.5, 1.5), 0.9, 1.0 + i, True) for i in range(2)]
        >>> report = evaluate_predictor("index", scored, level=0.8)
        >>> report.n, round(report.median_error, 2), report.coverage, round(report.brier, 2)
        (2, 0.35, 0.5, 0.01)
    """
    reached = [each for each in scored if each.reached]
    forecast, steps = (np.array([getattr(each, field) for each in reached]) for field in ("forecast", "log_steps"))
    correlation, correlation_range = spearman_with_interval(forecast, steps)
    intervals = [each for each in scored if each.interval is not None]
    chances = [(p, each.reached) for each in scored if (p := each.probability_reached) is not None]
    brier, base_rate = brier_scores(chances) if chances else (None, None)
    covered = np.array([each.covered for each in intervals])
    shift_types = [each.shift_type for each in intervals]
    return PredictorReport(
        predictor=predictor,
        n=len(scored),
        reached=len(reached),
        median_error=float(np.median(np.abs(np.expm1(forecast - steps)))) if reached else math.nan,
        median_factor=float(np.exp(np.median(np.abs(forecast - steps)))) if reached else math.nan,
        within_factor_2=float(np.mean(np.abs(forecast - steps) <= math.log(2.0))) if reached else math.nan,
        spearman=correlation_range,
        spearman_value=correlation,
        brier=brier,
        base_rate_brier=base_rate,
        coverage=float(covered.mean()) if intervals else None,
        coverage_interval=cluster_bootstrap_interval(covered, shift_types) if intervals else None,
        log_width=float(np.median([each.width for each in intervals])) if intervals else None,
        interval_score=float(np.mean([each.score(level) for each in intervals])) if intervals else None,
    )


def spearman_with_interval(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Interval | None]:
    """Compute Spearman's ρ and its 95 % interval; None for fewer than five pairs or constant values.

    Args:
        x: Values of shape ``(n,)``.
        y: Values of shape ``(n,)``.
    """
    if len(x) < 5 or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return None, None
    value = float(stats.spearmanr(x, y).statistic)
    return value, correlation_interval(value, len(x), ranks=True)


def correlation_interval(value: float, n: int, ranks: bool) -> Interval | None:
    """Compute the 95 % interval of a correlation by Fisher's z, ``atanh(r) ± 1.96 · sqrt(c / (n - 3))``.

    The factor c is 1 for Pearson's r, and ``1 + ρ² / 2`` for Spearman's ρ (Bonett and Wright, 2000).

    Args:
        value: Correlation.
        n: Number of pairs, at least four.
        ranks: Whether it is Spearman's ρ.

    Returns:
        The interval; None for a perfect correlation, where Fisher's z is infinite.

    Example:
        >>> interval = correlation_interval(0.86, 7, ranks=False)
        >>> round(interval.low, 2), round(interval.high, 2)
        (0.3, 0.98)
    """
    if abs(value) > 1.0 - _TOLERANCE:
        return None
    spread = _NORMAL_975 * math.sqrt((1.0 + value**2 / 2.0 if ranks else 1.0) / (n - 3))
    z = math.atanh(value)
    method = "Fisher's z" + (", Bonett and Wright's variance" if ranks else "")
    return Interval(math.tanh(z - spread), math.tanh(z + spread), 0.95, f"{method}; approximate")


def error_reduction(one: Sequence[ScoredForecast], other: Sequence[ScoredForecast]) -> Interval | None:
    """Compute by how much smaller the absolute log errors of one predictor are than those of another.

    Args:
        one: Forecasts of the first predictor.
        other: Forecasts of the second predictor.

    Returns:
        90 % interval of the mean reduction, clustered by shift type, over updates that both predict and that reached
        the target; None with fewer than three shift types.
    """
    others = {each.update: each for each in other}
    pairs = [(each, others[each.update]) for each in one if each.reached and each.update in others]
    if len({each.shift_type for each, _ in pairs}) < FEWEST_GROUPS:
        return None
    reductions = np.array([second.error - first.error for first, second in pairs])
    return cluster_bootstrap_interval(reductions, [each.shift_type for each, _ in pairs])


def cluster_bootstrap_interval(values: np.ndarray, clusters: Sequence[Hashable]) -> Interval:
    """Compute the 90 % interval of a mean by a bootstrap of whole clusters, with a fixed seed.

    Args:
        values: Values of shape ``(n,)``.
        clusters: Cluster of each value, e.g. its shift type.

    Example:
        >>> interval = cluster_bootstrap_interval(np.array([0.0, 0.0, 1.0, 1.0]), ["a", "a", "b", "b"])
        >>> interval.low, interval.high
        (0.0, 1.0)
    """
    random = np.random.default_rng(0)
    groups = [values[[other == cluster for other in clusters]] for cluster in dict.fromkeys(clusters)]
    means = [
        np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))]).mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [(1 - _CLUSTERED_LEVEL) / 2, (1 + _CLUSTERED_LEVEL) / 2])
    return Interval(float(low), float(high), _CLUSTERED_LEVEL, "bootstrap of whole clusters")
