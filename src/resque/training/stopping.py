"""Stopping rule of the paper: target reached, tolerance rules, or maximum number of epochs."""

import itertools
import math
from collections.abc import Iterable, Sequence

from resque.errors import SettingError

__all__ = ["MAX_EPOCHS", "TOLERANCES", "stop_epoch"]

TOLERANCES = ((0.005, 25), (0.01, 50))
"""Tolerance rules of the paper: distance to the target, and limit in epochs."""
MAX_EPOCHS = 250
"""Maximum number of epochs in the authors' code."""
_ROUNDING = 1e-12


def stop_epoch(
    accuracies: Iterable[float],
    target: float,
    tolerances: Sequence[tuple[float, int]] = TOLERANCES,
    max_epochs: int = MAX_EPOCHS,
) -> tuple[int | None, str | None]:
    """Find the epoch at which the paper's rule ends a retraining, and the rule that applied.

    A run ends at the first epoch that reaches the target. Otherwise each tolerance counts the epochs from the first one
    within its distance of the target; that epoch is number 1, and the count never resets. The run ends when a count
    exceeds its limit. A distance above a tolerance by less than 1e-12 counts as within: in float64, 0.95 - 0.945
    exceeds 0.005 by one rounding error.

    Args:
        accuracies: Test accuracy after each epoch, in [0, 1].
        target: Target accuracy.
        tolerances: Pairs of a distance to the target and a limit in epochs.
        max_epochs: Maximum number of epochs.

    Returns:
        Epoch, counted from 1, and reason: ``"target"``, ``"tolerance 0.005"``, …, or ``"max"``. Both are None while no
        rule applies.

    Raises:
        SettingError: A setting is out of range.

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
