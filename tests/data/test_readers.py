"""Readers of every source, on small real files: folders, Parquet, Hugging Face, torchvision, a dataset of the user."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from resque.data.loading import load_data
from resque.data.preprocessing import ImagePreprocessing
from resque.errors import DataError, ResqueWarning


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def color(rng, side=6, n=8):
    return rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def test_folder_names_are_the_classes_in_sorted_order(folder, rng):
    images = color(rng)
    for i, image in enumerate(images):
        place = folder / "set" / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    (folder / "set" / "notes.txt").write_text("no image")
    with pytest.warns(ResqueWarning, match="folder:set: .* numbered in sorted order: 'cat' = 0, 'dog' = 1"):
        data = load_data("folder:set")
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    assert torch.equal(data.inputs[0], torch.from_numpy(images[1]).permute(2, 0, 1))
    assert data.inputs.dtype == torch.uint8


@pytest.mark.filterwarnings("ignore:.*numbered in sorted order:resque.errors.ResqueWarning")
def test_images_of_several_sizes_and_modes_become_alike(folder, rng):
    for name in ("a", "b"):
        (folder / "set" / name).mkdir(parents=True)
    Image.fromarray(color(rng, 9)[0]).save(folder / "set" / "a" / "0.png")
    Image.fromarray(color(rng, 6)[0, :, :, 0]).save(folder / "set" / "b" / "0.jpg")
    Image.fromarray(color(rng, 7)[0]).convert("P").save(folder / "set" / "b" / "1.png")
    with pytest.raises(DataError, match=r"images of 3 sizes \(6×6, 9×9, …\); bring them to one, e.g. folder:set@64px"):
        load_data("folder:set")
    assert load_data("folder:set@8px").inputs.shape == (3, 3, 8, 8)
    wanted = ImagePreprocessing(side=5, channels=1)
    ((inputs, _),) = load_data("folder:set", preprocessing=wanted).batches()
    assert inputs.shape == (3, 1, 5, 5)


def test_broken_image_and_empty_folder_are_reported(folder):
    (folder / "set" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images in folders"):
        load_data("folder:set")
    (folder / "set" / "a" / "0.png").write_text("no image")
    with pytest.raises(DataError, match="0.png is no image that can be read"):
        load_data("folder:set")
    with pytest.raises(DataError, match="no such folder"):
        load_data("folder:none")


def images_and_labels(rng):
    datasets = pytest.importorskip("datasets")
    images, labels = color(rng), [i % 2 for i in range(8)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": png(image), "path": None} for image in images], "label": labels}
    return images, labels, datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("form", ["parquet", "disk", "parts"])
def test_hugging_face_formats_give_the_same_data(folder, rng, form):
    images, labels, rows = images_and_labels(rng)
    if form == "parquet":
        rows.to_parquet(folder / "d.parquet")
        spec = "parquet:d.parquet"
    elif form == "disk":
        rows.save_to_disk(str(folder / "d"))
        spec = "hf:d"
    else:
        rows.to_parquet(folder / "parts" / "test-00000-of-00001.parquet")
        spec = "hf:parts:test"
    data = load_data(spec)
    assert torch.equal(data.inputs, torch.from_numpy(images).permute(0, 3, 1, 2))
    assert (data.labels.tolist(), data.class_names) == (labels, ("cat", "dog"))


def test_limit_ends_a_stream(folder, rng):
    images_and_labels(rng)[2].to_parquet(folder / "d.parquet")
    assert len(load_data("parquet:d.parquet", limit=4)) == 4


def test_unknown_columns_are_listed(folder):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"age": [1, 2], "label": [0, 1]}).to_parquet(folder / "d.parquet")
    with pytest.raises(DataError, match="has the columns age, label; expected a label .* and an image"):
        load_data("parquet:d.parquet")
    with pytest.raises(DataError, match="no such file"):
        load_data("parquet:none.parquet")
    (folder / "text.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"text.parquet cannot be read"):
        load_data("parquet:text.parquet")


def test_word_labels_are_numbered_in_sorted_order(folder, rng):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(image), "path": None} for image in color(rng, n=3)], "label": ["b", "a", "b"]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "d.parquet")
    with pytest.warns(ResqueWarning, match="sorted order"):
        data = load_data("parquet:d.parquet")
    assert (data.labels.tolist(), data.class_names) == ([1, 0, 1], ("a", "b"))


def idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST", "EMNIST"])
def test_torchvision_idx_datasets(folder, rng, name):
    pytest.importorskip("torchvision")
    x, y = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8) % 3
    for part in ("train", "test", "t10k"):
        stem = f"emnist-balanced-{part}" if name == "EMNIST" else part
        idx(folder / "data" / name / "raw" / f"{stem}-images-idx3-ubyte", x)
        idx(folder / "data" / name / "raw" / f"{stem}-labels-idx1-ubyte", y)
    if name == "EMNIST":
        with gzip.open(folder / "data" / name / "raw" / "unused.gz", "wb") as file:
            file.write(b"")
    data = load_data(f"torchvision:{name}:test")
    assert data.inputs.shape == (6, 1, 28, 28)
    assert data.labels.tolist() == y.tolist()
    assert np.array_equal(data.inputs[:, 0].numpy(), x)


def test_torchvision_gtsrb_and_food101(folder, rng):
    pytest.importorskip("torchvision")
    for label in range(2):
        place = folder / "data" / "gtsrb" / "GTSRB" / "Training" / f"{label:05d}"
        place.mkdir(parents=True)
        Image.fromarray(color(rng)[0]).save(place / "0.ppm")
    assert load_data("torchvision:GTSRB").labels.tolist() == [0, 1]
    food = folder / "data" / "food-101"
    (food / "meta").mkdir(parents=True)
    for name in ("pie", "soup"):
        (food / "images" / name).mkdir(parents=True)
        Image.fromarray(color(rng)[0]).save(food / "images" / name / "1.jpg")
    for part in ("train", "test"):
        (food / "meta" / f"{part}.json").write_text(json.dumps({"pie": ["pie/1"], "soup": ["soup/1"]}))
    data = load_data("torchvision:Food101")
    assert data.class_names == ("pie", "soup")


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "SVHN", "STL10"])
def test_missing_torchvision_dataset_tells_how_to_download_it(folder, name):
    pytest.importorskip("torchvision")
    with pytest.raises(
        DataError, match=rf"torchvision:{name} cannot be read under 'data' .*--data-root.*download=True"
    ):
        load_data(f"torchvision:{name}")


def test_unknown_torchvision_dataset_and_split_are_refused(folder):
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match="no dataset 'cifar'"):
        load_data("torchvision:cifar")
    with pytest.raises(DataError, match="no part 'validation': use train or test"):
        load_data("torchvision:MNIST:validation")


OWN = """
import numpy as np
import torch
from PIL import Image

def images():
    return [(Image.fromarray(np.full((4, 4), 9 * i, dtype=np.uint8)), i % 3) for i in range(9)]

def vectors():
    return torch.utils.data.TensorDataset(torch.arange(12.0).reshape(6, 2), torch.arange(6) % 2)

def stream():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([(torch.ones(2) * i, i % 2) for i in range(6)])
    return Stream()

def triples():
    return [(1, 2, 3)]

def ragged():
    return [(torch.ones(i + 1), i) for i in range(3)]

def real():
    return [(torch.ones(2), torch.tensor(i / 2)) for i in range(4)]

def one_hot():
    return [(torch.ones(2), torch.eye(2)[i].long()) for i in range(2)]

def broken():
    raise KeyError("x")
"""


def test_dataset_of_the_user(folder):
    (folder / "mine.py").write_text(OWN)
    images = load_data("mine.py:images@8px+gaussian:3")
    assert images.inputs.shape == (9, 1, 8, 8)
    vectors = load_data("mine.py:vectors")
    assert torch.equal(next(vectors.batches())[0], torch.arange(12.0).reshape(6, 2))
    assert len(load_data("mine.py:stream")) == 6
    for spec, message in {
        "mine.py:vectors+gaussian:3": "holds no images",
        "mine.py:vectors@8px": "holds no images",
        "mine.py:triples": "sample 0 is a tuple; expected a pair",
        "mine.py:ragged": "samples cannot be put together",
        "mine.py:real": "labels are torch.float32; expected integers",
        "mine.py:one_hot": r"labels have shape \(2, 2\); expected \(2,\), one a sample \(one-hot: argmax",
        "mine.py:broken": "failed: KeyError",
        "mine.py:none": "it offers",
        "none.py:images": "no such file",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(spec)
