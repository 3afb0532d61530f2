"""End a run by its budget: what it has spent so far, what a further step costs, and what its revised forecast says."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from resque.energy.grid import Grid
from resque.energy.price import Spending, price_of
from resque.energy.reading import EnergyReading, energy_share
from resque.forecasting.budget import Budget, stop_reason
from resque.ledger.records import ForecastRevision, LearningCurve, StepCost, Update

__all__ = ["BudgetStop", "stop_in_hindsight"]


@dataclass(frozen=True)
class BudgetStop:
    """Callback that returns why a run ends now, see :func:`resque.forecasting.budget.stop_reason`; None to go on.

    The time of a step is that of the run so far, once the run is longer than the probe; until then the probe's. Energy
    is time at the mean power of the run's finished meter windows, or at the probe's power before there is one.

    Attributes:
        budget: Limits.
        confidence: Confidence, in (0, 1).
        grid: Electricity grid, for a limit in kg.
        step_cost: Probed cost of a step; None without a probe.
        asking: Time and energy of computing its forecast, a part of the price; None without a forecast.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> curve = bundled_updates()[0].curve
        >>> stop = BudgetStop(Budget(max_hours=0.0), confidence=0.8)
        >>> stop(curve, revision=None)
        'budget: hours'
    """

    budget: Budget
    confidence: float
    grid: Grid | None = None
    step_cost: StepCost | None = None
    asking: Spending | None = None

    def __call__(
        self, curve: LearningCurve, revision: ForecastRevision | None, reading: EnergyReading | None = None
    ) -> str | None:
        """Return why the run ends now.

        Args:
            curve: Learning curve up to now.
            revision: Forecast revised at its last step; None if there is none.
            reading: Meter reading of the run so far; None before its first window has ended.
        """
        steps, wall_s, probe = curve.steps[-1], curve.wall_s[-1], self.step_cost
        of_steps_s = max(0.0, wall_s - (0.0 if probe is None else probe.start_s))
        step_s = of_steps_s / steps if steps else 0.0
        if probe is not None and of_steps_s < probe.steps * probe.wall_s:
            step_s = probe.wall_s
        power = self._power(reading)
        whole = reading.wall_s / wall_s if reading is not None and wall_s else 1.0  # with evaluations
        spent, per_step = (self._costs(n, s, power, curve, s * whole) for n, s in ((steps, wall_s), (1, step_s)))
        if "price" in spent and self.asking is not None:
            spent["price"] += price_of(self.budget.tariff, [self.asking]) or 0.0
        return stop_reason(self.budget, self.confidence, spent, per_step, revision)

    def _power(self, reading: EnergyReading | None) -> float | None:
        """Return the mean power in kWh per second; None if it is unknown."""
        if reading is not None and reading.energy_kwh is not None and reading.wall_s:
            return reading.energy_kwh / reading.wall_s
        probe = self.step_cost
        return None if probe is None or probe.energy_kwh is None else probe.energy_kwh / probe.wall_s

    def _costs(
        self, steps: int, wall_s: float, power: float | None, curve: LearningCurve, paid_s: float
    ) -> dict[str, float]:
        """Return every known cost of some steps; the price is that of a longer time, evaluations included."""
        energy_kwh = None if power is None else power * wall_s
        costs = {
            "wall_s": wall_s,
            "epochs": None if curve.steps_per_epoch is None else steps / curve.steps_per_epoch,
            "energy_kwh": energy_kwh,
            "carbon_kg": None if self.grid is None else self.grid.carbon_kg(energy_kwh),
            "price": price_of(self.budget.tariff, [Spending(paid_s, None if power is None else power * paid_s)]),
        }
        return {cost: value for cost, value in costs.items() if value is not None}


def stop_in_hindsight(
    update: Update, revise: Callable[[LearningCurve], ForecastRevision | None], stop: BudgetStop
) -> tuple[int, str] | None:
    """Return the step at which a budget would have ended a finished run, and why; None if it would not have.

    Args:
        update: Finished run that no budget ended.
        revise: In-run forecast with the confidence of the budget, learned from other runs.
        stop: The budget.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> update, stop = bundled_updates()[0], BudgetStop(Budget(max_hours=0.0), confidence=0.8)
        >>> update.cost.steps, stop_in_hindsight(update, lambda curve: None, stop)
        (5, (0, 'budget: hours'))
    """
    for step in update.curve.steps[:-1]:
        curve = update.curve.until(step)
        share = curve.wall_s[-1] / update.cost.wall_s if update.cost.wall_s else 0.0
        wall_s = share * update.energy.wall_s
        so_far = dataclasses.replace(update.energy, wall_s=wall_s, energy_kwh=energy_share(update.energy, wall_s))
        if reason := stop(curve, revise(curve), so_far):
            return step, reason
    return None
