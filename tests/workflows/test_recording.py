"""A custom training loop, measured with ``resque.record``."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import resque
from doubles import synthetic_update
from resque.data.preprocessing import as_float
from resque.energy.grid import Grid
from resque.energy.meters import ClockMeter
from resque.errors import LedgerError, ResqueError, ResqueWarning, SettingError
from resque.ledger.records import Features
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.cost_tracking import gradient_norm, parameter_change
from resque.training.evaluation import evaluate
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES

BATCH = 32


def loop(model, data, epochs, run, test):
    """The loop that most people write; gives each step's gradient norm and each epoch's parameters."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norms, kept = [], [copy.deepcopy(dict(model.named_parameters()))]
    with run(optimizer) as recording:
        recording.evaluated(step=0, accuracy=evaluate(model, test.batches())[0], loss=2.3)
        for epoch in range(epochs):
            for start in range(0, len(data), BATCH):
                rows = slice(start, start + BATCH)
                optimizer.zero_grad()
                F.cross_entropy(model(as_float(data.inputs[rows])), data.labels[rows]).backward()
                norms.append(gradient_norm([p.grad for p in model.parameters()]))
                optimizer.step()
            with recording.evaluating():
                accuracy = torch.tensor(evaluate(model, test.batches())[0], dtype=torch.float64)
            recording.evaluated(np.int64((epoch + 1) * 10), accuracy, samples=(epoch + 1) * len(data))
            kept.append(copy.deepcopy(dict(model.named_parameters())))
    return recording.update, norms, kept


def test_custom_loop_is_measured_as_an_update(cnn, small, meter, tmp_path):
    path, before = tmp_path / "h.db", fingerprint(cnn)

    def run(optimizer):
        return resque.record(
            path, model=cnn, optimizer=optimizer, steps_per_epoch=10, meter=meter, target_accuracy=0.2,
            grid=Grid("TST", 500.0, "test"), train_data="mine", recipe={"batch_size": BATCH},
        )  # fmt: skip

    update, norms, kept = loop(cnn, small[0], 3, run, small[1])
    assert Ledger(path).updates() == [update]
    assert (update.cost.steps, update.cost.epochs, update.cost.samples) == (30, 3.0, 960)
    assert update.cost.gradient_norm == pytest.approx(sum(norms) / 10, rel=1e-5)
    assert update.cost.gradient_norm_last_batch == pytest.approx(sum(norms[9::10]), rel=1e-5)
    moved = sum(parameter_change(a, b) for a, b in zip(kept, kept[1:], strict=False))
    assert update.cost.parameter_change == pytest.approx(moved, rel=1e-5)
    assert (update.parent, update.child) == (before, fingerprint(cnn))
    assert update.cost.energy_kwh == pytest.approx(36.0 * update.cost.wall_s / 3.6e6, rel=1e-6)
    assert update.cost.carbon_kg == pytest.approx(update.cost.energy_kwh * 0.5)
    assert update.cost.wall_s + update.evaluation_s <= update.energy.wall_s
    assert update.evaluation_s > 0
    assert update.features == Features(None, update.curve.accuracy[0], 2.3)
    assert update.reached == (max(update.curve.accuracy) >= 0.2)
    assert update.trainable_share == 1.0


def test_values_that_the_loop_does_not_report_are_none(tmp_path):
    with resque.record(tmp_path / "h.db", meter=ClockMeter(), seed=None) as run:
        run.evaluated(step=50, accuracy=0.5)
        run.evaluated(step=90, accuracy=0.8)
    (update,) = Ledger(tmp_path / "h.db").updates()
    assert update.seed is None
    cost = update.cost
    assert cost.steps == 90
    unknown = "epochs", "samples", "gradient_norm", "parameter_change", "energy_kwh", "carbon_kg", "flops"
    assert {name: getattr(cost, name) for name in unknown} == dict.fromkeys(unknown)
    assert (update.features.accuracy, update.target_accuracy, update.stopped_by) == (None, 0.8, "the user")
    assert update.cost_at(0.5).steps == 50


def test_failed_loop_writes_nothing(tmp_path):
    def failing():
        with resque.record(tmp_path / "h.db", meter=ClockMeter()) as run:
            run.evaluated(step=1, accuracy=0.5)
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert not (tmp_path / "h.db").exists()


def test_invalid_values_are_refused(tmp_path):
    with pytest.raises(SettingError, match="no evaluation was reported"), resque.record(tmp_path / "h.db"):
        pass
    with resque.record(tmp_path / "h.db", meter=ClockMeter()) as run:
        with pytest.raises(SettingError, match="expected a share"):
            run.evaluated(step=1, accuracy=93.0)
        run.evaluated(step=5, accuracy=0.5)
        with pytest.raises(SettingError, match="the last evaluation was at step 5"):
            run.evaluated(step=5, accuracy=0.6)
    with pytest.raises(SettingError, match="has ended"):
        run.evaluated(step=9, accuracy=0.5)
    with pytest.raises(SettingError, match="expected a share"), resque.record(tmp_path / "h.db", target_accuracy=90.0):
        pass
    with pytest.raises(LedgerError, match="0 forecasts"), resque.record(tmp_path / "h.db", forecast="abc"):
        pass


@pytest.fixture
def history(tmp_path, cnn, small, meter):
    """A ledger of a few updates, and a forecast for one more."""
    ledger = Ledger(tmp_path / "h.db")
    recipe = dataclasses.replace(RECIPES["train-adam"], max_epochs=4, evaluate_every=2)
    for number in range(1, 7):
        shift_type = f"type {number % 3}"
        ledger.add(
            synthetic_update(
                f"u{number}", index=0.1 * number, steps=5 * number, shift_type=shift_type, target=0.5, accuracy=0.1
            )
        )
    job = RetrainingJob(small[0], small[1], 0.4, recipe, 9, shift_type="type 1")
    step_cost = resque.probe(cnn, job.train, recipe, meter)
    forecast = resque.forecast_from_features(
        ledger.updates(), job, Features(0.2, 0.1, 2.3), step_cost=step_cost, overhead=step_cost.reading,
        parent=fingerprint(cnn),
    )  # fmt: skip
    ledger.add(forecast)
    return ledger, forecast


def test_recorded_run_settles_a_forecast(history, cnn, small, meter):
    ledger, forecast = history

    def run(optimizer):
        return resque.record(ledger, forecast.id, model=cnn, optimizer=optimizer, steps_per_epoch=10, meter=meter)

    update, _, _ = loop(cnn, small[0], 2, run, small[1])
    assert ledger.settled() == [(forecast, update)]
    assert (update.train_data, update.target_accuracy, update.shift_type) == (forecast.train_data, 0.4, "type 1")
    assert update.features == forecast.features
    assert forecast.recipe["evaluate_every"] == 2
    assert "evaluate_every" not in update.recipe  # this loop is evaluated at steps of its own
    with pytest.raises(LedgerError, match="settled already"), resque.record(ledger, forecast.id):
        pass


def test_forecast_of_another_model_is_not_settled(history, cnn):
    ledger, forecast = history
    with torch.no_grad():
        next(cnn.parameters()).add_(1.0)
    with pytest.raises(ResqueError, match="made for parent"), resque.record(ledger, forecast.id, model=cnn):
        pass
    match = "made for target_accuracy"
    with pytest.raises(ResqueError, match=match), resque.record(ledger, forecast.id, target_accuracy=0.7):
        pass


def test_commands_show_a_recorded_run(tmp_path, cli):
    with resque.record("resque.db", meter=ClockMeter()) as run:
        run.evaluated(step=50, accuracy=0.5)
    code, out, _ = cli("ledger list")
    assert code == 0
    assert "–→0.50" in out
    code, out, _ = cli("ledger list --json")
    assert json.loads(out)["updates"][0]["cost"]["gradient_norm"] is None
    code, _, err = cli("report")
    assert code == 0, err


def test_steps_must_match_the_optimizer(cnn, tmp_path):
    optimizer = torch.optim.SGD(list(cnn.parameters())[-2:], lr=0.1)
    path = tmp_path / "h.db"

    def one_step():
        with resque.record(path, model=cnn, optimizer=optimizer, meter=ClockMeter()) as run:
            with pytest.raises(SettingError, match="optimizer took 0"):
                run.evaluated(step=5, accuracy=0.5)
            run.evaluated(step=0, accuracy=0.5)
            cnn(torch.rand(2, 1, 8, 8)).sum().backward()
            optimizer.step()

    with pytest.warns(ResqueWarning, match="1 steps after the last evaluation"):
        one_step()
    (update,) = Ledger(path).updates()
    assert update.trainable_share == pytest.approx(650 / sum(p.numel() for p in cnn.parameters()))
    for wrong in ({"optimizer": [optimizer]}, {"steps_per_epoch": 0}, {"steps_per_epoch": 2.5}):
        with pytest.raises(SettingError, match="expected"), resque.record(path, meter=ClockMeter(), **wrong):
            pass


def test_evaluation_time_is_not_training_time(tmp_path, meter):
    with resque.record(tmp_path / "h.db", meter=meter) as run, run.evaluating(), run.evaluating():
        busy = sum(range(3_000_000))
        run.evaluated(step=1, accuracy=0.5)
    assert busy
    assert 0.0 <= run.update.cost.wall_s < run.evaluation_s


def test_forecast_of_another_recipe_is_not_settled(history):
    ledger, forecast = history
    match = "made for batch_size 32, not 7"
    with pytest.raises(SettingError, match=match), resque.record(ledger, forecast.id, recipe={"batch_size": 7}):
        pass
