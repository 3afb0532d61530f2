"""The stopping rule of the paper: target reached, tolerance rules, maximum number of epochs."""

import itertools
import math
from collections.abc import Iterable, Sequence

from resque.errors import SettingError

TOLERANCES = ((0.005, 25), (0.01, 50))
MAX_EPOCHS = 250
_ROUNDING = 1e-12


def stop_epoch(
    accuracies: Iterable[float],
    target: float,
    tolerances: Sequence[tuple[float, int]] = TOLERANCES,
    max_epochs: int = MAX_EPOCHS,
) -> tuple[int | None, str | None]:
    """The epoch at which the paper's rule ends a retraining, and which rule it was.

    An epoch that reaches the target ends it. Else, per tolerance, the epochs are counted from the first one
    within it (which is 1, and the count never resets); it ends when the count exceeds the limit. A distance that
    exceeds a tolerance by less than 1e-12 counts as within: 0.95 - 0.945 does so by one rounding error of float64.

    Args:
        accuracies: Test accuracy after each epoch, in [0, 1].
        target: Accuracy to reach.
        tolerances: Pairs ``(distance to the target, limit in epochs)``.
        max_epochs: The last epoch at all.

    Returns:
        ``(epoch, why)``, epochs counted from 1 and why one of ``"target"``, ``"tolerance 0.005"``, …,
        ``"max"``; ``(None, None)`` when nothing has ended it yet.

    Example:
        >>> stop_epoch([0.5, 0.8, 0.91], target=0.9)
        (3, 'target')
        >>> stop_epoch([0.5, 0.6], target=0.9)
        (None, None)
    """
    if max_epochs != int(max_epochs) or max_epochs < 1 or math.isnan(target):
        raise SettingError(f"target {target}, max_epochs {max_epochs}: expected a number, and an integer from 1 on")
    if not all(len(pair) == 2 and min(pair) >= 0 for pair in tolerances):
        raise SettingError(f"tolerances {tolerances}: expected pairs of a distance and a limit in epochs, none below 0")
    first_within: dict[float, int] = {}
    epoch = 0
    for epoch, accuracy in enumerate(itertools.islice(accuracies, int(max_epochs)), start=1):
        if accuracy >= target:
            return epoch, "target"
        for distance, limit in tolerances:
            if target - accuracy <= distance + _ROUNDING:
                first_within.setdefault(distance, epoch)
            if distance in first_within and epoch - first_within[distance] + 1 > limit:
                return epoch, f"tolerance {distance:g}"
    return (max_epochs, "max") if epoch == max_epochs else (None, None)
