import dataclasses
import multiprocessing
import sqlite3

import pytest

from doubles import synthetic_update
from resque.errors import LedgerError
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
