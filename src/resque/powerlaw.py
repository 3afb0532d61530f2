"""Cost as a power law of one feature: fitted with censored updates, judged by what it says of held-out ones.

It knows logarithms and kinds of shift, and nothing of where they come from.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

_CENSORING_ROUNDS = 50


@dataclass(frozen=True)
class Past:
    """What one finished update says about one cost at one target.

    Attributes:
        x: Log of the predictor.
        y: Log of the cost; of the cost so far where it was censored.
        censored: Whether the run ended below the target.
        kind: Kind of shift.
        per_step: The cost over the steps it went with.
        condition: What was retrained on what: repeats of it are held out together.
        parent: The model that was retrained.
        gave_up: Whether it ran to its end in vain; a run that stopped at a lower target of its own did not.
    """

    x: float
    y: float
    censored: bool
    kind: str | None
    per_step: float = 1.0
    condition: str = ""
    parent: str = ""
    gave_up: bool = False


@dataclass(frozen=True)
class Predicted:
    """A cost on the log scale: where it is expected, and how far held-out updates were from where they were."""

    center: float
    low: float
    high: float
    draws: np.ndarray


@dataclass(frozen=True)
class PowerLaw:
    """``log cost = intercept + slope × log predictor``, and an offset for each kind of shift.

    Attributes:
        intercept: Log of the cost where the predictor is 1.
        slope: Exponent of the predictor.
        offsets: Kind → how much its log cost lies above the line; empty where kinds are not told apart.
    """

    intercept: float
    slope: float
    offsets: Mapping[str | None, float]

    @classmethod
    def fitted(cls, rows: Sequence[Past], by_kind: bool) -> "PowerLaw":
        """Least squares, the offsets shrunk as if each were held to zero by one more update.

        A censored value is a lower bound: it is replaced by its expectation given that it lies above, until
        that settles (Schmee and Hahn, 1979).

        Args:
            rows: The history.
            by_kind: Whether to learn an offset for each kind.

        Example:
            >>> rows = [Past(x, 1 + 2 * x, False, None) for x in (0.0, 1.0, 2.0)]
            >>> PowerLaw.fitted(rows, by_kind=False)
            PowerLaw(intercept=1.0, slope=2.0, offsets={})
        """
        x, y, censored = (np.array([getattr(row, name) for row in rows]) for name in ("x", "y", "censored"))
        kinds = sorted({row.kind for row in rows}, key=str) if by_kind else []
        dummies = np.array([[row.kind == kind for kind in kinds] for row in rows], dtype=float).reshape(len(rows), -1)
        slope_column = x - x.mean() if np.ptp(x) > 1e-9 else np.zeros_like(x)
        design = np.column_stack([np.ones_like(x), slope_column, dummies])
        held = np.diag([0.0, 0.0] + [1.0] * len(kinds))[2:]  # one pseudo-update per kind, at offset zero
        filled = y.copy()
        for _ in range(_CENSORING_ROUNDS):
            stacked = np.vstack([design, held]), np.concatenate([filled, np.zeros(len(kinds))])
            weights, *_ = np.linalg.lstsq(*stacked, rcond=None)
            expected = _above(design @ weights, filled, y, censored)
            settled = np.allclose(expected, filled, atol=1e-6)
            filled = expected
            if settled:
                break
        intercept = weights[0] - weights[1] * x.mean()
        offsets = {kind: float(offset) for kind, offset in zip(kinds, weights[2:], strict=True)}
        return cls(round(float(intercept), 12), round(float(weights[1]), 12), offsets)

    def at(self, row: Past) -> float:
        """Expected log cost."""
        return self.intercept + self.slope * row.x + self.offsets.get(row.kind, 0.0)


def _above(mean: np.ndarray, filled: np.ndarray, y: np.ndarray, censored: np.ndarray) -> np.ndarray:
    """Censored values replaced by their expectation above their bound, for normal errors around ``mean``."""
    if not censored.any() or censored.all():
        return y
    sigma = max(float(np.std((filled - mean)[~censored])), 1e-6)
    bound = (y - mean) / sigma
    hazard = np.exp(stats.norm.logpdf(bound) - stats.norm.logsf(bound))
    return np.where(censored, mean + sigma * hazard, y)


def held_out(rows: Sequence[Past], new: Past, folds: Sequence[str | None], by_kind: bool, level: float) -> Predicted:
    """The law at a new update, with a jackknife+ interval (Barber et al. 2021).

    Args:
        rows: The history.
        new: The update to be foretold; its ``y`` is not looked at.
        folds: One per row: rows with the same are held out together; at least two differ.
        by_kind: Whether to learn an offset for each kind.
        level: Nominal coverage.

    Returns:
        The prediction on the log scale; a censored update's distance counts as infinite.
    """
    draws, lows, highs = (np.empty(len(rows)) for _ in range(3))
    for fold in set(folds):
        out = [i for i, other in enumerate(folds) if other == fold]
        law = PowerLaw.fitted([row for row, other in zip(rows, folds, strict=True) if other != fold], by_kind)
        for i in out:
            residual, at_new = rows[i].y - law.at(rows[i]), law.at(new)
            distance = math.inf if rows[i].censored else abs(residual)
            draws[i] = at_new + (residual if not rows[i].censored else math.inf if rows[i].gave_up else math.nan)
            lows[i], highs[i] = at_new - distance, at_new + distance
    low, high = _outer(lows, highs, [row.condition for row in rows], level)
    center = PowerLaw.fitted(rows, by_kind).at(new)
    return Predicted(center, min(low, center), max(high, center), draws)


def _outer(lows: np.ndarray, highs: np.ndarray, conditions: Sequence[str], level: float) -> tuple[float, float]:
    """Jackknife+'s order statistics over conditions; unbounded where they are too few for the level.

    Repeats of a condition share its one place among the order statistics.
    """
    counts = Counter(conditions)
    places = np.array([1.0 / counts[condition] for condition in conditions])
    rank = math.ceil((len(counts) + 1) * level - 1e-9)
    if rank > len(counts):
        return -math.inf, math.inf
    return -_at_rank(-lows, places, rank), _at_rank(highs, places, rank)


def _at_rank(values: np.ndarray, places: np.ndarray, rank: int) -> float:
    """The smallest value with at least ``rank`` places at or below it."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(places[order]), rank - 1e-9)])
