"""Objects in memory as data: pairs of arrays or tensors, and datasets."""

import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import resque
from resque.data.loading import load_data
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing
from resque.errors import DataError

X, Y = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8), np.arange(12) % 3


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(2, 9), st.integers(1, 6), st.integers(1, 6)),
    channels=st.sampled_from([None, 1, 3, 4]),
    labels=st.sampled_from([np.uint8, np.int32, np.int64, np.uint64]),
    limit=st.one_of(st.none(), st.integers(2, 12)),
)
def test_pair_equals_npz_file_of_the_same_arrays(seed, shape, channels, labels, limit):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape if channels is None else (*shape, channels), dtype=np.uint8)
    y = rng.integers(0, 3, shape[0]).astype(labels)
    with tempfile.TemporaryDirectory() as place:
        np.savez(Path(place) / "d.npz", x=x, y=y)
        stored = load_data(f"npz:{place}/d.npz", limit=limit, for_training=False)
    tensor = torch.from_numpy(x if channels is None else np.moveaxis(x, -1, 1).copy())
    for pair in ((x, y), (x, y.tolist()), (tensor, y), [x, torch.from_numpy(y.astype(np.int64))]):
        data = load_data(pair, limit=limit, for_training=False)
        assert torch.equal(data.inputs, stored.inputs)
        assert torch.equal(data.labels, stored.labels)
        assert torch.equal(data.indices, stored.indices)
        assert data.digest == stored.digest
        name, _, drawn = data.name.partition("@")
        assert re.fullmatch("array:[0-9a-f]{8}", name)
        assert drawn == ("" if limit is None or limit >= shape[0] else str(limit))
    scaled = load_data((x / 255, y), limit=limit, for_training=False).inputs
    assert scaled.dtype == torch.float32
    assert torch.allclose(scaled, stored.inputs / 255)


def test_digest_distinguishes_pairs_of_one_name():
    pairs = [(X, Y), (X[::-1], Y), (X, Y[::-1]), (X / 255, Y)]
    assert len({load_data(pair, name="mine").digest for pair in pairs}) == 4


def test_dataset_is_returned_unchanged():
    data = load_data("digits@test")
    assert load_data(data) is data
    assert resque.load_data(data, limit=9).name == "digits@test@9"
    wanted = ImagePreprocessing(channels=3)
    assert load_data(data, preprocessing=wanted).transform == wanted
    prepared = dataclasses.replace(data, transform=ImagePreprocessing(side=4, fixed=True))
    assert load_data(prepared, preprocessing=wanted) is prepared
    assert data.transform == NO_PREPROCESSING


def test_unlabeled_pair_is_refused_for_training():
    data = load_data((X, None), for_training=False)
    assert (len(data), data.labeled, data.labels.unique().tolist()) == (12, False, [0])
    for unlabeled in (data, (X, None)):
        with pytest.raises(DataError, match="array:.* has no labels, and nothing can be trained"):
            load_data(unlabeled)


def test_other_tensors_reach_the_model_unchanged():
    vectors = torch.randn(12, 7)
    ((inputs, labels),) = load_data((vectors, Y)).batches()
    assert torch.equal(inputs, vectors)
    assert labels.tolist() == Y.tolist()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X.astype(np.int32), Y, "images are torch.int32; expected uint8"),
        (X * 1.0, Y, "images hold values from 0 to 255; expected uint8, or floats in"),
        (np.where(X.max() == X, np.nan, 0.5), Y, "images hold values from nan to nan"),
        (torch.randn(12, 3, 6, 5), Y, "expected uint8, or floats in"),
        (torch.ones(12, 3, 6, 5, dtype=torch.int64), Y, "images are torch.int64; expected uint8"),
        (X[:, 0, :, 0], Y, r"images have shape \(12, 5\); expected \(n, h, w\)"),
        (X[..., :2], Y, "1, 3 or 4 channels"),
        (torch.from_numpy(X), Y, r"inputs have shape \(12, 6, 5, 3\); .*channels last: permute\(0, 3, 1, 2\)"),
        (torch.ones(12), Y, r"inputs have shape \(12,\)"),
        (torch.ones(0, 1, 6, 5), [], "no samples"),
        (X[:0], Y[:0], "no images"),
        ([[1, 2], [3]], [0, 1], "images: expected numbers in rows of one length"),
        (X, [[1], [2, 3]], "labels: expected numbers in rows of one length"),
        (X, Y / 2, "labels are torch.float64; expected integers"),
        (X, Y == 0, "labels are torch.bool; expected integers"),
        (X, [1j] * 12, "labels are torch.complex128; expected integers"),
        (X, Y[:5], r"labels have shape \(5,\); expected \(12,\)"),
        (X, Y * 0, r"array:.*: only class \[0\] is left"),
        (["one text", "another"], [0, 1], "array holds texts"),
    ],
)
def test_wrong_shapes_and_types_are_refused_in_one_line(x, y, message):
    with pytest.raises(DataError, match=message) as error:
        load_data((x, y))
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("array")


@pytest.mark.parametrize("data", [None, 3, X, (X, Y, Y), (X,)])
def test_other_objects_are_refused(data):
    with pytest.raises(DataError, match="expected a specification such as 'digits@test', a LabeledDataset, or a pair"):
        load_data(data)
