"""Predictors: numbers that are known before an update, on scales on which log cost is nearly linear."""

import math
from collections.abc import Callable, Mapping, Sequence

from resque.ledger.records import Features

__all__ = ["HARDNESS", "PREDICTORS", "TINY", "Predictor", "predictor_values"]

Predictor = Callable[[Features, float], float | None]
"""Function of features and target accuracy; None where a feature is unknown."""
TINY = 1e-6
"""Smallest difference and smallest argument of a logarithm."""
_SMALLEST_GAP = 1e-3


def _log(value: float | None) -> float | None:
    return None if value is None else math.log(max(value, TINY))


def _log_gap(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else math.log(max(target - accuracy, _SMALLEST_GAP))


def _gap(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else target - accuracy


def _size(features: Features, target: float) -> float | None:
    """Return log(parameters × samples): the cost of an update if all updates need the same number of epochs."""
    if not features.parameters or not features.samples:
        return None
    return math.log(features.parameters * features.samples)


def _overlap(features: Features, target: float) -> float | None:
    """Return the log share of feature variance within classes, from the shrunk H-score in [0, C - 1]."""
    score = features.scores.get("shrunk H-score")
    if score is None or not features.classes or features.classes < 2:
        return None
    return math.log(max(1.0 - score / (features.classes - 1), TINY))


PREDICTORS: Mapping[str, Predictor] = {
    "adapted gap": lambda features, target: _log_gap(features.scores.get("adapted accuracy"), target),
    "adapted k-NN": lambda features, target: _gap(features.scores.get("adapted k-NN"), target),
    "adapted refit": lambda features, target: _gap(features.scores.get("adapted refit"), target),
    "index": lambda features, target: _log(features.index_rad),
    "sampled index": lambda features, target: _log(features.scores.get("sampled index")),
    "accuracy gap": lambda features, target: _log_gap(features.accuracy, target),
    "initial loss": lambda features, target: _log(features.loss),
    "k-NN accuracy": lambda features, target: _gap(features.scores.get("k-NN accuracy"), target),
    "overlap": _overlap,
    "LogME": lambda features, target: features.scores.get("LogME"),
    "parameters × samples": _size,
    "task index": lambda features, target: _log(features.task_index),
    "warm-up gap": lambda features, target: _log_gap(features.scores.get("warm-up accuracy"), target),
    "warm-up k-NN": lambda features, target: _gap(features.scores.get("warm-up k-NN"), target),
}
"""All predictors by name; none of them needs training beyond the warm-up of a new task."""
HARDNESS = "adapted refit", "adapted gap", "accuracy gap", "warm-up gap"
"""Predictors that tell whether an update is harder than all own ones; the first that is known is asked."""


def predictor_values(names: Sequence[str], features: Features, target_accuracy: float) -> tuple[float, ...] | None:
    """Compute predictors; return None if one of them is unknown.

    Args:
        names: Keys of :data:`PREDICTORS`.
        features: Features of an update.
        target_accuracy: Target accuracy of the update.

    Example:
        >>> features = Features(index_rad=None, accuracy=0.75, loss=1.0)
        >>> predictor_values(["accuracy gap", "initial loss"], features, 0.875)
        (-2.0794415416798357, 0.0)
        >>> predictor_values(["index"], features, 0.875) is None
        True
    """
    values = [PREDICTORS[name](features, target_accuracy) for name in names]
    known = tuple(value for value in values if value is not None)
    return known if len(known) == len(values) else None
