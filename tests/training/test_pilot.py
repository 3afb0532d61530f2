"""A pilot is the first steps of its update: what continues it ends as the uninterrupted run does, bit for bit."""

import copy
import io

import pytest
import torch
from torch import nn

from resque.models.networks import small_cnn
from resque.models.randomness import isolated_random_state
from resque.training.recipe import named_recipe
from resque.training.trainer import Trainer

RECIPES = {
    "adam": "train-adam,batch_size=32",
    "sgd": "train-sgd,batch_size=48,learning_rate=0.01,momentum=0.9",
    "a batch that does not divide": "train-adam,batch_size=33,schedule=cosine,max_epochs=4",
    "head": "train-adam,trains=head",
    "lora": "train-adam,trains=lora,rank=2,learning_rate=0.01",
    "augmentation": "train-adam,augmentation=flip+jitter",
    "augmentation in short blocks": "train-adam,augmentation=flip+jitter,batch_size=9",
}
NEEDS = {"lora": "peft", "augmentation": "kornia", "augmentation in short blocks": "kornia"}


@pytest.fixture(params=RECIPES)
def recipe(request):
    if request.param in NEEDS:
        pytest.importorskip({"kornia": "kornia.augmentation"}.get(NEEDS[request.param], NEEDS[request.param]))
    return named_recipe(RECIPES[request.param])


@pytest.fixture
def model():
    """A network with dropout, batch normalization and a dense layer beside its head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(196, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10),
    )  # fmt: skip


def started(model, data, recipe):
    return Trainer(copy.deepcopy(model), data, recipe, seed=3)


def steps(trainer, count):
    for _ in range(count):
        trainer.step()


def read_back(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def same(one, other):
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("at", [1, 7, 10, 25])
def test_training_continues_from_any_step(model, small, recipe, at):
    data, most = small[0], 31
    with isolated_random_state(torch.device("cpu"), seed=3):
        whole = started(model, data, recipe)
        steps(whole, most)
        expected = read_back(whole.state())
    with isolated_random_state(torch.device("cpu"), seed=3):
        first = started(model, data, recipe)
        steps(first, at)
        kept = read_back(first.state())
    with isolated_random_state(torch.device("cpu"), seed=77):
        rest = started(model, data, recipe)
        rest.restore(kept)
        steps(rest, most - at)
        found = read_back(rest.state())
        assert rest.cost_tracker.totals(rest.within_epoch) == whole.cost_tracker.totals(whole.within_epoch)
    assert same(found, expected)


def test_blocks_of_augmentation_that_have_passed_are_not_computed_again(small, monkeypatch):
    pytest.importorskip("kornia.augmentation")
    recipe = named_recipe("train-adam,augmentation=flip,batch_size=4")
    first = Trainer(small_cnn(), small[0], recipe, seed=0)
    assert (first.steps_per_block, first.steps_per_epoch) == (16, 80)
    steps(first, 35)
    rest, sizes = Trainer(small_cnn(), small[0], recipe, seed=0), []
    original = rest._augment
    monkeypatch.setattr(rest, "_augment", lambda images: (sizes.append(len(images)), original(images))[1])
    rest.restore(read_back(first.state()))
    rest.step()
    assert sizes == [64]


def test_states_without_the_order_of_an_epoch_are_still_read(small):
    """A checkpoint of an earlier version, which was written at the end of an epoch."""
    recipe = named_recipe("train-adam")
    first, rest = (Trainer(small_cnn(), small[0], recipe, seed=0) for _ in range(2))
    steps(first, 10)
    former = ("model", "optimizer", "schedule", "order", "random", "device_random", "tally", "step_count")
    rest.restore({key: value for key, value in read_back(first.state()).items() if key in former})
    steps(first, 3)
    steps(rest, 3)
    assert same(read_back(rest.state()), read_back(first.state()))
