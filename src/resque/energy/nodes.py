"""Measure a command that runs in several processes: one meter for each node, and the sum over the nodes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from resque._processes import Processes, current_processes
from resque.energy.meters import ClockMeter, EnergyMeter, Window, open_meter, unfailing_window
from resque.energy.reading import EnergyReading

__all__ = ["NodesMeter", "add_nodes", "open_meter_of_nodes"]

_CPU = torch.device("cpu")
_HARDNESS = ("measured", "modelled", "assumed", "unknown")


class NodesMeter:
    """Meter of all nodes: the first process of each measures the whole node, and every process gets their sum.

    The end of a window waits for all processes, and is no window of its own. A node whose meter fails at that end has
    no energy, and so has the sum.

    Args:
        own: Meter of this node; None in the other processes of a node.
        processes: This process among all.

    Example:
        >>> with NodesMeter(ClockMeter(), Processes()).window() as window:
        ...     pass
        >>> window.reading.note
        'no energy meter: install resque[energy]'
    """

    def __init__(self, own: EnergyMeter | None, processes: Processes) -> None:
        self._own, self._processes = own, processes
        told = None if own is None else (own.name, own.shortest_s, dict(own.methods))
        meters = [each for each in processes.combine(told, list) if each is not None]
        self.name = meters[0][0] + (f", {len(meters)} nodes" if len(meters) > 1 else "")
        self.shortest_s = max(shortest_s for _, shortest_s, _ in meters)
        self._methods = _worst([methods for *_, methods in meters])

    @property
    def methods(self) -> Mapping[str, str]:
        """Component → how its energy is obtained, on the node that knows least."""
        return self._methods

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Measure a block of work on all nodes."""
        result = Window()
        with unfailing_window(self._own or ClockMeter(), _CPU, []) as window:  # or the others would wait for its sum
            yield result
        own = None if self._own is None else window.reading
        nodes = self._processes.combine(own, lambda readings: [each for each in readings if each is not None])
        result.reading = add_nodes(nodes)


def add_nodes(readings: Sequence[EnergyReading]) -> EnergyReading:
    """Add the readings of several nodes at the same time; the energy is unknown if that of one is.

    Example:
        >>> nodes = [EnergyReading(2.0, kwh, {"cpu": kwh}, {"cpu": "measured"}, "meter") for kwh in (1.0, 0.5)]
        >>> whole = add_nodes(nodes)
        >>> whole.wall_s, whole.energy_kwh, whole.components_kwh, whole.meter
        (2.0, 1.5, {'cpu': 1.5}, 'meter, 2 nodes')
    """
    if len(readings) == 1:
        return readings[0]
    known = [reading.energy_kwh for reading in readings if reading.energy_kwh is not None]
    components = sorted({component for reading in readings for component in reading.components_kwh})
    return EnergyReading(
        max(reading.wall_s for reading in readings),
        math.fsum(known) if len(known) == len(readings) else None,
        {name: math.fsum(each.components_kwh.get(name, 0.0) for each in readings) for name in components},
        _worst([reading.methods for reading in readings]),
        f"{readings[0].meter}, {len(readings)} nodes",
        "; ".join(dict.fromkeys(reading.note for reading in readings if reading.note)),
    )


def open_meter_of_nodes(device: torch.device) -> EnergyMeter:
    """Return the meter of this command: of its process, or under torchrun of all nodes.

    Example:
        >>> open_meter_of_nodes(torch.device("cpu")).shortest_s > 0
        True
    """
    processes = current_processes()
    if processes.count == 1:
        return open_meter(device)
    node = None if device.type == "cuda" else device
    return NodesMeter(open_meter(node, whole_node=True) if processes.local_rank == 0 else None, processes)


def _worst(methods: Sequence[Mapping[str, str]]) -> dict[str, str]:
    names = sorted({name for each in methods for name in each})
    return {name: max((each.get(name, "measured") for each in methods), key=_HARDNESS.index) for name in names}
