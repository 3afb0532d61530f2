"""The processes that share one command, as torchrun starts them: each passes a shard, and they exchange results once.

Results travel over the CPU (gloo), whatever device computes them, so that no device has to wait for another.
"""

import io
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from resque.errors import ResqueError

__all__ = ["ALONE", "LONGEST", "Processes", "current_processes", "lost_process", "together"]

LONGEST = timedelta(days=30)
"""Time that a process may take longer than another; torchrun ends the others of one that was killed."""
Value = TypeVar("Value")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among those of a command.

    Attributes:
        rank: Number of this process, from 0; the first prints and writes.
        count: Number of processes.
        local_rank: Number of this process among those of its node, from 0; the first measures the node's energy.

    Example:
        >>> ALONE.shard, ALONE.combine(3, sum)
        (None, 3)
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def shard(self) -> tuple[int, int] | None:
        """Number and count of the shard that this process passes; None for a process alone."""
        return (self.rank + 1, self.count) if self.count > 1 else None

    def device(self, name: str) -> str:
        """Return the device of this process: each takes a GPU of its own where only its kind is named.

        Example:
            >>> Processes(3, 4, local_rank=1).device("cuda"), ALONE.device("cuda"), Processes(1, 2, 1).device("cpu")
            ('cuda:1', 'cuda', 'cpu')
        """
        return f"cuda:{self.local_rank}" if name == "cuda" and self.count > 1 else name

    def combine(self, value: Value, function: Callable[[list[Value]], Result]) -> Result:
        """Return a function of the values of all processes, in their order; each process gets the result.

        The function runs in the first process. Tensors arrive on the CPU.

        Args:
            value: Value of this process.
            function: Function of the list of all values.
        """
        if self.count == 1:
            return function([value])
        with _of_others():
            packed = _gathered(_packed(value), self.rank, self.count)
        return self.first(lambda: function([_unpacked(each) for each in packed or ()]))

    def first(self, function: Callable[[], Result]) -> Result:
        """Return what a function returns in the first process, which alone calls it; each process gets the result.

        What depends on a clock, a file or a random number is decided so. In the function the first process is alone.

        Args:
            function: Function whose result can travel: plain values, tensors, and records of this package.

        Example:
            >>> ALONE.first(lambda: 3)
            3
        """
        if self.count == 1:
            return function()
        result = b""
        if self.rank == 0:
            with together(ALONE):
                result = _packed(function())
        with _of_others():
            received: Result = _unpacked(_broadcast(result))
        return received


ALONE = Processes()
_CURRENT: ContextVar[Processes] = ContextVar("processes", default=ALONE)


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """Say that a command runs in several processes in this block."""
    token = _CURRENT.set(processes)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_processes() -> Processes:
    """Return the processes of the command that runs; a process alone for a call from Python.

    Example:
        >>> with together(Processes(1, 2)):
        ...     current_processes().shard
        (2, 2)
    """
    return _CURRENT.get()


@contextmanager
def _of_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise lost_process() from error


def lost_process() -> ResqueError:
    """Return the error of a process that waits for another, which has ended.

    Example:
        >>> str(lost_process())[:50]
        'another process of the command ended before it gav'
    """
    return ResqueError(
        "another process of the command ended before it gave its result: see what it said, or the system's log if "
        "it was killed, and run the command again"
    )


def _packed(value: Any) -> bytes:
    import torch

    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Any:
    """Read a value of another process: tensors, arrays, plain values and classes of this package, but no other code."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    names = get_unsafe_globals_in_checkpoint(io.BytesIO(packed))
    own = [pkgutil.resolve_name(name) for name in names if name.startswith("resque.")]
    with safe_globals([each for each in own if isinstance(each, type)] + _names_of_arrays()):
        return torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)


def _names_of_arrays() -> list[Any]:
    """Return the types and functions that NumPy's arrays and numbers name when they travel."""
    import numpy as np

    makers = [value.__reduce__()[0] for value in (np.zeros(1), np.float64(1))]
    return [np.ndarray, np.dtype, *makers, *{type(np.dtype(code)) for code in "?bBhilqfd"}]


def _gathered(packed: bytes, rank: int, count: int) -> list[bytes] | None:
    """Return the bytes of all processes in the first one, None in the others."""
    import torch
    import torch.distributed as dist

    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(count)]
    dist.all_gather(sizes, torch.tensor([len(packed)]))
    longest = max(int(size) for size in sizes)
    padded = torch.frombuffer(bytearray(packed.ljust(longest, b"\0")), dtype=torch.uint8)
    parts = [torch.empty_like(padded) for _ in range(count)] if rank == 0 else None
    dist.gather(padded, parts)
    if parts is None:
        return None
    return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]


def _broadcast(packed: bytes) -> bytes:
    """Return the bytes of the first process."""
    import torch
    import torch.distributed as dist

    size = torch.tensor([len(packed)])
    dist.broadcast(size, 0)
    data = torch.frombuffer(bytearray(packed or bytes(int(size))), dtype=torch.uint8)
    dist.broadcast(data, 0)
    return data.numpy().tobytes()
