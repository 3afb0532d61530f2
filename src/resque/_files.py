"""Write files completely or not at all, read texts line by line, and hold a lock that ends with its process."""

import os
import re
import stat
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resque.errors import DataError

try:
    import fcntl
except ImportError:  # Windows
    _HAS_FLOCK = False
else:
    _HAS_FLOCK = True

__all__ = ["hold_lock", "read_lines", "write_atomically"]

_MODE = 0o644
_LONGEST_PREFIX = 50  # characters of at most 4 bytes: a file name has at most 255 bytes
_MARK, _END = ".resque-", ".part"
_LONGEST_LINE = 2**24


@contextmanager
def write_atomically(path: str | Path, may_replace: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, and move it there if the block succeeds; else delete it.

    Missing folders are created. A symbolic link is followed. Anything but a regular file is never replaced. The
    temporary file is new and its name unique, so that two writers never share one. Its writer holds a lock on it; one
    without, which a killed writer left, is deleted after the next write that succeeds.

    Args:
        path: Destination.
        may_replace: Predicate of an existing file that may be overwritten; None overwrites any.

    Raises:
        DataError: If the destination cannot be written, or holds a file that must be kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_atomically(Path(folder) / "new" / "a.txt") as temporary:
        ...         _ = temporary.write_text("complete")
        ...     (Path(folder) / "new" / "a.txt").read_text()
        'complete'
    """
    target = _destination(path)
    if may_replace is not None and target.exists() and not may_replace(target):
        raise DataError(f"{str(path)!r} holds something else, which is kept: name another file")
    temporary, descriptor = None, -1
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = _open_temporary(target)
        yield temporary
        temporary.chmod(_MODE)
        temporary.replace(target)
        _delete_stale(target)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if descriptor >= 0:
            os.close(descriptor)


def _open_temporary(target: Path) -> tuple[int, Path]:
    """Create a file beside a destination; return a descriptor that locks it, or -1 without locks, and the file."""
    while True:
        descriptor, name = tempfile.mkstemp(_END, f"{target.name[:_LONGEST_PREFIX]}{_MARK}", target.parent)
        if not _HAS_FLOCK:
            os.close(descriptor)
            return -1, Path(name)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(name):
            return descriptor, Path(name)
        os.close(descriptor)  # another writer took it for a stale one before it was locked


def _delete_stale(target: Path) -> None:
    """Delete temporary files of a destination on which no writer holds a lock, as far as that can be known."""
    ours = re.compile(re.escape(f"{target.name[:_LONGEST_PREFIX]}{_MARK}") + "[a-z0-9_]{8}" + re.escape(_END))
    with suppress(OSError):
        stale = [path for path in target.parent.iterdir() if ours.fullmatch(path.name)] if _HAS_FLOCK else []
        for path in stale:
            with suppress(OSError):  # it is held, is a link or a folder, or belongs to another user
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if stat.S_ISREG(os.fstat(descriptor).st_mode):
                        path.unlink()
                finally:
                    os.close(descriptor)


def _destination(path: str | Path) -> Path:
    """Return the file that a path names, links resolved; raise DataError if it is not a regular file."""
    try:
        target = Path(path).resolve()
        regular = target.is_file() or not target.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, a circle of links
        raise _cannot_write(path, error) from error
    if not regular:
        raise DataError(f"cannot write {str(path)!r}: it exists and is not a regular file; name a file")
    return target


def read_lines(path: str | Path, expected: str = "a text", newline: str | None = None) -> Generator[str, None, None]:
    """Yield the lines of a text with their ends, one after the other; its size takes no memory.

    The file is closed at its end, or with the generator: who may stop before uses :func:`contextlib.closing`.

    Args:
        path: File in UTF-8.
        expected: Description of the right file, for error messages.
        newline: As for :func:`open`.

    Raises:
        DataError: It is no regular file, cannot be read, or a line is no text, or too long for one.

    Example:
        >>> "import os" in [line.strip() for line in read_lines(__file__)]
        True
        >>> next(read_lines("/dev/zero"))
        Traceback (most recent call last):
        resque.errors.DataError: no such file: /dev/zero; expected a regular file, no folder, pipe or device
    """
    if not os.path.isfile(path):  # pathlib raises on names that are too long
        raise DataError(f"no such file: {path}; expected a regular file, no folder, pipe or device")
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:
            while line := file.readline(_LONGEST_LINE + 1):
                if len(line) > _LONGEST_LINE:
                    raise DataError(f"{path}: a line has over {_LONGEST_LINE:,} characters; expected {expected}")
                yield line
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; expected {expected} in UTF-8") from error


def _cannot_write(path: str | Path, error: Exception) -> DataError:
    return DataError(f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}; name another place")


@contextmanager
def hold_lock(path: Path, busy: str) -> Iterator[None]:
    """Hold an exclusive lock on a file for the block; the file is created before, and deleted after it.

    The operating system frees the lock of a process that ends, however it ends.

    Args:
        path: File of the lock.
        busy: Message of the error if the lock is held elsewhere, in this process or another.

    Raises:
        DataError: The lock is held elsewhere, or its file cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, hold_lock(Path(folder) / "a.lock", "a runs"):
        ...     with hold_lock(Path(folder) / "a.lock", "a runs"):
        ...         pass
        Traceback (most recent call last):
            ...
        resque.errors.DataError: a runs
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(path)
    except (BlockingIOError, FileExistsError) as error:
        raise DataError(busy) from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Return the descriptor of the locked file; raise OSError if the lock is held elsewhere."""
    if not _HAS_FLOCK:  # the file itself is the lock; Windows deletes it with the process
        return os.open(path, os.O_CREAT | os.O_EXCL | getattr(os, "O_TEMPORARY", 0), _MODE)
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, _MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:  # its last holder deleted it in between
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
