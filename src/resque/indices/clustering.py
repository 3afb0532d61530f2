"""Cluster representations by KMeans from the paper's three initializations, and compare clusters with classes."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from resque.errors import SettingError

__all__ = ["ALL", "INITS", "check_clustering_options", "cluster_representations", "contingency_table", "one_minus_ari"]

INITS = ("class-means", "k-means++", "random")
ALL = "all"
_KEEP = ("sizes", "labels")
_RANDOM_STARTS = 20
_MAX_ITERATIONS = 300
_SEEDS = 2**32


def contingency_table(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Count the samples ``n_ij`` of each class i (rows) in each cluster j (columns), as int64.

    Example:
        >>> contingency_table(np.array([3, 3, 8]), np.array([0, 1, 1])).tolist()
        [[1, 1], [0, 1]]
    """
    from sklearn.metrics.cluster import contingency_matrix  # 2 s to import

    table: np.ndarray = contingency_matrix(labels, clusters, dtype=np.int64)
    return table


def one_minus_ari(table: np.ndarray) -> float:
    """Compute ``RESQUE_task = 1 - ARI`` (eq. 4) of a contingency table, exactly.

    With the counts ``n_ij``, row sums ``a_i``, column sums ``b_j`` and ``C(m) = m (m - 1) / 2``::

        ARI = [J - A B / C(n)] / [(A + B) / 2 - A B / C(n)]
        J = sum_ij C(n_ij),  A = sum_i C(a_i),  B = sum_j C(b_j)

    Products of pair counts overflow int64 above n = 50,000 or so. Python's integers do not, and the one division at
    the end rounds once. Scikit-learn's ``adjusted_rand_score`` is exact, too, but takes the samples; a streamed
    assignment leaves only the table.

    Args:
        table: ``(classes, clusters)`` counts of any size.

    Returns:
        0 for the same partition, 1 for chance agreement, more for less than that; 0/0 counts as 0.

    References:
        Hubert and Arabie, Comparing partitions, 1985; Sangarya and Kim, RESQUE, AAAI 2025, eq. 4.

    Example:
        >>> one_minus_ari(np.array([[2, 0], [0, 2]])), one_minus_ari(np.array([[1, 1], [1, 1]]))
        (0.0, 1.5)
    """
    cells = [[int(count) for count in row] for row in table]
    joint = sum(_pairs(count) for row in cells for count in row)
    rows = sum(_pairs(sum(row)) for row in cells)
    columns = sum(_pairs(sum(column)) for column in zip(*cells, strict=True))
    every = _pairs(sum(map(sum, cells)))
    # Over the common denominator 2 C(n): 1 - ARI = (most - 2 J C(n)) / (most - chance).
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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Cluster into as many clusters as classes, by Lloyd's iterations to convergence (scikit-learn's KMeans).

    Args:
        representations: ``(n, width)`` float64; overwritten, so that no second copy is needed.
        labels: ``(n,)`` true classes. They give the number of clusters, and the means for ``"class-means"``.
        init: ``"class-means"`` (Algorithm 1); ``"k-means++"``; or ``"random"``, the means of 20 random assignments,
            of whose clusterings one is kept.
        seed: Seed of ``"k-means++"`` and ``"random"``.
        keep: Random clustering to keep: the one with the least entropy of its cluster ``"sizes"``, or with the least
            entropy of the clusters within each class of the ``"labels"``.
        on_progress: Called with ``(done, total)`` after each random start.

    Returns:
        ``(n,)`` cluster of each sample.

    Example:
        >>> cluster_representations(np.array([[0.0], [0.1], [5.0]]), np.array([3, 3, 8])).tolist()
        [0, 0, 1]
    """
    classes, class_index = np.unique(labels, return_inverse=True)
    k = len(classes)
    exponent = math.frexp(max(abs(float(representations.min())), abs(float(representations.max()))))[1]
    np.ldexp(representations, -exponent, out=representations)  # exact, and squares neither overflow nor underflow
    if init == "class-means":
        return _kmeans(representations, _group_means(representations, class_index, k))
    if init == "k-means++":
        return _kmeans(representations, "k-means++", k, seed)
    clusterings = []
    for start in range(_RANDOM_STARTS):
        assignment = _random_assignment(np.random.default_rng([seed, start]), len(labels), k)
        clusterings.append(_kmeans(representations, _group_means(representations, assignment, k)))
        on_progress(start + 1, _RANDOM_STARTS)
    if keep == "sizes":
        return min(clusterings, key=_size_entropy)
    return min(clusterings, key=lambda clusters: _entropy_within_classes(labels, clusters))


def check_clustering_options(init: str, lloyd: bool, keep: str, seed: int) -> None:
    """Raise SettingError for an unknown option, or for one that has no effect with the others."""
    if seed != int(seed) or not 0 <= seed < _SEEDS:
        raise SettingError(f"seed {seed}: expected 0 to {_SEEDS - 1}")
    if init not in (*INITS, ALL):
        raise SettingError(f"init {init!r}: use one of {', '.join(INITS)}, or {ALL}")
    if not lloyd and init != "class-means":
        raise SettingError(
            f"init {init!r} is unused without Lloyd's iterations: use 'class-means', or drop lloyd=False (--no-lloyd)"
        )
    if keep not in _KEEP:
        raise SettingError(f"keep {keep!r}: use 'sizes' or 'labels'")


def _kmeans(rows: np.ndarray, init: Any, k: int | None = None, seed: int = 0) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    model = KMeans(
        k or len(init), init=init, n_init=1, max_iter=_MAX_ITERATIONS, tol=0.0, random_state=seed, copy_x=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct samples than classes is no fault here
        clusters: np.ndarray = model.fit_predict(rows)
    return clusters


def _group_means(rows: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    sums = torch.zeros(k, rows.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(groups), torch.from_numpy(rows))  # numpy.add.at gives the same in 13 times that
    means: np.ndarray = sums.numpy() / np.bincount(groups, minlength=k)[:, None]
    return means


def _random_assignment(generator: np.random.Generator, n: int, k: int) -> np.ndarray:
    """Draw a random cluster for each sample; no cluster is empty."""
    clusters = generator.integers(k, size=n)
    clusters[generator.permutation(n)[:k]] = np.arange(k)
    return clusters


def _size_entropy(clusters: np.ndarray) -> float:
    shares = np.bincount(clusters) / len(clusters)
    return -math.fsum(share * math.log(share) for share in shares if share)


def _entropy_within_classes(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Compute the entropy of the clusters within each class, weighted by the shares of the classes."""
    joint = contingency_table(labels, clusters) / len(labels)
    within = joint / joint.sum(1, keepdims=True)
    return -math.fsum((joint * np.log(within, out=np.zeros_like(within), where=within > 0)).ravel())


def _pairs(count: int) -> int:
    return count * (count - 1) // 2
