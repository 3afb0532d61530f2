"""Energy of a window of work, honestly labeled, and the grid it was drawn from.

A meter measures windows. Each reading says per component whether it was ``measured`` (a hardware
counter), ``modelled`` (from load and a table) or ``assumed`` (a constant). What is not known is None.
Carbon is energy times the intensity of an explicitly named grid; without one there is no carbon figure.
"""

import importlib
import logging
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from resque.energy.clock import now
from resque.energy.reading import EnergyReading

SHORTEST_CPU_S, SHORTEST_GPU_S = 0.5, 2.0
_METHODS = {
    "intel_rapl": "measured",
    "intel_power_gadget": "measured",
    "apple_powermetrics": "measured",
    "windows_emi": "measured",
    "cpu_load": "modelled",
    "constant": "assumed",
}
_CPUINFO = Path("/proc/cpuinfo")


class Window:
    """One measured stretch of work; ``reading`` is there after the block has ended."""

    def __init__(self) -> None:
        self.reading = EnergyReading(0.0, None, {}, {}, "", "the window is still open")


class EnergyMeter(Protocol):
    """Anything that measures windows; windows are not nested."""

    name: str
    shortest_s: float

    @property
    def methods(self) -> Mapping[str, str]:
        """Device → ``measured``, ``modelled`` or ``assumed``; empty for a meter that knows no energy."""

    def window(self) -> AbstractContextManager[Window]:
        """A block of work to be measured; shorter than ``shortest_s`` its energy is None."""


class ClockMeter:
    """Wall time alone; energy is None, because nothing here knows it.

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
    """Energy of this process (CPU, RAM) and of whole GPUs, by codecarbon's offline tracker.

    Nothing leaves the machine: no output, no country look-up, no remote intensity. Without power counters
    codecarbon models the CPU from its load and assumes a constant for RAM; the reading says so.
    """

    def __init__(self) -> None:
        self._tracker = _tracker()
        self._windows = 0
        self.name, self.shortest_s = "codecarbon", SHORTEST_CPU_S
        with _name_at_hand(), self.window():  # the first task detects hardware: keep that out of every reading
            pass
        self.shortest_s = SHORTEST_GPU_S if "gpu" in self.methods else SHORTEST_CPU_S
        self.name = f"codecarbon {self._tracker._conf['codecarbon_version']}, process, 1 s"

    @property
    def methods(self) -> Mapping[str, str]:
        """Device → how its energy is known, e.g. ``{"cpu": "modelled", "ram": "assumed"}``."""
        found = {}
        for hardware in self._tracker._hardware:
            device = {"GPU": "gpu", "RAM": "ram"}.get(type(hardware).__name__, "cpu")
            default = {"gpu": "measured", "ram": "assumed"}.get(device, "modelled")
            found[device] = _METHODS.get(getattr(hardware, "_mode", ""), default)
        return found

    @contextmanager
    def window(self) -> Iterator[Window]:
        """Measure a block of work; below the shortest trustworthy length the energy is None."""
        window = Window()
        self._windows += 1
        task = f"window {self._windows}"
        now()  # nothing pending may be billed to this window
        self._tracker.start_task(task)
        start = now()
        try:
            yield window
        finally:
            wall_s = now() - start
            window.reading = self._reading(self._tracker.stop_task(task), wall_s)

    def _reading(self, data: Any, wall_s: float) -> EnergyReading:
        methods = self.methods
        known = {device: float(getattr(data, f"{device}_energy")) for device in methods}
        if wall_s < self.shortest_s:
            note = f"{wall_s:.2f} s is below the meter's {self.shortest_s:g} s"
            return EnergyReading(wall_s, None, {}, methods, self.name, note)
        total = math.fsum(known.values())
        soft = math.fsum(kwh for device, kwh in known.items() if methods[device] != "measured")
        note = f"{soft / total:.0%} of the energy is modelled or assumed, not measured" if soft > total / 2 else ""
        return EnergyReading(wall_s, total, known, methods, self.name, note)


def open_meter() -> EnergyMeter:
    """The best meter this installation offers: codecarbon, else the clock."""
    try:
        import codecarbon  # noqa: F401
    except ImportError:
        return ClockMeter()
    return CodecarbonMeter()


def _tracker() -> Any:
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    # Every setting that a stray configuration file or token could turn into a network call is given here.
    return OfflineEmissionsTracker(
        country_iso_code="FRA",  # required by the tracker; carbon is computed here, from the named grid
        force_carbon_intensity_g_co2e_kwh=0.0,
        output_methods=[],
        output_handlers=[],
        emissions_endpoint=None,
        electricitymaps_api_token=None,
        output_dir=tempfile.gettempdir(),
        tracking_mode="process",
        measure_power_secs=1,
        force_cpu_power=None,
        force_ram_power=None,
        pue=1.0,
        allow_multiple_runs=True,
        log_level="error",
    )


@contextmanager
def _name_at_hand() -> Iterator[None]:
    """Inside the block py-cpuinfo, which codecarbon asks for the processor's name alone, says the kernel's at once.

    By itself it starts a process that also times the processor's clock, for more than a second.
    """
    try:
        found = re.search(r"^model name\s*:\s*(\S.*?)\s*$", _CPUINFO.read_text(), re.MULTILINE)
        library: Any = importlib.import_module("cpuinfo")
        whole = library.get_cpu_info
    except (OSError, ImportError, AttributeError):
        found = None
    if found is None:
        yield
        return
    library.get_cpu_info = lambda: {"brand_raw": found[1]}
    try:
        yield
    finally:
        library.get_cpu_info = whole
