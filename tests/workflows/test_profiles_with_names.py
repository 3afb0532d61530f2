"""Data whose classes have other names are never compared by number, whether saved, in memory or named."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import resque
from resque.data.loading import load_data
from resque.errors import DataError, ModelError, ProfileMismatchError
from resque.indices.profile_file import read_profile_file
from resque.models.weights import read_class_names
from resque.workflows.inputs import InputLoader

pytestmark = pytest.mark.filterwarnings("ignore::resque.errors.ResqueWarning")
NET = (
    "import torch\nfrom torch import nn\ndef build(num_classes=3):\n  torch.manual_seed(0)\n"
    "  return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, num_classes))\n"
)
NAMES = [("ape", "cat", "zebra"), ("bat", "cow", "zoo"), ("ape", "cat", "zoo"), ("ape", "zebra", "zoo")]


@pytest.fixture
def named(folder):
    """Write data of three classes for each of the names, and a model; return a function from names to a file."""
    (folder / "net.py").write_text(NET)
    x = np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    for names in (*NAMES, NAMES[0][:2]):
        words = np.array(names)[np.arange(30) % len(names)]
        np.savez(folder / f"{'-'.join(names)}.npz", x=x, y=words)
    np.savez(folder / "numbers.npz", x=x, y=np.arange(30) % 3)
    return lambda names: f"npz:{'-'.join(names)}.npz"


def originals(cli, spec):
    """The data themselves, and a profile of them."""
    assert cli(f"profile --model net.py:build --data {spec} --out p.safetensors")[0] == 0
    return spec, "p.safetensors"


COMMANDS = {
    "dist": "dist --model net.py:build --original {} --shifted {}",
    "dist and skip": "dist --model net.py:build --original {} --shifted {} --undefined skip",
    "forecast": "forecast --model net.py:build --original {} --shifted {} --test {} --target-accuracy 0.9",
    "retrain": "retrain --model net.py:build --original {} --train {} --test {} --target-accuracy 0.9",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("other", NAMES[1:], ids=str)
def test_other_names_of_the_same_numbers_are_refused(cli, named, command, other):
    for original in originals(cli, named(NAMES[0])):
        code, out, err = cli(COMMANDS[command].format(original, *[named(other)] * 2))
        lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert (code, out, len(lines)) == (1, "", 1), err
        assert "number the classes differently" in err


@pytest.mark.parametrize("other", [NAMES[0], NAMES[0][:2], None], ids=str)
def test_the_same_names_fewer_or_none_are_compared(cli, named, other):
    for original in originals(cli, named(NAMES[0])):
        shifted = "npz:numbers.npz" if other is None else named(other)
        assert cli(COMMANDS["dist and skip"].format(original, shifted))[0] == 0


@pytest.mark.parametrize("other", NAMES[1:], ids=str)
def test_pseudo_labels_need_no_names(cli, named, other):
    assert cli(COMMANDS["dist and skip"].format(named(NAMES[0]), named(other)) + " --labels pseudo")[0] == 0


def test_data_sets_from_python_bring_their_names(named, folder):
    model = resque.load_model("net.py:build")
    one, other = (resque.profile(model, load_data(named(names))) for names in NAMES[:2])
    assert one.class_names == NAMES[0]
    for call in (lambda: resque.resque_dist(one, other), lambda: one + other):
        with pytest.raises(ProfileMismatchError, match="number the classes differently: 0 is 'ape' and 'bat'"):
            call()
    assert (one + one).class_names == (resque.Profile(one.origin) + one).class_names == NAMES[0]


@given(names=st.lists(st.text(st.characters(codec="utf-8"), max_size=9), max_size=5))
def test_names_are_kept_in_the_file_and_under_its_checksum(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("profile") / "p.safetensors"
    profile = resque.Profile.from_arrays(np.eye(6).repeat(5, 0), np.arange(30) % 6)
    profile.class_names = tuple(names)
    profile.save(path)
    assert resque.Profile.load(path).class_names == tuple(names)
    assert ("class_names" in read_profile_file(path)[1]) == bool(names)


@pytest.mark.parametrize("broken", ["", "{}", "[1]", "null", '"ab"', '["a"', "[" * 9999])
def test_names_that_are_no_texts_are_refused(tmp_path, broken, monkeypatch):
    profile = resque.Profile.from_arrays(np.eye(3).repeat(5, 0), np.arange(15) % 3)
    profile.class_names = ("a",)
    monkeypatch.setattr("resque.indices.profile.json.dumps", lambda value: broken if value == ("a",) else "{}")
    with pytest.raises(DataError, match="class_names is"):
        profile.save(tmp_path / "p.safetensors")


@pytest.mark.parametrize("new", [("ant", "dog"), ("ape", "dog"), ("zebra", "aardvark", "cat")])
def test_names_travel_with_the_weights_through_an_extension_and_a_shift(named, folder, new):
    """Later data name their classes in another order: each sample keeps the output that its class got."""
    names, added = NAMES[0], [name for name in new if name not in NAMES[0]]
    x = np.random.default_rng(1).integers(0, 256, (30, 8, 8), dtype=np.uint8)
    np.savez("more.npz", x=x, y=np.array(new)[np.arange(30) % len(new)])
    shared = {"ledger": "r.db", "meter": resque.ClockMeter(), "recipe": "train-adam,fixed_epochs=1"}
    resque.update("net.py:build", named(names), named(names), 0.99, out="first", **shared)
    first = resque.ModelOptions(weights="first/model.safetensors")
    resque.update("net.py:build", "npz:more.npz", "npz:more.npz", 0.99, extend=True, out="second",
                  options=first, **shared)  # fmt: skip
    weights = folder / "second/model.safetensors"
    assert read_class_names(weights) == (*names, *sorted(added))
    loader = InputLoader("net.py:build", resque.ModelOptions(weights=weights))
    for spec in (named(names), "npz:more.npz"):
        data = loader.data(spec)
        assert data.class_names == (*names, *sorted(added))
        words = np.load(spec.removeprefix("npz:"))["y"]
        assert [data.class_names[label] for label in data.labels] == words.tolist()


@pytest.mark.parametrize("broken", ["", "{}", "[1]", "null", '"ab"', '["a"', "[" * 9999])
def test_names_of_weights_that_are_no_texts_are_refused(tmp_path, broken):
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors", {"class_names": broken})
    with pytest.raises(ModelError, match="class_names is"):
        read_class_names(tmp_path / "w.safetensors")
