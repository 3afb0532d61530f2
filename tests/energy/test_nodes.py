"""Energy of a command on several nodes: one meter for each node, and their sum."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import BrokenMeter, ReplayMeter
from resque._processes import Processes
from resque.energy.nodes import NodesMeter, add_nodes
from resque.energy.reading import EnergyReading

METHODS = ("measured", "modelled", "assumed", "unknown")
NODE = st.builds(
    lambda wall_s, kwh, known, how: EnergyReading(
        wall_s, kwh if known else None, {"cpu": kwh} if known else {}, {"cpu": how}, "meter", "" if known else "lost"
    ),
    st.floats(0.1, 1e4), st.floats(0.0, 1e3), st.sampled_from([True, True, True, False]), st.sampled_from(METHODS),
)  # fmt: skip


@given(st.lists(NODE, min_size=2, max_size=5))
def test_energy_of_nodes_is_their_sum_and_unknown_if_one_is(nodes):
    whole = add_nodes(nodes)
    assert whole.wall_s == max(node.wall_s for node in nodes)
    assert whole.methods["cpu"] == max((node.methods["cpu"] for node in nodes), key=METHODS.index)
    assert whole.meter == f"meter, {len(nodes)} nodes"
    if any(node.energy_kwh is None for node in nodes):
        assert (whole.energy_kwh, whole.note) == (None, "lost")
    else:
        assert whole.energy_kwh == pytest.approx(sum(node.energy_kwh for node in nodes))
        assert whole.components_kwh["cpu"] == pytest.approx(whole.energy_kwh)


class Cluster(Processes):
    """Four processes on two nodes, seen from one of them; the second node has the same meter."""

    said: ClassVar[list] = []

    def combine(self, value, function):
        if self.local_rank == 0:
            Cluster.said.append(value)
        leader = value if self.local_rank == 0 else Cluster.said.pop(0)
        return function([leader, None, leader, None])


def test_processes_that_lead_no_node_add_nothing():
    meter = NodesMeter(ReplayMeter(watts=36.0), Cluster(0, 4, 0))
    with meter.window() as window:
        pass
    assert (meter.name, window.reading.meter) == ("replay, 2 nodes", "replay, 2 nodes")
    assert window.reading.energy_kwh == pytest.approx(2 * 36.0 * window.reading.wall_s / 3.6e6, abs=0.0)
    with NodesMeter(None, Cluster(1, 4, 1)).window() as follower:
        pass
    assert follower.reading == window.reading


@pytest.mark.parametrize("failure", [OSError("gone"), None, ValueError("no counter")])
def test_node_whose_meter_fails_at_the_end_keeps_nobody_waiting(failure):
    """Its part still reaches the sum, for which the other processes wait."""
    Cluster.said.clear()
    with NodesMeter(BrokenMeter(failure), Cluster(0, 4, 0)).window() as window:
        pass
    assert window.reading.energy_kwh is None
    assert "the meter failed at the end" in window.reading.note
    with pytest.raises(KeyError), NodesMeter(ReplayMeter(), Cluster(0, 4, 0)).window():
        raise KeyError("an error of the work itself")
