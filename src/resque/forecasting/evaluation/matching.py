"""Tell whether an update is the one that a forecast was made for."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resque.errors import SettingError
from resque.ledger.records import Forecast

if TYPE_CHECKING:
    from torch import nn

    from resque.training.job import RetrainingJob

__all__ = ["check_settles", "differing_settings"]


def check_settles(model: "nn.Module", job: "RetrainingJob", forecast: Forecast) -> None:
    """Check that a forecast was made for this update.

    Data that had no labels may have another name since: labels often come with another file. There must be as many
    training samples as were forecast, and no more test samples.

    Args:
        model: Model to update.
        job: Retraining job.
        forecast: Forecast to settle.

    Raises:
        SettingError: Other model, data, target accuracy, shift type or recipe.
    """
    from resque.ledger.serialization import from_dict
    from resque.models.weights import fingerprint
    from resque.training.recipe import Recipe, recipe_to_dict

    # a forecast of an earlier version lacks the newer settings, which had their defaults
    changed = differing_settings(recipe_to_dict(from_dict(Recipe, forecast.recipe)), recipe_to_dict(job.recipe))
    theirs, ours = (", ".join(f"{name} {pair[side]}" for name, pair in changed.items()) for side in (0, 1))
    compared = {
        "model": (forecast.parent, job.parent or fingerprint(model)),
        "training data": (forecast.train_data, job.train.name),
        "test data": (forecast.test_data, job.test.name),
        "target accuracy": (forecast.target_accuracy, job.target_accuracy),
        "shift type": (forecast.shift_type, job.effective_shift_type),
        "recipe": (theirs, ours),
        "original data to replay": (forecast.replay_data, job.replay_data),
    }
    missing = forecast.missing_labels
    if missing.train and missing.train == len(job.train):  # labels come with another file
        del compared["training data"]
    if missing.test and len(job.test) <= missing.test:
        del compared["test data"]
    for what, (expected, given) in compared.items():
        if expected != given:
            made = f"forecast {forecast.id} was made for {what} {expected}"
            remedy = "name its weights, --weights, or " if what == "model" else ""
            raise SettingError(f"{made}, not {given}: {remedy}make a new forecast")


def differing_settings(expected: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return each setting of a recipe that differs, with both values; a setting on one side only is not compared.

    Numbers may differ in the seventh digit, as single precision does; words may differ in case.

    Example:
        >>> differing_settings({"optimizer": "adam", "batch_size": 32}, {"optimizer": "Adam", "batch_size": 64})
        {'batch_size': (32, 64)}
    """
    shared = {name: (value, given[name]) for name, value in expected.items() if name in given}
    return {name: pair for name, pair in shared.items() if not _is_same(*pair)}


def _is_same(expected: Any, given: Any) -> bool:
    if isinstance(expected, int | float) and isinstance(given, int | float):
        return math.isclose(expected, given, rel_tol=1e-6)
    if isinstance(expected, str) and isinstance(given, str):
        return expected.casefold() == given.casefold()
    return bool(expected == given)
