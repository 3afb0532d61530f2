"""Write faults in a process: the n-th write to a file of its folder, or to its ledger, fails."""

import builtins
import errno
import io
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITES = ("INSERT", "BEGIN IMMEDIATE", "CREATE", "ALTER", "PRAGMA USER", "PRAGMA JOURNAL")
_SQLITE = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
}
_FUNCTIONS = ("replace", "rename", "link", "fsync", "fdatasync", "mkdir")


class Faults:
    """Counts the writes of this process, and lets one of them fail.

    Args:
        failing: Number of the write that fails, from 1 on; 0 lets none fail.
        code: ``errno.ENOSPC`` or ``errno.EIO``.
        count_file: File that gets the number of writes so far; None writes none.
    """

    def __init__(self, failing: int, code: int = errno.ENOSPC, count_file: Path | None = None) -> None:
        self.failing, self.code, self.count_file = failing, code, count_file
        self.count, self.folder = 0, ""

    def tick(self) -> bool:
        """Count a write; return whether it fails."""
        self.count += 1
        if self.count_file is not None:
            descriptor = os.open(self.count_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(descriptor, str(self.count).encode())
            os.close(descriptor)
        return self.count == self.failing

    def error(self) -> OSError:
        """Return the error of a write that fails."""
        return OSError(self.code, os.strerror(self.code))

    def install(self) -> None:
        """Put the faults between this process and its files."""
        self.folder = os.getcwd()
        self._install_files()
        self._install_database()
        self._install_libraries()

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(self.folder)

    def _install_files(self) -> None:
        opened = io.open

        def open_(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            if not (set(mode) & set("wax+") and self._is_ours(file)):
                return opened(file, mode, *more, **options)
            if self.tick():
                raise self.error()
            return _File(opened(file, mode, *more, **options), self)

        builtins.open = io.open = open_  # type: ignore[assignment]
        for name in _FUNCTIONS:
            setattr(os, name, self._failing_function(getattr(os, name)))

    def _failing_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *more: Any, **options: Any) -> Any:
            if (isinstance(target, int) or self._is_ours(target)) and self.tick():
                raise self.error()
            return function(target, *more, **options)

        return call

    def _install_database(self) -> None:
        faults, connect = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
                if sql.lstrip().upper().startswith(_WRITES):
                    faults.fail_in_database()
                return super().execute(sql, *parameters)

            def commit(self) -> None:
                faults.fail_in_database()
                super().commit()

        sqlite3.connect = lambda *given, **options: connect(*given, **{**options, "factory": Connection})

    def fail_in_database(self) -> None:
        """Raise SQLite's error if this write is the one that fails."""
        if self.tick():
            code, text = _SQLITE[self.code]
            error = sqlite3.OperationalError(text)
            error.sqlite_errorcode = code
            raise error

    def _install_libraries(self) -> None:
        """Libraries that write by themselves leave half a file."""
        import safetensors.torch
        import torch

        torch.save = self._half_written(torch.save, 1)
        safetensors.torch.serialize_file = self._half_written(safetensors.torch.serialize_file, 1)

    def _half_written(self, function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*given: Any, **options: Any) -> Any:
            result = function(*given, **options)
            if self.tick():
                os.truncate(given[place], os.path.getsize(given[place]) // 2)
                raise self.error()
            return result

        return call


class _File:
    """A file whose writes are counted and may fail after half of what is written."""

    def __init__(self, file: Any, faults: Faults) -> None:
        self._file, self._faults = file, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: Any) -> Any:
        if self._faults.tick():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise self._faults.error()
        return self._file.write(data)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)
