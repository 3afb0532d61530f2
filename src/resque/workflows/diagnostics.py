"""Diagnostics: versions, devices and energy meter of this machine."""

import importlib.util
import platform
from typing import Any

import torch

from resque import __version__
from resque.energy.meters import EnergyMeter

__all__ = ["machine_facts", "machine_warnings"]

_EXTRAS = ("codecarbon", "torchmetrics", "timm", "torchvision", "transformers", "datasets", "kornia", "peft")


def machine_facts(meter: EnergyMeter) -> dict[str, Any]:
    """Return versions, devices, number of threads, meter, and which optional packages are installed.

    Example:
        >>> from resque.energy.meters import ClockMeter
        >>> machine_facts(ClockMeter())["meter"]
        'clock only'
    """
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "resque": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": ["cpu", *gpus],
        "threads": torch.get_num_threads(),
        "meter": meter.name,
        "energy": dict(meter.methods) or "not measured: install resque[energy]",
        "extras": {name: importlib.util.find_spec(name) is not None for name in _EXTRAS},
    }


def machine_warnings(meter: EnergyMeter) -> list[str]:
    """Return warnings about the energy figures of this machine, if any.

    Example:
        >>> from resque.energy.meters import ClockMeter
        >>> machine_warnings(ClockMeter())
        []
    """
    if meter.methods and "measured" not in meter.methods.values():
        return ["no hardware counter is readable: energy is modeled from processor time, good to compare runs here"]
    return []
