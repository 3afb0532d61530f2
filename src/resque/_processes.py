"""The processes that share one command, as torchrun starts them: each passes a shard, and they exchange results once.

Results travel over the CPU (gloo), whatever device computes them, so that no device has to wait for another.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from resque.errors import ResqueError

__all__ = ["ALONE", "Processes", "current_processes", "together"]

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
        import torch.distributed as dist

        values: list[Any] | None = [None] * self.count if self.rank == 0 else None
        with _of_others():
            dist.gather_object(_packed(value), values)
        result = [None if values is None else _packed(function([_unpacked(each) for each in values]))]
        with _of_others():
            dist.broadcast_object_list(result)
        unpacked: Result = _unpacked(result[0] or b"")
        return unpacked


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
        raise ResqueError(
            "another process of the command ended before it gave its result: see what it said, or the system's log if "
            "it was killed, and run the command again"
        ) from error


def _packed(value: Any) -> bytes:
    import torch

    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def _unpacked(packed: bytes) -> Any:
    import torch

    return torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False)  # written by this very command
