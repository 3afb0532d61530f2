"""Load of the machine by other processes."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.energy.load import ProcessorTimes, others_busy_share, processor_times

TIMES = st.builds(ProcessorTimes, st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6), st.integers(1, 256))


@given(st.floats(0.1, 1e3), st.integers(1, 64), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_share_is_of_all_processors_without_this_process(wall_s, processors, others, own):
    own_s = own * (1.0 - others) * wall_s * processors
    before = ProcessorTimes(5.0, 7.0, 2.0, processors)
    after = ProcessorTimes(5.0 + wall_s, 7.0 + others * wall_s * processors + own_s, 2.0 + own_s, processors)
    assert others_busy_share(before, after) == pytest.approx(others, abs=1e-9)


@given(TIMES, TIMES)
def test_share_is_one_or_unknown_whatever_the_clocks_say(before, after):
    share = others_busy_share(before, after)
    assert (share is None) == (after.wall_s <= before.wall_s)
    assert share is None or 0.0 <= share <= 1.0


def test_load_is_unknown_without_the_library(monkeypatch):
    monkeypatch.setattr("resque.energy.load.importlib.util.find_spec", lambda name: None)
    assert processor_times() is None
    assert others_busy_share(None, None) is None


def test_time_of_a_guest_is_counted_once(monkeypatch):
    class Used(tuple):
        idle, iowait, guest, guest_nice = 50.0, 5.0, 4.0, 1.0

    library = SimpleNamespace(cpu_times=lambda: Used((30.0, 50.0, 5.0, 4.0, 1.0)), cpu_count=lambda: None)
    monkeypatch.setattr("resque.energy.load.importlib.util.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "psutil", library)
    times = processor_times()
    assert (times.busy_s, times.processors) == (30.0, 1)
