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
    """Compare with the samples; ``moments`` keep products by class."""
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
    assert np.abs(np.stack(list(moments.class_products_about(about))) - products).max() <= rel * np.abs(products).max()
    pooled = products.sum(0)
    assert np.abs(moments.products_about(about) - pooled).max() <= rel * np.abs(pooled).max()
    assert moments.shrinkage == pytest.approx(ledoit_wolf_shrinkage(rows), rel=1e-6, abs=1e-9)


@given(st.integers(6, 60), st.integers(2, 8), st.integers(1, 4), st.integers(0, 10**6), st.lists(st.integers(1, 59)))
def test_any_cut_of_the_stream_gives_the_same_result(n, d, classes, seed, cuts):
    rows, labels = drawn(n, d, classes, seed)
    moments, pooled = (Moments(np.unique(labels), by_class) for by_class in (True, False))
    for part in np.split(np.arange(n), sorted({cut for cut in cuts if cut < n})):
        moments.update(rows[part], labels[part])
        pooled.update(rows[part], labels[part])
    check(moments, rows, labels)
    for name in ("covariance", "variances", "means", "counts"):
        assert np.allclose(getattr(pooled, name), getattr(moments, name), rtol=1e-9, atol=1e-9), name
    assert pooled.shrinkage == pytest.approx(moments.shrinkage, rel=1e-6, abs=1e-9)


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
    assert (moments.width, moments.n) == (0, 0)
    moments.update([[1.0, 2.0]], [0])
    with pytest.raises(RepresentationError, match="width 3 after some of width 2"):
        moments.update([[1.0, 2.0, 3.0]], [0])


def test_declared_class_without_samples_has_no_products():
    rows, labels = drawn(40, 3, 2, 0)
    moments = Moments([*np.unique(labels), 99], by_class=True)
    moments.update(rows, labels)
    assert len(list(moments.class_products_about(np.zeros(3)))) == 2
    check(moments, rows, labels)


@pytest.mark.parametrize("classes", [1, 10, 200])
def test_memory_grows_by_a_row_per_class_unless_products_by_class_are_asked_for(classes):
    """Counts, sums and squares by class, and d × d products: with 200 classes, 200 times fewer numbers of products."""
    width = 32
    for by_class, products in ((False, 1), (True, classes)):
        moments = Moments(range(classes), by_class)
        moments.update(np.ones((5, width)), np.zeros(5, dtype=int))
        numbers = sum(values.numel() for values in vars(moments._totals).values())
        assert numbers <= products * width**2 + classes * (2 * width + 1) + 2 * width + 3


def test_products_by_class_that_were_not_asked_for_raise():
    moments = streamed(*drawn(40, 3, 2, 0))
    with pytest.raises(RepresentationError, match="by_class=True"):
        next(moments.class_products_about(np.zeros(3)))
