"""Run the jobs of an update, or continue them, and keep what came out; under torchrun, in all processes together."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from resque._processes import current_processes
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.forecasting.early_stopping import BudgetStop
from resque.forecasting.landmarking import ForecastReviser
from resque.indices.profile import Profile
from resque.ledger.records import Features, Update
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob
from resque.training.retrain import retrain
from resque.training.run import progress_text
from resque.workflows.artifacts import DIVERGED, Lineage, save_update
from resque.workflows.keeping import keep_update
from resque.workflows.resuming import RunIdentity

__all__ = ["UpdateRunner"]


@dataclass(frozen=True, eq=False)
class UpdateRunner:
    """Runs jobs with one meter, grid and ledger; the first retraining is the update that was requested.

    The request, and what was loaded for it, are those of :mod:`resque.workflows.update`, which imports this module.
    """

    request: Any
    history: Ledger
    loaded: Any
    checkpoint: Checkpoint
    pilot: Path | None
    meter: EnergyMeter
    grid: Grid | None
    layer: str
    reduction: str | None
    features: Features
    stop: BudgetStop | None

    def run(self, network: nn.Module, job: RetrainingJob) -> Update:
        """Do a job, or continue it, and keep the result; a job that has ended already returns its update."""
        parent, processes = job.parent or fingerprint(network), current_processes()
        with self.checkpoint.hold(parent, job) as checkpoint:
            run = RunIdentity(self.history, checkpoint, parent, job)
            ended, is_complete = processes.first(lambda: _ended(run))
            if ended is not None and is_complete:
                return ended
            kept = self._run(network, job, checkpoint, ended)
            if processes.rank == 0:
                checkpoint.remove(parent, job)
            return kept

    def _run(self, network: nn.Module, job: RetrainingJob, checkpoint: Checkpoint, ended: Update | None) -> Update:
        """Train, or restore a run that has ended but whose files may be missing, and keep the result."""
        asked: RetrainingJob = self.loaded.job
        requested = (job.seed, job.from_scratch) == (asked.seed, asked.from_scratch)
        forecast, is_first = self.loaded.forecast if requested else None, current_processes().rank == 0
        confidence, of_ledger = self.request.confidence, ForecastReviser.of_ledger
        with self.request.options.show_progress(
            f"{'from scratch' if job.from_scratch else 'retraining'}, seed {job.seed}"
        ) as show:
            result = retrain(
                network,
                job,
                meter=self.meter,
                grid=self.grid,
                features=self.features if requested or not job.from_scratch else None,
                model_name=self.loaded.loader.name,
                forecast_id=None if forecast is None else forecast.id,
                checkpoint=dataclasses.replace(checkpoint, pilot=self.pilot if requested else None),
                tariff=self.request.tariff,
                on_progress=lambda at: show(at.step, at.expected_steps, progress_text(at)),
                revise=of_ledger(forecast, self.history, job, confidence) if forecast and is_first else None,
                stop=self.stop,
            ).asked_by(forecast)
        if requested:
            return self._with_files(ended or result, network, job, ended is not None)
        if ended is None and is_first:
            keep_update(self.history, result)
        return ended or result

    def _with_files(self, result: Update, network: nn.Module, job: RetrainingJob, is_stored: bool) -> Update:
        def new_profile() -> Profile:
            data = job.trained_on if self.loaded.extend else job.train  # of old classes, too
            found: Profile = self.loaded.loader.profile(network, data, self.layer, self.reduction)
            return found

        if (processes := current_processes()).rank:
            if result.stopped_by != DIVERGED:
                new_profile()  # this process's part
            return processes.first(lambda: result)
        source, cwd = self.request.original, self.request.cwd
        folder = cwd / self.request.folder(result)
        lineage = Lineage.of(self.loaded.original, cwd / source if isinstance(source, str | Path) else None)
        ledger = None if is_stored else self.history
        kept = save_update(result, network, folder, ledger, lineage, new_profile, job.train.class_names)
        return processes.first(lambda: kept)


def _ended(run: RunIdentity) -> tuple[Update | None, bool]:
    """Return the update that a run to be resumed has become, and whether its files are there, too."""
    ended = run.ended() if run.checkpoint.resume else None
    return ended, ended is not None and run.checkpoint.started_utc(run.parent, run.job) is None
