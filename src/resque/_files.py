"""Write files completely or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from resque.errors import DataError

__all__ = ["write_atomically"]

_MODE = 0o644


@contextmanager
def write_atomically(path: str | Path, may_replace: Callable[[Path], bool] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move it there if the block succeeds; else delete it.

    Missing folders are created. A symbolic link is followed. Anything but a regular file is never replaced.

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
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise DataError(f"cannot write {str(path)!r}: it exists and is not a regular file; name a file")
    if may_replace is not None and target.exists() and not may_replace(target):
        raise DataError(f"{str(path)!r} holds something else, which is kept: name another file")
    temporary = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.chmod(_MODE)
        temporary.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror or error}; name another place") from error
    finally:
        if temporary.is_file():
            temporary.unlink()
