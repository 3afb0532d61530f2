"""Recipes by name, with changed settings, and from a file."""

import dataclasses

import pytest
from torch import nn

from resque.data.augmentation import PAPER
from resque.errors import SettingError
from resque.training.recipe import RECIPES, Recipe, named_recipe


def test_settings_are_changed_by_name_and_from_a_file(folder):
    recipe = named_recipe("train-sgd,learning_rate=0.1,batch_size=64,augmentation=paper,fixed_epochs=3", max_epochs=9)
    expected = {"learning_rate": 0.1, "batch_size": 64, "augmentation": PAPER, "fixed_epochs": 3, "max_epochs": 9}
    assert recipe == dataclasses.replace(RECIPES["train-sgd"], **expected)
    assert named_recipe("train-adam,milestones=2+5").milestones == (2, 5)
    assert named_recipe("train-sgd,milestones=none").milestones == ()
    assert named_recipe("train-sgd,batch_size=64.0").batch_size == 64
    (folder / "mine.toml").write_text(
        'base = "train-sgd"\nlearning_rate = 1\naugmentation = ["flip"]\nmilestones = [5]\n'
    )
    recipe = named_recipe("mine.toml,precision=bfloat16")
    assert (recipe.optimizer, recipe.learning_rate, recipe.augmentation, recipe.milestones) == (
        "sgd",
        1.0,
        ("flip",),
        (5,),
    )
    assert recipe.precision == "bfloat16"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown recipe 'nothing'"),
        ("train-adam,speed=3", "no setting 'speed': use one of optimizer"),
        ("train-adam,batch_size", "write SETTING=VALUE"),
        ("train-adam,batch_size=1.5", "expected a whole number"),
        ("train-adam,batch_size=many", "expected a whole number"),
        ("train-adam,learning_rate=fast", "expected a number"),
        ("train-adam,learning_rate=-1", "expected more than 0"),
        ("train-adam,optimizer=3", "expected a word"),
        ("train-adam,optimizer=lion", "use one of adam, adamw, sgd"),
        ("train-adam,schedule=linear", "use one of steps, cosine"),
        ("train-adam,precision=float16", "use one of float32, bfloat16"),
        ("train-adam,trains=tail", "use all, head, lora"),
        ("train-adam,compile=yes", "expected true or false"),
        ("train-adam,channels_last=1", "expected true or false"),
        ("train-adam,weight_decay=-1", "expected 0 or more"),
        ("train-adam,momentum=1", "0 to below 1"),
        ("train-adam,milestones=0+4", "expected epochs from 1 on"),
        ("train-adam,milestones=soon", "expected epochs from 1 on"),
        ("train-adam,tolerances=0.1", "expected a list; write it in a FILE.toml"),
        ("train-adam,rank=0", "expected 1 or more"),
        ("train-adam,augmentation=fog", "use paper, or some of flip"),
        ("train-adam,max_hours=0", "expected more than 0"),
        ("none.toml", "cannot be read as TOML"),
    ],
)
def test_invalid_values_are_refused(folder, spec, message):
    with pytest.raises(SettingError, match=message):
        named_recipe(spec)


def test_cosine_schedule_ends_at_zero():
    recipe = Recipe(schedule="cosine", max_epochs=5)
    optimizer = recipe.build_optimizer(nn.Linear(2, 2))
    schedule = recipe.build_schedule(optimizer)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-12)
