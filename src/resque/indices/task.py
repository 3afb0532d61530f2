"""RESQUE_task of representations: one minus the adjusted Rand index of clusters and classes (eq. 4)."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError
from resque.indices.clustering import (
    ALL,
    INITS,
    NearestMeanAssignment,
    Watch,
    adjusted_rand_index,
    check_start,
    cluster_representations,
    contingency,
    disagreement,
)
from resque.indices.profile import Profile
from resque.indices.results import TaskIndex
from resque.models.feature_extraction import reduce_features

_TASK_UNIT = "1 - ARI"


def resque_task(
    representations: Any,
    labels: Any,
    init: str = "class-means",
    lloyd: bool = True,
    reduction: str = "flatten",
    seed: int = 0,
    keep: str = "sizes",
) -> TaskIndex:
    """One minus the adjusted Rand index between clusters of the representations and the true classes.

    Args:
        representations: ``(n, …)`` of the new task's data, after one epoch of training on it.
        labels: ``(n,)`` integers, the new task's true classes.
        init: ``"class-means"`` (Algorithm 1 from the new data's classes), ``"k-means++"``, ``"random"``, or ``"all"``:
            the index from class means, with the other two and how well they agree beside it.
        lloyd: Iterate to convergence, as the authors' code does; False assigns to the nearest class mean once.
        reduction: See :func:`resque.models.feature_extraction.reduce_features`.
        seed: Of ``"k-means++"`` and ``"random"``.
        keep: Which of 20 random clusterings counts, see :func:`resque.indices.clustering.cluster_representations`.

    Returns:
        The index with everything it depends on.

    Raises:
        RepresentationError: NaN, infinity, no samples, or labels that do not fit.
        SettingError: Unknown init, or ``lloyd=False`` with another one than ``"class-means"``.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, Algorithm 1 and eq. 4.

    Example:
        >>> resque_task([[0.0], [0.1], [5.0], [5.1]], [3, 3, 8, 8]).value
        0.0
    """
    check_start(init, lloyd, keep, seed)
    rows, target = _finite_rows(representations, labels, reduction)
    if not lloyd:
        assignment = nearest_mean_assignment(Profile.from_arrays(rows, target))
        assignment.add(rows, target)
        return index_of_assignment(assignment, reduction)
    return index_of_clustering(rows.numpy().copy(), target.numpy(), init, reduction, seed, keep)


def index_of_clustering(
    rows: np.ndarray,
    target: np.ndarray,
    init: str,
    reduction: str,
    seed: int = 0,
    keep: str = "sizes",
    on_progress: Watch = lambda done, total: None,
) -> TaskIndex:
    """RESQUE_task of finite float64 rows ``(n, width)``, which are overwritten: no second copy is made."""
    starts = INITS if init == ALL else (init,)
    found = {start: cluster_representations(rows, target, start, seed, keep, on_progress) for start in starts}
    values = {start: disagreement(contingency(target, clusters)) for start, clusters in found.items()}
    pairs = itertools.combinations(starts, 2)
    return TaskIndex(
        value=values[starts[0]],
        unit=_TASK_UNIT,
        init=starts[0],
        lloyd=True,
        reduction=reduction,
        n=len(target),
        classes=len(np.unique(target)),
        keep=keep if "random" in starts else "",
        by_init=values if init == ALL else {},
        agreement={f"{one} / {other}": adjusted_rand_index(found[one], found[other]) for one, other in pairs},
    )


def nearest_mean_assignment(profile: Profile) -> NearestMeanAssignment:
    """The second of two streaming passes, from the profile that the first one left: assigns to its class means."""
    if not profile.n:
        raise RepresentationError("the profile is empty, so there are no class means: update it with the data first")
    return NearestMeanAssignment.to_means(*profile.class_means())


def index_of_assignment(assignment: NearestMeanAssignment, reduction: str) -> TaskIndex:
    """RESQUE_task of a finished assignment, ``lloyd=False``."""
    n, classes = int(assignment.table.sum()), len(assignment.labels)
    return TaskIndex(assignment.disagreement, _TASK_UNIT, INITS[0], False, reduction, n, classes)


def _finite_rows(representations: Any, labels: Any, reduction: str) -> tuple[Tensor, Tensor]:
    """Rows ``(n, width)`` in float64 and labels, both on the CPU."""
    rows = reduce_features(as_tensor(representations), reduction).to(torch.float64).cpu()
    target = as_labels(labels, len(rows)).cpu()
    if len(rows) == 0 or not bool(torch.isfinite(rows).all()):
        raise RepresentationError("representations are empty, or hold NaN or infinity: nothing can be clustered")
    return rows, target
