"""What travels between the processes of a command: values whole, and no code."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from resque._processes import Processes, _packed, _unpacked, current_processes, together
from resque.energy.reading import EnergyReading
from resque.indices.profile import Profile
from resque.ledger.bundled import bundled_updates
from resque.training.environment import describe_host

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


def test_an_update_as_it_was_measured_arrives_as_it_was():
    update = dataclasses.replace(bundled_updates()[0], host=describe_host(torch.device("cpu")))
    assert _unpacked(_packed(update)) == update


def test_first_process_is_alone_with_a_decision(monkeypatch):
    monkeypatch.setattr("resque._processes._broadcast", lambda packed: packed)
    with together(Processes(0, 3)):
        assert current_processes().first(lambda: current_processes().count) == 1
        assert current_processes().count == 3


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
