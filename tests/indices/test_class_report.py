"""Classes that carry the errors, and classes that exchanged names."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as expected_confusions

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
