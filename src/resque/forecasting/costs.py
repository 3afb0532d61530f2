"""Turn a forecast of steps into forecasts of the other costs.

Gradient norm and parameter change are those of as many steps in earlier runs. Time and energy are steps times the cost
per step from a short probe on this machine, or from a pilot. How much the time per step varies is estimated from the
history, because a probe of a second cannot show it: between runs and, after a pilot or with few runs, within runs.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from resque.energy.grid import Grid
from resque.forecasting.history import ForecastQuery, is_same_change, telling, update_group
from resque.ledger.records import Estimate, LearningCurve, StepCost, Update
from resque.types import Interval

__all__ = [
    "StepTimeSpread", "cost_that_grows", "costs_per_step", "estimates_by_step",
    "rescale_with_steps", "scale", "seconds_per_step", "step_time_drift", "step_time_spread", "widen_by_step_time",
]  # fmt: skip

_FEWEST_DEGREES_OF_FREEDOM, _FEWEST_CURVES = 4, 3
_SMALLEST_DEVIATION = 0.05  # a probe of a second is hardly more precise


@dataclass(frozen=True)
class StepTimeSpread:
    """Variation of the time per step between runs.

    Attributes:
        deviation: Standard deviation of the log ratio between a run's and a probe's time per step.
        degrees_of_freedom: Degrees of freedom of that estimate, for Student's t.
    """

    deviation: float
    degrees_of_freedom: int

    @property
    def factor(self) -> float:
        """One standard deviation as a factor."""
        return math.exp(self.deviation)

    def widen(self, value: float, bound: float, share: float) -> float:
        """Return a bound for steps times cost per step; log distances from the median add in quadrature.

        Args:
            value: Median forecast.
            bound: Lower or upper bound that allows for the uncertainty of steps alone.
            share: Probability of a cost below the bound.
        """
        if value <= 0.0 or bound <= 0.0:  # a zero price or intensity stays zero
            return bound
        from_step_time = float(special.stdtrit(self.degrees_of_freedom, share)) * self.deviation
        side = bound - value or share - 0.5
        return value * math.exp(math.copysign(math.hypot(math.log(bound / value), from_step_time), side))


def step_time_spread(history: Sequence[Update], drift: StepTimeSpread | None = None) -> StepTimeSpread | None:
    """Estimate the variation of the time per step between runs with the same model, recipe and machine.

    The number of processes is a part of the machine. The run and the probe each vary, so the variance between runs
    counts twice.

    Args:
        history: The user's own finished updates.
        drift: Variation within runs, see :func:`step_time_drift`; it stands for missing degrees of freedom.

    Returns:
        The spread; None with fewer than 4 degrees of freedom and no drift.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> spread = step_time_spread(bundled_updates()[:60])
        >>> round(spread.factor, 2), spread.degrees_of_freedom
        (1.32, 58)
    """
    log_times: dict[Hashable, list[float]] = {}
    for update in history:
        if update.host and update.cost.steps and update.cost.wall_s:
            machine = update.processes, tuple(sorted(update.host.items()))
            setting = update.parent, update_group(update), machine
            log_times.setdefault(setting, []).append(math.log(_seconds_per_step(update)))
    degrees = sum(len(logs) - 1 for logs in log_times.values())
    squares = 2.0 * sum(float(np.var(logs)) * len(logs) for logs in log_times.values())
    if degrees < _FEWEST_DEGREES_OF_FREEDOM:
        if drift is None:
            return None
        squares += (_FEWEST_DEGREES_OF_FREEDOM - degrees) * drift.deviation**2
        degrees = _FEWEST_DEGREES_OF_FREEDOM
    return StepTimeSpread(max(_SMALLEST_DEVIATION, math.sqrt(squares / degrees)), degrees)


def step_time_drift(history: Sequence[Update], steps: int, bundled: Sequence[Update] = ()) -> StepTimeSpread | None:
    """Estimate how far the time per step of the rest of a run is from that of its first steps.

    A machine that becomes busy, or idle, shows in it. Bundled runs weigh as much as four of the user's own.

    Args:
        history: The user's own finished updates.
        steps: Number of the first steps, which a probe or a pilot has measured.
        bundled: Updates from other machines.

    Returns:
        The spread; None with fewer than 4 degrees of freedom.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> drift = step_time_drift((), 50, bundled_updates())
        >>> round(drift.factor, 2), drift.degrees_of_freedom
        (1.31, 4)
    """
    own, others = ([*_squared_drifts(updates, steps)] for updates in (history, bundled))
    weight = min(len(others), _FEWEST_DEGREES_OF_FREEDOM)
    if (degrees := len(own) + weight) < _FEWEST_DEGREES_OF_FREEDOM:
        return None
    squares = sum(own) + (weight * sum(others) / len(others) if others else 0.0)
    return StepTimeSpread(max(_SMALLEST_DEVIATION, math.sqrt(squares / degrees)), degrees)


def _squared_drifts(updates: Sequence[Update], steps: int) -> Iterator[float]:
    """Yield the squared log ratio of the times per step after and in the first steps, of runs of half as many more."""
    for update in updates:
        pairs = list(zip(update.curve.steps, update.curve.wall_s, strict=True))
        last_step, last_s = pairs[-1]
        step, wall_s = next((pair for pair in pairs if pair[0] >= max(steps, 1)), (last_step, last_s))
        if last_step >= 1.5 * step and last_s > wall_s > 0.0:
            yield math.log((last_s - wall_s) / (last_step - step) * step / wall_s) ** 2


def cost_that_grows(
    cost: str, steps: Estimate, history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> Estimate | None:
    """Forecast a cost that grows with the steps: what as many steps cost in other runs.

    It is read off each run's curve, and the geometric mean is taken: of three own runs or more, else of all. Their
    spread widens the interval of the steps.

    Args:
        cost: ``"gradient_norm"`` or ``"parameter_change"``.
        steps: Forecast of the steps.
        history: The user's own finished updates.
        query: Update to forecast.
        bundled: Updates from other models.

    Returns:
        The forecast; None if fewer than three comparable runs have the cost.
    """
    own, others = ([*_grown_curves(cost, updates, query)] for updates in (history, telling(bundled, query)))
    curves = own if len(own) >= _FEWEST_CURVES else own + others
    if len(curves) < _FEWEST_CURVES:
        return None

    def logs(count: float) -> np.ndarray:
        at = math.log(max(count, 1.0))
        return np.array([np.interp(at, x, y) + min(at - x[0], 0.0) + max(at - x[-1], 0.0) for x, y in curves])

    spread = StepTimeSpread(float(logs(steps.value).std(ddof=1)), len(curves) - 1)
    grown = steps.map(lambda count: math.exp(float(logs(count).mean())) if count else 0.0)
    level, interval = steps.interval.level, grown.interval
    low = spread.widen(grown.value, interval.low, (1 - level) / 2)
    high = None if interval.high is None else spread.widen(grown.value, interval.high, (1 + level) / 2)
    upper = None if grown.upper is None else spread.widen(grown.value, grown.upper, level)
    return Estimate(grown.value, dataclasses.replace(interval, low=low, high=high), upper)


def _grown_curves(
    cost: str, updates: Sequence[Update], query: ForecastQuery
) -> Iterator[tuple[list[float], list[float]]]:
    """Yield log steps and log cost at the evaluations of each comparable run that has the cost."""
    for update in updates:
        pairs = zip(update.curve.steps, getattr(update.curve, cost), strict=True)
        known = [(math.log(step), math.log(value)) for step, value in pairs if step and value]
        if known and is_same_change(update, query):
            x, y = zip(*known, strict=True)
            yield [*x], [*y]


def rescale_with_steps(cost: Estimate, before: Estimate, after: Estimate) -> Estimate:
    """Rescale a cost that grows with the steps: its median as theirs, and its bounds as theirs.

    The bounds stay on their sides of the median.

    Args:
        cost: Forecast of the cost.
        before: Forecast of steps that it belongs to.
        after: Changed forecast of steps.

    Example:
        >>> cost, before, after = (
        ...     Estimate(value, Interval(value / 2, value * 2, 0.8, ""), value * 2) for value in (3.0, 100.0, 200.0)
        ... )
        >>> rescale_with_steps(cost, before, after).value
        6.0
    """

    def rescaled(bound: float | None, old: float | None, new: float | None) -> float | None:
        return None if bound is None or old is None or new is None else bound * new / old

    interval, old, new = cost.interval, before.interval, after.interval
    value = cost.value * after.value / before.value
    low, high = min(value, interval.low * new.low / old.low), rescaled(interval.high, old.high, new.high)
    upper = rescaled(cost.upper, before.upper, after.upper)
    if upper is not None and interval.level >= 0.5:
        upper = max(value, upper)
    high = None if high is None else max(value, high)
    return Estimate(value, dataclasses.replace(interval, low=low, high=high), upper)


def scale(steps: Estimate, factor: float) -> Estimate:
    """Return the cost of steps that each cost the same.

    Example:
        >>> scale(Estimate(100.0, Interval(50.0, 200.0, 0.8, ""), 180.0), 0.01)
        Estimate(value=1.0, interval=Interval(low=0.5, high=2.0, level=0.8, guarantee=''), upper=1.8)
    """
    return steps.map(lambda value: value * factor)


def seconds_per_step(curve: LearningCurve) -> float | None:
    """Return the time per step after the first evaluation of a run, before which its data may be passed.

    Returns:
        The time; None with fewer than two evaluations after steps.

    Example:
        >>> none = (None,) * 3
        >>> seconds_per_step(LearningCurve((0, 2, 10), (0.1, 0.2, 0.3), none, (0.0, 9.0, 13.0), none, none, none, 2))
        0.5
    """
    if len(curve.steps) < 3 or not curve.wall_s[-1] > curve.wall_s[1]:
        return None
    return (curve.wall_s[-1] - curve.wall_s[1]) / (curve.steps[-1] - curve.steps[1])


def _seconds_per_step(update: Update) -> float:
    mean = update.cost.wall_s / update.cost.steps
    return (update.recipe.get("trains") == "head" and seconds_per_step(update.curve)) or mean


def costs_per_step(step_cost: StepCost, grid: Grid | None) -> dict[str, float]:
    """Return time, energy and carbon per step, as far as they are known.

    Example:
        >>> from resque.energy.reading import EnergyReading
        >>> reading = EnergyReading(1.0, 0.01, {}, {}, "meter")
        >>> costs_per_step(StepCost(0.1, 0.001, 10, reading), Grid("FRA", 50.0, "given"))
        {'wall_s': 0.1, 'energy_kwh': 0.001, 'carbon_kg': 5e-05}
    """
    per_step = {"wall_s": step_cost.wall_s}
    if step_cost.energy_kwh is not None:
        per_step["energy_kwh"] = step_cost.energy_kwh
        if grid is not None:
            per_step["carbon_kg"] = step_cost.energy_kwh * grid.kg_per_kwh
    return per_step


def estimates_by_step(
    steps: Estimate,
    step_cost: StepCost,
    grid: Grid | None,
    spread: StepTimeSpread | None,
    measured_by: str = "probe",
    spent_steps: float = 0.0,
) -> dict[str, Estimate]:
    """Return the estimates of time, energy and carbon: so many steps, and what comes before the first.

    Args:
        steps: Forecast of the steps.
        step_cost: Cost of a step.
        grid: Electricity grid; None leaves carbon out.
        spread: Variation of the time per step, see :func:`widen_by_step_time`.
        measured_by: Name of the measurement of the time per step.
        spent_steps: Number of steps whose cost is known, see :func:`widen_by_step_time`.

    Example:
        >>> from resque.energy.reading import EnergyReading
        >>> cost = StepCost(0.1, None, 10, EnergyReading(1.0, None, {}, {}, "clock"), start_s=3.0)
        >>> estimates_by_step(Estimate(20.0, Interval(10.0, 40.0, 0.8, ""), 30.0), cost, None, None)["wall_s"].value
        5.0
    """
    estimates = {}
    for cost, factor in costs_per_step(step_cost, grid).items():
        start = factor * step_cost.start_s / step_cost.wall_s if step_cost.start_s else 0.0
        of_steps = widen_by_step_time(scale(steps, factor), spread, measured_by, spent_steps * factor)
        estimates[cost] = of_steps.map(functools.partial(operator.add, start))
    return estimates


def widen_by_step_time(
    cost: Estimate, spread: StepTimeSpread | None, measured_by: str = "probe", spent: float = 0.0
) -> Estimate:
    """Widen the interval of time or energy by the variation of the time per step.

    Args:
        cost: Forecast that allows for the uncertainty of steps alone.
        spread: Variation of the time per step; None leaves the interval as it is and says so.
        measured_by: Name of the measurement of the time per step.
        spent: Part of the cost that has been measured already, and is not uncertain.
    """
    value, upper, interval = cost.value, cost.upper, cost.interval
    if spread is None or upper is None or interval.high is None:
        guarantee = f"as for steps, if each step costs what the {measured_by} measured"
        return dataclasses.replace(cost, interval=dataclasses.replace(interval, guarantee=guarantee))

    def widened(bound: float, share: float) -> float:
        return spent + spread.widen(value - spent, bound - spent, share)

    low, high = (
        widened(bound, (1 + side * interval.level) / 2) for bound, side in ((interval.low, -1), (interval.high, 1))
    )
    varies = f"the time per step, measured by the {measured_by}, varies by a factor of {spread.factor:.2f}"
    guarantee = f"as for steps; {varies} (one standard deviation)"
    upper = widened(upper, interval.level) if upper >= value else upper
    return Estimate(value, Interval(low, high, interval.level, guarantee), upper)
