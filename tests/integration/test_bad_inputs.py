"""Generated inputs, most of them bad: each is taken as valid, or refused with an error of resque and nothing else."""

import gzip
import io
import json
import os
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

from mutations import NUMBERS, contents, documents, texts
from resque.data.loading import load_data
from resque.data.shifts import SHIFT_TYPES, parse_shift
from resque.data.spec import mixture_parts, relative_to, shorten_data, split_steps
from resque.energy.grid import named_grid
from resque.energy.hardware import embodied_emissions
from resque.energy.price import Tariff
from resque.errors import ResqueError, ResqueWarning
from resque.forecasting.budget import Budget
from resque.forecasting.intervals import check_level
from resque.indices.profile import Profile
from resque.indices.task import resque_task
from resque.ledger.bundled import bundled_updates
from resque.ledger.export import json_lines, read_json_lines
from resque.ledger.importers.conversion import ImportOptions
from resque.ledger.importers.importer import import_updates
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.networks import small_cnn
from resque.models.weights import read_weights
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe, named_recipe
from resque.workflows.project import KEYS, read_project

LINES = [json.loads(line) for line in json_lines(bundled_updates()[:3])]
LARGE_SIDE = re.compile(r"@0*[1-9]\d\d+px")  # such pictures are tested for memory elsewhere


def taken_or_refused(work, *given_values, **options):
    """Call something; return its result, or None if it refuses its input as it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResqueWarning)
        try:
            return work(*given_values, **options)
        except ResqueError:
            return None


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("bad")


RECIPES = [
    "retrain-adam,batch_size=64,trains=head",
    "train-sgd,milestones=40+70,augmentation=flip+crop,schedule=cosine",
    "retrain-sgd,learning_rate=0.1,momentum=0.5,weight_decay=0,max_hours=1.5,max_kwh=0.1",
    "train-adam,fixed_epochs=3,evaluate_every=5,evaluate_growth=0.1,precision=bfloat16,compile=false,rank=4",
]
SETTINGS = list(Recipe.__dataclass_fields__)


@settings(max_examples=250)
@given(text=texts(RECIPES), every=st.one_of(st.none(), st.integers(-2, 5)))
def test_recipe_as_text(text, every):
    taken_or_refused(named_recipe, text, every)


@settings(max_examples=200)
@given(setting=st.sampled_from(SETTINGS), value=st.one_of(NUMBERS, st.text(max_size=5), st.booleans()))
def test_recipe_with_any_value_of_a_setting(setting, value):
    taken_or_refused(named_recipe, f"retrain-adam,{setting}={value}")


@settings(max_examples=100)
@given(text=texts(['base = "train-sgd"\nbatch_size = 8\ntolerances = [[0.01, 5]]\nmilestones = [3]\ncompile = true\n']))
def test_recipe_file(place, text):
    (place / "r.toml").write_bytes(text.encode("utf-8", "replace"))
    taken_or_refused(named_recipe, f"{place}/r.toml")


DATA = [
    "digits@16px@test@40+gaussian:3",
    "digits@train@30+blur:5/gaussian:3/none@gray",
    "digits@original@30~digits@shifted@20+rotation:2",
    "digits@rgb@20+relabel:5+exchange:2",
    "idx:images.gz,labels.gz@test",
    "folder:pictures@8px",
    "own.py:pairs@test",
    "torchvision:MNIST:test",
]


@settings(max_examples=250)
@given(text=texts(DATA))
def test_data_specification(place, text):
    assume(not LARGE_SIDE.search(text))
    assume("hf:" not in text)
    taken_or_refused(load_data, text, limit=40, root=place)
    for part in taken_or_refused(mixture_parts, text) or ():
        taken_or_refused(split_steps, part)
    assert isinstance(shorten_data(text), str)
    assert isinstance(relative_to(text, Path("sub")), str)


@settings(max_examples=200)
@given(text=texts([*(f"{name}:3" for name in SHIFT_TYPES), "blur:5/gaussian:3/none", "none"]))
def test_shift(text):
    shift = taken_or_refused(parse_shift, text)
    assert shift is None or parse_shift(str(shift)) == shift


PROJECT = "\n".join(
    f"[{section}]\n" + "\n".join(f"{name} = {key.example}" for name, key in keys.items())
    for section, keys in KEYS.items()
)


@settings(max_examples=200)
@given(text=texts([PROJECT]))
def test_project_file(place, text):
    (place / "resque.toml").write_bytes(text.encode("utf-8", "replace"))
    project = taken_or_refused(read_project, place / "resque.toml")
    if project is not None:
        assert project.options("retrain") is not None


def _import(place, text):
    (place / "more.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    (place / "new.db").unlink(missing_ok=True)
    entries = taken_or_refused(read_json_lines, place / "more.jsonl")
    if entries is not None and taken_or_refused(Ledger(place / "new.db").extend, entries) is not None:
        assert Ledger(place / "new.db").updates(void=True) == [entry for entry in entries if hasattr(entry, "curve")]


@settings(max_examples=250)
@given(document=documents(LINES))
def test_entry_with_other_values(place, document):
    _import(place, json.dumps(document))


@pytest.mark.parametrize("name", ["id", "model", "shift_type"])
def test_entry_with_a_lone_surrogate(place, name):
    _import(place, json.dumps({"update": {**LINES[0]["update"], name: "\ud800"}}))


@settings(max_examples=100)
@given(text=texts([json.dumps(line) for line in LINES]))
def test_entry_as_text(place, text):
    _import(place, text)


EMISSIONS = (
    "timestamp,project_name,run_id,duration,emissions,energy_consumed,cpu_energy,gpu_energy,ram_energy,country_iso_code\n"
    "2026-01-01T00:00:00,p,run-1,12.5,0.001,0.002,0.001,0.0005,0.0005,FRA\n"
)


@settings(max_examples=100)
@given(text=texts([EMISSIONS]), number=NUMBERS)
def test_table_of_codecarbon(place, text, number):
    (place / "emissions.csv").write_bytes(text.encode("utf-8", "replace"))
    (place / "imported.db").unlink(missing_ok=True)
    options = taken_or_refused(ImportOptions, steps=100, accuracy=0.9, accuracy_before=0.5, target_accuracy=number)
    options = options or ImportOptions(steps=100, accuracy=0.9)
    taken_or_refused(import_updates, Ledger(place / "imported.db"), place / "emissions.csv", "codecarbon", options)


def _profile_bytes() -> bytes:
    """A profile's file; its header is sorted, because the library writes it in another order in each process."""
    with tempfile.TemporaryDirectory() as folder:
        z = np.random.default_rng(0).normal(size=(60, 4))
        Profile.from_arrays(z, np.arange(60) % 3).save(f"{folder}/p.safetensors")
        raw = Path(f"{folder}/p.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + size]), sort_keys=True).encode()
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


PROFILE = _profile_bytes()


def test_profile_without_a_part_of_its_metadata(place):
    for name in (b"format", b"origin", b"labels_from"):
        (place / "p.safetensors").write_bytes(PROFILE.replace(name, name[::-1]))
        assert taken_or_refused(Profile.load, place / "p.safetensors") is None


@settings(max_examples=200)
@given(raw=contents([PROFILE]))
def test_profile_file(place, raw):
    (place / "p.safetensors").write_bytes(raw)
    profile = taken_or_refused(Profile.load, place / "p.safetensors")
    if profile is not None:
        taken_or_refused(lambda: (profile.n, profile.counts, profile.sums, repr(profile)))


SMALL = {"0.weight": torch.zeros(3, 4), "0.bias": torch.zeros(3)}


def _pt() -> bytes:
    buffer = io.BytesIO()
    torch.save(SMALL, buffer)
    return buffer.getvalue()


@settings(max_examples=100)
@given(raw=contents([save(SMALL)]))
def test_weights_as_safetensors(place, raw):
    (place / "w.safetensors").write_bytes(raw)
    taken_or_refused(load_model, torch.nn.Sequential(torch.nn.Linear(4, 3)), place / "w.safetensors")


@settings(max_examples=100)
@given(raw=contents([_pt()]))
def test_weights_of_pytorch(place, raw):
    (place / "w.pt").write_bytes(raw)
    taken_or_refused(read_weights, place / "w.pt")


def _npz(compressed: bool) -> bytes:
    buffer = io.BytesIO()
    arrays = {"x": np.zeros((12, 6, 6), np.uint8), "y": np.arange(12) % 3}
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@settings(max_examples=150)
@given(raw=contents([_npz(False), _npz(True)]))
def test_numpy_archive(place, raw):
    (place / "a.npz").write_bytes(raw)
    taken_or_refused(load_data, f"npz:{place}/a.npz")


def test_broken_archive_is_closed(place):
    (place / "broken.npz").write_bytes(_npz(True)[:-30])
    before = open_files()
    for _ in range(3):
        assert taken_or_refused(load_data, f"npz:{place}/broken.npz") is None
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


DTYPES = ["u1", "i1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "U3", "S3", "M8[s]"]
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 12]), max_size=5)


@settings(max_examples=150)
@given(x=st.sampled_from(DTYPES), y=st.sampled_from(DTYPES), shape=SHAPES, labels=SHAPES, seed=st.integers(0, 9))
@example(x="f8", y="i8", shape=[12, 4, 4], labels=[12], seed=0)
def test_arrays_of_any_type_and_shape(x, y, shape, labels, seed):
    random = np.random.default_rng(seed)
    images, targets = (random.integers(0, 3, size).astype(kind) for kind, size in ((x, shape), (y, labels)))
    taken_or_refused(load_data, (images, targets))
    taken_or_refused(Profile.from_arrays, images, targets)
    taken_or_refused(resque_task, images, targets)


def _idx(array: np.ndarray) -> bytes:
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return header + array.astype(np.uint8).tobytes()


IMAGES, LABELS = _idx(np.zeros((12, 5, 5))), _idx(np.arange(12) % 3)


@settings(max_examples=150)
@given(images=contents([IMAGES, gzip.compress(IMAGES)]), labels=st.one_of(st.just(LABELS), contents([LABELS])))
def test_idx_files(place, images, labels):
    (place / "i.idx").write_bytes(images)
    (place / "l.idx").write_bytes(labels)
    taken_or_refused(load_data, f"idx:{place}/i.idx,{place}/l.idx")


def _picture(form: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (5, 4)).save(buffer, form)
    return buffer.getvalue()


PICTURES = [_picture(*kind) for kind in (("png", "L"), ("png", "RGBA"), ("jpeg", "RGB"), ("bmp", "RGB"), ("gif", "P"))]


@settings(max_examples=100)
@given(raw=contents(PICTURES))
def test_folder_with_a_broken_picture(place, raw):
    for name, content in (("a/1.png", raw), ("b/1.png", PICTURES[0])):
        (place / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "pictures" / name).write_bytes(content)
    taken_or_refused(load_data, f"folder:{place}/pictures@4px@gray")


MODELS = ["resque.networks:small_cnn", "math:sqrt", "net.py:build", "timm:resnet1", "torchvision:resnet1", "json:loads"]


@settings(max_examples=150)
@given(text=texts(MODELS), classes=st.sampled_from([None, None, -1, 0, 3]))
def test_model_specification(folder_of_models, text, classes):
    assume("hf:" not in text)
    taken_or_refused(load_model, text, classes=classes)


@pytest.fixture(scope="module")
def folder_of_models(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        Path("net.py").write_text(
            "from resque.models.networks import small_cnn\ndef build():\n    return small_cnn()\n"
        )
        yield place


COUNTRIES = st.one_of(st.none(), st.sampled_from(["FRA", "DEU", "fra", "", "ZZZ"]), st.text(max_size=4))


@settings(max_examples=200)
@given(a=NUMBERS, b=NUMBERS, c=NUMBERS, country=COUNTRIES)
def test_numbers_for_options(a, b, c, country):
    taken_or_refused(named_grid, country, None if a == 1 else a, b)
    taken_or_refused(Tariff, a, b, "EUR")
    taken_or_refused(embodied_emissions, {"device": "cpu"}, a, b)
    taken_or_refused(RetrainingJob.check_target, a)
    taken_or_refused(check_level, a)
    taken_or_refused(Budget, a, b, c)


def test_what_is_varied_is_valid(place):
    """The texts and files that are varied are taken as they are, so that the variants differ from them by one fault."""
    for text in RECIPES:
        named_recipe(text)
    for text in DATA[:4]:
        load_data(text, limit=40)
    (place / "resque.toml").write_text(PROJECT)
    assert len(read_project(place / "resque.toml").values) == sum(map(len, KEYS.values()))
    (place / "a.npz").write_bytes(_npz(True))
    load_data(f"npz:{place}/a.npz")
    (place / "i.idx").write_bytes(IMAGES)
    (place / "l.idx").write_bytes(LABELS)
    load_data(f"idx:{place}/i.idx,{place}/l.idx")
    (place / "w.pt").write_bytes(_pt())
    assert set(read_weights(place / "w.pt")) == set(SMALL)
    (place / "p.safetensors").write_bytes(PROFILE)
    assert Profile.load(place / "p.safetensors").n == 60
    assert sum(p.numel() for p in small_cnn().parameters()) > 0
