"""Settings that all readers share, and their progress."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resque.data.dataset import draw_rows
from resque.errors import DataError

__all__ = ["Progress", "ReadOptions"]

Progress = Callable[[int, int | None], None]
"""Function of the number of samples read, and of the number in all or None."""
_INTERVAL = 4096


@dataclass(frozen=True)
class ReadOptions:
    """Settings of a reader.

    Attributes:
        root: Folder of torchvision's datasets.
        limit: Largest number of samples; None reads all. A stream ends there; of files so many are drawn. Other
            sources are read completely.
        on_progress: Called with ``(samples read, samples in all or None)`` from time to time.
        download: Whether what a hub or another address holds is fetched; if not, it must be here.
        seed: Seed of the samples that are drawn.
        rows: Which samples of a file or a folder are read, in their order; None reads those that ``limit`` draws.
        by_row: Whether samples are read in any order, which a stream does not allow.
    """

    root: Path = Path("data")
    limit: int | None = None
    on_progress: Progress = lambda done, total: None
    download: bool = False
    seed: int = 0
    rows: np.ndarray | None = None
    by_row: bool = False

    def draw(self, n: int) -> np.ndarray | None:
        """Return which of ``n`` samples are read; None reads all.

        Example:
            >>> ReadOptions(limit=2).draw(5).tolist(), ReadOptions().draw(5)
            ([2, 4], None)
        """
        if self.rows is not None:
            return self.rows
        return draw_rows(n, self.limit, self.seed) if self.limit is not None and 0 < self.limit < n else None

    def refuse_stream(self, name: str) -> None:
        """Raise DataError if samples are to be read in any order, which the data of this name do not allow.

        Example:
            >>> ReadOptions(by_row=True).refuse_stream("hf:cats")
            Traceback (most recent call last):
            resque.errors.DataError: hf:cats is read as a stream, so no random samples of it: leave --precision out
        """
        if self.by_row:
            raise DataError(f"{name} is read as a stream, so no random samples of it: leave --precision out")

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
