import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from resque.data.shifts import LABEL_SHIFTS, SHIFT_TYPES, parse_shift
from resque.errors import DataError

GRAY = torch.full((400, 1, 16, 16), 0.5)


def indices(n: int, first: int = 0) -> torch.Tensor:
    return torch.arange(first, first + n)


@pytest.mark.parametrize("level", [1, 4, 7])
def test_gaussian_noise_has_the_sigma_of_its_level(level):
    noise = parse_shift(f"gaussian:{level}")(GRAY, indices=indices(400), seed=3) - GRAY
    assert float(noise.std()) == pytest.approx(0.026 * level, rel=0.02)
    assert abs(float(noise.mean())) < 5 * 0.026 * level / math.sqrt(noise.numel())


@pytest.mark.parametrize("level", [1, 5, 10])
def test_salt_and_pepper_sets_half_of_its_fraction_to_each_extreme(level):
    noisy = parse_shift(f"salt_pepper:{level}")(GRAY, indices=indices(400), seed=3)
    salt, pepper = float((noisy == 1).float().mean()), float((noisy == 0).float().mean())
    spread = 5 * math.sqrt(0.017 * level / 2 / GRAY.numel())
    assert salt == pytest.approx(0.017 * level / 2, abs=spread)
    assert pepper == pytest.approx(0.017 * level / 2, abs=spread)
    assert float((noisy == 0.5).float().mean()) == pytest.approx(1 - salt - pepper)


@pytest.mark.parametrize(("level", "width"), [(4, 32), (10, 32), (10, 16)])
def test_blur_is_scipys_gaussian_filter_at_the_scaled_sigma(level, width):
    images = torch.rand(2, 3, width, width, generator=torch.Generator().manual_seed(0))
    blurred = parse_shift(f"blur:{level}")(images, indices=indices(2), seed=0)
    sigma = 0.2 * level * width / 32
    oracle = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    assert np.abs(blurred.numpy() - oracle).max() < 2e-3


def test_rotation_is_six_degrees_per_level():
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 26:29] = 1.0  # a mark to the right of the center
    turned = parse_shift("rotation:10")(image, indices=indices(1), seed=0)[0, 0]
    row, column = np.average(np.argwhere(turned.numpy() > 0.2) - 16, axis=0)
    assert abs(math.degrees(math.atan2(abs(row), column))) == pytest.approx(60, abs=4)


def test_rotation_preserves_distances_in_rectangular_images():
    image = torch.zeros(1, 1, 41, 81)
    image[..., 20, 52:55] = 1.0
    turned = parse_shift("rotation:5")(image, indices=indices(1), seed=0)[0, 0]
    row, column = np.average(np.argwhere(turned.numpy() > 0.2) - np.array([20, 40]), axis=0)
    assert math.hypot(row, column) == pytest.approx(13, abs=1.0)


@pytest.mark.parametrize("shift_type", [*(name for name in SHIFT_TYPES if name not in LABEL_SHIFTS), "mixture"])
@given(seed=st.integers(0, 10**6), level=st.integers(1, 10))
def test_noise_of_a_sample_depends_only_on_seed_and_index(shift_type, seed, level):
    images = torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    corruption = parse_shift("gaussian:5/blur:3/none" if shift_type == "mixture" else f"{shift_type}:{level}")
    whole = corruption(images, indices=indices(7), seed=seed)
    cut = torch.cat([corruption(images[:3], indices=indices(3), seed=seed),
                     corruption(images[3:], indices=indices(4, 3), seed=seed)])  # fmt: skip
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    shuffled = corruption(images[order], indices=order, seed=seed)
    assert torch.allclose(whole, cut, atol=1e-6)
    assert torch.allclose(whole[order], shuffled, atol=1e-6)
    assert 0.0 <= float(whole.min()) <= float(whole.max()) <= 1.0


def test_noise_is_independent_between_samples_seeds_and_channels():
    noisy = parse_shift("gaussian:5")(torch.full((2, 3, 32, 32), 0.5), indices=indices(2), seed=1)
    other = parse_shift("gaussian:5")(torch.full((2, 3, 32, 32), 0.5), indices=indices(2), seed=2)
    rows = torch.stack([noisy[0, 0], noisy[0, 1], noisy[1, 0], other[0, 0]]).flatten(1)
    correlation = torch.corrcoef(rows) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / math.sqrt(rows.shape[1])


@pytest.mark.parametrize("text", ["rain:1", "blur:0", "blur:11", "blur:-1", "blur:x", "blur", "blur:5/rain:1", ""])
def test_unknown_shift_types_and_levels_are_refused(text):
    with pytest.raises(DataError, match="nearest are|outside 1 to 10"):
        parse_shift(text)


def test_noise_of_the_first_sample_and_pixel_is_not_extreme():
    """Sample 0 at seed 0 once drew the smallest uniform there is at its first pixel."""
    noise = [parse_shift("gaussian:1")(GRAY[:1], indices=indices(1), seed=s)[0, 0, 0, 0] - 0.5 for s in range(400)]
    assert max(map(abs, noise)) < 4.5 * 0.026
    first = parse_shift("gaussian:1")(GRAY, indices=indices(400), seed=0)[:, 0, 0, 0] - 0.5
    assert float(first.std()) == pytest.approx(0.026, rel=0.15)
    assert abs(float(first[0])) < 4.5 * 0.026


def test_contrast_shrinks_around_the_mean_of_each_image():
    images = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    flat = parse_shift("contrast:10")(images, indices=indices(3), seed=0)
    assert torch.allclose(flat.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(flat.std((1, 2, 3)), 0.3 * images.std((1, 2, 3)), atol=1e-6)


@pytest.mark.parametrize(("level", "rarest"), [(5, 30), (10, 3)])
def test_imbalance_is_geometric(level, rarest):
    labels = torch.arange(5).repeat(300)
    rows, left = parse_shift(f"imbalance:{level}").apply_to_labels(labels, indices=indices(1500), seed=2)
    counts = torch.bincount(left)
    assert (int(counts[0]), int(counts[-1])) == (300, rarest)
    assert torch.equal(labels[rows], left)
    assert torch.allclose(counts[1:] / counts[:-1], torch.full((4,), 10 ** (-level / 20)), atol=0.12)
    again, _ = parse_shift(f"imbalance:{level}").apply_to_labels(labels, indices=indices(1500), seed=2)
    other, _ = parse_shift(f"imbalance:{level}").apply_to_labels(labels, indices=indices(1500), seed=3)
    assert torch.equal(rows, again)
    assert not torch.equal(rows, other)


def test_imbalance_keeps_a_sample_of_every_class():
    rows, left = parse_shift("imbalance:10").apply_to_labels(torch.tensor([0, 1, 2, 2]), indices=indices(4), seed=0)
    assert sorted(set(left.tolist())) == [0, 1, 2]
    assert len(rows) == 3


def test_exchange_relabels_classes_cyclically():
    labels = torch.arange(10).repeat(3)
    rows, mild = parse_shift("exchange:1").apply_to_labels(labels, indices=indices(30), seed=0)
    assert rows.tolist() == list(range(30))
    assert mild[:10].tolist() == [1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    _, all_ = parse_shift("exchange:10").apply_to_labels(labels, indices=indices(30), seed=5)
    assert all_[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    _, two = parse_shift("exchange:3").apply_to_labels(torch.tensor([4, 7, 7]), indices=indices(3), seed=0)
    assert two.tolist() == [7, 4, 4]


@pytest.mark.parametrize("level", [1, 10])
def test_relabel_changes_its_share_to_other_classes(level):
    labels = torch.arange(4).repeat(1000) * 3
    rows, relabeled = parse_shift(f"relabel:{level}").apply_to_labels(labels, indices=indices(4000), seed=1)
    changed = relabeled != labels
    assert rows.tolist() == list(range(4000))
    assert float(changed.float().mean()) == pytest.approx(0.05 * level, abs=5 * math.sqrt(0.05 * level / 4000))
    counts = torch.bincount(((relabeled - labels)[changed] // 3) % 4, minlength=4)
    assert int(counts[0]) == 0
    assert torch.allclose(counts[1:] / counts.sum(), torch.full((3,), 1 / 3), atol=5 / math.sqrt(int(counts.sum())))
    _, half = parse_shift(f"relabel:{level}").apply_to_labels(labels[2000:], indices=indices(2000, 2000), seed=1)
    assert torch.equal(half, relabeled[2000:])


def test_label_shifts_are_no_part_of_a_mixture():
    with pytest.raises(DataError, match=r"a label shift cannot be part of a mixture; write \+relabel:LEVEL by itself"):
        parse_shift("relabel:3/none")


@pytest.mark.parametrize(("shift", "channels", "message"), [("jpeg:1", 4, "alpha"), ("desaturate:1", 1, "needs color")])
def test_images_without_the_channels_of_a_corruption_are_refused(shift, channels, message):
    with pytest.raises(DataError, match=message):
        parse_shift(shift)(torch.zeros(1, channels, 8, 8), indices=indices(1), seed=0)
