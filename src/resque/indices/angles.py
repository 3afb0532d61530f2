"""The angle between two directions that are known from noisy sums: its floor, its bias, its interval.

Each side of a class is a pair of independent half sums. Their difference shows the noise of the whole sum without a
second look at the data: the floor, the unbiased cosine and the intervals all come from it. Plain numpy; no classes'
names, no units but radians.
"""

import math
from dataclasses import dataclass

import numpy as np

_ROUNDING = 1e-12
Pair = np.ndarray  # (2, width) float64: the two half sums of one class


@dataclass(frozen=True)
class Spread:
    """A value with bounds, in radians; bounds are None where the noise cannot be told."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Side:
    """One class on one side.

    Attributes:
        halves: The two half sums.
        counts: Samples in each.
        whole: Their sum, rounded once.
    """

    halves: Pair
    counts: tuple[int, int]
    whole: np.ndarray

    @property
    def direction(self) -> np.ndarray | None:
        """Unit vector of the whole sum (eq. 2), None where it is zero."""
        return unit(self.whole)

    @property
    def noise(self) -> np.ndarray | None:
        """One draw of :attr:`direction`'s noise, from how far the halves' means differ; None without two halves."""
        n, m = self.counts
        exponent = -math.frexp(float(np.max(np.abs(self.halves), initial=0.0)))[1]
        one, other = np.ldexp(self.halves, exponent)
        length = float(np.linalg.norm(np.ldexp(self.whole, exponent)))
        if not n or not m or length == 0.0:
            return None
        difference: np.ndarray = (one / n - other / m) * (math.sqrt(n * m) / length)
        return difference

    @property
    def agreement(self) -> float | None:
        """Cosine of the two halves, None where one of them is zero or empty."""
        one, other = map(unit, self.halves)
        return None if one is None or other is None else float(one @ other)


def angle_between(one: np.ndarray, other: np.ndarray) -> float | None:
    """Angle of two vectors in radians, to full precision near 0 and pi; None if one of them is zero."""
    u, v = unit(one), unit(other)
    if u is None or v is None:
        return None
    return 2.0 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))


def angle_of(original: Side, shifted: Side) -> float:
    """The angle by which a class has turned (eq. 3); both sides have a direction."""
    angle = angle_between(original.whole, shifted.whole)
    assert angle is not None  # both sums are known to differ from zero
    return angle


def unit(vector: np.ndarray) -> np.ndarray | None:
    """The vector's direction, None for zero; squares neither overflow nor underflow."""
    scaled = _scaled(vector)
    length = np.linalg.norm(scaled)
    return None if length == 0.0 else scaled / length


def floor(pairs: list[tuple[Side, Side]]) -> float | None:
    """The mean angle that noise alone makes: the original side's split-half angle, scaled to both actual sizes."""
    angles = []
    for original, shifted in pairs:
        angle, n, m = angle_between(*original.halves), sum(original.counts), sum(shifted.counts)
        if angle is None:
            return None
        angles.append(min(math.pi, angle * math.sqrt((1 / n + 1 / m) * n / 4)))
    return math.fsum(angles) / len(angles)


def plain_interval(pairs: list[tuple[Side, Side]], angles: list[float], level: float) -> Spread:
    """The mean of the angles, and where it would lie over other samples of the same sizes.

    First order: an angle moves by the noise's component along the arc, and where there is no arc (an angle of 0 or pi)
    by all of the noise across the direction. Each class and side shows one draw of it; their squares are pooled, with
    the degrees of freedom that their spread leaves (Satterthwaite).
    """
    value = math.fsum(angles) / len(angles)
    moves: list[float] = []
    for (original, shifted), angle in zip(pairs, angles, strict=True):
        u, v = original.direction, shifted.direction
        d, e = original.noise, shifted.noise
        if u is None or v is None or d is None or e is None:
            return Spread(value, None, None)
        moves += [_along(d, u, v, angle), _along(e, v, u, angle)]
    squares = [move * move for move in moves]
    reach = _quantile(squares, level) * math.sqrt(math.fsum(squares)) / len(angles)
    return Spread(value, max(0.0, value - reach), min(math.pi, value + reach))


def debiased(pairs: list[tuple[Side, Side]], level: float) -> tuple[list[float], Spread] | None:
    """Each class's angle without what noise adds, and their mean with its interval; None where nothing can be told.

    The cosine of two noisy directions is too small by the agreement of their halves, so it is divided by it. What is
    left is unbiased but noisy, and the arc cosine would turn that noise into bias again; so classes are drawn towards
    their common mean by as much of their spread as noise explains (random effects, DerSimonian and Laird 1986). A
    class whose halves tell nothing (empty, zero, or further than a right angle apart) takes that mean.
    """
    found = [_unbiased(original, shifted) for original, shifted in pairs]
    cosines, weights = (np.array([entry[i] for entry in found]) for i in (0, 1))
    squares = np.array([entry[2] for entry in found])  # (classes, 2): noise of a cosine before its division
    usable = weights > 0.0
    if not usable.any():
        return None
    divisor = np.where(usable, weights, 1.0)
    pooled = float(squares[usable].sum(1).mean())
    noise = np.where(usable, pooled / divisor, np.inf)
    between = _between(cosines, weights, pooled)
    own = between / (between + noise) if between else np.zeros(len(found))  # how much of its cosine a class keeps
    pull = 1.0 / (between + noise) if between and pooled else weights
    pull = pull / pull.sum()
    centre = float(pull @ cosines)
    drawn = centre + own * (cosines - centre)
    share = (own + (1.0 - own).sum() * pull) / len(found)
    variance = float((share**2 * squares.sum(1) / divisor)[usable].sum())
    reach = _quantile(list(squares[usable].ravel()), level) * math.sqrt(variance)
    low = 0.0 if float(drawn.mean()) + reach >= 1.0 else _mean_angle(drawn + reach)
    angles = [float(angle) for angle in np.arccos(np.clip(drawn, -1.0, 1.0))]
    value = math.fsum(angles) / len(angles)
    return angles, Spread(value, min(low, value), max(_mean_angle(drawn - reach), value))


def _along(noise: np.ndarray, own: np.ndarray, other: np.ndarray, angle: float) -> float:
    """How far noise moves the direction ``own`` towards ``other``, which lies at the angle; at most pi."""
    cosine, sine = math.cos(angle), math.sin(angle)
    if abs(sine) < _ROUNDING:
        across = noise - (noise @ own) * own
        return min(math.pi, float(np.linalg.norm(across)))
    return min(math.pi, abs(float(noise @ (other - cosine * own)) / sine))


def _unbiased(original: Side, shifted: Side) -> tuple[float, float, tuple[float, float]]:
    """``(cosine, weight, its two squared noises before division)``; weight 0 where the halves tell nothing."""
    u, v, d, e = original.direction, shifted.direction, original.noise, shifted.noise
    ours, theirs = original.agreement, shifted.agreement
    if u is None or v is None or d is None or e is None or ours is None or theirs is None:
        return 0.0, 0.0, (0.0, 0.0)
    cosine, weight = float(u @ v), max(0.0, ours) * max(0.0, theirs)
    if weight < _ROUNDING:
        return 0.0, 0.0, (0.0, 0.0)
    moves = float(d @ (v - cosine * u)), float(e @ (u - cosine * v))
    squares = moves[0] * moves[0], moves[1] * moves[1]
    halves = [unit(half) for half in (*original.halves, *shifted.halves)]
    between = sum(float(a @ b) for a in halves[:2] for b in halves[2:] if a is not None and b is not None) / 4.0
    return between / math.sqrt(weight), weight, squares


def _between(cosines: np.ndarray, weights: np.ndarray, noise: float) -> float:
    """Variance of the classes' true cosines, by moments; 0 where noise explains all of their spread."""
    total = weights.sum()
    room = total - (weights**2).sum() / total
    if room <= 0.0:
        return 0.0
    centre = weights @ cosines / total
    surplus = weights @ (cosines - centre) ** 2 - (len(cosines) - 1) * noise
    return max(0.0, float(surplus / room))


def _quantile(squares: list[float], level: float) -> float:
    """Student's t at the level, with Johnson and Rust's (1992) degrees of freedom for a sum of one-draw variances."""
    from scipy.stats import t

    total, fourth = math.fsum(squares), math.fsum(s * s for s in squares)
    if fourth == 0.0:
        return 0.0
    freedom = max(1.0, (3.16 - 2.77 / math.sqrt(len(squares))) * total * total / fourth)
    return float(t.ppf(0.5 + level / 2.0, freedom))


def _scaled(values: np.ndarray) -> np.ndarray:
    """The same values times a power of two, the largest near one: exact, and safe to square."""
    scaled: np.ndarray = np.ldexp(values, -math.frexp(float(np.max(np.abs(values), initial=0.0)))[1])
    return scaled


def _mean_angle(cosines: np.ndarray) -> float:
    return float(np.arccos(np.clip(cosines, -1.0, 1.0)).mean())
