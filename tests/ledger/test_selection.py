"""What is read of a large ledger is selected by the database, and equals a selection from everything."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_update
from resque.forecasting import selection
from resque.ledger.bundled import bundled_updates
from resque.ledger.store import Ledger


def history(path, updates):
    ledger = Ledger(path)
    ledger.extend(updates)
    return ledger


@pytest.fixture(scope="module")
def updates():
    return [dataclasses.replace(update, parent=f"m{i % 3}") for i, update in enumerate(bundled_updates())]


@pytest.fixture(scope="module")
def ledger(updates, tmp_path_factory):
    return history(tmp_path_factory.mktemp("many") / "resque.db", updates)


@given(
    parent=st.sampled_from([None, "m0", "m2", "none"]),
    new_tasks=st.sampled_from([None, False, True]),
    last=st.sampled_from([None, 1, 7, 10_000]),
)
def test_selected_updates_equal_a_selection_from_all(ledger, updates, parent, new_tasks, last):
    expected = [
        update
        for update in updates
        if parent in (None, update.parent) and new_tasks in (None, update.features.task_index is not None)
    ]
    found = ledger.updates(parent=parent, new_tasks=new_tasks, last=last)
    assert [update.id for update in found] == [update.id for update in expected[-(last or len(expected) or 1) :]]


@pytest.mark.parametrize("most", [3, 10, 40, 10_000])
@pytest.mark.parametrize("new_tasks", [False, True])
def test_forecast_learns_from_updates_of_its_model_first_then_from_the_newest(
    ledger, updates, monkeypatch, most, new_tasks
):
    monkeypatch.setattr(selection, "MOST_UPDATES", most)
    alike = [update for update in updates if (update.features.task_index is not None) == new_tasks]
    own = [update.id for update in alike if update.parent == "m1"][-most:]
    others = [update.id for update in alike if update.id not in own]
    rest = most - len(own)
    expected = [update.id for update in alike] if len(alike) <= most else [*others[len(others) - rest :], *own]
    found = selection.updates_to_learn_from(ledger, "m1", new_tasks)
    assert sorted(update.id for update in found) == sorted(expected)
    assert len(found) == min(most, len(alike))


def test_ledger_of_an_older_version_is_selected_from_without_being_changed(tmp_path):
    import contextlib
    import sqlite3

    path = tmp_path / "old.db"
    entries = [
        dataclasses.replace(synthetic_update(f"u{i}", index=0.1, steps=40), parent=f"m{i % 2}") for i in range(6)
    ]
    history(path, entries)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for name in ("updates_by_forecast", "updates_by_parent", "updates_by_change"):
            connection.execute(f"DROP INDEX {name}")
        connection.execute("DROP TABLE voids")
        connection.execute("DROP TABLE questions")
        connection.execute("PRAGMA user_version = 2")
        connection.commit()
    before = path.read_bytes()
    ledger = Ledger(path)
    assert [update.id for update in ledger.updates(parent="m1")] == ["u1", "u3", "u5"]
    assert ledger.count() == {"updates": 6, "forecasts": 0, "settled": 0, "void": 0}
    assert ledger.voids() == ledger.questions() == []
    assert path.read_bytes() == before
    ledger.void("u1", "wrong")
    assert [update.id for update in ledger.updates(parent="m1")] == ["u3", "u5"]


def test_selections_use_an_index(ledger):
    from resque.ledger.database import IS_NEW_TASK, PARENT, open_database

    with open_database(ledger.path, write=False) as connection:
        for where, index in ((f"{PARENT} = 'm1'", "updates_by_parent"), (f"{IS_NEW_TASK} = 1", "updates_by_change")):
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT id FROM updates WHERE {where}").fetchall()
            assert any(index in str(step) for step in plan), plan


def test_updates_of_each_change_are_counted(ledger, updates):
    tasks = sum(update.features.task_index is not None for update in updates)
    assert (ledger.count_updates(True), ledger.count_updates(False)) == (tasks, len(updates) - tasks)


def test_long_history_is_sampled_for_cross_validation_and_says_so(cli, ledger, updates):
    line = f"ledger validate --target-accuracy 0.7 --no-bundled-history --ledger {ledger.path} --by seed"
    code, out, err = cli(f"{line} --sample 40 --json")
    assert code == 0, err
    assert f"40 of {len(updates)} updates, drawn at random" in err
    assert json.loads(out)["updates"] <= 40


def started_at(name, parent, accuracy, classes=10, child=""):
    """An update of a model that starts at an accuracy."""
    update = synthetic_update(name, index=0.5, steps=100)
    curve = dataclasses.replace(update.curve, accuracy=(accuracy, *update.curve.accuracy[1:]))
    features = dataclasses.replace(update.features, classes=classes)
    return dataclasses.replace(update, parent=parent, child=child or f"child of {name}", curve=curve, features=features)


@given(classes=st.integers(2, 100), share=st.floats(-0.2, 0.09), start=st.floats(0.11, 0.6), others=st.integers(0, 3))
def test_original_trainings_are_no_history(tmp_path_factory, classes, share, start, others):
    """An untrained model starts at chance with whatever data; a trained one does so under some shifts alone."""
    chance, above = (max(0.0, 1.0 / classes + part * (1.0 - 1.0 / classes)) for part in (share, start))
    scratch = [started_at("original training", "random", chance, classes, child="trained")]
    scratch += [started_at(f"other {i}", f"random {i}", chance, classes) for i in range(others)]
    kept = [
        started_at("first update", "trained", chance, classes),
        started_at("hard shift of another model", "elsewhere", chance, classes),
        started_at("mild shift of another model", "elsewhere", above, classes),
        started_at("unknown classes", "unknown", chance, None),
        started_at("of this model", "model", chance, classes),
    ]
    ledger = history(tmp_path_factory.mktemp("own") / "resque.db", [*scratch, *kept])
    found = selection.updates_to_learn_from(ledger, "model", new_tasks=False)
    assert {update.id for update in found} == {update.id for update in kept}
