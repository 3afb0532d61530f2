import gzip
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from resque.data.loading import load_data
from resque.errors import DataError


def write_idx(path, array, zipped=False):
    codes = {np.dtype("uint8"): 8, np.dtype("int32"): 12}
    header = struct.pack(">HBB", 0, codes[array.dtype], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    raw = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(raw) if zipped else raw)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.arange(40) % 4


def test_digits_equal_scikit_learn(digits):
    scans = load_digits()
    loaded = load_data("digits")
    assert np.array_equal(loaded.labels.numpy(), scans.target)
    assert np.abs(loaded.images[:, 0].numpy() / 255 - scans.images / 16).max() <= 0.5 / 255 + 1e-9


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_equals_npz(folder, images, labels, zipped):
    write_idx(folder / "x", images, zipped)
    write_idx(folder / "y", labels.astype(np.int32), zipped)
    np.savez(folder / "d.npz", x=images, y=labels)
    one, other = load_data("idx:x,y"), load_data("npz:d.npz")
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert one.images.shape == (40, 1, 6, 5)


def test_color_images_have_channels_first(folder, labels):
    x = np.random.default_rng(1).integers(0, 256, (40, 6, 5, 3), dtype=np.uint8)
    np.savez(folder / "d.npz", x=x, y=labels)
    assert np.array_equal(load_data("npz:d.npz").images.numpy(), np.moveaxis(x, -1, 1))


def test_original_and_shifted_are_70_and_50_percent_of_each_class_with_20_in_both(digits):
    original, shifted = (set(digits.part(name).indices.tolist()) for name in ("original", "shifted"))
    assert len(original) / len(digits) == pytest.approx(0.7, abs=0.005)
    assert len(shifted) / len(digits) == pytest.approx(0.5, abs=0.005)
    assert len(original & shifted) / len(digits) == pytest.approx(0.2, abs=0.01)
    share = torch.bincount(digits.part("original").labels) / torch.bincount(digits.labels)
    assert float((share - 0.7).abs().max()) < 0.01


def test_train_and_test_partition_the_data(digits):
    train, test = (set(digits.part(name).indices.tolist()) for name in ("train", "test"))
    assert not train & test
    assert len(train | test) == len(digits)


def test_steps_apply_from_left_to_right_and_set_the_shift_type():
    data = load_data("digits@test@16px+blur:2+gaussian:3")
    assert data.images.shape[1:] == (1, 16, 16)
    assert data.shift_type == "blur+gaussian"
    assert data.name == "digits@test@16px+blur:2+gaussian:3"
    assert load_data("digits").shift_type is None


def test_specification_determines_the_samples():
    one, other = load_data("digits@test+gaussian:3"), load_data("digits@test+gaussian:3")
    assert torch.equal(one.images, other.images)


def test_stacked_noise_of_one_type_is_independent():
    clean, once, twice = (load_data("digits" + s).images for s in ("", "+gaussian:1", "+gaussian:1+gaussian:1"))
    inside = (clean == 128) if (clean == 128).any() else (clean > 80) & (clean < 180)
    first, second = (once - clean / 255)[inside], (twice - once)[inside]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05


def test_limit_draws_at_random(folder):
    data = load_data("digits", limit=100)
    assert len(data) == 100
    assert int(data.indices.max()) > 1000


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((4, 3, 3), np.float32), np.arange(4), "float32; expected uint8"),
        (np.zeros((4, 3, 3), np.uint8), np.linspace(0, 1, 4), "float64; expected integers"),
        (np.zeros((4, 3, 3), np.uint8), np.arange(5), r"shape \(5,\); expected \(4,\)"),
        (np.zeros((4, 3, 3), np.uint8), np.zeros(4, int), "only class"),
        (np.zeros((4, 3), np.uint8), np.arange(4), r"shape \(4, 3\); expected"),
        (np.zeros((4, 3, 3, 7), np.uint8), np.arange(4), "1, 3 or 4 channels"),
        (np.zeros((0, 3, 3), np.uint8), np.arange(0), "no images"),
    ],
)
def test_wrong_shapes_and_types_are_refused(folder, x, y, message):
    np.savez(folder / "d.npz", x=x, y=y)
    with pytest.raises(DataError, match=message):
        load_data("npz:d.npz")


def test_unreadable_files_and_malformed_specifications_are_refused(folder, images, labels):
    np.savez(folder / "other.npz", a=images)
    np.savez(folder / "object.npz", x=np.array([{}], dtype=object), y=labels)
    (folder / "text.npz").write_text("no archive")
    write_idx(folder / "x", images)
    (folder / "short").write_bytes((folder / "x").read_bytes()[:-3])
    for spec, message in {
        "npz:none.npz": "no such file",
        "npz:other.npz": "expected arrays x",
        "npz:object.npz": "is no .npz archive of plain arrays",
        "npz:text.npz": "is no .npz archive of plain arrays",
        "idx:x,none": "no such file",
        "idx:text.npz,x": "idx format",
        "idx:short,x": "is it complete",
        "mnist": "expected digits, npz:FILE",
        "digits+rain:3": "unknown shift 'rain'",
        "digits+blur:11": "outside 1 to 10",
        "digits+blur:-1": "outside 1 to 10",
        "digits@0px": "expected 1 to 4096 pixels",
        "digits@99999px": "expected 1 to 4096 pixels",
        "digits@0": "expected at least 1 sample",
    }.items():
        with pytest.raises(DataError, match=message):
            load_data(spec)
    with pytest.raises(DataError, match="at least 1 sample"):
        load_data("digits", limit=0)


def test_mixture_concatenates_its_parts(folder):
    parts = [load_data(spec) for spec in ("digits@train@100+gaussian:3", "digits@test@50")]
    both = load_data("digits@train@100+gaussian:3~digits@test@50")
    assert len(both) == 150
    assert torch.equal(both.images, torch.cat([parts[0].images, parts[1].images.float() / 255]))
    assert torch.equal(both.labels, torch.cat([part.labels for part in parts]))
    assert len(set(both.indices.tolist())) == 150
    assert (both.shift_type, load_data("digits@train~digits@test").shift_type) == ("gaussian~none", None)
    assert load_data("digits@train~digits@test").images.dtype == torch.uint8


def test_mixture_of_different_shapes_is_refused(folder, images, labels):
    np.savez(folder / "d~e.npz", x=images, y=labels)
    assert len(load_data("npz:d~e.npz")) == 40
    with pytest.raises(DataError, match=r"different forms \(1×8×8, 1×6×5\) cannot be mixed"):
        load_data("digits~npz:d~e.npz")
    both = load_data("digits@8px ~ npz:d~e.npz@8px", limit=20)
    assert (len(both), both.name) == (40, "digits@20@8px~npz:d~e.npz@20@8px")


def test_mixture_may_have_parts_of_one_class(folder, images):
    np.savez(folder / "one.npz", x=np.repeat(images, 1, 0)[:10], y=np.full(10, 7))
    np.savez(folder / "two.npz", x=images, y=np.arange(40) % 4)
    assert load_data("npz:two.npz~npz:one.npz").classes == [0, 1, 2, 3, 7]
    with pytest.raises(DataError, match="only class"):
        load_data("npz:one.npz~npz:one.npz")


def test_digest_depends_on_content_and_not_on_name(digits):
    import dataclasses

    again = load_data("digits@16px")
    assert again.digest == digits.digest
    changed = dataclasses.replace(again, labels=again.labels.roll(1))
    darker = dataclasses.replace(again, inputs=again.images * 0.5)
    assert len({changed.digest, darker.digest, digits.digest}) == 3
