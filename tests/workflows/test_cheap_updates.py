"""Cheap updates from forecast to ledger: a pass over the data, a head alone, and old data mixed in."""

import functools
import json

import pytest
import torch
from torch import nn

import resque
from doubles import ReplayMeter
from resque.errors import DataError, ModelError, SettingError
from resque.ledger.store import Ledger
from resque.models.networks import small_cnn

NEW = "digits@16px@train@300+gaussian:3", "digits@16px@test+gaussian:3"


@pytest.fixture
def calls(folder):
    shared = {"ledger": folder / "resque.db", "meter": ReplayMeter()}
    return functools.partial(resque.forecast, **shared), functools.partial(resque.update, **shared)


def test_forecast_of_a_pass_is_measured_and_its_update_keeps_it(calls, cnn, folder):
    forecast, update = calls
    made = forecast(cnn, *NEW, 0.99, recipe="retrain-adam,trains=norm", bundled_history=False)
    assert made.pilot.steps == 1
    assert made.estimates["steps"].value == made.estimates["epochs"].value == 1.0
    assert made.probability_reached == float(made.pilot.accuracy >= 0.99)
    assert not made.reliability_issues
    assert {each.interval.guarantee for each in made.estimates.values()} == {"measured: the run ended within its pilot"}
    done = update(cnn, *NEW, 0.99, forecast=made, out=folder / "new")
    assert (done.cost.steps, done.pilot_steps, done.accuracy) == (1, 1, made.pilot.accuracy)
    assert done.cost.wall_s == pytest.approx(made.estimates["wall_s"].value)
    assert [each.id for each in Ledger(folder / "resque.db").updates()] == [done.id]
    assert not Ledger(folder / "resque.db").forecasts(pending=True)


def test_pass_of_a_model_at_the_target_is_not_tried(calls, cnn):
    made = calls[0](cnn, *NEW, 0.01, recipe="retrain-adam,trains=norm", bundled_history=False)
    assert made.pilot is None
    assert made.estimates["steps"].value == 0.0


def test_forecast_of_a_pass_without_batch_normalization_is_refused(calls):
    torch.manual_seed(0)
    with pytest.raises(ModelError, match="no batch normalization"):
        calls[0](nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), *NEW, 0.9, recipe="retrain-adam,trains=norm")


@pytest.mark.parametrize("trains", ["norm", "norm-scales"])
@pytest.mark.parametrize("change", ["new_task", "extend"])
def test_new_head_is_not_left_untrained(calls, trains, change):
    for call in calls:
        with pytest.raises(SettingError, match="leaves a new head untrained"):
            call(small_cnn(), *NEW, 0.9, recipe=f"retrain-adam,trains={trains}", **{change: True})


def test_forecast_of_a_head_counts_its_pass(calls, cnn):
    made = calls[0](cnn, *NEW, 0.99, recipe="retrain-adam,trains=head")
    step_cost, steps = made.step_cost, made.estimates["steps"].value
    assert step_cost.start_s > 0.0
    assert made.estimates["wall_s"].value == pytest.approx(step_cost.start_s + steps * step_cost.wall_s)
    assert made.estimates["energy_kwh"].value == pytest.approx(step_cost.energy_after(steps))


def test_calibration_of_a_pass_is_refused(folder):
    with pytest.raises(SettingError, match="needs no history"):
        resque.calibrate("resque.networks:small_cnn", "digits@16px", recipe="retrain-adam,trains=norm")


OLD = "digits@16px@train@original"


def test_forecast_remembers_what_its_update_replays(calls, cnn, folder):
    forecast, update = calls
    recipe = "train-adam,replay=0.2,max_epochs=2"
    made = forecast(cnn, *NEW, 0.999, original=OLD, recipe=recipe, pilot=3)
    assert (made.replay_data, made.recipe["replay"]) == (OLD, 0.2)
    profile = resque.profile(cnn, resque.load_data(OLD))
    with pytest.raises(SettingError, match="made for original data to replay"):
        update(cnn, *NEW, 0.999, forecast=made, original="digits@16px@train@shifted", out=folder / "other")
    done = update(cnn, *NEW, 0.999, forecast=made, original=profile, out=folder / "new")
    assert (done.replay_data, done.recipe["replay"], done.pilot_steps) == (OLD, 0.2, 3)
    assert done.cost.samples == 375 * done.cost.epochs


def test_forecast_of_data_without_a_specification_asks_for_them_again(calls, cnn, folder):
    forecast, update = calls
    old = (resque.load_data(OLD).inputs, resque.load_data(OLD).labels)
    made = forecast(cnn, *NEW, 0.999, original=old, recipe="train-adam,replay=0.2,max_epochs=1")
    with pytest.raises(DataError, match="name them again, --original"):
        update(cnn, *NEW, 0.999, forecast=made, out=folder / "a")
    assert update(cnn, *NEW, 0.999, forecast=made, original=old, out=folder / "b").replay_data == made.replay_data


@pytest.mark.parametrize("original", ["profile", "file", None])
def test_profile_cannot_be_replayed(calls, cnn, folder, original):
    profile = resque.profile(cnn, resque.load_data(OLD))
    profile.save(folder / "clean.safetensors")
    source = {"profile": profile, "file": "clean.safetensors", None: None}[original]
    for call in calls:
        with pytest.raises(
            SettingError, match=r"replay=0.2 (needs the original data, not|mixes original data in: name)"
        ):
            call(cnn, *NEW, 0.9, original=source, recipe="train-adam,replay=0.2")
    assert not list(folder.glob("updates/*"))


@pytest.mark.parametrize(
    ("change", "says"),
    [("new_task", "leave it out for a new task"), ("extend", "name them, not their profile, with --original")],
)
def test_new_task_replays_nothing(calls, cnn, change, says):
    for call in calls:
        with pytest.raises(SettingError, match=says):
            call(cnn, *NEW, 0.9, recipe="train-adam,replay=0.2", **{change: True})


def test_command_line_says_what_was_forgotten_and_remembers_the_old_data(cli, folder):
    data = f"--test {NEW[1]} --target-accuracy 0.9 --model resque.networks:small_cnn"
    recipe = f"--original {OLD} --max-epochs 1 --recipe train-adam,replay=0.5 --json"
    code, out, err = cli(f"retrain {data} --train {NEW[0]} --original-test digits@16px@test {recipe}")
    assert code == 0, err
    (note,) = json.loads(out)["notes"]
    assert "with replay=0.5" in note
    assert note == Ledger(folder / "resque.db").updates()[-1].forgetting
    made = json.loads(cli(f"forecast {data} --shifted {NEW[0]} {recipe}")[1])
    assert made["replay_data"] == OLD
    code, out, err = cli(f"retrain {data} --train {NEW[0]} --forecast {made['id']} --json")
    assert code == 0, err
    assert (json.loads(out)["replay_data"], json.loads(out)["notes"]) == (OLD, [])
