"""Estimate the mean angle between class directions of all data from a random sample of them.

Each class of a dataset comes as the sums of a few random groups of its samples. The cosine of the full class means is
estimated without bias from the sample means: their product is unbiased, and from each squared length the squared noise
is subtracted. Leaving out one group at a time (jackknife, Tukey 1958) gives the variance of the angle, and the bias
that the arc cosine adds (Quenouille 1956), which is subtracted. The part of the data that was read lowers the noise by
``1 - n/N`` (finite population, Cochran 1977, chapter 2): of data that were read in full nothing is uncertain.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from resque.indices.angles import AngleEstimate

__all__ = ["GROUPS", "GroupSums", "estimate_sampled"]

GROUPS = 8  # G of a sample: seven degrees of freedom for each class and dataset
_FEWEST_GROUPS = 3


@dataclass(frozen=True)
class GroupSums:
    """Sums of the representations of some classes over random groups of their samples.

    Attributes:
        sums: ``(classes, groups, width)`` float64; one group for data that were read in full.
        counts: ``(classes, groups)``, number of samples in each group.
        totals: ``(classes,)``, number of samples of each class in all data, read or not.
    """

    sums: Tensor
    counts: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True)
class _Dataset:
    """The inner products of a dataset's group sums, and the groups that are used."""

    products: np.ndarray  # (classes, groups, groups)
    counts: np.ndarray
    totals: np.ndarray
    used: np.ndarray  # (groups,) 1.0 or 0.0

    @property
    def n(self) -> np.ndarray:
        counted: np.ndarray = self.counts @ self.used
        return counted

    @property
    def unread(self) -> np.ndarray:
        share: np.ndarray = np.clip(1.0 - self.n / self.totals, 0.0, 1.0)
        return share

    def squares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the squared length of each full class mean without bias, and the squared noise of the sample mean."""
        counts, n = self.counts * self.used, self.n
        groups = (counts > 0).sum(1)
        length = np.einsum("kgh,g,h->k", self.products, self.used, self.used) / n**2
        within = (np.einsum("kgg->kg", self.products) * self.used / np.maximum(counts, 1.0)).sum(1) - n * length
        noise = self.unread * np.maximum(within, 0.0) / np.maximum(groups - 1, 1) / n
        return length - noise, noise


def estimate_sampled(original: GroupSums, shifted: GroupSums, level: float) -> AngleEstimate | None:
    """Compute the mean angle that all data would give, with its interval, from samples of one or both datasets.

    A class whose estimated cosine is 1 or above, with all groups or without one of them, has an angle that the sample
    cannot tell from 0. Its noise angle widens the interval as it is, not in quadrature.

    Args:
        original: Group sums of the original data.
        shifted: Group sums of the same classes in the shifted data.
        level: Nominal coverage of the interval at this look.

    Returns:
        The estimate, or None while a class has samples in fewer than three groups.

    Example:
        >>> rows = torch.tensor([[1.0, 0.1], [1.0, -0.1], [1.1, 0.0], [0.9, 0.0]], dtype=torch.float64)
        >>> original = GroupSums(torch.tensor([[[0.0, 7.0]]]).double(), np.array([[7.0]]), np.array([7.0]))
        >>> shifted = GroupSums(rows[None], np.ones((1, 4)), np.array([50.0]))
        >>> estimate = estimate_sampled(original, shifted, 0.9)
        >>> round(estimate.value, 2), estimate.low < math.pi / 2 < estimate.high
        (1.57, True)
    """
    before, after = (
        _Dataset(_products(each, each), each.counts, each.totals, np.ones(each.counts.shape[1]))
        for each in (original, shifted)
    )
    for each in (before, after):
        if np.any(((each.counts > 0).sum(1) < _FEWEST_GROUPS) & (each.unread > 0.0)):
            return None
    cross = _products(original, shifted)
    angles, noise, is_zero = _angles(before, after, cross)
    variance, squares, bias = np.zeros_like(angles), 0.0, np.zeros_like(angles)
    for whole in (before, after):
        if not whole.unread.any():
            continue
        groups, without = len(whole.used), []
        for group in range(groups):
            fewer = dataclasses.replace(whole, used=np.where(np.arange(groups) == group, 0.0, 1.0))
            with np.errstate(divide="ignore", invalid="ignore"):  # a class read in full may have one sample
                some, _, zero = _angles(*((fewer, after) if whole is before else (before, fewer)), cross)
            is_zero = is_zero | (zero & (whole.unread > 0.0))
            without.append(some)
        left_out = np.where(whole.unread > 0.0, np.array(without), angles)
        spread = whole.unread * (groups - 1) / groups * ((left_out - left_out.mean(0)) ** 2).sum(0)
        variance = variance + spread
        squares += float(((spread * ~is_zero) ** 2).sum()) / (groups - 1)
        bias = bias + whole.unread * (groups - 1) * (left_out.mean(0) - angles)
    total = float(variance[~is_zero].sum())
    reach = _t_quantile(level, total, squares) * math.sqrt(total) + float(noise[is_zero].sum())
    corrected = np.clip(np.where(is_zero, angles, angles - bias), 0.0, math.pi)
    value = float(corrected.mean())
    reach /= len(angles)
    return AngleEstimate(corrected.tolist(), value, max(0.0, value - reach), min(math.pi, value + reach))


def _angles(original: _Dataset, shifted: _Dataset, cross: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the angle and the noise angle of each class, and whether the angle cannot be told from 0."""
    (before, noise_before), (after, noise_after) = original.squares(), shifted.squares()
    product = np.einsum("kgh,g,h->k", cross, original.used, shifted.used) / (original.n * shifted.n)
    undefined = (before <= 0.0) | (after <= 0.0)
    before, after = np.where(undefined, 1.0, before), np.where(undefined, 1.0, after)
    cosine = np.where(undefined, 1.0, product / np.sqrt(before * after))
    noise = np.where(undefined, math.pi, np.sqrt(noise_before / before + noise_after / after))
    return np.arccos(np.clip(cosine, -1.0, 1.0)), noise, (cosine >= 1.0) & (noise > 0.0)


def _products(first: GroupSums, second: GroupSums) -> np.ndarray:
    """Return the inner products ``(classes, groups, groups)`` of the group sums of two datasets."""
    found: np.ndarray = torch.einsum("kgd,khd->kgh", first.sums, second.sums.to(first.sums.device)).cpu().numpy()
    return found


def _t_quantile(level: float, variance: float, squares: float) -> float:
    """Return the two-sided quantile of Student's t, with Satterthwaite's degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats calls the same, and takes 1.2 s to import

    if squares == 0.0:
        return 0.0
    return float(stdtrit(max(1.0, variance * variance / squares), 0.5 + level / 2.0))
