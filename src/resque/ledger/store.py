"""The ledger: an append-only history of updates, forecasts and questions in an SQLite file.

Each entry is one row, written in one transaction, so it is stored completely or not at all. Triggers refuse changes
and deletions. The first update that names a forecast settles it; nothing is rewritten. A wrong entry is withdrawn by a
tombstone: it counts nowhere, and stays in the file with the reason.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from resque.errors import LedgerError, SettingError
from resque.ledger.database import IS_NEW_TASK, PARENT, can_be_read, check_can_be_created, open_database
from resque.ledger.identifiers import utc_now
from resque.ledger.records import Forecast, Question, Update, Void
from resque.ledger.serialization import decode, encode

__all__ = ["Ledger"]

Entry = TypeVar("Entry", bound=Update | Forecast)
AnyEntry = TypeVar("AnyEntry", bound=Update | Forecast | Question | Void)
_TABLES: Mapping[type, str] = {kind: f"{kind.__name__.lower()}s" for kind in (Update, Forecast, Question, Void)}
_IS_VALID = "{0}.id NOT IN (SELECT id FROM voids)"
_IS_SETTLED = (
    f"EXISTS (SELECT 1 FROM updates AS settling WHERE forecast_id = entry.id AND {_IS_VALID.format('settling')})"
)


class Ledger:
    """A history of updates and forecasts in a file.

    The file is opened for each call only, so many processes can write to one ledger.

    Args:
        path: SQLite file, created when the first entry is written.

    Attributes:
        path: The same file without links, so that all its names have one log, one lock and one folder of pilots, and
            from the root, so that it stays the same where the current folder changes.

    Raises:
        LedgerError: No file can have this name, or the current folder is gone.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     len(Ledger(folder + "/resque.db").updates())
        0
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self.path = Path(os.path.realpath(path))
        except (OSError, ValueError) as error:
            raise LedgerError(
                f"ledger {str(path)!r} cannot be used: {error}; name another file with --ledger"
            ) from error

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r})"

    def add(self, entry: Update | Forecast | Question) -> None:
        """Append an update, a forecast or a question without one.

        Raises:
            LedgerError: The ledger holds an entry of the same id, or cannot be written.
        """
        with open_database(self.path, write=True) as connection:
            self._insert(connection, entry)

    def extend(self, entries: Sequence[AnyEntry]) -> list[AnyEntry]:
        """Append all of these entries or none; those that the ledger holds with the same content are skipped.

        Args:
            entries: Updates, forecasts, questions, and tombstones of entries that come before them or are held.

        Returns:
            New entries, in their order.

        Raises:
            LedgerError: The ledger holds an entry of the same id with another content; nothing is written.
        """
        with open_database(self.path, write=True) as connection:
            return [entry for entry in entries if self._insert_new(connection, entry)]

    def check_writable(self) -> None:
        """Check that an entry could be written, before costly work begins; no file is left behind.

        Raises:
            LedgerError: The file or its folder cannot be written.
        """
        if os.path.exists(self.path):  # pathlib raises on names that are too long
            with open_database(self.path, write=True):
                return
        check_can_be_created(self.path)

    def updates(
        self,
        *,
        parent: str | None = None,
        new_tasks: bool | None = None,
        last: int | None = None,
        void: bool = False,
    ) -> list[Update]:
        """Return the updates that are not void, oldest first.

        Args:
            parent: Only updates of the model with this fingerprint; None for all.
            new_tasks: Whether only updates to new tasks are wanted, or only shifts; None for both.
            last: Only so many of the newest; None for all.
            void: Whether void updates are returned as well.
        """
        where: list[str] = []
        values: list[object] = []
        if parent is not None:
            where, values = [f"{PARENT} = ?"], [parent]
        if new_tasks is not None:
            where, values = [*where, f"{IS_NEW_TASK} = ?"], [*values, int(new_tasks)]
        return self._select(Update, where, values, last, void)

    def forecasts(self, *, pending: bool = False, last: int | None = None, void: bool = False) -> list[Forecast]:
        """Return the forecasts that are not void, oldest first.

        Args:
            pending: Whether only forecasts that no update has settled are wanted.
            last: Only so many of the newest; None for all.
            void: Whether void forecasts are returned as well.
        """
        return self._select(Forecast, [f"NOT {_IS_SETTLED}"] if pending else [], [], last, void)

    def voids(self) -> list[Void]:
        """Return the tombstones of withdrawn entries, oldest first."""
        return self._all(Void)

    def questions(self) -> list[Question]:
        """Return what was asked without a forecast, oldest first."""
        return self._all(Question)

    def count(self) -> dict[str, int]:
        """Return the number of updates, forecasts and settled forecasts, without void ones, and of void entries."""
        valid = _IS_VALID.format("entry")
        counted = {
            "updates": f"updates AS entry WHERE {valid}",
            "forecasts": f"forecasts AS entry WHERE {valid}",
            "settled": f"forecasts AS entry WHERE {valid} AND {_IS_SETTLED}",
            "void": "voids",
        }
        with self._reading() as connection:
            if connection is None:
                return dict.fromkeys(counted, 0)
            return {
                name: int(connection.execute(f"SELECT count(*) FROM {rows}").fetchone()[0])
                for name, rows in counted.items()
            }

    def count_updates(self, new_tasks: bool) -> int:
        """Return the number of updates to new tasks, or of shifts, that are not void."""
        query = f"SELECT count(*) FROM updates AS entry WHERE {_IS_VALID.format('entry')} AND {IS_NEW_TASK} = ?"
        with self._reading() as connection:
            return 0 if connection is None else int(connection.execute(query, [int(new_tasks)]).fetchone()[0])

    def entry(self, entry_id: str) -> Update | Forecast:
        """Return the one update or forecast whose id begins with the given text, also if it is void.

        Raises:
            LedgerError: There is none, or more than one.
        """
        return self._find(entry_id, "entries", (Update, Forecast))

    def forecast(self, forecast_id: str) -> Forecast:
        """Return the one forecast whose id begins with the given text, also if it is void.

        Raises:
            LedgerError: There is none, or more than one.
        """
        found = self._find(forecast_id, "forecasts", (Forecast,))
        assert isinstance(found, Forecast)
        return found

    def pending(self, forecast_id: str) -> Forecast:
        """Return the one forecast whose id begins with the given text, if no update has settled it yet.

        Raises:
            LedgerError: There is none, more than one, or it is settled already or void.
        """
        forecast = self.forecast(forecast_id)
        if tombstone := next((void for void in self.voids() if void.id == forecast.id), None):
            raise LedgerError(f"forecast {forecast.id} is void ({tombstone.why}): make a new one, or name none")
        if self.settlement(forecast) is not None:
            raise LedgerError(f"forecast {forecast.id} is settled already: make a new one, or name none")
        return forecast

    def settlement(self, forecast: Forecast) -> Update | None:
        """Return the first update that settled a forecast and is not void; None if there is none."""
        return next(iter(self._select(Update, ["forecast_id = ?"], [forecast.id])), None)

    def settled_ids(self) -> list[tuple[str, str]]:
        """Return the ids of each settled forecast and of the first update that settled it; void ones do not count."""
        query = (
            f"SELECT entry.id, settling.id, min(settling.rowid) FROM forecasts AS entry JOIN updates AS settling ON "
            f"settling.forecast_id = entry.id AND {_IS_VALID.format('settling')} WHERE {_IS_VALID.format('entry')} "
            "GROUP BY entry.id ORDER BY entry.rowid"
        )
        with self._reading() as connection:
            rows = [] if connection is None else connection.execute(query).fetchall()
        return [(forecast_id, update_id) for forecast_id, update_id, _ in rows]

    def pair_of(self, entry: Update | Forecast) -> tuple[Forecast, Update] | None:
        """Return the settled forecast and update of which an entry is one; None if it is part of no such pair."""
        if isinstance(entry, Forecast):
            update = self.settlement(entry)
            return None if update is None else (entry, update)
        forecasts = self._select(Forecast, ["id = ?"], [entry.forecast_id])
        return next(((forecast, entry) for forecast in forecasts if self.settlement(forecast) == entry), None)

    def settled(self, last: int | None = None) -> list[tuple[Forecast, Update]]:
        """Return each settled forecast with the first update that settled it; void ones do not count.

        Args:
            last: Only pairs among so many of the newest forecasts and of the newest updates; None for all.
        """
        first: dict[str | None, Update] = {}
        for update in self._select(Update, ["forecast_id IS NOT NULL"], [], last):
            first.setdefault(update.forecast_id, update)
        forecasts = self._select(Forecast, [_IS_SETTLED], [], last)
        return [(forecast, first[forecast.id]) for forecast in forecasts if forecast.id in first]

    def void(self, entry_id: str, why: str) -> Void:
        """Withdraw an update or forecast, because it was wrong: it stays in the file and counts nowhere.

        Args:
            entry_id: Id of the entry, or the beginning of it.
            why: Reason, which is stored.

        Raises:
            LedgerError: There is no such entry, more than one, or it is void already.
            SettingError: The reason is empty.

        Example:
            >>> import tempfile
            >>> from resque.ledger.bundled import bundled_updates
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     ledger = Ledger(folder + "/resque.db")
            ...     ledger.add(bundled_updates()[0])
            ...     ledger.void(bundled_updates()[0].id, "wrong test data").why, ledger.updates()
            ('wrong test data', [])
        """
        if not why.strip():
            raise SettingError("a void entry needs its reason: expected a text, such as 'wrong test data'")
        found = self.entry(entry_id)
        tombstone = Void(found.id, "update" if isinstance(found, Update) else "forecast", why, utc_now())
        with open_database(self.path, write=True) as connection:
            self._insert_void(connection, tombstone)
        if isinstance(found, Forecast):
            self.remove_pilot(found.id)
        return tombstone

    def pilot_file(self, forecast_id: str) -> Path:
        """Return where the state of a forecast's pilot is kept, until an update settles the forecast."""
        folder = self.path.with_name(f"{self.path.name}.pilots")
        return folder / f"{quote(forecast_id, safe='', errors='replace')}.checkpoint"

    def picture_file(self, train_data: str) -> Path:
        """Return where the picture of a few inputs of new data is kept, for the report."""
        key = hashlib.blake2b(train_data.encode(errors="replace"), digest_size=8).hexdigest()
        return self.path.with_name(f"{self.path.name}.pictures") / f"{key}.png"

    def remove_pilot(self, forecast_id: str) -> None:
        """Delete the state of a forecast's pilot, and the folder of such states with the last of them."""
        file = self.pilot_file(forecast_id)
        with suppress(OSError):
            file.unlink()
            file.parent.rmdir()

    def descendants(self, update: Update) -> list[Update]:
        """Return the updates whose models descend from the model of an update, nearest first, without void ones."""
        line, known, void = [update], {update.id}, {tombstone.id for tombstone in self.voids()}
        for each in line:  # grows meanwhile, also behind a void update, whose model may be in use
            children = self.updates(parent=each.child, void=True) if each.child else []
            heirs = [heir for heir in children if heir.id not in known]
            line += heirs
            known |= {heir.id for heir in heirs}
        return [heir for heir in line[1:] if heir.id not in void]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Open the ledger for reading; None if there is nothing to read."""
        if not os.path.exists(self.path):
            yield None
            return
        with open_database(self.path, write=False) as connection:
            yield connection if can_be_read(connection, self.path) else None

    def _all(self, entry_type: type[AnyEntry]) -> list[AnyEntry]:
        with self._reading() as connection:
            query = f"SELECT id, record FROM {_TABLES[entry_type]} ORDER BY rowid"
            rows = [] if connection is None else connection.execute(query).fetchall()
        return [self._decode(entry_type, entry_id, record) for entry_id, record in rows]

    def _select(
        self,
        entry_type: type[Entry],
        where: Sequence[str] = (),
        values: Sequence[object] = (),
        last: int | None = None,
        void: bool = False,
    ) -> list[Entry]:
        with self._reading() as connection:
            if connection is None:
                return []
            conditions = " AND ".join(["TRUE" if void else _IS_VALID.format("entry"), *where])
            query = f"SELECT id, record FROM {_TABLES[entry_type]} AS entry WHERE {conditions} ORDER BY rowid"
            if last is not None:
                query += " DESC LIMIT ?"
            rows = connection.execute(query, [*values, *([] if last is None else [last])]).fetchall()
        rows = rows if last is None else rows[::-1]
        return [self._decode(entry_type, entry_id, record) for entry_id, record in rows]

    def _find(self, entry_id: str, noun: str, types: Sequence[type[Update] | type[Forecast]]) -> Update | Forecast:
        rows: list[tuple[type[Update] | type[Forecast], str, str]] = []
        with self._reading() as connection:
            for entry_type in types if connection is not None and entry_id else ():
                query = f"SELECT id, record FROM {_TABLES[entry_type]} WHERE substr(id, 1, ?) = ?"
                assert connection is not None
                found = connection.execute(query, [len(entry_id), entry_id])
                rows += [(entry_type, full_id, record) for full_id, record in found]
        if len(rows) != 1:
            raise LedgerError(
                f"{len(rows)} {noun} in {self.path} begin with {entry_id!r}; `resque ledger list` shows the ids"
            )
        ((entry_type, full_id, record),) = rows
        return self._decode(entry_type, full_id, record)

    def _insert(self, connection: sqlite3.Connection, entry: Update | Forecast | Question) -> None:
        record = encode(entry)
        try:
            decode(type(entry), record)  # an append-only file must not hold what cannot be read back; takes 10 µs
        except ValueError as error:
            raise LedgerError(f"{_name(entry)} has a value of a wrong type: {error}; nothing written") from error
        values: dict[str, object] = {"id": entry.id, "created_utc": entry.created_utc, "record": record}
        if not isinstance(entry, Question):
            values |= {name: getattr(entry, name) for name in ("model", "shift_type", "target_accuracy")}
        if isinstance(entry, Update):
            values |= {"reached": int(entry.reached), "forecast_id": entry.forecast_id}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        try:
            connection.execute(f"INSERT INTO {_TABLES[type(entry)]} ({names}) VALUES ({marks})", list(values.values()))
        except sqlite3.IntegrityError as error:
            raise LedgerError(f"{self.path} already holds {_name(entry)}: nothing written") from error

    def _insert_new(self, connection: sqlite3.Connection, entry: Update | Forecast | Question | Void) -> bool:
        """Insert an entry unless the ledger holds it; return whether it is new."""
        if isinstance(entry, Void):
            return self._insert_void(connection, entry)
        row = connection.execute(f"SELECT record FROM {_TABLES[type(entry)]} WHERE id = ?", [entry.id]).fetchone()
        if row is None:
            self._insert(connection, entry)
        elif self._decode(type(entry), entry.id, row[0]) != entry:
            raise LedgerError(
                f"{self.path} already holds {_name(entry)} with another content: nothing written; "
                "name another file with --ledger"
            )
        return row is None

    def _insert_void(self, connection: sqlite3.Connection, void: Void) -> bool:
        """Insert a tombstone unless the ledger holds it; return whether it is new."""
        if connection.execute(f"SELECT 1 FROM {void.entry}s WHERE id = ?", [void.id]).fetchone() is None:
            raise LedgerError(f"{self.path} holds no {void.entry} {void.id} that could be void: nothing written")
        row = connection.execute("SELECT record FROM voids WHERE id = ?", [void.id]).fetchone()
        if row is None:
            values = [void.id, void.created_utc, encode(void)]
            connection.execute("INSERT INTO voids (id, created_utc, record) VALUES (?, ?, ?)", values)
        elif (known := self._decode(Void, void.id, row[0])) != void:
            raise LedgerError(f"{void.entry} {void.id} is void since {known.created_utc}: {known.why}; nothing written")
        return row is None

    def _decode(self, entry_type: type[AnyEntry], entry_id: str, record: str) -> AnyEntry:
        try:
            return decode(entry_type, record)
        except (ValueError, RecursionError) as error:
            raise LedgerError(
                f"{self.path}: entry {entry_id} cannot be read ({error!s:.80}); was it written by resque?"
            ) from error


def _name(entry: Update | Forecast | Question) -> str:
    return f"{type(entry).__name__.lower()} {entry.id}"
