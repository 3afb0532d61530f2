"""Compute RESQUE_task of representations: one minus the adjusted Rand index of clusters and classes (eq. 4)."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._arrays import all_finite, as_labels, as_tensor
from resque.errors import RepresentationError
from resque.indices.clustering import (
    ALL,
    INITS,
    check_clustering_options,
    cluster_representations,
    contingency_table,
    one_minus_ari,
)
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.indices.profile import Profile
from resque.indices.results import TaskIndex
from resque.models.feature_extraction import reduce_features

__all__ = ["index_of_assignment", "index_of_clustering", "resque_task"]

_UNIT = "1 - ARI"


def resque_task(
    representations: Any,
    labels: Any,
    init: str = "class-means",
    lloyd: bool = True,
    reduction: str = "flatten",
    seed: int = 0,
    keep: str = "sizes",
) -> TaskIndex:
    """Compute RESQUE_task: one minus the adjusted Rand index of clusters of the representations and true classes.

    Args:
        representations: ``(n, …)`` of the new task's data, after one epoch of training on it.
        labels: ``(n,)`` integers, true classes of the new task.
        init: ``"class-means"`` (Algorithm 1, from the new data's classes), ``"k-means++"``, ``"random"``, or
            ``"all"``: the index from class means, with the other two and the agreement of the three.
        lloyd: Iterate to convergence, as the authors' code does; False assigns to the nearest class mean once.
        reduction: See :func:`resque.models.feature_extraction.reduce_features`.
        seed: Seed of ``"k-means++"`` and ``"random"``.
        keep: Random clustering to keep, see :func:`resque.indices.clustering.cluster_representations`.

    Returns:
        The index with the options it depends on.

    Raises:
        RepresentationError: NaN, infinity, no samples, or labels that do not fit.
        SettingError: An unknown option, or ``lloyd=False`` with another init than ``"class-means"``.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Algorithm 1 and eq. 4.

    Example:
        >>> resque_task([[0.0], [0.1], [5.0], [5.1]], [3, 3, 8, 8]).value
        0.0
    """
    check_clustering_options(init, lloyd, keep, seed)
    rows, target = _finite_rows(representations, labels, reduction)
    if not lloyd:
        assignment = NearestMeanAssignment.to_profile(Profile.from_arrays(rows, target))
        assignment.add(rows, target)
        return index_of_assignment(assignment, reduction)
    return index_of_clustering(rows.numpy().copy(), target.numpy(), init, reduction, seed, keep)


def index_of_clustering(
    rows: np.ndarray,
    labels: np.ndarray,
    init: str,
    reduction: str,
    seed: int = 0,
    keep: str = "sizes",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> TaskIndex:
    """Compute RESQUE_task of representations by clustering them (``lloyd=True``).

    Args:
        rows: ``(n, width)`` finite float64; overwritten, so that no second copy is needed.
        labels: ``(n,)`` true classes.
        init: See :func:`resque_task`.
        reduction: Reduction that gave the rows, to be stated in the result.
        seed: See :func:`resque_task`.
        keep: See :func:`resque_task`.
        on_progress: Called with ``(done, total)`` after each random start.

    Example:
        >>> index_of_clustering(np.array([[0.0], [0.1], [5.0]]), np.array([3, 3, 8]), "all", "flatten").by_init
        {'class-means': 0.0, 'k-means++': 0.0, 'random': 0.0}
    """
    starts = INITS if init == ALL else (init,)
    clusters = {start: cluster_representations(rows, labels, start, seed, keep, on_progress) for start in starts}
    values = {start: one_minus_ari(contingency_table(labels, clusters[start])) for start in starts}
    return TaskIndex(
        value=values[starts[0]],
        unit=_UNIT,
        init=starts[0],
        lloyd=True,
        reduction=reduction,
        n=len(labels),
        classes=len(np.unique(labels)),
        keep=keep if "random" in starts else "",
        by_init=values if init == ALL else {},
        agreement={
            f"{one} / {other}": 1.0 - one_minus_ari(contingency_table(clusters[one], clusters[other]))
            for one, other in itertools.combinations(starts, 2)
        },
    )


def index_of_assignment(assignment: NearestMeanAssignment, reduction: str) -> TaskIndex:
    """Compute RESQUE_task of a finished assignment (``lloyd=False``).

    Example:
        >>> rows, labels = torch.tensor([[0.0], [0.1], [5.0]]), torch.tensor([3, 3, 8])
        >>> assignment = NearestMeanAssignment.to_profile(Profile.from_arrays(rows, labels))
        >>> assignment.add(rows, labels)
        >>> index_of_assignment(assignment, "flatten").value
        0.0
    """
    n, classes = int(assignment.table.sum()), len(assignment.labels)
    return TaskIndex(assignment.one_minus_ari, _UNIT, INITS[0], False, reduction, n, classes)


def _finite_rows(representations: Any, labels: Any, reduction: str) -> tuple[Tensor, Tensor]:
    """Return rows ``(n, width)`` in float64 and labels ``(n,)``, both on the CPU."""
    rows = reduce_features(as_tensor(representations), reduction).to(torch.float64).cpu()
    target = as_labels(labels, len(rows)).cpu()
    if len(rows) == 0 or not bool(all_finite(rows)):
        raise RepresentationError("representations are empty, or hold NaN or infinity: expected finite numbers")
    return rows, target
