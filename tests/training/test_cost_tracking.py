"""Gradient norm and parameter change, as functions and accumulated during a run."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from resque.errors import RepresentationError
from resque.training.cost_tracking import CostTracker, gradient_norm, parameter_change


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=4))
def test_gradient_norm_equals_norm_of_the_concatenation(gradients):
    assert gradient_norm(gradients) == pytest.approx(np.linalg.norm(np.concatenate(gradients)), rel=1e-12)


def test_gradient_norm_does_not_overflow_and_ignores_none():
    assert gradient_norm([np.array([3e200]), None, np.array([4e200])]) == pytest.approx(5e200)
    assert gradient_norm([torch.full((3,), 1e-30, dtype=torch.float32)]) == pytest.approx(
        math.sqrt(3) * 1e-30, rel=1e-6
    )
    assert gradient_norm([]) == 0.0


def test_parameter_change_follows_equation_5():
    before = {"w": np.zeros((2, 3)), "b": np.zeros(4)}
    after = {"b": np.full(4, 2.0), "w": np.full((2, 3), 1.0)}
    assert parameter_change(before, after) == pytest.approx((1.0 + 2.0) / 2)
    assert parameter_change(list(before.values()), [after["w"], after["b"]]) == pytest.approx(1.5)
    assert parameter_change(before, before) == 0.0
    assert parameter_change(before.items(), reversed(before.items())) == 0.0
    assert parameter_change(list(before.items()), list(after.items())) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("before", "after"),
    [({"a": [1.0]}, {"b": [1.0]}), ({"a": [1.0]}, {"a": [1.0, 2.0]}), ([], []), ({"a": [1.0]}, [[1.0]]), ([[1.0]], [])],
)
def test_different_parameters_are_refused(before, after):
    with pytest.raises(RepresentationError):
        parameter_change(before, after)


def test_cost_tracker_agrees_with_the_functions(cnn, small):
    tracker, norms, epochs = (
        CostTracker(cnn.parameters(), steps_per_epoch=2),
        [],
        [copy.deepcopy(dict(cnn.named_parameters()))],
    )
    optimizer = torch.optim.SGD(cnn.parameters(), lr=0.1)
    batches = list(small[0].batches(32))[:5]
    for step, (x, y) in enumerate(batches, start=1):
        optimizer.zero_grad()
        F.cross_entropy(cnn(x), y).backward()
        norms.append(gradient_norm(p.grad for p in cnn.parameters()))
        tracker.after_backward()
        optimizer.step()
        if step % 2 == 0:
            tracker.end_epoch()
            epochs.append(copy.deepcopy(dict(cnn.named_parameters())))
    epochs.append(dict(cnn.named_parameters()))
    changes = sum(parameter_change(a, b) for a, b in zip(epochs, epochs[1:], strict=False))
    mean, last, change = tracker.totals(within_epoch=True)
    assert mean == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert last == pytest.approx(norms[1] + norms[3] + norms[4], rel=1e-5)
    assert change == pytest.approx(changes, rel=1e-5)


def test_gradient_norm_of_sparse_nan_and_infinite_gradients():
    assert gradient_norm([torch.tensor([[3.0, 0.0], [0.0, 4.0]]).to_sparse()]) == 5.0
    assert math.isnan(gradient_norm([[math.nan, 1.0], [2.0]]))
    assert gradient_norm([[math.inf], [1.0]]) == math.inf


def test_parameter_change_overflows_only_if_the_result_does():
    assert parameter_change([np.zeros(4)], [np.full(4, 1e308)]) == pytest.approx(1e308)
    assert parameter_change([np.array([-1e308, 0, 0, 0])], [np.array([1e308, 0, 0, 0])]) == pytest.approx(1e308)
    assert parameter_change([[0.0], [0.0]], [[1e308], [1e308]]) == pytest.approx(1e308)


def test_measures_accept_models_and_mappings_and_refuse_other_values(cnn):
    after = copy.deepcopy(cnn)
    with torch.no_grad():
        after[0].bias += 1.0
    assert parameter_change(cnn, after) == pytest.approx(1 / len(list(cnn.parameters())))
    assert gradient_norm({"a": [3.0], "b": [4.0]}) == 5.0
    for nonsense in (["a"], [3 + 4j], [[1.0], None, ["x"]]):
        with pytest.raises(RepresentationError):
            gradient_norm(nonsense)
    with pytest.raises(RepresentationError, match="twice"):
        parameter_change([("a", [1.0]), ("a", [2.0])], [("a", [1.0]), ("a", [2.0])])
