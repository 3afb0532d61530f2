"""A retraining run in progress: evaluations, stopping, checkpoints."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from resque.energy.clock import now
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import ForecastRevision, LearningCurve, StepCost
from resque.ledger.serialization import from_dict, to_dict
from resque.models.inference import device_of
from resque.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.stopping import stop_epoch
from resque.training.trainer import Trainer

ReviseForecast = Callable[[LearningCurve], ForecastRevision | None]


@dataclass(frozen=True)
class RunProgress:
    """Where a run stands, for those who watch."""

    step: int
    max_steps: int
    accuracy: float
    revision: ForecastRevision | None = None


class Run:
    """A run in progress: what it has seen so far, and when it ends."""

    def __init__(
        self,
        model: nn.Module,
        trainer: Trainer,
        job: RetrainingJob,
        step_cost: StepCost | None,
        on_progress: Callable[[RunProgress], None] | None,
        revise: ReviseForecast | None,
    ) -> None:
        self.revisions: list[ForecastRevision] = []
        self.readings: list[EnergyReading] = []
        self.evaluation_s = self._training_s = 0.0
        self.stopped_by: str | None = None
        self.id, self.started_utc, self.resumed = new_id(), utc_now(), 0
        self._rows: list[tuple[float, ...]] = []
        self._by_epoch: list[float] = []
        self._model, self._trainer, self._job, self._on_progress, self._revise = (
            model,
            trainer,
            job,
            on_progress,
            revise,
        )
        self._test = job.test.resident(device_of(model))
        self._step_kwh = None if step_cost is None else step_cost.energy_kwh

    @property
    def curve(self) -> LearningCurve:
        """Every evaluation so far."""
        names = [field.name for field in dataclasses.fields(LearningCurve)][:-1]
        columns: dict[str, Any] = dict(zip(names, zip(*self._rows, strict=True), strict=True))
        return LearningCurve(**columns, steps_per_epoch=self._trainer.steps_per_epoch)

    def proceed(self, for_s: float) -> None:
        """Evaluate and train until the run ends, or until the end of the first epoch after so many seconds."""
        start, first = now(device_of(self._model)), self._trainer.step_count
        while self.stopped_by is None:
            if not self._rows or self._rows[-1][0] != self._trainer.step_count:
                self._look()
            at_end = self._trainer.step_count > first and not self._trainer.within_epoch
            if self.stopped_by is not None or (at_end and now(device_of(self._model)) - start >= for_s):
                return
            self._train()

    def _look(self) -> None:
        job, trainer, start = self._job, self._trainer, now(device_of(self._model))
        accuracy, loss = evaluate_dataset(self._model, self._test)
        totals = trainer.cost_tracker.totals(trainer.within_epoch)
        self._rows.append((trainer.step_count, accuracy, loss, self._training_s, *totals))
        revision = self._revise(self.curve) if self._revise else None
        if revision is not None:
            self.revisions.append(revision)
        self.evaluation_s += now(device_of(self._model)) - start
        if self._on_progress:
            latest = self.revisions[-1] if self.revisions else None
            self._on_progress(RunProgress(trainer.step_count, job.max_steps, accuracy, latest))
        if trainer.step_count and not trainer.within_epoch:
            self._by_epoch.append(accuracy)
        self.stopped_by = self._verdict(accuracy, loss)

    def _train(self) -> None:
        trainer, start = self._trainer, now(device_of(self._model))
        every = self._job.recipe.evaluate_every or trainer.steps_per_epoch
        earliest = trainer.step_count * (1.0 + self._job.recipe.evaluate_growth)
        trainer.step()
        while trainer.within_epoch and (trainer.step_count % every or trainer.step_count < earliest):
            trainer.step()
        self._training_s += now(device_of(self._model)) - start

    def _verdict(self, accuracy: float, loss: float) -> str | None:
        recipe, target = self._job.recipe, self._job.target_accuracy
        if accuracy >= target and recipe.fixed_epochs is None:
            return "target"
        if not math.isfinite(loss):
            return "diverged"
        if recipe.fixed_epochs is not None:
            return "epochs" if len(self._by_epoch) >= recipe.fixed_epochs else self._budget()
        return stop_epoch(self._by_epoch, target, recipe.tolerances, recipe.max_epochs)[1] or self._budget()

    def _budget(self) -> str | None:
        recipe = self._job.recipe
        if recipe.max_hours is not None and self._training_s >= 3600.0 * recipe.max_hours:
            return "max hours"
        used = None if self._step_kwh is None else self._trainer.step_count * self._step_kwh
        return "max kWh" if recipe.max_kwh is not None and used is not None and used >= recipe.max_kwh else None

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs; at the end of an epoch, or of the run."""
        return {
            "id": self.id,
            "stopped_by": self.stopped_by,
            "trainer": self._trainer.state(),
            "rows": [list(row) for row in self._rows],
            "by_epoch": self._by_epoch,
            "training_s": self._training_s,
            "evaluation_s": self.evaluation_s,
            "started_utc": self.started_utc,
            "resumed": self.resumed,
            "readings": [to_dict(reading) for reading in self.readings],
            "revisions": [to_dict(revision) for revision in self.revisions],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._trainer.restore(state["trainer"])
        self.id, self.stopped_by = state["id"], state["stopped_by"]
        self._rows = [tuple(row) for row in state["rows"]]
        self._by_epoch = list(state["by_epoch"])
        self._training_s, self.evaluation_s = state["training_s"], state["evaluation_s"]
        self.started_utc, self.resumed = state["started_utc"], state["resumed"] + 1
        self.readings = [from_dict(EnergyReading, reading) for reading in state["readings"]]
        self.revisions = [
            from_dict(ForecastRevision, revision) for revision in state.get("revisions", state.get("renewals", ()))
        ]


def run_to_end(run: Run, meter: EnergyMeter, path: Path | None, checkpoint: Checkpoint | None) -> None:
    """Run to the end, in windows between which a checkpoint is written."""
    if path is None or checkpoint is None:
        with meter.window() as window:
            run.proceed(math.inf)
        run.readings.append(window.reading)
        return
    if checkpoint.resume and path.is_file():
        run.restore(load_checkpoint(path))
    while run.stopped_by is None:
        with meter.window() as window:
            run.proceed(checkpoint.every_s)
        run.readings.append(window.reading)
        save_checkpoint(path, run.state())
