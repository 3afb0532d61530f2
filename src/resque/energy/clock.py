"""Wall-clock time that includes the work still pending on a device."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["now", "timed"]

Result = TypeVar("Result")


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


def timed(device: torch.device, work: Callable[[], Result]) -> tuple[Result, float]:
    """Call a function; return its result, and the seconds until the device has done all work.

    Example:
        >>> import torch
        >>> result, seconds = timed(torch.device("cpu"), lambda: 5)
        >>> result, seconds >= 0.0
        (5, True)
    """
    start = now(device)
    return work(), now(device) - start
