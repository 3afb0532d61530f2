import pytest
import torch
from torch import nn

import resque
from resque.data.preprocessing import ImagePreprocessing
from resque.errors import ModelError, ResqueError
from resque.models.layers import representation_layer
from resque.models.loading import load_model, move_to_device
from resque.models.networks import small_cnn
from resque.models.registry import has_random_weights, preprocessing_for
from resque.models.weights import fingerprint, save_weights


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))


class Encoder(nn.Module):
    """A vision transformer's skeleton: patches by a convolution, blocks, a head."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 3)


def test_the_default_layer_is_that_of_the_paper(cnn):
    assert representation_layer(cnn) == "7"  # the last convolution, raw
    assert representation_layer(Encoder()) == "blocks.1.mlp.2"  # the last dense layer of the last block
    assert representation_layer(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))) == "0"
    assert representation_layer(cnn, "3") == "3"
    assert representation_layer(cnn, "penultimate") == "penultimate"


def test_the_error_for_an_unknown_layer_lists_candidates(cnn):
    with pytest.raises(ModelError, match=r"no layer 'nine' .*: use one of penultimate, 0, 3, 7, 12"):
        representation_layer(cnn, "nine")
    with pytest.raises(ModelError, match="name the representation with --layer"):
        representation_layer(nn.Linear(3, 2))


def test_models_are_built_from_files_and_modules(folder):
    (folder / "net.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n"
        "def text():\n    return 'no module'\ndef broken():\n    raise KeyError('x')\n"
    )
    (folder / "bad.py").write_text("import no_such_thing")
    assert isinstance(load_model("net.py:build"), nn.Linear)
    assert isinstance(load_model("resque.networks:small_cnn"), nn.Sequential)
    for spec, message in {
        "net.py:none": "no callable 'none' in net.py; it offers: broken, build, text",
        "net.py:text": "returned str; expected a torch.nn.Module",
        "net.py:broken": "failed: KeyError",
        "bad.py:build": "cannot be imported: ModuleNotFoundError",
        "none.py:build": "no such file: none.py",
        "no_module_here:build": "cannot import",
        "net": "expected FILE.py:CALLABLE",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(spec)


WRONG = """from torch import nn
class Net(nn.Module):
    def __init__(self, width, *, depth):
        super().__init__()
def sized(width):
    return nn.Linear(width, 2)
def build(width=2):
    if width == 2:
        raise ValueError("no data for 2 outputs")
def wrong_call():
    return sized()
def ends():
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Net", "needs arguments (width, depth): name a function that runs without any, such as build"),
        ("sized", "needs arguments (width): name a function that runs without any, such as build"),
        ("build", "failed: ValueError: no data for 2 outputs (line 9 of net.py)"),
        (
            "wrong_call",
            "failed: TypeError: sized() missing 1 required positional argument: 'width' (line 11 of net.py)",
        ),
        ("ends", "failed: SystemExit: 3 (line 13 of net.py)"),
    ],
)
def test_why_a_builder_or_a_reader_failed_is_said(folder, name, says):
    """That it must run without arguments is said only where it needs some."""
    (folder / "net.py").write_text(WRONG)
    for use in (load_model, resque.load_data):
        with pytest.raises(ResqueError) as caught:
            use(f"net.py:{name}")
        assert str(caught.value) == f"net.py:{name} {says}"


def test_one_specification_and_seed_give_one_model():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    one, other, third = (fingerprint(load_model("resque.networks:small_cnn", seed=seed)) for seed in (0, 0, 1))
    assert one == other != third
    assert torch.equal(torch.rand(2), expected)


def test_a_module_is_returned_itself_with_weights_loaded_into_it(folder, cnn):
    save_weights(cnn, folder / "w.safetensors")
    torch.manual_seed(1)
    other = small_cnn().train()
    before = fingerprint(other)
    assert load_model(other) is other
    assert not other.training
    assert fingerprint(other) == before
    assert load_model(other, folder / "w.safetensors", classes=10) is other
    assert fingerprint(other) == fingerprint(cnn)
    with pytest.raises(ModelError, match="the model has 10 outputs; expected 4"):
        load_model(other, classes=4)
    with pytest.raises(ModelError, match="do not fit"):
        load_model(nn.Linear(2, 2), folder / "w.safetensors")


def test_a_module_has_no_library():
    assert preprocessing_for(nn.Linear(2, 2)) == ImagePreprocessing()
    assert not has_random_weights(nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_saved_weights_are_loaded_again(folder, cnn, name):
    path = folder / name
    save_weights(cnn, path) if name.endswith("safetensors") else torch.save(cnn.state_dict(), path)
    torch.manual_seed(1)
    other = small_cnn()
    assert fingerprint(other) != fingerprint(cnn)
    load_model(other, path)
    assert fingerprint(other) == fingerprint(cnn)
    assert not list(folder.glob("*.part"))


def test_weights_that_do_not_fit_are_refused(folder, cnn):
    save_weights(nn.Linear(2, 2), folder / "other.safetensors")
    torch.save(cnn, folder / "pickled.pt")
    (folder / "text.safetensors").write_text("no weights")
    (folder / "text.pt").write_text("no weights")
    torch.save([1, 2], folder / "list.pt")
    for name, message in {
        "none.pt": "no such weights file",
        "other.safetensors": "do not fit the model",
        "pickled.pt": "never run here",
        "text.safetensors": "can be read",
        "text.pt": "never run here|can be read",
        "list.pt": "expected a state dict",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(cnn, folder / name)


def test_the_fingerprint_changes_with_a_single_value(cnn):
    before = fingerprint(cnn)
    assert before == fingerprint(cnn)
    with torch.no_grad():
        cnn[0].weight[0, 0, 0, 0] += 1e-3
    assert fingerprint(cnn) != before


def test_an_unknown_device_is_refused(cnn):
    with pytest.raises(ModelError, match="device 'abacus' cannot be used"):
        move_to_device(cnn, "abacus")


def test_weights_of_a_model_without_a_head_are_loaded(folder):
    (folder / "net.py").write_text("from torch import nn\ndef build(): return nn.Sequential(nn.BatchNorm1d(2))\n")
    trained = nn.Sequential(nn.BatchNorm1d(2))
    trained[0].running_mean.fill_(3.0)
    save_weights(trained, folder / "w.safetensors")
    assert float(load_model("net.py:build", folder / "w.safetensors")[0].running_mean[0]) == 3.0


def test_lazy_layers_without_a_size_are_refused(folder):
    (folder / "net.py").write_text("from torch import nn\ndef build(): return nn.Sequential(nn.LazyLinear(3))\n")
    with pytest.raises(ModelError, match="lazy layers without a size: pass one batch through the model"):
        load_model("net.py:build")


def test_a_package_offers_what_it_exports_and_none_of_its_helpers():
    with pytest.raises(ModelError, match=r"it offers: resnet18, small_cnn, vgg16, vit$"):
        load_model("resque.networks:small_vgg")
