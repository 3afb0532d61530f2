"""Calibration runs: retrainings on synthetic shifts of the user's own data, as an initial history.

Each run starts from the same model, trains to the highest target, and is written to the ledger when it ends. It ends
early if its in-run forecast gives up the lowest target, or at the limit of the whole calibration. The next runs are
chosen after each round: what is chosen depends on the size of a round, and not on where its runs are. The ledger holds
all that a choice depends on, so an interrupted calibration goes on as it would have without the interruption. Such a
history cannot show how much the next real shift differs from all synthetic ones.
"""

import contextlib
import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.errors import SettingError
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.training.checkpoint import Checkpoint
from resque.training.job import is_update_of
from resque.training.run import RunProgress
from resque.workflows.calibration_candidates import ShowProgress
from resque.workflows.calibration_choice import RankedShift, choose_next
from resque.workflows.calibration_limits import CalibrationLimits, CalibrationPace
from resque.workflows.calibration_plan import CalibrationPlan, PlannedShift
from resque.workflows.calibration_training import CalibrationRound, task_for_shift, train_for_shift
from resque.workflows.engine import Engine, LocalEngine
from resque.workflows.keeping import keep_update

__all__ = ["CalibrationRunner", "CalibrationRuns"]

_FORECASTS_AFTERWARDS = 60  # what the forecast that is tried at the end takes, in units of one between runs
_FEWEST_EVALUATIONS = 4  # before and after, on new and original data


@dataclass(frozen=True)
class CalibrationRuns:
    """The runs of a calibration.

    Attributes:
        updates: All runs of its request in the ledger, oldest first.
        new: Number of these that were done now.
        ended: Reason for which there are no more.
        by_limit: Whether a limit of the calibration was the reason.
    """

    updates: tuple[Update, ...]
    new: int
    ended: str
    by_limit: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the limits allowed not even one run."""
        return self.by_limit and not self.new


@dataclass(frozen=True)
class _Ended:
    """A run that has ended: its update, whether it is new, and its seconds without training and evaluation."""

    shift: str
    update: Update | None
    is_new: bool
    passes_s: float


@dataclass(frozen=True, eq=False)
class CalibrationRunner:
    """Does the runs of a plan.

    Attributes:
        model: Model to retrain; unchanged, because every run trains a copy.
        plan: Plan made by :func:`resque.workflows.calibration_plan.plan_calibration`.
        ledger: Ledger of the updates.
        meter: Meter of every run.
        grid: Electricity grid; None leaves carbon unknown.
        limits: Limits of the whole calibration.
        checkpoint: Settings of checkpoints; None starts an interrupted run from the beginning.
        on_progress: Callback with ``(done, total, detail)``.
        engine: Where the runs of a round are; the local one does one after the other in this process.
        round_size: Number of runs that are chosen together, from what was known before them.
    """

    model: nn.Module
    plan: CalibrationPlan
    ledger: Ledger
    meter: EnergyMeter
    grid: Grid | None = None
    limits: CalibrationLimits = dataclasses.field(default_factory=CalibrationLimits)
    checkpoint: Checkpoint | None = None
    on_progress: ShowProgress = lambda done, total, detail: None
    engine: Engine = dataclasses.field(default_factory=LocalEngine)
    round_size: int = 1

    def run(self) -> CalibrationRuns:
        """Do the runs that are left."""
        plan, done, mine, skipped = self.plan, dict(self.plan.done), list[Update](), set[str]()
        ended, by_limit, passes_s = f"{plan.request.updates} runs were asked for", False, plan.passes_s
        if len(done) < plan.request.updates:  # the first forecast also pays for imports, which the time kept must not
            choose_next(plan, done, self._history(done, done))
        while (left := plan.request.updates - len(done)) > 0:
            start = time.perf_counter()
            self.on_progress(len(done), plan.request.updates, "choosing the next shift")
            begun = len(done) % self.round_size
            before = dict([*done.items()][: len(done) - begun])
            history = self._history(done, before)
            choice = choose_next(plan, before, history, skipped, self.round_size)
            if choice.is_decided:
                ended = "the forecasts that will be asked for are certain enough"
                break
            ranked = [each for each in choice.ranked if each.planned.shift not in done]
            if not ranked:
                by_limit = bool(skipped) or not self.limits.plans_on()
                ended = "no further run fits into the limit" if by_limit else "no candidate is left"
                break
            pace = CalibrationPace.of(mine, plan.step_cost, plan.evaluation_s, passes_s)
            reserve_s = _FORECASTS_AFTERWARDS * (time.perf_counter() - start) / max(1, choice.forecasts)
            fitting = [each.planned for each in ranked if _fits(plan, each, self.limits, pace, reserve_s)]
            if not fitting:
                skipped |= {each.planned.shift for each in ranked}
                continue
            common = CalibrationRound(plan, history, self.grid, self.limits, pace, reserve_s)
            for each in self._runs(fitting[: min(left, self.round_size - begun)], common, len(done)):
                if each.update is None:  # the limit came before its first step
                    skipped.add(each.shift)
                    continue
                done[each.shift] = each.update
                if each.is_new:
                    mine.append(each.update)
                    passes_s = each.passes_s
        return CalibrationRuns(tuple(done.values()), len(mine), ended, by_limit)

    def _history(self, done: Mapping[str, Update], before: Mapping[str, Update]) -> list[Update]:
        """Return the updates that a round learns from: none of its own, and earlier runs by name, not as they ended."""
        runs, known = {each.id for each in done.values()}, {each.id for each in before.values()}
        history = updates_to_learn_from(self.ledger, self.plan.parent, new_tasks=False)
        earlier = sorted((each for each in history if each.id in known), key=lambda each: each.train_data)
        return [*(each for each in history if each.id not in runs), *earlier]

    def _runs(self, chosen: Sequence[PlannedShift], common: CalibrationRound, done: int) -> Iterator[_Ended]:
        """Do the runs of a round, and yield each when it is in the ledger."""
        if isinstance(self.engine, LocalEngine):
            yield from (self._run(planned, common, done + n) for n, planned in enumerate(chosen))
            return
        total, common = self.plan.request.updates, common.shared()
        self.on_progress(done, total, f"running {', '.join(planned.shift for planned in chosen)}")
        model, device = copy.deepcopy(self.model).cpu(), device_of(self.model).type
        tasks = [task_for_shift(model, planned, common, self.meter, device) for planned in chosen]
        lost = ""
        for shift, row in self.engine.run(tasks):
            if "error" in row:
                lost = f"the run of {shift} was {row['error']}; start again, and the other runs are kept"
                continue
            if row["update"] is not None:
                keep_update(self.ledger, row["update"])
                done += 1
                self.on_progress(done, total, f"{shift} has ended")
            yield _Ended(shift, row["update"], True, row["passes_s"])
        if lost:
            raise SettingError(lost)

    def _run(self, planned: PlannedShift, common: CalibrationRound, done: int) -> _Ended:
        """Do a run in this process, or continue it; one that an equal calibration did meanwhile is taken."""
        plan, total, start = self.plan, self.plan.request.updates, time.perf_counter()
        self.on_progress(done, total, f"passing {planned.shift}")
        job = plan.request.job(planned.shift)

        def show(progress: RunProgress) -> None:
            self.on_progress(done, total, f"{planned.shift}, step {progress.step:,}, accuracy {progress.accuracy:.3f}")

        with contextlib.nullcontext() if self.checkpoint is None else self.checkpoint.hold(plan.parent, job) as held:
            equal = (each for each in self.ledger.updates(parent=plan.parent) if is_update_of(each, plan.parent, job))
            update, is_new = next(equal, None), False
            if update is None:
                update, is_new = train_for_shift(self.model, planned, common, self.meter, held, show), True
                if update is not None:
                    keep_update(self.ledger, update)
            if held is not None:
                held.remove(plan.parent, job)
        spent_s = 0.0 if update is None else update.cost.wall_s + (update.evaluation_s or 0.0)
        return _Ended(planned.shift, update, is_new, time.perf_counter() - start - spent_s)


def _fits(
    plan: CalibrationPlan, ranked: RankedShift, limits: CalibrationLimits, pace: CalibrationPace, reserve_s: float
) -> bool:
    """Return whether a run that takes its expected steps ends within the limits."""
    evaluations = sum(step <= ranked.steps for step in plan.request.clean_job.evaluations) + _FEWEST_EVALUATIONS
    return pace.seconds(ranked.steps, evaluations) <= limits.left_s(pace.power_kw) - reserve_s
