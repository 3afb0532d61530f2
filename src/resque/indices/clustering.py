"""KMeans from the paper's three starts, and how well its clusters agree with the true classes, in exact integers.

Two forms of Algorithm 1: Lloyd's iterations over representations at hand, and one assignment to the nearest class mean,
which streams and merges.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.errors import RepresentationError, SettingError
from resque.indices.class_sums import ScratchBuffers

Watch = Callable[[int, int], None]
INITS = ("class-means", "k-means++", "random")
ALL = "all"
KEPT = ("sizes", "labels")
RANDOM_STARTS = 20
_MAX_ITERATIONS = 300
_SEEDS = 2**32
_DOUBT = 1e-9
_EXACT = "donot_use_mm_for_euclid_dist"


def adjusted_rand_index(labels: Any, clusters: Any) -> float:
    """Agreement of two partitions of the same samples, 1 for the same one and 0 for what chance gives.

    Args:
        labels: ``(n,)`` integers.
        clusters: ``(n,)`` integers.

    Returns:
        The adjusted Rand index (Hubert and Arabie, 1985); 1 where it is 0/0.

    Example:
        >>> adjusted_rand_index([0, 0, 1, 1], [5, 5, 3, 3]), adjusted_rand_index([0, 0, 1, 1], [0, 1, 0, 1])
        (1.0, -0.5)
    """
    return 1.0 - disagreement(contingency(labels, clusters))


def contingency(labels: Any, clusters: Any) -> np.ndarray:
    """How many samples of each class (rows) lie in each cluster (columns), int64."""
    one, other = np.asarray(labels), np.asarray(clusters)
    if one.shape != other.shape or one.ndim != 1:
        raise RepresentationError(f"partitions of shapes {one.shape} and {other.shape}; expected (n,) and (n,)")
    (rows, i), (columns, j) = (np.unique(values, return_inverse=True) for values in (one, other))
    table = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(table, (i, j), 1)
    return table


def disagreement(table: np.ndarray) -> float:
    """``1 - ARI`` of a contingency table; Python's integers do not overflow, and one division rounds once.

    Args:
        table: Counts, classes by clusters; any size.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 4.

    Example:
        >>> disagreement(np.array([[500_000_000, 0], [0, 500_000_000]]))
        0.0
    """
    cells = [[int(count) for count in row] for row in table]
    joint = sum(_pairs(count) for row in cells for count in row)
    rows = sum(_pairs(sum(row)) for row in cells)
    columns = sum(_pairs(sum(column)) for column in zip(*cells, strict=True))
    every = _pairs(sum(map(sum, cells)))
    # Over the common denominator 2·C(n,2): 1 - ARI = (most - joint) / (most - chance).
    most, chance = (rows + columns) * every, 2 * rows * columns
    if most == chance:
        return 0.0
    return (most - 2 * joint * every) / (most - chance)


def cluster_representations(
    representations: np.ndarray,
    labels: np.ndarray,
    init: str = "class-means",
    seed: int = 0,
    keep: str = "sizes",
    on_progress: Watch = lambda done, total: None,
) -> np.ndarray:
    """One cluster per class, by Lloyd's iterations to convergence (scikit-learn's KMeans).

    Args:
        representations: ``(n, width)`` float64; overwritten, so that no second copy is needed.
        labels: ``(n,)`` true classes, which give the number of clusters, and the start for ``"class-means"``.
        init: ``"class-means"`` (Algorithm 1), ``"k-means++"``, or ``"random"``: 20 random assignments, one of whose
            clusterings is kept.
        seed: Of the random starts.
        keep: Of the 20, the one with the least entropy of its cluster ``"sizes"``, or the one with the least entropy of
            the clusters within each class of the ``"labels"``.
        on_progress: Called with ``(done, total)`` after each of the 20.

    Returns:
        ``(n,)`` cluster of each sample.
    """
    classes, own = np.unique(labels, return_inverse=True)
    k = len(classes)
    exponent = math.frexp(max(abs(float(representations.min())), abs(float(representations.max()))))[1]
    np.ldexp(representations, -exponent, out=representations)  # exact, and squares neither overflow nor vanish
    if init == "class-means":
        return _kmeans(representations, _means(representations, own, k))
    if init == "k-means++":
        return _kmeans(representations, "k-means++", k, seed)
    tries = []
    for start in range(RANDOM_STARTS):
        assignment = _assignment(np.random.default_rng([seed, start]), len(own), k)
        tries.append(_kmeans(representations, _means(representations, assignment, k)))
        on_progress(start + 1, RANDOM_STARTS)
    return min(tries, key=_size_entropy if keep == "sizes" else lambda clusters: _entropy_within(own, clusters))


def check_start(init: str, lloyd: bool, keep: str, seed: int) -> None:
    """Refuse a start that there is not, or one that means nothing here."""
    if seed != int(seed) or not 0 <= seed < _SEEDS:
        raise SettingError(f"seed {seed}: expected 0 to {_SEEDS - 1}")
    if init not in (*INITS, ALL):
        raise SettingError(f"init {init!r}: use one of {', '.join(INITS)}, or {ALL}")
    if not lloyd and init != "class-means":
        raise SettingError(
            f"init {init!r} means nothing without Lloyd's iterations: use 'class-means', "
            "or leave lloyd=False (--no-lloyd) out"
        )
    if keep not in KEPT:
        raise SettingError(f"keep {keep!r}: use 'sizes' or 'labels'")


@dataclass
class NearestMeanAssignment:
    """Each sample to its nearest class mean: the contingency table that this leaves, streamed and merged.

    Attributes:
        labels: ``(classes,)`` int64, rising.
        means: Of the classes.
        table: ``(classes, classes)`` int64, true class by nearest mean.
        strangers: ``()`` int64, samples of no class that has a mean, or of no finite representation; any at all
            spoil the table.

    Example:
        >>> means = torch.tensor([[0.0], [5.0]], dtype=torch.float64)
        >>> apart = NearestMeanAssignment.to_means(torch.tensor([3, 8]), means)
        >>> apart.add(torch.tensor([[1.0], [4.0], [2.0]]), torch.tensor([3, 8, 8]))
        >>> apart.table.tolist()
        [[1, 0], [1, 1]]
    """

    labels: Tensor
    means: "Means"
    table: Tensor
    strangers: Tensor

    @classmethod
    def to_means(cls, labels: Tensor, means: Tensor) -> "NearestMeanAssignment":
        """Nothing assigned yet; means ``(classes, width)`` float64."""
        with torch.inference_mode(False):  # so that it can go on outside of it
            table = torch.zeros(len(labels), len(labels), dtype=torch.int64, device=means.device)
            strangers = torch.zeros((), dtype=torch.int64, device=means.device)
        return cls(labels.to(means.device), Means(means), table, strangers)

    def add(self, rows: Tensor, target: Tensor) -> None:
        """Assign a batch: rows ``(n, width)`` of any float type, labels ``(n,)``."""
        place, width = self.table.device, self.means.points.shape[1]
        if rows.shape[1] != width:
            raise RepresentationError(f"representations of width {rows.shape[1]}; the class means are of width {width}")
        rows, target = (values.to(place, non_blocking=True) for values in (rows, target))
        column = torch.searchsorted(self.labels, target).clamp_(max=len(self.labels) - 1)
        nearest = self.means.nearest(rows)
        self.strangers += ((self.labels[column] != target) | (nearest < 0)).sum()
        cell = column * len(self.labels) + nearest.clamp_(min=0)
        self.table.view(-1).index_add_(0, cell, torch.ones_like(cell))

    def __add__(self, other: "NearestMeanAssignment") -> "NearestMeanAssignment":
        """The assignment of both sets of samples to the same means."""
        if not torch.equal(self.means.points, other.means.points.to(self.table.device)):
            raise RepresentationError("the two assignments are to different class means: make both to the same ones")
        place = self.table.device
        table, strangers = self.table + other.table.to(place), self.strangers + other.strangers.to(place)
        return NearestMeanAssignment(self.labels, self.means, table, strangers)

    @property
    def disagreement(self) -> float:
        """``1 - ARI`` of the table (eq. 4)."""
        if strangers := int(self.strangers):
            plural = "s" * (strangers > 1)
            raise RepresentationError(
                f"{strangers} sample{plural} with NaN or infinity, or of none of the classes {self.labels.tolist()}"
            )
        if not bool(self.table.any()):
            raise RepresentationError("no sample has been assigned yet: update it with at least one batch")
        return disagreement(self.table.cpu().numpy())


class Means:
    """Points of which the nearest is looked for.

    A matrix product finds the two nearest; where rounding could swap those, the distances are taken one by one.

    Args:
        points: ``(classes, width)`` float64.
    """

    def __init__(self, points: Tensor) -> None:
        self._scratch = ScratchBuffers()
        self._place(points)

    def _place(self, points: Tensor) -> None:
        self.points = points
        self._centre = points.mean(0)  # distances keep their digits when all points are large
        self._apart = points - self._centre
        self._lengths = self._apart.square().sum(1)

    def nearest(self, rows: Tensor) -> Tensor:
        """The nearest point of each row ``(n, width)``, ``(n,)`` int64: of equals the first, -1 if not finite."""
        if rows.shape[0] == 0:
            return torch.zeros(0, dtype=torch.int64, device=rows.device)
        if self.points.device != rows.device:
            self._place(self.points.to(rows.device))
        return torch.cat([self._nearest(part, rows[at]) for at, part in self._scratch.parts(rows)])

    def _nearest(self, own: Tensor, rows: Tensor) -> Tensor:
        own -= self._centre
        distances = torch.addmm(self._lengths, own, self._apart.T, alpha=-2.0)
        two = torch.topk(distances, min(2, len(self.points)), dim=1, largest=False)
        size = torch.linalg.vector_norm(own, dim=1).square() + self._lengths.max()
        clear = two.values[:, -1] - two.values[:, 0] > _DOUBT * size  # not if anything overflows, or is NaN
        place = two.indices[:, 0]
        place[~clear] = self._exactly(rows[~clear].double())
        return place

    def _exactly(self, rows: Tensor) -> Tensor:
        """Distances taken one by one, at a scale where their squares neither overflow nor vanish."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.int64, device=rows.device)
        finite = torch.isfinite(rows).all(1)
        rows = torch.where(finite[:, None], rows, 0.0)
        exponent = torch.frexp(torch.maximum(rows.abs().max(), self.points.abs().max())).exponent
        apart = torch.cdist(torch.ldexp(rows, -exponent), torch.ldexp(self.points, -exponent), compute_mode=_EXACT)
        return torch.where(finite, apart.argmin(1), -1)


def _kmeans(rows: np.ndarray, init: Any, k: int | None = None, seed: int = 0) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(
        k or len(init), init=init, n_init=1, max_iter=_MAX_ITERATIONS, tol=0.0, random_state=seed, copy_x=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than classes is no fault here
        found: np.ndarray = model.fit_predict(rows)
    return found


def _means(rows: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    sums = np.zeros((k, rows.shape[1]))
    np.add.at(sums, own, rows)
    return sums / np.bincount(own, minlength=k)[:, None]


def _assignment(rng: np.random.Generator, n: int, k: int) -> np.ndarray:
    """A random cluster for each sample, none of the clusters empty."""
    drawn = rng.integers(k, size=n)
    drawn[rng.permutation(n)[:k]] = np.arange(k)
    return drawn


def _size_entropy(clusters: np.ndarray) -> float:
    share = np.bincount(clusters) / len(clusters)
    return -math.fsum(p * math.log(p) for p in share if p)


def _entropy_within(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Entropy of the clusters within each class, weighted by the classes' shares."""
    table = contingency(labels, clusters) / len(labels)
    within = table / table.sum(1, keepdims=True)
    return -math.fsum((table * np.log(within, out=np.zeros_like(within), where=within > 0)).ravel())


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
