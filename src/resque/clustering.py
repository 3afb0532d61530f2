"""KMeans from the paper's three starts, and how well its clusters agree with the true classes, in exact integers."""

import math
import warnings
from typing import Any

import numpy as np

from resque.errors import RepresentationError, SettingError

INITS = ("class-means", "k-means++", "random")
RANDOM_STARTS = 20
_MAX_ITERATIONS = 300


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


def cluster(
    representations: np.ndarray, labels: np.ndarray, init: str = "class-means", lloyd: bool = True, seed: int = 0
) -> np.ndarray:
    """One cluster per class, by KMeans.

    Args:
        representations: ``(n, width)`` float64.
        labels: ``(n,)`` true classes, which give the number of clusters, and the start for ``"class-means"``.
        init: ``"class-means"`` (Algorithm 1), ``"k-means++"``, or ``"random"``: 20 random assignments, of which the
            clustering with the least entropy of its cluster sizes is kept.
        lloyd: Run Lloyd's iterations to convergence; False assigns to the nearest class mean once.
        seed: Of the random starts.

    Returns:
        ``(n,)`` cluster of each sample.
    """
    if init not in INITS:
        raise SettingError(f"init {init!r}: use one of {', '.join(INITS)}")
    if not lloyd and init != "class-means":
        raise SettingError(f"init {init!r} means nothing without Lloyd's iterations: use lloyd=True or 'class-means'")
    classes, own = np.unique(labels, return_inverse=True)
    k = len(classes)
    centred = representations - representations.mean(0)  # distances keep their digits when the mean is large
    if init == "class-means":
        means = _means(centred, own, k)
        return _kmeans(centred, means) if lloyd else _nearest(centred, means)
    if init == "k-means++":
        return _kmeans(centred, "k-means++", k, seed)
    starts = (np.random.default_rng([seed, start]) for start in range(RANDOM_STARTS))
    tries = [_kmeans(centred, _means(centred, _assignment(rng, len(own), k), k)) for rng in starts]
    return min(tries, key=_size_entropy)


def _kmeans(rows: np.ndarray, init: Any, k: int | None = None, seed: int = 0) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(k or len(init), init=init, n_init=1, max_iter=_MAX_ITERATIONS, tol=0.0, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than classes is no fault here
        found: np.ndarray = model.fit_predict(rows)
    return found


def _nearest(rows: np.ndarray, means: np.ndarray) -> np.ndarray:
    distances = np.stack([((rows - mean) ** 2).sum(1) for mean in means])
    nearest: np.ndarray = np.argmin(distances, axis=0)
    return nearest


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


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
