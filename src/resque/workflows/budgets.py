"""Budgets that end a run: refused where they cannot be held, and with a forecast to revise."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.price import Tariff
from resque.errors import ResqueWarning, SettingError, TooFewUpdatesError
from resque.forecasting.budget import Budget, check_measurable
from resque.forecasting.early_stopping import BudgetStop
from resque.forecasting.evaluation.matching import check_settles
from resque.forecasting.intervals import check_level
from resque.ledger.records import Forecast, StepCost
from resque.training.job import RetrainingJob
from resque.training.probe import probe
from resque.workflows.reported_values import reported_number
from resque.workflows.resuming import RunIdentity

__all__ = ["RunLimits", "forecast_first"]


@dataclass(frozen=True)
class RunLimits:
    """A budget that a run can be held to, as far as is known before its machine is.

    Attributes:
        budget: Limits, with the prices of the run.
        confidence: Confidence with which the budget ends the run.
        grid: Electricity grid.
    """

    budget: Budget
    confidence: float
    grid: Grid | None

    @classmethod
    def of(
        cls, budget: Budget | None, confidence: float, tariff: Tariff | None, grid: Grid | None
    ) -> "RunLimits | None":
        """Return the limits of a run; None without any.

        Raises:
            SettingError: It is no budget, a limit lacks its region or price, or the confidence is not in (0, 1).
        """
        check_level(reported_number("confidence", confidence))
        if not isinstance(budget, Budget | None):
            raise SettingError(f"the budget is a {type(budget).__name__}; expected a resque.Budget")
        if budget is None or not budget.is_given:
            return None
        budget = budget.priced(tariff)
        check_measurable(budget, grid)
        return cls(budget, confidence, grid)

    def stop(self, network: nn.Module, job: RetrainingJob, meter: EnergyMeter) -> BudgetStop:
        """Return what ends the run on this machine, after a probe of it.

        Raises:
            SettingError: A limit needs energy, and the meter does not measure it.
        """
        check_measurable(self.budget, self.grid, bool(meter.methods))
        return self.stop_by(probe(network, job.trained_on, job.recipe, meter))

    def stop_by(self, step_cost: StepCost | None) -> BudgetStop:
        """Return what ends the run, given the probed cost of a step; None where there is no probe.

        Raises:
            SettingError: A limit needs energy, and no probe has measured it.
        """
        if step_cost is None and (names := self.budget.energy_limits):
            raise SettingError(
                f"{', '.join(names)} needs energy, which the probe of a forecast measures: name a forecast"
            )
        check_measurable(self.budget, self.grid, step_cost is not None and step_cost.energy_kwh is not None)
        return BudgetStop(self.budget, self.confidence, self.grid, step_cost)


def forecast_first(
    run: RunIdentity, network: nn.Module, make: Callable[..., Forecast], *arguments: Any
) -> Forecast | None:
    """Return the forecast of a run that has a budget and no forecast yet; warn if there can be none.

    Args:
        run: The run; one that continues keeps the forecast that was made for it before it began.
        network: Model to be trained.
        make: Function of the arguments that makes the forecast.
        arguments: Its arguments.
    """
    began = (run.checkpoint.started_utc(run.parent, run.job) if run.checkpoint.resume else None) or ""
    for forecast in reversed(run.history.forecasts(pending=True)) if began else ():
        if forecast.created_utc <= began and _settles(network, run.job, forecast):
            return forecast
    try:
        return make(*arguments)
    except TooFewUpdatesError as error:
        warnings.warn(f"the budget ends the run only when it is spent: {error}", ResqueWarning, stacklevel=3)
        return None


def _settles(network: nn.Module, job: RetrainingJob, forecast: Forecast) -> bool:
    try:
        check_settles(network, job, forecast)
    except SettingError:
        return False
    return True
