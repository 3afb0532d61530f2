"""A custom training loop, measured with ``resque.record``."""

import copy
import dataclasses
import functools
import json
import math
import os
import shlex
import shutil
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import resque
from doubles import BrokenMeter, synthetic_update
from resque.data.preprocessing import as_float
from resque.energy.grid import Grid
from resque.energy.meters import ClockMeter
from resque.energy.reading import EnergyReading
from resque.errors import LedgerError, MeterError, ResqueError, ResqueWarning, SettingError
from resque.ledger.bundled import bundled_updates
from resque.ledger.export import export, read_json_lines
from resque.ledger.importers.importer import import_updates
from resque.ledger.records import Features
from resque.ledger.store import Ledger
from resque.ledger.validation import check_record
from resque.models.weights import fingerprint
from resque.training.cost_tracking import gradient_norm, parameter_change
from resque.training.evaluation import evaluate
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES
from resque.workflows.keeping import check_fields, keep_update
from resque.workflows.settings_in_use import other_batch_size

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


READING = EnergyReading(60.0, 2.0, {"cpu": 2.0}, {"cpu": "measured"}, "mine")
FAILURES = [
    OSError("the driver is gone"), RuntimeError("of two\nlines"), ZeroDivisionError(), OSError("\udcff"), None, 0.5,
    "3 kWh",
    *(
        dataclasses.replace(READING, **{field: value})
        for field in ("wall_s", "energy_kwh")
        for value in (-1.0, math.nan, math.inf, "2 kWh", np.array([1.0, 2.0]), np.float32("nan"), [1.0], object)
    ),
    *(
        dataclasses.replace(READING, components_kwh=parts)
        for parts in (None, 2.0, {"cpu": "2"}, {"cpu": -1.0}, {"a": 3.0})
    ),
    *(dataclasses.replace(READING, methods=how) for how in (None, {"cpu": None}, {"cpu": 1}, {1: "measured"}, ["cpu"])),
    *(dataclasses.replace(READING, note=note) for note in (None, 5, "\udcff")),
    *(dataclasses.replace(READING, meter=name) for name in (None, 5, "\udcff")),
    dataclasses.replace(READING, wall_s=None),
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
@pytest.mark.parametrize("as_error", [False, True])
def test_run_is_kept_without_energy_if_its_meter_fails_at_the_end(tmp_path, failure, as_error):
    ledger, meter = Ledger(tmp_path / "h.db"), BrokenMeter(failure)

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("error" if as_error else "always")
            with resque.record(ledger, meter=meter, grid=Grid("TST", 400.0, "a table")) as run:
                run.evaluated(step=5, accuracy=0.5)

    expected = pytest.raises if as_error else pytest.warns
    with expected(ResqueWarning, match="energy .*unknown.*the meter failed") as said:
        run()
    (update,) = ledger.updates()
    assert (update.energy.energy_kwh, update.cost.energy_kwh, update.cost.carbon_kg) == (None, None, None)
    assert update.energy.wall_s >= update.cost.wall_s > 0
    message = str(said.value if as_error else said[0].message)
    assert update.energy.note in message
    assert "\n" not in message
    check_importable(ledger)


def check_importable(ledger):
    """What was stored comes back from its own export."""
    file, copy = ledger.path.with_name("copy.jsonl"), Ledger(ledger.path.with_name("copy.db"))
    export(ledger, "jsonl", file)
    import_updates(copy, file)
    assert copy.updates() == ledger.updates() != []


WHOLE = (
    (0, 1, np.int64(7), 7.0),
    (-1, 2.5, 2**53 + 2, 2**63, 2**64, 2**70, 10**400, math.inf, math.nan, np.uint64(2**63)),
)


@pytest.mark.parametrize("field", ["step", "samples"])
@pytest.mark.parametrize("value", [*WHOLE[0], *WHOLE[1], 2**53], ids=repr)
def test_what_is_reported_is_refused_or_comes_back_from_the_export(tmp_path, field, value):
    ledger = Ledger(tmp_path / "h.db")
    with resque.record(ledger, meter=ClockMeter()) as run:
        good = any(value is each for each in WHOLE[0]) or value == 2**53
        with nullcontext() if good else pytest.raises(SettingError, match=f"{field} is .*; expected"):
            run.evaluated(**{"step": 3, "accuracy": 0.5, "samples": 9, field: value})
        if not good:
            run.evaluated(step=3, accuracy=0.5, samples=9)
    check_importable(ledger)


@pytest.mark.parametrize("loss", [-1e-9, -1.0, -math.inf, np.float32(-2)])
def test_a_loss_that_is_no_cross_entropy_is_refused(tmp_path, loss):
    with resque.record(tmp_path / "h.db", meter=ClockMeter()) as run:
        with pytest.raises(SettingError, match="loss is .*; expected a mean cross-entropy"):
            run.evaluated(step=1, accuracy=0.5, loss=loss)
        run.evaluated(step=1, accuracy=0.5, loss=math.inf)


def test_values_of_other_libraries_in_a_reading_become_plain(tmp_path):
    kwh = np.float32(0.5)
    reading = dataclasses.replace(READING, wall_s=torch.tensor(60.0), energy_kwh=kwh, components_kwh={"cpu": kwh})
    with resque.record(tmp_path / "h.db", meter=BrokenMeter(reading)) as run:
        run.evaluated(step=1, accuracy=0.5)
    assert run.update.energy == dataclasses.replace(READING, energy_kwh=0.5, components_kwh={"cpu": 0.5})
    check_importable(Ledger(tmp_path / "h.db"))


def test_error_of_the_loop_goes_before_that_of_the_meter(tmp_path):
    def failing():
        with resque.record(tmp_path / "h.db", meter=BrokenMeter(OSError("gone"))) as run:
            run.evaluated(step=5, accuracy=0.5)
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
    with pytest.raises(SettingError, match="expected 0 to 1"), resque.record(tmp_path / "h.db", target_accuracy=90.0):
        pass
    with pytest.raises(LedgerError, match="0 forecasts"), resque.record(tmp_path / "h.db", forecast="abc"):
        pass


@pytest.fixture
def history(tmp_path, cnn, small, meter):
    """A ledger of a few updates, and a forecast for one more."""
    ledger = Ledger(tmp_path / "h.db")
    recipe = dataclasses.replace(RECIPES["train-sgd"], learning_rate=0.1, max_epochs=4, evaluate_every=2)
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


def sgd_in_groups(model, rates, shared):
    """SGD with a learning rate for each group of parameters; one of them may be that of all."""
    groups = [{"params": list(model.parameters())[place :: len(rates)], "lr": r} for place, r in enumerate(rates)]
    return torch.optim.SGD(groups, lr=rates[0] if shared is None else shared)


@pytest.mark.parametrize(
    ("recipe", "optimizer", "said"),
    [
        ({"batch_size": np.int64(7)}, None, "batch_size 32, not 7"),
        ({"learning_rate": 0.01}, None, "learning_rate 0.1, not 0.01"),
        ({"trains": "head"}, None, "trains all, not head"),
        ({"optimizer": "adam"}, None, "optimizer sgd, not adam"),
        (None, lambda model: torch.optim.AdamW(model.parameters(), lr=0.1), "optimizer sgd, not adamw"),
        (None, lambda model: torch.optim.Adam(model.parameters(), lr=0.1), "optimizer sgd, not adam"),
        (None, lambda model: torch.optim.SGD(model.parameters(), lr=0.2), "learning_rate 0.1, not 0.2"),
        (None, lambda model: torch.optim.SGD(model[-1].parameters(), lr=0.1), "trains all, not head"),
        (None, lambda model: torch.optim.SGD(model[0].parameters(), lr=0.1), "trains all, not part"),
        ({"learning_rate": 0.1}, lambda model: torch.optim.SGD(model.parameters(), lr=1.0), "0.1, not 1.0"),
        *(
            (None, functools.partial(sgd_in_groups, rates=rates, shared=shared), f"0.1, not {sorted(set(rates))}")
            for rates in ([0.1, 0.5], [0.5, 0.1], [0.1, 0.5, 0.1], [0.1, 0.0])
            for shared in (None, 0.1)
        ),
    ],
)
def test_forecast_of_another_recipe_is_not_settled(history, cnn, recipe, optimizer, said):
    ledger, forecast = history
    used = None if optimizer is None else optimizer(cnn)
    before = len(ledger.updates())

    def run():
        with resque.record(ledger, forecast, model=cnn, recipe=recipe, optimizer=used, meter=ClockMeter()) as run:
            run.evaluated(step=0, accuracy=0.5)

    with pytest.warns(ResqueWarning, match="does not settle it") as caught:
        run()
    assert said in str(caught[0].message)
    assert len(ledger.updates()) == before + 1
    assert ledger.updates()[-1].forecast_id is None
    assert ledger.pending(forecast.id) == forecast


@pytest.mark.parametrize("samples", [10 * 33, 10 * 28, 10 * 64])
def test_forecast_of_another_batch_size_is_not_settled(history, samples):
    ledger, forecast = history

    def run():
        with resque.record(ledger, forecast, steps_per_epoch=10, meter=ClockMeter()) as run:
            run.evaluated(step=np.float64(10), accuracy=0.5, samples=samples)

    with pytest.warns(ResqueWarning, match="made for batch_size 32, not about"):
        run()
    assert ledger.settled() == []


def samples_passed(size, in_data, steps, drop_last):
    """The samples in the first steps of a loop over the data, epoch by epoch."""
    batches = [size] * (in_data // size) + [in_data % size] * (in_data % size > 0 and not drop_last)
    return sum(batches[step % len(batches)] for step in range(steps))


SIZES = st.integers(2, 64)


@given(
    SIZES, SIZES, st.integers(64, 400), st.integers(1, 5), st.integers(0, 30), st.booleans(), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_other_batches_are_seen_and_equal_ones_are_not(
    expected, used, in_data, epochs, more, drop_last, known_data, known_length
):
    """Whatever else the loop tells, after whole epochs of its own and some steps."""
    update, per_epoch = bundled_updates()[0], (in_data // used) if drop_last else -(-in_data // used)
    forecast = Mock(recipe={"batch_size": expected}, features=dataclasses.replace(update.features, samples=in_data))
    if not known_data:
        forecast.features = dataclasses.replace(update.features, samples=None)
    steps = epochs * per_epoch + more
    samples = samples_passed(used, in_data, steps, drop_last)
    said = other_batch_size(forecast, samples, steps, per_epoch if known_length else None)
    if expected == used:
        assert not said
    elif not expected / 2 < samples / steps <= expected:
        assert said
    elif known_data and not drop_last and not more % per_epoch:
        assert bool(said) == (per_epoch != -(-in_data // expected))


@pytest.mark.parametrize("used", [1, 8, 16, 33, 64])
@pytest.mark.parametrize("steps_per_epoch", [None, 10])
def test_a_loop_with_other_batches_does_not_settle_a_forecast(history, used, steps_per_epoch):
    ledger, forecast = history

    def run():
        with resque.record(ledger, forecast, steps_per_epoch=steps_per_epoch, meter=ClockMeter()) as run:
            run.evaluated(step=0, accuracy=0.2)
            run.evaluated(step=500, accuracy=0.85, samples=500 * used)

    with pytest.warns(ResqueWarning, match=f"made for batch_size 32, not about {used}: "):
        run()
    assert ledger.settled() == []


@pytest.mark.parametrize("samples", [None, 10 * 32, 10 * 32 - 31])
def test_same_recipe_settles_whatever_the_schedule(history, cnn, samples):
    ledger, forecast = history
    optimizer = torch.optim.SGD(cnn.parameters(), lr=torch.tensor(0.1))
    torch.optim.lr_scheduler.LinearLR(optimizer)  # the rate begins at a third
    recipe = {"batch_size": 32, "learning_rate": np.float32(0.1), "optimizer": "SGD", "note": "mine"}
    options = {"recipe": recipe, "steps_per_epoch": np.int64(10), "meter": ClockMeter()}
    with resque.record(ledger, forecast, model=cnn, optimizer=optimizer, **options) as run:
        for _ in range(10):
            cnn(torch.rand(2, 1, 8, 8)).sum().backward()
            optimizer.step()
        run.evaluated(step=10, accuracy=0.5, samples=samples)
    assert ledger.settled() == [(forecast, run.update)]


REFUSED = [
    *({field: value} for field in ("name", "train_data", "test_data", "shift_type") for value in (
        5, np.float64(1.0), b"mine", ["a"], "\udcff", Path("new\udcff.npz"),
    )),
    *({"recipe": value} for value in (
        "retrain-adam", [1], 7, {1: 2}, {"a": float("nan")}, {"a": {"b": [np.float32("inf")]}}, {"\ud800": 1},
        {"a": "\udcff"}, {"a": object}, {"a": 1j}, {"a": 2**70}, {"a": torch.nn.Linear(1, 1)}, {"a": {("b",): 1}},
    )),
    *({"grid": value} for value in ("FRA", 44.0, Grid("FRA", float("nan"), "x"), Grid("\udcff", 1.0, "x"),
        Grid("FRA", -1.0, "x"), Grid("FRA", float("inf"), "x"), Grid(5, 1.0, "x"), Grid("FRA", "44", "x"))),
    *({"seed": value} for value in (1.5, "1", True, 2**63, np.array([1, 2]), float("nan"))),
    *({"target_accuracy": value} for value in ("0.9", True, 0.0, 90, float("nan"), np.float32("nan"), -1, [0.9])),
    {"tariff": 0.3}, {"tariff": "EUR"}, {"model": "net.py:build"}, {"model": 5}, {"meter": 5}, {"forecast": 5},
    {"ledger": 5}, {"ledger": None}, {"optimizer": "sgd"}, {"steps_per_epoch": 0}, {"steps_per_epoch": 2.5},
    {"budget": "x"}, {"budget": 5}, {"budget": {"max_kwh": 1.0}}, {"confidence": "x"}, {"confidence": None},
    {"confidence": 2.0}, {"confidence": math.nan}, {"steps_per_epoch": 2**60},
    {"steps_per_epoch": True}, {"steps_per_epoch": "10"}, {"steps_per_epoch": float("nan")},
]  # fmt: skip


@pytest.mark.parametrize("given", REFUSED, ids=str)
def test_what_cannot_be_stored_is_refused_before_the_loop_begins(tmp_path, given):
    arguments = {"ledger": tmp_path / "h.db", "meter": ClockMeter(), **given}
    with pytest.raises(ResqueError) as refused, resque.record(**arguments):
        pytest.fail("the loop began")
    assert "\n" not in str(refused.value)
    str(refused.value).encode()
    field = next(iter(given)).split("_")[0]
    assert field in str(refused.value) or (field, type(refused.value)) == ("grid", MeterError)
    assert not (tmp_path / "h.db").exists()


@pytest.mark.parametrize("field", ["accuracy", "loss", "step", "samples"])
@pytest.mark.parametrize("value", ["0.5", "x", b"1", [0.5, 0.6], np.array([1, 2]), 1j, True, object, {}], ids=repr)
def test_what_is_no_number_is_refused_when_it_is_reported(tmp_path, field, value):
    with resque.record(tmp_path / "h.db", meter=ClockMeter()) as run:
        with pytest.raises(SettingError, match=f"{field} is .*; expected"):
            run.evaluated(**{"step": 1, "accuracy": 0.5, field: value})
        run.evaluated(step=1, accuracy=0.5)


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, math.nan, -math.inf, "\udcff", {"\udcff": 1}, {5: 1}, [{"a": [1, math.nan]}]],
    ids=ascii,
)
def test_a_run_refuses_what_an_import_refuses(value):
    with pytest.raises(SettingError) as refused:
        check_fields({"recipe": {"setting": value}})
    with pytest.raises(ValueError) as expected:
        check_record(dataclasses.replace(bundled_updates()[0], recipe={"setting": value}))
    assert str(refused.value) == str(expected.value)


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = (
    PLAIN | st.text() | st.floats(-1e6, 1e6, width=32).map(np.float32) | st.integers(0, 99).map(np.int16)
    | st.booleans().map(np.bool_) | st.just(Path("a/b.npz")) | st.integers(0, 9).map(torch.tensor)
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.dictionaries(st.text(), VALUES, max_size=4), st.integers(-(2**63), 2**63 - 1), st.text())
def test_what_is_stored_is_read_back_as_it_is(recipe, seed, name):
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"recipe": recipe, "seed": seed, "shift_type": name, "train_data": np.str_(name)}
        grid = Grid("TST", np.float32(44.5), "x")
        with resque.record(Path(folder) / "h.db", meter=ClockMeter(), grid=grid, **arguments) as run:
            run.evaluated(step=np.int64(3), accuracy=np.float32(0.5), loss=np.array(0.25), samples=torch.tensor(96))
        assert Ledger(Path(folder) / "h.db").updates() == [run.update]
        assert (run.update.seed, run.update.shift_type, run.update.grid.intensity_g_per_kwh) == (seed, name, 44.5)


def block(ledger: Path) -> None:
    """Turn the ledger into what nobody can write to, whoever it is."""
    ledger.unlink(missing_ok=True)
    ledger.mkdir()


@pytest.mark.parametrize("name", ["h.db", "deep/h.db", "../h.db", "link.db"])
@pytest.mark.parametrize("happens", ["another folder", "the folder goes", "a file is there", "both"])
def test_a_relative_ledger_stays_where_it_was_whatever_happens_to_the_folder(folder, monkeypatch, name, happens):
    place, other = folder / "place", folder / "other"
    place.mkdir(), other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (place / "link.db").symlink_to("../elsewhere.db")
    monkeypatch.chdir(place)
    ledger = Ledger(name)
    expected = ledger.path
    try:
        with resque.record(name, meter=ClockMeter()) as run:
            run.evaluated(step=7, accuracy=0.5)
            if happens != "another folder":
                shutil.rmtree(place)
            if happens in ("a file is there", "both"):
                place.write_text("in the way")
            if happens in ("another folder", "both"):
                os.chdir(other)
        kept = Ledger(expected).updates()
    except LedgerError as error:
        assert happens in ("a file is there", "both")
        words = shlex.split(str(error).split("`")[1])
        assert words[:3] + words[4:] == ["resque", "ledger", "import", "--ledger", str(expected)]
        assert Path(words[3]).is_absolute()
        kept = read_json_lines(Path(words[3]))
    assert kept == [run.update]
    assert not [*other.glob("**/*.db")]


@pytest.mark.parametrize("how", ["a folder", "not a ledger", "no space", "an unknown error"])
def test_an_update_that_the_ledger_does_not_take_is_kept_in_a_file(tmp_path, monkeypatch, how):
    path = tmp_path / "my ledgers" / "h.db"
    path.parent.mkdir()

    def run():
        with resque.record(path, meter=ClockMeter()) as run:
            run.evaluated(step=7, accuracy=0.5)
            if how == "a folder":
                block(path)
            elif how == "not a ledger":
                path.write_bytes(b"This is something else." * 99)
            else:
                error = OSError("no space left") if how == "no space" else ZeroDivisionError()
                monkeypatch.setattr(Ledger, "add", Mock(side_effect=error))

    with pytest.raises(LedgerError, match="the update is kept: run `resque ledger import") as failed:
        run()
    assert "\n" not in str(failed.value)
    (file,) = path.parent.glob("update-*.jsonl")
    command = str(failed.value).split("`")[1]
    assert shlex.split(command) == ["resque", "ledger", "import", str(file), "--ledger", str(path)]
    monkeypatch.undo()
    other = Ledger(tmp_path / "other.db")
    (imported,) = import_updates(other, file).updates
    assert [update.id for update in other.updates()] == [imported]
    assert other.updates()[0].cost.steps == 7


def test_an_update_is_kept_elsewhere_or_in_the_error_where_its_folder_cannot_be_written(folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "temporary"))
    monkeypatch.setattr(Ledger, "add", Mock(side_effect=LedgerError("full")))
    update = synthetic_update("u1", index=0.1, steps=5)
    (folder / "gone").write_text("a file where the folder was")
    ledger = Ledger(folder / "gone" / "h.db")
    kept = folder / "update-u1.jsonl"
    with pytest.raises(LedgerError, match="import .*update-u1.jsonl --ledger .* later"):
        keep_update(ledger, update)
    assert read_json_lines(kept) == [update]
    kept.unlink()
    kept.mkdir()
    with pytest.raises(LedgerError, match="temporary/update-u1.jsonl"):
        keep_update(ledger, update)
    assert read_json_lines(folder / "temporary" / "update-u1.jsonl") == [update]
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "gone"))
    with pytest.raises(LedgerError, match="import it: ") as failed:
        keep_update(ledger, update)
    line = str(failed.value).split("import it: ")[1].rpartition(" (")[0]
    (folder / "copied.jsonl").write_text(line)
    assert read_json_lines(folder / "copied.jsonl") == [update]


def test_an_interruption_while_the_ledger_is_waited_for_keeps_the_update(folder, monkeypatch):
    monkeypatch.setattr(Ledger, "add", Mock(side_effect=KeyboardInterrupt))
    update = synthetic_update("u1", index=0.1, steps=5)
    with pytest.warns(ResqueWarning, match="kept: run `resque ledger import"), pytest.raises(KeyboardInterrupt):
        keep_update(Ledger(folder / "h.db"), update)
    assert read_json_lines(folder / "update-u1.jsonl") == [update]


def test_warnings_as_errors_do_not_lose_the_run(history, cnn):
    ledger, forecast = history

    def run():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with resque.record(ledger, forecast, steps_per_epoch=10, meter=ClockMeter()) as run:
                run.evaluated(step=10, accuracy=0.5, samples=640)

    with pytest.raises(ResqueWarning):
        run()
    assert ledger.updates()[-1].cost.samples == 640
