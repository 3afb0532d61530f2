"""Every baseline against its definition on all samples at once, and known traps of other implementations."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.metrics import mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from resque.data.shifts import parse_shift
from resque.errors import DataError, RepresentationError
from resque.indices.baselines.model_outputs import collect_outputs
from resque.indices.baselines.moments import Moments
from resque.indices.baselines.scores import SHIFT_DISTANCES, TRANSFERABILITY, baseline_scores
from resque.indices.baselines.transferability import (
    average_thresholded_confidence,
    frechet_distance,
    gbc,
    h_score,
    knn_accuracy,
    leep,
    linear_mmd,
    logme,
    nce,
    shrunk_h_score,
    transrate,
)
from resque.training.evaluation import evaluate
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES
from resque.training.retrain import retrain


def drawn(n=120, d=6, classes=3, apart=1.0, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.array([0, 1, 4, 9])[generator.integers(0, classes, n)]
    directions = generator.normal(0, apart, (10, d))
    return generator.normal(0, 1, (n, d)) * generator.uniform(0.3, 2, d) + directions[labels] + 3.0, labels


def moments_of(rows, labels, by_class=False):
    moments = Moments(np.unique(labels), by_class)
    for part in np.array_split(np.arange(len(rows)), 4):
        moments.update(rows[part], labels[part])
    return moments


def means_of(rows, labels):
    return np.stack([rows[labels == label].mean(0) for label in labels])


@pytest.fixture
def data():
    return drawn()


def test_h_score_matches_its_definition(data):
    rows, _ = data
    between, whole = np.cov(means_of(*data).T, bias=True), np.cov(rows.T, bias=True)
    assert h_score(moments_of(*data)) == pytest.approx(np.trace(np.linalg.pinv(whole) @ between), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1e3, 1e6])
@pytest.mark.parametrize("score", [h_score, shrunk_h_score, gbc])
def test_separability_does_not_depend_on_the_unit_of_the_features(score, scale):
    """Also where a feature does not vary within a class, so that a floor stands in for its variance."""
    rows, labels = drawn()
    rows[:, 0] = 1e-4 * labels
    assert score(moments_of(scale * rows, labels)) == pytest.approx(score(moments_of(rows, labels)), rel=1e-6)


def test_h_score_is_maximal_on_noise_with_few_samples_but_shrunk_h_score_is_not():
    rows, _ = drawn(n=30, d=40)
    labels = np.arange(30) % 3
    assert h_score(moments_of(rows, labels)) == pytest.approx(2.0, abs=1e-6)
    assert shrunk_h_score(moments_of(rows, labels)) < 1.0


def test_shrunk_h_score_matches_scikit_learns_ledoit_wolf(data):
    rows, labels = data
    fitted = LedoitWolf().fit(rows)
    between = (1 - fitted.shrinkage_) * np.cov(means_of(rows, labels).T, bias=True)
    assert shrunk_h_score(moments_of(*data)) == pytest.approx(np.trace(np.linalg.inv(fitted.covariance_) @ between))


@pytest.mark.parametrize(("n", "d"), [(120, 6), (20, 30)])
def test_logme_is_the_maximal_evidence(n, d):
    """Oracle: the marginal likelihood y ~ N(0, I / beta + F F^T / alpha), maximized numerically."""
    rows, labels = drawn(n=n, d=d)

    def best(y):
        def lost(logs):
            covariance = np.eye(n) / np.exp(logs[1]) + rows @ rows.T / np.exp(logs[0])
            return -multivariate_normal(np.zeros(n), covariance).logpdf(y) / n

        starts = ([0.0, 0.0], [3.0, 3.0], [1.0, 5.0])
        return -min(minimize(lost, start, method="Nelder-Mead", options={"maxiter": 600}).fun for start in starts)

    expected = np.mean([best((labels == label).astype(float)) for label in np.unique(labels)])
    assert logme(moments_of(rows, labels)) == pytest.approx(expected, abs=2e-3)


def test_logme_does_not_depend_on_gaps_in_the_labels(data):
    rows, labels = data
    renumbered = np.unique(labels, return_inverse=True)[1]
    assert logme(moments_of(rows, labels)) == logme(moments_of(rows, renumbered))


def test_transrate_matches_its_definition(data):
    rows, labels = data
    centered = rows - rows.mean(0)

    def rate(part):
        return 0.5 * np.linalg.slogdet(np.eye(6) + part.T @ part / (len(part) * 1e-4))[1]

    expected = rate(centered) - sum(np.mean(labels == k) * rate(centered[labels == k]) for k in np.unique(labels))
    assert transrate(moments_of(*data, by_class=True)) == pytest.approx(expected, rel=1e-9)


def test_gbc_is_the_log_of_the_published_form_and_does_not_underflow(data):
    rows, labels = data
    total = 0.0
    for one in np.unique(labels):
        for other in np.unique(labels):
            if one != other:
                a, b = rows[labels == one], rows[labels == other]
                variance = (a.var(0) + b.var(0)) / 2
                distance = ((a.mean(0) - b.mean(0)) ** 2 / variance).sum() / 8
                distance += 0.5 * np.log(variance / np.sqrt(a.var(0) * b.var(0))).sum()
                total += np.exp(-distance)
    assert gbc(moments_of(*data)) == pytest.approx(-np.log(total), rel=1e-9)
    far, farther = (gbc(moments_of(*drawn(apart=apart))) for apart in (100.0, 1000.0))
    assert np.isfinite(farther)
    assert farther > far > 745  # where exp underflows
    with pytest.raises(RepresentationError, match="two classes"):
        gbc(moments_of(rows, np.zeros(len(rows), dtype=int)))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_distances_match_their_definitions(data, scale):
    one, other = ((scale * rows, labels) for rows, labels in (data, drawn(seed=1, n=90)))
    a, b = np.cov(one[0].T, bias=True), np.cov(other[0].T, bias=True)
    shift = ((one[0].mean(0) - other[0].mean(0)) ** 2).sum()
    expected = shift + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(moments_of(*one), moments_of(*other)) == pytest.approx(expected, rel=1e-8)
    assert linear_mmd(moments_of(*one), moments_of(*other)) == pytest.approx(shift)
    assert frechet_distance(moments_of(*one), moments_of(*one)) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(RepresentationError, match="widths 6 and 5"):
        linear_mmd(moments_of(*one), moments_of(*drawn(d=5)))


@given(st.integers(2, 60), st.integers(2, 40), st.integers(1, 30), st.integers(0, 20), st.integers(0, 10**6))
def test_frechet_distance_holds_for_any_rank_and_in_both_orders(n, m, d, rank, seed):
    """Oracle: tr (S S')^(1/2) is the sum of the singular values of the products of the samples, / sqrt(n m)."""
    generator = np.random.default_rng(seed)
    rows = [generator.normal(0, 2, (size, d)) @ generator.normal(0, 1, (d, d)) + 3.0 for size in (n, m)]
    rows[0][:, rank:] = 1.5  # features without variance
    first, second = (moments_of(x, np.zeros(len(x), dtype=int)) for x in rows)
    centered = [x - x.mean(0) for x in rows]
    cross = np.linalg.svd(centered[0] @ centered[1].T, compute_uv=False).sum() / np.sqrt(n * m)
    spread = sum((x**2).sum() / len(x) for x in centered)
    expected = ((rows[0].mean(0) - rows[1].mean(0)) ** 2).sum() + spread - 2.0 * cross
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9, abs=1e-9 * spread)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9, abs=1e-9 * spread)


SCORES_OF_TASKS = {"mean confidence", "NCE", "LEEP", "k-NN accuracy", *TRANSFERABILITY}
NEW_LABELS = {
    "beyond the outputs": lambda labels: labels + 7,
    "with gaps": lambda labels: labels**3,
    "all beyond": lambda labels: labels + 1000,
    "negative": lambda labels: labels - 5,
    "that a loss would ignore": lambda labels: torch.where(labels == 3, -100, labels),
    "of two classes": lambda labels: labels % 2 + 40,
    "one class a sample": lambda labels: torch.arange(len(labels)),
}


@pytest.mark.parametrize("renumber", NEW_LABELS.values(), ids=NEW_LABELS)
def test_scores_of_features_and_labels_do_not_depend_on_the_outputs_of_the_model(small, cnn, renumber):
    """A loss of labels that the model has no output for once ended the pass with an IndexError."""
    test = small[1].take(torch.arange(60))
    task = dataclasses.replace(test, labels=renumber(test.labels))
    outputs = collect_outputs(cnn, task, by_class=True)
    scores = baseline_scores(outputs, collect_outputs(cnn, test))
    assert set(scores) == SCORES_OF_TASKS | set(SHIFT_DISTANCES)
    assert all(np.isfinite(score.value) for score in scores.values())
    numbered = torch.unique(task.labels, return_inverse=True)[1]
    wide = nn.Sequential(cnn[:-1], nn.Linear(64, 60))  # a model that has an output for each of the classes
    same = baseline_scores(collect_outputs(wide, dataclasses.replace(test, labels=numbered), by_class=True))
    for name in {*TRANSFERABILITY, "k-NN accuracy"}:
        assert scores[name].value == pytest.approx(same[name].value, rel=1e-12), name
    assert scores["NCE"].value == nce(outputs.predicted, numbered.numpy())
    assert scores["LEEP"].value == leep(outputs.probabilities, numbered.numpy())
    assert outputs.loss is None
    with pytest.raises(DataError, match="the model has 10 outputs: accuracy needs labels among them"):
        _ = outputs.accuracy


@pytest.mark.parametrize(("labels", "message"), [([25, 25, 25], "two classes"), ([25], "two samples")])
def test_task_too_small_for_a_score_raises(small, cnn, labels, message):
    task = dataclasses.replace(small[1].take(torch.arange(len(labels))), labels=torch.tensor(labels))
    outputs = collect_outputs(cnn, task)
    with pytest.raises(RepresentationError, match=message):
        baseline_scores(outputs)


def test_transrate_is_left_out_unless_products_by_class_were_asked_for(small, cnn):
    assert set(TRANSFERABILITY) - set(baseline_scores(collect_outputs(cnn, small[1]))) == {"TransRate"}
    with pytest.raises(RepresentationError, match="by_class=True"):
        transrate(collect_outputs(cnn, small[1]).moments)


def test_nce_is_a_negative_conditional_entropy():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 4, 300), generator.integers(0, 3, 300) * 7
    shares = np.bincount(labels) / 300
    expected = mutual_info_score(labels, predicted) + (shares * np.log(shares)).sum()
    assert nce(predicted, labels) == pytest.approx(expected, rel=1e-9)


def test_leep_of_certain_predictions_is_nce_and_ignores_classes_without_mass():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 4, 300), generator.integers(0, 3, 300)
    certain = np.eye(5, dtype=np.float32)[predicted]
    assert leep(certain, labels) == pytest.approx(nce(predicted, labels), rel=1e-9)
    soft = generator.dirichlet(np.ones(5), 300)
    joint = np.stack([soft[labels == k].sum(0) for k in range(4)]) / 300
    expected = np.log((joint / joint.sum(0) @ soft.T)[labels, np.arange(300)]).mean()
    assert leep(soft, labels) == pytest.approx(expected, rel=1e-9)


def test_atc_estimates_the_accuracy_of_a_calibrated_model():
    generator = np.random.default_rng(0)
    source, target = generator.uniform(0, 1, 20_000), generator.uniform(0, 0.8, 20_000) ** 1.3
    sure = lambda confidence: generator.uniform(0, 1, len(confidence)) < confidence  # noqa: E731
    correct = sure(source)
    estimated = average_thresholded_confidence(source, correct, source)
    assert estimated == pytest.approx(correct.mean(), abs=1e-3)
    assert average_thresholded_confidence(source, correct, target) < estimated
    assert average_thresholded_confidence([0.5, 0.6], [True, True], [0.1]) == 1.0


def test_knn_accuracy_matches_scikit_learn(data):
    rows, labels = data
    counts = [
        KNeighborsClassifier(5).fit(np.delete(rows, i, 0), np.delete(labels, i)).predict(rows[i : i + 1])[0]
        == labels[i]
        for i in range(len(rows))
    ]
    assert knn_accuracy(rows, labels) == pytest.approx(np.mean(counts), abs=1 / len(rows))
    with pytest.raises(RepresentationError, match="two samples"):
        knn_accuracy(rows[:1], labels[:1])


def test_one_pass_gives_every_baseline_with_its_direction(small, cnn, meter):
    job = RetrainingJob(*small, 0.9, dataclasses.replace(RECIPES["train-adam"], max_epochs=15))
    retrain(cnn, job, meter=meter)
    clean = collect_outputs(cnn, small[1], by_class=True)
    state = copy.deepcopy(cnn.state_dict())
    mild, hard = (
        baseline_scores(collect_outputs(cnn, small[1].shifted(parse_shift(f"gaussian:{level}")), by_class=True), clean)
        for level in (1, 10)
    )
    assert all(torch.equal(value, state[name]) for name, value in cnn.state_dict().items())
    assert set(mild) == {
        *TRANSFERABILITY,
        *SHIFT_DISTANCES,
        "loss",
        "accuracy drop",
        "NCE",
        "LEEP",
        "k-NN accuracy",
        "ATC",
        "mean confidence",
    }
    accuracy, loss = evaluate(cnn, small[1].batches())
    assert (clean.accuracy, clean.loss) == (pytest.approx(accuracy), pytest.approx(loss, rel=1e-5))
    for name in (
        "loss",
        "accuracy drop",
        "Fréchet distance",
        "linear MMD",
        "NCE",
        "LEEP",
        "k-NN accuracy",
        "shrunk H-score",
    ):
        assert (hard[name].value > mild[name].value) == hard[name].grows_with_cost, name
    assert mild["LogME"].note.startswith("200 samples of 64 features")
    assert set(baseline_scores(clean)) == set(mild) - {"accuracy drop", "ATC", *SHIFT_DISTANCES}


def logme_of(features, labels):
    moments = Moments(sorted(set(labels.tolist())))
    moments.update(features, labels)
    return logme(moments)


def test_logme_counts_a_repeated_feature_once():
    """Two equal columns have one direction without variance; noise of the order of rounding is not an eigenvalue."""
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 4)), random.integers(0, 3, 60)
    repeated = np.concatenate([features, features[:, :2]], axis=1)
    scaled = np.concatenate([features[:, :2] * np.sqrt(2.0), features[:, 2:]], axis=1)
    assert logme_of(repeated, labels) == pytest.approx(logme_of(scaled, labels), abs=1e-9)


def test_logme_of_wide_features_of_low_rank_counts_the_rank():
    """The more columns, the larger is the rounding of an eigenvalue that is 0."""
    random = np.random.default_rng(2)
    narrow, labels = random.normal(size=(80, 10)), random.integers(0, 3, 80)
    rotation, _ = np.linalg.qr(random.normal(size=(400, 10)))
    assert logme_of(narrow @ rotation.T, labels) == pytest.approx(logme_of(narrow, labels), abs=1e-9)


def test_logme_of_small_features_is_that_of_their_scale():
    """The smallest eigenvalue that counts follows the largest, so features of 1e-9 have as many directions."""
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(60, 4)), random.integers(0, 3, 60)
    small, whole = logme_of(features * 1e-9, labels), logme_of(features, labels)
    assert small != pytest.approx(logme_of(np.zeros_like(features), labels), abs=1e-3)
    assert small == pytest.approx(whole, abs=0.05)


def test_logme_of_features_that_are_all_zero_is_that_of_noise_alone():
    """It once was a math domain error. The labels of a class are then normal noise about 0 with their mean square."""
    labels = np.array([0, 0, 1, 1, 1])
    expected = np.mean([-0.5 * (np.log(2 * np.pi * share) + 1.0) for share in (2 / 5, 3 / 5)])
    assert logme_of(np.zeros((5, 3)), labels) == pytest.approx(expected, abs=1e-4)
