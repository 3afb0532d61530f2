"""What can be refused is refused before anything is trained; a run that has ended is kept."""

import dataclasses
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import resque
from doubles import synthetic_update
from resque.energy.meters import ClockMeter
from resque.errors import LedgerError, ResqueError, SettingError
from resque.forecasting.evaluation.matching import check_settles, differing_settings
from resque.ledger.export import read_json_lines
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe, recipe_to_dict

SPEC, DATA = "resque.networks:small_cnn", ("digits@16px@train@100", "digits@16px@test@60")
BAD_TEXT = "\udcff", "a\ud800b"


@pytest.fixture
def untrained(folder, monkeypatch):
    """A folder in which nothing may be trained."""
    for where in ("running.retrain", "calibration_training.retrain", "passes.probe"):
        monkeypatch.setattr(f"resque.workflows.{where}", Mock(side_effect=AssertionError("trained")))
    return folder


REFUSED = [
    *({"shift_type": value} for value in (*BAD_TEXT, 5, b"fog", ["fog"])),
    *({"seed": value} for value in (1.5, "1", 2**63, 2**70, float("nan"))),
    *({"target_accuracy": value} for value in ("0.9", 0, 90, float("nan"))),
]  # fmt: skip


@pytest.mark.parametrize("given", REFUSED, ids=lambda given: ascii(given)[:60])
@pytest.mark.parametrize("job", [resque.update, resque.forecast])
def test_what_cannot_be_stored_is_refused_before_training(untrained, given, job):
    given = {"target_accuracy": 0.9, **given}
    with pytest.raises(ResqueError) as refused:
        job(SPEC, *DATA, meter=ClockMeter(), **given)
    assert "\n" not in str(refused.value)
    str(refused.value).encode()
    assert not (untrained / "resque.db").exists()
    assert not (untrained / "updates").exists()


@pytest.mark.parametrize(
    "given",
    [
        *({"checkpoint_every_s": value} for value in (-1.0, float("nan"), float("inf"))),
        *({"tariff": value} for value in (0.3, "EUR", resque.Tariff(0.1, 0.0, "\udcff"))),
    ],
    ids=ascii,
)
def test_an_update_refuses_its_own_options_before_training(untrained, given):
    with pytest.raises(SettingError, match="expected|no Unicode"):
        resque.update(SPEC, *DATA, 0.9, meter=ClockMeter(), **given)


@pytest.mark.parametrize("name", ["net\udcff.py", "new\udcff.npz"])
def test_a_file_whose_name_is_no_text_is_refused_before_training(untrained, name):
    (untrained / "net\udcff.py").write_text("from resque.models.networks import small_cnn as build\n")
    x, y = np.zeros((40, 16, 16), dtype=np.uint8), np.arange(40) % 4
    for file in ("new\udcff.npz", "new.npz"):
        np.savez(untrained / file, x=x, y=y)
    model, data = (f"{name}:build", "npz:new.npz") if name.endswith(".py") else (SPEC, f"npz:{name}")
    for job in (resque.update, resque.forecast):
        with pytest.raises(SettingError, match="no Unicode text"):
            job(model, data, data, 0.9, meter=ClockMeter())


NEW = "--model resque.networks:small_cnn --test digits@16px@test@60 --target-accuracy 0.9"


@pytest.mark.parametrize("ledger", ["junk.db", "junk.db/x.db", f"{'x' * 300}.db"], ids=["junk", "no-folder", "name"])
@pytest.mark.parametrize(
    "command",
    [
        f"compare {NEW} --shifted digits@100", f"forecast {NEW} --shifted digits@100 --pilot 5",
        f"retrain {NEW} --train digits@100", "calibrate --model resque.networks:small_cnn --data digits@100",
    ],
    ids=lambda command: command.split()[0],
)  # fmt: skip
def test_a_ledger_that_cannot_be_used_is_refused_before_any_pass(cli, untrained, monkeypatch, command, ledger):
    monkeypatch.setattr("resque.workflows.inputs.load_data", Mock(side_effect=AssertionError("passed")))
    (untrained / "junk.db").write_bytes(b"no database at all, but long enough to look like one " * 20)
    code, out, err = cli(f"{command} --ledger {ledger}")
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert "name another file with --ledger" in err


OTHER = {
    "optimizer": ("adam", "sgd"), "learning_rate": (1e-4, 2e-4), "batch_size": (32, 16), "trains": ("all", "head"),
    "momentum": (0.9, 0.8), "max_epochs": (5, 6), "precision": ("float32", "bfloat16"), "max_hours": (None, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("setting", OTHER)
def test_a_forecast_of_another_recipe_is_refused_before_training(untrained, monkeypatch, cnn, small, setting):
    expected, given = OTHER[setting]
    job = RetrainingJob(*small, 0.9, Recipe(**{"max_epochs": 5, setting: given}))
    made = dataclasses.replace(job, recipe=Recipe(**{"max_epochs": 5, setting: expected}))
    update = synthetic_update("u1", index=0.1, steps=5)
    names = {"parent": fingerprint(cnn), "train_data": job.train.name, "test_data": job.test.name}
    forecast = resque.Forecast(
        id="f1", created_utc="2026-01-01", model="m", shift_type=None, recipe=recipe_to_dict(made.recipe),
        target_accuracy=0.9, features=update.features, predictor="index", estimates={}, probability_reached=0.9,
        n_history=0, shift_types_history=(), max_steps=50, overhead=update.energy, grid=None,
        step_cost=resque.StepCost(0.1, None, 1, update.energy), **names,
    )  # fmt: skip
    check_settles(cnn, made, forecast)
    older = {name: value for name, value in forecast.recipe.items() if name in ("optimizer", setting, "max_epochs")}
    check_settles(cnn, made, dataclasses.replace(forecast, recipe=older))
    Ledger("resque.db").add(forecast)
    with pytest.raises(SettingError, match=f"made for recipe {setting} {expected}, not {setting} {given}"):
        resque.update(cnn, *small, 0.9, forecast="f1", recipe=job.recipe, meter=ClockMeter())
    assert Ledger("resque.db").updates() == []


@pytest.mark.parametrize(
    ("expected", "given", "differ"),
    [(0.1, np.float32(0.1), False), (0.1, 0.1001, True), ("adam", "Adam", False), (None, 1, True), ([1], [1], False)],
)
def test_settings_are_compared_as_what_they_mean(expected, given, differ):
    assert bool(differing_settings({"a": expected, "b": 1}, {"a": given, "c": 2})) == differ


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_finished_update_is_kept_where_the_ledger_cannot_be_written(folder, monkeypatch, from_scratch):
    add = Ledger.add

    def fail_on_updates(self, entry):
        if from_scratch and not entry.from_scratch:
            return add(self, entry)
        raise LedgerError("the disk is full")

    monkeypatch.setattr(Ledger, "add", fail_on_updates)
    request = resque.workflows.update.UpdateRequest(
        model=resque.load_model(SPEC, seed=1), train=DATA[0], test=DATA[1], target_accuracy=0.9, meter=ClockMeter(),
        recipe="train-adam,max_epochs=1", out="new",
    )  # fmt: skip
    with pytest.raises(LedgerError, match="the disk is full") as failed:
        request.run_beside_scratch(1) if from_scratch else request.run()
    (update,) = read_json_lines(Path(str(failed.value).split("import ")[1].split()[0]))
    assert (update.from_scratch, update.cost.steps > 0) == (from_scratch, True)
    assert (folder / "new" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "given",
    [
        *({"layer": name} for name in ("nope", "7.0", "conv1", "Penultimate")),
        *({"reduction": name} for name in ("nope", "Flatten", "token_mean", "token-mean")),  # the last needs tokens
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "more", [{}, {"new_task": True}, {"original": "object"}, {"original": "p.safetensors"}], ids=str
)
@pytest.mark.parametrize("job", [resque.update, resque.forecast])
def test_a_layer_or_reduction_that_no_profile_can_have_is_refused_before_training(
    untrained, monkeypatch, cnn, small, given, more, job
):
    monkeypatch.setattr("resque.workflows.inputs.task_features", Mock(side_effect=AssertionError("trained")))
    if "original" in more:
        before = resque.profile(cnn, small[1])
        before.save("p.safetensors") if more["original"] == "p.safetensors" else None
        more = {"original": before if more["original"] == "object" else more["original"]}
    with pytest.raises(ResqueError) as refused:
        job(SPEC, *DATA, 0.9, meter=ClockMeter(), **given, **more)
    assert "\n" not in str(refused.value)
    assert next(iter(given.values())) in str(refused.value)
    assert not (untrained / "resque.db").exists() or not any(Ledger("resque.db").count().values())
    assert not (untrained / "updates").exists()


@pytest.mark.parametrize("given", [{"layer": "0"}, {"layer": "penultimate"}, {"reduction": "mean"}], ids=str)
def test_a_layer_or_reduction_that_a_profile_can_have_reaches_the_training(untrained, given):
    for job in (resque.update, resque.forecast):
        with pytest.raises(AssertionError, match="trained"):
            job(SPEC, *DATA, 0.9, meter=ClockMeter(), **given)
