"""The two indices: how far a shift turns each class, and how well a new task's classes already cluster."""

import dataclasses
import math

from resque.errors import RepresentationError, SettingError, UndefinedDirectionError
from resque.indices.angles import Side, Spread, angle_of, debiased, floor, plain_interval
from resque.indices.class_sums import HALVES
from resque.indices.profile import Profile, check_comparable
from resque.indices.results import DistributionIndex
from resque.types import Interval

UNITS = {"rad": 1.0, "pi": math.pi}
_MEANING = {
    False: "of the mean index over other samples of these sizes, noise included; approximate",
    True: "of the index without sampling noise; approximate",
}


def resque_dist(
    original: Profile,
    shifted: Profile,
    unit: str = "rad",
    debias: bool = False,
    undefined: str = "error",
    level: float = 0.9,
) -> DistributionIndex:
    """Mean angle between the class directions of two data sets in one model's representation space.

    ``(1/k) sum over classes l of angle(V_l original, V_l shifted)``. The angle is
    ``2 atan2(||u - v||, ||u + v||)`` of the unit vectors, exact at both ends where the arc cosine is not.

    Args:
        original: Profile of the data the model was trained on.
        shifted: Profile of the data it would be retrained on, same model, layer and options.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi as the authors' code has it.
        debias: Take out the angle that sampling noise adds, see :func:`resque.indices.angles.debiased`.
        undefined: What to do with a class that is empty or sums to zero on one side: ``"error"``, or
            ``"skip"`` (it is left out of the mean and stands as None in ``per_class``).
        level: Nominal coverage of the confidence interval.

    Returns:
        The index, from 0 (no class moved) to pi, with the angle of each class, the noise floor and an interval: for the
        plain index of its value over other samples of these sizes, for the debiased one of its value without noise.

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
    check_options(unit, undefined, level)
    if not (isinstance(original, Profile) and isinstance(shifted, Profile)):
        raise RepresentationError("expected two profiles: make them with Profile.from_arrays, or resque.profile")
    check_comparable(original, shifted)
    known, unknown = _pairs(original, shifted)
    if unknown and undefined == "error":
        label, reason = next(iter(unknown.items()))
        raise UndefinedDirectionError(
            f"class {label} has {reason}, so no angle; add samples of it"
            f"{' that the model takes for it' if 'pseudo' in (original.labels_from, shifted.labels_from) else ''}, "
            "or leave it out with undefined='skip' (--undefined skip)"
        )
    if not known:
        raise UndefinedDirectionError("no class has samples on both sides: do the two data sets share labels?")
    angles, spread = _angles(list(known.values()), debias, level)
    scale, interval, noise = UNITS[unit], None, floor(list(known.values()))
    if spread.low is not None and spread.high is not None:
        interval = Interval(spread.low / scale, spread.high / scale, level, _MEANING[debias])
    own = dict(zip(known, angles, strict=True))
    return DistributionIndex(
        value=spread.value / scale,
        unit=unit,
        per_class={
            label: own[label] / scale if label in own else None for label in sorted(own.keys() | unknown.keys())
        },
        reduction=original.origin.reduction,
        layer=original.origin.layer,
        labels=shifted.labels_from,
        n_original=original.n,
        n_shifted=shifted.n,
        interval=interval,
        floor=None if noise is None else noise / scale,
        debiased=debias,
        sub_sums=HALVES,
        labels_original=original.labels_from,
        skipped=len(unknown),
    )


def mean_angle(before: Profile, after: Profile) -> float | None:
    """Mean angle in radians between the class sums of two models of one line, each of its own data.

    It mixes what the data and what the weights did, and is no RESQUE_dist, which compares data in one model's space.
    None where layer, reduction, preprocessing or width differ, or no class is in both.

    Example:
        >>> mean_angle(Profile.from_arrays([[1.0, 0.0]], [0]), Profile.from_arrays([[0.0, 1.0]], [0]))
        1.5707963267948966
    """
    fits = dataclasses.replace(after.origin, model=before.origin.model) == before.origin and before.width == after.width
    known = _pairs(before, after)[0] if fits else {}
    return _angles(list(known.values()), False, 0.9)[1].value if known else None


def check_options(unit: str, undefined: str, level: float) -> None:
    """Refuse options of :func:`resque_dist` that there are not."""
    if unit not in UNITS:
        raise SettingError(f"unit {unit!r}: use 'rad' or 'pi'")
    if undefined not in ("error", "skip"):
        raise SettingError(f"undefined={undefined!r}: use 'error' or 'skip'")
    if not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise SettingError(f"confidence (level) {level}: expected a share between 0 and 1, e.g. 0.9")


def _pairs(original: Profile, shifted: Profile) -> tuple[dict[int, tuple[Side, Side]], dict[int, str]]:
    """The classes with a direction on both sides, and for each other one the reason why it has none."""
    sides = {"original": original.sides, "shifted": shifted.sides}
    known, unknown = {}, {}
    for label in sorted(sides["original"].keys() | sides["shifted"].keys()):
        pair = {name: of.get(label) for name, of in sides.items()}
        for name, side in pair.items():
            if side is None:
                unknown[label] = f"no samples on the {name} side"
            elif side.direction is None:
                unknown[label] = f"representations that sum to zero on the {name} side"
            if label in unknown:
                break
        if pair["original"] is not None and pair["shifted"] is not None and label not in unknown:
            known[label] = pair["original"], pair["shifted"]
    return known, unknown


def _angles(pairs: list[tuple[Side, Side]], debias: bool, level: float) -> tuple[list[float], Spread]:
    if not debias:
        angles = [angle_of(original, shifted) for original, shifted in pairs]
        return angles, plain_interval(pairs, angles, level)
    found = debiased(pairs, level)
    if found is None:
        raise UndefinedDirectionError(
            "no class has two halves with a common direction on both sides, which debias needs: "
            "add samples, or take the plain index beside its floor"
        )
    return found
