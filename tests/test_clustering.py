import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from resque.clustering import INITS, adjusted_rand_index, cluster, disagreement
from resque.errors import RepresentationError, SettingError
from resque.indices import resque_task

partitions = st.integers(2, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-2, 6), min_size=n, max_size=n) for _ in range(2)])
)


@given(partitions)
def test_the_adjusted_rand_index_is_scikit_learns(pair):
    assert adjusted_rand_index(*pair) == pytest.approx(adjusted_rand_score(*pair), abs=1e-12)


def test_it_is_right_where_products_of_pair_counts_overflow():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 200_000)
    clusters = np.where(generator.random(200_000) < 0.7, labels, generator.integers(0, 10, 200_000))
    assert adjusted_rand_index(labels, clusters) == pytest.approx(adjusted_rand_score(labels, clusters), abs=1e-12)
    table = np.array([[400_000_000, 100_000_000], [100_000_000, 400_000_000]])
    small = np.array([[4, 1], [1, 4]])
    a, n = table / 1e9, 1e9
    joint, rows = (a**2).sum() - 1 / n, 2 * 0.25 - 1 / n
    expected = 1 - (joint - rows**2 / (1 - 1 / n)) / (rows - rows**2 / (1 - 1 / n))
    assert disagreement(table) == pytest.approx(expected, abs=1e-8)
    assert disagreement(small) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("labels", "clusters", "expected"),
    [([0, 0, 0], [1, 1, 1], 1.0), ([0, 1, 2], [5, 3, 4], 1.0), ([0], [0], 1.0), ([0, 1, 0, 1], [0, 0, 1, 1], -0.5)],
)
def test_borders(labels, clusters, expected):
    assert adjusted_rand_index(labels, clusters) == expected


def blobs(seed, n=300, k=4, width=8, spread=1.5):
    generator = np.random.default_rng(seed)
    y = generator.integers(0, k, n)
    return spread * generator.normal(size=(k, width))[y] + generator.normal(size=(n, width)), y


@given(seed=st.integers(0, 10**6))
def test_class_means_with_lloyd_is_scikit_learns_kmeans_from_them(seed):
    z, y = blobs(seed)
    means = np.stack([z[y == label].mean(0) for label in np.unique(y)])
    oracle = KMeans(len(means), init=means, n_init=1, max_iter=300, tol=0).fit_predict(z)
    assert resque_task(z, y).value == pytest.approx(1 - adjusted_rand_score(y, oracle), abs=1e-12)
    nearest = np.argmin(((z[:, None] - means[None]) ** 2).sum(2), axis=1)
    assert resque_task(z, y, lloyd=False).value == pytest.approx(1 - adjusted_rand_score(y, nearest), abs=1e-12)


@pytest.mark.parametrize("init", INITS)
def test_a_clustering_does_not_depend_on_names_or_on_where_zero_is(init):
    z, y = blobs(3, spread=4.0)
    value = resque_task(z, y, init=init).value
    assert resque_task(z, y * 11 - 7, init=init).value == value
    assert resque_task(z + 1e6, y, init=init).value == pytest.approx(value, abs=1e-9)
    assert resque_task(z * 3, y, init=init).value == pytest.approx(value, abs=1e-9)
    assert value < 0.05 or init == "random"  # least entropy of sizes prefers lopsided clusters


def test_the_random_start_keeps_the_least_entropy_of_20():
    z, y = blobs(5, spread=0.4)
    kept = cluster(z, y, "random", seed=2)

    def entropy(clusters):
        share = np.bincount(clusters) / len(clusters)
        return -(share[share > 0] * np.log(share[share > 0])).sum()

    others = [entropy(cluster(z, y, "k-means++", seed=seed)) for seed in range(10)]
    assert entropy(kept) <= min(others) + 0.05
    assert np.array_equal(kept, cluster(z, y, "random", seed=2))


def test_representations_that_are_all_the_same_and_single_samples():
    assert resque_task(np.ones((6, 2)), [0, 0, 1, 1, 2, 2]).value == pytest.approx(1.0)
    assert resque_task([[1.0], [2.0], [3.0]], [0, 1, 2]).value == 0.0
    assert resque_task([[1.0], [2.0]], [4, 4]).value == 0.0


def test_maps_are_reduced_and_the_result_says_how():
    z, y = blobs(0, width=12)
    index = resque_task(z.reshape(-1, 3, 2, 2), y, reduction="mean")
    assert index.value == resque_task(z.reshape(-1, 3, 4).mean(2), y).value
    assert (index.unit, index.reduction, index.n, index.classes) == ("1 - ARI", "mean", 300, 4)


def test_nonsense_is_refused():
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
    with pytest.raises(RepresentationError, match="partitions of shapes"):
        adjusted_rand_index([0, 1], [0])
