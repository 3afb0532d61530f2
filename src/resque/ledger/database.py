"""The SQLite file of a ledger: its schema, and the connections that read it, write to it and migrate it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from resque.errors import LedgerError

__all__ = ["open_database", "schema_version"]

_BUSY_MS = 10_000
_TABLES = "updates", "forecasts"
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
        *(
            f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            for table in _TABLES
            for verb in ("UPDATE", "DELETE")
        ),
        # INSERT OR REPLACE deletes without firing the triggers above, unless recursive triggers are on
        *(
            f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id OR rowid = NEW.rowid) "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            for table in _TABLES
        ),
    ),
    tuple(f"ALTER TABLE {table} RENAME COLUMN kind TO shift_type" for table in _TABLES),
)
"""Statements that lead from each schema version to the next; their number is the current version."""


@contextmanager
def open_database(path: Path, write: bool) -> Iterator[sqlite3.Connection]:
    """Connect to a ledger file; to write, create the file or migrate its schema first.

    Raises:
        LedgerError: The file cannot be opened, is not a ledger, or has a newer schema.
    """
    try:
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_connect(path, write)) as connection:
            if write:
                _migrate(connection, path)
            yield connection
    except (sqlite3.DatabaseError, OSError) as error:
        raise LedgerError(f"ledger {path} cannot be used: {error}; name another file with --ledger") from error


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
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


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    if write:
        return sqlite3.connect(path, timeout=_BUSY_MS / 1000)
    for mode in ("mode=ro", "immutable=1"):  # the latter where the folder itself cannot be written
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=_BUSY_MS / 1000)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            failure = error
    raise failure


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the schema up to date, in one transaction."""
    if schema_version(connection, path) == len(_MIGRATIONS):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")  # the version is read again: another process may have been faster
    with connection:
        for number, statements in enumerate(_MIGRATIONS, start=1):
            if number > schema_version(connection, path):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
