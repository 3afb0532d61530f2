"""Describe the machine that a cost was measured on."""

import platform

import torch


def describe_host(device: torch.device) -> dict[str, str]:
    """The machine and versions that a cost belongs to."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
