"""Compute RESQUE_dist: how far a distribution shift turns the class directions of the representations (eq. 1-3)."""

import dataclasses
import math

from resque.errors import RepresentationError, SettingError, UndefinedDirectionError
from resque.indices.angles import AngleEstimate, SplitHalves, estimate_debiased, estimate_plain, noise_floor
from resque.indices.class_sums import HALVES
from resque.indices.profile import Profile, check_comparable
from resque.indices.results import DistributionIndex
from resque.types import Interval

__all__ = ["UNITS", "check_options", "mean_angle", "resque_dist"]

UNITS = {"rad": 1.0, "pi": math.pi}
"""Units of the index, in radians."""
_GUARANTEES = {
    False: "approximate; covers the mean index over other samples of these sizes, noise included",
    True: "approximate; covers the index without sampling noise",
}
_LEVEL = 0.9


def resque_dist(
    original: Profile,
    shifted: Profile,
    unit: str = "rad",
    debias: bool = False,
    undefined: str = "error",
    level: float = _LEVEL,
) -> DistributionIndex:
    """Compute the mean angle between the class directions of two datasets in one model's representation space.

    With the class sums ``V_l`` of each dataset (eq. 1) and ``k`` classes::

        u_l = V_l / ||V_l||                                              (eq. 2)
        RESQUE_dist = (1/k) sum_l arccos(u_l original · u_l shifted)     (eq. 3)

    The angle is computed as ``2 atan2(||u - v||, ||u + v||)``, exact at both ends where the arc cosine is not.

    Args:
        original: Profile of the data the model was trained on.
        shifted: Profile of the data it would be retrained on, with the same model, layer and options.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi, as in the authors' code.
        debias: Remove the angle that sampling noise adds, see :func:`resque.indices.angles.estimate_debiased`.
        undefined: Treatment of a class that is empty or sums to zero in one dataset: ``"error"``, or ``"skip"`` to
            leave it out of the mean, with None in ``per_class``.
        level: Nominal coverage of the confidence interval.

    Returns:
        The index, from 0 (no class direction moved) to pi, with the angle of each class and the noise floor. Its
        interval covers the plain index of other samples of these sizes, or the debiased index without noise.

    Raises:
        ProfileMismatchError: The profiles differ in model, layer, preprocessing, reduction or width.
        UndefinedDirectionError: A class has no direction in one dataset, or no class has one in both.
        SettingError: An option is unknown or out of range.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 1-3.

    Example:
        >>> original = Profile.from_arrays([[1.0, 0.0], [0.0, 1.0]], [0, 1])
        >>> shifted = Profile.from_arrays([[1.0, 1.0], [0.0, 2.0]], [0, 1])
        >>> index = resque_dist(original, shifted, unit="pi")
        >>> round(index.value, 3), {label: round(angle, 3) for label, angle in index.per_class.items()}
        (0.125, {0: 0.25, 1: 0.0})
    """
    check_options(unit, undefined, level)
    if not (isinstance(original, Profile) and isinstance(shifted, Profile)):
        raise RepresentationError("expected two profiles: compute them with resque.profile or Profile.from_arrays")
    check_comparable(original, shifted)
    defined, reasons = _pair_classes(original, shifted)
    if reasons and undefined == "error":
        pseudo = "pseudo" in (original.labels_from, shifted.labels_from)
        label, reason = next(iter(reasons.items()))
        raise UndefinedDirectionError(
            f"class {label} has {reason}, so its angle is undefined: add samples "
            f"{'that the model predicts as' if pseudo else 'of'} that class, "
            "or leave it out with undefined='skip' (--undefined skip)"
        )
    if not defined:
        raise UndefinedDirectionError("no class has samples in both datasets: pass two that share labels")
    pairs = list(defined.values())
    estimate, floor, scale = _estimate(pairs, debias, level), noise_floor(pairs), UNITS[unit]
    interval = None
    if estimate.low is not None and estimate.high is not None:
        interval = Interval(estimate.low / scale, estimate.high / scale, level, _GUARANTEES[debias])
    angles = {label: angle / scale for label, angle in zip(defined, estimate.per_class, strict=True)}
    return DistributionIndex(
        value=estimate.value / scale,
        unit=unit,
        per_class={label: angles.get(label) for label in sorted(defined.keys() | reasons.keys())},
        reduction=original.origin.reduction,
        layer=original.origin.layer,
        labels=shifted.labels_from,
        n_original=original.n,
        n_shifted=shifted.n,
        interval=interval,
        floor=None if floor is None else floor / scale,
        debiased=debias,
        sub_sums=HALVES,
        labels_original=original.labels_from,
        skipped=len(reasons),
    )


def mean_angle(before: Profile, after: Profile) -> float | None:
    """Compute the mean angle between the class sums of two models of one lineage, each of its own data.

    It mixes changes of the data and of the weights. So it is no RESQUE_dist, which compares data in one model's space.

    Returns:
        The angle in radians; None if layer, reduction, preprocessing or width differ, or no class is in both.

    Example:
        >>> mean_angle(Profile.from_arrays([[1.0, 0.0]], [0]), Profile.from_arrays([[0.0, 1.0]], [0]))
        1.5707963267948966
    """
    same_space = dataclasses.replace(after.origin, model=before.origin.model) == before.origin
    defined = _pair_classes(before, after)[0] if same_space and before.width == after.width else {}
    return estimate_plain(list(defined.values()), _LEVEL).value if defined else None


def check_options(unit: str, undefined: str, level: float) -> None:
    """Raise SettingError for an option of :func:`resque_dist` that is unknown or out of range."""
    if unit not in UNITS:
        raise SettingError(f"unit {unit!r}: use 'rad' or 'pi'")
    if undefined not in ("error", "skip"):
        raise SettingError(f"undefined={undefined!r}: use 'error' or 'skip'")
    if not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise SettingError(f"confidence (level) {level}: expected a share between 0 and 1, e.g. 0.9")


def _pair_classes(
    original: Profile, shifted: Profile
) -> tuple[dict[int, tuple[SplitHalves, SplitHalves]], dict[int, str]]:
    """Return the classes with a direction in both datasets, and for each other class the reason why not."""
    before, after = original.split_halves, shifted.split_halves
    defined, reasons = {}, dict[int, str]()
    for label in sorted(before.keys() | after.keys()):
        pair = {"original": before.get(label), "shifted": after.get(label)}
        for name, halves in pair.items():
            if halves is None:
                reasons.setdefault(label, f"no samples in the {name} data")
            elif not halves.has_direction:
                reasons.setdefault(label, f"representations that sum to zero in the {name} data")
        if label not in reasons:
            defined[label] = before[label], after[label]
    return defined, reasons


def _estimate(pairs: list[tuple[SplitHalves, SplitHalves]], debias: bool, level: float) -> AngleEstimate:
    """Return the plain or the debiased estimate."""
    estimate = estimate_debiased(pairs, level) if debias else estimate_plain(pairs, level)
    if estimate is None:
        raise UndefinedDirectionError(
            "debias needs a class whose split halves agree in direction in both datasets: "
            "add samples, or compare the plain index with its floor"
        )
    return estimate
