"""Export, and import of files that MLflow 3.17 and codecarbon 3.3 wrote, through the real command line.

``tests/data`` holds the records of five small runs: a folder of files, the tables of a database, and codecarbon's rows.
"""

import csv
import io
import json
import math
import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.errors import DataError, LedgerError
from resque.forecasting.history import ForecastQuery, history_rows, update_group
from resque.ledger.export import csv_lines, json_lines, read_json_lines
from resque.ledger.records import Estimate, Features, Forecast, StepCost, Update
from resque.ledger.serialization import from_dict, from_dict_strict, to_dict
from resque.ledger.store import Ledger
from resque.types import Interval

DATA = Path(__file__).parents[1] / "data"
SKIPPED = {"final only": "once", "by epoch": "one by one", "percent": "--percent"}


@pytest.fixture
def store(folder, monkeypatch):
    """Copy the files of the five runs, and set the time zone in which codecarbon wrote its times."""
    shutil.copytree(DATA / "mlruns", folder / "mlruns")
    shutil.copy(DATA / "emissions.csv", folder)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        connection.executescript(f"BEGIN;\n{(DATA / 'mlflow.sql').read_text()}COMMIT;")
    zone(monkeypatch, "UTC")
    yield folder
    monkeypatch.undo()
    time.tzset()


def zone(monkeypatch, name):
    monkeypatch.setenv("TZ", name)
    time.tzset()


def forecast(name):
    reading = EnergyReading(1.0, None, {}, {}, "m")
    estimate = Estimate(40.0, Interval(10.0, None, 0.8, "empirical only"), upper=math.inf)
    return Forecast(
        id=name, created_utc="2026-01-01", model="m", parent="p", train_data="d", test_data="t",
        shift_type=None, recipe={},
        target_accuracy=0.9, features=Features(0.1, 0.5, 1.0, scores={"LogME": math.nan}), predictor="index",
        estimates={"steps": estimate}, probability_reached=0.9, n_history=5,
        shift_types_history=("blur",), max_steps=100,
        step_cost=StepCost(0.01, None, 3, reading), overhead=reading, grid=Grid("FRA", 44.0, "given"), notes=("é",),
    )  # fmt: skip


@pytest.fixture
def history(folder):
    ledger = Ledger(folder / "resque.db")
    for entry in (forecast("f2"), synthetic_update("b", index=0.1, steps=40, forecast_id="f2"), forecast("f1")):
        ledger.add(entry)
    ledger.add(synthetic_update("a", index=0.3, steps=80, shift_type=None, reached=False))
    return ledger


def run_json(cli, line):
    code, out, err = cli(line + " --json")
    assert code == 0, err
    return json.loads(out)


def updates_in(path):
    return {update.train_data.rsplit("/", 1)[-1]: update for update in Ledger(path).updates()}


def test_export_import_export_is_the_same_to_the_byte(cli, history, folder):
    _, first, _ = cli("ledger export")
    assert first.count("\n") == 4
    (folder / "history.jsonl").write_text(first)
    result = run_json(cli, "ledger import history.jsonl --ledger other.db")
    assert (result["forecasts"], result["updates"], result["held"]) == (["f2", "f1"], ["b", "a"], 0)
    assert cli("ledger export --ledger other.db")[1] == first
    assert Ledger(folder / "other.db").settled() == history.settled()
    assert run_json(cli, "ledger import history.jsonl --ledger other.db")["held"] == 4
    assert cli("ledger export --ledger other.db --out again.jsonl")[:2] == (0, "")
    assert (folder / "again.jsonl").read_text() == first
    assert cli("ledger export --ledger other.db --out again.jsonl")[0] == 0
    assert "kept" in cli("ledger export --ledger other.db --out resque.db")[2]
    assert "use one of jsonl, csv" in cli("ledger export --format xml")[2]


def test_csv_has_one_row_per_update_and_no_formula(cli, history):
    _, out, _ = cli("ledger export --format csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in rows] == ["b", "a"]
    for row, update in zip(rows, history.updates(), strict=True):
        assert float(row["training_energy_kwh"]) == update.cost.energy_kwh
        assert float(row["training_s"]) == update.cost.wall_s
        assert int(row["steps"]) == update.cost.steps
        assert float(row["accuracy_after_share"]) == update.accuracy
        assert (row["grid_region"], row["training_carbon_kg_co2e"], row["price"]) == ("", "", "")
        assert row["shift_type"] == (update.shift_type or "")
        assert float(row["total_energy_kwh"]) == update.energy.energy_kwh == float(row["total_cpu_kwh"])
        assert (row["total_gpu_kwh"], row["energy_methods"], row["optimizer"]) == ("", "cpu measured", "adam")
    evil = from_dict(Update, to_dict(history.updates()[0]) | {"model": "=1+1"})
    assert next(csv.DictReader(io.StringIO("".join(csv_lines([evil])))))["model"] == "'=1+1"


def test_an_id_with_another_content_is_refused_and_nothing_is_written(history, folder):
    before = history.updates()
    new, changed = synthetic_update("c", index=0.1, steps=40), synthetic_update("a", index=0.1, steps=41)
    with pytest.raises(LedgerError, match="update a with another content: nothing written"):
        history.extend([new, changed])
    assert history.updates() == before
    assert history.extend([new, before[0]]) == [new]
    (folder / "twice.jsonl").write_text("".join(json_lines([new, synthetic_update("c", index=0.2, steps=40)])))
    with pytest.raises(DataError, match="line 2: the id c is on an earlier line"):
        read_json_lines(folder / "twice.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected {"),
        ('{"update": {}, "forecast": {}}', "expected {"),
        ('{"update": {"id": NaN}}', "NaN is not a JSON number"),
        ('{"update": {"id": 7}}', "has no 'started_utc'"),
        ("[" * 100_000, "line 2"),
    ],
)
def test_an_invalid_line_is_named_and_nothing_is_written(cli, folder, line, message):
    good = next(json_lines([synthetic_update("a", index=0.1, steps=40)]))
    (folder / "history.jsonl").write_text(good + line)
    code, out, err = cli("ledger import history.jsonl")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "history.jsonl, line 2: " in err
    assert message in err
    assert not (folder / "resque.db").exists()


def places(plain, path=()):
    """Yield the path of every value in nested dictionaries and lists."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


WHOLE = {
    Update: json.loads(json.dumps(to_dict(synthetic_update("a", index=0.1, steps=40)))),
    Forecast: json.loads(json.dumps(to_dict(forecast("f")))),
}


@given(st.data())
def test_a_value_of_another_type_is_refused_by_its_name(data):
    shift_type = data.draw(st.sampled_from(list(WHOLE)))
    plain = json.loads(json.dumps(WHOLE[shift_type]))
    assert from_dict_strict(shift_type, plain) == from_dict(shift_type, plain)
    path = data.draw(st.sampled_from([path for path in places(plain) if path[0] != "recipe"]))
    holder = plain
    for key in path[:-1]:
        holder = holder[key]
    old = holder[path[-1]]
    holder[path[-1]] = "a text" if not isinstance(old, str) and old is not None else {"an": ["object"]}
    with pytest.raises(ValueError, match=re.escape(str(path[-1]))):
        from_dict_strict(shift_type, plain)


def test_keys_of_a_newer_version_are_refused_by_name():
    with pytest.raises(ValueError, match="it has 'hue', which this version"):
        from_dict_strict(Update, WHOLE[Update] | {"hue": 1})
    with pytest.raises(ValueError, match="features has 'hue'"):
        from_dict_strict(Update, WHOLE[Update] | {"features": WHOLE[Update]["features"] | {"hue": 1}})


@pytest.mark.parametrize("place", ["mlruns", "mlflow.db"])
def test_mlflow_runs_are_imported_once(cli, store, place):
    result = run_json(cli, f"ledger import {place}")
    assert len(result["updates"]) == 2
    assert {name.rsplit(" ", 1)[0] for name in result["skipped"]} == set(SKIPPED)
    for name, why in result["skipped"].items():
        assert SKIPPED[name.rsplit(" ", 1)[0]] in why
    updates = updates_in("resque.db")
    for seed in range(2):
        update = updates[f"blur-{seed}"]
        assert update.curve.steps == (0, 40, 80, 120)
        assert update.curve.accuracy == pytest.approx([0.4 + 0.15 * i + 0.01 * seed for i in range(4)])
        assert update.curve.loss[:3] == pytest.approx([1.5, 1.1, 0.7])
        assert update.curve.loss[3] == (None if seed else pytest.approx(0.3))
        assert (update.seed, update.model) == (seed, "digits: new scans")
        assert update.features.accuracy == update.curve.accuracy[0]
        settings = {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 32, "params.augment": "flip, crop"}
        assert update.recipe == settings | {"params.seed": str(seed)}
        assert (update.reached, update.stopped_by, update.cost.energy_kwh) == (True, "the user", None)
        assert 1.8 <= update.cost.wall_s == update.curve.wall_s[-1] <= update.energy.wall_s < 3.0
        assert update.curve.wall_s[0] == 0.0
    again = run_json(cli, f"ledger import {place}")
    assert (again["updates"], again["held"], again["notes"]) == ([], 2, [])
    assert "otherwise now" in run_json(cli, f"ledger import {place} --target-accuracy 0.7")["notes"][0]


def test_both_mlflow_stores_give_the_same_updates(cli, store):
    """Both stores hold the same runs, logged at different times."""
    for place in ("mlruns", "mlflow.db"):
        run_json(cli, f"ledger import {place} --ledger {place}.ledger --percent --run percent")
        run_json(cli, f"ledger import {place} --ledger {place}.ledger --step-unit epochs-from-0 --steps-per-epoch 7")
    files, database = (updates_in(f"{place}.ledger") for place in ("mlruns", "mlflow.db"))
    assert list(files) == list(database) == ["percent", "blur-0", "blur-1", "by epoch"]
    for name, update in files.items():
        other = database[name]
        assert (update.curve.steps, update.curve.accuracy) == (other.curve.steps, other.curve.accuracy)
        assert (update.recipe, update.seed, update.cost.epochs) == (other.recipe, other.seed, other.cost.epochs)
    assert files["percent"].curve.accuracy == (0.6, 0.7, 0.8)
    assert files["by epoch"].curve.steps == (7, 14, 21)
    assert files["by epoch"].cost.epochs == 3
    assert files["by epoch"].features.accuracy is None
    assert not set(files["blur-0"].id) - set("0123456789abcdef")


def test_folder_of_a_run_an_experiment_or_a_store_is_read_and_two_stores_are_refused(cli, store):
    (run,) = (path.parents[1] for path in store.glob("mlruns/*/*/tags/mlflow.runName") if path.read_text() == "blur-0")
    assert len(run_json(cli, f"ledger import {run} --ledger a.db")["updates"]) == 1
    assert len(run_json(cli, f"ledger import {run.parent} --ledger b.db")["updates"]) == 2
    assert "runs as files and in mlflow.db" in cli("ledger import .")[2]
    (store / "mlflow.db").unlink()
    assert len(run_json(cli, "ledger import . --ledger c.db")["updates"]) == 2
    shutil.move(run, store / "mlruns" / ".trash" / "1" / run.name)
    assert len(run_json(cli, "ledger import . --ledger d.db")["updates"]) == 1
    assert run_json(
        cli, f"ledger import . --ledger a.db --shift-type blur --run {updates_in('b.db')['blur-1'].id[:8]}"
    )["updates"]


def test_energy_is_matched_by_name_and_divided_by_time(cli, store):
    run_json(cli, "ledger import mlruns --energy emissions.csv")
    rows = list(csv.DictReader((store / "emissions.csv").read_text().splitlines()))
    for row, update in zip(rows, Ledger("resque.db").updates(), strict=True):
        whole = float(row["energy_consumed"])
        assert update.energy.energy_kwh == whole == pytest.approx(sum(update.energy.components_kwh.values()))
        assert update.cost.energy_kwh == pytest.approx(whole * update.cost.wall_s / float(row["duration"]))
        assert update.energy.methods == {"cpu": "unknown", "ram": "assumed"}
        assert update.grid.region == "FRA"
        assert update.grid.carbon_kg(whole) == pytest.approx(float(row["emissions"]))
        assert update.cost.carbon_kg == pytest.approx(update.grid.carbon_kg(update.cost.energy_kwh))


def test_facility_overhead_is_separated_from_energy(cli, store):
    """Codecarbon's energy includes the facility overhead; the ledger stores the IT energy, and the same emissions."""
    header, *rows = csv.reader((store / "emissions.csv").read_text().splitlines())
    place = header.index("pue")
    for pue, code in (("1.5", 0), ("0.5", 1), ("130", 1)):
        changed = [header, *([*row[:place], pue, *row[place + 1 :]] for row in rows)]
        (store / "emissions.csv").write_text("".join(",".join(row) + "\n" for row in changed))
        assert cli("ledger import mlruns --energy emissions.csv")[0] == code
    for row, update in zip(rows, Ledger("resque.db").updates(), strict=True):
        site_kwh, site_kg = (float(row[header.index(name)]) for name in ("energy_consumed", "emissions"))
        assert update.grid.pue == 1.5
        assert update.energy.energy_kwh == pytest.approx(site_kwh / 1.5)
        assert sum(update.energy.components_kwh.values()) == pytest.approx(site_kwh / 1.5)
        assert update.grid.carbon_kg(update.energy.energy_kwh) == pytest.approx(site_kg)


def rename(store, old, new):
    file = store / "emissions.csv"
    file.write_text(file.read_text().replace(old, new))


def test_energy_is_matched_by_time_where_no_name_fits(cli, store, monkeypatch):
    for name in ("blur-0,", "digits: new scans,"):
        rename(store, name, "codecarbon,")
    run_json(cli, "ledger import mlruns --energy emissions.csv")
    assert [update.grid.region for update in Ledger("resque.db").updates()] == ["FRA"] * 2
    zone(monkeypatch, "Asia/Tokyo")
    result = run_json(cli, "ledger import mlruns --energy emissions.csv --ledger far.db")
    assert result["notes"] == ["2 have no row in emissions.csv, so their energy stays unknown"]
    assert all(update.energy.energy_kwh is None for update in Ledger("far.db").updates())


def test_ambiguous_energy_is_refused_and_energy_of_a_part_is_not_used(cli, store):
    original = (store / "emissions.csv").read_text()
    line = original.splitlines()[1].replace("badf9d48", "00000000")
    (store / "emissions.csv").write_text(original + line + "\n")
    code, out, err = cli("ledger import mlruns --energy emissions.csv")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "2 rows of energy fit the run blur-0, 2 of them at its time" in err
    (store / "emissions.csv").write_text(original.replace("blur-0,", "other,").replace("48:34", "48:35"))
    assert cli("ledger import mlruns --energy emissions.csv --run blur-0")[0] == 0
    assert not (store / "other.db").exists()
    (store / "emissions.csv").write_text(original.replace(",2.72", ",1.72"))
    _, _, err = cli("ledger import mlruns --energy emissions.csv --ledger part.db")
    assert "codecarbon measured 1.72 s of 1.83 s of training, so its energy is not used" in err
    part = updates_in("part.db")["blur-0"]
    assert (part.cost.energy_kwh, part.cost.carbon_kg, part.grid) == (None, None, None)
    assert "measured 1.72 s of 1.83 s" in part.energy.note


def test_one_row_for_several_runs_and_an_impossible_time_are_refused(cli, store):
    header, first, _ = (store / "emissions.csv").read_text().splitlines()
    row = first.replace("blur-0", "digits: new scans").replace("48:34", "48:37")
    for duration, message in ((",5.721", "fits 2 runs, blur-0, blur-1"), (",5e300", "line 2: "), (",-2.7", "line 2: ")):
        (store / "emissions.csv").write_text(f"{header}\n{row.replace(',2.721', duration)}\n")
        code, _, err = cli("ledger import mlruns --energy emissions.csv")
        assert (code, err.count("\n")) == (1, 1)
        assert message in err


def test_codecarbon_run_without_mlflow_needs_steps_and_accuracy(cli, store):
    assert (
        "2 runs in emissions.csv fit, expected one; choose with --run from: blur-0 (badf9d48)"
        in (cli("ledger import emissions.csv")[2])
    )
    assert "no steps and no accuracy" in cli("ledger import emissions.csv --run blur-0")[2]
    line = "ledger import emissions.csv --run badf9 --steps 300 --accuracy 0.9 --steps-per-epoch 100"
    result = run_json(cli, line + " --accuracy-before 0.5 --target-accuracy 0.95 --shift-type blur")
    assert (result["updates"], result["notes"]) == (["badf9d48ab1647ddb847b449e3869338"], [])
    assert "no forecast learns" in run_json(cli, line.replace("badf9", "07a12"))["notes"][0]
    update, blind = Ledger("resque.db").updates()
    assert (blind.curve.steps, blind.features.accuracy) == ((300,), None)
    assert (update.reached, update.cost.steps, update.cost.epochs, update.shift_type) == (False, 300, 3, "blur")
    assert update.cost.energy_kwh == update.energy.energy_kwh > 0
    assert (update.features.accuracy, update.curve.accuracy) == (0.5, (0.5, 0.9))
    assert update.started_utc < "2026-11-21T19:48:32" < update.created_utc < "2026-11-21T19:48:35"
    for command in ("ledger list", "report", "ledger export"):
        assert cli(command)[0] == 0


def test_run_in_several_rows_counts_once_and_total_energy_has_an_unknown_method(cli, store):
    header, first, _ = (store / "emissions.csv").read_text().splitlines()
    for old in ("1.4898319188954517e-06", "6.970937225014496e-06"):
        first = first.replace(f",{old}", ",")
    later = first.replace("8.460769143909948e-06", "9e-06").replace(",0.0,,,", ",,,,")
    (store / "emissions.csv").write_text(f"{header}\n{first}\n{later.replace(',0.0,9e-06', ',,9e-06')}\n")
    run_json(cli, "ledger import emissions.csv --steps 300 --accuracy 0.9")
    (update,) = Ledger("resque.db").updates()
    assert update.cost.energy_kwh == 9e-06
    assert "measured" not in update.energy.methods.values()


def logged(store, **metrics):
    """Replace the metrics of the run blur-0, and return its folder."""
    (run,) = (path.parents[1] for path in store.glob("mlruns/*/*/tags/mlflow.runName") if path.read_text() == "blur-0")
    shutil.rmtree(run / "metrics")
    for name, lines in metrics.items():
        file = run / "metrics" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines)
    return run


GOOD = "1795290512300 0.5 0\n1795290513300 0.6 50\n"


@pytest.mark.parametrize(
    ("metrics", "options", "message"),
    [
        ({"val_accuracy": GOOD, "test_acc": GOOD}, "", "logged test_acc, val_accuracy: name the accuracy"),
        ({"accuracy": GOOD, "acc": GOOD}, "", "logged acc, accuracy: name the accuracy"),
        ({"f1": GOOD}, "", "it logged f1: name one with --accuracy-metric"),
        ({"f1": GOOD}, " --accuracy-metric top1", "it logged no top1; it logged f1"),
        ({"acc": "1795290512300 0.5 0\n1795290513300 0.6 0\n"}, "", "the steps of acc do not grow"),
        ({"acc": "1795290512300 0.5 50\n1795290513300 0.6 20\n"}, "", "the steps of acc do not grow"),
        ({"acc": "1795290512300 0.5 0\n1795290513300 nan 50\n"}, "", "expected 0 to 1"),
        ({"acc": GOOD}, " --percent", "leave --percent out"),
        ({"acc": "1795290512300 0.5\n"}, "", "metrics/acc, line 1: '1795290512300 0.5', expected `time value step`"),
        ({"acc": GOOD}, " --step-unit epochs", "needs --steps-per-epoch"),
        ({"acc": GOOD}, " --step-unit days", "use one of steps, epochs, epochs-from-0"),
        ({"acc": GOOD}, " --steps 3", "--steps does not apply to the format mlflow"),
        ({"acc": GOOD}, " --experiment none", "its runs: digits: new scans/blur-0"),
        ({"acc": GOOD}, " --format parquet", "unknown format 'parquet'"),
        ({"acc": GOOD}, " --energy mlflow.db", "expected codecarbon's emissions.csv"),
    ],
)
def test_ambiguous_or_invalid_runs_give_one_line_and_nothing_is_written(cli, store, metrics, options, message):
    logged(store, **metrics)
    run = "" if "--experiment" in options else " --run blur-0"
    code, out, err = cli(f"ledger import mlruns{run}{options}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err
    assert not (store / "resque.db").exists()


def test_held_out_accuracy_takes_precedence_with_its_own_loss(cli, store):
    logged(store, val__acc=GOOD, accuracy=GOOD.replace("0.5", "0.7"), loss=GOOD, val__loss=GOOD.replace("0.5", "2"))
    run_json(cli, "ledger import mlruns --run blur-0")
    (update,) = Ledger("resque.db").updates()
    assert (update.test_data, update.curve.accuracy, update.curve.loss) == ("val/acc in MLflow", (0.5, 0.6), (2.0, 0.6))


def test_running_and_deleted_runs_are_not_imported(cli, store):
    meta = logged(store, val_acc=GOOD) / "meta.yaml"
    text = meta.read_text()
    meta.write_text(text.replace("status: 3", "status: 1"))
    assert "its status is running" in cli("ledger import mlruns --run blur-0")[2]
    meta.write_text(text.replace("lifecycle_stage: active", "lifecycle_stage: deleted"))
    assert "no run in mlruns was selected" in cli("ledger import mlruns --run blur-0")[2]
    meta.write_text(text.replace("start_time: 1", "start_time: 1" + "0" * 30))
    assert "impossible start or end" in cli("ledger import mlruns --run blur-0")[2]


@pytest.mark.parametrize("name", ["empty", "text", "other.db", "nothing"])
def test_files_of_other_programs_are_refused_in_one_line(cli, folder, name):
    (folder / "empty").touch()
    (folder / "text").write_bytes(b"\xff\xfe some\nlines")
    with closing(sqlite3.connect(folder / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (x)")
    code, out, err = cli(f"ledger import {name}")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert not (folder / "resque.db").exists()


def test_forecasts_learn_from_imported_updates_and_every_command_shows_them(cli, store):
    (run,) = (path.parents[1] for path in store.glob("mlruns/*/*/tags/mlflow.runName") if path.read_text() == "blur-0")
    for i in range(6):
        copy = shutil.copytree(run, run.with_name(f"{i:032x}"))
        meta = copy / "meta.yaml"
        meta.write_text(meta.read_text().replace(run.name, copy.name))
        (copy / "tags" / "mlflow.runName").write_text(f"run~{i}+(x")
        slow = "".join(f"{1795290512300 + 500 * e} {0.2 + 0.15 * e + 0.01 * i} {(40 + i) * e}\n" for e in range(5))
        (copy / "metrics" / "val_accuracy").write_text(slow)
        (copy / "params" / "max_epochs").write_text("30")
    run_json(cli, "ledger import mlruns --steps-per-epoch 20 --energy emissions.csv")
    history = Ledger("resque.db").updates()
    query = ForecastQuery(Features(None, 0.3, None), 0.7, update_group(history[0]), None, "p", "d", 600)
    assert len(history_rows(history, query, ["accuracy gap"])) == len(history) == 8
    assert sum(update.cost.energy_kwh is not None for update in history) == 2
    result = run_json(cli, "ledger validate --target-accuracy 0.7 --by condition")
    assert result["updates"] == 8
    assert {"accuracy gap", "constant median"} <= {judged["predictor"] for judged in result["reports"]}
    for line in ("ledger list", "ledger list --json", "report", "ledger export --format csv"):
        assert cli(line)[0] == 0
