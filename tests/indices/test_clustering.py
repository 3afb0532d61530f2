import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from resque.errors import RepresentationError, SettingError
from resque.indices.clustering import INITS, cluster_representations, contingency_table, one_minus_ari
from resque.indices.nearest_mean import NearestMeanAssignment, NearestPoint
from resque.indices.profile import Profile
from resque.indices.task import resque_task

partitions = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-2, 6), min_size=n, max_size=n) for _ in range(2)])
)


def adjusted_rand_index(labels, clusters):
    return 1.0 - one_minus_ari(contingency_table(np.asarray(labels), np.asarray(clusters)))


@given(partitions)
def test_adjusted_rand_index_matches_scikit_learn(pair):
    assert adjusted_rand_index(*pair) == pytest.approx(adjusted_rand_score(*pair), abs=1e-12)


def test_adjusted_rand_index_is_exact_where_products_of_pair_counts_overflow_int64():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 200_000)
    clusters = np.where(generator.random(200_000) < 0.7, labels, generator.integers(0, 10, 200_000))
    assert adjusted_rand_index(labels, clusters) == pytest.approx(adjusted_rand_score(labels, clusters), abs=1e-12)
    table = np.array([[400_000_000, 100_000_000], [100_000_000, 400_000_000]])
    small = np.array([[4, 1], [1, 4]])
    a, n = table / 1e9, 1e9
    joint, rows = (a**2).sum() - 1 / n, 2 * 0.25 - 1 / n
    expected = 1 - (joint - rows**2 / (1 - 1 / n)) / (rows - rows**2 / (1 - 1 / n))
    assert one_minus_ari(table) == pytest.approx(expected, abs=1e-8)
    assert one_minus_ari(small) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("labels", "clusters", "expected"),
    [([0, 0, 0], [1, 1, 1], 1.0), ([0, 1, 2], [5, 3, 4], 1.0), ([0], [0], 1.0), ([0, 1, 0, 1], [0, 0, 1, 1], -0.5)],
)
def test_adjusted_rand_index_of_extreme_partitions(labels, clusters, expected):
    assert adjusted_rand_index(labels, clusters) == expected


def blobs(seed, n=300, k=4, width=8, spread=1.5):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, k, n)
    return spread * generator.normal(size=(k, width))[y] + generator.normal(size=(n, width)), y


@given(seed=st.integers(0, 10**6))
def test_class_means_init_matches_scikit_learns_kmeans(seed):
    z, y = blobs(seed)
    means = np.stack([z[y == label].mean(0) for label in np.unique(y)])
    oracle = KMeans(len(means), init=means, n_init=1, max_iter=300, tol=0).fit_predict(z)
    assert resque_task(z, y).value == pytest.approx(1 - adjusted_rand_score(y, oracle), abs=1e-12)
    nearest = np.argmin(((z[:, None] - means[None]) ** 2).sum(2), axis=1)
    assert resque_task(z, y, lloyd=False).value == pytest.approx(1 - adjusted_rand_score(y, nearest), abs=1e-12)


@pytest.mark.parametrize("init", INITS)
def test_index_does_not_depend_on_label_values_translation_or_scale(init):
    z, y = blobs(3, spread=4.0)
    value = resque_task(z, y, init=init).value
    assert resque_task(z, y * 11 - 7, init=init).value == value
    assert resque_task(z + 1e6, y, init=init).value == pytest.approx(value, abs=1e-9)
    assert resque_task(z * 3, y, init=init).value == pytest.approx(value, abs=1e-9)
    assert value < 0.05 or init == "random"  # least entropy of sizes prefers lopsided clusters


def test_random_init_keeps_the_least_size_entropy_of_20():
    z, y = blobs(5, spread=0.4)
    kept = cluster_representations(z.copy(), y, "random", seed=2)

    others = [
        entropy(np.bincount(cluster_representations(z.copy(), y, "k-means++", seed=seed)) / 300) for seed in range(10)
    ]
    assert entropy(np.bincount(kept) / 300) <= min(others) + 0.05
    assert np.array_equal(kept, cluster_representations(z.copy(), y, "random", seed=2))


def test_index_of_identical_representations_is_1_and_of_single_samples_0():
    assert resque_task(np.ones((6, 2)), [0, 0, 1, 1, 2, 2]).value == pytest.approx(1.0)
    assert resque_task([[1.0], [2.0], [3.0]], [0, 1, 2]).value == 0.0
    assert resque_task([[1.0], [2.0]], [4, 4]).value == 0.0


def test_feature_maps_are_reduced_and_the_result_names_the_reduction():
    z, y = blobs(0, width=12)
    index = resque_task(z.reshape(-1, 3, 2, 2), y, reduction="mean")
    assert index.value == resque_task(z.reshape(-1, 3, 4).mean(2), y).value
    assert (index.unit, index.reduction, index.n, index.classes) == ("1 - ARI", "mean", 300, 4)


def test_invalid_input_raises():
    z, y = blobs(0)
    with pytest.raises(SettingError, match="use one of class-means"):
        resque_task(z, y, init="best")
    with pytest.raises(SettingError, match="without Lloyd"):
        resque_task(z, y, init="random", lloyd=False)
    with pytest.raises(RepresentationError, match="NaN or infinity"):
        resque_task(np.full_like(z, np.nan), y)
    with pytest.raises(RepresentationError, match="expected integers"):
        resque_task(z, y + 0.5)
    with pytest.raises(RepresentationError, match="empty"):
        resque_task(np.zeros((0, 2)), [])


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 90), max_size=4))
def test_nearest_mean_assignment_does_not_depend_on_batches_and_merges(seed, cuts):
    z, y = blobs(seed, n=90, k=3)
    means = Profile.from_arrays(z, y)
    whole, streamed, merged = (NearestMeanAssignment.to_profile(means) for _ in range(3))
    whole.add(torch.from_numpy(z), torch.from_numpy(y))
    edges = [0, *sorted(cuts), 90]
    for start, stop in zip(edges, edges[1:], strict=False):
        part = torch.from_numpy(z[start:stop]), torch.from_numpy(y[start:stop])
        streamed.add(*part)
        alone = NearestMeanAssignment.to_profile(means)
        alone.add(*part)
        merged = merged + alone
    assert torch.equal(streamed.table, whole.table)
    assert torch.equal(merged.table, whole.table)
    assert whole.one_minus_ari == resque_task(z, y, lloyd=False).value


def test_assignments_to_different_means_cannot_be_added():
    z, y = blobs(0)
    one, other = (NearestMeanAssignment.to_profile(Profile.from_arrays(z + shift, y)) for shift in (0, 1))
    with pytest.raises(RepresentationError, match="different class means"):
        one + other
    one.add(torch.from_numpy(z[:2]), torch.tensor([y[0], 99]))
    with pytest.raises(RepresentationError, match="1 sample\\(s\\) with NaN or infinity, or of none"):
        _ = one.one_minus_ari


@given(seed=st.integers(0, 10**6), offset=st.sampled_from([0.0, 1.0, 1e8]))
def test_nearest_point_is_exact_for_ties(seed, offset):
    """Rows on a grid, many exactly halfway between two means: the first of equals counts."""
    generator = np.random.default_rng(seed)
    means = generator.integers(-2, 3, size=(6, 3)).astype(float) + offset
    rows = generator.integers(-4, 5, size=(80, 3)) / 2 + offset
    exact = ((rows[:, None] - means[None]) ** 2).sum(2).argmin(1)
    assert np.array_equal(NearestPoint(torch.from_numpy(means)).nearest(torch.from_numpy(rows)).numpy(), exact)


def test_init_all_gives_three_indices_and_their_agreement():
    z, y = blobs(1, spread=1.0)
    result = resque_task(z, y, init="all")
    assert result.by_init == {init: resque_task(z, y, init=init).value for init in INITS}
    assert result.value == result.by_init["class-means"]
    clusters = {init: cluster_representations(z.copy(), y, init) for init in INITS}
    for pair, agreement in result.agreement.items():
        one, other = pair.split(" / ")
        assert agreement == pytest.approx(adjusted_rand_score(clusters[one], clusters[other]), abs=1e-12)
    assert len(result.agreement) == 3


def test_keep_chooses_the_random_clustering_by_sizes_or_by_labels():
    z, y = blobs(5, spread=0.6)
    by_sizes, by_labels = (cluster_representations(z.copy(), y, "random", keep=keep) for keep in ("sizes", "labels"))

    def within(clusters):
        return np.mean([entropy(np.bincount(clusters[y == label]) / (y == label).sum()) for label in y])

    assert within(by_labels) < within(by_sizes)
    assert entropy(np.bincount(by_sizes) / 300) <= entropy(np.bincount(by_labels) / 300)
    assert resque_task(z, y, init="random", keep="labels").keep == "labels"
    assert resque_task(z, y).keep == ""
    with pytest.raises(SettingError, match="use 'sizes' or 'labels'"):
        resque_task(z, y, init="random", keep="best")


def entropy(share):
    return -(share[share > 0] * np.log(share[share > 0])).sum()


def test_representations_of_the_caller_are_not_changed():
    z, y = blobs(2)
    before = z.copy()
    for options in ({}, {"lloyd": False}, {"init": "all"}):
        resque_task(z, y, **options)
        assert np.array_equal(z, before)


@pytest.mark.parametrize("lloyd", [True, False])
@pytest.mark.parametrize("exponent", [-1000, -300, 300, 1000])
def test_index_does_not_depend_on_extreme_scales(lloyd, exponent):
    generator = np.random.default_rng(5)
    rows, labels = generator.normal(size=(60, 5)) + np.arange(60)[:, None] % 3, np.arange(60) % 3
    assert resque_task(np.ldexp(rows, exponent), labels, lloyd=lloyd) == resque_task(rows, labels, lloyd=lloyd)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("points", [[[0.0, 0.0]], [[0.0, 0.0], [5.0, 5.0]]])
def test_reading_an_assignment_with_nan_or_infinity_raises(points, value):
    assignment = NearestMeanAssignment.to_means(torch.arange(len(points)), torch.tensor(points, dtype=torch.float64))
    assignment.add(torch.tensor([[1.0, 1.0], [value, 0.0]]), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RepresentationError, match="1 sample.*NaN"):
        _ = assignment.one_minus_ari


def test_empty_assignment_and_wrong_width_raise():
    assignment = NearestMeanAssignment.to_means(torch.tensor([0, 1]), torch.tensor([[0.0], [5.0]], dtype=torch.float64))
    assert assignment.means.nearest(torch.zeros(0, 1)).tolist() == []
    with pytest.raises(RepresentationError, match="no sample"):
        _ = assignment.one_minus_ari
    with pytest.raises(RepresentationError, match="width 2.*width 1"):
        assignment.add(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range_raises(seed):
    with pytest.raises(SettingError, match="seed"):
        resque_task([[0.0], [1.0]], [0, 1], init="k-means++", seed=seed)


@given(seed=st.integers(0, 10**6), values=st.integers(2, 4), init=st.sampled_from(["class-means", "k-means++"]))
def test_index_matches_scikit_learn_on_ties(seed, values, init):
    generator = np.random.default_rng(seed)
    rows, labels = generator.integers(0, values, (24, 2)).astype(float), np.arange(24) % 3
    start = np.stack([rows[labels == c].mean(0) for c in range(3)]) if init == "class-means" else init
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct samples than clusters
        expected = KMeans(3, init=start, n_init=1, max_iter=300, tol=0, random_state=0).fit_predict(rows)
    assert resque_task(rows, labels, init=init).value == pytest.approx(
        1 - adjusted_rand_score(labels, expected), abs=1e-12
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_is_nearest_to_nothing(bad):
    search = NearestPoint(torch.tensor([[0.0, 0.0], [5.0, 5.0]], dtype=torch.float64))
    assert search.nearest(torch.tensor([[4.0, 4.0], [bad, 0.0], [1.0, 0.0]])).tolist() == [1, -1, 0]


def test_every_seed_of_32_bits_is_taken_and_no_other():
    z, y = np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([0, 0, 1, 1])
    for seed in (0, 1000, 2**32 - 1):
        assert resque_task(z, y, init="k-means++", seed=seed).value == 0.0
    for seed in (-1, 2**32):
        with pytest.raises(SettingError, match="expected 0 to 4294967295"):
            resque_task(z, y, init="k-means++", seed=seed)
