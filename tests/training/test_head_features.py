"""A head that is trained alone, on inputs computed once: as through the network, to rounding, and at any step."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from resque.models.networks import small_cnn
from resque.training import head_features
from resque.training.job import RetrainingJob
from resque.training.probe import probe
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.training.trainer import Trainer

RECIPES = (
    "train-adam", "train-sgd,learning_rate=0.05,batch_size=48", "train-adam,optimizer=adamw,batch_size=33",
    "train-adam,schedule=cosine,max_epochs=3", "train-sgd,milestones=1", "train-adam,precision=bfloat16",
    "train-adam,channels_last=false,evaluate_every=3,evaluate_growth=0.5",
)  # fmt: skip


class Odd(nn.Module):
    """A network whose head is no function of one row per sample, or whose output is not the model's."""

    def __init__(self, change):
        super().__init__()
        self.body, self.head, self.change = nn.Sequential(nn.Flatten(), nn.Linear(256, 16)), nn.Linear(16, 10), change

    def forward(self, x):
        rows = self.body(x)
        if self.change == "tokens":
            return self.head(rows[:, None]).mean(1)
        if self.change == "random":
            return self.head(nn.functional.dropout(rows, 0.5, training=True))
        if self.change == "batch":
            return self.head(rows - rows.mean(0))
        if self.change == "twice":
            return self.head(rows) + self.head(rows.relu())
        if self.change == "in place":
            return self.head(rows).clamp_(-9.0, 9.0)
        if self.change == "bypass":
            return nn.functional.linear(rows, self.head.weight, self.head.bias)
        return self.head(rows) if self.change == "plain" else self.head(rows) / 2.0


def job_of(small, recipe, epochs=2):
    as_double = [dataclasses.replace(data, inputs=data.inputs.double()) for data in small]
    recipe = dataclasses.replace(named_recipe(f"{recipe},trains=head"), fixed_epochs=epochs)
    return RetrainingJob(*as_double, 1.0, recipe, seed=3)


@pytest.fixture
def through_the_network(monkeypatch):
    def off():
        monkeypatch.setattr(head_features.FeatureCache, "allows", lambda self, data: False)

    return off


@pytest.mark.parametrize("recipe", RECIPES)
def test_curve_and_weights_are_those_through_the_network(small, recipe, meter, through_the_network):
    torch.manual_seed(0)
    net = small_cnn().double()
    nets = net, copy.deepcopy(net)
    job = job_of(small, recipe)
    cached = retrain(nets[0], job, meter=meter)
    through_the_network()
    whole = retrain(nets[1], job, meter=meter)
    near = {"rel": 1e-2, "abs": 1e-2} if "bfloat16" in recipe else {"rel": 1e-9, "abs": 1e-12}
    assert cached.curve.steps == whole.curve.steps
    for column in ("loss", "gradient_norm", "gradient_norm_last_batch", "parameter_change"):
        assert getattr(cached.curve, column) == pytest.approx(getattr(whole.curve, column), **near)
    assert cached.curve.accuracy == pytest.approx(whole.curve.accuracy, abs=0.02 if "bfloat16" in recipe else 0)
    for name, value in nets[0].state_dict().items():
        assert torch.allclose(value, nets[1].state_dict()[name], rtol=near["rel"], atol=near["abs"]), name
    assert (cached.cost.samples, cached.cost.steps) == (whole.cost.samples, whole.cost.steps)
    assert cached.cost.flops < whole.cost.flops


def counted(model):
    passed = []
    model[0].register_forward_pre_hook(lambda module, inputs: passed.append(len(inputs[0])))
    return passed


@pytest.mark.parametrize("epochs", [1, 5])
def test_the_network_passes_the_data_a_single_time(small, meter, epochs):
    model = small_cnn()
    trainer, passed = Trainer(model, small[0], named_recipe("train-adam,trains=head"), seed=0), counted(model)
    for _ in range(epochs * trainer.steps_per_epoch):
        trainer.step()
        trainer.evaluate(small[1])
    assert sum(passed) - head_features._TRIED * 1.5 == len(small[0]) + len(small[1])


@pytest.mark.parametrize("change", ["tokens", "random", "batch", "twice", "in place", "bypass", "scaled"])
def test_a_head_whose_inputs_are_not_the_whole_story_is_trained_through_the_network(small, change):
    torch.manual_seed(0)
    trainer = Trainer(Odd(change), small[0], named_recipe("train-adam,trains=head"), seed=0)
    assert not trainer.passes_once
    trainer.step()
    assert trainer.evaluate(small[1])[1] > 0.0


@pytest.mark.parametrize("recipe", ["trains=all", "trains=head,augmentation=flip"])
def test_other_recipes_pass_the_data_every_time(small, recipe):
    if "augmentation" in recipe:
        pytest.importorskip("kornia.augmentation")
    assert not Trainer(small_cnn(), small[0], named_recipe(f"train-adam,{recipe}"), seed=0).passes_once
    assert Trainer(Odd("plain"), small[0], named_recipe("train-adam,trains=head"), seed=0).passes_once


def test_weights_that_the_head_shares_are_not_cached(small):
    net = Odd("plain")
    net.body[1] = nn.Linear(256, 16)
    net.tied = nn.Module()
    net.tied.weight = net.head.weight
    assert not head_features.FeatureCache(net).allows(small[0])


def test_inputs_that_would_fill_the_memory_are_not_kept(small, monkeypatch):
    monkeypatch.setattr(head_features, "_MOST_BYTES", 320 * 64 * 4 - 1)
    assert not Trainer(small_cnn(), small[0], named_recipe("train-adam,trains=head"), seed=0).passes_once
    monkeypatch.setattr(head_features, "_MOST_BYTES", 320 * 64 * 4)
    assert Trainer(small_cnn(), small[0], named_recipe("train-adam,trains=head"), seed=0).passes_once


def test_probe_tells_the_pass_from_the_steps(small, meter):
    alone, all_of_it = (
        probe(small_cnn(), small[0], named_recipe(f"train-adam,trains={t}"), meter) for t in ("head", "all")
    )
    assert alone.start_s > 0.0 == all_of_it.start_s
    assert alone.energy_after(10) == pytest.approx(alone.energy_kwh * (10 + alone.start_s / alone.wall_s))
    assert (alone.energy_after(0), all_of_it.energy_after(10)) == (0.0, 10 * all_of_it.energy_kwh)
