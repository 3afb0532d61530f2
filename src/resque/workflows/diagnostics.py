"""What this machine offers: versions, devices, the meter and how it knows what it says."""

import importlib.util
import platform
from typing import Any

import torch

from resque import __version__
from resque.energy.meters import EnergyMeter

EXTRAS = ("codecarbon", "torchmetrics", "timm", "torchvision", "transformers", "datasets", "kornia", "peft")


def machine_facts(meter: EnergyMeter) -> dict[str, Any]:
    """Versions, devices, threads, meter and installed extras."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "resque": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": ["cpu", *gpus],
        "threads": torch.get_num_threads(),
        "meter": meter.name,
        "energy": dict(meter.methods) or "not measured: install resque[energy]",
        "extras": {name: importlib.util.find_spec(name) is not None for name in EXTRAS},
    }


def machine_warnings(meter: EnergyMeter) -> list[str]:
    """What the owner of this machine should know before believing its energy figures."""
    if meter.methods and "measured" not in meter.methods.values():
        return ["no hardware counter is readable: energy is modelled or assumed, not measured"]
    return []
