"""The main job from Python: forecast, update, settle; models and data as objects or as specifications."""

import copy
import dataclasses
import time
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import resque
from calibrated import TARGET
from resque._waiting import command
from resque.errors import LedgerError, SettingError
from resque.training.pilot import run_pilot
from resque.training.run import progress_text
from resque.workflows import forecast as workflow
from resque.workflows import passes
from resque.workflows.update import UpdateRequest

SPEC = "resque.networks:small_cnn"
TRAIN, TEST = "digits@16px@train@300+blur:6", "digits@16px@test+blur:6"
RECIPE = "train-adam,max_epochs=3"


@pytest.fixture
def known(folder, meter):
    """A model with weights, its profile, and what every call shares."""
    model = resque.load_model(SPEC)
    resque.update(
        model, "digits@16px@train@400", "digits@16px@test", 0.6, recipe="train-adam", out="first", meter=meter
    )
    return model


def features_of(forecast):
    return dataclasses.replace(forecast.features, scores=dict(forecast.features.scores))


def test_objects_and_specifications_give_the_same_forecast(known, folder, meter):
    train, test = resque.load_data(TRAIN), resque.load_data(TEST)
    by_spec = resque.forecast(
        SPEC, TRAIN, TEST, 0.8, original="first/profile.safetensors", recipe=RECIPE, meter=meter,
        options=resque.ModelOptions(weights="first/model.safetensors"),
    )  # fmt: skip
    profile = resque.Profile.load("first/profile.safetensors")
    by_object = resque.forecast(known, train, test, 0.8, original=profile, recipe=RECIPE, meter=meter)
    assert features_of(by_spec) == features_of(by_object)
    assert (by_spec.parent, by_spec.model, by_spec.recipe) == (by_object.parent, by_object.model, by_object.recipe)
    assert by_spec.estimates["steps"] == by_object.estimates["steps"]
    assert [forecast.id for forecast in resque.Ledger("resque.db").forecasts()] == [by_spec.id, by_object.id]


def test_a_forecast_leaves_the_model_as_it_was(known, meter):
    before, training = copy.deepcopy(known.state_dict()), known.training
    resque.forecast(known, TRAIN, TEST, 0.8, original="first/profile.safetensors", recipe=RECIPE, meter=meter)
    assert all(torch.equal(before[name], value) for name, value in known.state_dict().items())
    assert known.training is training


def test_an_update_settles_its_forecast_with_its_recipe_and_names(known, folder, meter):
    forecast = resque.forecast(known, TRAIN, TEST, 0.8, recipe=RECIPE, shift_type="defocus", seed=3, meter=meter)
    update = resque.update(known, TRAIN, TEST, 0.8, forecast=forecast, seed=3, out="new", meter=meter)
    assert (update.forecast_id, update.shift_type, update.features) == (forecast.id, "defocus", forecast.features)
    assert update.recipe == forecast.recipe
    ledger = resque.Ledger("resque.db")
    assert [(told.id, done.id) for told, done in ledger.settled()] == [(forecast.id, update.id)]
    assert resque.load_model(SPEC, "new/model.safetensors").state_dict().keys() == known.state_dict().keys()
    again = resque.load_model(SPEC, "first/model.safetensors")
    with pytest.raises(LedgerError, match="settled already"):
        resque.update(again, TRAIN, TEST, 0.8, forecast=forecast.id, seed=3)


def test_an_object_is_trained_in_place_and_a_specification_is_not(known, meter):
    before = copy.deepcopy(known.state_dict())
    update = resque.update(known, TRAIN, TEST, 0.99, recipe=RECIPE, out="new", meter=meter)
    assert update.cost.steps > 0
    assert any(not torch.equal(before[name], value) for name, value in known.state_dict().items())
    written = resque.load_model(SPEC, "new/model.safetensors").state_dict()
    assert all(torch.equal(written[name], value) for name, value in known.state_dict().items())


def test_another_update_does_not_settle_a_forecast(known, meter):
    forecast = resque.forecast(known, TRAIN, TEST, 0.8, recipe=RECIPE, meter=meter)
    with pytest.raises(SettingError, match="target accuracy"):
        resque.update(known, TRAIN, TEST, 0.7, forecast=forecast, meter=meter)
    with pytest.raises(SettingError, match="batch_size"):
        resque.update(known, TRAIN, TEST, 0.8, forecast=forecast, recipe=f"{RECIPE},batch_size=8", meter=meter)
    assert len(resque.Ledger("resque.db").updates()) == 1


def test_arrays_are_data(known, meter):
    test = resque.load_data("digits@16px@test")
    x = np.round(test.images.numpy()[:, 0] * 255).astype(np.uint8)
    y = test.labels.numpy()
    data = (255 - x[:300], y[:300]), (255 - x[300:], y[300:])
    forecast = resque.forecast(known, *data, 0.8, recipe=RECIPE, meter=meter)
    update = resque.update(known, *data, 0.8, forecast=forecast, meter=meter)
    assert update.forecast_id == forecast.id
    assert forecast.features.samples == 300
    assert forecast.train_data != forecast.test_data
    assert forecast.train_data.startswith("array:")


@pytest.mark.parametrize(("pilot", "began_s"), [(0, None), (10, None), (0, 50.0)])
def test_the_overhead_is_all_that_the_user_waits_for_and_no_pilot(known, meter, monkeypatch, pilot, began_s):
    """A clock that jumps in each part; the start of a command counts for its first forecast."""
    jumped, real = [], time.perf_counter
    clock = SimpleNamespace(perf_counter=lambda: real() + sum(jumped))
    for module in ("_waiting", "workflows.forecast"):
        monkeypatch.setattr(f"resque.{module}.time", clock)

    def slow(name, seconds):
        module = passes if hasattr(passes, name) else workflow
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, **k: jumped.append(seconds) or function(*a, **k))

    def slow_pilot(*given, **more):
        made, state = run_pilot(*given, **more)
        jumped.append(1000.0 - made.reading.wall_s)
        return dataclasses.replace(made, reading=dataclasses.replace(made.reading, wall_s=1000.0)), state

    waits = {"load_recipe": 100.0, "forecast_from_features": 200.0, "updates_to_learn_from": 300.0}
    waits |= {"forecast_after_pilot": 400.0} if pilot else {}
    for name, seconds in waits.items():
        slow(name, seconds)
    monkeypatch.setattr(passes, "run_pilot", slow_pilot)
    with nullcontext() if began_s is None else command(clock.perf_counter() - began_s):
        forecast, again = (
            resque.forecast(known, TRAIN, TEST, 0.9, recipe=RECIPE, meter=meter, pilot=pilot) for _ in range(2)
        )
    expected = sum(waits.values())
    assert expected + (began_s or 0.0) < forecast.overhead.wall_s < expected + (began_s or 0.0) + 45.0
    assert expected < again.overhead.wall_s < expected + 45.0
    assert forecast.overhead.energy_kwh == pytest.approx(meter.watts * forecast.overhead.wall_s / 3.6e6)
    assert forecast.overhead.methods == {"cpu": "modelled"}
    assert "(imports, loading, evaluations and fits) modeled at the power of the rest" in forecast.overhead.note
    assert (forecast.pilot is None) == (pilot == 0)


def test_a_new_task_is_forecast_and_learned_with_its_head(known, folder, meter):
    odd = resque.load_data("digits@16px@train@300")
    odd = dataclasses.replace(odd, labels=odd.labels % 2)
    held_out = resque.load_data("digits@16px@test")
    held_out = dataclasses.replace(held_out, labels=held_out.labels % 2)
    forecast = resque.forecast(known, odd, held_out, 0.7, new_task=True, recipe=RECIPE, meter=meter)
    assert forecast.features.task_index is not None
    assert forecast.overhead.meter == meter.name
    update = resque.update(known, odd, held_out, 0.7, forecast=forecast, out="parity", meter=meter)
    assert (update.shift_type, update.forecast_id, update.parent) == ("new task", forecast.id, forecast.parent)
    assert len(load_file("parity/model.safetensors")["12.weight"]) == 2
    with pytest.raises(SettingError, match="leave --original out"):
        resque.forecast(known, odd, held_out, 0.7, new_task=True, original="first/profile.safetensors", meter=meter)


def test_a_budget_limits_the_run_and_decides(known, meter):
    budget = resque.Budget(max_hours=1e-9, max_epochs=2)
    forecast = resque.forecast(known, TRAIN, TEST, 0.8, recipe="train-adam", budget=budget, meter=meter)
    assert forecast.recipe["max_epochs"] == 2
    assert resque.decide(forecast, budget).code == 4  # the bundled history alone
    update = resque.update(known, TRAIN, TEST, 0.999, recipe="train-adam", budget=budget, meter=meter)
    assert (update.reached, update.stopped_by) == (False, "budget: hours")
    assert update.recipe["max_epochs"] == 250  # a budget is no part of the recipe


def test_progress_shows_accuracy_and_the_revised_steps():
    steps = resque.Estimate(50.0, resque.Interval(20.0, 100.0, 0.8, ""))
    revision = resque.ForecastRevision(10, 0.5, steps, 0.9, 5)
    assert progress_text(resque.RunProgress(10, 100, 0.5)) == "accuracy 0.5000"
    assert progress_text(resque.RunProgress(10, 100, 0.5, revision)) == "accuracy 0.5000, 20–100 steps in all"


def test_an_interrupted_update_is_resumed(known, folder, meter, monkeypatch):
    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step > 12:  # within the second epoch, after the first checkpoint
            raise StopError

    arguments = {"recipe": "train-adam,max_epochs=4", "meter": meter, "seed": 5}
    model = resque.load_model(SPEC, "first/model.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr("resque.workflows.running.progress_text", stop)
        job = {"model": model, "train": TRAIN, "test": TEST, "target_accuracy": 0.9999}
        with pytest.raises(StopError):
            UpdateRequest(**job, checkpoint_every_s=0.0, **arguments).run()
    again = resque.load_model(SPEC, "first/model.safetensors")
    update = resque.update(again, TRAIN, TEST, 0.9999, resume=True, **arguments)
    assert (update.cost.epochs, update.resumed) == (4, 1)
    again = resque.load_model(SPEC, "first/model.safetensors")
    with pytest.raises(SettingError, match="has ended"):
        resque.update(again, TRAIN, TEST, 0.9999, resume=True, **arguments)


def test_arrays_are_told_apart_by_their_content(known, meter):
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (60, 16, 16), dtype=np.uint8), np.arange(60) % 10
    one, other = resque.load_data((x, y)), resque.load_data((255 - x, y))
    assert one.name == resque.load_data((x.copy(), y.copy())).name != other.name
    forecast = resque.forecast(known, (x, y), (x, y), 0.8, recipe=RECIPE, meter=meter)
    assert forecast.train_data == one.name
    with pytest.raises(SettingError, match="training data"):
        resque.update(known, other, one, 0.8, forecast=forecast, meter=meter)
    assert resque.update(known, one, one, 0.8, forecast=forecast, meter=meter).forecast_id == forecast.id


@pytest.mark.parametrize("new_task", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_forecast_leaves_the_mode_of_every_module(folder, meter, training, new_task):
    model = resque.load_model(SPEC).train(training)
    model[0].train(not training)
    before = [module.training for module in model.modules()]
    resque.forecast(model, TRAIN, TEST, 0.8, recipe="train-adam,max_epochs=1", new_task=new_task, meter=meter)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": None}, "expected an nn.Module, or a specification"),
        ({"model": torch.nn.Linear}, "expected an nn.Module, or a specification"),
        ({"target_accuracy": "0.9"}, "target accuracy 0.9: expected a share"),
        ({"target_accuracy": None}, "target accuracy None: expected a share"),
        ({"recipe": {"optimizer": "adam"}}, "recipe is a dict; expected a Recipe, or a name"),
        ({"recipe": 3}, "recipe is a int; expected a Recipe, or a name"),
        ({"labels": "guessed"}, "use 'true' or 'pseudo'"),
        ({"train": 7}, "data is a int; expected"),
        ({"train": (np.zeros((4, 8, 8)),)}, "data is a tuple; expected"),
    ],
)
@pytest.mark.parametrize("job", [resque.forecast, resque.update])
def test_what_is_no_input_is_refused_in_one_line(folder, meter, job, changed, message):
    given = {"model": SPEC, "train": TRAIN, "test": TEST, "target_accuracy": 0.8, "recipe": RECIPE} | changed
    with pytest.raises(resque.ResqueError, match=message) as refused:
        job(**given, meter=meter)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "limit", [{"max_kwh": -1.0}, {"max_kg": float("nan")}, {"max_hours": "a"}, {"max_epochs": 2.5}]
)
def test_a_budget_that_is_none_is_refused(limit):
    with pytest.raises(SettingError, match="expected a"):
        resque.Budget(**limit)


def test_a_decision_names_what_is_exceeded():
    held = (("energy_kwh", 0.5, 1.0, "kWh"),)
    assert resque.Decision(3, ("the probability of reaching",), held).verdict == "target too unlikely"
    assert resque.Decision(3, ("energy",), (("energy_kwh", 1.5, 1.0, "kWh"),)).verdict == "beyond budget"


def test_a_custom_loop_settles_a_forecast_that_is_passed_as_an_object(known, meter):
    forecast = resque.forecast(known, TRAIN, TEST, 0.8, recipe=RECIPE, meter=meter)
    with resque.record("resque.db", forecast, model=known, meter=meter) as run:
        run.evaluated(step=0, accuracy=0.1)
        run.evaluated(step=9, accuracy=0.9)
    assert run.update.forecast_id == forecast.id


@pytest.fixture
def moving(folder, trained, monkeypatch):
    """A model whose code changes the current folder; the folder before and after."""
    place, away = folder / "place", folder / "away"
    place.mkdir(), away.mkdir()
    (folder / "moving.py").write_text(f"import os\nos.chdir({str(away)!r})\n{trained[0].read_text()}")
    monkeypatch.chdir(place)
    return f"{folder}/moving.py:build", place, away


@pytest.mark.parametrize("out", [None, "new", "deep/new"])
def test_an_update_stays_in_its_folder_whatever_the_model_does(moving, meter, out):
    net, place, away = moving
    data, recipe = ("digits@train@100", "digits@test"), "train-adam,max_epochs=1"
    update = resque.update(net, *data, 0.2, recipe=recipe, ledger="h.db", out=out, meter=meter)
    assert resque.Ledger(place / "h.db").updates() == [update]
    assert (place / (out or f"updates/{update.id}") / "model.safetensors").is_file()
    assert not [*away.iterdir()]


def test_a_calibration_stays_in_its_folder_whatever_the_model_does(moving, trained, meter, short_history):
    net, place, away = moving
    arguments = {"recipe": "train-adam,max_epochs=1", "meter": meter, "options": resque.ModelOptions(trained[1])}
    runs = resque.calibrate(net, "digits", target_accuracy=TARGET, updates=5, ledger="h.db", **arguments)
    assert resque.Ledger(place / "h.db").updates() == [*runs]
    assert not [*away.iterdir()]


def test_calibration_from_python_gives_a_history(folder, meter):
    data = resque.load_data("digits@16px")
    model = resque.load_model(SPEC)
    resque.update(
        model, data.part("train"), data.part("test"), 0.8, recipe="train-adam", ledger="first.db", meter=meter
    )
    arguments = {"updates": 5, "recipe": "train-adam,max_epochs=2", "meter": meter}
    with pytest.raises(SettingError, match="nothing was trained"):
        resque.calibrate(model, data, max_hours=0.0, **arguments)
    runs = resque.calibrate(model, data, **arguments)
    assert [update.id for update in runs] == [update.id for update in resque.Ledger("resque.db").updates()]
    assert len({update.shift_type for update in runs}) >= 3
    assert resque.calibrate(model, data, **arguments) == runs


@pytest.mark.parametrize("head", ["new_task", "extend"])
def test_a_new_head_is_not_compared_with_scratch(folder, meter, head):
    train = resque.load_data("digits@16px@train@300")
    train = dataclasses.replace(train, labels=train.labels + 5)  # five old classes and five new ones
    given = {"model": SPEC, "train": train, "test": train, "target_accuracy": 0.5, "meter": meter, head: True}
    with pytest.raises(SettingError, match="no counterpart from scratch"):
        UpdateRequest(**given).run_beside_scratch(seeds=1)
    assert not list(folder.iterdir())


def test_forecast_from_a_long_history_says_how_much_of_it_was_used(folder, monkeypatch):
    from resque.forecasting import selection
    from resque.ledger.bundled import bundled_updates

    ledger = resque.Ledger("resque.db")
    shifts = [update for update in bundled_updates() if update.features.task_index is None][:40]
    ledger.extend(shifts)
    arguments = {
        "train": "digits@16px@train@300+blur:5", "test": "digits@16px@test+blur:5", "target_accuracy": 0.7,
        "recipe": "train-adam", "ledger": ledger, "meter": resque.ClockMeter(), "bundled_history": False,
    }  # fmt: skip
    assert not [note for note in resque.forecast("resque.networks:small_cnn", **arguments).notes if "learned" in note]
    monkeypatch.setattr(selection, "MOST_UPDATES", 30)
    limited = resque.forecast("resque.networks:small_cnn", **arguments)
    assert "learned from 30 of 40 updates: those of this model, then the newest" in limited.notes
    assert limited.n_history <= 30
