"""Shape of a learning curve, and its fit to measured curves; see :mod:`resque.forecasting.learning_curves`."""

import copy
import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

__all__ = [
    "DRIFT",
    "NOISE",
    "PARAMETERS",
    "CurveExample",
    "FittedCurves",
    "accuracy_and_jacobian",
    "accuracy_at",
    "noise_factor",
    "second_differences",
    "thinned",
]  # fmt: skip

PARAMETERS = 4
"""Number of parameters of a curve: logit of the level's share, log τ, log β, log g."""
DRIFT = 0.01
"""Deviation of the drift δ per unit of log steps; chosen on rows of the studies."""
NOISE = 0.003
"""Deviation of the noise ε between evaluations where it cannot be measured."""
_CLOSE = 1.6  # largest ratio of the steps of three evaluations whose second difference is noise
_MISFIT = 2.0  # a past evaluation is as uncertain as this times ε: the shape misses something at once, too
_FIT_STEPS, _SMALLEST_STEP = 25, 1e-8
_MOST_EVALUATIONS = 40  # of a curve; more are thinned


@dataclass(frozen=True)
class CurveExample:
    """A learning curve with what was known before it began.

    Attributes:
        steps: Optimizer steps of the evaluations after the start, increasing.
        accuracy: Accuracy at these evaluations.
        start: Accuracy before the first step.
        features: Values of the features, in the same order in all examples; NaN where unknown.
        group: Model and recipe.
        shift_type: Shift type; None counts as a type of its own.
        condition: Training data; repeats with other seeds share it.
        part: Trained part; its effect is one of all models.
        rate: Decimal log of the learning rate over the usual one; so is its effect.
    """

    steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    start: float
    features: tuple[float, ...] = ()
    group: Hashable = ""
    shift_type: Hashable = None
    condition: Hashable = ""
    part: Hashable = ""
    rate: float = 0.0


class FittedCurves:
    """Learning curves as padded arrays, whitened by the covariance of drift and noise.

    Args:
        examples: Learning curves, at least one.
        noise: Deviation of the noise between evaluations.
        discount: Discount of early evaluations, see :func:`noise_factor`.
    """

    def __init__(self, examples: Sequence[CurveExample], noise: float = NOISE, discount: float = 0.0) -> None:
        curves = [thinned(example) for example in examples]
        longest = max(len(steps) for steps, _ in curves)
        self._steps = np.ones((len(examples), longest))
        self._accuracy = np.zeros((len(examples), longest))
        self._whiten = np.zeros((len(examples), longest, longest))
        for place, (steps, accuracy) in enumerate(curves):
            n = len(steps)
            self._steps[place, :n], self._accuracy[place, :n] = steps, accuracy
            self._whiten[place, :n, :n] = _whitening(tuple(steps), noise, discount)
        self._starts = np.array([example.start for example in examples])

    def fit(
        self, starts: Sequence[np.ndarray], means: np.ndarray, precisions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the most probable parameters of each curve, ``(n, 4)``, and the Hessians.

        Args:
            starts: Where to begin, one or more ``(n, 4)``; of each curve the best fit counts.
            means: Means of the normal prior, ``(n, 4)``.
            precisions: Its precisions, ``(n, 4, 4)``.
        """
        fits = [self._descend(start, means, precisions) for start in starts]
        best = np.argmin([self._loss(parameters, means, precisions) for parameters, _ in fits], axis=0)
        parameters, hessians = (np.stack(each)[best, np.arange(len(best))] for each in zip(*fits, strict=True))
        return parameters, hessians

    def _descend(self, start: np.ndarray, means: np.ndarray, precisions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fit each curve from one start by damped Gauss-Newton; a curve is done once a step hardly moves it."""
        parameters, damping = start.copy(), np.full(len(start), 1e-2)
        loss, left = self._loss(parameters, means, precisions), np.arange(len(start))
        for _ in range(_FIT_STEPS):
            curves, at, precision = self._some(left), parameters[left], precisions[left]
            residuals, jacobian = curves._whitened(at)
            hessian = np.swapaxes(jacobian, 1, 2) @ jacobian + precision
            gradient = (np.swapaxes(jacobian, 1, 2) @ residuals[:, :, None])[:, :, 0]
            gradient += (precision @ (at - means[left])[:, :, None])[:, :, 0]
            damped = hessian + damping[left, None, None] * hessian * np.eye(PARAMETERS)
            step = np.clip(np.linalg.solve(damped, gradient[:, :, None])[:, :, 0], -2.0, 2.0)
            trial_loss = curves._loss(at - step, means[left], precision)
            better = trial_loss < loss[left]
            parameters[left] = np.where(better[:, None], at - step, at)
            loss[left] = np.where(better, trial_loss, loss[left])
            damping[left] *= np.where(better, 0.2, 5.0)
            left = left[np.abs(step).max(1) > _SMALLEST_STEP]
            if not len(left):
                break
        _, jacobian = self._whitened(parameters)
        return parameters, np.swapaxes(jacobian, 1, 2) @ jacobian + precisions

    def _some(self, places: np.ndarray) -> "FittedCurves":
        if len(places) == len(self._starts):
            return self
        some = copy.copy(self)
        some._steps, some._accuracy, some._whiten, some._starts = (
            each[places] for each in (self._steps, self._accuracy, self._whiten, self._starts)
        )
        return some

    def _loss(self, parameters: np.ndarray, means: np.ndarray, precisions: np.ndarray) -> np.ndarray:
        distance, start = parameters - means, self._starts[:, None]
        residuals = self._whiten @ (_accuracy(parameters, self._steps, start) - self._accuracy)[:, :, None]
        return np.asarray((residuals**2).sum((1, 2)) + np.einsum("ni,nij,nj->n", distance, precisions, distance))

    def _whitened(self, parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return whitened residuals, ``(n, evaluations)``, and their Jacobian."""
        values, jacobian = accuracy_and_jacobian(parameters, self._steps, self._starts)
        residuals = (self._whiten @ (values - self._accuracy)[:, :, None])[:, :, 0]
        return residuals, self._whiten @ jacobian


def accuracy_at(parameters: np.ndarray, steps: np.ndarray, start: float) -> np.ndarray:
    """Return curves without drift and noise, ``(paths, evaluations)``; parameters are ``(paths, 4)``."""
    return _accuracy(parameters, steps, np.array(start))


def _accuracy(parameters: np.ndarray, steps: np.ndarray, start: np.ndarray) -> np.ndarray:
    level, log_pace, steepness, slope = _natural(parameters, start)
    growth = np.log(steps) - log_pace
    fast = start + (level - start) * special.expit(steepness * growth)
    return np.asarray(fast - (1.0 - level) * np.expm1(-slope * np.logaddexp(0.0, growth)))


def accuracy_and_jacobian(
    parameters: np.ndarray, steps: np.ndarray, starts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the curve of each run at its own steps, ``(n, evaluations)``, and its derivatives by θ."""
    start = starts[:, None]
    level, log_pace, steepness, slope = _natural(parameters, start)
    growth = np.log(steps) - log_pace
    rise, late = special.expit(steepness * growth), np.logaddexp(0.0, growth)
    bend = (level - start) * rise * (1.0 - rise) * steepness
    left = np.exp(-slope * late)  # of the slow phase
    values = start + (level - start) * rise + (1.0 - level) * (1.0 - left)
    by_level = (rise - 1.0 + left) * (level - start) * (1.0 - level) / (1.0 - start)
    by_slope = (1.0 - level) * left * slope
    by_pace = -bend - by_slope * special.expit(growth)
    return values, np.stack([by_level, by_pace, bend * growth, by_slope * late], axis=-1)


def _natural(parameters: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return level, log pace τ, steepness β and slope of θ, each ``(n, 1)``."""
    level, log_pace, steepness, slope = (parameters[:, [place]] for place in range(PARAMETERS))
    level = start + (1.0 - start) * special.expit(level)
    return level, log_pace, np.exp(np.minimum(steepness, 4.0)), np.exp(np.minimum(slope, 2.0))


def noise_factor(steps: np.ndarray, noise: float, discount: float = 0.0) -> np.ndarray:
    """Return the Cholesky factor of the covariance of drift and noise at these steps.

    Args:
        steps: Steps of the evaluations.
        noise: Deviation of the noise between evaluations.
        discount: Growth of the noise's deviation for each unit of log steps before the last evaluation. What comes
            next is told by the last evaluations, and the shape need not fit the first ones.
    """
    log_steps = np.log1p(steps)
    deviations = _MISFIT * noise * (1.0 + discount * np.log(steps[-1] / steps))
    return np.linalg.cholesky(DRIFT**2 * np.minimum.outer(log_steps, log_steps) + np.diag(deviations**2))


@functools.lru_cache(maxsize=4096)
def _whitening(steps: tuple[float, ...], noise: float, discount: float) -> np.ndarray:
    """Return the inverse of the Cholesky factor; runs share their evaluations, and cross-validation fits them again."""
    return np.linalg.inv(noise_factor(np.array(steps), noise, discount))


def second_differences(example: CurveExample) -> list[float]:
    """Return squared second differences between close evaluations; the expectation of each is the noise's variance."""
    steps, accuracy = np.array(example.steps, dtype=float), np.array(example.accuracy)
    if len(steps) < 3:
        return []
    close = steps[2:] < _CLOSE * steps[:-2]
    differences = accuracy[1:-1] - (accuracy[2:] + accuracy[:-2]) / 2.0
    return [float(square) / 1.5 for square in differences[close] ** 2]


def thinned(example: CurveExample) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and accuracies of a curve; of many evaluations some, evenly spaced in log steps, and the last."""
    steps, accuracy = np.array(example.steps, dtype=float), np.array(example.accuracy)
    if len(steps) > _MOST_EVALUATIONS:
        wanted = np.geomspace(steps[0], steps[-1], _MOST_EVALUATIONS)
        kept = np.unique(np.minimum(np.searchsorted(steps, wanted - 1e-6), len(steps) - 1))
        return steps[kept], accuracy[kept]
    return steps, accuracy
