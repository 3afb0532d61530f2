"""Measured retraining: curve, costs, and how a run ends."""

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from doubles import ReplayMeter
from resque.energy.grid import Grid
from resque.energy.meters import ClockMeter
from resque.errors import ModelError, SettingError
from resque.indices.compute_profile import profile
from resque.indices.shift_features import shift_features
from resque.ledger.records import Update
from resque.ledger.serialization import from_dict, to_dict
from resque.models.weights import fingerprint
from resque.training.cost_tracking import parameter_change
from resque.training.job import RetrainingJob, steps_per_epoch
from resque.training.probe import forecast_overhead, probe
from resque.training.recipe import RECIPES, Recipe, named_recipe
from resque.training.retrain import retrain

RECIPE = dataclasses.replace(RECIPES["train-adam"], max_epochs=6)
GRID = Grid("TST", 500.0, "test")


@pytest.fixture
def job(small):
    return RetrainingJob(*small, 0.6, RECIPE, seed=1)


def test_update_reaches_its_target_with_every_cost(cnn, job, meter):
    update = retrain(cnn, job, meter=meter, grid=GRID)
    cost, curve = update.cost, update.curve
    assert update.reached
    assert update.stopped_by == "target"
    assert update.accuracy >= 0.6 > max(curve.accuracy[:-1])
    assert cost.steps == curve.steps[-1] == cost.epochs * 10
    assert cost.samples == cost.epochs * 320
    assert min(cost.gradient_norm, cost.gradient_norm_last_batch, cost.parameter_change, cost.wall_s) > 0
    assert cost.energy_kwh == pytest.approx(36.0 * cost.wall_s / 3.6e6, rel=1e-6)
    assert cost.carbon_kg == pytest.approx(cost.energy_kwh * 0.5)
    assert cost.wall_s + update.evaluation_s <= update.energy.wall_s
    assert update.parent != update.child == fingerprint(cnn)


def test_parameter_change_is_that_of_the_model(cnn, job, meter):
    before = copy.deepcopy(dict(cnn.named_parameters()))
    one_epoch = dataclasses.replace(job, target_accuracy=1.0, recipe=dataclasses.replace(RECIPE, max_epochs=1))
    update = retrain(cnn, one_epoch, meter=meter)
    assert update.cost.parameter_change == pytest.approx(
        parameter_change(before, dict(cnn.named_parameters())), rel=1e-6
    )
    assert update.stopped_by == "max"
    assert not update.reached


def test_seed_determines_the_curve(cnn, job, meter):
    runs = [retrain(copy.deepcopy(cnn), dataclasses.replace(job, seed=seed), meter=meter) for seed in (1, 1, 2)]
    assert runs[0].curve.accuracy == runs[1].curve.accuracy
    assert runs[0].curve.loss == runs[1].curve.loss
    assert runs[0].curve.loss != runs[2].curve.loss


def test_random_state_of_the_caller_is_unchanged(cnn, job, meter):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    retrain(cnn, job, meter=meter)
    assert torch.equal(torch.rand(3), expected)


def test_model_at_the_target_costs_nothing(cnn, job, meter):
    update = retrain(cnn, dataclasses.replace(job, target_accuracy=0.01), meter=meter, grid=GRID)
    assert update.reached
    assert (update.cost.steps, update.cost.energy_kwh, update.cost.carbon_kg, update.cost.wall_s) == (0, 0.0, 0.0, 0.0)
    assert update.parent == update.child


def test_curve_gives_the_cost_of_any_lower_target(cnn, job, meter):
    fine = dataclasses.replace(job, recipe=dataclasses.replace(RECIPE, evaluate_every=3), target_accuracy=0.8)
    update = retrain(cnn, fine, meter=meter)
    lower = update.cost_at(0.4)
    stopped = retrain_again(fine, 0.4, meter)
    assert (lower.steps, lower.epochs) == (stopped.cost.steps, stopped.cost.epochs)
    assert lower.parameter_change == pytest.approx(stopped.cost.parameter_change, rel=1e-6)
    assert lower.gradient_norm == pytest.approx(stopped.cost.gradient_norm, rel=1e-6)
    assert lower.samples == stopped.cost.samples
    assert update.cost_at(0.8) == update.cost
    assert update.cost_at(0.999) is None


def retrain_again(job, target, meter):
    torch.manual_seed(0)
    from resque.models.networks import small_cnn

    return retrain(small_cnn(), dataclasses.replace(job, target_accuracy=target), meter=meter)


def test_evaluations_come_every_k_steps_and_after_each_epoch(cnn, job, meter):
    recipe = dataclasses.replace(RECIPE, evaluate_every=4, max_epochs=2)
    update = retrain(cnn, dataclasses.replace(job, target_accuracy=1.0, recipe=recipe), meter=meter)
    assert update.curve.steps == (0, 4, 8, 10, 12, 16, 20)


def test_gaps_between_evaluations_grow_with_the_steps_taken(cnn, job, meter):
    recipe = dataclasses.replace(RECIPE, evaluate_every=2, evaluate_growth=0.5, max_epochs=3)
    update = retrain(cnn, dataclasses.replace(job, target_accuracy=1.0, recipe=recipe), meter=meter)
    assert update.curve.steps == (0, 2, 4, 6, 10, 16, 20, 30)


def test_tolerance_rule_ends_a_run(cnn, job, meter):
    recipe = dataclasses.replace(RECIPE, tolerances=((0.99, 2),), max_epochs=50)
    update = retrain(cnn, dataclasses.replace(job, target_accuracy=1.0, recipe=recipe), meter=meter)
    assert update.stopped_by == "tolerance 0.99"
    assert update.cost.epochs == 3


def test_forgetting_is_measured_with_the_cost(cnn, job, meter, small):
    watched = dataclasses.replace(job, original_test=small[1])
    update = retrain(cnn, watched, meter=meter)
    assert update.original_accuracy_before == update.curve.accuracy[0]
    assert update.original_accuracy_after == update.accuracy
    assert retrain(cnn, job, meter=meter).original_accuracy_after is None


def test_energy_of_a_short_run_comes_from_the_probe(cnn, job):
    short = ReplayMeter(shortest_s=0.2)
    two = dataclasses.replace(
        job, target_accuracy=1.0, recipe=dataclasses.replace(RECIPE, max_epochs=1, evaluate_every=5)
    )
    step_cost = probe(cnn, job.train, RECIPE, short)
    assert step_cost.energy_kwh == pytest.approx(36.0 * step_cost.wall_s / 3.6e6, rel=1e-6)
    tiny = ReplayMeter(shortest_s=60.0)
    update = retrain(cnn, two, meter=tiny, step_cost=step_cost)
    assert update.cost.energy_kwh == pytest.approx(10 * step_cost.energy_kwh)
    assert "10 steps × probed energy" in update.energy.note


def test_energy_is_none_without_an_energy_meter(cnn, job):
    update = retrain(cnn, job, meter=ClockMeter(), grid=GRID)
    assert update.cost.energy_kwh is None
    assert update.cost.carbon_kg is None
    assert update.cost.wall_s > 0


def test_diverged_run_is_a_complete_update(cnn, job, meter):
    wild = dataclasses.replace(
        job, recipe=Recipe(optimizer="sgd", learning_rate=1e30, max_epochs=3), target_accuracy=1.0
    )
    update = retrain(cnn, wild, meter=meter)
    assert update.stopped_by == "diverged"
    assert not update.reached
    assert json.dumps(to_dict(update), allow_nan=False)


def test_probe_and_forward_passes_leave_the_model_unchanged(cnn, job, meter):
    cnn.train()
    before = fingerprint(cnn)
    original = profile(cnn, job.train.batches())
    features, index, seconds = shift_features(cnn, job, original)
    step_cost = probe(cnn, job.train, RECIPE, meter)
    assert fingerprint(cnn) == before
    assert all(module.training for module in cnn.modules())
    assert index.value == features.index_rad == pytest.approx(0.0, abs=1e-7)
    overhead = forecast_overhead(seconds, step_cost, forecasts=2)
    assert overhead.wall_s == pytest.approx(seconds + step_cost.reading.wall_s / 2)
    assert overhead.energy_kwh == pytest.approx(36.0 * overhead.wall_s / 3.6e6)


def test_index_is_none_without_original_data(cnn, job):
    features, index, _ = shift_features(cnn, job)
    assert features.index_rad is None
    assert index is None


@pytest.mark.parametrize("target", [0.0, -0.1, 1.1, 95.0, float("nan")])
def test_target_outside_zero_to_one_is_refused(small, target):
    with pytest.raises(SettingError, match="expected a share in"):
        RetrainingJob(*small, target)


def test_settings_outside_their_range_are_refused():
    for wrong in (
        {"optimizer": "lion"},
        {"learning_rate": 0.0},
        {"batch_size": 0},
        {"max_epochs": 0},
        {"evaluate_growth": -0.1},
        {"evaluate_every": 0},
    ):
        with pytest.raises(SettingError):
            Recipe(**wrong)
    with pytest.raises(SettingError, match="unknown recipe 'best': use one of retrain-adam"):
        named_recipe("best")
    with pytest.raises(ModelError, match="nothing to retrain"):
        Recipe().build_optimizer(nn.Linear(2, 2).requires_grad_(False))


def test_recipes_match_the_paper():
    adam, sgd = RECIPES["retrain-adam"], RECIPES["retrain-sgd"]
    assert (adam.learning_rate, adam.weight_decay, adam.milestones, adam.max_epochs) == (1e-4, 1e-5, (40, 70, 90), 250)
    assert (sgd.learning_rate, sgd.momentum) == (1e-3, 0.9)
    assert (RECIPES["train-adam"].learning_rate, RECIPES["train-sgd"].learning_rate) == (1e-3, 1e-2)


def test_last_batch_of_one_sample_is_left_out(cnn, small, meter):
    assert [steps_per_epoch(n, 32) for n in (64, 65, 66, 1)] == [2, 2, 3, 1]
    train = small[0].take(torch.arange(65))
    recipe = dataclasses.replace(RECIPE, max_epochs=1)
    cost = retrain(cnn, RetrainingJob(train, small[1], 1.0, recipe), meter=meter).cost
    assert (cost.steps, cost.samples) == (2, 64)


def test_update_survives_json(cnn, job, meter):
    update = retrain(cnn, job, meter=meter, grid=GRID)
    assert from_dict(Update, json.loads(json.dumps(to_dict(update)))) == dataclasses.replace(
        update, recipe=json.loads(json.dumps(update.recipe))
    )


FRESH = """
import sys
from contextlib import contextmanager

import torch
from doubles import ReplayMeter

from resque.data.loading import load_data
from resque.models.networks import small_cnn
from resque.training.job import RetrainingJob
from resque.training.retrain import retrain


class Watching(ReplayMeter):
    @contextmanager
    def window(self):
        before = set(sys.modules)
        with super().window() as window:
            yield window
        print(sorted(set(sys.modules) - before))


digits = load_data("digits@16px")
retrain(small_cnn(), RetrainingJob(digits.part("train"), digits.part("test"), 0.2), meter=Watching())
"""


def test_no_import_happens_inside_the_measured_window():
    """PyTorch imports over a second's worth of modules with the first optimizer: no cost of the update."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1] / "helpers"), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "[]\n"
