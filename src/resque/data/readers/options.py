"""Settings that all readers share, and their progress."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Progress", "ReadOptions"]

Progress = Callable[[int, int | None], None]
"""Function of the number of samples read, and of the number in all or None."""
_INTERVAL = 4096


@dataclass(frozen=True)
class ReadOptions:
    """Settings of a reader.

    Attributes:
        root: Folder of torchvision's datasets.
        limit: Number of samples after which a stream ends; None reads all. Other sources are read completely.
        on_progress: Called with ``(samples read, samples in all or None)`` from time to time.
        download: Whether what a hub or another address holds is fetched; if not, it must be here.
    """

    root: Path = Path("data")
    limit: int | None = None
    on_progress: Progress = lambda done, total: None
    download: bool = False

    def track(self, values: Iterable[Any], total: int | None) -> Iterator[Any]:
        """Yield the values and report progress every 4,096 of them, and at the last.

        Example:
            >>> list(ReadOptions(on_progress=lambda done, total: print(done, "of", total)).track("abc", 3))
            3 of 3
            ['a', 'b', 'c']
        """
        for done, value in enumerate(values, start=1):
            yield value
            if done % _INTERVAL == 0 or done == total:
                self.on_progress(done, total)
