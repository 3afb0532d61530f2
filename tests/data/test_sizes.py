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

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import resque
from resque import _sizes
from resque.data.loading import load_data
from resque.errors import ModelError, RepresentationError, ResqueError
from resque.models.loading import load_model
from resque.models.weights import read_weights

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


def zeros_gz(path, header, n):
    """A gzipped file of a header and n zeros, made without n bytes of memory."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
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


@pytest.mark.parametrize("n_images", [1000, 10**5, 10**6])
def test_a_gzip_bomb_is_refused(folder, n_images):
    zeros_gz(folder / "x.gz", idx_header(n_images, 1024, 1024), 160 * MIB)
    refused(lambda: load_data("idx:x.gz", for_training=False), "x.gz")


def test_more_than_the_header_promises_is_not_unpacked(folder):
    zeros_gz(folder / "x.gz", idx_header(4, 2, 2), 160 * MIB)
    refused(lambda: load_data("idx:x.gz", for_training=False), "x.gz", "promises")


def npz(path, shape, n, name="x", dtype="|u1"):
    """An archive whose array claims a shape and holds n zeros."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": shape, "fortran_order": False, "descr": dtype})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(f"{name}.npy", "w") as stream:
        stream.write(head.getvalue())
        for _ in range(n // MIB):
            stream.write(bytes(MIB))
        stream.write(bytes(n % MIB))


@pytest.mark.parametrize("name", ["x", "y"])
def test_a_zip_bomb_is_refused(folder, name):
    npz(folder / "d.npz", (160, 1024, 1024), 160 * MIB, name)
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


def test_what_exceeds_the_memory_of_the_machine_is_refused(monkeypatch):
    assert len(load_data("digits@5px")) == 1797
    monkeypatch.setattr(_sizes, "memory_bytes", lambda: 10**6)
    refused(lambda: load_data("digits@500px"), "digits@500px", "memory")


def big_png(width, height):
    """A small file of a large picture."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes(min((width + 1) * height, 10 * MIB)), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "size", [(6000, 6000), (12000, 12000), (30000, 30000), (2**31 - 1, 2**31 - 1), (40_000_000, 1)]
)
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(folder, size):
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "a" / "bomb.png").write_bytes(big_png(*size))
    refused(lambda: load_data("folder:set"), "set/a/bomb.png")


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


@pytest.mark.parametrize("classes", [2**70, 2**63, 2**31, 10**7, 0, -1, 2.5, float("inf"), float("nan"), "10"])
def test_numbers_of_outputs_that_no_model_has_are_refused(classes, folder):
    (folder / "net.py").write_text(
        "from torch import nn\ndef build(num_classes=2):\n"
        "  return nn.Sequential(nn.Flatten(), nn.Linear(9, num_classes))"
    )
    for spec in ("net.py:build", "torchvision:resnet18", "timm:resnet18", "resque.networks:resnet18"):
        with pytest.raises(ModelError, match="expected a whole number from 1 to"):
            load_model(spec, classes=classes)


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
