"""Estimate the angle between two class directions that are known only from noisy sums.

Each class of a dataset comes as the sums of two independent halves of its samples (split halves). Their difference
estimates the noise of the whole sum without a second pass. The noise floor, the bias correction and the confidence
intervals all rest on it. Plain numpy, without labels; every angle is in radians.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["AngleEstimate", "SplitHalves", "angle_between", "estimate_debiased", "estimate_plain", "noise_floor"]

_ROUNDING = 1e-12


@dataclass(frozen=True)
class AngleEstimate:
    """Mean angle over the classes with its confidence interval, in radians.

    Attributes:
        per_class: Angle of each class.
        value: Mean of the angles.
        low: Lower confidence bound; None where a class has too few samples to estimate its noise.
        high: Upper confidence bound; None where ``low`` is.
    """

    per_class: list[float]
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SplitHalves:
    """Sums of the representations of one class in one dataset, over two independent halves of its samples.

    Attributes:
        sums: ``(2, width)`` float64, sum of each half.
        counts: Number of samples in each half.
        total: ``(width,)`` float64, sum of all samples (``V`` of eq. 1), rounded once.

    Example:
        >>> halves = SplitHalves(np.array([[3.0, 1.0], [3.0, 3.0]]), (2, 2), np.array([6.0, 4.0]))
        >>> halves.has_direction, halves.direction.round(3).tolist()
        (True, [0.832, 0.555])
    """

    sums: np.ndarray
    counts: tuple[int, int]
    total: np.ndarray

    @property
    def n(self) -> int:
        """Number of samples in both halves."""
        return sum(self.counts)

    @property
    def has_direction(self) -> bool:
        """Whether the sum differs from zero, so that eq. 2 is defined."""
        return bool(self.total.any())

    @property
    def direction(self) -> np.ndarray:
        """Unit vector ``u = V / ||V||`` (eq. 2); only where :attr:`has_direction`."""
        return _unit(self.total)

    @property
    def noise(self) -> np.ndarray | None:
        """One draw of the noise of :attr:`direction`, or None if a half is empty or the sum is zero.

        For half sums ``A`` of ``n`` and ``B`` of ``m`` samples it is ``(A/n - B/m) sqrt(n m) / ||V||``, whose
        covariance is that of ``V / ||V||`` about its expectation.
        """
        n, m = self.counts
        exponent = _exponent(self.sums)
        first, second = np.ldexp(self.sums, -exponent)
        length = float(np.linalg.norm(np.ldexp(self.total, -exponent)))
        if not n or not m or length == 0.0:
            return None
        noise: np.ndarray = (first / n - second / m) * (math.sqrt(n * m) / length)
        return noise

    @property
    def agreement(self) -> float | None:
        """Cosine between the two half sums, or None if one of them is zero."""
        return float(_unit(self.sums[0]) @ _unit(self.sums[1])) if self.sums.any(1).all() else None


_Pairs = list[tuple[SplitHalves, SplitHalves]]
"""Original and shifted split halves of each class; both have a direction."""


def angle_between(first: np.ndarray, second: np.ndarray) -> float | None:
    """Compute the angle between two vectors as ``2 atan2(||u - v||, ||u + v||)`` of their unit vectors.

    Unlike the arc cosine of ``u · v`` it keeps full precision near 0 and pi.

    Returns:
        The angle in radians, or None if one of the vectors is zero.

    Example:
        >>> angle_between(np.array([1.0, 0.0]), np.array([1.0, 1e-12]))
        1e-12
    """
    if not first.any() or not second.any():
        return None
    return _angle(_unit(first), _unit(second))


def noise_floor(pairs: _Pairs, sizes: Sequence[tuple[float, float]] | None = None) -> float | None:
    """Compute the mean angle that sampling noise alone produces at the sizes of both datasets.

    With ``n`` original and ``m`` shifted samples of a class, the angle between its original half sums is scaled by
    ``sqrt((1/n + 1/m) / (4/n))``, to pi at most. The floor is the mean over the classes.

    Args:
        pairs: Original and shifted split halves of each class.
        sizes: Numbers ``(n, m)`` of each class for which the floor is computed; None takes those of the halves.

    Returns:
        The floor in radians, or None if a half sum is zero.

    Example:
        >>> original = SplitHalves(np.array([[2.0, 0.2], [2.0, -0.2]]), (2, 2), np.array([4.0, 0.0]))
        >>> shifted = SplitHalves(np.array([[2.0, 2.0], [2.0, 2.1]]), (2, 2), np.array([4.0, 4.1]))
        >>> floor, angle = noise_floor([(original, shifted)]), angle_between(original.total, shifted.total)
        >>> round(floor, 3), round(angle, 3)
        (0.141, 0.798)
    """
    angles = []
    for (original, _), (n, m) in zip(pairs, sizes or [(one.n, other.n) for one, other in pairs], strict=True):
        angle = angle_between(*original.sums)
        if angle is None:
            return None
        angles.append(min(math.pi, angle * math.sqrt((1 / n + 1 / m) * original.n / 4)))
    return math.fsum(angles) / len(angles)


def estimate_plain(pairs: _Pairs, level: float) -> AngleEstimate:
    """Compute the mean angle of eq. 3 and its interval over other samples of the same sizes.

    To first order an angle moves by the component of the noise along the arc. Where there is no arc (angle 0 or pi)
    it moves by all of the noise across the direction. Each class of each dataset gives one draw of that noise. The
    interval pools their squares, with Satterthwaite's degrees of freedom.

    Args:
        pairs: Original and shifted split halves of each class.
        level: Nominal coverage of the interval.

    Example:
        >>> original = SplitHalves(np.array([[2.0, 0.2], [2.0, -0.2]]), (2, 2), np.array([4.0, 0.0]))
        >>> shifted = SplitHalves(np.array([[2.0, 2.0], [2.0, 2.1]]), (2, 2), np.array([4.0, 4.1]))
        >>> estimate = estimate_plain([(original, shifted)], level=0.5)
        >>> round(estimate.low, 2), round(estimate.value, 2), round(estimate.high, 2)
        (0.7, 0.8, 0.89)
    """
    angles = [_angle(original.direction, shifted.direction) for original, shifted in pairs]
    value = math.fsum(angles) / len(angles)
    moves: list[float] = []
    for (original, shifted), angle in zip(pairs, angles, strict=True):
        u, v, d, e = original.direction, shifted.direction, original.noise, shifted.noise
        if d is None or e is None:
            return AngleEstimate(angles, value)
        moves += [_move_along(d, u, v, angle), _move_along(e, v, u, angle)]
    squares = [move * move for move in moves]
    reach = _t_quantile(squares, level) * math.sqrt(math.fsum(squares)) / len(angles)
    return AngleEstimate(angles, value, max(0.0, value - reach), min(math.pi, value + reach))


def estimate_debiased(pairs: _Pairs, level: float) -> AngleEstimate | None:
    """Compute the mean angle without the angle that sampling noise adds.

    The cosine between two noisy directions is too small by the agreement of their halves, so it is divided by that:
    ``c = mean of the four cosines between halves / sqrt(agreement of original · agreement of shifted)``. This is
    unbiased but noisy, and the arc cosine would turn its noise into bias again. So each class is shrunk towards the
    common mean by the share of its variance that is noise (random effects, DerSimonian and Laird, 1986). A class whose
    halves give no cosine (empty, zero, or more than a right angle apart) takes the common mean.

    Args:
        pairs: Original and shifted split halves of each class.
        level: Nominal coverage of the interval.

    Returns:
        The estimate, or None if no class gives a cosine.

    Example:
        >>> original = SplitHalves(np.array([[2.0, 0.2], [2.0, -0.2]]), (2, 2), np.array([4.0, 0.0]))
        >>> shifted = SplitHalves(np.array([[2.0, 2.0], [2.0, 2.1]]), (2, 2), np.array([4.0, 4.1]))
        >>> pairs = [(original, shifted)]
        >>> round(estimate_debiased(pairs, level=0.9).value, 4), round(estimate_plain(pairs, level=0.9).value, 4)
        (0.7926, 0.7977)
    """
    cosines, weights, squares = map(np.array, zip(*itertools.starmap(_unbiased_cosine, pairs), strict=True))
    usable = weights > 0.0
    if not usable.any():
        return None
    divisor = np.where(usable, weights, 1.0)
    pooled = float(squares[usable].sum(1).mean())
    noise = np.where(usable, pooled / divisor, np.inf)
    between = _variance_between(cosines, weights, pooled)
    kept = between / (between + noise) if between else np.zeros(len(pairs))  # share of its own cosine a class keeps
    pull = 1.0 / (between + noise) if between and pooled else weights
    pull = pull / pull.sum()
    center = float(pull @ cosines)
    shrunk = center + kept * (cosines - center)
    influence = (kept + (1.0 - kept).sum() * pull) / len(pairs)  # of each cosine on the mean
    variance = float((influence**2 * squares.sum(1) / divisor)[usable].sum())
    reach = _t_quantile(list(squares[usable].ravel()), level) * math.sqrt(variance)
    low = 0.0 if float(shrunk.mean()) + reach >= 1.0 else _mean_angle(shrunk + reach)
    angles = [float(angle) for angle in np.arccos(np.clip(shrunk, -1.0, 1.0))]
    value = math.fsum(angles) / len(angles)
    return AngleEstimate(angles, value, min(low, value), max(_mean_angle(shrunk - reach), value))


def _move_along(noise: np.ndarray, direction: np.ndarray, other: np.ndarray, angle: float) -> float:
    """Compute how far the noise moves a direction towards the other one, which lies at the angle; at most pi."""
    cosine, sine = math.cos(angle), math.sin(angle)
    if abs(sine) < _ROUNDING:
        across = noise - (noise @ direction) * direction
        return min(math.pi, float(np.linalg.norm(across)))
    return min(math.pi, abs(float(noise @ (other - cosine * direction)) / sine))


def _unbiased_cosine(original: SplitHalves, shifted: SplitHalves) -> tuple[float, float, tuple[float, float]]:
    """Return the unbiased cosine, its weight, and its two squared noises before division; weight 0 if undefined."""
    undefined = 0.0, 0.0, (0.0, 0.0)
    d, e, agreements = original.noise, shifted.noise, (original.agreement, shifted.agreement)
    if d is None or e is None or agreements[0] is None or agreements[1] is None:
        return undefined
    weight = max(0.0, agreements[0]) * max(0.0, agreements[1])
    if weight < _ROUNDING:
        return undefined
    u, v = original.direction, shifted.direction
    cosine = float(u @ v)
    moves = float(d @ (v - cosine * u)), float(e @ (u - cosine * v))
    halves = [[_unit(half) for half in dataset.sums] for dataset in (original, shifted)]
    between = sum(float(a @ b) for a, b in itertools.product(*halves)) / 4.0
    return between / math.sqrt(weight), weight, (moves[0] * moves[0], moves[1] * moves[1])


def _variance_between(cosines: np.ndarray, weights: np.ndarray, noise: float) -> float:
    """Estimate the variance of the true cosines over classes by moments; 0 if noise explains all of their spread."""
    total = weights.sum()
    room = total - (weights**2).sum() / total
    if room <= 0.0:
        return 0.0
    center = weights @ cosines / total
    surplus = weights @ (cosines - center) ** 2 - (len(cosines) - 1) * noise
    return max(0.0, float(surplus / room))


def _t_quantile(squares: list[float], level: float) -> float:
    """Return the two-sided quantile of Student's t for a sum of variances that are known from one draw each.

    References:
        Johnson and Rust, Population inferences and variance estimation for NAEP data, 1992 (degrees of freedom).
    """
    from scipy.special import stdtrit  # scipy.stats calls the same, and takes 1.2 s to import

    total, fourth = math.fsum(squares), math.fsum(s * s for s in squares)
    if fourth == 0.0:
        return 0.0
    degrees_of_freedom = max(1.0, (3.16 - 2.77 / math.sqrt(len(squares))) * total * total / fourth)
    return float(stdtrit(degrees_of_freedom, 0.5 + level / 2.0))


def _angle(u: np.ndarray, v: np.ndarray) -> float:
    """Compute the angle between two unit vectors."""
    return 2.0 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))


def _unit(vector: np.ndarray) -> np.ndarray:
    """Return the unit vector of a nonzero vector, scaled first so that its squares neither overflow nor underflow."""
    scaled = np.ldexp(vector, -_exponent(vector))
    unit: np.ndarray = scaled / np.linalg.norm(scaled)
    return unit


def _exponent(values: np.ndarray) -> int:
    """Return the binary exponent of the largest absolute value."""
    return math.frexp(float(np.max(np.abs(values), initial=0.0)))[1]


def _mean_angle(cosines: np.ndarray) -> float:
    return float(np.arccos(np.clip(cosines, -1.0, 1.0)).mean())
