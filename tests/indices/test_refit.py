"""A head refit from sums is that of scikit-learn and of the study, which keep all features."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from resque.errors import RepresentationError
from resque.indices.baselines.refit import PENALTIES, RefitSums

SEEDS = st.integers(0, 2**20)


def draw(seed, n=60, d=5, classes=3, mean=3.0):
    """Features whose scales and means differ, with classes that lie apart; labels are 10, 11, …"""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, max(0, n - classes))])[:n]
    rows = (random.normal(size=(n, d)) + random.normal(size=(classes, d))[labels]) * 10.0 ** random.uniform(-1, 2, d)
    return torch.from_numpy(rows + random.normal(size=d) * mean), torch.from_numpy(labels + 10)


def sums_of(rows, labels, cuts=(), classes=3):
    sums = RefitSums(range(10, 10 + classes))
    edges = [0, *sorted(cuts), len(rows)]
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            sums.update(rows[start:stop], labels[start:stop])
    return sums


def one_hot(labels, classes=3):
    return np.eye(classes)[labels.numpy() - 10]


@settings(max_examples=40)
@given(
    seed=SEEDS,
    factor=st.sampled_from(PENALTIES),
    n=st.sampled_from([4, 6, 60]),
    cuts=st.lists(st.integers(1, 59), max_size=4),
    mean=st.sampled_from([0.0, 3.0, 1e4]),
)
def test_a_head_is_the_ridge_regression_of_scikit_learn(seed, factor, n, cuts, mean):
    """Also with fewer samples than features, with means far from zero, and however the stream is cut."""
    rows, labels = draw(seed, n, mean=mean)
    head = sums_of(rows, labels, [cut for cut in cuts if cut < n]).head([factor])
    expected = Ridge(alpha=head.penalty, solver="svd").fit(rows.numpy(), one_hot(labels))
    mine = (rows @ head.weight.T + head.bias).numpy()
    assert np.allclose(mine, expected.predict(rows.numpy()), rtol=0.0, atol=1e-8)
    assert head.predict(rows).tolist() == (mine.argmax(1) + 10).tolist()


@settings(max_examples=40)
@given(seed=SEEDS, n=st.sampled_from([4, 5, 6, 7, 60]))
def test_the_penalty_has_the_smallest_error_by_generalized_cross_validation(seed, n):
    rows, labels = draw(seed, n)
    centered, targets = rows.numpy() - rows.numpy().mean(0), one_hot(labels)
    head = sums_of(rows, labels).head()
    errors = {}
    for factor in PENALTIES:
        penalty = factor * (np.linalg.svd(centered, compute_uv=False) ** 2).mean()
        hat = centered @ np.linalg.solve(centered.T @ centered + penalty * np.eye(5), centered.T) + 1.0 / n
        residuals = targets - hat @ targets
        errors[penalty] = (residuals**2).sum() / np.trace(np.eye(n) - hat) ** 2
    chosen = min(errors, key=lambda penalty: abs(np.log(penalty / head.penalty)))
    assert head.penalty == pytest.approx(chosen, rel=1e-6)
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-4)


@given(seed=SEEDS)
def test_a_class_without_samples_and_a_feature_that_is_constant_change_nothing(seed):
    rows, labels = draw(seed)
    plain = sums_of(rows, labels).head()
    wider = torch.cat([rows, torch.full((len(rows), 2), 7.0, dtype=torch.float64)], 1)
    head = sums_of(wider, labels, classes=4).head([plain.penalty / (plain_scale(wider))])
    assert head.predict(wider).tolist() == plain.predict(rows).tolist()
    assert torch.allclose(head.weight[:3, :5], plain.weight, atol=1e-8)
    assert float(head.weight[:, 5:].abs().max()) == 0.0


def plain_scale(rows):
    return float(((rows - rows.mean(0)) ** 2).sum()) / rows.shape[1]


@pytest.mark.parametrize("rows", [torch.ones(6, 4), torch.zeros(1, 4)])
def test_features_without_any_spread_predict_the_most_frequent_class(rows):
    labels = torch.tensor([12, 12, 12, 10, 11, 11])[: len(rows)]
    head = sums_of(rows, labels).head()
    assert head.predict(rows).unique().tolist() == [12]
    assert bool(torch.isfinite(head.weight).all())


def test_what_cannot_be_solved_is_an_error():
    with pytest.raises(RepresentationError, match="at least one batch"):
        RefitSums([0, 1]).head()
    with pytest.raises(RepresentationError, match="NaN or infinity"):
        sums_of(torch.full((4, 2), torch.inf), torch.tensor([10, 11, 12, 10])).head()


def test_float32_rows_of_a_network_are_summed_in_float64():
    rows, labels = draw(0, 200)
    rows = rows.float()
    assert torch.equal(sums_of(rows, labels).head().weight, sums_of(rows.double(), labels).head().weight)
