"""Describe the machine that a cost was measured on."""

import platform
from typing import Any

import torch

__all__ = ["describe_host"]


def describe_host(device: torch.device) -> dict[str, str]:
    """Return the device, the number of threads and the versions that a cost was measured with.

    On a GPU also the version of cuDNN, and which operations on float32 may use the shorter TF32 format.

    Example:
        >>> sorted(describe_host(torch.device("cpu")))
        ['device', 'python', 'threads', 'torch']
    """
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else platform.processor() or platform.machine()
    facts = {
        "device": f"{device.type}: {name}",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain text, which travels between processes
    }
    if not on_gpu:
        return facts
    cudnn_version: Any = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    tf32 = {
        "convolutions": torch.backends.cudnn.allow_tf32,
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
    }
    allowed = ", ".join(operation for operation, allow in tf32.items() if allow)
    return {**facts, "cudnn": str(cudnn_version), "tf32": allowed or "none"}
