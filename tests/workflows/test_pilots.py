"""Forecasts after a pilot, and the updates that continue it: from Python, and from the command line."""

import contextlib
import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import resque
from resque.errors import ResqueError, ResqueWarning, SettingError
from resque.models.weights import fingerprint
from resque.training.checkpoint import load_checkpoint, save_checkpoint
from resque.workflows.pilots import parse_pilot
from resque.workflows.update import UpdateRequest

SPEC = "resque.networks:small_cnn"
TRAIN, TEST = "digits@16px@train@320+blur:6", "digits@16px@test@200+blur:6"
RECIPE = "train-adam,max_epochs=4,evaluate_every=5"


pytestmark = pytest.mark.usefixtures("short_history")


@pytest.fixture
def job(folder, meter):
    """Arguments of a forecast and of its update."""
    return {"train": TRAIN, "test": TEST, "target_accuracy": 0.999, "recipe": RECIPE, "meter": meter}


def pilots(folder):
    return sorted(path.name for path in folder.glob("resque.db.pilots/*"))


def trained(model):
    return fingerprint(model)


@pytest.mark.parametrize(("head", "seed"), [({}, None), ({"new_task": True}, None), ({"extend": True}, 4)])
def test_update_goes_on_from_the_pilot_of_its_forecast(job, folder, head, seed):
    """Without a seed the update takes the pilot's; the result is that of an update that had no pilot."""
    model, given_seed = resque.load_model(SPEC), {} if seed is None else {"seed": seed}
    if "extend" in head:  # five classes are new
        data = {name: resque.load_data(job[name]) for name in ("train", "test")}
        job |= {name: dataclasses.replace(each, labels=each.labels + 5) for name, each in data.items()}
    before = trained(model)
    forecast = resque.forecast(model, **job, **head, pilot=12, seed=4)
    assert trained(model) == before
    assert resque.Ledger("resque.db").forecasts() == [forecast]
    assert (forecast.pilot.steps, forecast.pilot.seed, forecast.pilot.stopped_by) == (12, 4, None)
    assert pilots(folder) == [f"{forecast.id}.checkpoint"]
    whole = resque.update(copy.deepcopy(model), **job, **head, seed=4, ledger="other.db")
    update = resque.update(model, **job | {"recipe": None}, forecast=forecast, **given_seed)
    assert (update.forecast_id, update.pilot_steps, update.seed, update.resumed) == (forecast.id, 12, 4, 0)
    assert (update.child, update.cost.steps) == (whole.child, whole.cost.steps)
    assert pilots(folder) == []
    assert not (folder / "resque.db.pilots").exists()
    settled = resque.Ledger("resque.db").settled()
    assert [(told.id, done.id) for told, done in settled] == [(forecast.id, update.id)]


@pytest.mark.parametrize("kind", ["update from the beginning", "update of a custom loop", "void"])
def test_a_pilot_that_nobody_continues_is_asking(job, folder, kind):
    model, ledger = resque.load_model(SPEC), resque.Ledger("resque.db")
    forecast = resque.forecast(model, **job, pilot=12)
    (file,) = folder.glob("resque.db.pilots/*")
    if kind == "void":
        ledger.void(forecast.id, "the wrong recipe")
    elif kind == "update of a custom loop":
        with resque.record(ledger, forecast, model=model, meter=job["meter"]) as run:
            run.evaluated(step=0, accuracy=0.1)
            run.evaluated(step=9, accuracy=0.9)
        assert run.update.pilot_steps == 0
    else:
        file.unlink()
        with pytest.warns(ResqueWarning, match="is not in .*: the update starts from the beginning"):
            update = resque.update(model, **job, forecast=forecast)
        assert (update.pilot_steps, update.forecast_id) == (0, forecast.id)
    assert not file.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "was trained with seed 0, not 1: leave --seed out, or make a new forecast"),
        ({"target_accuracy": 0.99}, "target accuracy"),
        ({"recipe": RECIPE + ",batch_size=16"}, "batch_size"),
        ({"model": "other weights"}, "was made for model"),
        ({"train": "other labels"}, "was trained on other data of the same name: name those, or make a new forecast"),
        ({"recipe": RECIPE + ",learning_rate=0.00010000001"}, "to the last digit: leave --recipe out"),
    ],
)
def test_a_pilot_of_another_run_is_refused_before_training(job, folder, changed, message):
    model, train = resque.load_model(SPEC), resque.load_data(TRAIN)
    job |= {"train": train, "recipe": RECIPE + ",learning_rate=0.0001"}
    forecast = resque.forecast(model, **job, pilot=12)
    if changed.get("model"):
        with torch.no_grad():
            model[0].weight += 0.1
    if changed.get("train"):
        changed = {"train": dataclasses.replace(train, labels=train.labels.roll(1))}
    before = trained(model)
    with pytest.raises(SettingError, match=message) as refused:
        resque.update(
            model, **job | {name: value for name, value in changed.items() if name != "model"}, forecast=forecast
        )
    assert "\n" not in str(refused.value)
    assert trained(model) == before
    assert pilots(folder) == [f"{forecast.id}.checkpoint"]


@pytest.mark.parametrize("held", ["another forecast's", "a pilot without an identity", "half a file", "nothing"])
def test_a_file_that_does_not_hold_the_pilot_is_refused_before_training(job, folder, held):
    """As where the folders of two ledgers were mixed up, or a copy was cut off."""
    model = resque.load_model(SPEC)
    other = resque.forecast(model, **job | {"target_accuracy": 0.97}, pilot=16)
    forecast = resque.forecast(model, **job, pilot=12)
    file, others = (folder / "resque.db.pilots" / f"{each.id}.checkpoint" for each in (forecast, other))
    if held == "another forecast's":
        file.write_bytes(others.read_bytes())
    elif held == "a pilot without an identity":
        state = load_checkpoint(file)
        save_checkpoint(file, {name: value for name, value in state.items() if name != "identity"})
    else:
        file.write_bytes(file.read_bytes()[: 5_000 if held == "half a file" else 0])
    before = trained(model)
    with pytest.raises(ResqueError, match="delete it") as refused:
        resque.update(model, **job, forecast=forecast)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert trained(model) == before
    file.unlink()
    with pytest.warns(ResqueWarning, match="the update starts from the beginning"):
        assert resque.update(model, **job, forecast=forecast).forecast_id == forecast.id


def test_limits_of_a_budget_and_what_is_measured_besides_are_no_other_run(job, folder):
    model = resque.load_model(SPEC)
    forecast = resque.forecast(model, **job, pilot=12)
    budget = resque.Budget(max_hours=1e-9)
    update = resque.update(model, **job, forecast=forecast, budget=budget, original_test="digits@16px@test@100")
    assert (update.pilot_steps, update.cost.steps, update.stopped_by) == (12, 12, "budget: hours")
    assert update.original_accuracy_after is not None


@pytest.mark.parametrize(
    ("changed", "steps"), [({"pilot": "25%"}, 10), ({"pilot": 10_000}, 40), ({"pilot": np.int64(9)}, 9)]
)
def test_the_length_of_a_pilot(job, changed, steps):
    job |= {"recipe": "train-adam,max_epochs=4"}
    forecast = resque.forecast(SPEC, **job, **changed)
    assert forecast.pilot.steps == steps
    assert (forecast.pilot.stopped_by == "max") == (steps == 40)
    assert forecast.max_steps == 40


@given(st.one_of(st.integers(max_value=-1), st.floats(), st.text(max_size=4), st.none(), st.booleans()))
def test_what_is_no_length_is_refused(pilot):
    with contextlib.suppress(SettingError):
        steps = parse_pilot(pilot)(1000)
        assert isinstance(pilot, str)
        assert 0 <= steps <= 1000


@pytest.mark.parametrize("pilot", ["0%", -1, "-1", "x", "", "%", "nan%", "inf%", "5 steps", 1.5, None, True])
def test_examples_of_what_is_no_length(job, folder, pilot):
    with pytest.raises(SettingError, match="expected a number of steps, such as 100, or a share") as refused:
        resque.forecast(SPEC, **job, pilot=pilot)
    assert "\n" not in str(refused.value)
    assert not list(folder.iterdir())


def test_nothing_is_trained_for_a_model_at_its_target(job, folder):
    forecast = resque.forecast(SPEC, **job | {"target_accuracy": 0.01}, pilot=12)
    assert forecast.pilot is None
    assert pilots(folder) == []


def test_a_target_reached_within_the_pilot_is_what_the_forecast_says(job, folder):
    model, job = resque.load_model(SPEC), job | {"target_accuracy": 0.4, "recipe": "train-adam"}
    forecast = resque.forecast(model, **job, pilot=60)
    steps, pilot = forecast.estimates["steps"], forecast.pilot
    assert (pilot.stopped_by, forecast.probability_reached) == ("target", 1.0)
    assert steps.value == steps.interval.low == steps.interval.high == pilot.steps < 60
    assert resque.decide(forecast, resque.Budget(max_hours=1.0)).code == 0
    update = resque.update(model, **job, forecast=forecast.id)
    assert (update.cost.steps, update.pilot_steps, update.reached) == (pilot.steps, pilot.steps, True)
    assert update.cost.wall_s == forecast.estimates["wall_s"].value
    assert update.accuracy == pilot.accuracy


def test_a_pilot_whose_file_cannot_be_written_leaves_its_forecast(job, folder):
    (folder / "resque.db.pilots").write_text("a file where the folder should be")
    with pytest.warns(ResqueWarning, match="cannot go on from its pilot, and will start from the beginning"):
        forecast = resque.forecast(SPEC, **job, pilot=12)
    assert resque.Ledger("resque.db").forecasts() == [forecast]


@pytest.mark.parametrize("resume", [False, True])
def test_killed_continuation_goes_on(job, folder, monkeypatch, resume):
    class KilledError(Exception):
        pass

    def kill(progress):
        if progress.step > 21:
            raise KilledError

    forecast = resque.forecast(SPEC, **job, pilot=12)
    whole = resque.update(SPEC, **job, ledger="other.db")
    request = UpdateRequest(model=SPEC, **job, forecast=forecast, checkpoint_every_s=0.0)
    with monkeypatch.context() as patch:
        patch.setattr("resque.workflows.running.progress_text", kill)
        with pytest.raises(KilledError):
            request.run()
    assert pilots(folder) == [f"{forecast.id}.checkpoint"]
    if resume:
        update = resque.update(SPEC, **job, forecast=forecast, resume=True)
    else:
        with pytest.warns(ResqueWarning, match="--resume would continue it; it starts from its pilot"):
            update = resque.update(SPEC, **job, forecast=forecast)
    assert (update.child, update.pilot_steps, update.resumed) == (whole.child, 12, int(resume))
    assert pilots(folder) == []


def test_the_command_line_forecasts_after_a_pilot_and_goes_on_from_it(cli, folder):
    common = f"--model {SPEC} --test {TEST} --target-accuracy 0.97 --recipe train-adam,max_epochs=40"
    code, out, err = cli(f"forecast {common} --shifted {TRAIN} --pilot 30 --max-hours 100 --summary page.md --json")
    forecast = json.loads(out)
    assert code in (0, 3), err
    assert (forecast["pilot"]["steps"], forecast["n_history"], forecast["reliability_issues"]) == (30, 0, [])
    assert "after a pilot of 30 steps in" in (folder / "page.md").read_text()
    shown = cli(f"ledger show {forecast['id']}")[1]
    assert "pilot of 30 steps in" in " ".join(shown.split())
    whole = json.loads(cli(f"retrain {common} --train {TRAIN} --ledger other.db --json")[1])
    code, out, err = cli(f"retrain {common} --train {TRAIN} --forecast {forecast['id']} --json")
    assert code == 0, err
    update = json.loads(out)
    assert (update["pilot_steps"], update["forecast_id"]) == (30, forecast["id"])
    assert update["cost"]["steps"] == whole["cost"]["steps"] > 30
    assert update["child"] == whole["child"]
    ledger = resque.Ledger("resque.db")
    assert [(f.id, u.id, u.pilot_steps) for f, u in ledger.settled()] == [(forecast["id"], update["id"], 30)]
    assert len(ledger.updates()) == 1
    assert "the update continued it" in " ".join(cli(f"ledger show {update['id']}")[1].split())
    code, out, _ = cli("report --out page.html")
    assert "pilot of 30 steps" in (folder / "page.html").read_text()


def test_the_table_names_the_command_that_goes_on(cli, folder):
    line = f"forecast --model {SPEC} --test {TEST} --target-accuracy 0.97 --recipe {RECIPE} --shifted {TRAIN} --pilot 2"
    code, out, err = cli(line)
    (forecast,) = resque.Ledger("resque.db").forecasts()
    text = " ".join(out.split())
    assert code == 4
    assert "pilot of 2 steps in" in text
    assert f"`resque retrain --forecast {forecast.id}` goes on from the pilot" in text
    assert "it takes 8 steps or more" in " ".join(err.split())
    assert cli(f"ledger void {forecast.id} --why wrong")[0] == 0
    assert pilots(folder) == []
    assert cli(line.replace("--pilot 2", "--pilot 0%"))[0] == 2
