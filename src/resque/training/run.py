"""A retraining run in progress: training, evaluations, stopping rule and checkpoints."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from resque._format import format_interval
from resque._processes import current_processes
from resque.energy.clock import now
from resque.energy.meters import EnergyMeter, unfailing_window
from resque.energy.reading import EnergyReading, join_readings
from resque.errors import DataError, ResqueWarning, SettingError
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.migration import modernize
from resque.ledger.records import ForecastRevision, LearningCurve, StepCost
from resque.ledger.serialization import checked, from_dict, to_dict
from resque.models.inference import device_of
from resque.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resque.training.cost_tracking import build_curve
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.reestimation import Reestimation
from resque.training.stopping import stop_epoch
from resque.training.trainer import Trainer

__all__ = ["ReviseForecast", "Run", "RunProgress", "RunSettings", "StopRun", "measure", "progress_text", "run_to_end"]

ReviseForecast = Callable[[LearningCurve], ForecastRevision | None]
"""Function that revises a forecast from the learning curve so far; None if it cannot."""
StopRun = Callable[[LearningCurve, ForecastRevision | None, EnergyReading | None], str | None]
"""Function that returns why a run ends now, or None, from its learning curve, its revised forecast and its meter."""


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run at an evaluation.

    Attributes:
        step: Optimizer steps taken so far.
        max_steps: Step budget.
        accuracy: Test accuracy.
        revision: Latest in-run forecast update; None if there is none.
    """

    step: int
    max_steps: int
    accuracy: float
    revision: ForecastRevision | None = None

    @property
    def expected_steps(self) -> int:
        """Steps of the whole run by the latest in-run forecast, at least those so far; the step budget without one."""
        return self.max_steps if self.revision is None else max(self.step, round(self.revision.steps.value))


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run that are not part of its job.

    Attributes:
        meter: Meter of time and energy.
        step_cost: Probed cost of a step; None if there was no probe.
        checkpoint: Settings of checkpoints; None writes none.
        on_progress: Callback after each evaluation.
        revise: In-run forecast update after each evaluation; under torchrun of the first process alone.
        stop: Budget of the run, asked after each evaluation; it is no part of the job.
    """

    meter: EnergyMeter
    step_cost: StepCost | None = None
    checkpoint: Checkpoint | None = None
    on_progress: Callable[[RunProgress], None] | None = None
    revise: ReviseForecast | None = None
    stop: StopRun | None = None


def progress_text(progress: RunProgress) -> str:
    """Describe where a run stands: its accuracy and, where there is one, the interval of the steps of the whole run."""
    text, revision = f"accuracy {progress.accuracy:.4f}", progress.revision
    if revision is None:
        return text
    return f"{text}, {format_interval('steps', revision.steps.value, revision.steps.interval)} steps in all"


class Run:
    """A run in progress: its evaluations so far, and why it ended.

    Under torchrun the first process decides for all: what depends on a clock, an energy reading or a revised forecast.

    Args:
        model: Model in training.
        trainer: Trainer of the model.
        job: Job of the run.
        settings: Settings of the run.

    Attributes:
        device: Device of the model.
        id: Id of the update that the run becomes.
        started_utc: Time of the start, ISO 8601.
        resumed: Number of times the run was resumed.
        pilot_steps: Steps of the pilot that the run continued; zero if it began at step 0.
        stopped_by: Reason of the end; None while the run goes on.
        evaluation_s: Seconds of evaluation and of in-run forecast updates.
        readings: Meter readings, one per window.
        revisions: In-run forecast updates, oldest first.
    """

    def __init__(
        self, model: nn.Module, trainer: Trainer | Reestimation, job: RetrainingJob, settings: RunSettings
    ) -> None:
        self.id, self.started_utc, self.resumed = new_id(), utc_now(), 0
        self.pilot_steps = 0
        self.stopped_by: str | None = None
        self.evaluation_s = self._training_s = 0.0
        self.readings: list[EnergyReading] = []
        self.revisions: list[ForecastRevision] = []
        self._evaluations: list[tuple[float, ...]] = []
        self._epoch_accuracies: list[float] = []
        self._schedule, self._scheduled = evaluation_steps(math.inf, job.steps_per_epoch, job.recipe), 0
        self._trainer, self._job, self._settings = trainer, job, settings
        self._processes = current_processes()
        self.device = device_of(model)
        self._test = job.test.resident(self.device)

    @property
    def curve(self) -> LearningCurve:
        """Learning curve of all evaluations so far."""
        return build_curve(self._evaluations, self._trainer.steps_per_epoch)

    def proceed(self, for_s: float, also_at: Sequence[int] = ()) -> None:
        """Train and evaluate until the run ends, or until the first end of an epoch after ``for_s`` seconds.

        Args:
            for_s: Seconds until the pause.
            also_at: Steps of additional evaluations, in order; the run pauses at the last of them. They change nothing
                but the time at which the target may be seen.
        """
        start, first_step = now(self.device), self._trainer.step_count
        while self.stopped_by is None:
            if not self._evaluations or self._evaluations[-1][0] != self._trainer.step_count:
                self._evaluate()
            epoch_ended = self._trainer.step_count > first_step and not self._trainer.within_epoch
            if self.stopped_by is not None or (epoch_ended and self._has_passed(for_s, start)):
                return
            if also_at and self._trainer.step_count >= also_at[-1]:
                return
            self._train(also_at)

    def _has_passed(self, for_s: float, start: float) -> bool:
        return self._processes.first(lambda: now(self.device) - start >= for_s)

    def _evaluate(self) -> None:
        trainer, settings, start = self._trainer, self._settings, now(self.device)
        accuracy, loss = trainer.evaluate(self._test)
        self._evaluations.append((trainer.step_count, accuracy, loss, self._training_s, *trainer.totals()))
        revision = settings.revise(self.curve) if settings.revise else None
        if revision is not None:
            self.revisions.append(revision)
        self.evaluation_s += now(self.device) - start
        if settings.on_progress:
            latest = self.revisions[-1] if self.revisions else None
            settings.on_progress(RunProgress(trainer.step_count, self._job.max_steps, accuracy, latest))
        if trainer.step_count and not trainer.within_epoch:
            self._epoch_accuracies.append(accuracy)
        self.stopped_by = self._processes.first(lambda: self._stop_reason(accuracy, loss, revision))

    def _train(self, also_at: Sequence[int]) -> None:
        """Train until the next evaluation, of the recipe or an additional one."""
        trainer, start = self._trainer, now(self.device)
        while self._scheduled <= trainer.step_count:
            self._scheduled = next(self._schedule)
        until = min([self._scheduled, *(step for step in also_at if step > trainer.step_count)])
        while trainer.step_count < until:
            trainer.step()
        self._training_s += now(self.device) - start

    def _stop_reason(self, accuracy: float, loss: float, revision: ForecastRevision | None) -> str | None:
        recipe, target = self._job.recipe, self._job.target_accuracy
        if accuracy >= target and recipe.fixed_epochs is None:
            return "target"
        if not math.isfinite(loss):
            return "diverged"
        if recipe.fixed_epochs is not None:
            reason = "epochs" if len(self._epoch_accuracies) >= recipe.fixed_epochs else None
        else:
            _, reason = stop_epoch(self._epoch_accuracies, target, recipe.tolerances, recipe.most_epochs)
        return reason or self._exceeded_limit() or self._ended_by_budget(revision)

    def _ended_by_budget(self, revision: ForecastRevision | None = None) -> str | None:
        if self._settings.stop is None:
            return None
        return self._settings.stop(self.curve, revision, join_readings(self.readings) if self.readings else None)

    def _exceeded_limit(self) -> str | None:
        """Return the limit of the recipe that is used up; None if there is none."""
        recipe, step_cost = self._job.recipe, self._settings.step_cost
        if recipe.max_hours is not None and self._training_s >= 3600.0 * recipe.max_hours:
            return "max hours"
        if recipe.max_kwh is None or step_cost is None:
            return None
        spent = step_cost.energy_after(self._trainer.step_count)
        return "max kWh" if spent is not None and spent >= recipe.max_kwh else None

    def state(self) -> dict[str, Any]:
        """Return the state at an evaluation, for :meth:`restore`."""
        return {
            "id": self.id,
            "stopped_by": self.stopped_by,
            "trainer": self._trainer.state(),
            "rows": [list(row) for row in self._evaluations],
            "by_epoch": self._epoch_accuracies,
            "training_s": self._training_s,
            "evaluation_s": self.evaluation_s,
            "started_utc": self.started_utc,
            "resumed": self.resumed,
            "pilot_steps": self.pilot_steps,
            "processes": self._processes.count,
            "readings": [to_dict(reading) for reading in self.readings],
            "revisions": [to_dict(revision) for revision in self.revisions],
        }

    def restore(self, state: Mapping[str, Any], is_pilot: bool = False) -> None:
        """Continue from a state that :meth:`state` returned, unless it has used up the budget of this run.

        Args:
            state: The state.
            is_pilot: Whether it is the end of the run's pilot, which is no interruption.

        Raises:
            SettingError: The run began in another number of processes.
        """
        state = modernize(state)
        self._check_processes(state.get("processes", 1))
        self._trainer.restore(state["trainer"])
        self.id, self.stopped_by = state["id"], state["stopped_by"]
        self._evaluations = [tuple(row) for row in state["rows"]]
        self._epoch_accuracies = list(state["by_epoch"])
        self._training_s, self.evaluation_s = state["training_s"], state["evaluation_s"]
        self.started_utc, self.resumed = state["started_utc"], state["resumed"] + (not is_pilot)
        self.pilot_steps = self._trainer.step_count if is_pilot else state.get("pilot_steps", 0)
        self.readings = [from_dict(EnergyReading, reading) for reading in state["readings"]]
        self.revisions = [from_dict(ForecastRevision, revision) for revision in state.get("revisions", ())]
        self.stopped_by = self.stopped_by or self._processes.first(self._ended_by_budget)

    def _check_processes(self, began: int) -> None:
        if began != self._processes.count:
            as_before = f"start torchrun with {began}" if began > 1 else "leave torchrun out"
            raise SettingError(
                f"the run began in {began} process{'es' * (began > 1)} and would go on in {self._processes.count}, so "
                f"its time would be that of neither: {as_before}, or start again without --resume"
            )


def run_to_end(run: Run, settings: RunSettings, path: Path | None) -> None:
    """Run to the end, in measured windows between which a checkpoint is written.

    Args:
        run: Run to continue.
        settings: Settings of the run.
        path: File of the checkpoint; None measures the run in a single window.
    """
    checkpoint = settings.checkpoint
    if path is None or checkpoint is None:
        measure(run, settings.meter)
        return
    if (state := current_processes().first(lambda: _kept_state(checkpoint, path))) is not None:
        run.restore(state)
    elif checkpoint.pilot is not None:
        run.restore(load_checkpoint(checkpoint.pilot), is_pilot=True)
        _save(run, path)
    while run.stopped_by is None:
        measure(run, settings.meter, checkpoint.every_s)
        _save(run, path)


def _kept_state(checkpoint: Checkpoint, path: Path) -> dict[str, Any] | None:
    return load_checkpoint(path) if checkpoint.resume and path.is_file() else None


def measure(run: Run, meter: EnergyMeter, for_s: float = math.inf, also_at: Sequence[int] = ()) -> None:
    """Let a run proceed in a measured window, see :meth:`Run.proceed`; if the meter fails, its reading says so."""
    with unfailing_window(meter, run.device, [], checked) as window:
        run.proceed(for_s, also_at)
    run.readings.append(window.reading)


def _save(run: Run, path: Path) -> None:
    state = run.state()
    if current_processes().rank:
        return
    try:
        save_checkpoint(path, state)
    except DataError as error:  # what the run has cost so far is worth more than its checkpoint
        warnings.warn(f"the run goes on without a new checkpoint: {error}", ResqueWarning, stacklevel=3)
