"""Milestones of a learning curve that forward passes tell: the early accuracy and the best one.

The accuracy after a few steps is nearly that of the adapted model. The best accuracy is nearly what a refit head
reaches. A mixed model of the log error, ``-log(1 - accuracy)``, turns each into a predictive distribution. A run that
ended at its target was better than seen, so its best accuracy is right-censored.

The paths of a learning-curve model are then reweighted. The weight of a path whose milestone is x is multiplied by
(1 - η) p(x) / q(x) + η: p is the mixed model's density, q that of the paths before any step. Both are Student's t, and
the ratio has mean 1 over those paths.
With probability η = 0.1 the score is taken to say nothing, as of a kind of shift that no earlier run had. Otherwise a
misleading score would outweigh any curve. The weights belong to whole paths, so all targets share them, and a harder
target still never has fewer steps.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from resque.forecasting.learning_curves import CurvePrediction
from resque.forecasting.mixed_model import Deviations, NormalPrediction, TrainingExample, fitted_model

__all__ = ["EARLY_STEPS", "Milestone", "log_error"]

EARLY_STEPS = 10
"""Step of the early accuracy."""
_DEVIATIONS = Deviations(
    0.14, 0.14, (0.3, 0.05, 0.05, 0.03, 0.05, 0.3), 0.037
)  # two networks cannot tell the third: wide
_DEGREES_OF_FREEDOM = 6
_SMALLEST_ERROR = 0.002
_MISLEADING = 0.1  # share of the updates whose scores say nothing, and so the least weight of a path
_SMALLEST_DEVIATION = 0.01


def log_error(accuracy: float) -> float:
    """Return ``-log(1 - accuracy)``; an error below 0.002 counts as 0.002.

    Example:
        >>> round(log_error(0.9), 3), round(log_error(1.0), 3)
        (2.303, 6.215)
    """
    return float(-np.log(max(1.0 - accuracy, _SMALLEST_ERROR)))


class Milestone:
    """Predictive distribution of one milestone of an update.

    Args:
        examples: Log errors at the milestone in earlier runs, at least two.
        query: The update, with its features.

    Attributes:
        expected: Predictive distribution of the log error.
    """

    def __init__(self, examples: Sequence[TrainingExample], query: TrainingExample) -> None:
        self.expected: NormalPrediction = fitted_model(tuple(examples), _DEVIATIONS).predict(query)

    def log_weights(self, paths: CurvePrediction, step: float, before: CurvePrediction) -> np.ndarray:
        """Return the logs of the factors of the paths' weights, ``(paths,)``.

        Args:
            paths: Paths to be reweighted.
            step: Step of the milestone; it is read at the first evaluation from there on, or the last.
            before: Paths of the same update before any step.
        """
        seen, prior = log_errors_at(paths, step), log_errors_at(before, step)
        mean = float(before.weights @ prior)
        deviation = max(float(before.weights @ (prior - mean) ** 2) ** 0.5, _SMALLEST_DEVIATION)
        spread = NormalPrediction(mean, deviation)
        at_paths, at_before = (_log_density(x, self.expected) - _log_density(x, spread) for x in (seen, prior))
        whole = special.logsumexp(at_before, b=before.weights)  # the ratios have mean 1 before any step
        return np.asarray(np.logaddexp(np.log1p(-_MISLEADING) + at_paths - whole, np.log(_MISLEADING)))


def log_errors_at(paths: CurvePrediction, step: float) -> np.ndarray:
    """Return the log error of each path's highest accuracy by a step."""
    place = min(int(np.searchsorted(paths.steps, step)), len(paths.steps) - 1)
    return np.asarray(-np.log(np.maximum(1.0 - paths.best[:, place], _SMALLEST_ERROR)))


def _log_density(values: np.ndarray, normal: NormalPrediction) -> np.ndarray:
    """Return the log density of Student's t about a mean, up to a constant that all distributions share."""
    squares = ((values - normal.mean) / normal.deviation) ** 2
    tails = -0.5 * (_DEGREES_OF_FREEDOM + 1) * special.log1p(squares / _DEGREES_OF_FREEDOM)
    return np.asarray(tails - np.log(normal.deviation))
