import numpy as np
import pytest
import torch

from resque._arrays import all_finite, as_labels, as_tensor
from resque.data.loading import load_data
from resque.errors import RepresentationError, ResqueError

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


MASKED = np.ma.MaskedArray([0, 1, 2, -1], mask=[0, 0, 0, 1])


@pytest.mark.parametrize("values", [MASKED, [MASKED, MASKED], (0, 1, np.ma.masked, 1), MASKED.reshape(2, 2)], ids=str)
def test_masked_values_are_refused(values):
    for call in (as_tensor, lambda labels: as_labels(labels, 4)):
        with pytest.raises(RepresentationError, match="masked"):
            call(values)
    with pytest.raises(ResqueError, match="masked"):
        load_data((np.zeros((len(values), 4, 4), np.uint8), values))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(4, 5, 5), (4, 5, 5, 3)])
def test_masked_images_are_refused(dtype, shape):
    images = np.ma.MaskedArray(np.zeros(shape, dtype), mask=False)
    assert len(load_data((images, [0, 1, 0, 1]))) == 4
    images[1, 2, 3] = np.ma.masked
    with pytest.raises(ResqueError, match="masked"):
        load_data((images, [0, 1, 0, 1]))


def test_a_masked_array_without_masked_values_is_taken_and_minus_one_is_a_class():
    whole = np.ma.MaskedArray([0, -1, 2, -1], mask=False)
    assert as_labels(whole, 4).tolist() == [0, -1, 2, -1]
    assert load_data((np.zeros((4, 4, 4), np.uint8), whole)).classes == [-1, 0, 2]


@pytest.mark.parametrize("x", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros(5, np.float32)])
def test_a_masked_sample_of_a_data_set_is_refused(folder, x):
    np.save(folder / "x.npy", x)
    (folder / "mine.py").write_text(
        "import numpy as np\n"
        "def make():\n    x = np.load('x.npy')\n"
        "    bad = np.ma.MaskedArray(x, mask=np.arange(x.size).reshape(x.shape) == 3)\n"
        "    return [(x, 0), (bad, 1)]\n"
    )
    with pytest.raises(ResqueError, match="sample 1 .*masked"):
        load_data("mine.py:make")


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool]
)
@pytest.mark.parametrize("shape", [(0, 3), (1,), (7, 13), (3, 4, 5), ()])
def test_finite_values_are_told_as_one_by_one(dtype, shape):
    values = (
        torch.arange(max(1, int(np.prod(shape)))).reshape(shape).to(dtype) if 0 not in shape else torch.zeros(shape)
    )
    assert all_finite(values)
    for bad in (torch.nan, torch.inf, -torch.inf) if values.numel() and dtype.is_floating_point else ():
        for place in {0, values.numel() // 2, values.numel() - 1}:
            spoiled = values.clone().reshape(-1)
            spoiled[place] = bad
            assert not all_finite(spoiled.reshape(shape))
            assert not all_finite(spoiled.reshape(shape).transpose(0, -1) if shape else spoiled[0])
