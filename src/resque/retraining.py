"""A measured update: recipe + stop rule + meter → the cost of reaching a target, with its learning curve."""

import copy
import dataclasses
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from resque.asking import WARM_UP_STEPS, check_fits, probe
from resque.energy import EnergyMeter, shared
from resque.measures import EVALUATION_BATCH, evaluate, stop_epoch
from resque.models import fingerprint
from resque.readings import EnergyReading, Grid
from resque.recipes import Retraining, plain_recipe
from resque.records import Cost, Features, LearningCurve, StepCost, Update, new_id, utc_now
from resque.representations import device_of
from resque.trainer import Trainer, clock


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for those who watch."""

    step: int
    max_steps: int
    accuracy: float


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
    watch: Callable[[Progress], None] | None = None,
) -> Update:
    """Retrain a model until it reaches its target, and measure what that takes.

    The test accuracy is looked at before the first step and then every ``recipe.evaluate_every`` steps (or
    after each epoch); the run ends at the first look at or above the target, or by the paper's tolerance
    rule at the end of an epoch, or with the last epoch. Costs are of the training steps alone.

    Args:
        model: Trained in place.
        job: What is to be done.
        meter: Measures the run; its energy is shared between training and evaluation by time.
        grid: The electricity it runs on; without it carbon is None.
        features: What was known beforehand; None evaluates accuracy and loss alone.
        step_cost: Probed cost of a step, for the energy of a run too short for the meter; None probes then.
        model_name: For the record.
        forecast_id: The forecast that this run settles.
        watch: Called after each evaluation.

    Returns:
        The update, complete whether or not it reached its target.

    Raises:
        DataError: Fewer samples than classes, or labels that are no outputs of the model.
        ModelError: The model does not take the data.

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
    parent, forgetting = fingerprint(model), [_original_accuracy(model, job)]
    started_utc = utc_now()
    with torch.random.fork_rng():
        _warm_up(copy.deepcopy(model), job)
        torch.manual_seed(job.seed)
        trainer = Trainer(model, job.train, job.recipe, job.seed)
        with meter.window() as window:
            curve, stopped_by, evaluation_s = _run(model, trainer, job, watch)
    model.eval()
    forgetting.append(_original_accuracy(model, job))
    if window.reading.energy_kwh is None and window.reading.methods and curve.steps[-1] and step_cost is None:
        step_cost = probe(model, job.train, job.recipe, meter)  # a step costs the same with other weights
    energy = _short_run_energy(window.reading, curve, step_cost)
    cost = _cost(curve, job, energy, step_cost, grid)
    return Update(
        id=new_id(),
        started_utc=started_utc,
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
        reached=stopped_by == "target",
        stopped_by=stopped_by,
        features=features or Features(None, curve.accuracy[0], curve.loss[0]),
        curve=curve,
        cost=cost,
        evaluation_s=evaluation_s,
        energy=energy,
        grid=grid,
        original_accuracy_before=forgetting[0],
        original_accuracy_after=forgetting[1],
        forecast_id=forecast_id,
        host=host(model),
    )


def host(model: nn.Module) -> dict[str, str]:
    """The machine and versions that a cost belongs to."""
    device = device_of(model)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _warm_up(model: nn.Module, job: Retraining) -> None:
    """Steps on a throw-away copy: what only the first ones in a process pay for is no cost of the update."""
    trainer = Trainer(model, job.train, job.recipe, job.seed)
    for _ in range(WARM_UP_STEPS):
        trainer.step()


def _run(
    model: nn.Module, trainer: Trainer, job: Retraining, watch: Callable[[Progress], None] | None
) -> tuple[LearningCurve, str, float]:
    every = job.recipe.evaluate_every or trainer.steps_per_epoch
    rows: list[tuple[float, ...]] = []
    by_epoch: list[float] = []
    training_s = evaluation_s = 0.0
    stopped_by = None
    while stopped_by is None:
        start = clock(model)
        accuracy, loss = evaluate(model, job.test.batches(EVALUATION_BATCH, device_of(model)))
        evaluation_s += clock(model) - start
        rows.append((trainer.step_count, accuracy, loss, training_s, *trainer.tally.totals(trainer.within_epoch)))
        if watch:
            watch(Progress(trainer.step_count, job.max_steps, accuracy))
        if trainer.step_count and not trainer.within_epoch:
            by_epoch.append(accuracy)
        stopped_by = _verdict(job, accuracy, loss, by_epoch)
        if stopped_by is None:
            start = clock(model)
            trainer.step()
            while trainer.within_epoch and trainer.step_count % every:
                trainer.step()
            training_s += clock(model) - start
    names = [field.name for field in dataclasses.fields(LearningCurve)][:-1]
    columns: dict[str, Any] = dict(zip(names, zip(*rows, strict=True), strict=True))
    curve = LearningCurve(**columns, steps_per_epoch=trainer.steps_per_epoch)
    return curve, stopped_by, evaluation_s


def _verdict(job: Retraining, accuracy: float, loss: float, by_epoch: list[float]) -> str | None:
    if accuracy >= job.target_accuracy:
        return "target"
    if not math.isfinite(loss):
        return "diverged"
    return stop_epoch(by_epoch, job.target_accuracy, job.recipe.tolerances, job.recipe.max_epochs)[1]


def _short_run_energy(reading: EnergyReading, curve: LearningCurve, step_cost: StepCost | None) -> EnergyReading:
    """Say how the energy of a run below the meter's shortest window is known."""
    if reading.energy_kwh is not None or step_cost is None or step_cost.energy_kwh is None:
        return reading
    note = f"{reading.note}: {curve.steps[-1]} steps × probed energy"
    return dataclasses.replace(reading, note=note)


def _cost(
    curve: LearningCurve, job: Retraining, energy: EnergyReading, step_cost: StepCost | None, grid: Grid | None
) -> Cost:
    steps, wall_s = curve.steps[-1], curve.wall_s[-1]
    energy_kwh = shared(energy, wall_s)
    if energy_kwh is None and energy.methods and steps == 0:
        energy_kwh = 0.0
    if energy_kwh is None and step_cost is not None and step_cost.energy_kwh is not None:
        energy_kwh = steps * step_cost.energy_kwh
    whole, rest = divmod(steps, job.steps_per_epoch)
    return Cost(
        epochs=steps / job.steps_per_epoch,
        steps=steps,
        samples=whole * job.samples_per_epoch + rest * job.recipe.batch_size,
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=wall_s,
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
    )


def _original_accuracy(model: nn.Module, job: Retraining) -> float | None:
    if job.original_test is None:
        return None
    return evaluate(model, job.original_test.batches(EVALUATION_BATCH, device_of(model)))[0]
