"""The two indices: how far a shift turns each class, and how well a new task's classes already cluster."""

import math
from typing import Any

import numpy as np
import torch

from resque.clustering import cluster, contingency, disagreement
from resque.errors import RepresentationError, SettingError, UndefinedDirectionError
from resque.profiles import Profile, check_comparable
from resque.records import Index, TaskIndex
from resque.representations import as_labels, as_tensor, reduce

UNITS = {"rad": 1.0, "pi": math.pi}


def resque_dist(
    original: Profile,
    shifted: Profile,
    unit: str = "rad",
    debias: bool = False,
    undefined: str = "error",
) -> Index:
    """Mean angle between the class directions of two data sets in one model's representation space.

    ``(1/k) sum over classes l of angle(V_l original, V_l shifted)``. The angle is
    ``2 atan2(||u - v||, ||u + v||)`` of the unit vectors, exact at both ends where the arc cosine is not.

    Args:
        original: Profile of the data the model was trained on.
        shifted: Profile of the data it would be retrained on, same model, layer and options.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi as the authors' code has it.
        debias: Use the split-half estimate of each cosine, free of the angle that sampling noise adds.
        undefined: What to do with a class that is empty or sums to zero on one side: ``"error"``, or
            ``"skip"`` (it is left out of the mean and stands as None in ``per_class``).

    Returns:
        The index, from 0 (no class moved) to pi, with the angle of each class and the noise floor.

    Raises:
        ProfileMismatchError: The two sides differ in model, layer, preprocessing, reduction or width.
        UndefinedDirectionError: A class has no direction on one side, or no class has one.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 1-3.

    Example:
        >>> original = Profile.from_arrays([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> shifted = Profile.from_arrays([[1.0, 1.0], [0.0, 2.0]], [0, 1])
        >>> index = resque_dist(original, shifted, unit="pi")
        >>> round(index.value, 3), {label: round(angle, 3) for label, angle in index.per_class.items()}
        (0.125, {0: 0.25, 1: 0.0})
    """
    if unit not in UNITS:
        raise SettingError(f"unit {unit!r}: use 'rad' or 'pi'")
    if undefined not in ("error", "skip"):
        raise SettingError(f"undefined={undefined!r}: use 'error' or 'skip'")
    check_comparable(original, shifted)
    sides = original.halves, shifted.halves
    angles = {label: _class_angle(label, *sides, debias) for label in sorted(sides[0].keys() | sides[1].keys())}
    if undefined == "error":
        _refuse_undefined(angles, *sides, debias)
    defined = [angle for angle in angles.values() if angle is not None]
    if not defined:
        raise UndefinedDirectionError("no class has samples on both sides: do the two data sets share labels?")
    scale = UNITS[unit]
    floor = _floor(original, shifted, [label for label, angle in angles.items() if angle is not None])
    return Index(
        value=math.fsum(defined) / len(defined) / scale,
        unit=unit,
        per_class={label: None if angle is None else angle / scale for label, angle in angles.items()},
        reduction=original.origin.reduction,
        layer=original.origin.layer,
        labels=shifted.labels_from,
        n_original=original.n,
        n_shifted=shifted.n,
        floor=None if floor is None else floor / scale,
        debiased=debias,
    )


def resque_task(
    representations: Any,
    labels: Any,
    init: str = "class-means",
    lloyd: bool = True,
    reduction: str = "flatten",
    seed: int = 0,
) -> TaskIndex:
    """One minus the adjusted Rand index between clusters of the representations and the true classes.

    Args:
        representations: ``(n, …)`` of the new task's data, after one epoch of training on it.
        labels: ``(n,)`` integers, the new task's true classes.
        init: ``"class-means"`` (Algorithm 1 from the new data's classes), ``"k-means++"`` or ``"random"``.
        lloyd: Iterate to convergence, as the authors' code does; False assigns to the nearest class mean once.
        reduction: See :func:`resque.representations.reduce`.
        seed: Of ``"k-means++"`` and ``"random"``.

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
    rows = reduce(as_tensor(representations), reduction).to(torch.float64).cpu()
    target = as_labels(labels, len(rows)).cpu().numpy()
    if len(rows) == 0 or not bool(torch.isfinite(rows).all()):
        raise RepresentationError("representations are empty, or hold NaN or infinity: nothing can be clustered")
    clusters = cluster(rows.numpy(), target, init, lloyd, seed)
    value = disagreement(contingency(target, clusters))
    return TaskIndex(value, "1 - ARI", init, lloyd, reduction, len(target), len(np.unique(target)))


def angle_between(one: np.ndarray, other: np.ndarray) -> float | None:
    """Angle of two vectors in radians, to full precision near 0 and pi; None if one of them is zero."""
    u, v = _unit(one), _unit(other)
    if u is None or v is None:
        return None
    return 2.0 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))


def _unit(vector: np.ndarray) -> np.ndarray | None:
    largest = float(np.max(np.abs(vector), initial=0.0))
    if largest == 0.0:
        return None
    scaled = vector / largest
    return scaled / np.linalg.norm(scaled)


Halves = dict[int, np.ndarray]


def _class_angle(label: int, original: Halves, shifted: Halves, debias: bool) -> float | None:
    if label not in original or label not in shifted:
        return None
    if debias:
        return _debiased_angle(original[label], shifted[label])
    return angle_between(original[label].sum(0), shifted[label].sum(0))


def _refuse_undefined(angles: dict[int, float | None], original: Halves, shifted: Halves, debias: bool) -> None:
    for label, angle in angles.items():
        if angle is not None:
            continue
        for side, halves in (("original", original), ("shifted", shifted)):
            if label not in halves:
                reason = f"no samples on the {side} side"
                break
            if _unit(halves[label].sum(0)) is None:
                reason = f"representations that sum to zero on the {side} side"
                break
        else:
            reason = "two halves without a common direction, which debias needs"
        raise UndefinedDirectionError(
            f"class {label} has {reason}, so no angle; "
            "add samples of it, or leave it out with undefined='skip' (--undefined skip)"
        )


def _debiased_angle(original: np.ndarray, shifted: np.ndarray) -> float | None:
    """Arc cosine of the cosine with the noise divided out: cross products over split-half products."""
    halves = [_unit(half) for half in (*original, *shifted)]
    if any(half is None for half in halves):
        return None
    o1, o2, s1, s2 = (half for half in halves if half is not None)
    within = float(o1 @ o2) * float(s1 @ s2)
    if within <= 0.0:
        return None
    between = float((o1 + o2) @ (s1 + s2)) / 4.0
    return math.acos(min(1.0, max(-1.0, between / math.sqrt(within))))


def _floor(original: Profile, shifted: Profile, labels: list[int]) -> float | None:
    """The split-half angle of the original data, scaled from two halves to the two actual sizes."""
    halves, n_original, n_shifted = original.halves, original.counts, shifted.counts
    angles = []
    for label in labels:
        angle = angle_between(*halves[label])
        if angle is None:
            return None
        angles.append(angle * math.sqrt((1 / n_original[label] + 1 / n_shifted[label]) * n_original[label] / 4))
    return math.fsum(angles) / len(angles)
