import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from resque.errors import RepresentationError, SettingError
from resque.training.cost_tracking import CostTracker, gradient_norm, parameter_change
from resque.training.evaluation import evaluate
from resque.training.stopping import stop_epoch


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_gradient_norm_is_that_of_all_of_them_in_a_row(gradients):
    assert gradient_norm(gradients) == pytest.approx(np.linalg.norm(np.concatenate(gradients)), rel=1e-12)


def test_the_gradient_norm_neither_overflows_nor_stumbles_over_none():
    assert gradient_norm([np.array([3e200]), None, np.array([4e200])]) == pytest.approx(5e200)
    assert gradient_norm([torch.full((3,), 1e-30, dtype=torch.float32)]) == pytest.approx(
        math.sqrt(3) * 1e-30, rel=1e-6
    )
    assert gradient_norm([]) == 0.0


def test_parameter_change_is_equation_5():
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
def test_parameters_that_do_not_match_are_refused(before, after):
    with pytest.raises(RepresentationError):
        parameter_change(before, after)


def test_stop_at_the_target_goes_first():
    assert stop_epoch([0.2, 0.9], 0.9) == (2, "target")
    assert stop_epoch([0.895] * 25 + [0.9], 0.9) == (26, "target")


def test_the_tolerance_rules_count_from_the_first_epoch_within_and_end_when_they_exceed():
    close = [0.1, 0.8951]
    assert stop_epoch(close + [0.1] * 100, 0.9) == (27, "tolerance 0.005")
    near = [0.1, 0.1, 0.8901]
    assert stop_epoch(near + [0.1] * 100, 0.9) == (53, "tolerance 0.01")
    assert stop_epoch([0.1, 0.8901, *[0.1] * 10, 0.8951, *[0.1] * 100], 0.9) == (38, "tolerance 0.005")


def test_a_rounding_error_does_not_move_the_border():
    assert 0.95 - 0.945 > 0.005  # as floating point has it
    assert stop_epoch([0.945] + [0.1] * 30, 0.95) == (26, "tolerance 0.005")


def test_the_last_epoch_ends_it_and_nothing_else_does():
    assert stop_epoch([0.1] * 250, 0.9) == (250, "max")
    assert stop_epoch([0.1] * 300, 0.9, max_epochs=7) == (7, "max")
    assert stop_epoch([0.1] * 249, 0.9) == (None, None)
    assert stop_epoch([], 0.9) == (None, None)
    assert stop_epoch([float("nan")] * 250, 0.9) == (250, "max")
    with pytest.raises(SettingError):
        stop_epoch([0.1], 0.9, max_epochs=0)


def test_the_tally_is_the_functions_above(cnn, small):
    tally, norms, epochs = (
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
        tally.after_backward()
        optimizer.step()
        if step % 2 == 0:
            tally.end_epoch()
            epochs.append(copy.deepcopy(dict(cnn.named_parameters())))
    epochs.append(dict(cnn.named_parameters()))
    changes = sum(parameter_change(a, b) for a, b in zip(epochs, epochs[1:], strict=False))
    mean, last, change = tally.totals(within_epoch=True)
    assert mean == pytest.approx(sum(norms) / 2, rel=1e-5)
    assert last == pytest.approx(norms[1] + norms[3] + norms[4], rel=1e-5)
    assert change == pytest.approx(changes, rel=1e-5)


def test_evaluate_is_accuracy_and_mean_loss(cnn, small):
    cnn.eval()
    logits = torch.cat([cnn(x) for x, _ in small[1].batches()]).detach()
    accuracy, loss = evaluate(cnn.train(), small[1].batches(7))
    assert accuracy == pytest.approx(float((logits.argmax(1) == small[1].labels).double().mean()), abs=1e-12)
    assert loss == pytest.approx(float(F.cross_entropy(logits, small[1].labels)), rel=1e-5)
    assert cnn.training


def test_sparse_gradients_and_what_diverged():
    assert gradient_norm([torch.tensor([[3.0, 0.0], [0.0, 4.0]]).to_sparse()]) == 5.0
    assert math.isnan(gradient_norm([[math.nan, 1.0], [2.0]]))
    assert gradient_norm([[math.inf], [1.0]]) == math.inf


def test_the_rule_takes_any_sequence_and_refuses_nonsense():
    assert stop_epoch(iter([0.5, 0.91]), 0.9) == stop_epoch(np.array([0.5, 0.91]), 0.9) == (2, "target")
    for nonsense in ({"target": math.nan}, {"tolerances": ((-0.1, 5),)}, {"tolerances": ((0.1, -5),)}):
        with pytest.raises(SettingError):
            stop_epoch([0.5], **{"target": 0.9} | nonsense)


def test_a_change_overflows_only_where_it_is_too_large():
    assert parameter_change([np.zeros(4)], [np.full(4, 1e308)]) == pytest.approx(1e308)
    assert parameter_change([np.array([-1e308, 0, 0, 0])], [np.array([1e308, 0, 0, 0])]) == pytest.approx(1e308)
    assert parameter_change([[0.0], [0.0]], [[1e308], [1e308]]) == pytest.approx(1e308)


def test_measures_take_models_and_mappings_and_refuse_the_rest(cnn):
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
