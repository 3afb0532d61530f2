"""Weights tell the number of outputs of the model that a specification builds."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from resque.errors import ModelError
from resque.models.heads import replace_head, widen_head
from resque.models.loading import fresh_model, load_model
from resque.models.weights import fingerprint, save_weights

NETS = """
import torch
from torch import nn

class Named(nn.Module):
    def __init__(self, classes=5, bias=True):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(6, classes, bias=bias))

    def forward(self, x):
        return self.head(self.body(x))

class Twice(Named):
    def __init__(self):
        super().__init__()
        self.classifier = self.head[1]

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 6)
        self.head = nn.Linear(6, 5, bias=False)
        self.head.weight = self.embedding.weight

def flat(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
def bare(): return Named(bias=False)
def nested(): return Named()
def twice(): return Twice()
def tied(): return Tied()
def taking(num_classes=5): return Named(num_classes)
def convolution(): return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 5, 2), nn.Flatten())
def normed(): return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5))
def hooked():
    net = flat()
    net[1].register_forward_hook(lambda *_: None)
    return net
def fixed():
    net = flat()
    for p in net.parameters(): nn.init.ones_(p)
    return net
"""
HEADS = "flat", "bare", "nested", "twice", "taking", "convolution"


@pytest.fixture
def nets(folder):
    (folder / "net.py").write_text(NETS)
    return folder


@pytest.mark.parametrize("outputs", [2, 4, 6, 10])
@pytest.mark.parametrize("name", HEADS)
def test_weights_with_another_number_of_outputs_load_by_the_same_specification(nets, name, outputs):
    spec = f"net.py:{name}"
    changed = load_model(spec, seed=3)
    (widen_head if outputs > 5 else replace_head)(changed, outputs)
    save_weights(changed, nets / "new.safetensors")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loaded = load_model(spec, nets / "new.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert fingerprint(loaded) == fingerprint(changed)
    assert loaded(torch.zeros(2, 1, 4, 4)).shape == (2, outputs)
    assert fingerprint(load_model(spec, nets / "new.safetensors", classes=outputs)) == fingerprint(changed)
    assert fingerprint(load_model(load_model(spec), nets / "new.safetensors")) == fingerprint(changed)
    for classes in (5, 11):
        with pytest.raises(ModelError, match=f"new.safetensors have {outputs} outputs, and --classes says {classes}"):
            load_model(spec, nets / "new.safetensors", classes=classes)


@pytest.mark.parametrize("name", HEADS)
def test_fresh_models_have_the_outputs_of_the_model_they_are_compared_with(nets, name):
    trained = load_model(f"net.py:{name}")
    widen_head(trained, 8)
    one, again, other = (fresh_model(f"net.py:{name}", trained, seed) for seed in (0, 0, 1))
    assert fingerprint(one) == fingerprint(again) != fingerprint(other)
    assert one(torch.zeros(2, 1, 4, 4)).shape == (2, 8)


def test_a_new_head_does_not_make_fixed_weights_random(nets):
    trained = load_model("net.py:fixed")
    widen_head(trained, 8)
    with pytest.raises(ModelError, match="same weights for every seed"):
        fresh_model("net.py:fixed", trained)


def other_shape(state, name, shape):
    return {**state, name: torch.zeros(shape)}


MISFITS = {
    "more inputs": ("nested", lambda state: other_shape(state, "head.1.weight", (8, 7))),
    "bias alone": ("nested", lambda state: other_shape(state, "head.1.bias", (8,))),
    "weight alone": ("nested", lambda state: other_shape(state, "head.1.weight", (8, 6))),
    "no rows": ("nested", lambda state: other_shape(state, "head.1.weight", ())),
    "another layer": ("nested", lambda state: other_shape(state, "body.1.bias", (7,))),
    "a further name": ("nested", lambda state: {**state, "more": torch.zeros(1)}),
    "no bias": ("nested", lambda state: {name: t for name, t in state.items() if name != "head.1.bias"}),
    "a layer after it": ("normed", lambda state: other_shape(state, "2.weight", (8,))),
    "both ends of a shared weight": ("tied", lambda state: dict.fromkeys(state, torch.zeros(8, 6))),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_any_other_difference_stays_an_error_of_one_line(nets, misfit):
    name, change = MISFITS[misfit]
    state = {key: t.clone() for key, t in load_model(f"net.py:{name}").state_dict().items()}
    save_file({key: t.clone() for key, t in change(state).items()}, nets / "odd.safetensors")
    with pytest.raises(ModelError, match=r"odd.safetensors do not fit the model: [^\n]+$"):
        load_model(f"net.py:{name}", nets / "odd.safetensors")


def test_a_head_that_cannot_be_replaced_is_named(nets):
    save_file({"1.weight": torch.zeros(8, 16), "1.bias": torch.zeros(8)}, nets / "wide.safetensors")
    with pytest.raises(ModelError, match="the head '1' is Linear, or has hooks of its own"):
        load_model("net.py:hooked", nets / "wide.safetensors")


def test_a_single_layer_keeps_its_outputs(folder):
    save_weights(nn.Linear(3, 4), folder / "w.safetensors")
    with pytest.raises(ModelError, match="do not fit"):
        load_model(nn.Linear(3, 2), folder / "w.safetensors")


def test_library_model_takes_the_outputs_of_widened_weights(folder):
    pytest.importorskip("timm")
    model = load_model("timm:test_resnet", classes=5)
    widen_head(model, 9)
    save_weights(model, folder / "wide.safetensors")
    assert fingerprint(load_model("timm:test_resnet", folder / "wide.safetensors")) == fingerprint(model)
