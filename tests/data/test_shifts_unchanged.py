"""The first eleven shift types give the values that stored ledgers were made with."""

import pytest
import torch

from resque.data.shifts import parse_shift

N = 24


def checksum(values: torch.Tensor) -> float:
    """A sum with a weight of its own for each value: any change of a value or of the order changes it."""
    weights = torch.cos(torch.arange(values.numel(), dtype=torch.float64) + 1.0)
    return float((values.double().flatten() * weights).sum())


def images(channels: int) -> torch.Tensor:
    ramp = torch.arange(N * channels * 11 * 14, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(ramp * 0.7)).float().reshape(N, channels, 11, 14)


IMAGES = {
    ("gaussian:2", 1): -1.98514,
    ("gaussian:9", 1): -3.3111,
    ("gaussian:2", 3): -0.67884,
    ("gaussian:9", 3): 2.28701,
    ("blur:2", 1): -0.98152,
    ("blur:9", 1): -0.16016,
    ("blur:2", 3): -2.10448,
    ("blur:9", 3): -1.18702,
    ("salt_pepper:2", 1): -1.17615,
    ("salt_pepper:9", 1): 6.47324,
    ("salt_pepper:2", 3): -13.80301,
    ("salt_pepper:9", 3): -35.62108,
    ("rotation:2", 1): -1.43755,
    ("rotation:9", 1): 1.10766,
    ("rotation:2", 3): -2.61401,
    ("rotation:9", 3): 0.23833,
    ("contrast:2", 1): -0.81287,
    ("contrast:9", 1): -0.22257,
    ("contrast:2", 3): -1.91949,
    ("contrast:9", 3): -1.27203,
    ("jpeg:2", 1): -0.79858,
    ("jpeg:9", 1): 2.18239,
    ("jpeg:2", 3): -3.66975,
    ("jpeg:9", 3): -1.75326,
    ("bit_depth:2", 1): -1.00532,
    ("bit_depth:9", 1): -2.55398,
    ("bit_depth:2", 3): -2.1605,
    ("bit_depth:9", 3): -3.62606,
    ("desaturate:2", 3): -2.75345,
    ("desaturate:9", 3): -5.02487,
    ("gaussian:4/blur:6/none", 1): -2.44636,
    ("gaussian:4/blur:6/none", 3): -1.44155,
}
LABELS = {
    "relabel:2": (400, -416.69632993, 3.91791450),
    "relabel:9": (400, -416.69632993, -23.59437574),
    "exchange:2": (400, -416.69632993, -8.21329270),
    "exchange:9": (400, -416.69632993, -14.16228745),
    "imbalance:2": (267, -196.89012918, 54.73148932),
    "imbalance:9": (112, -222.23713821, -26.66833260),
}


@pytest.mark.parametrize(("shift", "channels"), IMAGES)
def test_image_corruption_is_unchanged(shift, channels):
    shifted = parse_shift(shift)(images(channels), indices=torch.arange(N) * 3, seed=7)
    assert checksum(shifted) == pytest.approx(IMAGES[shift, channels], abs=1e-4)


@pytest.mark.parametrize("shift", LABELS)
def test_label_shift_is_unchanged(shift):
    labels = torch.arange(400) * 7 % 10
    rows, left = parse_shift(shift).apply_to_labels(labels, indices=torch.arange(400), seed=7)
    assert (len(rows), checksum(rows), checksum(left)) == pytest.approx(LABELS[shift], abs=1e-6)
