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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["cpu_name_from_kernel", "energy_methods", "energy_mix", "open_tracker"]

_COUNTERS = {"intel_rapl", "intel_power_gadget", "apple_powermetrics", "windows_emi"}
_CPUINFO = Path("/proc/cpuinfo")


def open_tracker(device: "torch.device | None" = None, mode: str = "process") -> Any:
    """Return an offline tracker that writes no file and calls no service.

    Args:
        device: Device whose work is measured; a GPU is watched alone. None watches every GPU.
        mode: Codecarbon's tracking mode: the processor's work for this ``process``, or for the whole ``machine``.
    """
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
        tracking_mode=mode,
        measure_power_secs=1,
        force_cpu_power=None,
        force_ram_power=None,
        gpu_ids=_gpu_ids(device),
        pue=1.0,
        allow_multiple_runs=True,
        log_level="error",
    )


def _gpu_ids(device: "torch.device | None") -> list[int] | None:
    """Return the number of a GPU as its driver counts, whatever number it has in this process; None for all GPUs.

    Codecarbon takes UUIDs, too, but does not find them.
    """
    import torch

    if device is None or device.type != "cuda" or torch.version.hip:
        return None
    import pynvml

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return [pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetHandleByUUID(uuid))]


def energy_methods(tracker: Any, device: "torch.device | None" = None) -> dict[str, str]:
    """Return component → ``measured``, ``modelled``, ``assumed`` or ``unknown``; empty before the first task.

    Args:
        tracker: Tracker of :func:`open_tracker`.
        device: Device given there. The GPU of a machine that works on the CPU is left out.
    """
    import torch

    methods, uses_gpu = {}, torch.cuda.is_available() and (device is None or device.type == "cuda")
    for hardware in tracker._hardware:
        name, mode = type(hardware).__name__, getattr(hardware, "_mode", "")
        if name == "RAM":
            methods["ram"] = "assumed"
        elif name != "GPU":
            methods["cpu"] = "measured" if mode in _COUNTERS else "assumed" if mode == "constant" else "modelled"
        elif uses_gpu:
            methods["gpu"] = _gpu_method(hardware)
    return methods | ({"gpu": "unknown"} if uses_gpu and methods and "gpu" not in methods else {})


def _gpu_method(hardware: Any) -> str:
    """Return how the energy of the watched GPUs is obtained: counted, from samples of the power, or not at all."""
    watched = set(hardware._get_gpu_ids())
    devices = [device for device in hardware.devices.devices if device.gpu_index in watched]
    sampled = [device for device in devices if device._use_power_fallback]
    if not devices or any(not device._read_power_watts() for device in sampled):
        return "unknown"
    return "modelled" if sampled else "measured"


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
