"""Defaults of calibration runs: data split, shortened recipe, range of target accuracies, and noise of an accuracy."""

import dataclasses
import math
from typing import Any

from resque.data.dataset import LabeledDataset
from resque.errors import SettingError
from resque.training.job import RetrainingJob, steps_per_epoch
from resque.training.recipe import Recipe
from resque.training.stopping import MAX_EPOCHS

__all__ = ["Targets", "accuracy_noise", "default_target", "parse_targets", "shorten_recipe", "split_for_calibration"]

Targets = tuple[float, float]
"""Lowest and highest target accuracy that a forecast may be asked for later."""
_MAX_EPOCHS, _MAX_STEPS = 20, 1000
_EVALUATIONS_PER_EPOCH, _EVALUATE_GROWTH = 10, 0.2
_ACCURACY_LOSS = 0.03


def split_for_calibration(
    data: LabeledDataset, test: LabeledDataset | None = None
) -> tuple[LabeledDataset, LabeledDataset, LabeledDataset]:
    """Split data into original, training and test data; the first two are the paper's overlapping splits.

    Args:
        data: Data like those that the model was trained on.
        test: Held-out data; None holds out 30 % of ``data``.

    Example:
        >>> from resque.data.loading import load_data
        >>> [part.name for part in split_for_calibration(load_data("digits"))]
        ['digits@train@original', 'digits@train@shifted', 'digits@test']
    """
    rest = data.part("train") if test is None else data
    return rest.part("original"), rest.part("shifted"), data.part("test") if test is None else test


def shorten_recipe(recipe: Recipe, samples: int, max_epochs: int | None = None) -> Recipe:
    """Shorten a recipe for calibration runs, with evaluations frequent enough to tell mild shifts apart.

    Only settings at their default change. The maximum is 20 epochs, or the number of epochs in 1,000 steps if that is
    more. Evaluations come every tenth of an epoch, with gaps of at least a fifth of the steps so far. Costs stay
    comparable with those of longer runs.

    Args:
        recipe: Recipe of the user.
        samples: Number of training samples.
        max_epochs: Maximum number of epochs; overrides both.

    Example:
        >>> short = shorten_recipe(Recipe(batch_size=32), samples=640)
        >>> short.max_epochs, short.evaluate_every, short.evaluate_growth
        (50, 2, 0.2)
    """
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    if max_epochs is None and recipe.max_epochs == MAX_EPOCHS:
        max_epochs = min(MAX_EPOCHS, max(_MAX_EPOCHS, -(-_MAX_STEPS // per_epoch)))
    if max_epochs is not None:
        recipe = dataclasses.replace(recipe, max_epochs=max_epochs)
    if recipe.evaluate_every is None and not recipe.evaluate_growth:
        every = max(1, per_epoch // _EVALUATIONS_PER_EPOCH)
        recipe = dataclasses.replace(recipe, evaluate_every=every, evaluate_growth=_EVALUATE_GROWTH)
    return recipe


def default_target(clean_accuracy: float) -> float:
    """Return the default target accuracy: 3 % below the clean accuracy, rounded down to three decimals.

    A high target is best, because a curve that reaches it gives the cost of every lower target, too.

    Example:
        >>> default_target(0.985)
        0.955
    """
    return math.floor(1000.0 * (1.0 - _ACCURACY_LOSS) * clean_accuracy) / 1000.0


def parse_targets(target_accuracy: Any) -> Targets:
    """Return the range of target accuracies from one value, a pair, or a text such as ``"0.7:0.85"``.

    Raises:
        SettingError: It is none of these, a target is not in (0, 1], or the first is above the second.

    Example:
        >>> parse_targets("0.7:0.85"), parse_targets(0.9), parse_targets((0.7, 0.8))
        ((0.7, 0.85), (0.9, 0.9), (0.7, 0.8))
    """
    expected = "expected a share in (0, 1], e.g. 0.9, or a range of them, e.g. 0.7:0.85"
    given = target_accuracy.split(":") if isinstance(target_accuracy, str) else target_accuracy
    values = list(given) if isinstance(given, tuple | list) else [given]
    try:
        low, high = float(values[0]), float(values[-1])
        valid = 1 <= len(values) <= 2 and low <= high
    except (TypeError, ValueError, IndexError, OverflowError):
        valid = False
    if not valid:
        raise SettingError(f"target accuracy {target_accuracy!r:.40}: {expected}")
    for target in (low, high):
        RetrainingJob.check_target(target)
    return low, high


def accuracy_noise(accuracy: float, samples: int) -> float:
    """Return the binomial standard error of an accuracy on so many test samples.

    Example:
        >>> round(accuracy_noise(0.8, 400), 3)
        0.02
    """
    return math.sqrt(accuracy * (1.0 - accuracy) / samples)
