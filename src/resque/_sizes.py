"""Check sizes before memory is taken: of files, of what they unpack to, and of numbers of classes."""

import operator
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from resque.errors import DataError

__all__ = ["MOST_CLASSES", "check_expansion", "check_memory", "free_bytes", "is_number_of_classes", "stored_bytes"]

MOST_CLASSES = 2**17
_HARMLESS = 2**27
_MOST_EXPANDED = 200  # zeros reach 229 at the lowest level of deflate, 1,030 at the highest; dSprites has 113
_CONTAINER = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """Return the memory that this process may still take: of the machine, and of its container.

    Example:
        >>> free_bytes() > 2**20
        True
    """
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, KeyError, ValueError):  # there is no such file but on Linux
        free.append(1024 * _numbers("/proc/meminfo")["MemAvailable:"])
    with suppress(OSError, KeyError, ValueError):
        limit, used = (int((_CONTAINER / name).read_text()) for name in ("memory.max", "memory.current"))
        free.append(limit - used + _numbers(_CONTAINER / "memory.stat")["inactive_file"])  # what a cache gives back
    return max(min(free), 0)


def _numbers(path: str | Path) -> dict[str, int]:
    """Return the name and the number of each line of a file."""
    return {name: int(number) for name, number, *_ in map(str.split, Path(path).read_text().splitlines())}


def stored_bytes(path: str | Path) -> int:
    """Return the bytes that a file takes on disk; a sparse file takes fewer than it has.

    Example:
        >>> 0 < stored_bytes(__file__) < 10**6
        True
    """
    status = os.stat(path)
    return min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)


def check_memory(name: str | Path, size: int, held: int = 0) -> None:
    """Raise DataError if data would take more memory than is free; reading needs them twice for a moment.

    Args:
        name: Name of the data in the error message.
        size: Bytes that they will take.
        held: Bytes of them that are in memory already.

    Example:
        >>> check_memory("small.npz", 10**6)
        >>> check_memory("large.npz", 10**18)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        resque.errors.DataError: large.npz takes 2,000,000,000,000 MB while it is read, and ... MB of memory are free:
        read a part of it (of data --limit 1000), or take a smaller file
    """
    if 2 * size > (free := free_bytes()) + held:
        raise DataError(
            f"{name} takes {2 * size // 10**6:,} MB while it is read, and {free // 10**6:,} MB of memory are free: "
            "read a part of it (of data --limit 1000), or take a smaller file"
        )


def check_expansion(name: str | Path, size: int, stored: int) -> None:
    """Raise DataError if data unpack to far more than is stored.

    Args:
        name: Name of the data in the error message.
        size: Bytes that they unpack to.
        stored: Bytes that they are read from.

    Example:
        >>> check_expansion("small.npz", 10**6, 10**3)
        >>> check_expansion("bomb.npz", 10**9, 10**6)
        Traceback (most recent call last):
        resque.errors.DataError: bomb.npz unpacks to 1,000 MB, more than 200 times its size of 1 MB; expected data:
        write it with less compression if it is that
    """
    if size > max(_HARMLESS, _MOST_EXPANDED * stored):
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
