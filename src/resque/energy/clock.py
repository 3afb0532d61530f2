"""Wall-clock time that includes the work still pending on a device."""

import time

import torch

__all__ = ["now"]


def now(device: torch.device | None = None) -> float:
    """Return the wall-clock time in seconds, after pending work on the device has finished.

    Only differences between two calls mean something, as with ``time.perf_counter``.

    Args:
        device: Device to wait for; None waits for the current GPU, if there is one.

    Example:
        >>> start = now()
        >>> now() >= start
        True
    """
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
