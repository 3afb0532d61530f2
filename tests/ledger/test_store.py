import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from doubles import synthetic_update
from resque.errors import LedgerError, ResqueWarning
from resque.ledger import database
from resque.ledger.export import json_lines
from resque.ledger.store import Ledger


@pytest.fixture
def ledger(folder):
    return Ledger(folder / "resque.db")


def test_entries_are_read_equal_and_in_order(ledger):
    updates = [synthetic_update(name, index=0.1, steps=40) for name in ("b", "a", "c")]
    for update in updates:
        ledger.add(update)
    assert Ledger(ledger.path).updates() == updates


def test_missing_ledger_is_empty_and_reading_does_not_create_it(ledger):
    assert ledger.updates() == []
    assert ledger.settled() == []
    assert not ledger.path.exists()


def test_entries_cannot_be_changed_deleted_or_replaced(ledger):
    ledger.add(synthetic_update("a", index=0.1, steps=40))
    with pytest.raises(LedgerError, match="already holds update a: nothing written"):
        ledger.add(synthetic_update("a", index=0.2, steps=50))
    with sqlite3.connect(ledger.path) as connection:
        for statement in (
            "UPDATE updates SET shift_type = 'x'",
            "DELETE FROM updates",
            "INSERT OR REPLACE INTO updates SELECT * FROM updates",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()
    assert ledger.updates()[0].cost.steps == 40


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look like a file " * 20, None])
def test_file_that_is_not_a_ledger_is_refused_and_kept(folder, content):
    path = folder / "other.db"
    if content is None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE mine (x)")
        connection.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    for call in (Ledger(path).updates, Ledger(path).check_writable):
        with pytest.raises(LedgerError, match="--ledger"):
            call()
    assert path.read_bytes() == before


def test_newer_schema_is_refused(ledger):
    ledger.add(synthetic_update("a", index=0.1, steps=40))
    with sqlite3.connect(ledger.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="newer resque"):
        ledger.updates()


def test_path_that_cannot_be_written_is_refused(folder):
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger(folder).check_writable()
    with pytest.raises(LedgerError, match="begin with 'x'"):
        Ledger(folder / "none.db").forecast("x")


@pytest.mark.parametrize("name", ["file/x.db", "/proc/x.db", "/proc/new/x.db", f"{'x' * 300}.db", f"{'y' * 300}/x.db"])
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder that refuses all files")
def test_a_ledger_that_could_not_be_created_is_refused_before_it_is_needed(folder, name):
    (folder / "file").touch()
    with pytest.raises(LedgerError, match="cannot be created in .*; name another file with --ledger"):
        Ledger(folder / name).check_writable()
    Ledger(folder / "a" / "b" / "x.db").check_writable()
    assert [path.name for path in folder.iterdir()] == ["file"]


def add_many(path: str, worker: int) -> None:
    for i in range(10):
        Ledger(path).add(synthetic_update(f"{worker}-{i}", index=0.1, steps=40))


def test_concurrent_writers_lose_no_entry(ledger):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_many, args=(str(ledger.path), w)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {update.id for update in ledger.updates()} == {f"{w}-{i}" for w in range(2) for i in range(10)}


def test_ledger_in_a_read_only_folder_is_read(ledger):
    ledger.add(synthetic_update("a", index=0.1, steps=40))
    before = {path.name for path in ledger.path.parent.iterdir()}
    ledger.path.chmod(0o444)
    ledger.path.parent.chmod(0o555)
    try:
        assert [update.id for update in ledger.updates()] == ["a"]
    finally:
        ledger.path.parent.chmod(0o755)
    assert {path.name for path in ledger.path.parent.iterdir()} >= before


def written(ledger, n):
    updates = [synthetic_update(f"u{i}", index=0.1, steps=40) for i in range(n)]
    for update in updates:
        ledger.add(update)
    return [update.id for update in updates]


@pytest.fixture
def read_only_folder(monkeypatch):
    """A folder in which SQLite cannot create the index of a write-ahead log; the rights of a superuser hide it."""
    begin = database._begin_read

    def refuse(location):
        if "mode=ro" in location:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise error
        return begin(location)

    monkeypatch.setattr(database, "_begin_read", refuse)


@pytest.mark.parametrize("checkpointed", [1, 3, 8])
@pytest.mark.parametrize("writer", ["lives", "was killed", "ended"])
def test_every_row_is_read_in_a_read_only_folder(ledger, request, writer, checkpointed):
    """Rows that are in the write-ahead log alone are as committed as others."""
    ids = written(ledger, checkpointed)
    with contextlib.closing(sqlite3.connect(ledger.path)) as other:
        other.execute("SELECT count(*) FROM sqlite_master").fetchall()  # keeps the log from being removed
        ids += [f"v{i}" for i in range(8)]
        for name in ids[checkpointed:]:
            ledger.add(synthetic_update(name, index=0.1, steps=40))
        if writer == "was killed":
            ledger.path = shutil.copy(ledger.path, ledger.path.with_name("killed.db"))
            shutil.copy(f"{ledger.path.parent}/resque.db-wal", f"{ledger.path}-wal")
        if writer == "ended":
            other.close()
        request.getfixturevalue("read_only_folder")
        assert [update.id for update in ledger.updates()] == ids


def linked(file, how):
    """Another name of a file."""
    place = file.parent / "links"
    place.mkdir()
    if how == "absolute":
        (place / "a.db").symlink_to(file)
    elif how == "relative":
        (place / "a.db").symlink_to(f"../{file.name}")
    elif how == "chain":
        (place / "b.db").symlink_to(file)
        (place / "a.db").symlink_to("b.db")
    elif how == "folder":
        (place / "in").symlink_to("..")
        return place / "in" / file.name
    else:
        return place / ".." / file.name
    return place / "a.db"


@pytest.mark.parametrize("how", ["absolute", "relative", "chain", "folder", "dots"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_ledger_is_one_whatever_its_name(ledger, request, how, exists):
    """One log, one lock and one folder of pilots: rows in the log alone were once lost behind a link."""
    ids = written(ledger, 3) if exists else []
    other = Ledger(linked(ledger.path, how))
    assert (other.path, other.pilot_file("f")) == (ledger.path, ledger.pilot_file("f"))
    with contextlib.closing(sqlite3.connect(ledger.path)) as reader:
        reader.execute("SELECT count(*) FROM sqlite_master").fetchall()
        for name in "xyz":
            other.add(synthetic_update(name, index=0.1, steps=40))
        request.getfixturevalue("read_only_folder")
        for each in ledger, other:
            assert [update.id for update in each.updates()] == [*ids, *"xyz"]


def test_relative_name_stays_the_same_file(folder, monkeypatch):
    ledger = Ledger("h.db")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert ledger.path == Ledger(folder / "h.db").path == Ledger("../h.db").path


def test_name_that_no_file_can_have_is_one_line(folder, monkeypatch):
    with pytest.raises(LedgerError, match="cannot be used: .*; name another file"):
        Ledger("a\0b")
    gone = folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(LedgerError, match="cannot be used: .*; name another file"):
        Ledger("h.db")


def test_ledger_that_changes_while_it_is_read_without_locks_is_an_error(ledger, read_only_folder):
    written(ledger, 2)

    def read_beside_a_writer():
        with database.open_database(ledger.path, write=False) as connection:
            ledger.add(synthetic_update("late", index=0.1, steps=40))
            return connection.execute("SELECT id FROM updates").fetchall()

    with pytest.raises(LedgerError, match="was written to while it was read"):
        read_beside_a_writer()


HOLDS = {
    "exclusive": ("PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"),
    "writing": ("BEGIN IMMEDIATE",),
}


@contextlib.contextmanager
def held(path, how):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in HOLDS[how]:
            other.execute(statement)
        yield other


CALLS = {
    "read": lambda ledger: ledger.updates(),
    "add": lambda ledger: ledger.add(synthetic_update("new", index=0.1, steps=40)),
    "check": lambda ledger: ledger.check_writable(),
    "extend": lambda ledger: ledger.extend([synthetic_update("new", index=0.1, steps=40)]),
}


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(database, "_BUSY_S", 0.0)
    monkeypatch.setattr(database, "_QUIET_S", -1.0)


@pytest.mark.parametrize("how", HOLDS)
@pytest.mark.parametrize("call", CALLS)
def test_ledger_that_another_process_holds_is_waited_for(ledger, monkeypatch, impatient, how, call):
    ids, pauses = written(ledger, 3), []
    with held(ledger.path, how) as other:

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 20:
                other.close()
            assert len(pauses) < 100

        monkeypatch.setattr(database.time, "sleep", pause)
        if call == "read" and how == "writing":
            CALLS[call](ledger)  # readers do not wait for a writer
            return
        with pytest.warns(ResqueWarning, match="held by another process: waiting for it, up to 5 minutes"):
            found = CALLS[call](ledger)
    assert pauses[0] < pauses[5] < pauses[-1] <= 5.0
    if call == "read":
        assert [update.id for update in found] == ids
    assert {update.id for update in ledger.updates()} >= set(ids)


@pytest.mark.parametrize("call", CALLS)
def test_ledger_that_is_held_for_minutes_is_an_error_without_advice_to_write_elsewhere(
    ledger, monkeypatch, impatient, call
):
    written(ledger, 3)
    clock = itertools.count(step=60.0)
    monkeypatch.setattr(database.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(database.time, "sleep", lambda seconds: None)
    with (
        held(ledger.path, "exclusive"),
        pytest.warns(ResqueWarning),
        pytest.raises(LedgerError, match="held by another process for 5 minutes; nothing is lost: wait") as caught,
    ):
        CALLS[call](ledger)
    assert "--ledger" not in str(caught.value)


def test_failure_in_a_transaction_leaves_nothing(ledger):
    ids = written(ledger, 2)
    new = synthetic_update("new", index=0.1, steps=40)
    clash = dataclasses.replace(synthetic_update("u1", index=0.1, steps=40), seed=99)
    with pytest.raises(LedgerError, match="with another content"):
        ledger.extend([new, clash])
    assert [update.id for update in ledger.updates()] == ids


def test_reading_an_empty_file_leaves_it_empty(folder):
    (folder / "resque.db").touch()
    assert Ledger(folder / "resque.db").updates() == []
    assert (folder / "resque.db").stat().st_size == 0


def test_invalid_entry_is_named(ledger):
    ledger.add(synthetic_update("a", index=0.1, steps=40))
    with sqlite3.connect(ledger.path) as connection:
        connection.execute(
            "INSERT INTO updates (id, created_utc, model, target_accuracy, reached, record) VALUES ('b','','',0,0,'{}')"
        )
    connection.close()
    with pytest.raises(LedgerError, match="entry b cannot be read"):
        ledger.updates()


def test_entry_that_could_not_be_read_back_is_not_written(ledger):
    ledger.add(synthetic_update("a", index=0.1, steps=40))
    broken = dataclasses.replace(synthetic_update("b", index=0.1, steps=40), shift_type=5)
    for call in (ledger.add, lambda entry: ledger.extend([entry])):
        with pytest.raises(LedgerError, match=r"update b has a value of a wrong type: .*shift_type"):
            call(broken)
    assert [update.id for update in ledger.updates()] == ["a"]


@pytest.mark.parametrize("path", ["x" * 300, f"{'x' * 300}/h.db", "/dev/zero", "/dev/null", "fifo", "folder"])
@pytest.mark.parametrize("line", ["ledger list", "ledger export", "ledger import more.jsonl", "report"])
def test_a_ledger_that_is_no_file_is_refused_in_one_line(cli, folder, path, line):
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    (folder / "more.jsonl").write_text("".join(json_lines([synthetic_update("u", index=0.1, steps=5)])))
    code, out, err = cli(f"{line} --ledger {path}")
    assert (code, out) == (1, "")
    assert path in err
    assert err.count("\n") == 1
    assert "this is a bug" not in err


@pytest.mark.parametrize("form", ["", " --format jsonl", " --format mlflow", " --format codecarbon"])
@pytest.mark.parametrize("path", ["x" * 300, "/dev/zero", "/dev/random", "missing"])
def test_what_is_no_file_is_not_imported(cli, folder, path, form):
    code, _, err = cli(f"ledger import {path}{form}")
    assert code == 1
    assert path in err
    assert err.count("\n") == 1
    assert "this is a bug" not in err
    assert not (folder / "resque.db").exists()
