"""Classes that carry the errors, and classes that exchanged names."""

import copy
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as expected_confusions
from torch import nn

from resque.data.dataset import LabeledDataset
from resque.indices import class_report as module
from resque.indices.class_report import class_report, confusion_matrix, exchanged_classes
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.models.batchnorm import adapt_batchnorm
from resque.training.evaluation import evaluate_dataset


def random_cycles(order):
    """Cut an order of labels into cycles: each ends at a label that is smaller than its first."""
    cycles, current = [], [order[0]]
    for label in order[1:]:
        if label < current[0]:
            cycles.append(current)
            current = []
        current.append(label)
    return {tuple(cycle) for cycle in [*cycles, current] if len(cycle) > 1}


@given(st.permutations(range(8)), st.integers(60, 400), st.floats(0.65, 1.0), st.integers(0, 99))
def test_exchanged_names_are_recognized_and_nothing_else(order, samples, accuracy, seed):
    generator, cycles = np.random.default_rng(seed), random_cycles(order)
    following = {label: to for cycle in cycles for label, to in zip(cycle, (*cycle[1:], cycle[0]), strict=True)}
    right = round(accuracy * samples)
    confusion = np.stack([generator.multinomial(samples - right, np.full(8, 1 / 8)) for _ in range(8)])
    for label in range(8):
        confusion[label, following.get(label, label)] += right
    found = exchanged_classes(confusion, tuple(range(8)))
    assert {frozenset(cycle) for cycle in found} == {frozenset(cycle) for cycle in cycles}
    assert all(following[label] == to for cycle in found for label, to in zip(cycle, cycle[1:], strict=False))


@pytest.mark.parametrize("seen", ["as it is", "re-estimated", "both"])
def test_an_exchange_is_recognized_also_where_only_re_estimated_normalization_shows_it(cnn, small, monkeypatch, seen):
    plain = 40 * np.eye(10, dtype=int)
    swapped = plain[[6, *range(1, 6), 0, *range(7, 10)]]
    weak = plain.copy()
    weak[6] = 4  # nothing is recognized
    found = {"as it is": [swapped, plain], "re-estimated": [weak, swapped], "both": [swapped, swapped]}[seen]
    monkeypatch.setattr(module, "confusion_matrix", Mock(side_effect=found))
    original = profile(cnn, small[0].batches())
    made = class_report(cnn, small[0], resque_dist(original, original))
    assert made.exchanged == ((0, 6),)
    assert "100% of 6 are predicted as 0" in made.findings[0]
    assert ("after normalization is re-estimated" in made.findings[0]) is (seen == "re-estimated")


@pytest.mark.parametrize("row", [[50, 50], [45, 55], [0, 3], [100, 0]])
def test_a_majority_within_chance_is_no_exchange(row):
    assert exchanged_classes(np.array([row, row[::-1]]), (0, 1)) == ()


def test_a_class_that_looks_like_another_is_no_exchange():
    """All samples look like one class, as after a shift that destroys information."""
    assert exchanged_classes(np.array([[90, 0, 0], [90, 0, 0], [90, 0, 0]]), (0, 1, 2)) == ()


def test_confusions_match_scikit_learn_also_where_classes_are_missing(cnn, small):
    data = small[1]
    data = data.take(torch.nonzero(data.labels % 3 != 1)[:, 0])
    with torch.no_grad():
        predicted = cnn.eval()(data.inputs if data.inputs.is_floating_point() else data.images).argmax(1)
    expected = expected_confusions(data.labels, predicted, labels=range(10))
    assert confusion_matrix(cnn, data).tolist() == expected[data.classes].tolist()


def test_errors_are_those_of_the_model_and_of_the_adapted_one(cnn, small):
    train, test = small
    state = copy.deepcopy(cnn.state_dict())
    index = resque_dist(profile(cnn, train.batches()), profile(cnn, test.batches()))
    report = class_report(cnn, test, index)
    assert report.accuracy == pytest.approx(evaluate_dataset(cnn, test)[0])
    adapted = adapt_batchnorm(cnn, test.batches())
    assert report.accuracy_adapted == pytest.approx(evaluate_dataset(adapted, test)[0])
    assert report.accuracy_renamed == pytest.approx(report.accuracy)
    assert {each.label: each.angle_rad for each in report.classes} == index.per_class
    left = [each.errors_left for each in report.classes]
    assert left == sorted(left, reverse=True)
    assert all(torch.equal(state[name], value) for name, value in cnn.state_dict().items())


@given(st.lists(st.lists(st.integers(0, 20), min_size=4, max_size=4), min_size=6, max_size=6), st.randoms())
def test_errors_left_and_advice_are_those_of_the_better_model(rows, random):
    """Of the same samples, the one model or the other is right more often."""
    before, after = np.array(rows[:3]) + 1, np.array(rows[3:]) + 1
    after = after[:, random.sample(range(4), 4)]
    before[:, 3] += np.maximum(after.sum(1) - before.sum(1), 0)  # as many samples of each class
    after[:, 3] += np.maximum(before.sum(1) - after.sum(1), 0)
    data = LabeledDataset("three", torch.zeros(3, 1), torch.arange(3), torch.arange(3))
    index = Mock(value=0.1, per_class=dict.fromkeys(range(3), 0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "confusion_matrix", Mock(side_effect=[before, after]))
        patch.setattr(module, "adapt_batchnorm", lambda *_: None)
        patch.setattr(module, "has_running_statistics", lambda _: True)
        report = class_report(nn.Linear(1, 3), data, index)
    helps = np.trace(after) > np.trace(before)
    better = after if helps else before
    errors = better.sum(1) - np.diag(better)
    assert {each.label: each.errors_left for each in report.classes} == dict(enumerate(errors.tolist()))
    assert report.classes[0].label == int(errors.argmax())
    for each in report.classes:
        others = better[each.label].copy()
        others[each.label] = -1
        assert each.taken_for == str(others.argmax())
        assert each.errors_adapted == after[each.label].sum() - after[each.label, each.label]
    said = " ".join(report.findings)
    assert report.accuracy_adapted == pytest.approx(np.trace(after) / after.sum())
    assert ("Re-estimating normalization does not help" in said) is not helps
    if not report.exchanged:
        assert f"Of the {errors.sum():,} {'errors that are left' if helps else 'errors'}, " in said
        assert f"are of class {int(errors.argmax())}, " in said
