"""An import checks meaning: one line names the line and the field, and nothing is imported."""

import copy
import dataclasses
import json
import math
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_forecast, synthetic_update
from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff
from resque.errors import DataError, LedgerError
from resque.ledger.bundled import bundled_updates
from resque.ledger.export import json_lines, read_json_lines
from resque.ledger.importers.importer import ImportOptions, import_updates
from resque.ledger.migration import modernize
from resque.ledger.records import Estimate, ForecastRevision, Question, Update, Void
from resque.ledger.serialization import from_dict
from resque.ledger.store import Ledger
from resque.ledger.validation import check_record
from resque.types import Interval

DATA = Path(__file__).parents[1] / "data"
STUDIES = Path(__file__).parents[2] / "studies" / "results"


def whole_update():
    """An update in which every field is known."""
    update = synthetic_update("a", index=0.1, steps=40)
    revision = ForecastRevision(10, 0.6, Estimate(40.0, Interval(30.0, 50.0, 0.8, "none"), 45.0), 0.9, 7)
    return dataclasses.replace(
        update,
        features=dataclasses.replace(
            update.features, floor_rad=0.01, samples=100, classes=10, parameters=99, scores={"LEEP": -1.0},
            task_index=1.0,
        ),
        grid=Grid("FRA", 44.0, "given"), tariff=Tariff(0.2, 1.0), revisions=(revision,),
        cost=dataclasses.replace(update.cost, carbon_kg=1e-6, flops=1e9),
        angle_to_parent_rad=0.5, angle_to_root_rad=0.6,
    )  # fmt: skip


def whole_question():
    """A question without a forecast, with every field."""
    named = "q1", "2026-03-02T00:00:00+00:00", "net", "m1", "npz:new.npz", 0.9
    return Question(*named, Spending(3.0, 1e-5), Grid("FRA", 44.0, "given"), Tariff(0.2, 1.0))


PLAIN = {
    "update": json.loads(next(json_lines([whole_update()])))["update"],
    "forecast": json.loads(next(json_lines([synthetic_forecast(whole_update())])))["forecast"],
    "question": json.loads(next(json_lines([whole_question()])))["question"],
}


def places(plain, path=()):
    """Yield the path of every scalar in nested dictionaries and lists."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else None
    if items is None:
        yield path
    for key, value in items or ():
        yield from places(value, (*path, key))


def at(plain, path):
    for key in path:
        plain = plain[key]
    return plain


NUMBERS = {name: [p for p in places(plain) if type(at(plain, p)) in (int, float)] for name, plain in PLAIN.items()}
TEXTS = {name: [p for p in places(plain) if isinstance(at(plain, p), str)] for name, plain in PLAIN.items()}
FREE = {"loss", "seed", "scores", "alternatives", "recipe"}
SHARES = {"accuracy", "target_accuracy", "probability_reached", "trainable_share", "level"} | {
    "original_accuracy_before", "original_accuracy_after",
}  # fmt: skip


def put(name, path, value):
    plain = copy.deepcopy(PLAIN[name])
    at(plain, path[:-1])[path[-1]] = value
    return plain


def check_refused(folder, name, plain, word):
    """The line of an invalid entry is refused by its number and a word, and the ledger stays as it was."""
    ledger, file = Ledger(folder / "resque.db"), folder / "h.jsonl"
    good = synthetic_update("good", index=0.2, steps=30)
    text = json.dumps({name: plain}).replace('"<infinity>"', "1e999").replace('"<huge>"', "9" * 4000)
    file.write_text("".join(json_lines([good])) + text + "\n")
    with pytest.raises(DataError, match=re.escape(word)) as error:
        import_updates(ledger, file)
    message = str(error.value)
    assert "h.jsonl, line 2: " in message
    assert "nothing was imported" in message
    assert "\n" not in message
    message.encode()
    assert not ledger.path.exists()


@given(st.data())
def test_number_out_of_its_range_is_refused_by_line_and_field(tmp_path_factory, data):
    name = data.draw(st.sampled_from(list(PLAIN)))
    path = data.draw(st.sampled_from(NUMBERS[name]))
    field = next(key for key in reversed(path) if isinstance(key, str))
    low = st.floats(max_value=-1e-9, allow_infinity=False) | st.integers(max_value=-1)
    bad = [st.just("<infinity>")] + ([st.just("<huge>")] if "recipe" not in path else [])
    bad += [] if FREE & set(path) else [low]
    bad += [st.floats(1.0, exclude_min=True, allow_infinity=False)] if field in SHARES else []
    bad += [st.floats(3.15, 1e9)] if field.endswith("_rad") else []
    value = data.draw(st.one_of(bad))
    check_refused(tmp_path_factory.getbasetemp(), name, put(name, path, value), "per" if "tariff" in path else field)


@given(st.data())
def test_lone_surrogates_are_refused(tmp_path_factory, data):
    name = data.draw(st.sampled_from(list(PLAIN)))
    path = data.draw(st.sampled_from(TEXTS[name]))
    text = data.draw(st.text(max_size=5)) + data.draw(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF))
    check_refused(tmp_path_factory.getbasetemp(), name, put(name, path, text), path[-1])
    name = data.draw(st.sampled_from(["update", "forecast"]))
    plain = copy.deepcopy(PLAIN[name])
    plain["recipe"][text] = 1
    check_refused(tmp_path_factory.getbasetemp(), name, plain, "recipe")


CONTRADICTIONS = {
    "steps decrease": (("curve", "steps"), [0, 20, 10, 30, 40], "curve.steps go from 20 to 10"),
    "steps repeat": (("curve", "steps"), [0, 20, 20, 30, 40], "curve.steps go from 20 to 20"),
    "time falls": (("curve", "wall_s"), [0.0, 0.2, 0.1, 0.3, 0.4], "curve.wall_s falls"),
    "columns": (("curve", "loss"), [1.0], "curve.steps and the other columns have [1, 5] entries"),
    "not reached": (("target_accuracy",), 0.95, "reached is True"),
    "reached": (("reached",), False, "reached is False"),
    "fewer steps": (("cost", "steps"), 39, "cost.steps is 39"),
    "longer than the run": (("cost", "wall_s"), 99.0, "cost.wall_s is 99.0"),
    "longer curve": (("curve", "wall_s"), [0.0, 0.1, 0.2, 0.3, 99.0], "curve.wall_s is 99.0"),
    "longer evaluation": (("evaluation_s",), 99.0, "evaluation_s is 99.0"),
    "more energy": (("cost", "energy_kwh"), 1.0, "cost.energy_kwh is 1.0"),
    "larger parts": (("energy", "components_kwh", "gpu"), 1.0, "energy.components_kwh are 1.00004 together"),
    "empty epoch": (("curve", "steps_per_epoch"), 0, "curve.steps_per_epoch is 0"),
    "no process": (("processes",), 0, "processes is 0, expected 1 or more"),
    "no id": (("id",), "", "id is empty"),
    "no time": (("created_utc",), "yesterday", "created_utc is 'yesterday'"),
    "interval": (("revisions", 0, "steps", "interval", "low"), 60.0, "interval.low is 60.0, above high"),
    "pue": (("grid", "pue"), 0.5, "--pue"),
    "price": (("tariff", "per_kwh"), -1.0, "prices -1"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradiction_is_refused(tmp_path, case):
    path, value, message = CONTRADICTIONS[case]
    check_refused(tmp_path, "update", put("update", path, value), message)


def test_forecast_of_an_unknown_cost_is_refused(tmp_path):
    estimates = PLAIN["forecast"]["estimates"]
    plain = put("forecast", ("estimates",), estimates | {"hue": estimates["steps"]})
    check_refused(tmp_path, "forecast", plain, "estimates has 'hue'")


def test_what_the_program_made_is_imported(tmp_path):
    """Bundled and published histories, a ledger of a former version, and the doubles of these tests."""
    published = []
    for file in STUDIES.rglob("*.jsonl"):
        for row in map(json.loads, file.read_text().splitlines()):
            found = [value for value in row.values() if isinstance(value, dict) and "curve" in value]
            published += [from_dict(Update, modernize(value)) for value in found]
    assert len(published) > 300
    for update in published:
        check_record(update)
    assert len(read_json_lines(DATA / "format-1" / "ledger.jsonl")) == 38
    ledger, file = Ledger(tmp_path / "h.db"), tmp_path / "h.jsonl"
    updates = [*bundled_updates(), whole_update(), synthetic_update("b", index=0.1, steps=9, reached=False)]
    file.write_text("".join(json_lines([synthetic_forecast(updates[-1]), *updates])))
    assert len(import_updates(ledger, file).updates) == len(updates)
    assert ledger.updates() == updates


def test_stored_entries_are_read_whatever_they_hold(tmp_path):
    odd = dataclasses.replace(whole_update(), evaluation_s=-5.0, target_accuracy=2.0)
    ledger = Ledger(tmp_path / "h.db")
    ledger.add(odd)
    assert ledger.updates() == [odd]


@pytest.fixture
def database(tmp_path):
    """A path, and a function that changes the tables of five runs in it."""
    path = tmp_path / "mlflow.db"

    def change(*statements):
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"BEGIN;\n{(DATA / 'mlflow.sql').read_text()}COMMIT;")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    change()
    return path, change


COLUMNS = {
    "metrics": ("value", "timestamp", "step", "key"),
    "params": ("value", "key"),
    "runs": ("start_time", "end_time", "status", "name"),
}


def check_import(ledger, path, options):
    """An import ends in valid updates, or in one line and no ledger."""
    message = ""
    try:
        import_updates(ledger, path, options=options)
    except DataError as error:
        message = str(error)
    assert bool(message) != ledger.path.exists()
    assert "\n" not in message
    message.encode()
    for update in ledger.updates():
        check_record(update)
        assert math.isfinite(update.cost.wall_s)


VALUES = ["'text'", "X'ff00'", "CAST(X'ff' AS TEXT)", "CAST(X'eda080' AS TEXT)", "NULL", "9e999", "-1", "1e300", "''"]
VALUES += [str(2**63 - 1), str(-(2**63))]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("table", "column"), [(table, column) for table in COLUMNS for column in COLUMNS[table]])
def test_any_value_in_a_table_of_mlflow_is_one_line_or_a_valid_update(tmp_path, database, table, column, value):
    path, change = database
    try:
        change(f"UPDATE {table} SET {column} = {value}")
    except sqlite3.IntegrityError:
        return  # the table itself refuses this
    check_import(Ledger(tmp_path / "h.db"), path, ImportOptions())


FILES = {
    "metrics/val_accuracy": ["{0} 0.5 -1", "{0} inf 9", "{0} -0.1 9", "{1} 0.5 9", "{0} 0.5 {1}", "{2} 0.5 9", "é 0 0"],
    "params/seed": ["{1}", "{2}", "-1", "nan"],
    "params/learning_rate": ["inf", "nan", "1e999", "{2}"],
    "params/batch_size": ["{1}", "{2}"],
}


@pytest.mark.parametrize("file", FILES)
def test_any_value_in_a_file_of_mlflow_is_one_line_or_a_valid_update(tmp_path, file):
    for number, template in enumerate(FILES[file]):
        place = shutil.copytree(DATA / "mlruns", tmp_path / str(number))
        for run in place.glob("*/*/tags/mlflow.runName"):
            if run.read_text() == "blur-0":
                target = run.parents[1] / file
                old = target.read_text() if file.startswith("metrics") and target.exists() else ""
                target.write_text(old + template.format(1795290999999, "9" * 400, "9" * 5000) + "\n")
        check_import(Ledger(tmp_path / f"{number}.db"), place, ImportOptions(run="blur-0"))


def test_name_of_a_file_that_is_no_text_is_refused(tmp_path):
    place = shutil.copytree(DATA / "mlruns", tmp_path / "mlruns")
    for run in place.glob("*/*/params"):
        (run / "\udcff").write_text("1")
    with pytest.raises(DataError, match="a name in recipe is 'params") as error:
        import_updates(Ledger(tmp_path / "h.db"), place)
    str(error.value).encode()


@pytest.mark.parametrize(("column", "value"), [("cpu_energy", "1"), ("duration", "inf"), ("energy_consumed", "-1")])
def test_row_of_codecarbon_that_contradicts_itself_is_refused(tmp_path, column, value):
    header, first, _ = (DATA / "emissions.csv").read_text().splitlines()
    names, values = header.split(","), first.split(",")
    values[names.index(column)] = value
    (tmp_path / "emissions.csv").write_text(f"{header}\n{','.join(values)}\n")
    ledger = Ledger(tmp_path / "h.db")
    with pytest.raises(DataError, match="line 2: ") as error:
        import_updates(ledger, tmp_path / "emissions.csv", options=ImportOptions(steps=300, accuracy=0.9))
    assert "\n" not in str(error.value)
    assert not ledger.path.exists()


def test_options_that_contradict_a_row_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot become an update: .* is a number of 133 bits"):
        import_updates(
            Ledger(tmp_path / "h.db"),
            DATA / "emissions.csv",
            options=ImportOptions(run="blur-0", steps=10**40, accuracy=0.9),
        )
    assert not (tmp_path / "h.db").exists()


def test_error_of_the_ledger_stays_its_own(tmp_path):
    ledger, file = Ledger(tmp_path / "h.db"), tmp_path / "h.jsonl"
    ledger.add(whole_update())
    file.write_text("".join(json_lines([dataclasses.replace(whole_update(), model="other")])))
    with pytest.raises(LedgerError, match="another content"):
        import_updates(ledger, file)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"cost": {"epochs": 1e6}}, "cost.epochs"),
        ({"stopped_by": "target", "target_accuracy": 0.99999, "reached": False}, "stopped_by"),
        ({"started_utc": "2026-03-05T00:00:00+00:00", "created_utc": "2026-03-01T00:00:00+00:00"}, "created_utc"),
        ({"curve": {"loss": "negative"}}, "curve.loss"),
        ({"features": {"loss": -0.1}}, "features.loss"),
        ({"grid": {"intensity_g_per_kwh": 1e300}}, "grid.intensity_g_per_kwh"),
    ],
)
def test_content_that_no_run_can_have_is_refused(changes, field):
    plain = copy.deepcopy(PLAIN["update"])
    check_record(from_dict(Update, plain))
    for name, value in changes.items():
        if not isinstance(value, dict):
            plain[name] = value
        elif value.get("loss") == "negative":
            plain["curve"]["loss"] = [-1.0] * len(plain["curve"]["steps"])
        else:
            plain[name] |= value
    with pytest.raises(ValueError, match=f"^{re.escape(field)}"):
        check_record(from_dict(Update, plain))


@pytest.mark.parametrize("why", ["", "  ", "\n"])
def test_tombstone_without_a_reason_is_refused(why):
    with pytest.raises(ValueError, match="why is empty"):
        check_record(Void("u1", "update", why, "2026-03-01T00:00:00+00:00"))
