"""The history: an append-only SQLite file of updates and forecasts that survives every run.

Each entry is one row, written in one transaction: it is there whole or not at all. Triggers refuse
changes and deletions. A forecast is settled by the first update that names it; nothing is rewritten.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from resque.errors import LedgerError
from resque.ledger.records import Forecast, Update
from resque.ledger.serialization import decode, encode

_BUSY_MS = 10_000
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
            for table in ("updates", "forecasts")
            for verb in ("UPDATE", "DELETE")
        ),
        *(
            f"CREATE TRIGGER {table}_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE id = NEW.id OR rowid = NEW.rowid) "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            for table in ("updates", "forecasts")
        ),
    ),
    tuple(f"ALTER TABLE {table} RENAME COLUMN kind TO shift_type" for table in ("updates", "forecasts")),
)
Entry = TypeVar("Entry", bound=Update | Forecast)


class Ledger:
    """A history file; opened for each call, so that many processes may write to one.

    Args:
        path: SQLite file; made at the first write.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(Ledger(folder + "/resque.db").updates())
        0
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, entry: Update | Forecast) -> None:
        """Append an update or a forecast."""
        with self._open(write=True) as connection, connection:
            self._insert(connection, entry)

    def extend(self, entries: Sequence[Entry]) -> list[Entry]:
        """Append all of these, or none; what is here already with the same content is left out.

        Returns:
            Those that were new.

        Raises:
            LedgerError: An entry is here with another content; nothing is written.
        """
        with self._open(write=True) as connection:
            connection.execute("BEGIN IMMEDIATE")  # nobody writes between a look and its insertion
            with connection:
                return [entry for entry in entries if self._insert_new(connection, entry)]

    def check_writable(self) -> None:
        """Refuse a file that could not take an entry, before anything costly is done; nothing is made."""
        if self.path.exists():
            with self._open(write=True) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            return
        nearest = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            raise LedgerError(f"ledger {self.path} cannot be made: {nearest} is no folder that can be written")

    def updates(self) -> list[Update]:
        """All updates, oldest first."""
        return self._all("updates", Update)

    def forecasts(self) -> list[Forecast]:
        """All forecasts, oldest first."""
        return self._all("forecasts", Forecast)

    def forecast(self, forecast_id: str) -> Forecast:
        """One forecast by its id, or by the beginning of it.

        Raises:
            LedgerError: There is none, or more than one.
        """
        found = [forecast for forecast in self.forecasts() if forecast_id and forecast.id.startswith(forecast_id)]
        if len(found) != 1:
            raise LedgerError(
                f"{len(found)} forecasts in {self.path} begin with {forecast_id!r}; `resque ledger list` shows the ids"
            )
        return found[0]

    def entry(self, entry_id: str) -> Update | Forecast:
        """An update or a forecast by its id, or by the beginning of it.

        Raises:
            LedgerError: There is none, or more than one.
        """
        entries: list[Update | Forecast] = [*self.updates(), *self.forecasts()]
        found = [entry for entry in entries if entry_id and entry.id.startswith(entry_id)]
        if len(found) != 1:
            raise LedgerError(
                f"{len(found)} entries in {self.path} begin with {entry_id!r}; `resque ledger list` shows the ids"
            )
        return found[0]

    def waiting(self, forecast_id: str) -> Forecast:
        """One forecast that no update has settled yet, by its id or the beginning of it.

        Raises:
            LedgerError: There is none, more than one, or it is settled already.
        """
        found = self.forecast(forecast_id)
        if any(update.forecast_id == found.id for update in self.updates()):
            raise LedgerError(f"forecast {found.id} is settled already: make a new one, or name none")
        return found

    def settled(self) -> list[tuple[Forecast, Update]]:
        """Each settled forecast with the first update that settled it."""
        first: dict[str, Update] = {}
        for update in self.updates():
            if update.forecast_id is not None:
                first.setdefault(update.forecast_id, update)
        return [(forecast, first[forecast.id]) for forecast in self.forecasts() if forecast.id in first]

    def _insert(self, connection: sqlite3.Connection, entry: Update | Forecast) -> None:
        record = encode(entry)
        try:
            decode(type(entry), record)  # an append-only file must not hold what cannot be read back; takes 10 µs
        except ValueError as error:
            raise LedgerError(f"{_name(entry)} has a value of a wrong type: {error}; nothing written") from error
        values: dict[str, object] = {
            "id": entry.id,
            "created_utc": entry.created_utc,
            "model": entry.model,
            "shift_type": entry.shift_type,
            "target_accuracy": entry.target_accuracy,
            "record": record,
        }
        if isinstance(entry, Update):
            values |= {"reached": int(entry.reached), "forecast_id": entry.forecast_id}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        try:
            connection.execute(f"INSERT INTO {_table(entry)} ({names}) VALUES ({marks})", list(values.values()))
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"{self.path} already holds {_name(entry)}: nothing written") from error

    def _insert_new(self, connection: sqlite3.Connection, entry: Update | Forecast) -> bool:
        found = connection.execute(f"SELECT record FROM {_table(entry)} WHERE id = ?", [entry.id]).fetchone()
        if found is not None and self._revived(type(entry), entry.id, found[0]) != entry:
            raise LedgerError(
                f"{self.path} already holds {_name(entry)} with another content: nothing written; "
                "name another file with --ledger"
            )
        if found is None:
            self._insert(connection, entry)
        return found is None

    def _all(self, table: str, kind: type[Entry]) -> list[Entry]:
        if not self.path.exists():
            return []
        with self._open(write=False) as connection:
            if self._version(connection) == 0:
                return []
            rows = connection.execute(f"SELECT id, record FROM {table} ORDER BY rowid").fetchall()
        return [self._revived(kind, name, record) for name, record in rows]

    def _revived(self, kind: type[Entry], name: str, record: str) -> Entry:
        try:
            return decode(kind, record)
        except (ValueError, RecursionError) as error:
            raise LedgerError(
                f"{self.path}: entry {name} cannot be read ({error!s:.80}); was it written by resque?"
            ) from error

    @contextmanager
    def _open(self, write: bool) -> Iterator[sqlite3.Connection]:
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connection(write)) as connection:
                if write:
                    self._migrate(connection)
                yield connection
        except (sqlite3.DatabaseError, OSError) as error:
            raise LedgerError(f"ledger {self.path} cannot be used: {error}; name another file with --ledger") from error

    def _connection(self, write: bool) -> sqlite3.Connection:
        if write:
            return sqlite3.connect(self.path, timeout=_BUSY_MS / 1000)
        for mode in ("mode=ro", "immutable=1"):  # the latter where the folder itself cannot be written
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?{mode}", uri=True, timeout=_BUSY_MS / 1000)
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                return connection
            except sqlite3.OperationalError as error:
                connection.close()
                failure = error
        raise failure

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == len(_MIGRATIONS):
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")  # then look again: another process may have been faster
        with connection:
            for number, statements in enumerate(_MIGRATIONS, start=1):
                if number > self._version(connection):
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")

    def _version(self, connection: sqlite3.Connection) -> int:
        both = "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)"
        version, tables = connection.execute(both).fetchone()
        if version > len(_MIGRATIONS):
            raise LedgerError(f"{self.path} was written by a newer resque (format {version}): upgrade resque")
        if version == 0 and tables:
            raise LedgerError(f"{self.path} is an SQLite file of another program; name another file with --ledger")
        return int(version)


def _table(entry: Update | Forecast) -> str:
    return "updates" if isinstance(entry, Update) else "forecasts"


def _name(entry: Update | Forecast) -> str:
    return f"{_table(entry)[:-1]} {entry.id}"
