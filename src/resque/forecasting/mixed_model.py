"""Linear mixed model (a Gaussian process) of a number per update, with right-censored observations.

For update i with features x_i (standardized on the training data) and centered value y_i, e.g. a log cost::

    y_i = m + x_i · b + f(x_i) + u_group + u_type + u_type-in-group + u_condition + u_parent + u_part + e_i

    m    ~ N(0, 25)                        mean
    b_j  ~ N(0, s_j²)                      slope of feature j
    f    ~ GP(0, s_f² exp(-d² / 2))        nonlinear term; d² is the mean squared difference of the features
    u_k  ~ N(0, s_k²)                      random intercepts, one for each level of factor k
    e_i  ~ N(0, s_e²)                      noise

All terms are normal, so y is normal with covariance ``25 + Σ_k s_k² K_k + s_e² I`` for fixed kernel matrices K_k.
The standard deviations s are given, see :class:`Deviations`: on the rows of the studies, a search for them earned
nothing. The variance between shift types widens the prediction for a type that is not in the training data.

A censored y_i is a lower bound. Expectation propagation (Minka, 2001) replaces it by a normal observation with the
mean and variance that fit the bound, given all others: a bound that says little gets a large variance.

Features of a query are clipped to one training range beyond the training data. Otherwise, a slope along a feature that
hardly varied would extrapolate without limit.

This module is independent of the record types.
"""

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from resque._threads import one_blas_thread

__all__ = ["COSTS", "INTERCEPTS", "Deviations", "MixedModel", "NormalPrediction", "TrainingExample", "fitted_model"]

INTERCEPTS = ("group", "shift_type", "shift type in group", "condition", "parent", "part")
"""Factors of the random intercepts."""
_MEAN_VARIANCE = 25.0
_ROUNDS, _DAMPING, _CLOSE = 20, 0.7, 1e-7
_SMALLEST = 1e-9
_LOG_2_PI = math.log(2.0 * math.pi)
_KEPT = 18  # models: one for each predictor and milestone of a forecast


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of the terms of the model.

    Attributes:
        slope: Slope of each feature.
        nonlinear: Nonlinear term.
        intercepts: Random intercepts, in the order of :data:`INTERCEPTS`.
        noise: Noise.
    """

    slope: float
    nonlinear: float
    intercepts: tuple[float, float, float, float, float, float]
    noise: float

    def variances(self, features: int) -> np.ndarray:
        """Return the variances of the terms for so many features, that of the noise last."""
        smooth = [self.slope] * features + [self.nonlinear] * (features > 0)
        return np.array([*smooth, *self.intercepts, self.noise]) ** 2


COSTS = Deviations(0.5, 0.5, (1.0, 0.37, 0.37, 0.22, 0.22, 0.5), 0.37)
"""Deviations for log costs."""


@dataclass(frozen=True)
class TrainingExample:
    """One finished update with one number, or the update to predict.

    Attributes:
        features: Values of the predictors, in the same order in all examples.
        value: The number; a lower bound if censored; NaN for the update to predict.
        censored: Whether the run ended below the target.
        group: Model and recipe; costs within a group have one scale.
        shift_type: Shift type; None counts as a type of its own.
        condition: Training data of the update; repeats with other seeds share it.
        parent: Fingerprint of the retrained model.
        part: Trained part; its effect is one of all models.
    """

    features: tuple[float, ...]
    value: float = math.nan
    censored: bool = False
    group: Hashable = ""
    shift_type: Hashable = None
    condition: Hashable = ""
    parent: Hashable = ""
    part: Hashable = ""


@dataclass(frozen=True)
class NormalPrediction:
    """Normal predictive distribution of the number.

    Attributes:
        mean: Mean.
        deviation: Standard deviation of a single run, noise included.
    """

    mean: float
    deviation: float


class MixedModel:
    """Mixed model of a number per update, fitted to the examples at construction.

    Args:
        examples: Training data, at least two examples.
        deviations: Standard deviations of the terms.

    Example:
        >>> pairs = [(x, k) for x in (0.0, 1.0, 2.0, 3.0) for k in "ab"]
        >>> rows = [TrainingExample((x,), 1.0 + 2.0 * x, shift_type=k, condition=(x, k)) for x, k in pairs]
        >>> prediction = MixedModel(rows).predict(TrainingExample((1.5,), shift_type="a", condition="new"))
        >>> abs(prediction.mean - 4.0) < 0.2, prediction.deviation < 0.6
        (True, True)
    """

    def __init__(self, examples: Sequence[TrainingExample], deviations: Deviations = COSTS) -> None:
        self.examples, self._deviations = list(examples), deviations
        features = _feature_matrix(examples)
        spread = np.ptp(features, axis=0)
        self._limits = features.min(0) - spread, features.max(0) + spread
        self._center, self._scale = features.mean(0), features.std(0)
        self._scale[self._scale < _SMALLEST] = 1.0
        self._observed = np.array([example.value for example in examples])
        self._censored = np.array([example.censored for example in examples])
        self._variances = deviations.variances(features.shape[1])
        self._offset = float(np.median(self._observed))
        self._values = self._observed - self._offset
        with one_blas_thread():
            covariance = self._covariance(self.examples, self.examples)
            noise = np.full(len(examples), self._variances[-1])
            if self._censored.any():
                found = _fit_bounds(covariance, noise[0], self._values, self._censored, _codes(self.examples))
                self._values[self._censored], variances = found
                noise[self._censored] += variances
            covariance[np.diag_indices_from(covariance)] += noise
            self._factor = linalg.cholesky(covariance, lower=True)
            self._weights = linalg.cho_solve((self._factor, True), self._values)

    def predict(self, query: TrainingExample) -> NormalPrediction:
        """Predict the value of an update."""
        clipped = [self._clip(query)]
        across = self._covariance(clipped, self.examples)[0]
        variance = float(self._covariance(clipped, clipped)[0, 0]) + self._variances[-1]
        explained = float((linalg.solve_triangular(self._factor, across, lower=True) ** 2).sum())
        mean = self._offset + float(across @ self._weights)
        return NormalPrediction(mean, math.sqrt(max(variance - explained, _SMALLEST)))

    def _clip(self, query: TrainingExample) -> TrainingExample:
        """Clip features to one training range beyond the training data, to limit extrapolation."""
        return dataclasses.replace(query, features=tuple(np.clip(query.features, *self._limits)))

    def _covariance(self, rows: Sequence[TrainingExample], columns: Sequence[TrainingExample]) -> np.ndarray:
        """Return the covariance of rows and columns without noise, ``(rows, columns)``: the sum of all terms."""
        a, b = ((_feature_matrix(side) - self._center) / self._scale for side in (rows, columns))
        variances = iter(self._variances)
        covariance = np.full((len(rows), len(columns)), _MEAN_VARIANCE)
        for x, y in zip(a.T, b.T, strict=True):
            covariance += next(variances) * np.outer(x, y)
        if a.shape[1]:
            covariance += next(variances) * np.exp(-0.5 * _mean_squared_differences(a, b))
        for factor in zip(*(_factor_levels(example) for example in (*rows, *columns)), strict=True):
            codes = _codes(factor)
            covariance += next(variances) * np.equal.outer(codes[: len(rows)], codes[len(rows) :])
        return covariance


@functools.lru_cache(maxsize=_KEPT)
def fitted_model(examples: tuple[TrainingExample, ...], deviations: Deviations = COSTS) -> MixedModel:
    """Return the mixed model of the examples; the last few are kept, since forecasts of one comparison share them.

    Args:
        examples: Training data, at least two examples.
        deviations: Standard deviations of the terms.

    Example:
        >>> rows = tuple(TrainingExample((x,), x) for x in (0.0, 1.0, 2.0))
        >>> fitted_model(rows) is fitted_model(rows)
        True
    """
    return MixedModel(examples, deviations)


def _fit_bounds(
    covariance: np.ndarray, noise: float, values: np.ndarray, censored: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal observations that stand for the bounds, and their variances, by expectation propagation.

    Equal bounds get equal observations, so that the matrices have one row for all of them.

    Args:
        covariance: ``(n, n)`` of all values without their noise.
        noise: Variance of the noise.
        values: ``(n,)`` values, bounds where censored.
        censored: ``(n,)`` whether each is a bound.
        codes: ``(n,)`` integers, equal for examples that are equal in everything.
    """
    _, first, row, repeats = np.unique(codes[censored], return_index=True, return_inverse=True, return_counts=True)
    rows, known = np.flatnonzero(censored)[first], ~censored
    bounds, mean, prior = values[rows], np.zeros(len(rows)), covariance[np.ix_(rows, rows)]
    if known.any():
        across = covariance[np.ix_(known, rows)]
        weights = np.linalg.solve(covariance[np.ix_(known, known)] + noise * np.eye(known.sum()), across)
        mean, prior = weights.T @ values[known], prior - weights.T @ across
    precision, shift = np.zeros(len(rows)), np.zeros(len(rows))  # natural parameters of the observations
    for _ in range(_ROUNDS):
        told = 1.0 / (1.0 + noise * precision)  # share of an observation that tells of the value without its noise
        root, pull = np.sqrt(repeats * told * precision), repeats * told * (shift - precision * mean)
        scaled = root[:, None] * prior
        factor = linalg.cholesky(np.eye(len(rows)) + scaled * root, lower=True)
        explained = linalg.solve_triangular(factor, scaled, lower=True)  # the posterior is prior - explainedᵀ explained
        center = mean + prior @ pull - explained.T @ (explained @ pull)
        variance = np.maximum(np.diag(prior) - (explained**2).sum(0), _SMALLEST)
        left = np.maximum(1.0 / variance - told * precision, _SMALLEST)  # precision without the observation itself
        cavity, others = (center / variance - told * shift) / left, 1.0 / (1.0 / left + noise)
        deviation = 1.0 / np.sqrt(others)
        place = (bounds - cavity) / deviation
        hazard = np.exp(-0.5 * (place**2 + _LOG_2_PI) - special.log_ndtr(-place))
        kept = np.clip(1.0 - hazard * (hazard - place), _SMALLEST, 1.0)  # share of the variance above the bound
        wanted = others * (1.0 / kept - 1.0)
        shift += _DAMPING * ((cavity + deviation * hazard) * others / kept - cavity * others - shift)
        change = _DAMPING * (wanted - precision)
        precision += change
        if (np.abs(change) < _CLOSE * others).all():
            break
    precision = np.maximum(precision, _SMALLEST)
    return (shift / precision)[row], (1.0 / precision)[row]


def _mean_squared_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of the features of each row of a and of b."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2.0 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0) / a.shape[1])


def _feature_matrix(examples: Sequence[TrainingExample]) -> np.ndarray:
    """Return the features, ``(n, features)``."""
    return np.array([example.features for example in examples], dtype=float).reshape(len(examples), -1)


def _factor_levels(example: TrainingExample) -> tuple[Hashable, ...]:
    """Return the random-effect groups of an update, in the order of INTERCEPTS; an unnamed shift type is its own."""
    group, shift_type = example.group, example.condition if example.shift_type is None else example.shift_type
    within = (group, shift_type), (group, shift_type, example.condition), (group, example.parent)
    return group, shift_type, *within, example.part


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """Return one integer for each value, equal for equal values."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values])
