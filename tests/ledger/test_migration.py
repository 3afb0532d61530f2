"""Files that the version before the redesign wrote: every one is read, and nothing in it is lost.

``tests/data/format-1`` holds a ledger, its export and a profile of that version.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import resque
from doubles import synthetic_update
from resque.errors import LedgerError
from resque.ledger.bundled import bundled_updates
from resque.ledger.export import json_lines
from resque.ledger.importers.importer import import_updates
from resque.ledger.migration import modernize
from resque.ledger.serialization import decode, from_dict_strict, to_dict
from resque.ledger.store import Ledger

FORMAT_1 = Path(__file__).parents[1] / "data" / "format-1"
RENAMED = {
    "kind": "shift_type",
    "kinds_history": "shift_types_history",
    "renewals": "revisions",
    "asking": "overhead",
    "doubts": "reliability_issues",
    "n_shipped": "n_bundled",
    "moved_parent_rad": "angle_to_parent_rad",
    "moved_origin_rad": "angle_to_root_rad",
    "neighbours": "k-NN accuracy",
    "recalibrated accuracy": "adapted accuracy",
    "recalibrated loss": "adapted loss",
    "recalibrated neighbours": "adapted k-NN",
    "recalibrated gap": "adapted gap",
    "BN-adapted accuracy": "adapted accuracy",
    "BN-adapted loss": "adapted loss",
    "BN-adapted k-NN": "adapted k-NN",
    "BN-adapted gap": "adapted gap",
    "warm-up neighbours": "warm-up k-NN",
}


def renamed(value):
    """The same JSON with every former name replaced, wherever it stands; no other key or predictor has such a name.

    What a network that had nothing to adapt was given as scores of the adapted one is left out. An old forecast was
    made for data with all their labels.
    """
    if isinstance(value, dict):
        if "alternatives" in value:
            value = {"missing_labels": {"train": 0, "test": 0}} | value
        if {"accuracy", "loss", "scores"} <= set(value):
            own = {"recalibrated accuracy": value["accuracy"], "recalibrated loss": value["loss"]}
            if own.items() <= value["scores"].items():
                value = value | {"scores": {k: v for k, v in value["scores"].items() if k not in own}}
        changed = {RENAMED.get(key, key): renamed(item) for key, item in value.items()}
        if "predictor" in changed:
            changed["predictor"] = ", ".join(RENAMED.get(name, name) for name in value["predictor"].split(", "))
        return changed
    return [renamed(item) for item in value] if isinstance(value, list) else value


def old_records(table):
    """Id → JSON of a table of the old ledger."""
    with closing(sqlite3.connect(f"file:{FORMAT_1 / 'ledger.db'}?immutable=1", uri=True)) as connection:
        return {name: json.loads(record) for name, record in connection.execute(f"SELECT id, record FROM {table}")}


def version_and_columns(path):
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        columns = [{row[1] for row in connection.execute(f"PRAGMA table_info({t})")} for t in ("updates", "forecasts")]
    return version, columns


@pytest.fixture
def old_ledger(folder):
    return Ledger(shutil.copy(FORMAT_1 / "ledger.db", folder / "resque.db"))


def test_every_entry_of_an_old_ledger_is_read_field_by_field_and_the_file_is_left_as_it_is(old_ledger):
    before = old_ledger.path.read_bytes()
    for table, entries in (("updates", old_ledger.updates()), ("forecasts", old_ledger.forecasts())):
        old = old_records(table)
        assert [entry.id for entry in entries] == list(old)
        for entry in entries:
            assert to_dict(entry) == renamed(old[entry.id])
    assert len(old_ledger.updates()) == 29
    assert sum(len(update.revisions) for update in old_ledger.updates()) > 100
    settled = {update["forecast_id"] for update in old_records("updates").values()} - {None}
    assert {forecast.id for forecast, _ in old_ledger.settled()} == settled
    assert old_ledger.path.read_bytes() == before
    assert version_and_columns(old_ledger.path)[0] == 1


@pytest.mark.parametrize("field", ["seed", "train_data", "test_data"])
def test_what_an_old_recording_did_not_know_does_not_hide_the_ledger(old_ledger, field):
    """The former ``resque.record`` stored any None that a caller passed, and its ledgers cannot be corrected."""
    n = len(old_ledger.updates())
    record = next(iter(old_records("updates").values())) | {"id": "new", field: None}
    with closing(sqlite3.connect(old_ledger.path)) as connection, connection:
        connection.execute(
            "INSERT INTO updates (id, created_utc, model, target_accuracy, reached, record) VALUES (?, ?, ?, ?, ?, ?)",
            ["new", record["created_utc"], record["model"], record["target_accuracy"], 1, json.dumps(record)],
        )
    *_, last = old_ledger.updates()
    assert (len(old_ledger.updates()), last.id) == (n + 1, "new")
    assert getattr(last, field) == (None if field == "seed" else "")


def test_writing_migrates_the_schema_and_keeps_every_entry(old_ledger):
    updates, forecasts = old_ledger.updates(), old_ledger.forecasts()
    new = synthetic_update("new", index=0.1, steps=40)
    old_ledger.add(new)
    assert (old_ledger.updates(), old_ledger.forecasts()) == ([*updates, new], forecasts)
    version, columns = version_and_columns(old_ledger.path)
    assert version == 4
    assert all("shift_type" in names and "kind" not in names for names in columns)
    with closing(sqlite3.connect(old_ledger.path)) as connection:
        shift_types = dict(connection.execute("SELECT id, shift_type FROM updates"))
        assert shift_types == {update.id: update.shift_type for update in [*updates, new]}
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("UPDATE updates SET shift_type = 'x'")
    with pytest.raises(LedgerError, match="already holds update"):
        old_ledger.add(updates[0])


def test_an_old_export_is_imported_once_and_exported_with_the_new_names(old_ledger, folder):
    new = Ledger(folder / "new.db")
    imported = import_updates(new, FORMAT_1 / "ledger.jsonl")
    assert (len(imported.updates), len(imported.forecasts), imported.held) == (29, 9, 0)
    assert (new.updates(), new.forecasts()) == (old_ledger.updates(), old_ledger.forecasts())
    for ledger in (new, old_ledger):
        again = import_updates(ledger, FORMAT_1 / "ledger.jsonl")
        assert (again.updates, again.forecasts, again.held) == ((), (), 38)
    old_lines = (FORMAT_1 / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    new_lines = json_lines([*new.forecasts(), *new.updates()])
    assert [json.loads(line) for line in new_lines] == [renamed(json.loads(line)) for line in old_lines]


def test_a_wrong_value_of_an_old_export_is_refused_by_its_name_of_today(cli, folder):
    line = (FORMAT_1 / "ledger.jsonl").read_text(encoding="utf-8").splitlines()[0]
    (folder / "history.jsonl").write_text(line.replace('"kind": "gaussian"', '"kind": 3'), encoding="utf-8")
    code, _, err = cli("ledger import history.jsonl")
    assert (code, err.count("\n")) == (1, 1)
    assert "line 1: forecast: shift_type is 3, expected `str | null`" in err


def test_an_old_profile_loads_and_compares():
    profile = resque.Profile.load(FORMAT_1 / "profile.safetensors")
    again = resque.Profile.load(FORMAT_1 / "profile.safetensors")
    assert resque.resque_dist(profile, again).value == pytest.approx(0.0, abs=1e-6)


def test_every_line_of_the_bundled_history_is_read_field_by_field():
    text = resources.files("resque.ledger").joinpath("bundled.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [to_dict(update) for update in bundled_updates()] == [renamed(line) for line in lines]
    assert len(lines) == 988


def test_networks_of_the_bundled_history_that_have_nothing_to_adapt_have_no_adapted_accuracy():
    known = {}
    for update in bundled_updates():
        if not update.from_scratch and {"adapted accuracy", "adapted k-NN"} & set(update.features.scores):
            known.setdefault(update.model.rpartition(":")[2], set()).add("adapted accuracy" in update.features.scores)
    assert known == {"small_resnet": {True}, "small_vgg": {True}, "small_vit": {False}, "plain_cnn": {True}}


FORMER_SCORES = st.dictionaries(
    st.sampled_from(["BN-adapted accuracy", "BN-adapted loss", "BN-adapted k-NN", "LogME", "warm-up k-NN"]),
    st.sampled_from([0.25, 0.5, 2.0]),
)


@given(scores=FORMER_SCORES, accuracy=st.sampled_from([None, 0.25, 0.5]), loss=st.sampled_from([None, 0.25, 2.0]))
def test_scores_of_a_record_with_todays_fields_get_todays_names(scores, accuracy, loss):
    plain = to_dict(synthetic_update("a", index=0.1, steps=40))
    plain["features"] |= {"accuracy": accuracy, "loss": loss, "scores": scores}
    given_loss, own = (
        scores.get("BN-adapted loss"),
        accuracy is not None and scores.get("BN-adapted accuracy") == accuracy,
    )
    unadapted = own and (None in (given_loss, loss) or given_loss == loss)
    dropped = {"BN-adapted accuracy", "BN-adapted loss"} if unadapted else set()
    expected = {RENAMED.get(name, name): value for name, value in scores.items() if name not in dropped}
    assert decode(resque.Update, json.dumps(plain)).features.scores == expected
    assert modernize(plain)["features"]["scores"] == expected
    assert modernize(modernize(plain)) == modernize(plain)


def test_an_adapted_accuracy_of_today_that_changed_nothing_is_kept():
    plain = to_dict(synthetic_update("a", index=0.1, steps=40))
    scores = {"adapted accuracy": plain["features"]["accuracy"], "adapted loss": plain["features"]["loss"]}
    plain["features"]["scores"] = scores
    assert decode(resque.Update, json.dumps(plain)).features.scores == scores


@pytest.mark.parametrize("predictor", ["BN-adapted gap", "accuracy gap, BN-adapted k-NN", "index, LogME"])
@pytest.mark.parametrize("alternatives", [{}, {"BN-adapted gap": 3.0, "index": 2.0}])
def test_predictors_of_a_forecast_with_todays_fields_get_todays_names(old_ledger, predictor, alternatives):
    plain = to_dict(old_ledger.forecasts()[0]) | {"predictor": predictor, "alternatives": alternatives}
    forecast = decode(resque.Forecast, json.dumps(plain))
    assert forecast.predictor == predictor.replace("BN-", "")
    assert forecast.alternatives == {name.replace("BN-", ""): steps for name, steps in alternatives.items()}


def test_an_energy_method_that_was_not_told_is_unknown():
    plain = to_dict(synthetic_update("a", index=0.1, steps=40))
    plain["energy"]["methods"] = {"cpu": "not told", "ram": "assumed"}
    plain["kind"] = plain.pop("shift_type")
    update = from_dict_strict(resque.Update, modernize(plain))
    assert update.energy.methods == {"cpu": "unknown", "ram": "assumed"}


def test_a_checkpoint_gets_the_names_of_today():
    assert modernize({"renewals": [], "rows": [[0, 0.5]]}) == {"revisions": [], "rows": [[0, 0.5]]}


@pytest.mark.parametrize(
    "record", [3, None, [], {}, {"features": 3}, {"features": {}, "predictor": 1, "energy": {"methods": {"cpu": []}}}]
)
def test_what_is_no_record_is_left_as_it_is(record):
    assert modernize(record) == record


def test_a_record_of_today_is_not_copied():
    plain = to_dict(synthetic_update("a", index=0.1, steps=40))
    plain["recipe"] = {"kind": "of its own"}
    assert modernize(plain) is plain
