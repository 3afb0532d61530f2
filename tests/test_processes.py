"""What travels between the processes of a command: values whole, and no code."""

import pickle

import numpy as np
import pytest
import torch

from resque._processes import _packed, _unpacked
from resque.energy.reading import EnergyReading
from resque.indices.profile import Profile

PROFILE = Profile.from_arrays(torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1] * 3))


class Command:
    """A value whose reading would run a function."""

    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.uint8, np.bool_])
def test_arrays_and_numbers_arrive_as_they_were(dtype):
    array = np.arange(6).astype(dtype).reshape(2, 3)
    for value in (array, array[1, 1], torch.from_numpy(array)):
        arrived = _unpacked(_packed(value))
        assert (type(arrived), arrived.dtype) == (type(value), value.dtype)
        assert (arrived == value).all()


@pytest.mark.parametrize("value", [None, 3, (1.5, "a"), {"a": [True]}, EnergyReading(1.0, None, {}, {}, "clock only")])
def test_plain_values_and_records_arrive_as_they_were(value):
    assert _unpacked(_packed(value)) == value


def test_profile_arrives_as_it_was():
    arrived = _unpacked(_packed(PROFILE))
    assert (arrived.origin, arrived.counts) == (PROFILE.origin, PROFILE.counts)
    assert all(
        (arrived.split_halves[label].sums == halves.sums).all() for label, halves in PROFILE.split_halves.items()
    )


@pytest.mark.parametrize("value", [Command(), [Command()], {"a": (1, Command())}, pickle.loads, np.load])
def test_code_does_not_arrive(value):
    with pytest.raises(pickle.UnpicklingError):
        _unpacked(_packed(value))
