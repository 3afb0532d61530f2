"""Meters: measure the wall time and energy of a window of work.

Each reading tells for every component how its energy was obtained. It is ``measured`` (a hardware counter),
``modelled`` (from the load and a table, or from samples of the power), ``assumed`` (a constant) or ``unknown``. Energy
that no meter knows, in whole or in part, is None.
"""

import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib.metadata import version
from typing import Any, Protocol

import torch

from resque.energy._codecarbon import cpu_name_from_kernel, energy_methods, open_tracker
from resque.energy.clock import now
from resque.energy.reading import EnergyReading
from resque.errors import ResqueWarning

__all__ = ["ClockMeter", "CodecarbonMeter", "EnergyMeter", "Window", "open_meter", "unfailing_window"]

_SHORTEST_CPU_S = 0.5  # shorter windows hold too few of codecarbon's samples
_SHORTEST_GPU_S = 2.0  # an H100's counter advances every 0.1 s; from 2 s on repeats agree within 5 %
_SLACK, _SLACK_S = 1.1, 1.0  # between the clock of a meter and this one
_UNREADABLE = "the power of the GPU cannot be read, so the energy is unknown: see what nvidia-smi says"


class Window:
    """A block of measured work.

    Attributes:
        reading: Time and energy of the block; meaningful after the block has ended.
    """

    def __init__(self) -> None:
        self.reading = EnergyReading(0.0, None, {}, {}, "", "the window is still open")


class EnergyMeter(Protocol):
    """Interface of a meter that measures windows of work; windows must not be nested.

    Attributes:
        name: Name and settings of the meter.
        shortest_s: Length in seconds below which a window has no energy.
    """

    name: str
    shortest_s: float

    @property
    def methods(self) -> Mapping[str, str]:
        """Component → ``measured``, ``modelled``, ``assumed`` or ``unknown``; empty for a meter without energy."""

    def window(self) -> AbstractContextManager[Window]:
        """Measure a block of work; its energy is None if it is shorter than ``shortest_s``."""


class ClockMeter:
    """Meter of wall time only; energy is None.

    Example:
        >>> with ClockMeter().window() as window:
        ...     pass
        >>> window.reading.energy_kwh is None
        True
    """

    name = "clock only"
    shortest_s = 0.1
    methods: Mapping[str, str] = {}

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Time a block of work."""
        window, start = Window(), now()
        try:
            yield window
        finally:
            note = "no energy meter: install resque[energy]"
            window.reading = EnergyReading(now() - start, None, {}, {}, self.name, note)


class CodecarbonMeter:
    """Meter of this process (CPU, RAM) and of one whole GPU, with codecarbon's offline tracker.

    It writes no file and uses no network. Without power counters codecarbon models the energy of the CPU from the
    processor time of this process, and assumes a constant power for the RAM; ``methods`` and every reading tell so. On
    such a machine the RAM counts for the seconds that the processor time would take alone, spread over PyTorch's
    threads, so that others who slow this process down do not add to its energy. A GPU's counter covers the whole card,
    also what other processes do on it.

    Args:
        device: Device whose work is measured; None takes every GPU that codecarbon sees.
        whole_node: Whether the processor's work for all processes of this machine is measured, not for this one alone.

    Example:
        >>> with CodecarbonMeter().window() as window:
        ...     pass
        >>> window.reading.energy_kwh is None  # an empty block is too short to measure
        True
    """

    def __init__(self, device: torch.device | None = None, whole_node: bool = False) -> None:
        mode = "machine" if whole_node else "process"
        self.name, self.shortest_s = f"codecarbon {version('codecarbon')}, {mode}, 1 s", _SHORTEST_CPU_S
        self._device, self._whole_node, self._tracker = device, whole_node, open_tracker(device, mode)
        self._windows = 0
        with cpu_name_from_kernel(), self.window():  # the first task detects the hardware, which takes seconds
            pass
        self.shortest_s = _SHORTEST_GPU_S if "gpu" in self.methods else _SHORTEST_CPU_S
        self.name += ", by processor time" if not whole_node and _lacks_counters(self.methods) else ""

    @property
    def methods(self) -> Mapping[str, str]:
        """Component → how its energy is obtained, e.g. ``{"cpu": "modelled", "ram": "assumed"}``."""
        return energy_methods(self._tracker, self._device)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Measure a block of work; its energy is None if it is shorter than ``shortest_s``."""
        window = Window()
        self._windows += 1
        task = f"window {self._windows}"
        now(self._device)  # wait for earlier work on the device, so that its energy is not counted here
        self._tracker.start_task(task)
        start, cpu_start = now(self._device), time.process_time()
        try:
            yield window
        finally:
            wall_s, cpu_s = now(self._device) - start, time.process_time() - cpu_start
            window.reading = self._reading(self._tracker.stop_task(task), wall_s, cpu_s)

    def _reading(self, data: Any, wall_s: float, cpu_s: float) -> EnergyReading:
        methods = self.methods
        if wall_s < self.shortest_s:
            note = f"{wall_s:.2f} s is below the meter's {self.shortest_s:g} s"
            return EnergyReading(wall_s, None, {}, methods, self.name, note)
        if getattr(data, "gpu_energy", None) == 0.0 and "gpu" in methods:
            methods = {**methods, "gpu": "unknown"}  # a counter that stands still
        known = [component for component, method in methods.items() if method != "unknown"]
        energies = {component: float(getattr(data, f"{component}_energy")) for component in known}
        if len(known) < len(methods) or not methods:
            note = _UNREADABLE if methods else "no component can be measured"
            return EnergyReading(wall_s, None, energies, methods, self.name, note)
        by_processor_time = not self._whole_node and _lacks_counters(methods)
        if by_processor_time:
            share = min(1.0, cpu_s / (wall_s * torch.get_num_threads()))
            energies = {c: kwh * (share if methods[c] == "assumed" else 1.0) for c, kwh in energies.items()}
        total = math.fsum(energies.values())
        soft = math.fsum(kwh for component, kwh in energies.items() if methods[component] != "measured")
        note = f"{soft / total:.0%} of the energy is modeled or assumed, not measured" if soft > total / 2 else ""
        if _lacks_counters(methods):
            note += (
                ", of the whole machine: what else runs on it counts, too"
                if self._whole_node
                else ", by processor time: good to compare runs on this machine"
            )
        return EnergyReading(wall_s, total, energies, methods, self.name, note)


def _lacks_counters(methods: Mapping[str, str]) -> bool:
    """Return whether all of the energy is modeled or assumed, and none of it is a GPU's."""
    return bool(methods) and "gpu" not in methods and "measured" not in methods.values()


@contextmanager
def unfailing_window(
    meter: EnergyMeter,
    device: torch.device,
    notes: list[str],
    check: Callable[[EnergyReading], EnergyReading] = lambda reading: reading,
) -> Iterator[Window]:
    """Measure a block whose result must not be lost: if the meter fails at its end, the energy is unknown.

    Args:
        meter: The meter.
        device: Device whose work is waited for.
        notes: Gets a sentence about a failure.
        check: Function that returns the reading, or raises an error if it is impossible, which is a failure, too.

    Example:
        >>> notes: list[str] = []
        >>> with unfailing_window(ClockMeter(), torch.device("cpu"), notes) as window:
        ...     pass
        >>> window.reading.meter, notes
        ('clock only', [])
    """
    result, measuring = Window(), meter.window()
    window = measuring.__enter__()
    start = now(device)
    try:
        yield result
    except BaseException as error:
        with suppress(Exception):
            measuring.__exit__(type(error), error, error.__traceback__)
        raise
    wall_s = now(device) - start
    try:
        measuring.__exit__(None, None, None)
        if not isinstance(window.reading, EnergyReading):
            raise TypeError(f"its reading is a {type(window.reading).__name__}, not a resque.EnergyReading")
        reading = check(window.reading)
        if _SLACK * reading.wall_s + _SLACK_S < wall_s:
            raise ValueError(f"wall_s is {reading.wall_s}, and {wall_s:.2f} s passed")
        result.reading = reading
    except Exception as error:  # a meter may be anyone's
        said = ascii(" ".join(str(error).split()))[1:-1][:100]
        reason, name = f"the meter failed at the end: {type(error).__name__}: {said}", getattr(meter, "name", "")
        result.reading = EnergyReading(wall_s, None, {}, {}, name if isinstance(name, str) else "", reason)
        notes.append(f"energy and carbon of this run are unknown, time is measured ({reason})")


def open_meter(device: torch.device | None = None, whole_node: bool = False) -> EnergyMeter:
    """Return the best meter of this installation: codecarbon if it is installed and works, else the clock.

    Args:
        device: Device whose work is measured; None takes every GPU.
        whole_node: Whether the processor's work for all processes of this machine is measured, not for this one alone.

    Example:
        >>> open_meter().shortest_s > 0
        True
    """
    if importlib.util.find_spec("codecarbon") is None:
        return ClockMeter()
    try:
        meter = CodecarbonMeter(device, whole_node)
    except Exception as error:  # the driver of a GPU refuses in many ways
        return _clock_with_warning(f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
    return meter if meter.methods else _clock_with_warning("it found no component")


def _clock_with_warning(reason: str) -> EnergyMeter:
    message = f"codecarbon cannot measure here ({reason}); energy stays unknown, time is measured"
    warnings.warn(message, ResqueWarning, stacklevel=3)
    return ClockMeter()
