"""What was said of costs beside what came: errors, coverage, width, interval score, Brier score, rank correlation."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from resque.types import Interval

_RESAMPLES = 1000
_CLUSTERED = 0.9
_TWO_SIDED = 1.959964
_SLACK = 1e-9
FEWEST_GROUPS = 3


@dataclass(frozen=True)
class ScoredForecast:
    """What was said of one update, and what came; logarithms of steps, none beyond the longest run.

    Attributes:
        update: Its id.
        shift_type: Its kind of shift.
        forecast: The middle.
        low: Lower end of the interval; None where none was given, as the two below.
        high: Upper end.
        chance: Of reaching the target.
        steps: What it took, or took at least.
        reached: Whether the target was.
    """

    update: str
    shift_type: Hashable
    forecast: float
    low: float | None
    high: float | None
    chance: float | None
    steps: float
    reached: bool

    @property
    def held(self) -> bool:
        """As a settlement judges it: of a run that never arrived, whether the interval ends no earlier than the run."""
        low, high = self._ends
        return (not self.reached or low <= self.steps + _SLACK) and self.steps <= high + _SLACK

    @property
    def width(self) -> float:
        """Of the interval."""
        low, high = self._ends
        return high - low

    def score(self, level: float) -> float:
        """The interval score (Gneiting and Raftery, 2007); a run that never arrived cannot lie below."""
        low, high = self._ends
        below = max(low - self.steps, 0.0) if self.reached else 0.0
        return high - low + 2.0 / (1.0 - level) * (below + max(self.steps - high, 0.0))

    @property
    def _ends(self) -> tuple[float, float]:
        return (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)


@dataclass(frozen=True)
class PredictorReport:
    """One predictor's word on all updates that could be asked about.

    Attributes:
        predictor: Name.
        n: Updates.
        reached: Those that reached the target; errors are theirs.
        median_error: Median of ``|forecast - steps| / steps``.
        within_factor_2: Share of them.
        spearman: Of forecast and steps, with its 95 % interval.
        brier: Mean squared error of the chance of reaching the target; None for what gives no chance.
        coverage: Share of intervals that held, with a 90 % interval clustered by kind; None for what gives none.
        log_width: Median width of the intervals, in log steps.
        interval_score: Mean, in log steps; smaller is better.
    """

    predictor: str
    n: int
    reached: int
    median_error: float
    within_factor_2: float
    spearman: Interval | None
    spearman_value: float | None
    brier: float | None
    coverage: float | None
    coverage_interval: Interval | None
    log_width: float | None
    interval_score: float | None


def evaluate_predictor(predictor: str, found: Sequence[ScoredForecast], level: float) -> PredictorReport:
    """One predictor's word, judged.

    Args:
        predictor: Its name.
        found: What it said of every update, one at least.
        level: Nominal coverage of its intervals.
    """
    reached = [each for each in found if each.reached]
    forecast, steps = (np.array([getattr(each, field) for each in reached]) for field in ("forecast", "steps"))
    ranks, between = spearman_with_interval(forecast, steps)
    spoken = [each for each in found if each.low is not None]
    chances = [(each.chance - each.reached) ** 2 for each in found if each.chance is not None]
    holds = np.array([each.held for each in spoken])
    return PredictorReport(
        predictor=predictor,
        n=len(found),
        reached=len(reached),
        median_error=float(np.median(np.abs(np.expm1(forecast - steps)))) if reached else math.nan,
        within_factor_2=float(np.mean(np.abs(forecast - steps) <= math.log(2.0))) if reached else math.nan,
        spearman=between,
        spearman_value=ranks,
        brier=float(np.mean(chances)) if chances else None,
        coverage=float(holds.mean()) if spoken else None,
        coverage_interval=cluster_bootstrap_interval(holds, [each.shift_type for each in spoken]) if spoken else None,
        log_width=float(np.median([each.width for each in spoken])) if spoken else None,
        interval_score=float(np.mean([each.score(level) for each in spoken])) if spoken else None,
    )


def spearman_with_interval(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Interval | None]:
    """ρ, and its 95 % interval by Fisher's z with Bonett and Wright's variance."""
    if len(x) < 5 or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return None, None
    value = float(stats.spearmanr(x, y).statistic)
    return value, correlation_interval(value, len(x), ranks=True)


def correlation_interval(value: float, n: int, ranks: bool) -> Interval | None:
    """95 % interval of Pearson's r, or with ``ranks`` of Spearman's ρ, from ``n`` pairs, four at least.

    None for a perfect correlation: Fisher's z has no end there, and few pairs may agree by chance.

    Example:
        >>> found = correlation_interval(0.86, 7, ranks=False)
        >>> round(found.low, 2), round(found.high, 2)
        (0.3, 0.98)
    """
    if abs(value) > 1.0 - _SLACK:
        return None
    spread = _TWO_SIDED * math.sqrt((1.0 + value**2 / 2.0 if ranks else 1.0) / (n - 3))
    middle = math.atanh(value)
    method = "Fisher's z" + (", Bonett and Wright's variance" if ranks else "")
    return Interval(math.tanh(middle - spread), math.tanh(middle + spread), 0.95, f"{method}; approximate")


def error_reduction(index: Sequence[ScoredForecast], other: Sequence[ScoredForecast]) -> Interval | None:
    """How much smaller the index's log errors are than another's, on updates of which both speak."""
    others = {each.update: each for each in other}
    pairs = [(each, others[each.update]) for each in index if each.reached and each.update in others]
    if len(pairs) < FEWEST_GROUPS or len({a.shift_type for a, _ in pairs}) < FEWEST_GROUPS:
        return None
    nearer = [abs(b.forecast - b.steps) - abs(a.forecast - a.steps) for a, b in pairs]
    return cluster_bootstrap_interval(np.array(nearer), [a.shift_type for a, _ in pairs])


def cluster_bootstrap_interval(values: np.ndarray, kinds: Sequence[Hashable]) -> Interval:
    """Of their mean, by a bootstrap of whole kinds: what is said of one shift of a kind is no news of the next."""
    random = np.random.default_rng(0)
    groups = [values[[other == kind for other in kinds]] for kind in dict.fromkeys(kinds)]
    means = [
        np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))]).mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [(1 - _CLUSTERED) / 2, (1 + _CLUSTERED) / 2])
    return Interval(float(low), float(high), _CLUSTERED, "bootstrap of whole kinds")
