import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from resque.energy.grid import Grid
from resque.errors import DataError, ModelError, RepresentationError, SettingError
from resque.indices.task import resque_task
from resque.indices.task_features import TaskIndexSettings, allocate_rows, task_index
from resque.models.feature_extraction import capture_features
from resque.training.new_task import with_new_head
from resque.training.recipe import RECIPES
from resque.training.trainer import Trainer

QUICK = TaskIndexSettings(recipe=RECIPES["train-adam"], layer="penultimate")


@pytest.fixture
def new_task(small):
    """Digits with labels that the model does not know."""
    return dataclasses.replace(small[0], labels=small[0].labels * 7 - 3)


def test_task_index_is_the_index_after_a_warm_up_epoch(cnn, new_task, meter):
    """Oracle: new head, one epoch, representations, Algorithm 1, step by step."""
    index = task_index(cnn, new_task, QUICK, meter=meter)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner, task = with_new_head(cnn, new_task)
        trainer = Trainer(learner, task, QUICK.recipe, 0)
        for _ in range(trainer.steps_per_epoch):
            trainer.step()
    with capture_features(learner, "penultimate") as observe:
        rows, logits = (torch.cat(parts) for parts in zip(*(observe(x) for x, _ in task.batches()), strict=True))
    assert index.value == resque_task(rows, new_task.labels).value
    assert (index.classes, index.n, index.layer, index.lloyd) == (10, 320, "penultimate", True)
    overhead = index.overhead
    assert (overhead.head, overhead.outputs, overhead.steps, overhead.epochs) == ("new", 10, 10, 1.0)
    assert overhead.accuracy == float((logits.argmax(1) == task.labels).double().mean())


def test_overhead_covers_warm_up_pass_and_clustering(cnn, new_task, meter):
    overhead = task_index(cnn, new_task, QUICK, meter=meter, grid=Grid("given", 100.0, "a test")).overhead
    parts = overhead.warm_up_s + overhead.pass_s + overhead.clustering_s
    assert min(overhead.warm_up_s, overhead.pass_s, overhead.clustering_s) > 0
    assert 0.5 * overhead.energy.wall_s < parts <= overhead.energy.wall_s  # the rest is between them
    assert overhead.energy.energy_kwh == pytest.approx(36.0 * overhead.energy.wall_s / 3.6e6)
    assert overhead.carbon_kg == pytest.approx(overhead.energy.energy_kwh * 0.1)
    assert overhead.recipe["learning_rate"] == 1e-3
    assert task_index(cnn, new_task, QUICK, meter=meter).overhead.carbon_kg is None


def test_model_is_left_unchanged(cnn, new_task, meter):
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    flags = [module.training for module in cnn.modules()]
    task_index(cnn, new_task, QUICK, meter=meter)
    assert all(torch.equal(before[name], value) for name, value in cnn.state_dict().items())
    assert flags == [module.training for module in cnn.modules()]
    assert all(p.grad is None for p in cnn.parameters())


def test_index_without_lloyd_is_reproducible_and_differs(cnn, new_task, meter):
    settings = dataclasses.replace(QUICK, lloyd=False)
    index = task_index(cnn, new_task, settings, meter=meter)
    assert (index.lloyd, index.init) == (False, "class-means")
    assert index.value != task_index(cnn, new_task, QUICK, meter=meter).value
    assert index == dataclasses.replace(task_index(cnn, new_task, settings, meter=meter), overhead=index.overhead)


def test_extended_task_keeps_old_classes_and_weights(cnn, small):
    labels = torch.where(small[0].labels < 8, small[0].labels, small[0].labels * 100)
    learner, task = with_new_head(cnn, dataclasses.replace(small[0], labels=labels), extend=True)
    old, new = cnn[-1], learner[-1]
    assert new.weight.shape == (12, 64)
    assert torch.equal(new.weight[:10], old.weight)
    assert torch.equal(new.bias[:10], old.bias)
    assert task.classes == [*range(8), 10, 11]
    assert int((task.labels == 11).sum()) == int((small[0].labels == 9).sum())


def test_task_index_of_an_extended_task(cnn, small, meter):
    more = dataclasses.replace(small[0], labels=small[0].labels + 6)
    index = task_index(cnn, more, dataclasses.replace(QUICK, extend=True, warmup_steps=3), meter=meter)
    assert (index.overhead.head, index.overhead.outputs) == ("widened", 16)
    assert (index.overhead.steps, index.classes) == (3, 10)


def test_progress_reports_warm_up_pass_and_random_starts(cnn, new_task, meter):
    reports = []
    settings = dataclasses.replace(QUICK, warmup_steps=2, init="random")
    task_index(cnn, new_task, settings, meter=meter, on_progress=lambda *report: reports.append(report))
    assert [report for report in reports if report[2] == "warm-up"] == [(1, 2, "warm-up"), (2, 2, "warm-up")]
    assert reports[-1] == (20, 20, "clustering")
    assert (320, 320, "pass") in reports


def test_warm_up_that_diverges_raises(cnn, new_task, meter):
    wild = dataclasses.replace(RECIPES["train-adam"], optimizer="sgd", learning_rate=1e30)
    with pytest.raises(RepresentationError, match="diverge"):
        task_index(cnn, new_task, dataclasses.replace(QUICK, recipe=wild), meter=meter)


def test_zero_warm_up_steps_train_nothing(cnn, new_task, meter):
    overhead = task_index(cnn, new_task, dataclasses.replace(QUICK, warmup_steps=0), meter=meter).overhead
    assert (overhead.steps, overhead.epochs) == (0, 0.0)


def test_invalid_settings_raise(cnn, small, new_task, meter):
    with pytest.raises(SettingError, match="among the 10 that the model has; label new ones from 10 on"):
        task_index(cnn, small[0], TaskIndexSettings(extend=True), meter=meter)
    with pytest.raises(SettingError, match="expected 0 or more"):
        TaskIndexSettings(warmup_steps=-1)
    with pytest.raises(SettingError, match="without Lloyd"):
        TaskIndexSettings(init="random", lloyd=False)
    with pytest.raises(ModelError, match="no layer 'nine'"):
        task_index(cnn, new_task, TaskIndexSettings(layer="nine"), meter=meter)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells how much memory is free")
def test_representations_that_do_not_fit_into_memory_raise():
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
def test_head_that_is_not_the_last_layer_raises(model, small, meter):
    fewer = dataclasses.replace(small[0], labels=small[0].labels % 7)
    with pytest.raises(ModelError, match="head"):
        task_index(model(), fewer, TaskIndexSettings(layer="body"), meter=meter)


def test_widened_head_that_changes_old_logits_raises(small, meter):
    more = dataclasses.replace(small[0], labels=small[0].labels + 6)
    with pytest.raises(ModelError, match="old classes"):
        task_index(Normed(), more, TaskIndexSettings(extend=True), meter=meter)


def test_warm_up_trains_although_gradients_are_disabled(cnn, new_task, meter):
    with torch.no_grad():
        index = task_index(cnn, new_task, QUICK, meter=meter)
    assert index.value == task_index(cnn, new_task, QUICK, meter=meter).value


def test_bfloat16_model_gives_an_index(cnn, new_task, meter):
    index = task_index(cnn.bfloat16(), new_task, dataclasses.replace(QUICK, warmup_steps=1), meter=meter)
    assert 0.0 <= index.value < 1.5
