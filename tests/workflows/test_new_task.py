"""A new task, from its features to the settled forecast."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from doubles import synthetic_update
from resque.data.loading import load_data
from resque.errors import SettingError
from resque.forecasting.curve_history import CurveHistory
from resque.forecasting.history import ForecastQuery, history_rows
from resque.indices.task_features import TaskIndexSettings, task_features, task_index
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK, prepare_new_task
from resque.training.recipe import RECIPES

RECIPE = dataclasses.replace(RECIPES["train-adam"], evaluate_every=5, max_epochs=6)
MODEL = "resque.networks:small_cnn"


@pytest.fixture
def job(small):
    """Digits under labels that the model does not have."""
    train, test = (dataclasses.replace(part, labels=part.labels * 7 - 3) for part in small)
    return RetrainingJob(train, test, 0.6, RECIPE)


def task_updates(n=8):
    """A history of new tasks: the larger RESQUE_task, the more steps."""
    updates = []
    for i in range(n):
        index = 0.2 + 0.08 * i
        update = synthetic_update(
            f"t{i}", index=0.5, steps=round(100 * index), shift_type=NEW_TASK, target=0.6, accuracy=0.1
        )
        features = dataclasses.replace(
            update.features, index_rad=None, task_index=index, scores={"warm-up accuracy": 0.59 - 0.5 * index}
        )
        updates.append(
            dataclasses.replace(update, features=features, train_data=f"task {i}", parent=f"p{i}", model=MODEL)
        )
    return updates


def test_task_features_come_from_the_warm_up(cnn, job, meter):
    settings = TaskIndexSettings(recipe=RECIPE, layer="penultimate")
    features, overhead = task_features(cnn, job, settings, meter=meter)
    assert features.task_index == task_index(cnn, job.train, settings, meter=meter).value
    assert (features.index_rad, features.classes, features.samples) == (None, 10, len(job.train))
    assert features.scores["warm-up loss"] < features.loss
    assert 0.0 <= features.scores["warm-up k-NN"] <= 1.0
    assert overhead.wall_s > 0.0


def test_prepared_job_has_output_labels_and_the_former_model(cnn, job):
    learner, prepared = prepare_new_task(cnn, job)
    assert (prepared.effective_shift_type, prepared.parent) == (NEW_TASK, fingerprint(cnn))
    assert torch.equal(prepared.test.labels * 7 - 3, job.test.labels)
    again, _ = prepare_new_task(cnn, job)
    other, _ = prepare_new_task(cnn, dataclasses.replace(job, seed=1))
    assert fingerprint(learner) == fingerprint(again) != fingerprint(other)


def test_extension_keeps_the_old_outputs(cnn, small):
    train, test = (dataclasses.replace(part, labels=part.labels + 5) for part in small)
    learner, prepared = prepare_new_task(cnn, RetrainingJob(train, test, 0.6, RECIPE), extend=True)
    assert prepared.effective_shift_type == EXTENSION
    assert prepared.train.classes == list(range(5, 15))
    with torch.no_grad():
        assert learner(next(train.batches(2))[0]).shape[1] == 15


def test_forecasts_learn_from_updates_of_the_same_change(job):
    tasks = task_updates(12)
    shifts = [synthetic_update(f"s{i}", index=0.1 * (i + 1), steps=50, target=0.6) for i in range(12)]
    task_query = ForecastQuery.of(job, tasks[0].features, "p0", MODEL)
    shift_query = ForecastQuery.of(job, shifts[0].features, "p", "m")
    assert {row.example.shift_type for row in history_rows(tasks + shifts, task_query, ["accuracy gap"])} == {NEW_TASK}
    assert {row.example.shift_type for row in history_rows(tasks + shifts, shift_query, ["accuracy gap"])} == {
        "gaussian"
    }
    known = CurveHistory(tasks, task_query), CurveHistory(shifts, task_query), CurveHistory(tasks, shift_query)
    assert [each.n_own for each in known] == [12, 0, 0]


@pytest.fixture
def new_task(folder):
    """Digits 0-4 against 5-9, under new labels."""
    data = load_data("digits@16px@600")
    images = np.rint(255 * next(data.batches(600))[0][:, 0].numpy()).astype(np.uint8)
    labels = (data.labels.numpy() >= 5) * 30 + 12
    np.savez(folder / "train.npz", x=images[:400], y=labels[:400])
    np.savez(folder / "test.npz", x=images[400:], y=labels[400:])
    return "--test npz:test.npz --target-accuracy 0.6 --recipe train-adam,max_epochs=6,evaluate_every=5"


def test_new_task_is_forecast_learned_and_settled(cli, new_task, folder):
    ledger = Ledger(folder / "resque.db")
    for update in task_updates():
        ledger.add(update)
    code, out, err = cli(f"forecast --model {MODEL} --task npz:train.npz {new_task} --no-prior --json")
    assert code == 0, (code, out[-300:], err)
    forecast = json.loads(out)
    assert forecast["shift_type"] == NEW_TASK
    assert forecast["features"]["task_index"] is not None
    assert forecast["overhead"]["wall_s"] > 0.0
    code, out, err = cli(
        f"retrain --model {MODEL} --train npz:train.npz {new_task} --new-head --forecast {forecast['id']} --json"
    )
    assert code == 0, (code, out[-300:], err)
    update = json.loads(out)
    assert (update["forecast_id"], update["reached"], update["shift_type"]) == (forecast["id"], True, NEW_TASK)
    assert update["features"]["task_index"] == forecast["features"]["task_index"]
    assert update["parent"] == forecast["parent"]
    assert [(a.id, b.id) for a, b in ledger.settled()] == [(forecast["id"], update["id"])]


def test_shift_and_new_task_exclude_each_other(cli, new_task):
    for given in ("", "--task npz:train.npz --original npz:train.npz", "--original npz:train.npz"):
        code, _, err = cli(f"forecast --model {MODEL} {given} {new_task}")
        assert code == 1
        assert "name the new data" in err
    code, _, err = cli(f"retrain --model {MODEL} --train npz:train.npz {new_task} --new-head --extend")
    assert code == 1
    assert "stand alone" in err


def test_extension_needs_new_classes(cnn, small):
    with pytest.raises(SettingError, match="all among"):
        prepare_new_task(cnn, RetrainingJob(*small, 0.6, RECIPE), extend=True)
