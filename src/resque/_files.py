"""Files that are written whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resque.errors import DataError

_MODE = 0o644


@contextmanager
def write_atomically(path: str | Path, own: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """A scratch path beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Folders on the way are made. A link is followed; what is there and is no plain file is refused.

    Args:
        path: Where the file is to be.
        own: Says of a file that is there already whether it is of the same kind; any other is left alone.

    Raises:
        DataError: The place cannot be written, or holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_atomically(Path(folder) / "new" / "a.txt") as scratch:
        ...         _ = scratch.write_text("whole")
        ...     (Path(folder) / "new" / "a.txt").read_text()
        'whole'
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise DataError(f"cannot write {str(path)!r}: it is there and no plain file; name a file")
    if own is not None and target.exists() and not own(target):
        raise DataError(f"{str(path)!r} holds something else, which is kept: name another file")
    scratch = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        scratch.chmod(_MODE)
        scratch.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}; name another place") from error
    finally:
        if scratch.is_file():
            scratch.unlink()
