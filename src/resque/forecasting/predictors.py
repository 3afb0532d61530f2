"""Predictors: numbers known before an update, on scales on which log cost is nearly linear."""

import math
from collections.abc import Callable, Mapping

from resque.ledger.records import Features

Predictor = Callable[[Features, float], float | None]
TINY = 1e-6
_SMALLEST_GAP = 1e-3


def _log(value: float | None) -> float | None:
    return None if value is None else math.log(max(value, TINY))


def _gap(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else math.log(max(target - accuracy, _SMALLEST_GAP))


def _short(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else target - accuracy


def _size(features: Features, target: float) -> float | None:
    """Parameters times samples: what an update costs if all are alike."""
    if not features.parameters or not features.samples:
        return None
    return math.log(features.parameters * features.samples)


def _overlap(features: Features, target: float) -> float | None:
    """The share of the features' variance that does not tell classes apart, from the shrunk H-score in [0, C - 1]."""
    found = features.scores.get("shrunk H-score")
    if found is None or not features.classes or features.classes < 2:
        return None
    return math.log(max(1.0 - found / (features.classes - 1), TINY))


PREDICTORS: Mapping[str, Predictor] = {
    "BN-adapted gap": lambda features, target: _gap(features.scores.get("BN-adapted accuracy"), target),
    "BN-adapted k-NN": lambda features, target: _short(features.scores.get("BN-adapted k-NN"), target),
    "index": lambda features, target: _log(features.index_rad),
    "accuracy gap": lambda features, target: _gap(features.accuracy, target),
    "initial loss": lambda features, target: _log(features.loss),
    "k-NN accuracy": lambda features, target: _short(features.scores.get("k-NN accuracy"), target),
    "overlap": _overlap,
    "LogME": lambda features, target: features.scores.get("LogME"),
    "parameters × samples": _size,
    "task index": lambda features, target: _log(features.task_index),
    "warm-up gap": lambda features, target: _gap(features.scores.get("warm-up accuracy"), target),
    "warm-up k-NN": lambda features, target: _short(features.scores.get("warm-up k-NN"), target),
}
"""What a forecast can rest on, each known without training anything."""
CHOSEN = (
    ("task index", "warm-up gap"),
    ("BN-adapted gap", "accuracy gap", "BN-adapted k-NN"),
    ("index", "accuracy gap", "k-NN accuracy", "overlap", "LogME"),
)
"""Sets of predictors, the first for a change of task; the first whose leading one is known well enough is taken."""
REACHING = ("BN-adapted gap", "k-NN accuracy", "LogME")
"""What the chance of reaching a target rests on: how far it is, and which accuracy the representations allow."""
