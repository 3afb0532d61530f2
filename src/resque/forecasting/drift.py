"""The drift of a model's accuracy from window to window: a robust line on the logit scale, with its uncertainty."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from resque._plain import Serializable

__all__ = ["FEWEST_WINDOWS", "AccuracyPoint", "Drift", "fit_drift"]

FEWEST_WINDOWS = 3
"""Number of windows below which no drift is extrapolated."""


@dataclass(frozen=True)
class AccuracyPoint:
    """The accuracy of a window.

    Attributes:
        position: Distance from the newest window, in windows.
        accuracy: Accuracy, measured or estimated.
        samples: Number of samples.
        error_logit: Standard error of an estimate without labels, on the logit scale; None if it was measured.
    """

    position: float
    accuracy: float
    samples: int
    error_logit: float | None = None

    @property
    def logit(self) -> float:
        """Logit of the accuracy, half a sample away from 0 and 1."""
        return float(special.logit((self.accuracy * self.samples + 0.5) / (self.samples + 1.0)))

    @property
    def sampling_variance(self) -> float:
        """Variance of the logit, by the number of samples."""
        share = special.expit(self.logit)
        return float(1.0 / ((self.samples + 1.0) * share * (1.0 - share)))


@dataclass(frozen=True)
class Drift(Serializable):
    """A line through the logits of the accuracies of the windows.

    Bounds are those of a single window, by Student's t distribution. A rising line is not extrapolated: accuracy is not
    expected to rise by itself.

    Attributes:
        n: Number of windows.
        logit_now: Logit of the accuracy at the newest window, on the line.
        slope: Change of the logit per window.
        slope_error: Standard error of the slope.
        spread: Standard deviation of a window's logit about the line, at least that of its sampling.
        offset_error: Standard error that all windows share, where accuracies are estimated without labels; else zero.
        center: Mean position of the windows.
        level: Nominal coverage of the bounds.

    Example:
        >>> drift = fit_drift([AccuracyPoint(t, 0.8 - 0.02 * (t + 3), 1000) for t in (-3, -2, -1, 0)])
        >>> drift.n, [round(float(drift.accuracy(np.array(4.0), bound)), 2) for bound in (-1, 0, 1)]
        (4, [0.55, 0.64, 0.73])
    """

    n: int
    logit_now: float
    slope: float
    slope_error: float
    spread: float
    offset_error: float
    center: float
    level: float

    def accuracy(self, ahead: np.ndarray, bound: int = 0) -> np.ndarray:
        """Return the accuracy without an update, so many windows ahead.

        Args:
            ahead: Numbers of windows.
            bound: 0 for the median, -1 for the lower and 1 for the upper bound.
        """
        spread = np.sqrt(self.offset_error**2 + self.spread**2 * (1.0 + 1.0 / self.n) + self._turn(ahead - self.center))
        return self._shifted(self.logit_now, ahead, bound * spread)

    def accuracy_after_update(self, accuracy: float, age: np.ndarray, bound: int = 0) -> np.ndarray:
        """Return the accuracy so many windows after an update, from which on the drift starts anew.

        Args:
            accuracy: Accuracy on the data of the update.
            age: Numbers of windows.
            bound: 0 for the median, -1 for the lower and 1 for the upper bound.
        """
        start = float(special.logit(min(accuracy, 1.0 - 1e-6)))
        return self._shifted(start, age, bound * np.sqrt(self.spread**2 + self._turn(age)))

    def _turn(self, distance: np.ndarray) -> np.ndarray:
        """Return the variance that the slope's error makes at a distance."""
        return np.asarray((self.slope_error * distance) ** 2)

    def _shifted(self, start: float, windows: np.ndarray, margin: np.ndarray) -> np.ndarray:
        quantile = float(special.stdtrit(self.n - 2, (1.0 + self.level) / 2.0))
        return np.asarray(special.expit(start + min(self.slope, 0.0) * windows + quantile * margin))


def fit_drift(points: Sequence[AccuracyPoint], level: float = 0.8) -> Drift | None:
    """Fit the drift of the accuracy; None with fewer than three windows.

    The slope is the median of those between all pairs of windows (Theil and Sen), so that a single strange window does
    not turn the line. Such a window makes the spread about it larger, and the bounds wider.

    Args:
        points: Accuracies of the windows, at different positions.
        level: Nominal coverage of the bounds.

    Example:
        >>> fit_drift([AccuracyPoint(-1, 0.8, 500), AccuracyPoint(0, 0.7, 500)]) is None
        True
    """
    n = len(points)
    if n < FEWEST_WINDOWS:
        return None
    at, logits = np.array([each.position for each in points]), np.array([each.logit for each in points])
    pairs = itertools.combinations(range(n), 2)
    slope = float(np.median([(logits[j] - logits[i]) / (at[j] - at[i]) for i, j in pairs]))
    now = float(np.median(logits - slope * at))
    residuals = logits - now - slope * at
    sampling = sum(each.sampling_variance for each in points) / n
    spread = math.sqrt(max(float(residuals @ residuals) / (n - 2), sampling))
    center = float(at.mean())
    slope_error = spread / math.sqrt(float(((at - center) ** 2).sum()))
    offset = max((each.error_logit or 0.0 for each in points), default=0.0)
    return Drift(n, now, slope, slope_error, spread, offset, center, level)
