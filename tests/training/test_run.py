"""How a run ends, and what it counts."""

import dataclasses

import pytest
from torch import nn

from resque.models.layers import head
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


def test_flops_match_the_layers(small, meter):
    """A dense layer costs two operations a weight and sample forward, and twice that backward but for the inputs'."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    job = RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)
    update = retrain(model, job, meter=meter)
    assert update.cost.flops == 2 * 2 * 2560 * update.cost.samples
    assert head(model) is model[1]
