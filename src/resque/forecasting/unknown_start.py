"""Forecast an update whose accuracy before the first step was estimated without labels.

The paths of the learning-curve model are simulated for several accuracies that the update may start from, of equal
probability. Together they are one set of paths: intervals get wider, and all targets share them, so that a harder
target never has fewer steps or a larger probability. A path that starts at the target takes no steps.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import special

from resque.forecasting.curve_history import CurveHistory
from resque.forecasting.history import ForecastQuery
from resque.forecasting.learning_curves import CurvePrediction
from resque.ledger.records import Features

__all__ = ["possible_starts", "predict_from_start", "start_interval", "unclear_start"]

_POINTS = 9
_FEWEST_LABELS, _MOST_LABELS = 30, 10_000


def predict_from_start(
    known: CurveHistory, query: ForecastQuery, evaluations: Sequence[int]
) -> tuple[CurvePrediction | None, tuple[str, ...]]:
    """Predict the evaluations of an update, from its accuracy if it was measured, else from all that it may be.

    Args:
        known: Learning curves of earlier runs.
        query: The update.
        evaluations: Steps of its evaluations after the start, increasing.

    Returns:
        Paths, or None where there can be none; and the scores that tell their milestones. From an estimated accuracy
        the paths begin with step 0.
    """
    parts: list[CurvePrediction] = []
    scores: tuple[str, ...] = ()
    for features in possible_starts(query.features):
        curve = known.start(dataclasses.replace(query, features=features))
        paths = None if curve is None else curve.predict(evaluations)
        if curve is None or paths is None:
            return None, ()
        scores = curve.scores
        parts.append(_with_start(paths, features.accuracy) if query.features.is_estimated else paths)
    best, weights = np.concatenate([part.best for part in parts]), np.concatenate([part.weights for part in parts])
    return CurvePrediction(parts[0].steps, best, weights / len(parts)), scores


def possible_starts(features: Features) -> list[Features]:
    """Return features with each accuracy that an estimate stands for, all equally probable; measured ones alone.

    They are normal on the logit scale, with the standard error of the estimate.

    Example:
        >>> estimate = Features(None, 0.7, None, accuracy_method="estimated", accuracy_error_logit=0.5)
        >>> [round(each.accuracy, 2) for each in possible_starts(estimate)]
        [0.5, 0.57, 0.62, 0.66, 0.7, 0.74, 0.77, 0.81, 0.84]
    """
    if not features.is_estimated or features.accuracy is None:
        return [features]
    deviates = special.ndtri((np.arange(_POINTS) + 0.5) / _POINTS)
    deviates /= math.sqrt(float((deviates**2).mean()))  # the midpoints alone vary too little
    starts = _shifted(features, deviates)
    return [dataclasses.replace(features, accuracy=float(start)) for start in starts]


def start_interval(features: Features, level: float) -> tuple[float, float]:
    """Return the interval of an estimated accuracy before the first step.

    Args:
        features: Features with an estimated accuracy.
        level: Nominal coverage.

    Example:
        >>> estimate = Features(None, 0.7, None, accuracy_method="estimated", accuracy_error_logit=0.5)
        >>> [round(bound, 2) for bound in start_interval(estimate, 0.8)]
        [0.55, 0.82]
    """
    low, high = _shifted(features, special.ndtri(np.array([(1.0 - level) / 2.0, (1.0 + level) / 2.0])))
    return float(low), float(high)


def unclear_start(features: Features, target_accuracy: float, level: float) -> Iterator[str]:
    """Yield a reason not to rely on a forecast if the update may start at its target or below it.

    It names the number of labeled test samples whose accuracy has a standard error of half the distance to the target,
    between 30 and 10,000.

    Example:
        >>> estimate = Features(None, 0.7, None, accuracy_method="estimated", accuracy_error_logit=0.5)
        >>> [*unclear_start(estimate, 0.75, 0.8)][0].partition(": ")[2]
        'label about 336 test samples'
        >>> [*unclear_start(estimate, 0.9, 0.8)]
        []
    """
    if not features.is_estimated or features.accuracy is None:
        return
    low, high = start_interval(features, level)
    if low <= target_accuracy <= high:
        half = max(abs(target_accuracy - features.accuracy) / 2.0, 1e-6)
        n = features.accuracy * (1.0 - features.accuracy) / half**2
        labels = min(max(math.ceil(n), _FEWEST_LABELS), _MOST_LABELS)
        yield (
            f"the accuracy before the update is estimated at {low:.3f} to {high:.3f}, which holds the target "
            f"{target_accuracy:g}, so perhaps there is nothing to do: label about {labels:,} test samples"
        )


def _shifted(features: Features, deviates: np.ndarray) -> np.ndarray:
    """Return the accuracy so many standard errors above the estimate."""
    assert features.accuracy is not None
    errors = (features.accuracy_error_logit or 0.0) * deviates
    return np.asarray(special.expit(special.logit(features.accuracy) + errors))


def _with_start(paths: CurvePrediction, accuracy: float | None) -> CurvePrediction:
    """Return paths that begin with an evaluation before the first step."""
    start = np.full((len(paths.best), 1), accuracy)
    best = np.maximum.accumulate(np.concatenate([start, paths.best], axis=1), axis=1)
    return CurvePrediction(np.concatenate([[0.0], paths.steps]), best, paths.weights)
