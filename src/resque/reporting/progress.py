"""Progress as plain lines, for a stream that is no terminal: no carriage returns, and never silent for long."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from resque._format import format_about

__all__ = ["PlainProgress", "print_lines"]

_SILENT_S, _POLL_S = 2.0, 0.25
_GROWTH = 0.1  # a run of an hour has no line every two seconds


@dataclass
class PlainProgress:
    """Decides when a line is due, and what it says.

    The first is due after two seconds, each further one after two seconds more, or 10 % of the time so far.

    Attributes:
        description: What is done.
        began_s: Time of its beginning.
        done: Number of finished parts.
        total: Number of all parts; zero while it is unknown.
        detail: What is done at the moment.

    Example:
        >>> progress = PlainProgress("training", began_s=0.0)
        >>> progress.report(1, 4, "accuracy 0.5")
        >>> progress.line(1.0), progress.line(2.0), progress.line(3.0)
        (None, 'training: 1 of 4, 2 s, about 6 s left, accuracy 0.5', None)
    """

    description: str
    began_s: float
    done: int = 0
    total: int = 0
    detail: str = ""
    _last_s: float | None = None

    def report(self, done: int, total: int, detail: str = "") -> None:
        """Take note of how far it is."""
        self.done, self.total, self.detail = done, total, detail

    def line(self, now_s: float) -> str | None:
        """Return the line that is due at a time; None if there is none."""
        elapsed_s = now_s - self.began_s
        last_s = self.began_s if self._last_s is None else self._last_s
        if now_s - last_s < max(_SILENT_S, _GROWTH * elapsed_s):
            return None
        self._last_s = now_s
        left_s = elapsed_s * (self.total - self.done) / self.done if 0 < self.done <= self.total else None
        parts = [f"{self.done:,} of {self.total:,}"] if self.total else []
        parts.append(format_about("wall_s", elapsed_s))
        parts += [] if left_s is None else [f"about {format_about('wall_s', left_s)} left"]
        return f"{self.description}: {', '.join([*parts, *filter(None, [self.detail])])}"


@contextmanager
def print_lines(description: str, write: Callable[[str], None]) -> Iterator[Callable[[int, int, str], None]]:
    """Write the lines that are due while the block runs; the block gets ``report(done, total, detail)``.

    Args:
        description: What is done.
        write: Writes a line.
    """
    progress, ended = PlainProgress(description, time.monotonic()), threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_S):
            if (line := progress.line(time.monotonic())) is not None:
                with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                    write(line)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield progress.report
    finally:
        ended.set()
        thread.join()
