"""Measure the cost of one training step on this machine, on a copy of the model."""

import copy

import torch
from torch import nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading, energy_share
from resque.ledger.records import StepCost
from resque.models.inference import device_of
from resque.training.recipe import Recipe
from resque.training.trainer import Trainer

WARM_UP_STEPS = 2
_MIN_PROBE_STEPS = 5


def forecast_overhead(passes_s: float, step_cost: StepCost, forecasts: int = 1) -> EnergyReading:
    """What one forecast took: its passes, at the probe's power, and its share of the probe.

    Args:
        passes_s: Seconds of the forward passes; as a rule too short for a meter's own window.
        step_cost: The probe.
        forecasts: How many forecasts share the probe.
    """
    probed = step_cost.reading
    wall_s = passes_s + probed.wall_s / forecasts
    energy_kwh = energy_share(probed, wall_s)
    parts = {device: kwh * wall_s / probed.wall_s for device, kwh in probed.components_kwh.items()}
    note = f"passes {passes_s:.2f} s at the probe's power, and 1/{forecasts} of the probe"
    return EnergyReading(wall_s, energy_kwh, parts, probed.methods, probed.meter, note)


def probe(model: nn.Module, data: LabeledDataset, recipe: Recipe, meter: EnergyMeter) -> StepCost:
    """What one training step costs on this machine: a few real steps on a copy; the model stays untouched."""
    trainer = Trainer(copy.deepcopy(model), data, recipe, seed=0)
    with torch.random.fork_rng():
        length_s = 1.2 * meter.shortest_s
        with meter.window() as window:
            block = trainer.steps_per_block
            _take(trainer, -(-WARM_UP_STEPS // block) * block)  # they pay for imports, allocation and thread start
            steps, start = 0, now(device_of(model))
            while now(device_of(model)) - start < length_s or steps < _MIN_PROBE_STEPS:
                _take(trainer, block)
                steps += block
            wall_s = now(device_of(model)) - start
    energy_kwh = energy_share(window.reading, wall_s)
    per_step = None if energy_kwh is None else energy_kwh / steps
    return StepCost(wall_s / steps, per_step, steps, window.reading)


def _take(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()
