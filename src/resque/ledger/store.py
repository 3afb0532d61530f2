"""The ledger: an append-only history of updates and forecasts in an SQLite file.

Each entry is one row, written in one transaction, so it is stored completely or not at all. Triggers refuse changes
and deletions. The first update that names a forecast settles it; nothing is rewritten.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from resque.errors import LedgerError
from resque.ledger.database import open_database, schema_version
from resque.ledger.records import Forecast, Update
from resque.ledger.serialization import decode, encode

__all__ = ["Ledger"]

Entry = TypeVar("Entry", bound=Update | Forecast)


class Ledger:
    """A history of updates and forecasts in a file.

    The file is opened for each call only, so many processes can write to one ledger.

    Args:
        path: SQLite file, created when the first entry is written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(Ledger(folder + "/resque.db").updates())
        0
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def add(self, entry: Update | Forecast) -> None:
        """Append an update or a forecast.

        Raises:
            LedgerError: The ledger holds an entry of the same id, or cannot be written.
        """
        with open_database(self.path, write=True) as connection:
            self._insert(connection, entry)

    def extend(self, entries: Sequence[Entry]) -> list[Entry]:
        """Append all of these entries or none; those that the ledger holds with the same content are skipped.

        Returns:
            New entries, in their order.

        Raises:
            LedgerError: The ledger holds an entry of the same id with another content; nothing is written.
        """
        with open_database(self.path, write=True) as connection:
            return [entry for entry in entries if self._insert_new(connection, entry)]

    def check_writable(self) -> None:
        """Check that an entry could be written, before costly work begins; no file is created.

        Raises:
            LedgerError: The file or its folder cannot be written.
        """
        if self.path.exists():
            with open_database(self.path, write=True):
                return
        nearest = next(parent for parent in self.path.absolute().parents if parent.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
            raise LedgerError(f"ledger {self.path} cannot be created: {nearest} is not a writable folder")

    def updates(self) -> list[Update]:
        """Return all updates, oldest first."""
        return self._read("updates", Update)

    def forecasts(self) -> list[Forecast]:
        """Return all forecasts, oldest first."""
        return self._read("forecasts", Forecast)

    def entry(self, entry_id: str) -> Update | Forecast:
        """Return the one update or forecast whose id begins with the given text.

        Raises:
            LedgerError: There is none, or more than one.
        """
        entries: list[Update | Forecast] = [*self.updates(), *self.forecasts()]
        return self._find(entries, "entries", entry_id)

    def forecast(self, forecast_id: str) -> Forecast:
        """Return the one forecast whose id begins with the given text.

        Raises:
            LedgerError: There is none, or more than one.
        """
        return self._find(self.forecasts(), "forecasts", forecast_id)

    def pending(self, forecast_id: str) -> Forecast:
        """Return the one forecast whose id begins with the given text, if no update has settled it yet.

        Raises:
            LedgerError: There is none, more than one, or it is settled already.
        """
        forecast = self.forecast(forecast_id)
        if any(update.forecast_id == forecast.id for update in self.updates()):
            raise LedgerError(f"forecast {forecast.id} is settled already: make a new one, or name none")
        return forecast

    def settled(self) -> list[tuple[Forecast, Update]]:
        """Return each settled forecast with the first update that settled it."""
        first: dict[str | None, Update] = {}
        for update in self.updates():
            first.setdefault(update.forecast_id, update)
        return [(forecast, first[forecast.id]) for forecast in self.forecasts() if forecast.id in first]

    def _find(self, entries: Sequence[Entry], noun: str, entry_id: str) -> Entry:
        matches = [entry for entry in entries if entry_id and entry.id.startswith(entry_id)]
        if len(matches) != 1:
            raise LedgerError(
                f"{len(matches)} {noun} in {self.path} begin with {entry_id!r}; `resque ledger list` shows the ids"
            )
        return matches[0]

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
        """Insert an entry unless the ledger holds it; return whether it is new."""
        row = connection.execute(f"SELECT record FROM {_table(entry)} WHERE id = ?", [entry.id]).fetchone()
        if row is None:
            self._insert(connection, entry)
        elif self._decode(type(entry), entry.id, row[0]) != entry:
            raise LedgerError(
                f"{self.path} already holds {_name(entry)} with another content: nothing written; "
                "name another file with --ledger"
            )
        return row is None

    def _read(self, table: str, entry_type: type[Entry]) -> list[Entry]:
        if not self.path.exists():
            return []
        with open_database(self.path, write=False) as connection:
            if schema_version(connection, self.path) == 0:
                return []
            rows = connection.execute(f"SELECT id, record FROM {table} ORDER BY rowid").fetchall()
        return [self._decode(entry_type, entry_id, record) for entry_id, record in rows]

    def _decode(self, entry_type: type[Entry], entry_id: str, record: str) -> Entry:
        try:
            return decode(entry_type, record)
        except (ValueError, RecursionError) as error:
            raise LedgerError(
                f"{self.path}: entry {entry_id} cannot be read ({error!s:.80}); was it written by resque?"
            ) from error


def _table(entry: Update | Forecast) -> str:
    return "updates" if isinstance(entry, Update) else "forecasts"


def _name(entry: Update | Forecast) -> str:
    return f"{_table(entry)[:-1]} {entry.id}"
