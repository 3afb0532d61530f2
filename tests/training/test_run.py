"""How a run ends, and what it counts."""

import dataclasses
import math
from unittest.mock import Mock

import pytest
from torch import nn

from doubles import BrokenMeter, ReplayMeter
from resque.errors import MeterError
from resque.models.layers import head
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES
from resque.training.retrain import retrain


@pytest.fixture
def short(small):
    return RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)


def with_recipe(job, **changes):
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def test_fixed_number_of_epochs_continues_beyond_the_target(cnn, short, meter):
    update = retrain(cnn, dataclasses.replace(with_recipe(short, fixed_epochs=4), target_accuracy=0.3), meter=meter)
    assert (update.stopped_by, update.cost.epochs, update.reached) == ("epochs", 4.0, True)
    assert update.peak_accuracy == max(update.curve.accuracy)
    assert update.cost_at(0.3).steps < update.cost.steps


def test_run_ended_by_a_budget_is_a_complete_update(cnn, short, meter):
    update = retrain(cnn, with_recipe(short, max_hours=1e-9, max_epochs=50), meter=meter)
    assert (update.stopped_by, update.cost.epochs, update.reached) == ("max hours", 1.0, False)
    update = retrain(cnn, with_recipe(short, max_kwh=1e-12, max_epochs=50), meter=meter)
    assert (update.stopped_by, update.cost.epochs) == ("max kWh", 1.0)


FAILURES = OSError("the driver is gone"), RuntimeError("of two\nlines"), ZeroDivisionError(), None, 0.5, "3 kWh"


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_run_is_kept_without_energy_if_its_meter_fails_at_the_end(cnn, short, tmp_path, failure, checkpoint):
    settings = Checkpoint(tmp_path, every_s=0.0) if checkpoint else None
    update = retrain(cnn, with_recipe(short, fixed_epochs=2), meter=BrokenMeter(failure), checkpoint=settings)
    assert (update.stopped_by, update.cost.epochs) == ("epochs", 2.0)
    assert (update.energy.energy_kwh, update.cost.energy_kwh, update.cost.carbon_kg) == (None, None, None)
    assert update.energy.wall_s >= update.cost.wall_s > 0
    assert "the meter failed at the end" in update.energy.note
    assert "\n" not in update.energy.note


@pytest.mark.parametrize("good_windows", [1, 2])
def test_windows_in_which_the_meter_failed_have_the_mean_power_of_the_others(cnn, short, tmp_path, good_windows):
    meter, settings = BrokenMeter(OSError("gone"), good_windows), Checkpoint(tmp_path, every_s=0.0)
    update = retrain(cnn, with_recipe(short, fixed_epochs=3), meter=meter, checkpoint=settings)
    assert update.energy.energy_kwh == pytest.approx(meter.watts * update.energy.wall_s / 3.6e6, rel=0.05)
    assert f"{3 - good_windows} of 3 windows imputed" in update.energy.note


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("out of memory\nat 0x0"), MeterError("no counter")])
def test_a_run_is_kept_when_the_probe_after_it_fails(cnn, short, monkeypatch, failure):
    """A run that is too short for the meter takes its energy from a probe afterwards."""
    monkeypatch.setattr("resque.training.retrain.probe", Mock(side_effect=failure))
    update = retrain(cnn, short, meter=ReplayMeter(shortest_s=math.inf))
    assert (update.cost.epochs, update.cost.energy_kwh) == (1.0, None)
    assert f"no probe: {str(failure).split()[0]}" in update.energy.note
    assert "\n" not in update.energy.note


def test_an_error_in_training_goes_before_that_of_the_meter(cnn, short):
    def fail(progress):
        raise KeyError(progress.step)

    with pytest.raises(KeyError):
        retrain(cnn, short, meter=BrokenMeter(OSError("gone")), on_progress=fail)


def test_flops_match_the_layers(small, meter):
    """A dense layer costs two operations a weight and sample forward, and twice that backward but for the inputs'."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    job = RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)
    update = retrain(model, job, meter=meter)
    assert update.cost.flops == 2 * 2 * 2560 * update.cost.samples
    assert head(model) is model[1]
