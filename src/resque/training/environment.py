"""Describe the machine that a cost was measured on."""

import platform

import torch

__all__ = ["describe_host"]


def describe_host(device: torch.device) -> dict[str, str]:
    """Return the device, the number of threads and the versions that a cost was measured with.

    Example:
        >>> sorted(describe_host(torch.device("cpu")))
        ['device', 'python', 'threads', 'torch']
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
