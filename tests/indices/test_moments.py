"""Streamed second moments against numpy and scikit-learn on all samples at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage

from resque.errors import RepresentationError
from resque.indices.baselines.moments import Moments


def drawn(n, d, classes, seed, offset=0.0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n) * 3 - 1
    scales = generator.uniform(0.2, 3.0, d)
    return generator.normal(0, 1, (n, d)) * scales + labels[:, None] * 0.3 + offset, labels


def streamed(rows, labels, cuts=()):
    moments = Moments(np.unique(labels))
    for part in np.split(np.arange(len(rows)), sorted(cuts)):
        moments.update(rows[part], labels[part])
    return moments


def check(moments, rows, labels, rel=1e-9):
    seen = np.unique(labels)
    assert moments.mean == pytest.approx(rows.mean(0), rel=rel)
    assert moments.means == pytest.approx(np.stack([rows[labels == k].mean(0) for k in seen]), rel=rel)
    variances = np.stack([rows[labels == k].var(0) for k in seen])
    assert moments.variances == pytest.approx(variances, rel=rel, abs=1e-9)
    covariance = np.cov(rows.T, bias=True)
    assert np.abs(moments.covariance - covariance).max() <= rel * np.abs(covariance).max()
    means = np.stack([rows[labels == k].mean(0) for k in labels])
    between = np.cov(means.T, bias=True)
    assert np.abs(moments.covariance_of_means - between).max() <= rel * max(1.0, np.abs(between).max())
    about = np.full(rows.shape[1], 0.7)
    products = np.stack([(rows[labels == k] - about).T @ (rows[labels == k] - about) for k in seen])
    assert np.abs(moments.products_about(about) - products).max() <= rel * np.abs(products).max()
    assert moments.shrinkage == pytest.approx(ledoit_wolf_shrinkage(rows), rel=1e-6, abs=1e-9)


@given(st.integers(6, 60), st.integers(2, 8), st.integers(1, 4), st.integers(0, 10**6), st.lists(st.integers(1, 59)))
def test_any_cut_of_the_stream_gives_the_same_result(n, d, classes, seed, cuts):
    rows, labels = drawn(n, d, classes, seed)
    moments = Moments(np.unique(labels))
    for part in np.split(np.arange(n), sorted({cut for cut in cuts if cut < n})):
        moments.update(rows[part], labels[part])
    check(moments, rows, labels)


def test_large_mean_does_not_reduce_the_precision_of_the_covariance():
    rows, labels = drawn(500, 4, 3, 0)
    near, far = streamed(rows, labels, (100, 300)), streamed(rows + 1e8, labels, (100, 300))
    assert np.abs(near.covariance - far.covariance).max() < 1e-6
    assert near.shrinkage == pytest.approx(far.shrinkage, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([[1.0, np.nan]], [0], "finite"),
        ([1.0, 2.0], [0, 1], "finite|expected"),
        ([[1.0, 2.0]], [9], "none of the classes"),
    ],
)
def test_invalid_input_raises(rows, labels, message):
    with pytest.raises(RepresentationError, match=message):
        Moments([0, 1]).update(rows, labels)


def test_empty_moments_and_changed_width_raise():
    moments = Moments([0])
    for name in ("mean", "means", "covariance"):
        with pytest.raises(RepresentationError, match="no representations yet"):
            getattr(moments, name)
    moments.update([[1.0, 2.0]], [0])
    with pytest.raises(RepresentationError, match="width 3 after some of width 2"):
        moments.update([[1.0, 2.0, 3.0]], [0])


def test_declared_class_without_samples_has_no_products():
    rows, labels = drawn(40, 3, 2, 0)
    moments = Moments([*np.unique(labels), 99])
    moments.update(rows, labels)
    assert moments.products_about(np.zeros(3)).shape == (2, 3, 3)
    check(moments, rows, labels)
