"""Bounds on time and energy of a whole calibration, which hold on a busy machine, too."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from resque.energy.meters import EnergyMeter
from resque.errors import SettingError
from resque.ledger.records import LearningCurve, StepCost, Update
from resque.workflows.calibration_request import check_updates

__all__ = ["BY_LIMIT", "CalibrationLimits", "CalibrationPace", "max_hours_of"]

_HOURS, _KWH = BY_LIMIT = "max hours", "max kWh"
"""Reasons for which a limit ends a run: those of a recipe's own limits, because the run is an ordinary censored one."""
_FOR_PLANNING = 1.0 / 3.0


@dataclass(frozen=True)
class CalibrationPace:
    """How fast runs are on this machine now.

    Attributes:
        step_s: Seconds per training step.
        evaluation_s: Seconds per evaluation.
        power_kw: Mean power in kW; None if the meter measures no energy.
        passes_s: Seconds of a run before its first step: passes over its data, above all.

    Example:
        >>> round(CalibrationPace(0.01, 0.5).seconds(steps=100, evaluations=10), 6)
        6.0
    """

    step_s: float
    evaluation_s: float
    power_kw: float | None = None
    passes_s: float = 0.0

    @classmethod
    def of(
        cls, updates: Sequence[Update], step_cost: StepCost, evaluation_s: float, passes_s: float = 0.0
    ) -> "CalibrationPace":
        """Return the pace of the runs of this command, or of the probe before there is one.

        Args:
            updates: Runs of this command.
            step_cost: Probe of this command.
            evaluation_s: Seconds of an evaluation, measured in this command.
            passes_s: Seconds of a run before its first step, measured in this command.
        """
        steps = sum(update.cost.steps for update in updates)
        step_s = math.fsum(update.cost.wall_s for update in updates) / steps if steps else step_cost.wall_s
        evaluations = sum(len(update.curve.steps) for update in updates)
        if evaluations:
            evaluation_s = math.fsum(update.evaluation_s or 0.0 for update in updates) / evaluations
        readings = [step_cost.reading, *(update.energy for update in updates)]
        known = [(each.energy_kwh, each.wall_s) for each in readings if each.energy_kwh is not None and each.wall_s]
        hours = math.fsum(wall_s for _, wall_s in known) / 3600.0
        power_kw = math.fsum(kwh for kwh, _ in known) / hours if hours else None
        return cls(step_s, evaluation_s, power_kw, passes_s + (0.0 if steps else step_cost.start_s))

    def seconds(self, steps: float, evaluations: int) -> float:
        """Return the seconds of a run."""
        return self.passes_s + steps * self.step_s + evaluations * self.evaluation_s


@dataclass(frozen=True)
class CalibrationLimits:
    """Limits of a whole calibration, planning included; None for no limit.

    A run that does not fit into what is left is not begun. A run that takes longer than it was forecast to ends at its
    last evaluation within the limit.

    Attributes:
        max_hours: Wall time from ``start`` on.
        max_kwh: Energy of that time, at the mean power of the probe and the runs.
        start: Start of the calibration, by ``clock``.
        clock: Returns the seconds that have passed.

    Example:
        >>> limits = CalibrationLimits(max_hours=1.0, start=0.0, clock=lambda: 600.0)
        >>> limits.left_s(), limits.plans_on()
        (3000.0, True)
    """

    max_hours: float | None = None
    max_kwh: float | None = None
    start: float = field(default_factory=time.perf_counter)
    clock: Callable[[], float] = time.perf_counter

    def check(self, meter: EnergyMeter) -> None:
        """Raise SettingError for a limit that is no number, or one of energy that the meter cannot measure."""
        for name, limit in (("max_hours", self.max_hours), ("max_kwh", self.max_kwh)):
            if limit is not None and not 0.0 <= limit < math.inf:
                raise SettingError(f"budget {name} is {limit}: expected a number from 0 on")
        if self.max_kwh is not None and not meter.methods:
            raise SettingError(
                "a budget in kWh needs a meter that measures energy: install resque[energy], or use --max-hours"
            )

    def checked(self, updates: int, engine: str) -> "CalibrationLimits":
        """Return these limits, if a calibration can have them, before a model is loaded or Ray is started.

        Args:
            updates: Number of runs.
            engine: Name of the engine of the runs.

        Raises:
            SettingError: There are too few runs, or an energy limit for several machines.
        """
        check_updates(updates)
        if self.max_kwh is not None and engine != "local":
            raise SettingError("a limit in kWh is held by the local engine alone: limit the time, --max-hours")
        return self

    def plans_on(self) -> bool:
        """Return whether planning may go on: it takes a third of the time at most."""
        return self.max_hours is None or self.clock() - self.start < _FOR_PLANNING * 3600.0 * self.max_hours

    def left_s(self, power_kw: float | None = None) -> float:
        """Return the seconds that are left; infinity without a limit.

        Args:
            power_kw: Mean power, which a limit of energy needs.

        Raises:
            SettingError: There is a limit of energy, and the power is unknown.
        """
        return min(self._left_s(power_kw).values(), default=math.inf)

    def _left_s(self, power_kw: float | None) -> dict[str, float]:
        """Return the seconds that each limit leaves, by the reason for which a run ends there."""
        spent_s, left = self.clock() - self.start, {}
        if self.max_hours is not None:
            left[_HOURS] = 3600.0 * self.max_hours - spent_s
        if self.max_kwh is not None:
            if power_kw is None:
                raise SettingError("the probe measured no energy, so a limit in kWh cannot be held: limit the time")
            left[_KWH] = (3600.0 * self.max_kwh / power_kw if power_kw else math.inf) - spent_s
        return left

    def end_reason(
        self, curve: LearningCurve, evaluations: Sequence[int], pace: CalibrationPace, reserve_s: float
    ) -> str | None:
        """Return why a run ends now, as :attr:`resque.Update.stopped_by` has it, or None to go on.

        It ends if its next evaluation would come too late.

        Args:
            curve: Learning curve so far.
            evaluations: Steps of its evaluations.
            pace: Pace of runs before this one.
            reserve_s: Seconds that are kept for what follows the runs.
        """
        if not (left := self._left_s(pace.power_kw)):
            return None
        reason, step = min(left, key=lambda name: left[name]), curve.steps[-1]
        step_s = max(pace.step_s, curve.wall_s[-1] / step) if step else pace.step_s
        to_next = next((at for at in evaluations if at > step), step) - step
        needed_s = to_next * step_s + 2.0 * pace.evaluation_s  # the original data are evaluated at its end
        return None if needed_s <= left[reason] - reserve_s else reason


def max_hours_of(max_hours: float | None, max_minutes: float | None) -> float | None:
    """Return a limit of time in hours, given in hours or in minutes.

    Raises:
        SettingError: Both are given.

    Example:
        >>> max_hours_of(None, 30.0), max_hours_of(2.0, None)
        (0.5, 2.0)
    """
    if max_hours is not None and max_minutes is not None:
        raise SettingError("--max-hours and --max-minutes are one limit: give one of them")
    return max_hours if max_minutes is None else max_minutes / 60.0
