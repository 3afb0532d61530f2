"""Run a command in all processes that torchrun started: the first prints and writes, one line tells what went wrong."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from resque._processes import ALONE, LONGEST, Processes, together
from resque.errors import SettingError

__all__ = ["Torchrun"]

_COMMANDS = ("profile", "dist", "task", "retrain")
_LAUNCHED = "TORCHELASTIC_RUN_ID"
_FAILED, _SAID = "resque failed", "resque said why"
_PATIENCE = timedelta(seconds=5)


class Torchrun:
    """The processes of torchrun; a process alone where torchrun started none, or one.

    Attributes:
        processes: This process among them.
    """

    def __init__(self) -> None:
        self.processes = ALONE
        self._store: Any = None
        self._stderr = -1
        if _LAUNCHED in os.environ and int(os.environ["WORLD_SIZE"]) > 1:
            self.processes = Processes(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    @contextmanager
    def joined(self, arguments: Sequence[str]) -> Iterator[None]:
        """Connect the processes while the block runs; all but the first are silent.

        Raises:
            SettingError: The command does not run in several processes.
        """
        if self.processes.count == 1:
            yield
            return
        if self.processes.rank:
            self._silence()
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        self._store, rank, count = next(rendezvous("env://"))
        dist.init_process_group("gloo", store=self._store, rank=rank, world_size=count, timeout=LONGEST)
        command = next((each for each in arguments if not each.startswith("-")), "")
        if command not in _COMMANDS:
            raise SettingError(
                f"{' '.join(['resque', command]).strip()} runs in one process, and torchrun started "
                f"{self.processes.count}: leave torchrun out; {', '.join(_COMMANDS)} take it"
            )
        try:
            with together(self.processes):
                yield
        except SystemExit as stop:
            if stop.code:  # wrong usage, of which the first process has told
                self._said() if self.processes.rank == 0 else self._wait()
            else:
                dist.destroy_process_group()
            raise

    def tell(self, message: str, show: Callable[[str], None]) -> None:
        """Show what went wrong, once for all processes: by the first that fails.

        Args:
            message: One line.
            show: Shows it on stderr.
        """
        if self._store is None:
            show(message)
            return
        try:
            if self._store.add(_FAILED, 1) > 1:
                self._wait()
                return
        except Exception:  # the process that keeps the store has ended, and said why
            return
        if self._stderr >= 0:
            os.dup2(self._stderr, 2)
        show(message)
        self._said()

    def _said(self) -> None:
        with suppress(Exception):
            self._store.set(_SAID, "")

    def _wait(self) -> None:
        """Wait until the other has told: torchrun ends all processes as soon as one has ended."""
        with suppress(Exception):
            self._store.wait([_SAID], _PATIENCE)

    def _silence(self) -> None:
        sys.stdout.flush()
        self._stderr = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)
