"""From a forecast of steps to what they take: where a run ends, what a step costs, how far the probe may be off.

A probe of a second cannot know how far apart the seconds of a step lie between runs; the history does.
"""

import dataclasses
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from resque.energy.price import Tariff
from resque.forecasting.history import update_group
from resque.ledger.records import Estimate, Update
from resque.training.job import RetrainingJob
from resque.types import Interval

_FEWEST_FREEDOM = 4
_LEAST = 0.05  # a probe of a second is hardly nearer


@dataclass(frozen=True)
class StepTimeSpread:
    """How far a run's step is from a probe's.

    Attributes:
        deviation: Of the log of their ratio.
        freedom: Of Student's t about it.
    """

    deviation: float
    freedom: int

    def around(self, value: float, end: float, share: float) -> float:
        """An end of a steps' interval, as an end of what the steps take: both distances from the middle add up squared.

        Args:
            value: The middle.
            end: Below or above it.
            share: That the new end has below it.
        """
        if value <= 0.0 or end <= 0.0:  # what is free stays free
            return end
        away = float(special.stdtrit(self.freedom, share)) * self.deviation
        side = end - value or share - 0.5
        return value * math.exp(math.copysign(math.hypot(math.log(end / value), away), side))

    @property
    def factor(self) -> float:
        """That a step is within, two times in three."""
        return math.exp(self.deviation)


def step_time_spread(history: Sequence[Update]) -> StepTimeSpread | None:
    """As far as runs of one model by one recipe on one machine were from one another; None where they are too few.

    A run is one draw and the probe another, so the deviation between runs counts twice, squared.
    """
    found: dict[Hashable, list[float]] = {}
    for update in history:
        if update.host and update.cost.steps and update.cost.wall_s:
            where = (update.parent, update_group(update), tuple(sorted(update.host.items())))
            found.setdefault(where, []).append(math.log(update.cost.wall_s / update.cost.steps))
    freedom = sum(len(logs) - 1 for logs in found.values())
    if freedom < _FEWEST_FREEDOM:
        return None
    squares = sum(float(np.var(logs)) * len(logs) for logs in found.values())
    return StepTimeSpread(max(_LEAST, math.sqrt(2.0 * squares / freedom)), freedom)


def round_up_to_evaluation(
    steps: Estimate, job: RetrainingJob, lag: Callable[[float], float], earliest: int = 0
) -> Estimate:
    """Steps of a run that ends where its test data are looked at, or after the epochs that are fixed.

    Args:
        steps: By a history whose runs were seen to arrive at a look, and may have arrived since the one before.
        job: With the looks of this run.
        lag: Of those runs that took about so many steps, the share of them that lay between the two looks.
        earliest: First step that it can still end at.
    """
    if job.recipe.fixed_epochs is not None:
        return _each(steps, lambda _: float(job.max_steps))

    def seen(value: float) -> float:
        longest = value > 0.999999 * job.max_steps
        return float(
            job.max_steps if longest else job.evaluation_at_or_after(max(earliest, value * (1.0 - lag(value) / 2.0)))
        )

    return _each(steps, seen)


def rescale_with_steps(cost: Estimate, before: Estimate, after: Estimate) -> Estimate:
    """What grows with the steps, when these change: its middle as theirs, its ends as theirs, on their sides of it."""
    value, of_cost, old, new = cost.value * after.value / before.value, cost.interval, before.interval, after.interval

    def grown(mine: float | None, old: float | None, new: float | None) -> float | None:
        return None if mine is None or old is None or new is None else mine * new / old

    low, high = min(value, of_cost.low * new.low / old.low), grown(of_cost.high, old.high, new.high)
    changed = dataclasses.replace(of_cost, low=low, high=None if high is None else max(value, high))
    upper = grown(cost.upper, before.upper, after.upper)
    return Estimate(value, changed, max(value, upper) if upper is not None and of_cost.level >= 0.5 else upper)


def scale(steps: Estimate, factor: float) -> Estimate:
    """What steps take, if each takes as much."""
    return _each(steps, lambda value: value * factor)


def widen_by_step_time(cost: Estimate, pace: StepTimeSpread | None) -> Estimate:
    """The same, as uncertain as the steps are, and as a step is."""
    value, upper, within = cost.value, cost.upper, cost.interval
    if pace is None or upper is None or within.high is None:
        guarantee = "as of steps, if a step costs what the probe saw"
        return dataclasses.replace(cost, interval=dataclasses.replace(within, guarantee=guarantee))
    low = pace.around(value, within.low, (1 - within.level) / 2)
    high = pace.around(value, within.high, (1 + within.level) / 2)
    guarantee = (
        f"as of steps, a step's cost within ×{pace.factor:.2f} of the probe's two times in three, as between runs"
    )
    wider = pace.around(value, upper, within.level) if upper >= value else upper
    return Estimate(value, Interval(low, high, within.level, guarantee), wider)


def price_estimate(estimates: Mapping[str, Estimate], tariff: Tariff) -> Estimate | None:
    """What time and energy cost by a tariff; None without a price, or where what it is asked for is not known."""
    wall_s, energy_kwh = estimates.get("wall_s"), estimates.get("energy_kwh")
    if wall_s is None or not (tariff.per_kwh or tariff.per_hour) or (tariff.per_kwh and energy_kwh is None):
        return None
    hourly = scale(wall_s, tariff.per_hour / 3600.0)
    if energy_kwh is None:
        return hourly
    both = hourly, scale(energy_kwh, tariff.per_kwh)  # as steps go, so goes either
    value, low = (math.fsum(ends) for ends in zip(*((each.value, each.interval.low) for each in both), strict=True))
    highs, uppers = [each.interval.high for each in both], [each.upper for each in both]
    high, upper = (
        None if None in ends else math.fsum(end for end in ends if end is not None) for ends in (highs, uppers)
    )
    return Estimate(value, dataclasses.replace(wall_s.interval, low=low, high=high), upper)


def _each(estimate: Estimate, change: Callable[[float], float]) -> Estimate:
    within, upper = estimate.interval, estimate.upper
    high = None if within.high is None else change(within.high)
    changed = dataclasses.replace(within, low=change(within.low), high=high)
    return Estimate(change(estimate.value), changed, None if upper is None else change(upper))
