"""Samples that are read by row are those of the whole dataset, and no others are read."""

import gzip
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from resque.data.loading import load_data
from resque.data.random_access import open_data
from resque.data.readers import files
from resque.errors import DataError

N = 60


def images_and_labels():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (N, 9, 9), np.uint8), (np.arange(N) % 3).astype(np.uint8)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One source of each form that is read by row, and one in memory."""
    folder = tmp_path_factory.mktemp("sources")
    x, y = images_and_labels()
    np.savez(folder / "plain.npz", x=x, y=y)
    np.savez_compressed(folder / "packed.npz", x=x, y=y)
    np.savez(folder / "names.npz", x=x, y=np.array(["wolf", "ant", "bee"])[y])
    np.savez(folder / "bare.npz", x=x)
    for name, values in (("x", x), ("y", y)):
        head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
        (folder / f"{name}.idx").write_bytes(head + values.tobytes())
        (folder / f"{name}.idx.gz").write_bytes(gzip.compress(head + values.tobytes()))
    for number, (image, label) in enumerate(zip(x, y, strict=True)):
        (folder / "tree" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "tree" / "abc"[label] / f"{number}.png")
    (folder / "own.py").write_text(
        "from torch.utils.data import IterableDataset\n"
        "class Stream(IterableDataset):\n    def __iter__(self):\n        yield from ()\n"
    )
    return {
        "npz": f"npz:{folder}/plain.npz",
        "compressed": f"npz:{folder}/packed.npz",
        "named": f"npz:{folder}/names.npz",
        "unlabeled": f"npz:{folder}/bare.npz",
        "idx": f"idx:{folder}/x.idx,{folder}/y.idx",
        "gzipped": f"idx:{folder}/x.idx.gz,{folder}/y.idx.gz",
        "folder": f"folder:{folder}/tree",
        "digits": "digits",
        "mixture": f"npz:{folder}/plain.npz@test~npz:{folder}/packed.npz",
        "stream": f"{folder}/own.py:Stream",
    }


STEPS = "", "@test", "@20", "@train@10+gaussian:5", "@16px+blur:3+gaussian:2", "@rgb", "+gaussian:4/blur:2/none"
LABELED = "npz", "compressed", "named", "idx", "gzipped", "folder", "digits"


@pytest.mark.parametrize("steps", [*STEPS, "+imbalance:5+gaussian:3", "+relabel:5@test+salt_pepper:2"])
@pytest.mark.parametrize("form", LABELED)
def test_samples_read_by_row_are_those_of_the_whole_dataset(sources, form, steps):
    spec = sources[form] + steps
    whole, opened = load_data(spec, number=lambda data: data), open_data(spec)
    rows = torch.from_numpy(np.random.default_rng(1).permutation(len(whole))[:7])
    expected, got = whole.take(rows), opened.read(rows)
    assert torch.equal(got.images, expected.images)
    assert torch.equal(got.labels, expected.labels)
    for each in (opened.header, got):
        assert (each.name, each.shifts, each.class_names) == (whole.name, whole.shifts, whole.class_names)
    assert torch.equal(opened.header.labels, whole.labels)
    assert torch.equal(opened.header.indices, whole.indices)


def test_a_mixture_is_sampled_in_memory(sources):
    whole, opened = load_data(sources["mixture"] + "+blur:2"), open_data(sources["mixture"] + "+blur:2")
    assert torch.equal(opened.read(torch.tensor([70, 2])).images, whole.images[[70, 2]])


@pytest.mark.parametrize("form", ["npz", "folder", "digits"])
@pytest.mark.parametrize("limit", [7, 10_000])
def test_a_limit_draws_the_same_samples(sources, form, limit):
    whole, opened = (
        load_data(sources[form], limit=limit, number=lambda data: data),
        open_data(sources[form], limit=limit),
    )
    everything = opened.read(torch.arange(len(whole)))
    assert torch.equal(everything.images, whole.images)
    assert opened.header.name == whole.name


@pytest.mark.parametrize("steps", ["", "@20", "+blur:3"])
def test_data_without_labels_are_read_by_row(sources, steps):
    spec = sources["unlabeled"] + steps
    whole, opened = load_data(spec, for_training=False), open_data(spec)
    assert not opened.header.labeled
    assert torch.equal(opened.read(torch.arange(5)).images, whole.images[:5])


def test_only_chosen_files_are_opened(sources, monkeypatch):
    opened, opens = open_data(sources["folder"]), []
    monkeypatch.setattr(
        files, "open_image", lambda file, check, read=files.open_image: opens.append(file) or read(file, check)
    )
    opened.read(torch.tensor([3, 50, 7]))
    assert len(opens) == 3


@pytest.mark.parametrize("form", ["npz", "idx"])
def test_only_chosen_rows_are_read(sources, form, monkeypatch):
    opened, sizes = open_data(sources[form]), []
    monkeypatch.setattr(
        files, "_read_rows", lambda *given, read=files._read_rows: sizes.append(len(given[-1])) or read(*given)
    )
    opened.read(torch.tensor([3, 50, 7]))
    assert sizes == [3]


@pytest.mark.parametrize("spec", ["parquet:some.parquet", "hf:some/name", "hf:folder:test@500+blur:2", "stream"])
def test_a_stream_is_refused_in_one_line(sources, spec):
    with pytest.raises(
        DataError, match="is read as a stream, so no random samples of it: leave --precision out"
    ) as error:
        open_data(sources.get(spec, spec))
    assert "\n" not in str(error.value)


def test_missing_and_unknown_data_are_refused_as_in_a_full_read(sources, tmp_path):
    for spec in (
        f"npz:{tmp_path}/none.npz",
        f"folder:{tmp_path}/none",
        sources["npz"] + "+frog:3",
        sources["npz"] + "@0",
    ):
        with pytest.raises(DataError) as expected:
            load_data(spec)
        with pytest.raises(DataError) as error:
            open_data(spec)
        assert str(error.value) == str(expected.value)
