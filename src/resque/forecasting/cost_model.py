"""How long an update takes, learned from finished ones: a mixed model of log cost, with censored runs.

``log cost = mean + slopes · features + bend(features) + offsets of group, kind, kind within the group, condition and
parent + noise``, all normal: a Gaussian process whose kernel is a sum of fixed matrices, each with a variance of its
own. The variances are found by marginal likelihood, held towards their usual size where few updates speak, so that a
feature that earns nothing gets a slope near zero, and what differs between kinds of shift widens what is said of a kind
never seen. The bend is smooth: cost may hardly depend on a gap that is all but closed, and steeply on one that is not.

It knows logarithms, features and names, and nothing of where they come from.
"""

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special
from threadpoolctl import ThreadpoolController

NAMES = ("group", "shift_type", "shift type in group", "condition", "parent")
_USUAL = {
    "slope": -0.7,
    "bend": -0.7,
    "group": 0.0,
    "shift_type": -1.0,
    "shift type in group": -1.0,
    "condition": -1.5,
    "parent": -1.5,
}
_USUAL_NOISE = -1.0
_HELD = 1.0  # standard deviation of a log amplitude about its usual value
_MEAN_VARIANCE = 25.0
_ROUNDS = 12
_BOUNDS = (-5.0, 3.0)  # of a log amplitude: beyond, no covariance can be inverted in float64
_SMALLEST = 1e-9
_LOG_2_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class TrainingExample:
    """One finished update and one cost, or the update that is asked about.

    Attributes:
        features: Numbers known before it, the same ones in each example.
        log_cost: Of the cost; of the cost so far where it was censored; NaN where it is asked for.
        censored: Whether the run ended below the target.
        group: Whose costs are of one size: model, data and recipe.
        shift_type: Of shift; None is a kind of its own.
        condition: What was retrained on what, whatever the seed.
        parent: The very model that was retrained.
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
    """A log cost as a normal distribution.

    Attributes:
        mean: Of the log cost.
        deviation: Of a single run about it.
    """

    mean: float
    deviation: float

    def below(self, log_cost: float) -> float:
        """The chance of costing no more."""
        return float(special.ndtr((log_cost - self.mean) / self.deviation))

    def quantile(self, share: float) -> float:
        """Log cost that this share stays below."""
        return self.mean + self.deviation * float(special.ndtri(share))


class CostModel:
    """The mixed model, fitted to examples.

    Args:
        examples: The history, at least two.
        amplitudes: Logs of the standard deviations of slopes, bend, offsets and noise, as another law of the same
            features found them; None finds them here.

    TrainingExample:
        >>> pairs = [(x, k) for x in (0.0, 1.0, 2.0, 3.0) for k in "ab"]
        >>> past = [TrainingExample((x,), 1.0 + 2.0 * x, shift_type=k, condition=(x, k)) for x, k in pairs]
        >>> said = CostModel(past).expected(TrainingExample((1.5,), shift_type="a", condition="new"))
        >>> abs(said.mean - 4.0) < 0.2, said.deviation < 0.5
        (True, True)
    """

    def __init__(self, examples: Sequence[TrainingExample], amplitudes: np.ndarray | None = None) -> None:
        self.examples = list(examples)
        rows = _rows_of(examples)
        spread = np.ptp(rows, axis=0)
        self._furthest = rows.min(0) - spread, rows.max(0) + spread
        self._center, self._scale = rows.mean(0), rows.std(0)
        self._scale[self._scale < _SMALLEST] = 1.0
        self._bound = np.array([example.log_cost for example in examples])
        self._censored = np.array([example.censored for example in examples])
        self._matrices = self._parts(self.examples, self.examples)
        own = ["slope"] * rows.shape[1] + (["bend"] if rows.shape[1] else [])
        self._usual = np.array([*(_USUAL[name] for name in (*own, *NAMES)), _USUAL_NOISE])
        self.amplitudes = self._usual.copy() if amplitudes is None else amplitudes
        self._shift = float(np.median(self._bound))
        self._values = self._bound - self._shift
        self._fit(search=amplitudes is None)

    def expected(self, asked: TrainingExample) -> NormalPrediction:
        """What an update will cost."""
        return self._found(*self._across(asked), self._inverse)

    def without(self, folds: Sequence[np.ndarray], asked: TrainingExample) -> list[NormalPrediction]:
        """What an update will cost by the other examples alone, for each fold; the variances stay as they are.

        Args:
            folds: Each ``(n,)``, True for the examples to be left out.
            asked: The update.
        """
        (across, own), found = self._across(asked), []
        for fold in folds:
            cut = self._inverse - self._inverse[:, fold] @ np.linalg.solve(
                self._inverse[np.ix_(fold, fold)], self._inverse[fold]
            )
            found.append(self._found(across, own, cut))
        return found

    def held_out(self, folds: Sequence[Hashable]) -> list[NormalPrediction]:
        """What the law says of each example when its whole fold is left out; the variances stay as they are."""
        found: list[NormalPrediction | None] = [None] * len(self.examples)
        whole = self._inverse @ self._values
        for fold in dict.fromkeys(folds):
            own = np.array([other == fold for other in folds])
            covariance = np.linalg.inv(self._inverse[np.ix_(own, own)])
            means = self._shift + self._values[own] - covariance @ whole[own]
            for place, mean, variance in zip(np.flatnonzero(own), means, np.diag(covariance), strict=True):
                found[place] = NormalPrediction(float(mean), math.sqrt(max(float(variance), _SMALLEST)))
        return [each for each in found if each is not None]

    def _across(self, asked: TrainingExample) -> tuple[np.ndarray, float]:
        """Covariance of an update with the examples, and its own variance with noise."""
        near, noise = [self._nearest(asked)], math.exp(2.0 * self.amplitudes[-1])
        return self._shared(near, self.examples)[0], float(self._shared(near, near)[0, 0]) + noise

    def _nearest(self, asked: TrainingExample) -> TrainingExample:
        """As far beyond the examples as these lie apart: a slope along what hardly varied would lead anywhere."""
        return dataclasses.replace(asked, features=tuple(np.clip(asked.features, *self._furthest)))

    def _shared(self, rows: Sequence[TrainingExample], columns: Sequence[TrainingExample]) -> np.ndarray:
        """``(rows, columns)`` covariance, without noise."""
        weights = np.exp(2.0 * self.amplitudes[:-1])
        found: np.ndarray = _MEAN_VARIANCE + np.tensordot(weights, self._parts(rows, columns), 1)
        return found

    def _found(self, across: np.ndarray, own: float, inverse: np.ndarray) -> NormalPrediction:
        mean = self._shift + across @ inverse @ self._values
        return NormalPrediction(float(mean), math.sqrt(max(own - float(across @ inverse @ across), _SMALLEST)))

    def _parts(self, rows: Sequence[TrainingExample], columns: Sequence[TrainingExample]) -> np.ndarray:
        """``(slopes, bend and names, rows, columns)``: who shares what."""
        a, b = ((_rows_of(side) - self._center) / self._scale for side in (rows, columns))
        smooth = [np.outer(x, y) for x, y in zip(a.T, b.T, strict=True)]
        if smooth:  # a deviation of every feature away, two updates still share e^-1/2 of the bend
            smooth.append(np.exp(-0.5 * ((a[:, None] - b) ** 2).mean(-1)))
        named = zip(*(_named(example) for example in (*rows, *columns)), strict=True)
        shared = [np.equal.outer(codes[: len(rows)], codes[len(rows) :]) for codes in map(_codes, named)]
        return np.array([*smooth, *np.array(shared, dtype=float)])

    def _fit(self, search: bool) -> None:
        """Variances by marginal likelihood, censored values by their expectation above their bound, in turn."""
        rounds = _ROUNDS if self._censored.any() else 1
        how = {"jac": True, "method": "L-BFGS-B", "bounds": [_BOUNDS] * len(self._usual), "options": {"maxiter": 60}}
        with _libraries().limit(limits=1, user_api="blas"):  # matrices this small: threads wait for each other
            self._start(search)
            for number in range(rounds):
                if search and number % 4 == 0:
                    self.amplitudes = optimize.minimize(self._cost, self.amplitudes, **how).x
                if number == 0 or (search and number % 4 == 0):
                    self._inverse = np.linalg.inv(self._covariance(self.amplitudes))
                if number < rounds - 1:
                    self._fill()

    def _covariance(self, amplitudes: np.ndarray) -> np.ndarray:
        weights = np.exp(2.0 * amplitudes)
        found: np.ndarray = _MEAN_VARIANCE + np.tensordot(weights[:-1], self._matrices, 1)
        found[np.diag_indices_from(found)] += weights[-1]
        return found

    def _cost(self, amplitudes: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log posterior of the variances, and its gradient."""
        covariance = self._covariance(amplitudes)
        inverse = np.linalg.inv(covariance)
        whole = inverse @ self._values
        away = (amplitudes - self._usual) / _HELD
        cost = 0.5 * self._values @ whole + 0.5 * np.linalg.slogdet(covariance)[1] + 0.5 * away @ away
        sensitive = inverse - np.outer(whole, whole)
        weights = np.exp(2.0 * amplitudes)
        slopes = np.append(np.tensordot(self._matrices, sensitive, 2), np.trace(sensitive)) * weights
        return float(cost), slopes + away / _HELD

    def _start(self, search: bool) -> None:
        """Censored values where the others point to; from their bounds, a bend would follow the bounds."""
        seen = [example for example in self.examples if not example.censored]
        if self._censored.any() and len(seen) > 1:
            others = CostModel(seen, None if search else self.amplitudes)
            near = [others._nearest(example) for example in self.examples]
            said = others._shift + others._shared(near, seen) @ others._inverse @ others._values
            self._values = np.where(self._censored, np.maximum(self._values, said - self._shift), self._values)

    def _fill(self) -> None:
        """Schmee and Hahn's step, each censored value seen from all others."""
        variance = 1.0 / np.diag(self._inverse)
        mean, deviation = self._values - (self._inverse @ self._values) * variance, np.sqrt(variance)
        bound = (self._bound - self._shift - mean) / deviation
        hazard = np.exp(-0.5 * (bound**2 + _LOG_2_PI) - special.log_ndtr(-bound))
        self._values = np.where(self._censored, mean + deviation * hazard, self._values)


@functools.cache
def _libraries() -> ThreadpoolController:
    """Those of linear algebra in this process; looking for them takes as long as a fit."""
    return ThreadpoolController()


def _rows_of(examples: Sequence[TrainingExample]) -> np.ndarray:
    """``(n, features)``."""
    return np.array([example.features for example in examples], dtype=float).reshape(len(examples), -1)


def _named(example: TrainingExample) -> tuple[Hashable, ...]:
    """For each of NAMES what must be equal for two examples to share that offset; an unnamed kind is its own."""
    group, shift_type = example.group, example.condition if example.shift_type is None else example.shift_type
    return group, shift_type, (group, shift_type), (group, shift_type, example.condition), (group, example.parent)


def _codes(values: Sequence[Hashable]) -> np.ndarray:
    """A number for each, the same for equal ones."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(value, len(seen)) for value in values])
