"""One row of the source × target table: the scores and the index of each task alone, from as few passes."""

import dataclasses
import json

import pytest
import torch

from resque.errors import DataError
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.scores import baseline_scores
from resque.indices.task_features import TaskIndexSettings, task_index
from resque.indices.task_table import score_tasks

QUICK = TaskIndexSettings(warmup_steps=3, layer="penultimate")
SCORES = {"NCE", "LEEP", "k-NN accuracy", "H-score", "shrunk H-score", "LogME", "GBC"}


@pytest.fixture
def tasks(small):
    train = small[0]
    return {
        "same labels": train,
        "parity": dataclasses.replace(train, labels=train.labels % 2),
        "with gaps": dataclasses.replace(train, labels=train.labels * 7 - 3),
    }


def test_scores_take_one_pass_of_the_model_per_task(cnn, tasks):
    batches = []
    cnn.register_forward_hook(lambda module, inputs, output: batches.append(len(inputs[0])))
    table = score_tasks(cnn, tasks)
    assert sum(batches) == sum(len(data) for data in tasks.values())
    assert (list(table.scores), table.indices) == (list(tasks), {})
    for name, data in tasks.items():
        alone = baseline_scores(collect_outputs(cnn, data))
        assert set(table.scores[name]) == SCORES
        assert table.scores[name] == {score: alone[score].value for score in SCORES}
        assert not any(alone[score].grows_with_cost for score in SCORES)


def test_indices_are_those_of_each_task_alone(cnn, tasks, meter):
    state = {name: values.clone() for name, values in cnn.state_dict().items()}
    table = score_tasks(cnn, tasks, QUICK, meter=meter)
    assert all(torch.equal(values, state[name]) for name, values in cnn.state_dict().items())
    for name, data in tasks.items():
        assert table.indices[name].value == task_index(cnn, data, QUICK, meter=meter).value
        assert table.indices[name].overhead.energy.energy_kwh > 0.0
    assert score_tasks(cnn, {"parity": tasks["parity"]}, QUICK).indices["parity"].overhead.energy.energy_kwh is None


def test_table_shows_every_task_and_what_it_cannot_tell(cnn, tasks):
    table = score_tasks(cnn, tasks, QUICK)
    text = " ".join(str(table).split())
    assert all(f"{name} {table.indices[name].value:.4f}" in text for name in tasks)
    assert "none of them tells reuse from training from scratch" in text
    assert "nan" not in text
    assert set(json.loads(json.dumps(table.to_dict()))["scores"]["parity"]) == SCORES
    assert "–" in str(score_tasks(cnn, tasks))


@pytest.mark.parametrize(("tasks", "message"), [({}, "no tasks"), ({"a": True}, "a: no labels")])
def test_tasks_without_labels_and_no_tasks_raise(cnn, small, tasks, message):
    unlabeled = dataclasses.replace(small[0], labeled=False)
    with pytest.raises(DataError, match=message):
        score_tasks(cnn, dict.fromkeys(tasks, unlabeled))
