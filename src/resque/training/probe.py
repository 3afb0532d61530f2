"""Measure the cost of one training step on this machine, on a copy of the model."""

import copy
import math

from torch import nn

from resque.data.dataset import LabeledDataset
from resque.energy.clock import now
from resque.energy.load import others_busy_share, processor_times
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading, energy_share
from resque.ledger.records import StepCost
from resque.models.inference import device_of
from resque.models.randomness import isolated_random_state
from resque.training.recipe import Recipe
from resque.training.trainer import Trainer

__all__ = ["WARM_UP_STEPS", "forecast_overhead", "probe"]

WARM_UP_STEPS = 2
"""Steps before a measurement: the first ones in a process also pay for imports, allocation and thread start."""
_MIN_PROBE_STEPS = 5


def probe(model: nn.Module, data: LabeledDataset, recipe: Recipe, meter: EnergyMeter) -> StepCost:
    """Measure the cost of a training step from a few real steps on a copy of the model.

    The probe takes at least five steps, and at least 1.2 times the meter's shortest window.

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
    trainer, device = Trainer(copy.deepcopy(model), data, recipe, seed=0), device_of(model)
    with isolated_random_state(device), meter.window() as window:
        block = trainer.steps_per_block
        _take_steps(trainer, _whole_blocks(WARM_UP_STEPS, block))
        steps, wall_s, start, before = 0, 0.0, now(device), processor_times()
        while wall_s < (least_s := 1.2 * meter.shortest_s) or steps < _MIN_PROBE_STEPS:
            # A GPU is waited for few times: a wait after each step would cost more than the step.
            missing = steps * (least_s - wall_s) / wall_s if steps else _MIN_PROBE_STEPS
            more = _whole_blocks(min(missing, max(steps, _MIN_PROBE_STEPS)), block)
            _take_steps(trainer, more)
            steps, wall_s = steps + more, now(device) - start
        load = others_busy_share(before, processor_times())
    energy_kwh = energy_share(window.reading, wall_s)
    return StepCost(wall_s / steps, None if energy_kwh is None else energy_kwh / steps, steps, window.reading, load)


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


def _whole_blocks(steps: float, block: int) -> int:
    """Return a number of steps rounded up to whole blocks, at least one."""
    return max(1, math.ceil(steps / block)) * block


def _take_steps(trainer: Trainer, steps: int) -> None:
    for _ in range(steps):
        trainer.step()
