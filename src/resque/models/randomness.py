"""Random state of PyTorch on the CPU and on one device: kept from the outside, and set by a seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["isolated_random_state"]


@contextmanager
def isolated_random_state(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Restore the random state of the CPU and of a device at the end of the block; other devices are not touched.

    Args:
        device: Device on which the block draws random numbers.
        seed: Seed for the block; None goes on from the current state.

    Example:
        >>> with isolated_random_state(torch.device("cpu"), seed=0):
        ...     first = torch.rand(3)
        >>> with isolated_random_state(torch.device("cpu"), seed=0):
        ...     torch.equal(torch.rand(3), first)
        True
    """
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            elif device.type == "mps":
                torch.mps.manual_seed(seed)
        yield
