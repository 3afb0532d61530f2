"""Measured work as tasks for other processes, each with a meter of its own machine."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.energy.meters import CodecarbonMeter, EnergyMeter, open_meter
from resque.energy.reading import EnergyReading
from resque.ledger.serialization import from_dict
from resque.models.inference import device_of
from resque.models.randomness import isolated_random_state
from resque.training.job import RetrainingJob
from resque.training.pilot import run_pilot
from resque.training.probe import probe, warm_up
from resque.training.recipe import Recipe
from resque.training.run import RunSettings
from resque.workflows.engine import ExperimentTask, Row

__all__ = ["measured_task", "pilot_elsewhere", "probe_elsewhere"]


def measured_task(key: str, work: Callable[..., Row], meter: EnergyMeter, **arguments: Any) -> ExperimentTask:
    """Return work as a task for another process.

    Args:
        key: Name of the task.
        work: Function of a module, with an argument ``meter`` that is None where the worker opens one of its own.
        meter: Meter of the driver; one that reads hardware stands for that of the worker.
        arguments: The other arguments.

    Example:
        >>> from resque.energy.meters import ClockMeter
        >>> measured_task("a", dict, ClockMeter(), steps=3).is_metered
        False
    """
    own = None if isinstance(meter, CodecarbonMeter) else meter
    return ExperimentTask(key, work, {**arguments, "meter": own}, is_metered=bool(meter.methods))


def probe_elsewhere(
    network: nn.Module, data: LabeledDataset, recipe: Recipe, device: str, meter: EnergyMeter | None
) -> Row:
    """Measure a training step on a worker; return its cost."""
    network = network.to(device)
    return {"step_cost": probe(network, data, recipe, meter or open_meter(device_of(network)))}


def pilot_elsewhere(
    network: nn.Module,
    job: RetrainingJob,
    changes: Mapping[str, Any],
    steps: int,
    begun: Mapping[str, Any] | None,
    device: str,
    meter: EnergyMeter | None,
) -> Row:
    """Make or continue a pilot on a worker.

    Args:
        network: Model to be updated, on the CPU.
        job: Job of an update of the model, which several pilots share.
        changes: Differences of this pilot's job; beside it ``fingerprint`` of the model, and ``step_cost``.
        steps: Steps of the pilot.
        begun: State of a shorter pilot.
        device: Type of the device.
        meter: Meter; None opens one.

    Returns:
        The pilot, its state with tensors on the CPU, and the readings of the training that was done now.
    """
    network, own = network.to(device), dict(changes)
    parent, step_cost = str(own.pop("fingerprint")), own.pop("step_cost")
    job, settings = dataclasses.replace(job, **own), RunSettings(meter or open_meter(device_of(network)), step_cost)
    with isolated_random_state(device_of(network)):  # its probe may have been in another process
        warm_up(copy.deepcopy(network), job)
    pilot, state = run_pilot(network, job, steps, parent, settings, begun)
    before = 0 if begun is None else len(begun["readings"])
    spent = [from_dict(EnergyReading, reading) for reading in state["readings"][before:]]
    return {"pilot": pilot, "state": _on_cpu(state), "spent": spent}


def _on_cpu(value: Any) -> Any:
    """Return a state whose tensors a process without this device can read."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(each) for key, each in value.items()}
    return [_on_cpu(each) for each in value] if isinstance(value, list) else value
