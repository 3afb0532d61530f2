"""Fine-tuning scope: head alone, adapters, all parameters."""

import dataclasses

import pytest
import torch
from torch import nn

from resque.errors import ModelError
from resque.models.weights import fingerprint
from resque.training.finetuning import FineTuningScope
from resque.training.job import RetrainingJob
from resque.training.probe import probe
from resque.training.recipe import RECIPES, named_recipe
from resque.training.retrain import retrain


@pytest.fixture
def short(small):
    return RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)


def with_recipe(job, **changes):
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def test_head_scope_changes_the_head_alone(cnn, short, meter):
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    update = retrain(cnn, with_recipe(short, trains="head"), meter=meter)
    changed = {name for name, value in cnn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"12.weight", "12.bias"}  # running statistics neither
    assert update.trainable_share == pytest.approx(650 / sum(p.numel() for p in cnn.parameters()))
    assert all(p.requires_grad for p in cnn.parameters())


def test_adapters_are_merged_at_the_end(small, meter):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
    names, before = list(model.state_dict()), model[1].weight.clone()
    job = RetrainingJob(*small, 1.0, named_recipe("train-adam,trains=lora,rank=2", max_epochs=1), seed=1)
    update = retrain(model, job, meter=meter)
    assert list(model.state_dict()) == names
    assert type(model[1]) is nn.Linear
    assert torch.linalg.matrix_rank(model[1].weight.detach() - before, tol=1e-5) == 2
    assert 0 < update.trainable_share < 0.2
    assert update.child == fingerprint(model)


@pytest.mark.parametrize("rank", [1, 8, 32])
@pytest.mark.parametrize("trains", ["all", "head", "lora"])
def test_the_trained_share_is_one_at_most_and_a_probe_tells_it(small, meter, trains, rank):
    """Adapters may have more parameters than the layers that they adapt."""
    pytest.importorskip("peft")
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    size, adapters = sum(p.numel() for p in model.parameters()), rank * (256 + 3 * 32)
    expected = {"all": 1.0, "head": 330 / size, "lora": (330 + adapters) / (size + adapters)}[trains]
    assert FineTuningScope(model, trains, rank).trainable_share == pytest.approx(expected)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    recipe = named_recipe(f"train-adam,trains={trains},rank={rank}")
    assert probe(model, small[0], recipe, meter).trainable_share == pytest.approx(expected)


def test_adapters_need_a_dense_layer_besides_the_head(cnn):
    pytest.importorskip("peft")
    with pytest.raises(ModelError, match="none for adapters"):
        FineTuningScope(cnn, "lora")
