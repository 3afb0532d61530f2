"""A measured update: recipe + stop rule + meter → the cost of reaching a target, with its learning curve."""

import copy
import dataclasses
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resque.asking import WARM_UP_STEPS, check_fits, probe
from resque.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from resque.energy import EnergyMeter, joined, shared
from resque.errors import SettingError
from resque.measures import EVALUATION_BATCH, evaluate, stop_epoch
from resque.models import fingerprint
from resque.plain import from_plain, to_plain
from resque.readings import EnergyReading, Grid, Tariff
from resque.recipes import Retraining, plain_recipe
from resque.records import Cost, Features, LearningCurve, Renewal, StepCost, Update, new_id, utc_now
from resque.representations import device_of
from resque.trainer import Trainer, clock

Renew = Callable[[LearningCurve], Renewal | None]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for those who watch."""

    step: int
    max_steps: int
    accuracy: float
    renewal: Renewal | None = None


def retrain(
    model: nn.Module,
    job: Retraining,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    features: Features | None = None,
    step_cost: StepCost | None = None,
    model_name: str = "",
    forecast_id: str | None = None,
    checkpoint: Checkpoint | None = None,
    tariff: Tariff | None = None,
    watch: Callable[[Progress], None] | None = None,
    renew: Renew | None = None,
) -> Update:
    """Retrain a model until it reaches its target, and measure what that takes.

    The test accuracy is looked at before the first step and then every ``recipe.evaluate_every`` steps (or
    after each epoch); the run ends at the first look at or above the target, or by the paper's tolerance
    rule at the end of an epoch, or with the last epoch, or when a budget is used up. With a fixed number of epochs
    it goes on whatever it sees. Costs are of the training steps alone.

    Args:
        model: Trained in place.
        job: What is to be done.
        meter: Measures the run; its energy is shared between training and evaluation by time.
        grid: The electricity it runs on; without it carbon is None.
        features: What was known beforehand; None evaluates accuracy and loss alone.
        step_cost: Probed cost of a step, for the energy of a run too short for the meter; None probes then.
        model_name: For the record.
        forecast_id: The forecast that this run settles.
        checkpoint: Where the run leaves what it takes to go on after an interruption; None leaves nothing. The file
            stays after the run, until :meth:`resque.checkpoints.Checkpoint.remove` says that the update has been kept.
        tariff: What it is paid by.
        watch: Called after each evaluation.
        renew: Renews the forecast by the curve so far, see :class:`resque.renewal.Renewing`; asked after each
            evaluation, as a part of it.

    Returns:
        The update, complete whether or not it reached its target.

    Raises:
        DataError: Fewer samples than classes, or labels that are no outputs of the model.
        ModelError: The model does not take the data.
        SettingError: A budget in kWh, and no meter that knows energy.

    Example:
        >>> from resque.data import load_data
        >>> from resque.energy import ClockMeter
        >>> from resque.networks import small_cnn
        >>> from resque.recipes import RECIPES
        >>> digits = load_data("digits@16px")
        >>> job = Retraining(digits.part("train"), digits.part("test"), 0.5, RECIPES["train-adam"])
        >>> update = retrain(small_cnn(), job, meter=ClockMeter())
        >>> update.reached, update.cost.steps > 0, update.cost.energy_kwh is None
        (True, True, True)
    """
    check_fits(model, job.train)
    check_fits(model, job.test)
    parent, before = job.parent or fingerprint(model), _original_accuracy(model, job)
    if job.recipe.max_kwh is not None and step_cost is None:
        step_cost = probe(model, job.train, job.recipe, meter)
    if job.recipe.max_kwh is not None and (step_cost is None or step_cost.energy_kwh is None):
        raise SettingError("a budget in kWh needs a meter that knows energy: install resque[energy], or use max_hours")
    with torch.random.fork_rng():
        flops_per_step = _warm_up(copy.deepcopy(model), job)
        torch.manual_seed(job.seed)
        trainer = Trainer(model, job.train, job.recipe, job.seed)
        try:
            run = _Run(model, trainer, job, step_cost, watch, renew)
            _go_on(run, meter, None if checkpoint is None else checkpoint.path(parent, job), checkpoint)
        finally:
            trainer.end()
    model.eval()
    curve, energy = run.curve, joined(run.readings)
    if energy.energy_kwh is None and energy.methods and curve.steps[-1] and step_cost is None:
        step_cost = probe(model, job.train, job.recipe, meter)  # a step costs the same with other weights
    energy = _short_run_energy(energy, curve, step_cost)
    return Update(
        id=run.id,
        started_utc=run.started_utc,
        created_utc=utc_now(),
        model=model_name or type(model).__name__,
        parent=parent,
        child=fingerprint(model),
        train_data=job.train.name,
        test_data=job.test.name,
        kind=job.shift_kind,
        recipe=plain_recipe(job.recipe),
        seed=job.seed,
        target_accuracy=job.target_accuracy,
        reached=curve.first_at(job.target_accuracy) is not None,
        stopped_by=run.stopped_by or "",
        features=features or Features(None, curve.accuracy[0], curve.loss[0]),
        curve=curve,
        cost=_cost(curve, job, energy, step_cost, grid, flops_per_step),
        evaluation_s=run.evaluation_s,
        energy=energy,
        grid=grid,
        original_accuracy_before=before,
        original_accuracy_after=_original_accuracy(model, job),
        forecast_id=forecast_id,
        host=host(device_of(model)),
        trainable_share=trainer.tuning.share,
        resumed=run.resumed,
        tariff=tariff,
        from_scratch=job.from_scratch,
        digest=job.digest,
        renewals=tuple(run.renewals),
    )


def host(device: torch.device) -> dict[str, str]:
    """The machine and versions that a cost belongs to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _warm_up(model: nn.Module, job: Retraining) -> float:
    """Steps on a throw-away copy: what only the first ones in a process pay for is no cost of the update.

    Returns:
        Floating point operations of one step, forward and backward.
    """
    recipe = dataclasses.replace(job.recipe, compile=False)  # compiling is paid for by the update that wants it
    trainer = Trainer(model, job.train, recipe, job.seed)
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    batch = next(job.train.batches(recipe.batch_size, device_of(model)))
    with FlopCounterMode(display=False) as counter:
        trainer.forward_and_backward(*batch)
    return float(counter.get_total_flops())


class _Run:
    """A run in progress: what it has seen so far, and when it ends."""

    def __init__(
        self,
        model: nn.Module,
        trainer: Trainer,
        job: Retraining,
        step_cost: StepCost | None,
        watch: Callable[[Progress], None] | None,
        renew: Renew | None,
    ) -> None:
        self.renewals: list[Renewal] = []
        self.readings: list[EnergyReading] = []
        self.evaluation_s = self._training_s = 0.0
        self.stopped_by: str | None = None
        self.id, self.started_utc, self.resumed = new_id(), utc_now(), 0
        self._rows: list[tuple[float, ...]] = []
        self._by_epoch: list[float] = []
        self._model, self._trainer, self._job, self._watch, self._renew = model, trainer, job, watch, renew
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
        start, first = clock(self._model), self._trainer.step_count
        while self.stopped_by is None:
            if not self._rows or self._rows[-1][0] != self._trainer.step_count:
                self._look()
            at_end = self._trainer.step_count > first and not self._trainer.within_epoch
            if self.stopped_by is not None or (at_end and clock(self._model) - start >= for_s):
                return
            self._train()

    def _look(self) -> None:
        job, trainer, start = self._job, self._trainer, clock(self._model)
        accuracy, loss = evaluate(self._model, self._test.batches(EVALUATION_BATCH, device_of(self._model)))
        totals = trainer.tally.totals(trainer.within_epoch)
        self._rows.append((trainer.step_count, accuracy, loss, self._training_s, *totals))
        renewal = self._renew(self.curve) if self._renew else None
        if renewal is not None:
            self.renewals.append(renewal)
        self.evaluation_s += clock(self._model) - start
        if self._watch:
            latest = self.renewals[-1] if self.renewals else None
            self._watch(Progress(trainer.step_count, job.max_steps, accuracy, latest))
        if trainer.step_count and not trainer.within_epoch:
            self._by_epoch.append(accuracy)
        self.stopped_by = self._verdict(accuracy, loss)

    def _train(self) -> None:
        trainer, start = self._trainer, clock(self._model)
        every = self._job.recipe.evaluate_every or trainer.steps_per_epoch
        earliest = trainer.step_count * (1.0 + self._job.recipe.evaluate_growth)
        trainer.step()
        while trainer.within_epoch and (trainer.step_count % every or trainer.step_count < earliest):
            trainer.step()
        self._training_s += clock(self._model) - start

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
            "readings": [to_plain(reading) for reading in self.readings],
            "renewals": [to_plain(renewal) for renewal in self.renewals],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._trainer.restore(state["trainer"])
        self.id, self.stopped_by = state["id"], state["stopped_by"]
        self._rows = [tuple(row) for row in state["rows"]]
        self._by_epoch = list(state["by_epoch"])
        self._training_s, self.evaluation_s = state["training_s"], state["evaluation_s"]
        self.started_utc, self.resumed = state["started_utc"], state["resumed"] + 1
        self.readings = [from_plain(EnergyReading, reading) for reading in state["readings"]]
        self.renewals = [from_plain(Renewal, renewal) for renewal in state.get("renewals", ())]


def _go_on(run: _Run, meter: EnergyMeter, path: Path | None, checkpoint: Checkpoint | None) -> None:
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


def _short_run_energy(reading: EnergyReading, curve: LearningCurve, step_cost: StepCost | None) -> EnergyReading:
    """Say how the energy of a run below the meter's shortest window is known."""
    if reading.energy_kwh is not None or step_cost is None or step_cost.energy_kwh is None:
        return reading
    note = f"{reading.note}: {curve.steps[-1]} steps × probed energy"
    return dataclasses.replace(reading, note=note)


def _cost(
    curve: LearningCurve,
    job: Retraining,
    energy: EnergyReading,
    step_cost: StepCost | None,
    grid: Grid | None,
    flops_per_step: float,
) -> Cost:
    steps, wall_s = curve.steps[-1], curve.wall_s[-1]
    energy_kwh = shared(energy, wall_s)
    if energy_kwh is None and energy.methods and steps == 0:
        energy_kwh = 0.0
    if energy_kwh is None and step_cost is not None and step_cost.energy_kwh is not None:
        energy_kwh = steps * step_cost.energy_kwh
    whole, rest = divmod(steps, job.steps_per_epoch)
    samples = whole * job.samples_per_epoch + rest * job.recipe.batch_size
    return Cost(
        epochs=steps / job.steps_per_epoch,
        steps=steps,
        samples=samples,
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=wall_s,
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
        flops=flops_per_step / min(job.recipe.batch_size, len(job.train)) * samples if flops_per_step else None,
    )


def _original_accuracy(model: nn.Module, job: Retraining) -> float | None:
    if job.original_test is None:
        return None
    return evaluate(model, job.original_test.batches(EVALUATION_BATCH, device_of(model)))[0]


def is_of(update: Update, parent: str, job: Retraining) -> bool:
    """Whether an update is what this job would do to the model of that fingerprint."""
    said = update.parent, update.train_data, update.test_data, dict(update.recipe), update.seed, update.target_accuracy
    asked = parent, job.train.name, job.test.name, plain_recipe(job.recipe), job.seed, job.target_accuracy
    return said == asked and update.kind == job.shift_kind and update.digest == job.digest
