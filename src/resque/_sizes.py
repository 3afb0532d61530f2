"""Check sizes before memory is taken: of files, of what they unpack to, and of numbers of classes."""

import operator
import os
from pathlib import Path
from typing import Any

from resque.errors import DataError

__all__ = ["MOST_CLASSES", "check_size", "is_number_of_classes", "memory_bytes", "stored_bytes"]

MOST_CLASSES = 2**20
_HARMLESS = 2**27
_MOST_EXPANDED = 500  # deflate reaches 1,030 on zeros; drawings on a plain ground stay below 300


def memory_bytes() -> int:
    """Return the memory of this machine.

    Example:
        >>> memory_bytes() > 2**20
        True
    """
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def stored_bytes(path: str | Path) -> int:
    """Return the bytes that a file takes on disk; a sparse file takes fewer than it has.

    Example:
        >>> 0 < stored_bytes(__file__) < 10**6
        True
    """
    status = os.stat(path)
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def check_size(name: str | Path, size: int, stored: int | None = None) -> None:
    """Raise DataError if data would take more than the machine's memory, or unpack to far more than is stored.

    Args:
        name: Name of the data in the error message.
        size: Bytes that they will take.
        stored: Bytes that they are read from; None if unknown.

    Example:
        >>> check_size("small.npz", 10**6, 10**3)
        >>> check_size("bomb.npz", 10**9, 10**6)
        Traceback (most recent call last):
        resque.errors.DataError: bomb.npz unpacks to 1,000 MB, more than 500 times its size of 1 MB; expected data:
        write it with less compression if it is that
    """
    if size > memory_bytes():
        raise DataError(
            f"{name} takes {size // 10**6:,} MB, and this machine has {memory_bytes() // 10**6:,} MB of memory: take a "
            "part of it, or smaller images (@32px)"
        )
    if stored is not None and size > max(_HARMLESS, _MOST_EXPANDED * stored):
        raise DataError(
            f"{name} unpacks to {size // 10**6:,} MB, more than {_MOST_EXPANDED} times its size of "
            f"{-(-stored // 10**6):,} MB; expected data: write it with less compression if it is that"
        )


def is_number_of_classes(classes: Any) -> bool:
    """Return whether a number of outputs is one that a classifier may have.

    Example:
        >>> is_number_of_classes(10), is_number_of_classes(2**70), is_number_of_classes(2.5)
        (True, False, False)
    """
    try:
        return 1 <= operator.index(classes) <= MOST_CLASSES
    except TypeError:
        return False
