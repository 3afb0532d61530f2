"""Cost model: a linear mixed model (a Gaussian process) of log cost, with right-censored observations.

For update i with features x_i (standardized on the training data) and centered log cost y_i::

    y_i = m + x_i · b + f(x_i) + u_group + u_type + u_type-in-group + u_condition + u_parent + e_i

    m    ~ N(0, 25)                        mean
    b_j  ~ N(0, s_j²)                      slope of feature j
    f    ~ GP(0, s_f² exp(-d² / 2))        nonlinear term; d² is the mean squared difference of the features
    u_k  ~ N(0, s_k²)                      random intercepts, one for each level of factor k
    e_i  ~ N(0, s_e²)                      noise

All terms are normal, so y is normal with covariance ``25 + Σ_k s_k² K_k + s_e² I`` for fixed kernel matrices K_k.
The standard deviations s have log-normal priors, ``log s_k ~ N(μ_k, 1)``, and are set to their joint MAP estimate.
With few updates, the prior keeps a useless slope near zero. The variance between shift types widens the prediction for
a type that is not in the training data.

A censored y_i is a lower bound. An EM-style iteration (Schmee and Hahn, 1979) replaces it by its expected value above
the bound, given all other observations. Features of a query are clipped to one training range beyond the training
data. Otherwise, a slope along a feature that hardly varied would extrapolate without limit.

This module is independent of the record types.
"""

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special
from threadpoolctl import ThreadpoolController

__all__ = ["INTERCEPTS", "CostModel", "NormalPrediction", "TrainingExample"]

INTERCEPTS = ("group", "shift_type", "shift type in group", "condition", "parent")
"""Factors of the random intercepts."""
_PRIOR_MEANS = {
    "slope": -0.7,
    "nonlinear": -0.7,
    "group": 0.0,
    "shift_type": -1.0,
    "shift type in group": -1.0,
    "condition": -1.5,
    "parent": -1.5,
    "noise": -1.0,
}
_PRIOR_DEVIATION = 1.0
_MEAN_VARIANCE = 25.0
_ROUNDS = 12
_ROUNDS_PER_SEARCH = 4
_BOUNDS = (-5.0, 3.0)  # of a log standard deviation: beyond, the covariance cannot be inverted in float64
_SMALLEST = 1e-9
_LOG_2_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class TrainingExample:
    """One finished update with one cost, or the update to predict.

    Attributes:
        features: Values of the predictors, in the same order in all examples.
        log_cost: Log of the cost; a lower bound if censored; NaN for the update to predict.
        censored: Whether the run ended below the target.
        group: Model and recipe; costs within a group have one scale.
        shift_type: Shift type; None counts as a type of its own.
        condition: Training data of the update; repeats with other seeds share it.
        parent: Fingerprint of the retrained model.
    """

    features: tuple[float, ...]
    log_cost: float = math.nan
    censored: bool = False
    group: Hashable = ""
    shift_type: Hashable = None
    condition: Hashable = ""
    parent: Hashable = ""


@dataclass(frozen=True)
class NormalPrediction:
    """Normal predictive distribution of a log cost.

    Attributes:
        mean: Mean of the log cost.
        deviation: Standard deviation of a single run, noise included.
    """

    mean: float
    deviation: float


class CostModel:
    """Mixed model of log cost, fitted to the examples at construction.

    Args:
        examples: Training data, at least two examples.
        log_deviations: Logs of the standard deviations of slopes, nonlinear term, intercepts and noise, from a model
            with the same features; None estimates them.

    Example:
        >>> pairs = [(x, k) for x in (0.0, 1.0, 2.0, 3.0) for k in "ab"]
        >>> rows = [TrainingExample((x,), 1.0 + 2.0 * x, shift_type=k, condition=(x, k)) for x, k in pairs]
        >>> prediction = CostModel(rows).predict(TrainingExample((1.5,), shift_type="a", condition="new"))
        >>> abs(prediction.mean - 4.0) < 0.2, prediction.deviation < 0.5
        (True, True)
    """

    def __init__(self, examples: Sequence[TrainingExample], log_deviations: np.ndarray | None = None) -> None:
        self.examples = list(examples)
        features = _feature_matrix(examples)
        spread = np.ptp(features, axis=0)
        self._limits = features.min(0) - spread, features.max(0) + spread
        self._center, self._scale = features.mean(0), features.std(0)
        self._scale[self._scale < _SMALLEST] = 1.0
        self._observed = np.array([example.log_cost for example in examples])
        self._censored = np.array([example.censored for example in examples])
        self._kernels = self._kernel_matrices(self.examples, self.examples)
        smooth = ["slope"] * features.shape[1] + (["nonlinear"] if features.shape[1] else [])
        self._prior_means = np.array([_PRIOR_MEANS[name] for name in (*smooth, *INTERCEPTS, "noise")])
        self.log_deviations = self._prior_means.copy() if log_deviations is None else log_deviations
        self._offset = float(np.median(self._observed))
        self._values = self._observed - self._offset
        self._fit(search=log_deviations is None)

    def predict(self, query: TrainingExample) -> NormalPrediction:
        """Predict the log cost of an update."""
        return self._conditional(*self._query_covariance(query), self._precision)

    def predict_without(self, folds: Sequence[np.ndarray], query: TrainingExample) -> list[NormalPrediction]:
        """Predict the log cost of an update without each fold in turn, with the variances of the full fit.

        Args:
            folds: Boolean masks of shape ``(n,)``, True for the examples to leave out.
            query: The update to predict.
        """
        across, variance = self._query_covariance(query)
        predictions = []
        for fold in folds:
            precision = self._precision - self._precision[:, fold] @ np.linalg.solve(
                self._precision[np.ix_(fold, fold)], self._precision[fold]
            )
            predictions.append(self._conditional(across, variance, precision))
        return predictions

    def leave_fold_out_predictions(self, folds: Sequence[Hashable]) -> list[NormalPrediction]:
        """Predict each example from all other folds, with the variances of the full fit.

        Args:
            folds: Fold of each example, length n.
        """
        predictions: dict[int, NormalPrediction] = {}
        weighted = self._precision @ self._values
        for fold in dict.fromkeys(folds):
            members = np.array([other == fold for other in folds])
            covariance = np.linalg.inv(self._precision[np.ix_(members, members)])
            means = self._offset + self._values[members] - covariance @ weighted[members]
            for place, mean, variance in zip(np.flatnonzero(members), means, np.diag(covariance), strict=True):
                predictions[int(place)] = NormalPrediction(float(mean), math.sqrt(max(float(variance), _SMALLEST)))
        return [predictions[place] for place in range(len(self.examples))]

    def _query_covariance(self, query: TrainingExample) -> tuple[np.ndarray, float]:
        """Return the covariance of a query with the examples, and its own variance with noise."""
        clipped, noise = [self._clip(query)], math.exp(2.0 * self.log_deviations[-1])
        variance = float(self._cross_covariance(clipped, clipped)[0, 0]) + noise
        return self._cross_covariance(clipped, self.examples)[0], variance

    def _clip(self, query: TrainingExample) -> TrainingExample:
        """Clip features to one training range beyond the training data, to limit extrapolation."""
        return dataclasses.replace(query, features=tuple(np.clip(query.features, *self._limits)))

    def _cross_covariance(self, rows: Sequence[TrainingExample], columns: Sequence[TrainingExample]) -> np.ndarray:
        return _weighted_sum(np.exp(2.0 * self.log_deviations), self._kernel_matrices(rows, columns))

    def _conditional(self, across: np.ndarray, variance: float, precision: np.ndarray) -> NormalPrediction:
        """Return the conditional normal distribution, given the examples that the precision matrix covers."""
        mean = self._offset + across @ precision @ self._values
        explained = float(across @ precision @ across)
        return NormalPrediction(float(mean), math.sqrt(max(variance - explained, _SMALLEST)))

    def _kernel_matrices(self, rows: Sequence[TrainingExample], columns: Sequence[TrainingExample]) -> np.ndarray:
        """Return the kernels K_k of slopes, nonlinear term and intercepts, ``(kernels, rows, columns)``."""
        a, b = ((_feature_matrix(side) - self._center) / self._scale for side in (rows, columns))
        smooth = [np.outer(x, y) for x, y in zip(a.T, b.T, strict=True)]
        if smooth:
            smooth.append(np.exp(-0.5 * ((a[:, None] - b) ** 2).mean(-1)))
        factors = zip(*(_factor_levels(example) for example in (*rows, *columns)), strict=True)
        shared = [np.equal.outer(codes[: len(rows)], codes[len(rows) :]) for codes in map(_codes, factors)]
        return np.array([*smooth, *np.array(shared, dtype=float)])

    def _fit(self, search: bool) -> None:
        """Alternate between MAP estimates of the variances and imputation of the censored values."""
        rounds = _ROUNDS if self._censored.any() else 1
        options = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": 60}}
        bounds = [_BOUNDS] * len(self._prior_means)
        with _thread_pools().limit(limits=1, user_api="blas"):  # matrices this small: threads wait for each other
            self._start_censored_values(search)
            for number in range(rounds):
                searches = search and number % _ROUNDS_PER_SEARCH == 0
                if searches:
                    start = self.log_deviations
                    self.log_deviations = optimize.minimize(self._objective, start, bounds=bounds, **options).x
                if number == 0 or searches:
                    self._precision = np.linalg.inv(self._covariance(self.log_deviations))
                if number < rounds - 1:
                    self._impute()

    def _covariance(self, log_deviations: np.ndarray) -> np.ndarray:
        """Return the ``(n, n)`` covariance of the examples, noise included."""
        variances = np.exp(2.0 * log_deviations)
        covariance = _weighted_sum(variances, self._kernels)
        covariance[np.diag_indices_from(covariance)] += variances[-1]
        return covariance

    def _objective(self, log_deviations: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log posterior of the log standard deviations up to a constant, and its gradient."""
        covariance = self._covariance(log_deviations)
        precision = np.linalg.inv(covariance)
        weighted = precision @ self._values
        distance = (log_deviations - self._prior_means) / _PRIOR_DEVIATION
        fit = 0.5 * self._values @ weighted + 0.5 * np.linalg.slogdet(covariance)[1]
        sensitivity = precision - np.outer(weighted, weighted)
        variances = np.exp(2.0 * log_deviations)
        gradient = np.append(np.tensordot(self._kernels, sensitivity, 2), np.trace(sensitivity)) * variances
        return float(fit + 0.5 * distance @ distance), gradient + distance / _PRIOR_DEVIATION

    def _start_censored_values(self, search: bool) -> None:
        """Start censored values at predictions from the uncensored examples, or at their bounds if these are higher.

        Starting at the bounds would fit the nonlinear term to the bounds.
        """
        uncensored = [example for example in self.examples if not example.censored]
        if self._censored.any() and len(uncensored) > 1:
            model = CostModel(uncensored, None if search else self.log_deviations)
            across = model._cross_covariance([model._clip(example) for example in self.examples], uncensored)
            predicted = model._offset + across @ model._precision @ model._values
            start = np.maximum(self._values, predicted - self._offset)
            self._values = np.where(self._censored, start, self._values)

    def _impute(self) -> None:
        """Replace censored values by their expectation above the bound, given all others (Schmee and Hahn, 1979)."""
        variance = 1.0 / np.diag(self._precision)
        mean, deviation = self._values - (self._precision @ self._values) * variance, np.sqrt(variance)
        bound = (self._observed - self._offset - mean) / deviation
        hazard = np.exp(-0.5 * (bound**2 + _LOG_2_PI) - special.log_ndtr(-bound))
        self._values = np.where(self._censored, mean + deviation * hazard, self._values)


@functools.cache
def _thread_pools() -> ThreadpoolController:
    """Return the BLAS libraries of this process, found once: a search takes as long as a fit."""
    return ThreadpoolController()


def _weighted_sum(variances: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Return the covariance without noise; the last variance is that of the noise."""
    covariance: np.ndarray = _MEAN_VARIANCE + np.tensordot(variances[:-1], kernels, 1)
    return covariance


def _feature_matrix(examples: Sequence[TrainingExample]) -> np.ndarray:
    """Return the features, ``(n, features)``."""
    return np.array([example.features for example in examples], dtype=float).reshape(len(examples), -1)


def _factor_levels(example: TrainingExample) -> tuple[Hashable, ...]:
    """Return the random-effect groups of an update, in the order of INTERCEPTS; an unnamed shift type is its own."""
    group, shift_type = example.group, example.condition if example.shift_type is None else example.shift_type
    return group, shift_type, (group, shift_type), (group, shift_type, example.condition), (group, example.parent)


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """Return one integer for each value, equal for equal values."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values])
