"""Files that promise more than they hold, or hold more than they seem: refused before memory is taken."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

import resque
from resque import _sizes
from resque.data.loading import load_data
from resque.data.shifts import parse_shift
from resque.errors import ModelError, RepresentationError, ResqueError
from resque.models.loading import load_model
from resque.models.weights import read_weights
from resque.training.finetuning import FineTuningScope
from resque.training.recipe import named_recipe

MOST_BYTES = 300 * 2**20
MIB = 2**20


def refused(call, *words):
    """A call is refused in one line, and takes little memory until then."""
    tracemalloc.start()
    try:
        with pytest.raises(ResqueError) as error:
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return text


def idx_header(*shape, kind=8):
    return struct.pack(">HBB", 0, kind, len(shape)) + struct.pack(f">{len(shape)}I", *shape)


def zeros_gz(path, header, n, level=9):
    """A gzipped file of a header and n zeros, made without n bytes of memory."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, 31)
    with path.open("wb") as file:
        file.write(squeeze.compress(header))
        for _ in range(n // MIB):
            file.write(squeeze.compress(bytes(MIB)))
        file.write(squeeze.flush())


@given(
    shape=st.lists(st.sampled_from([1, 2, 255, 2**16, 2**31, 2**32 - 1]), min_size=1, max_size=4),
    kind=st.sampled_from([0x08, 0x09, 0x0B, 0x0C]),
    zipped=st.booleans(),
    content=st.binary(max_size=40),
)
@settings(max_examples=80)
def test_an_idx_file_that_promises_more_than_it_holds_is_refused(tmp_path_factory, shape, kind, zipped, content):
    path = tmp_path_factory.mktemp("idx") / "x"
    raw = idx_header(*shape, kind=kind) + content
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    if int(np.prod([float(n) for n in shape])) * {8: 1, 9: 1, 11: 2, 12: 4}[kind] != len(content):
        refused(lambda: load_data(f"idx:{path}", for_training=False), str(path))


@pytest.mark.parametrize("shape", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (2**31, 2**31, 4), (2**16, 2**16, 2**16, 2**16)])
def test_the_product_of_an_idx_header_does_not_overflow(folder, shape):
    """In 64 bits some of these are 0 or negative."""
    (folder / "x").write_bytes(idx_header(*shape))
    refused(lambda: load_data("idx:x", for_training=False), "x")


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 0, 2**32 - 1), (0,), (5, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("limit", [None, 3])
def test_an_idx_file_without_values_is_refused(folder, shape, limit):
    (folder / "x").write_bytes(idx_header(*shape))
    refused(lambda: load_data("idx:x", for_training=False, limit=limit), "x holds nothing", str(shape[-1]))


@pytest.mark.parametrize("digits", [19, 4300, 5000])
@pytest.mark.parametrize("step", ["@{}", "@{}px", "+gaussian:{}", "+gaussian:-{}", "+blur:3/fog:{}", "@{}@test"])
def test_a_number_of_any_length_is_one_line(digits, step):
    refused(lambda: load_data("digits" + step.format("9" * digits)))
    refused(lambda: parse_shift("gaussian:" + "9" * digits), "gaussian")


@pytest.mark.parametrize("setting", ["batch_size", "rank", "learning_rate", "max_epochs"])
def test_a_setting_of_more_digits_than_python_reads_is_one_line(setting):
    refused(lambda: named_recipe(f"retrain-adam,{setting}=" + "9" * 5000))


@pytest.mark.parametrize(("n_images", "level"), [(1000, 9), (10**5, 5), (10**6, 1), (160, 1), (160, 6)])
def test_a_gzip_bomb_is_refused(folder, n_images, level):
    zeros_gz(folder / "x.gz", idx_header(n_images, 1024, 1024), 160 * MIB, level)
    refused(lambda: load_data("idx:x.gz", for_training=False), "x.gz")


def test_more_than_the_header_promises_is_not_unpacked(folder):
    zeros_gz(folder / "x.gz", idx_header(4, 2, 2), 160 * MIB)
    refused(lambda: load_data("idx:x.gz", for_training=False), "x.gz", "promises")


def npz(path, shape, n, name="x", dtype="|u1", level=None):
    """An archive whose array claims a shape and holds n zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": shape, "fortran_order": False, "descr": dtype})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive,
        archive.open(f"{name}.npy", "w") as stream,
    ):
        stream.write(head.getvalue())
        for _ in range(n // MIB):
            stream.write(bytes(MIB))
        stream.write(bytes(n % MIB))


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("name", ["x", "y"])
def test_a_zip_bomb_is_refused(folder, name, level):
    npz(folder / "d.npz", (160, 1024, 1024), 160 * MIB, name, level=level)
    if name == "y":
        with zipfile.ZipFile(folder / "d.npz", "a") as archive:
            np.savez(folder / "small.npz", x=np.zeros((2, 2, 2), np.uint8))
            archive.writestr("x.npy", zipfile.ZipFile(folder / "small.npz").read("x.npy"))
    refused(lambda: load_data("npz:d.npz", for_training=False), "d.npz", "times its size")


@given(shape=st.lists(st.sampled_from([0, 1, 7, 2**31, 2**62, 2**70]), min_size=1, max_size=5), n=st.integers(0, 40))
def test_an_array_that_promises_more_than_it_holds_is_refused(tmp_path_factory, shape, n):
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    npz(path, tuple(shape), n)
    if int(np.prod([float(each) for each in shape])) != n:
        refused(lambda: load_data(f"npz:{path}", for_training=False), str(path))


def test_a_sparse_file_is_refused_by_what_is_stored(folder):
    with (folder / "x").open("wb") as file:
        file.write(idx_header(1024, 1024, 1024))
        file.truncate(16 + 2**30)
    refused(lambda: load_data("idx:x", for_training=False), "x", "times its size")
    with (folder / "w.pt").open("wb") as file:
        file.truncate(2**30)
    refused(lambda: read_weights(folder / "w.pt"), "w.pt")


def test_weights_that_unpack_to_much_more_are_refused(folder):
    torch.save({"a": torch.zeros(3)}, folder / "plain.pt")
    assert read_weights(folder / "plain.pt").keys() == {"a"}
    npz(folder / "w.pt", (160, 1024, 1024), 160 * MIB)
    refused(lambda: read_weights(folder / "w.pt"), "w.pt", "times its size")


def test_what_exceeds_the_free_memory_is_refused(monkeypatch):
    assert len(load_data("digits@5px")) == 1797
    monkeypatch.setattr(_sizes, "free_bytes", lambda: 10**6)
    refused(lambda: load_data("digits@500px"), "digits@500px", "1 MB of memory")


def write_images(path, images, form, level):
    """Write images and labels in one of the forms that hold an array; return their specification."""
    labels = np.arange(len(images)) % 3
    if form.startswith("npz"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if level else 0, compresslevel=level or None) as archive:
            for name, values in (("x", images), ("y", labels)):
                held = io.BytesIO()
                np.save(held, np.asfortranarray(values) if form == "npz by columns" else values)
                archive.writestr(f"{name}.npy", held.getvalue())
        return f"npz:{path}"
    if form == "folder":
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            (path / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / str(label) / f"{i:04}.png", compress_level=level)
        return f"folder:{path}"
    raw = [idx_header(*values.shape) + values.astype(np.uint8).tobytes() for values in (images, labels)]
    for suffix, content in zip(("", "-labels"), raw, strict=True):
        path.with_name(path.name + suffix).write_bytes(gzip.compress(content, level) if level else content)
    return f"idx:{path},{path}-labels"


def load(spec, **settings):
    return load_data(spec, for_training=False, number=lambda data: data, **settings)


FORMS = st.sampled_from(["npz", "npz by columns", "idx", "folder"])


@given(form=FORMS, level=st.integers(0, 9), n=st.integers(2, 12), side=st.integers(8, 30), noise=st.integers(1, 256))
@settings(max_examples=30)
def test_memory_is_checked_whatever_the_compression(tmp_path_factory, form, level, n, side, noise):
    """A file is read where twice its size is free, and refused, with both numbers and a way out, where it is not."""
    images = np.random.default_rng(0).integers(0, noise, (n, side, side), np.uint8)
    spec = write_images(tmp_path_factory.mktemp("sizes") / "d", images, form, level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_sizes, "free_bytes", lambda: 2 * images.nbytes + 10**4)
        assert load(spec).inputs.numel() == images.size
        patch.setattr(_sizes, "free_bytes", lambda: images.nbytes - images[0].nbytes - 1)
        refused(lambda: load(spec), "d takes", "are free", "--limit")


@given(form=FORMS, level=st.integers(0, 9), n=st.integers(2, 20), limit=st.integers(1, 24), seed=st.integers(0, 9))
@settings(max_examples=40)
def test_a_limit_reads_what_it_would_draw_from_all(tmp_path_factory, form, level, n, limit, seed):
    images = np.random.default_rng(1).integers(0, 256, (n, 5, 4), np.uint8)
    spec = write_images(tmp_path_factory.mktemp("limit") / "d", images, form, level)
    found = load(spec, limit=limit, seed=seed)
    expected = load(spec).limited(limit, seed)
    assert (found.digest, found.indices.tolist()) == (expected.digest, expected.indices.tolist())
    assert found.name == (expected.name if limit != n else f"{spec}@{limit}")


@pytest.mark.parametrize("form", ["npz", "idx", "folder"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_limit_takes_the_memory_of_what_it_reads(folder, monkeypatch, form, level):
    spec = write_images(folder / "d", np.zeros((100, 64, 64), np.uint8), form, level)
    monkeypatch.setattr(_sizes, "free_bytes", lambda: 100_000)
    refused(lambda: load(spec), "d takes 0 MB", "0 MB of memory are free", "--limit")
    assert len(load(spec, limit=10)) == 10


def test_a_file_that_ends_before_the_rows_of_a_limit_is_refused(folder):
    zeros_gz(folder / "x.gz", idx_header(1000, 64, 64), MIB)
    refused(lambda: load_data("idx:x.gz", for_training=False, limit=10), "x.gz", "ends before row")


@pytest.mark.parametrize("gigabytes", [1, 3])
def test_a_large_file_of_real_data_is_no_bomb(monkeypatch, gigabytes):
    """Such as dSprites, 3 GB of binary pictures in 26 MB."""
    monkeypatch.setattr(_sizes, "free_bytes", lambda: 12 * 10**9)
    _sizes.check_expansion("d.npz", gigabytes * 10**9, 26 * 10**6)
    _sizes.check_memory("d.npz", gigabytes * 10**9)


def test_free_memory_is_at_most_that_of_the_container(tmp_path, monkeypatch):
    whole = _sizes.free_bytes()
    monkeypatch.setattr(_sizes, "_CONTAINER", tmp_path)
    (tmp_path / "memory.current").write_text("700")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 50\n")
    for limit, expected in (("1000", 350), ("500", 0)):
        (tmp_path / "memory.max").write_text(limit)
        assert _sizes.free_bytes() == expected
    (tmp_path / "memory.max").write_text("max\n")
    assert _sizes.free_bytes() > whole / 2


def big_png(width, height, depth=8, kind=0):
    """A small file of a large picture."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(min((width + 1) * height, 10 * MIB)), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(6000, 6000), (12000, 12000), (30000, 30000), (2**31 - 1, 2**31 - 1), (40_000_000, 1)]
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(folder, size):
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "a" / "bomb.png").write_bytes(big_png(*size))
    refused(lambda: load_data("folder:set"), "set/a/bomb.png")


@pytest.mark.parametrize("form", ["folder", "parquet"])
@pytest.mark.parametrize(("depth", "kind"), [(8, 2), (16, 2), (16, 0), (8, 6), (16, 6), (8, 4)])
def test_a_picture_that_unpacks_to_much_more_is_refused_before_it_is_decoded(folder, monkeypatch, depth, kind, form):
    """Of 8192 × 8192 pixels, as many as are allowed, of every type but those that stay below 128 MB."""
    (folder / "set" / "a").mkdir(parents=True)
    bomb = big_png(8192, 8192, depth, kind)
    for name in "ab":
        (folder / "set" / "a" / f"{name}.png").write_bytes(bomb)
    if form == "parquet":
        datasets = pytest.importorskip("datasets")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        rows = {"image": [{"bytes": bomb, "path": None}] * 2, "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "d.parquet")
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=AssertionError("decoded")))
    refused(lambda: load_data({"folder": "folder:set", "parquet": "parquet:d.parquet"}[form]), "times its size")


@pytest.mark.parametrize("free", [0, 10**5, 10**6])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F", "P", "1"])
def test_a_picture_is_not_decoded_where_its_memory_is_not_free(folder, monkeypatch, free, mode):
    (folder / "set" / "a").mkdir(parents=True)
    Image.new(mode, (1100, 1000)).save(folder / "set" / "a" / "a.tif")
    monkeypatch.setattr(_sizes, "free_bytes", lambda: free)
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=AssertionError("decoded")))
    refused(lambda: load_data("folder:set"), "folder:set takes", "are free")


ENDLESS = """
import itertools
import numpy as np
import torch
from PIL import Image
class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        for i in itertools.count():
            yield {}, i % 3
def make(): return Endless()
"""


@pytest.mark.parametrize(
    "x",
    [
        "torch.ones(1, 200, 200)",
        "np.ones((300, 300), np.uint8)",
        "'x' * 10**5",
        "{'a': torch.ones(99, 99), 'b': torch.ones(99, 99)}",
        "Image.new('RGB', (200, 200))",
    ],
)
def test_a_data_set_without_an_end_is_refused_as_the_memory_ends(folder, monkeypatch, x):
    (folder / "mine.py").write_text(ENDLESS.format(x))
    monkeypatch.setattr(_sizes, "free_bytes", lambda: 3 * 10**7)
    refused(lambda: load_data("mine.py:make"), "mine.py:make takes", "--limit")


def test_many_pictures_that_unpack_to_much_more_are_refused(folder):
    (folder / "set" / "a").mkdir(parents=True)
    for i in range(40):
        (folder / "set" / "a" / f"{i:02}.png").write_bytes(big_png(5000, 2000))
    refused(lambda: load_data("folder:set"), "folder:set", "times its size")


@pytest.mark.parametrize("compression", ["zstd", "gzip", "snappy"])
def test_a_parquet_file_that_unpacks_to_much_more_is_refused(folder, compression):
    pytest.importorskip("datasets")
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    table = pa.table({"image": [bytes(MIB)] * 160, "label": [0, 1] * 80})
    pq.write_table(table, folder / "d.parquet", compression=compression, use_dictionary=False)
    del table
    refused(lambda: load_data("parquet:d.parquet"), "d.parquet")


def test_a_parquet_file_that_repeats_a_picture_is_refused(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": big_png(5000, 2000), "path": None}] * 60, "label": [0, 1] * 30}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "d.parquet")
    refused(lambda: load_data("parquet:d.parquet"), "d.parquet", "times its size")


def test_a_picture_in_a_parquet_file_is_refused_by_its_row(folder):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [{"bytes": big_png(*size), "path": None} for size in ((9, 9), (9000, 9000))], "label": [0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "d.parquet")
    refused(lambda: load_data("parquet:d.parquet"), "d.parquet", "row 1", "pixels")


LONG = "x" * 300


@pytest.mark.parametrize("spec", ["npz:{}", "idx:{}", "idx:{0},{0}", "folder:{}", "parquet:{}", "{}.py:make"])
@pytest.mark.parametrize("path", [LONG, f"sub/{LONG}", "/dev/zero", "/dev/random", "fifo", "missing", "a\0b", "."])
def test_what_is_no_file_is_refused_at_once(folder, spec, path):
    os.mkfifo(folder / "fifo")
    os.mkfifo(folder / "fifo.py")
    refused(lambda: load_data(spec.format(path)))


def test_a_pipe_among_the_pictures_is_refused(folder):
    (folder / "set" / "a").mkdir(parents=True)
    os.mkfifo(folder / "set" / "a" / "0.png")
    refused(lambda: load_data("folder:set"), "set/a/0.png", "file")


@pytest.mark.parametrize("path", [LONG, "/dev/zero", "fifo", "."])
def test_weights_and_models_that_are_no_files_are_refused(folder, path):
    os.mkfifo(folder / "fifo")
    for suffix in ("", ".pt", ".safetensors"):
        refused(lambda suffix=suffix: load_model("resque.networks:small_cnn", path + suffix))
    refused(lambda: load_model(f"{path}.py:build"))
    refused(lambda: resque.Profile.load(path))


@pytest.mark.parametrize(
    "classes", [2**70, 2**63, 2**31, 10**7, 2**20, 2**17 + 1, 0, -1, 2.5, float("inf"), float("nan"), "10"]
)
def test_numbers_of_outputs_that_no_model_has_are_refused(classes, folder):
    (folder / "net.py").write_text(
        "from torch import nn\ndef build(num_classes=2):\n"
        "  return nn.Sequential(nn.Flatten(), nn.Linear(9, num_classes))"
    )
    for spec in ("net.py:build", "torchvision:resnet18", "timm:resnet18", "resque.networks:resnet18"):
        with pytest.raises(ModelError, match="expected a whole number from 1 to"):
            load_model(spec, classes=classes)


@pytest.mark.parametrize(
    ("spec", "width"), [("net.py:build", 512), ("timm:resnet18", 512), ("torchvision:resnet18", 512),
                        ("torchvision:squeezenet1_0", 512), ("resque.networks:resnet18", 512)]
)  # fmt: skip
def test_a_head_of_too_many_weights_is_refused_before_it_takes_memory(folder, spec, width):
    (folder / "net.py").write_text(
        "from torch import nn\ndef build(num_classes=2):\n"
        "  return nn.Sequential(nn.Flatten(), nn.Linear(512, num_classes))"
    )
    refused(lambda: load_model(spec, classes=2**17), "131,072", f"{width:,} inputs", f"{50_000_000 // width:,}")
    assert load_model(spec, classes=7) is not None


@pytest.mark.parametrize("rank", [65, 10**4, 3_000_000, 2**31 - 1, 2**40])
def test_a_rank_above_the_sides_of_the_layers_is_refused(rank):
    pytest.importorskip("peft")
    model = torch.nn.Sequential(torch.nn.Linear(64, 90), torch.nn.Linear(90, 4), torch.nn.Linear(4, 3))
    refused(lambda: FineTuningScope(model, "lora", rank), f"rank {rank}", "at most 64")
    for most in (8, 64):
        FineTuningScope(model, "lora", most).end()


@pytest.mark.parametrize("classes", [2**70, 2**40, 10**9])
def test_a_number_of_labels_that_no_profile_has_is_refused(classes):
    with pytest.raises(RepresentationError, match="expected"):
        resque.Profile.from_arrays(torch.ones(2, 3), [0, 1], classes=classes)


def test_a_folder_of_transformers_with_a_bomb_of_labels_is_refused(folder):
    pytest.importorskip("transformers")
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text('{"model_type": "bert", "num_labels": 1000000000000}')
    for call in (lambda: load_model("hf:bert"), lambda: resque.models.registry.preprocessing_for("hf:bert")):
        with pytest.raises(ModelError, match="num_labels is 1000000000000"):
            call()


def test_a_real_process_with_little_memory_ends_in_one_line(folder):
    """One case under a limit of the address space, as a check of the counters above."""
    npz(folder / "d.npz", (2000, 1024, 1024), 160 * MIB)
    code = (
        "import resource, sys; import resque; from resque.data.loading import load_data; import torch, numpy\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 500 * 2**20,) * 2)\n"
        "try:\n    load_data('npz:d.npz')\nexcept resque.errors.DataError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert "d.npz" in done.stdout
    assert done.stdout.count("\n") == 1
