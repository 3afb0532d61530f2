import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from resque.energy.grid import Grid
from resque.errors import DataError, ModelError, SettingError
from resque.indices.task import resque_task
from resque.indices.task_features import TaskIndexSettings, allocate_rows, task_index
from resque.models.feature_extraction import capture_features
from resque.training.new_task import with_new_head
from resque.training.recipe import RECIPES
from resque.training.trainer import Trainer

QUICK = TaskIndexSettings(recipe=RECIPES["train-adam"], layer="penultimate")


@pytest.fixture
def new_task(small):
    """Digits under labels that the model has never heard of."""
    return dataclasses.replace(small[0], labels=small[0].labels * 7 - 3)


def test_it_is_warm_up_pass_and_index(cnn, new_task, meter):
    """The same by hand: new head, one epoch, representations, Algorithm 1."""
    found = task_index(cnn, new_task, QUICK, meter=meter)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner, task = with_new_head(cnn, new_task)
        trainer = Trainer(learner, task, QUICK.recipe, 0)
        for _ in range(trainer.steps_per_epoch):
            trainer.step()
    with capture_features(learner, "penultimate") as observe:
        rows, logits = (torch.cat(parts) for parts in zip(*(observe(x) for x, _ in task.batches()), strict=True))
    assert found.value == resque_task(rows, new_task.labels).value
    assert (found.classes, found.n, found.layer, found.lloyd) == (10, 320, "penultimate", True)
    asked = found.overhead
    assert (asked.head, asked.outputs, asked.steps, asked.epochs) == ("new", 10, 10, 1.0)
    assert asked.accuracy == float((logits.argmax(1) == task.labels).double().mean())


def test_the_cost_of_asking_is_complete(cnn, new_task, meter):
    asked = task_index(cnn, new_task, QUICK, meter=meter, grid=Grid("given", 100.0, "a test")).overhead
    parts = asked.warm_up_s + asked.pass_s + asked.clustering_s
    assert min(asked.warm_up_s, asked.pass_s, asked.clustering_s) > 0
    assert 0.5 * asked.energy.wall_s < parts <= asked.energy.wall_s  # the rest is between them
    assert asked.energy.energy_kwh == pytest.approx(36.0 * asked.energy.wall_s / 3.6e6)
    assert asked.carbon_kg == pytest.approx(asked.energy.energy_kwh * 0.1)
    assert asked.recipe["learning_rate"] == 1e-3
    assert task_index(cnn, new_task, QUICK, meter=meter).overhead.carbon_kg is None


def test_the_model_is_left_as_it_was(cnn, new_task, meter):
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    flags = [module.training for module in cnn.modules()]
    task_index(cnn, new_task, QUICK, meter=meter)
    assert all(torch.equal(before[name], value) for name, value in cnn.state_dict().items())
    assert flags == [module.training for module in cnn.modules()]
    assert all(p.grad is None for p in cnn.parameters())


def test_the_streaming_form_needs_two_passes_and_no_memory(cnn, new_task, meter):
    ask = dataclasses.replace(QUICK, lloyd=False)
    found = task_index(cnn, new_task, ask, meter=meter)
    assert (found.lloyd, found.init) == (False, "class-means")
    assert found.value != task_index(cnn, new_task, QUICK, meter=meter).value
    assert found == dataclasses.replace(task_index(cnn, new_task, ask, meter=meter), overhead=found.overhead)


def test_an_extended_task_keeps_the_old_classes_and_their_weights(cnn, small):
    labels = torch.where(small[0].labels < 8, small[0].labels, small[0].labels * 100)
    learner, task = with_new_head(cnn, dataclasses.replace(small[0], labels=labels), extend=True)
    old, new = cnn[-1], learner[-1]
    assert new.weight.shape == (12, 64)
    assert torch.equal(new.weight[:10], old.weight)
    assert torch.equal(new.bias[:10], old.bias)
    assert task.classes == [*range(8), 10, 11]
    assert int((task.labels == 11).sum()) == int((small[0].labels == 9).sum())


def test_an_extended_task_end_to_end(cnn, small, meter):
    more = dataclasses.replace(small[0], labels=small[0].labels + 6)
    found = task_index(cnn, more, dataclasses.replace(QUICK, extend=True, warmup_steps=3), meter=meter)
    assert (found.overhead.head, found.overhead.outputs) == ("widened", 16)
    assert (found.overhead.steps, found.classes) == (3, 10)


def test_no_warm_up_is_no_step(cnn, new_task, meter):
    asked = task_index(cnn, new_task, dataclasses.replace(QUICK, warmup_steps=0), meter=meter).overhead
    assert (asked.steps, asked.epochs) == (0, 0.0)


def test_what_cannot_be_asked_is_refused(cnn, small, new_task, meter):
    with pytest.raises(SettingError, match="among the 10 that the model has; label new ones from 10 on"):
        task_index(cnn, small[0], TaskIndexSettings(extend=True), meter=meter)
    with pytest.raises(SettingError, match="expected 0 or more"):
        TaskIndexSettings(warmup_steps=-1)
    with pytest.raises(SettingError, match="without Lloyd"):
        TaskIndexSettings(init="random", lloyd=False)
    with pytest.raises(ModelError, match="no layer 'nine'"):
        task_index(cnn, new_task, TaskIndexSettings(layer="nine"), meter=meter)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells how much memory is free")
def test_more_representations_than_memory_holds_are_refused_before_the_machine_runs_out():
    with pytest.raises(
        DataError, match=r"1,000,000,000 representations of width 1,024 take 8192.0 GB and .* GB are free"
    ):
        allocate_rows(10**9, 1024)


class Backwards(nn.Module):
    """Its classifier is not its last dense layer."""

    def __init__(self):
        super().__init__()
        self.classifier, self.body = nn.Linear(8, 10), nn.Linear(256, 8)

    def forward(self, x):
        return self.classifier(self.body(x.flatten(1)))


class Gated(nn.Module):
    """What comes after its head has no room for more outputs."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.scale = nn.Linear(256, 8), nn.Linear(8, 10), nn.Parameter(torch.ones(10))

    def forward(self, x):
        return self.head(self.body(x.flatten(1))) * self.scale


class Normed(Gated):
    """Its logits depend on one another, so that new ones change the old."""

    def forward(self, x):
        return nn.functional.normalize(self.head(self.body(x.flatten(1))), dim=1)


@pytest.mark.parametrize("model", [Backwards, Gated])
def test_a_head_that_is_not_the_last_thing_is_told(model, small, meter):
    fewer = dataclasses.replace(small[0], labels=small[0].labels % 7)
    with pytest.raises(ModelError, match="head"):
        task_index(model(), fewer, TaskIndexSettings(layer="body"), meter=meter)


def test_a_widened_model_that_answers_otherwise_is_told(small, meter):
    more = dataclasses.replace(small[0], labels=small[0].labels + 6)
    with pytest.raises(ModelError, match="old classes"):
        task_index(Normed(), more, TaskIndexSettings(extend=True), meter=meter)


def test_it_trains_where_the_caller_has_gradients_off(cnn, new_task, meter):
    with torch.no_grad():
        found = task_index(cnn, new_task, QUICK, meter=meter)
    assert found.value == task_index(cnn, new_task, QUICK, meter=meter).value


def test_a_model_in_half_precision_is_asked_in_it(cnn, new_task, meter):
    found = task_index(cnn.bfloat16(), new_task, dataclasses.replace(QUICK, warmup_steps=1), meter=meter)
    assert 0.0 <= found.value < 1.5
