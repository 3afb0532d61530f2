"""Learning-curve model: how the accuracy of a run grows with its optimizer steps, with earlier runs as prior.

The accuracy of run i after t steps, from a_i before the first step, is::

    y_i(t) = a_i + (c_i - a_i) h_i(t) + (1 - c_i) (1 - (1 + t / τ_i)^-g_i) + δ_i(t) + ε_i(t)
    h_i(t) = 1 / (1 + (τ_i / t)^β_i)

    c    level of the fast phase, which is over after some τ steps; between a and 1
    g    exponent of the slow phase, in which the error that is left falls as a power of the steps
    δ    Brownian motion in log(1 + t): what the shape misses
    ε    white noise between evaluations

The first term is the Hill function (MMF in Domhan et al., 2015). The parameters θ_i of a run, the logit of
(c - a) / (1 - a), log τ, log β and log g, have a matrix-normal prior. Their means are a Gaussian process over features,
model, shift type, condition, trained part and learning rate, and they share one covariance. It is estimated by EM, with
Laplace's approximation for each run. A run that stopped at its target needs no correction: what was not seen depends on
what was.

The shape has more than one mode, so curves are fitted from several starts.

A running update is predicted by importance sampling of θ given its curve so far, and by simulated paths of its future
evaluations. The first evaluation at the target ends a path. All targets share the paths, so a harder target never has
fewer steps or a larger probability. This module is independent of the record types.

References:
    Domhan et al., "Speeding up automatic hyperparameter optimization …", IJCAI 2015. Klein et al., "Learning curve
    prediction with Bayesian neural networks", ICLR 2017.
"""

import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from resque._threads import one_blas_thread
from resque.forecasting.curve_shape import (
    DRIFT,
    NOISE,
    PARAMETERS,
    CurveExample,
    FittedCurves,
    accuracy_at,
    noise_factor,
    second_differences,
    thinned,
)  # fmt: skip

__all__ = ["CurveModel", "CurvePrediction"]

_START = np.array([0.0, 2.8, 0.3, -3.1])  # of θ, for the first fit of each curve
_START_DEVIATIONS = np.array([1.5, 1.6, 0.6, 0.8])
_PRIOR_DIFFERENCES = 20.0  # second differences of the noise NOISE, before any is measured
_MEAN, _LINEAR, _NONLINEAR, _GROUP, _SHIFT_TYPE, _CONDITION = 2.0, 3.0, 1.0, 1.0, 0.3, 0.15  # times the covariance
_PART, _RATE = 2.0, 1.0  # so, too: of the trained part, and of a learning rate ten times the usual one
_OTHER_GROUP = 0.3  # share of a shift type's effect that models have in common
_PRIOR_FOLDS = 4.0  # with half of the first deviations, in the estimate of the covariance
_EM_ROUNDS = 4
_OTHER_STARTS = np.array([(0.0, 2.5, 0.0, 0.0), (0.0, 4.0, 0.5, 0.0), (1.5, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 2.0)])
_DISCOUNT = 1.0  # of the early evaluations of a running update
_DEGREES_OF_FREEDOM = 5  # of prior and proposal: heavier tails than the normal
_PROPOSAL_SCALE = 1.1
_PATHS, _SEED = 1000, 0
_LARGEST_DEVIATE = 3.0  # of a whitened residual in the importance weights
_TARGET_GRID = 0.01
_SMALL = 2**15 - 1  # numbers of evaluations below it are small integers


@dataclass(frozen=True)
class CurvePrediction:
    """Simulated paths of the future evaluations of a run.

    Attributes:
        steps: Optimizer steps of the evaluations, ``(evaluations,)``.
        best: Highest accuracy of each path so far, ``(paths, evaluations)``.
        weights: Weights of the paths, sum 1.
    """

    steps: np.ndarray
    best: np.ndarray
    weights: np.ndarray

    def probability_reached(self, target: float) -> float:
        """Return the probability that an evaluation reaches the target."""
        return math.fsum(self.weights[self.best[:, -1] >= target])  # rounded once, so that it falls with the target

    def quantile(self, target: float, share: float) -> float:
        """Return a quantile of the steps at which a run ends: at the target, or else at its last evaluation."""
        return float(self.steps[int(_weighted_quantile(self._ends(target), self.weights, share))])

    def median_if_reached(self, target: float) -> float:
        """Return the median steps of the paths that reach the target; the last evaluation if none does.

        Paths that reach a harder target are the faster ones. So the largest of these medians over easier targets is
        taken, on a grid of accuracies.
        """
        lowest = float(self.best[:, 0].min())
        first = math.floor(max(lowest, target - 1.0) / _TARGET_GRID)
        below = math.floor(target / _TARGET_GRID)
        medians = np.maximum.accumulate([self._median(k) for k in range(min(first, below), below + 2)])
        share = target / _TARGET_GRID - below
        return float((1.0 - share) * medians[-2] + share * medians[-1])

    def best_accuracy(self, share: float) -> float:
        """Return a quantile of the highest accuracy of a run that goes on after its target."""
        return min(max(_weighted_quantile(self.best[:, -1], self.weights, share), 0.0), 1.0)

    def _median(self, place: int) -> float:
        """Return the median steps of the paths that reach this target of the grid; all targets share the grid."""
        if place not in self._medians:
            target = place * _TARGET_GRID
            reached = self.best[:, -1] >= target
            if self.weights[reached].sum() <= 0.0:
                self._medians[place] = float(self.steps[-1])
            else:
                ends, weights = self._ends(target)[reached], self.weights[reached]
                self._medians[place] = float(self.steps[int(_weighted_quantile(ends, weights, 0.5))])
        return self._medians[place]

    def _ends(self, target: float) -> np.ndarray:
        """Return the number of the evaluation at which each path ends; small integers are sorted fastest."""
        last, by_evaluation = len(self.steps) - 1, self.best.T
        before = (by_evaluation < target).sum(0, dtype=np.int16 if last < _SMALL else np.int64)
        return np.asarray(np.minimum(before, last))

    @functools.cached_property
    def _medians(self) -> dict[int, float]:
        return {}


class CurveModel:
    """Population of learning curves, fitted to the examples at construction.

    Args:
        examples: Learning curves with at least one evaluation after the start, at least two.

    Example:
        >>> steps = (1, 2, 4, 8, 16, 32, 64, 128)
        >>> def curve(pace):
        ...     return CurveExample(steps, tuple(0.9 - 0.5 / (1 + s / pace) for s in steps), 0.4, shift_type=pace)
        >>> model = CurveModel([curve(pace) for pace in (4, 6, 9, 13, 20, 30)])
        >>> begun = CurveExample(steps[:5], curve(15).accuracy[:5], 0.4)
        >>> prediction = model.predict(begun, range(17, 500))
        >>> 45 < prediction.median_if_reached(0.8) < 80, prediction.probability_reached(0.8) > 0.9
        (True, True)
    """

    def __init__(self, examples: Sequence[CurveExample]) -> None:
        self.examples = list(examples)
        features = np.array([example.features for example in examples], dtype=float).reshape(len(examples), -1)
        self._center = np.array([_finite_mean(column) for column in features.T])
        self._scale = np.array([_finite_deviation(column) for column in features.T])
        self._features = self._standardize(features)
        self._limits = self._features.min(0, initial=0.0) - 1.0, self._features.max(0, initial=0.0) + 1.0
        with one_blas_thread():
            self._fit()

    def predict(self, query: CurveExample, evaluations: Sequence[int]) -> CurvePrediction:
        """Predict the future evaluations of a run from its curve so far.

        Args:
            query: The run; without evaluations, the prediction rests on its features alone.
            evaluations: Steps of the evaluations to come, increasing, at least one.
        """
        random = np.random.default_rng(_SEED)
        mean, covariance = self._prior(query)
        noise = self._noise(query)
        now = query.steps[-1] if query.steps else 0
        parameters, weights, offset, deviation = _posterior(query, mean, covariance, noise, random)
        steps = np.array(evaluations, dtype=float)
        drift = np.sqrt(np.diff(np.log1p(steps), prepend=math.log1p(now))) * DRIFT
        shape = parameters.shape[0], len(steps)
        walk = offset[:, None] + deviation * random.standard_normal(len(offset))[:, None]
        walk = walk + np.cumsum(drift * random.standard_normal(shape), axis=1)
        paths = accuracy_at(parameters, steps, query.start) + walk + noise * random.standard_normal(shape)
        best = np.maximum.accumulate(np.ascontiguousarray(paths.T)).T  # an evaluation's paths are compared at once
        return CurvePrediction(steps, best, weights)

    def _fit(self) -> None:
        """Estimate the population by EM: the curves given the population, then the population given the curves."""
        curves, n = FittedCurves(self.examples), len(self.examples)
        covariance = np.diag(_START_DEVIATIONS**2)
        means, factors = np.tile(_START, (n, 1)), np.ones(n)
        self._inverse = np.linalg.inv(self._kernel(self.examples, self._features) + np.eye(n))
        folds = _fold_numbers(self.examples)
        parameters = means
        for number in range(_EM_ROUNDS + 1):
            precisions = np.linalg.inv(covariance)[None] / factors[:, None, None]
            starts = [parameters] if number else [parameters, *(parameters + _OTHER_STARTS[:, None])]
            parameters, hessians = curves.fit(starts, means, precisions)
            self._offset = np.median(parameters, axis=0)
            self._weighted = self._inverse @ (parameters - self._offset)
            if number == _EM_ROUNDS:
                break
            means, factors = self._leave_fold_out(parameters, folds)
            residuals = (parameters - means) / np.sqrt(factors)[:, None]
            covariance = residuals.T @ residuals / n
            if number:  # the first fit has a prior of its own
                covariance += (np.linalg.inv(hessians) / factors[:, None, None]).mean(0)
            shrinkage = _PRIOR_FOLDS / (_PRIOR_FOLDS + len(set(folds)))  # few folds may agree by chance
            covariance = (1.0 - shrinkage) * covariance + shrinkage * np.diag((0.5 * _START_DEVIATIONS) ** 2)
        self._covariance = covariance

    def _leave_fold_out(self, parameters: np.ndarray, folds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the prior mean of each curve from all other folds, and the factor of the covariance."""
        means, factors = np.empty_like(parameters), np.empty(len(parameters))
        for fold in np.unique(folds):
            members = np.flatnonzero(folds == fold)
            covariance = np.linalg.inv(self._inverse[np.ix_(members, members)])
            means[members] = parameters[members] - covariance @ self._weighted[members]
            factors[members] = np.diag(covariance)
        return means, factors

    def _prior(self, query: CurveExample) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and covariance of the parameters of a run, before its curve is seen."""
        features = np.clip(self._standardize(np.array([query.features], dtype=float)), *self._limits)
        across = self._kernel([query], features)[0]
        variance = self._kernel([query], features, itself=True)[0, 0] + 1.0 - across @ self._inverse @ across
        return self._offset + across @ self._weighted, self._covariance * max(float(variance), 1e-6)

    def _kernel(self, rows: Sequence[CurveExample], features: np.ndarray, itself: bool = False) -> np.ndarray:
        """Return the prior covariance of rows with the examples, or with themselves, in units of the covariance."""
        columns, others = (rows, features) if itself else (self.examples, self._features)
        width = max(1, features.shape[1])
        distances = ((features[:, None] - others) ** 2).sum(-1) / width

        def same(name: str) -> np.ndarray:
            codes = _codes([getattr(each, name) for each in (*rows, *columns)])
            return np.asarray(np.equal.outer(codes[: len(rows)], codes[len(rows) :]), dtype=float)

        group, smooth = same("group"), _LINEAR * features @ others.T / width + _NONLINEAR * np.exp(-0.5 * distances)
        by_type = _SHIFT_TYPE * same("shift_type") * (_OTHER_GROUP + (1.0 - _OTHER_GROUP) * group)
        rates = (np.array([each.rate for each in side]) for side in (rows, columns))
        by_part = _PART * same("part") + _RATE * np.outer(*rates)
        return np.asarray(_MEAN + smooth + group * (_GROUP + _CONDITION * same("condition")) + by_type + by_part)

    def _standardize(self, features: np.ndarray) -> np.ndarray:
        """Return features with mean 0 and deviation 1; an unknown one is at the mean."""
        return np.asarray(np.nan_to_num((features.reshape(len(features), -1) - self._center) / self._scale))

    def _noise(self, query: CurveExample) -> float:
        """Return the deviation of the white noise between evaluations, from runs of the query's model and recipe."""
        squares = [
            each
            for example in (*self.examples, query)
            if example.group == query.group
            for each in second_differences(example)
        ]
        return math.sqrt((_PRIOR_DIFFERENCES * NOISE**2 + sum(squares)) / (_PRIOR_DIFFERENCES + len(squares)))


def _posterior(
    query: CurveExample, mean: np.ndarray, covariance: np.ndarray, noise: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Sample the parameters of a run given its curve so far.

    Returns:
        Parameters ``(paths, 4)``, their weights, the mean of the drift δ at the last evaluation for each, and the
        deviation of that drift.
    """
    precision = np.linalg.inv(covariance)
    center, hessian, n = mean, precision, _PATHS
    if query.steps:
        curve, starts = FittedCurves([query], noise, _DISCOUNT), [mean[None], *(mean + _OTHER_STARTS[:, None])]
        (center,), (hessian,) = curve.fit(starts, mean[None], precision[None])
    spread = np.linalg.cholesky(np.linalg.inv(hessian))
    deviates = random.standard_normal((n, PARAMETERS))
    deviates /= np.sqrt(random.chisquare(_DEGREES_OF_FREEDOM, n) / _DEGREES_OF_FREEDOM)[:, None]
    parameters = center + _PROPOSAL_SCALE * deviates @ spread.T
    distance = parameters - mean
    logs = _log_t(np.einsum("ni,ij,nj->n", distance, precision, distance)) - _log_t((deviates**2).sum(1))
    offset, variance = np.zeros(n), 0.0
    if query.steps:
        steps, accuracy = thinned(query)
        factor = noise_factor(steps, noise, _DISCOUNT)
        residuals = np.linalg.solve(factor, (accuracy - accuracy_at(parameters, steps, query.start)).T)
        logs -= 0.5 * (np.clip(residuals, -_LARGEST_DEVIATE, _LARGEST_DEVIATE) ** 2).sum(0)
        shared = DRIFT**2 * np.log1p(steps)  # covariance of the drift now and at each evaluation
        gain = np.linalg.solve(factor, shared)
        offset, variance = gain @ residuals, float(shared[-1] - gain @ gain)
    weights = np.exp(logs - logs.max())
    return parameters, weights / weights.sum(), offset, math.sqrt(max(variance, 0.0))


def _log_t(squared_distance: np.ndarray) -> np.ndarray:
    """Return the log density of the multivariate t, up to a constant."""
    degrees = _DEGREES_OF_FREEDOM
    return np.asarray(-0.5 * (degrees + PARAMETERS) * np.log1p(squared_distance / degrees))


def _weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weights[order])
    place = np.searchsorted(cumulative, share * cumulative[-1] - 1e-12)
    return float(values[order][min(int(place), len(values) - 1)])


def _fold_numbers(examples: Sequence[CurveExample]) -> np.ndarray:
    """Return the fold of each example: its shift type within its group, or its condition without a shift type."""
    return _codes([(each.group, each.condition if each.shift_type is None else each.shift_type) for each in examples])


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """Return one integer for each value, equal for equal values; each None is a value of its own."""
    seen: dict[Hashable, int] = {}
    return np.array(
        [seen.setdefault((place, None) if value is None else value, len(seen)) for place, value in enumerate(values)]
    )


def _finite_mean(column: np.ndarray) -> float:
    return float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else 0.0


def _finite_deviation(column: np.ndarray) -> float:
    """Return the deviation of the known values; infinite without any, so that the feature has no effect."""
    if not np.isfinite(column).any():
        return math.inf
    deviation = float(column[np.isfinite(column)].std())
    return deviation if deviation > 1e-6 else 1.0
