import numpy as np
import pytest
import torch

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError

BIG_ENDIAN = np.arange(6, dtype=">i4").reshape(2, 3)


@pytest.mark.parametrize(
    "values",
    [
        BIG_ENDIAN,
        BIG_ENDIAN[::-1][::-1],
        np.asfortranarray(BIG_ENDIAN),
        BIG_ENDIAN.tolist(),
        list(torch.arange(6, dtype=torch.int32).reshape(2, 3)),
        torch.arange(6, dtype=torch.int32).reshape(2, 3).to_sparse(),
        torch.arange(6.0, requires_grad=True).reshape(2, 3),
    ],
)
def test_arrays_of_any_layout_become_the_same_tensor(values):
    tensor = as_tensor(values)
    assert tensor.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensor.layout == torch.strided
    assert not tensor.requires_grad


@pytest.mark.parametrize("values", [[[1, 2], [3]], ["a"], [torch.ones(1), torch.ones(2)], [{}]])
def test_values_that_are_no_array_are_refused_in_one_line(values):
    with pytest.raises(RepresentationError, match="labels: expected numbers in rows of one length") as error:
        as_labels(values, len(values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0], r"labels are torch.float64; expected integers"),
        ([True, False], r"labels are torch.bool; expected integers"),
        ([[1], [0]], r"labels have shape \(2, 1\); expected \(2,\), one a sample .*ravel"),
        ([0, 1, 2], r"labels have shape \(3,\); expected \(2,\)"),
        (np.array([1, 2**63], np.uint64), r"exceeds 2\*\*63 - 1"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(values, message):
    with pytest.raises(RepresentationError, match=message):
        as_labels(values, 2)


def test_labels_are_int64():
    assert as_labels(np.array([2, 1], np.uint8), 2).dtype == torch.int64
    assert as_labels([], 0).dtype == torch.int64
