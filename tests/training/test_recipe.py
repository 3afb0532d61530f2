"""Recipes by name, with changed settings, and from a file."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from resque.data.augmentation import PAPER
from resque.errors import SettingError
from resque.training.recipe import RECIPES, Recipe, named_recipe
from resque.workflows.project import read_project


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


NUMBERS = [
    name for name, field in Recipe.__dataclass_fields__.items() if field.type in (int, float, int | None, float | None)
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400", "0x" + "f" * 5000, "[" * 400 + "]" * 400])
def test_numbers_that_no_training_can_take_are_refused(name, value):
    with pytest.raises(SettingError, match=name) as error:
        named_recipe(f"train-adam,{name}={value}")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [float("inf"), float("nan"), np.float32("inf"), np.float64("nan"), 2**2000, "3", [3]])
def test_the_same_holds_in_python(name, value):
    with pytest.raises(SettingError, match=name):
        Recipe(**{name: value})


@pytest.mark.parametrize("name", ["batch_size", "rank", "max_epochs", "fixed_epochs", "evaluate_every"])
def test_counts_are_whole_numbers_of_any_type(name):
    with pytest.raises(SettingError, match=name):
        Recipe(**{name: 2.5})
    for value in (2**31, 2**70, -(2**70)):
        with pytest.raises(SettingError, match=name):
            Recipe(**{name: value})
    assert Recipe(**{name: np.int64(3)}) == Recipe(**{name: 3})


@pytest.mark.parametrize(
    "tolerances", [((float("nan"), 5),), ((float("inf"), 5),), ((0.1, 0),), ((-0.1, 5),), ((0.1,),), 3]
)
def test_tolerances_are_shares_and_epochs(tolerances):
    with pytest.raises(SettingError, match="tolerances"):
        Recipe(tolerances=tolerances)


@pytest.mark.parametrize("depth", [10**3, 10**5])
@pytest.mark.parametrize("form", ["a = {o}{c}", "[{dots}]", "{dots} = 1", "a = {braces}1{close}"])
def test_nested_toml_is_refused_in_one_line(folder, depth, form):
    text = form.format(
        o="[" * depth, c="]" * depth, dots=".".join("a" * depth), braces="{a=" * depth, close="}" * depth
    )
    (folder / "deep.toml").write_text(text)
    for read in (lambda: named_recipe("deep.toml"), lambda: read_project(folder / "deep.toml")):
        with pytest.raises(SettingError) as error:
            read()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
    with pytest.raises(SettingError):
        named_recipe(f"retrain-adam,milestones={'[' * depth}")


@pytest.mark.parametrize("path", ["x" * 300, "/dev/zero", "fifo", ".", "none"])
def test_what_is_no_toml_file_is_refused_at_once(folder, path):
    os.mkfifo(folder / "fifo.toml")
    os.mkfifo(folder / "fifo")
    for read in (lambda: named_recipe(f"{path}.toml"), lambda: read_project(Path(path))):
        with pytest.raises(SettingError, match="cannot be read"):
            read()


def test_a_large_toml_file_is_not_read(folder):
    with (folder / "large.toml").open("wb") as file:
        file.truncate(2**40)
    for read in (lambda: named_recipe("large.toml"), lambda: read_project(folder / "large.toml")):
        with pytest.raises(SettingError, match="bytes; expected at most"):
            read()
