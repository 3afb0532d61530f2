"""Progress as plain lines, where no bar is shown: no carriage returns, and never silent for long."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from resque._format import format_about

__all__ = ["PlainProgress", "current", "lines_of", "watched"]

_SILENT_S, _POLL_S = 2.0, 0.25
_GROWTH = 0.1  # a run of an hour has no line every two seconds


@dataclass
class PlainProgress:
    """Decides when a line is due, and what it says.

    A line is due after two seconds of silence, and later on after 10 % of the time so far.

    Attributes:
        description: Name of the work.
        began_s: Time of its beginning.
        done: Number of finished parts.
        total: Number of all parts; zero while it is unknown.
        detail: Present part of the work.
        first: Number of finished parts when there were some to see, and its time: the pace counts from there.

    Example:
        >>> progress = PlainProgress("training", began_s=0.0)
        >>> progress.report(1, 4, "accuracy 0.5")
        >>> progress.line(1.0, quiet_since_s=0.0), progress.line(2.0, quiet_since_s=0.0)
        (None, 'training: 1 of 4, 2 s, about 6 s left, accuracy 0.5')
    """

    description: str
    began_s: float
    done: int = 0
    total: int = 0
    detail: str = ""
    first: tuple[int, float] | None = None

    def report(self, done: int, total: int, detail: str = "") -> None:
        """Take note of how far it is."""
        self.done, self.total, self.detail = done, total, detail

    def line(self, now_s: float, quiet_since_s: float) -> str | None:
        """Return the line that is due at a time; None if there is none.

        Args:
            now_s: The time.
            quiet_since_s: Time of the last line, of this or of another progress.
        """
        elapsed_s = now_s - self.began_s
        if self.total:
            self.first = self.first or (self.done, now_s)
        if now_s - quiet_since_s < max(_SILENT_S, _GROWTH * elapsed_s):
            return None
        left_s = self._seconds_per_part(now_s) * (self.total - self.done) if 0 < self.done <= self.total else None
        parts = [f"{self.done:,} of {self.total:,}"] if self.total else []
        parts.append(format_about("wall_s", elapsed_s))
        parts += [] if left_s is None else [f"about {format_about('wall_s', left_s)} left"]
        return f"{self.description}: {', '.join([*parts, *filter(None, [self.detail])])}"

    def _seconds_per_part(self, now_s: float) -> float:
        done, at_s = self.first or (0, self.began_s)
        if self.done > done:
            return (now_s - at_s) / (self.done - done)
        return (now_s - self.began_s) / self.done


_shown: list[PlainProgress | None] = []


@contextmanager
def current(progress: PlainProgress | None) -> Iterator[None]:
    """Make a progress the one that lines are about while the block runs; None for a bar, which moves by itself."""
    _shown.append(progress)
    try:
        yield
    finally:
        _shown.pop()


def lines_of(now_s: float, quiet_since_s: float) -> tuple[str | None, float]:
    """Return the line that is due of the innermost progress, and since when it has been quiet then.

    Example:
        >>> with current(PlainProgress("loading", began_s=0.0)):
        ...     lines_of(1.0, 0.0), lines_of(3.0, 0.0)
        ((None, 0.0), ('loading: 3 s', 3.0))
    """
    progress = _shown[-1] if _shown else None
    if progress is None:
        return None, now_s
    line = progress.line(now_s, quiet_since_s)
    return line, quiet_since_s if line is None else now_s


@contextmanager
def watched(description: str, write: Callable[[str], None]) -> Iterator[None]:
    """Write the lines that are due while the block runs: of the innermost progress, or of the block itself.

    Args:
        description: Name of the work where nothing more is known.
        write: Writes a line.
    """
    ended, began_s = threading.Event(), time.monotonic()

    def watch() -> None:
        quiet_since_s = began_s
        while not ended.wait(_POLL_S):
            line, quiet_since_s = lines_of(time.monotonic(), quiet_since_s)
            if line is not None:
                with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                    write(line)

    thread = threading.Thread(target=watch, daemon=True)
    with current(PlainProgress(description, began_s)):
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
