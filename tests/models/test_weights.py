"""Weights that are not finite are refused before anything is measured, wherever a model comes in."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import resque
from resque.errors import ModelError
from resque.models.loading import load_model
from resque.models.weights import check_weights, save_weights
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain

VALUES = [float("nan"), float("inf"), -float("inf")]
NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2])
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", [name for name, tensor in NET.state_dict().items() if tensor.is_floating_point()])
def test_tensor_that_is_not_finite_is_named(name, value, dtype):
    model = copy.deepcopy(NET).to(dtype)
    check_weights(model)
    if value == -torch.inf and "running" in name:
        value = torch.inf
    wide = model.state_dict()[name].float()
    wide.view(-1)[-1] = value
    owner, attribute = name.rsplit(".", 1)
    getattr(model.get_submodule(owner), attribute).data = wide.to(dtype)
    with pytest.raises(ModelError, match=f"^{name} of the model holds NaN or infinity") as error:
        check_weights(model)
    assert "\n" not in str(error.value)


def test_masks_integers_and_tensors_without_data_pass():
    model = copy.deepcopy(NET)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    model.register_buffer("ids", torch.arange(3))
    check_weights(model)
    check_weights(nn.Flatten())
    check_weights(nn.Linear(2, 2, device="meta"))


def spoil(model, value):
    model = copy.deepcopy(model)
    next(model.parameters()).data.view(-1)[0] = value
    return model


@pytest.mark.parametrize("value", VALUES)
def test_every_function_that_measures_refuses_them(tmp_path, small, cnn, meter, value):
    model, (train, test) = spoil(cnn, value), small
    job, ledger = RetrainingJob(train, test, 0.9, named_recipe("train-adam")), tmp_path / "h.db"
    settings = {"ledger": ledger, "meter": meter}

    def record():
        with resque.record(ledger, model=model, meter=meter) as run:
            run.evaluated(step=1, accuracy=0.5)

    for measure in (
        lambda: load_model(model),
        lambda: resque.profile(model, train.batches()),
        lambda: retrain(model, job, meter=meter),
        lambda: resque.forecast(model, train, test, 0.9, original=train, **settings),
        lambda: resque.update(model, train, test, 0.9, **settings),
        record,
    ):
        with pytest.raises(ModelError, match=r"0\.weight of the model holds NaN or infinity"):
            measure()
    assert not list(tmp_path.iterdir())


DATA = "npz:d.npz"
COMMANDS = [
    f"profile --data {DATA} --out p.safetensors",
    f"dist --original {DATA}@original --shifted {DATA}@shifted",
    f"task --data {DATA}",
    f"forecast --original {DATA}@original --shifted {DATA}@shifted --test {DATA} --target-accuracy 0.9",
    f"retrain --train {DATA} --test {DATA} --target-accuracy 0.9",
    f"calibrate --data {DATA}",
]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.split()[0])
def test_every_command_refuses_them(cli, folder, cnn, line):
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(60) % 10)
    save_weights(spoil(cnn, float("nan")), folder / "w.safetensors")
    before = sorted(folder.rglob("*"))
    code, out, err = cli(f"{line} --model resque.networks:small_cnn --weights w.safetensors")
    assert (code, out) == (1, "")
    assert "0.weight of the model holds NaN or infinity" in err
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


def test_run_that_diverges_is_stored(cli, folder):
    x = np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(60) % 10)
    line = f"retrain --model resque.networks:small_cnn --train {DATA} --test {DATA} --target-accuracy 1"
    code, out, err = cli(f"{line} --recipe train-adam,learning_rate=1e30,optimizer=sgd,max_epochs=3 --out u --json")
    assert (code, json.loads(out)["stopped_by"]) == (0, "diverged"), err
    code, _, err = cli(f"profile --model resque.networks:small_cnn --weights u/model.safetensors --data {DATA} --out p")
    assert (code, "NaN or infinity" in err) == (1, True)
