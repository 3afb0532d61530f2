"""From a law to what may be said of an update: the middle, an interval and what it promises, the chance of an end.

Where the history knows the kind of shift, jackknife+ (Barber et al. 2021) on errors in units of the law's own
deviation: repeats of a condition are held out together. Where it does not, updates are not exchangeable and nothing is
guaranteed: the law's own width, in which the spread between kinds is, by Student's t with a degree of freedom for each
kind but one.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from resque.forecasting.cost_model import CostModel, NormalPrediction, TrainingExample

_FEWEST_FREEDOM = 2


@dataclass(frozen=True)
class PredictiveDistribution:
    """A log cost, before it is known.

    Attributes:
        center: Its median.
        low: Lower end of the interval.
        high: Upper end.
        upper: What it stays below with the level of the interval, one-sided.
        conformal: Whether the ends are jackknife+'s.
        expected: By the law.
        freedom: Of Student's t about it.
    """

    center: float
    low: float
    high: float
    upper: float
    conformal: bool
    expected: NormalPrediction
    freedom: int

    def chance(self, log_limit: float) -> float:
        """Of costing no more."""
        return float(special.stdtr(self.freedom, (log_limit - self.expected.mean) / self.expected.deviation))

    def until(self, log_longest: float, chance: float, level: float) -> "PredictiveDistribution":
        """Of a run that ends there, whether or not it has arrived.

        What arrives goes by this law, and what does not lasts longest, whoever tells the chance. The middle is that of
        the runs that arrive; the ends are of all runs, the lower one never above what this law alone would say. The
        ends of jackknife+ stay, but where the chance leaves more than their tail to the longest run they reach it.

        Args:
            log_longest: Log cost of the longest run.
            chance: Of arriving by then; another law may see it better.
            level: Nominal coverage of the ends.
        """
        by_law = self.chance(log_longest)

        def at(share: float) -> float:
            if share <= 0.0:  # what the law rules out comes as late as it can
                return log_longest
            standard = float(special.stdtrit(self.freedom, share))
            return min(log_longest, self.expected.mean + self.expected.deviation * standard)

        def of_all(share: float) -> float:
            return log_longest if share >= chance else at(min(share * by_law / chance, 1.0))

        middle, two_sided = at(0.5 * by_law), (1 + level) / 2
        if self.conformal:
            low = min(self.low, log_longest)
            high = log_longest if two_sided >= chance else min(self.high, log_longest)
            upper = log_longest if level >= chance else min(self.upper, log_longest)
        else:
            low, high, upper = min(at(1 - two_sided), of_all(1 - two_sided)), of_all(two_sided), of_all(level)
        return dataclasses.replace(
            self,
            center=middle,
            low=min(low, middle),
            high=max(high, middle),
            upper=max(upper, middle) if level >= 0.5 else upper,
        )


def predict(
    law: CostModel, asked: TrainingExample, own: Sequence[bool], known: bool, level: float
) -> PredictiveDistribution:
    """What a law says of an update.

    Args:
        law: Fitted to the history.
        asked: The update.
        own: Which of the law's examples are the user's; the others shape the law, and promise nothing.
        known: Whether the history holds this kind of shift on this model.
        level: Nominal coverage.
    """
    said = law.expected(asked)
    folds = [example.condition if known else example.shift_type for example in law.examples]
    freedom = max(_FEWEST_FREEDOM, len(set(folds)) - 1)
    if known:
        ends = _jackknife(law, asked, folds, own, level)
        if ends is not None:
            low, high, upper = ends
            return PredictiveDistribution(
                said.mean, min(low, said.mean), max(high, said.mean), upper, True, said, freedom
            )
    wide, one_sided = (said.deviation * float(special.stdtrit(freedom, share)) for share in ((1 + level) / 2, level))
    return PredictiveDistribution(
        said.mean, said.mean - wide, said.mean + wide, said.mean + one_sided, False, said, freedom
    )


def held_out_errors(law: CostModel, folds: Sequence[Hashable]) -> np.ndarray:
    """``(n,)`` how far each example lies above what the law says of it without its fold, in its own deviations.

    A censored one lies at least as far above as its bound: below that, the law's word has not been broken.
    """
    held = law.held_out(folds)
    found = [(e.log_cost - said.mean) / said.deviation for e, said in zip(law.examples, held, strict=True)]
    return np.array([max(z, 0.0) if e.censored else z for z, e in zip(found, law.examples, strict=True)])


def _jackknife(
    law: CostModel, asked: TrainingExample, folds: Sequence[Hashable], own: Sequence[bool], level: float
) -> tuple[float, float, float] | None:
    """``(low, high, upper)``; None where the conditions are too few for the level."""
    conditions = list(dict.fromkeys(fold for fold, mine in zip(folds, own, strict=True) if mine))
    rank = math.ceil((len(conditions) + 1) * level - 1e-9)
    if rank > len(conditions):
        return None
    away = held_out_errors(law, folds)
    lows, highs, uppers, shares = [], [], [], []
    left_out = [
        np.array([mine and other == condition for other, mine in zip(folds, own, strict=True)])
        for condition in conditions
    ]
    for fold, said in zip(left_out, law.without(left_out, asked), strict=True):
        for z in away[fold]:
            lows.append(said.mean - abs(z) * said.deviation)
            highs.append(said.mean + abs(z) * said.deviation)
            uppers.append(said.mean + z * said.deviation)
            shares.append(1.0 / fold.sum())
    places = np.array(shares)
    return (
        -_at_rank(-np.array(lows), places, rank),
        _at_rank(np.array(highs), places, rank),
        _at_rank(np.array(uppers), places, rank),
    )


def _at_rank(values: np.ndarray, places: np.ndarray, rank: int) -> float:
    """The smallest value with at least ``rank`` places at or below it; repeats of a condition share its one place."""
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(places[order]), rank - 1e-9)])
