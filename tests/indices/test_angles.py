"""Closed forms of the debiased estimate where all classes weigh alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.indices import angles

COSINES = st.lists(st.floats(-0.8, 0.8), min_size=2, max_size=8).map(np.array)


@given(cosines=COSINES, weight=st.floats(0.1, 10.0), noise=st.floats(0.0, 0.5))
def test_variance_between_classes_of_equal_weight_is_their_variance_less_the_noise(cosines, weight, noise):
    found = angles._variance_between(cosines, np.full(len(cosines), weight), noise)
    assert found == pytest.approx(max(0.0, cosines.var(ddof=1) - noise / weight), abs=1e-12)


@pytest.mark.parametrize("noise", [0.0004, 0.02, 0.5])
@pytest.mark.parametrize("cosines", [(0.1, 0.3, 0.35, 0.6), (0.7, 0.95, 0.99, 1.02), (-0.7, -0.95, -1.02)])
def test_interval_of_classes_of_equal_weight_is_that_of_their_mean(monkeypatch, cosines, noise):
    cosines, weight, level = np.array(cosines), 2.0, 0.9
    n, squares = len(cosines), np.array([[0.5, 1.5], [1.0, 1.0], [0.2, 1.8], [1.4, 0.6]])[: len(cosines)] * noise / 2
    made = iter(zip(cosines, [weight] * n, map(tuple, squares), strict=True))
    monkeypatch.setattr(angles, "_unbiased_cosine", lambda original, shifted: next(made))
    found = angles.estimate_debiased([(None, None)] * n, level)
    pooled = squares.sum(1).mean() / weight
    between = max(0.0, cosines.var(ddof=1) - pooled)
    kept = between / (between + pooled)
    shrunk = cosines.mean() + kept * (cosines - cosines.mean())
    assert found.per_class == pytest.approx(np.arccos(np.clip(shrunk, -1.0, 1.0)))
    reach = angles._t_quantile(list(squares.ravel()), level) * np.sqrt(pooled / n)  # each class has a share of 1 / n
    low, high = (np.arccos(np.clip(shrunk + side * reach, -1.0, 1.0)).mean() for side in (1.0, -1.0))
    assert (found.low, found.high) == pytest.approx((0.0 if shrunk.mean() + reach >= 1.0 else low, high))


def test_classes_of_unequal_weight_keep_unequal_shares_of_their_own_cosine(monkeypatch):
    """Random effects by DerSimonian and Laird, written out for three classes."""
    cosines, weights, noise = np.array([0.2, 0.5, 0.9]), np.array([1.0, 2.0, 4.0]), 0.02
    made = iter([(cosine, weight, (noise / 2, noise / 2)) for cosine, weight in zip(cosines, weights, strict=True)])
    monkeypatch.setattr(angles, "_unbiased_cosine", lambda original, shifted: next(made))
    found = angles.estimate_debiased([(None, None)] * 3, 0.9)
    center = (0.2 + 2 * 0.5 + 4 * 0.9) / 7
    surplus = (0.2 - center) ** 2 + 2 * (0.5 - center) ** 2 + 4 * (0.9 - center) ** 2 - 2 * noise
    between = surplus / (7 - 21 / 7)
    precisions = [1 / (between + noise / weight) for weight in weights]
    middle = sum(p * c for p, c in zip(precisions, cosines, strict=True)) / sum(precisions)
    kept = [between * p for p in precisions]
    expected = [np.arccos(middle + k * (c - middle)) for k, c in zip(kept, cosines, strict=True)]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
