"""Cheap updates from forecast to ledger: a pass over the data, a head alone, and old data mixed in."""

import functools

import pytest
import torch
from torch import nn

import resque
from doubles import ReplayMeter
from resque.errors import ModelError, SettingError
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
