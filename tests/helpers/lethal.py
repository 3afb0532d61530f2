"""A meter for workers of a cluster, in a module that they can import."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resque.energy.meters import ClockMeter, Window


class LethalMeter(ClockMeter):
    """A clock that kills the first process that measures with it, at the end of its first window."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    @contextmanager
    def window(self) -> Iterator[Window]:
        with super().window() as window:
            yield window
        try:
            (Path(self.folder) / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
