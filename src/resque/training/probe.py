"""Measure the cost of one training step on this machine, on a copy of the model."""

import copy
import dataclasses
import functools
import math

import torch
from torch import nn

from resque._processes import current_processes
from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.energy.load import others_busy_share, processor_times
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading, energy_share
from resque.ledger.records import StepCost
from resque.models.inference import device_of
from resque.models.randomness import isolated_random_state
from resque.training.finetuning import STATISTICS
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.training.reestimation import Reestimation, open_trainer
from resque.training.trainer import Trainer

__all__ = ["forecast_overhead", "probe", "warm_up"]

WARM_UP_STEPS = 2
"""Steps before a measurement: the first ones in a process also pay for imports, allocation and thread start."""
_MIN_PROBE_STEPS = 5
_PASSED_SAMPLES, _PASSED_BATCHES = 1024, 10


def probe(model: nn.Module, data: LabeledDataset, recipe: Recipe, meter: EnergyMeter) -> StepCost:
    """Measure the cost of a training step from a few real steps on a copy of the model.

    The probe takes at least five steps, and at least 1.2 times the meter's shortest window. A head that is trained
    alone is probed on a part of the data, and the time of its pass is scaled to all of them. With ``trains=norm`` a
    step is a whole pass, and one is enough.

    Args:
        model: Model to retrain; unchanged.
        data: Training data.
        recipe: Training recipe.
        meter: Meter of time and energy.

    Returns:
        Seconds and energy per step, the reading of the probe itself, and the load of the machine by others.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.energy.meters import ClockMeter
        >>> from resque.models.networks import small_cnn
        >>> step_cost = probe(small_cnn(), load_data("digits@16px@500"), Recipe(), ClockMeter())
        >>> step_cost.steps >= 5, step_cost.wall_s > 0, step_cost.energy_kwh is None
        (True, True, True)
    """
    device, passed, processes = device_of(model), data, current_processes()
    if recipe.trains == "head" and not recipe.augmentation:
        passed = data.take(torch.arange(min(len(data), max(_PASSED_SAMPLES, _PASSED_BATCHES * recipe.batch_size))))
    trainer = open_trainer(copy.deepcopy(model), passed, recipe, seed=0)
    with isolated_random_state(device), meter.window() as window:
        block = processes.first(lambda: trainer.steps_per_block)  # the parts of a batch differ in size
        start_s, start = 0.0, now(device)
        trainer.prepare()
        if trainer.passes_once:
            start_s = (now(device) - start) * len(data) / len(passed)
        warm_up, least = (1, 1) if recipe.trains == STATISTICS else (WARM_UP_STEPS, _MIN_PROBE_STEPS)  # of whole passes
        _take_steps(trainer, _whole_blocks(warm_up, block))
        steps, wall_s, start, before = 0, 0.0, now(device), processor_times()
        least_s = 1.2 * meter.shortest_s
        while missing := processes.first(functools.partial(_missing_steps, steps, wall_s, least, least_s)):
            # A GPU is waited for few times: a wait after each step would cost more than the step.
            more = _whole_blocks(missing, block)
            _take_steps(trainer, more)
            steps, wall_s = steps + more, now(device) - start
        load = others_busy_share(before, processor_times()) if processes.count == 1 else None
    energy_kwh = energy_share(window.reading, wall_s)
    per_step = None if energy_kwh is None else energy_kwh / steps
    share = trainer.trainable_share
    return processes.first(lambda: StepCost(wall_s / steps, per_step, steps, window.reading, start_s, load, share))


def warm_up(model: nn.Module, job: RetrainingJob) -> tuple[Trainer | Reestimation, LabeledDataset]:
    """Take a few steps on a few samples, which change the model; return its trainer and these samples.

    The first steps in a process also pay for imports and allocation, which are not a cost of an update.

    Args:
        model: Copy of the model of the job.
        job: Job of the update.
    """
    recipe = dataclasses.replace(job.recipe, compile=False)  # an update that compiles pays for it
    few = job.train.take(torch.arange(min(len(job.train), WARM_UP_STEPS * recipe.batch_size)))
    trainer = open_trainer(model, few, recipe, job.seed)
    _take_steps(trainer, WARM_UP_STEPS)
    return trainer, few


def forecast_overhead(passes_s: float, step_cost: StepCost, forecasts: int = 1) -> EnergyReading:
    """Compute the cost of making one forecast: its forward passes and its share of the probe.

    Args:
        passes_s: Seconds of the forward passes. They are usually too short for a window of their own, so they are
            priced at the power of the probe.
        step_cost: Result of the probe.
        forecasts: Number of forecasts that share the probe.

    Example:
        >>> reading = EnergyReading(2.0, 0.004, {"cpu": 0.004}, {"cpu": "measured"}, "meter")
        >>> overhead = forecast_overhead(1.0, StepCost(0.1, 0.0002, 20, reading), forecasts=2)
        >>> overhead.wall_s, overhead.energy_kwh
        (2.0, 0.004)
    """
    probe_reading = step_cost.reading
    wall_s = passes_s + probe_reading.wall_s / forecasts
    energy_kwh = energy_share(probe_reading, wall_s)
    parts = {device: kwh * wall_s / probe_reading.wall_s for device, kwh in probe_reading.components_kwh.items()}
    note = f"passes {passes_s:.2f} s at the probe's power, and 1/{forecasts} of the probe"
    return EnergyReading(wall_s, energy_kwh, parts, probe_reading.methods, probe_reading.meter, note)


def _missing_steps(steps: int, wall_s: float, least: int, least_s: float) -> float:
    """Return how many steps a probe takes next, at most as many as it has taken; zero at its end."""
    if wall_s >= least_s and steps >= least:
        return 0.0
    return min(steps * (least_s - wall_s) / wall_s, steps) if steps else float(least)


def _whole_blocks(steps: float, block: int) -> int:
    """Return a number of steps rounded up to whole blocks, at least one."""
    return max(1, math.ceil(steps / block)) * block


def _take_steps(trainer: Trainer | Reestimation, steps: int) -> None:
    for _ in range(steps):
        trainer.step()
