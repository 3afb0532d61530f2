"""The SQLite file of a ledger: its schema, and the connections that read it, write to it and migrate it."""

import os
import shutil
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

from resque.errors import LedgerError, ResqueWarning

__all__ = ["IS_NEW_TASK", "PARENT", "can_be_read", "check_can_be_created", "is_busy", "open_database"]

Result = TypeVar("Result")

_BUSY_S = 1.0  # SQLite's own wait for a lock, within which it tries often
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
_QUIET_S, _LONGEST_WAIT_S = 5.0, 300.0
_TABLES = "updates", "forecasts"


def _field(path: str) -> str:
    """Return the SQL expression for a field of a record; a query and an index agree in it."""
    return f"CASE WHEN json_valid(record) THEN json_extract(record, '$.{path}') END"


PARENT, IS_NEW_TASK = _field("parent"), f"({_field('features.task_index')} IS NOT NULL)"
"""SQL expressions of what updates are selected by; they work without their index, too."""


def _append_only(table: str) -> tuple[str, ...]:
    """Return the triggers that refuse to change, delete or replace a row."""
    refuse = "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
    changes = (
        f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} {refuse}" for verb in ("UPDATE", "DELETE")
    )
    # INSERT OR REPLACE deletes without firing the triggers above, unless recursive triggers are on
    exists = f"SELECT 1 FROM {table} WHERE id = NEW.id OR rowid = NEW.rowid"
    return *changes, f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} WHEN EXISTS ({exists}) {refuse}"


_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE updates (
            id TEXT PRIMARY KEY, created_utc TEXT NOT NULL, model TEXT NOT NULL, kind TEXT,
            target_accuracy REAL NOT NULL, reached INTEGER NOT NULL, forecast_id TEXT, record TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE forecasts (
            id TEXT PRIMARY KEY, created_utc TEXT NOT NULL, model TEXT NOT NULL, kind TEXT,
            target_accuracy REAL NOT NULL, record TEXT NOT NULL
        ) STRICT""",
        *(trigger for table in _TABLES for trigger in _append_only(table)),
    ),
    tuple(f"ALTER TABLE {table} RENAME COLUMN kind TO shift_type" for table in _TABLES),
    (
        "CREATE TABLE voids (id TEXT PRIMARY KEY, created_utc TEXT NOT NULL, record TEXT NOT NULL) STRICT",
        *_append_only("voids"),
        "CREATE INDEX updates_by_forecast ON updates (forecast_id)",
        f"CREATE INDEX updates_by_parent ON updates ({PARENT})",
        f"CREATE INDEX updates_by_change ON updates ({IS_NEW_TASK})",
    ),
    (
        "CREATE TABLE questions (id TEXT PRIMARY KEY, created_utc TEXT NOT NULL, record TEXT NOT NULL) STRICT",
        *_append_only("questions"),
    ),
)
"""Statements that lead from each schema version to the next; their number is the current version."""
_FIRST_VERSIONS = {"voids": 3, "questions": 4}
"""Table that came later → first schema version that has it."""


@contextmanager
def open_database(path: Path, write: bool) -> Iterator[sqlite3.Connection]:
    """Connect to a ledger file, without links and from the root, in one transaction.

    To write, the file is created or its schema migrated first.

    A read sees one state of the file, whatever others write meanwhile. A write holds the file until the block ends,
    and is undone if the block fails. A file that others hold is waited for.

    Raises:
        LedgerError: The file cannot be opened, is not a ledger, has a newer schema, or is held for minutes.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise LedgerError(f"ledger {path} cannot be used: it is no regular file; name another file with --ledger")
    try:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
        with _connect(path, write) as connection:
            yield connection
    except (sqlite3.DatabaseError, OSError) as error:
        if is_busy(error):
            raise LedgerError(
                f"ledger {path} was held by another process for {_LONGEST_WAIT_S / 60:.0f} minutes; nothing is lost: "
                "wait for that process to end, and try again"
            ) from error
        no_ledger = getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)
        advice = "name another file with --ledger" if no_ledger else "mend that and try again"
        raise LedgerError(f"ledger {path} cannot be used: {error}; {advice}") from error


def check_can_be_created(path: Path) -> None:
    """Check that a ledger file that does not exist, and the folders above it, could be created; none is left behind.

    Raises:
        LedgerError: They could not.
    """
    nearest = next(parent for parent in path.parents if os.path.exists(parent))
    try:  # rights alone do not tell: nobody can create a file in /proc, and a name may be too long
        with tempfile.TemporaryDirectory(prefix=".resque-", dir=nearest) as probe:
            file = Path(probe, path.relative_to(nearest))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    except OSError as error:
        raise LedgerError(
            f"ledger {path} cannot be created in {nearest} ({error.strerror}); name another file with --ledger"
        ) from error


def is_busy(error: Exception) -> bool:
    """Return whether SQLite refused because another connection holds the file.

    Example:
        >>> is_busy(sqlite3.OperationalError("no such table: updates"))
        False
    """
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def can_be_read(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether a ledger file holds something; the tables that an earlier version lacks are empty then.

    Raises:
        LedgerError: The file is another program's, or a newer version of resque wrote it.
    """
    version = _schema_version(connection, path)
    for table, first in _FIRST_VERSIONS.items():
        if 0 < version < first:
            connection.execute(f"CREATE TEMP TABLE {table} (id TEXT, record TEXT)")  # of this connection alone
    return version > 0


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of a ledger file; 0 if it is still empty.

    Raises:
        LedgerError: The file is another program's, or a newer version of resque wrote it.
    """
    both = "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)"
    version, tables = connection.execute(both).fetchone()
    if version > len(_MIGRATIONS):
        raise LedgerError(f"{path} was written by a newer resque (format {version}): upgrade resque")
    if version == 0 and tables:
        raise LedgerError(f"{path} is an SQLite file of another program; name another file with --ledger")
    return int(version)


@contextmanager
def _connect(path: Path, write: bool) -> Iterator[sqlite3.Connection]:
    if write:
        with closing(_open(path)) as connection:
            _migrate(connection, path)
            _wait_for(path, lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            _wait_for(path, connection.commit)
        return
    try:
        connection = _wait_for(path, lambda: _begin_read(f"{path.as_uri()}?mode=ro"))
    except sqlite3.OperationalError as error:
        if is_busy(error):
            raise
        with _read_only_folder(path) as connection:  # the folder cannot be written, as the write-ahead log needs it
            yield connection
        return
    with closing(connection):
        yield connection


def _open(location: str | Path, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(location, uri=uri, timeout=_BUSY_S, isolation_level=None)


def _begin_read(location: str) -> sqlite3.Connection:
    """Open a file and fix the state that is read."""
    connection = _open(location, uri=True)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _read_only_folder(path: Path) -> Iterator[sqlite3.Connection]:
    """Read a ledger in a folder that cannot be written: as it is, or with its write-ahead log, from a copy of both.

    Raises:
        LedgerError: The ledger was written to meanwhile.
    """
    log = path.with_name(f"{path.name}-wal")

    def state() -> list[tuple[int, int] | None]:
        facts = (file.stat() if file.exists() else None for file in (path, log))
        return [None if fact is None else (fact.st_size, fact.st_mtime_ns) for fact in facts]

    before = state()
    with ExitStack() as stack:
        location = f"{path.as_uri()}?immutable=1"  # SQLite then looks at no lock and no log
        if before[1] is not None and before[1][0]:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            copy = folder / path.name
            shutil.copyfile(path, copy)
            shutil.copyfile(log, folder / log.name)
            location = copy.as_uri()
        yield stack.enter_context(closing(_begin_read(location)))
        if state() != before:
            raise LedgerError(f"ledger {path} was written to while it was read without its locks: try again")


def _wait_for(path: Path, step: Callable[[], Result]) -> Result:
    """Run a step until no other process holds the file, with a growing pause; give up after minutes."""
    start, pause, said = time.monotonic(), _FIRST_PAUSE_S, False
    while True:
        try:
            return step()
        except sqlite3.OperationalError as error:
            waited = time.monotonic() - start
            if not is_busy(error) or waited > _LONGEST_WAIT_S:
                raise
            if not said and waited > _QUIET_S:
                said = True
                minutes = _LONGEST_WAIT_S / 60
                message = f"ledger {path} is held by another process: waiting for it, up to {minutes:.0f} minutes"
                warnings.warn(message, ResqueWarning, stacklevel=2)
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, in one transaction."""
    if _wait_for(path, lambda: _schema_version(connection, path)) == len(_MIGRATIONS):
        return
    _wait_for(path, lambda: connection.execute("PRAGMA journal_mode = WAL"))
    _wait_for(path, lambda: connection.execute("BEGIN IMMEDIATE"))
    with connection:
        # The version is read again: another process may have been faster.
        for number, statements in enumerate(_MIGRATIONS, start=1):
            if number > _schema_version(connection, path):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
