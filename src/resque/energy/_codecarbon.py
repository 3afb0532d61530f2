"""All knowledge of codecarbon's internals: tracker settings, private attributes, data files (checked with 3.3).

Codecarbon has no public way to tell how the energy of a component was obtained, or to read its table of grids.
"""

import importlib
import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["cpu_name_from_kernel", "energy_methods", "energy_mix", "open_tracker"]

_COUNTERS = {"intel_rapl", "intel_power_gadget", "apple_powermetrics", "windows_emi"}
_CPUINFO = Path("/proc/cpuinfo")


def open_tracker() -> Any:
    """Return an offline tracker that writes no file and calls no service."""
    from codecarbon import OfflineEmissionsTracker

    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    # Every setting that a stray configuration file or token could turn into a network call is given here.
    return OfflineEmissionsTracker(
        country_iso_code="FRA",  # required, but unused: resque.energy.grid computes carbon from the named grid
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


def energy_methods(tracker: Any) -> dict[str, str]:
    """Return device → ``measured``, ``modelled`` or ``assumed``; empty before the tracker's first task."""
    methods = {}
    for hardware in tracker._hardware:
        device = {"GPU": "gpu", "RAM": "ram"}.get(type(hardware).__name__, "cpu")
        mode = getattr(hardware, "_mode", "")
        constant = device == "ram" or mode == "constant"
        methods[device] = "measured" if device == "gpu" or mode in _COUNTERS else "assumed" if constant else "modelled"
    return methods


@contextmanager
def cpu_name_from_kernel() -> Iterator[None]:
    """Let py-cpuinfo return the kernel's name of the processor inside the block, the only field codecarbon reads.

    By itself py-cpuinfo also times the processor's clock in another process, for more than a second.
    """
    try:
        name = re.search(r"^model name\s*:\s*(\S.*?)\s*$", _CPUINFO.read_text(), re.MULTILINE)
        library: Any = importlib.import_module("cpuinfo")
        original = library.get_cpu_info
    except (OSError, ImportError, AttributeError):
        name = None
    if name is None:
        yield
        return
    library.get_cpu_info = lambda: {"brand_raw": name[1]}
    try:
        yield
    finally:
        library.get_cpu_info = original


def energy_mix() -> dict[str, dict[str, Any]]:
    """Return codecarbon's table of yearly means: ISO alpha-3 code → ``carbon_intensity`` (g/kWh), ``year``, ….

    Raises:
        ImportError: If codecarbon is not installed.
        OSError: If its table is missing.
    """
    path = resources.files("codecarbon") / "data/private_infra/global_energy_mix.json"
    table: dict[str, dict[str, Any]] = json.loads(path.read_text())
    return table
