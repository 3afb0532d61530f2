import importlib.util
import socket
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from resque.energy._codecarbon import _gpu_ids, energy_methods
from resque.energy.meters import ClockMeter, CodecarbonMeter, open_meter
from resque.errors import ResqueWarning

needs_codecarbon = pytest.mark.skipif(not importlib.util.find_spec("codecarbon"), reason="needs resque[energy]")


def work(steps: int = 6_000_000) -> int:
    return sum(range(steps))


def work_for(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        work(100_000)


@pytest.fixture(scope="module")
def codecarbon_meter():
    return CodecarbonMeter()


@needs_codecarbon
def test_window_has_energy_and_method_of_every_component(codecarbon_meter):
    with codecarbon_meter.window() as window:
        work_for(0.8)
    reading = window.reading
    assert reading.wall_s >= codecarbon_meter.shortest_s
    assert reading.energy_kwh == pytest.approx(sum(reading.components_kwh.values()))
    assert reading.energy_kwh > 0
    assert set(reading.methods) == set(reading.components_kwh)
    assert set(reading.methods.values()) <= {"measured", "modelled", "assumed"}
    assert "codecarbon" in reading.meter


@needs_codecarbon
def test_short_window_has_no_energy(codecarbon_meter):
    with codecarbon_meter.window() as window:
        pass
    assert window.reading.energy_kwh is None
    assert "below the meter's 0.5 s" in window.reading.note


@needs_codecarbon
def test_window_closes_if_the_work_fails(codecarbon_meter):
    with pytest.raises(KeyError), codecarbon_meter.window():
        raise KeyError
    with codecarbon_meter.window() as window:
        work()
    assert window.reading.methods == codecarbon_meter.methods


@needs_codecarbon
def test_meter_makes_no_network_call_and_writes_no_file(folder, monkeypatch):
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("a network call"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("an address lookup"))
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "token")
    with CodecarbonMeter().window():
        work()
    assert not list(folder.iterdir())


@pytest.fixture
def unknown_machine():
    """Clear codecarbon's caches, so that it detects the hardware again."""
    from codecarbon.core import hardware_cache, util

    def forget():
        hardware_cache.clear_cache()
        util.detect_cpu_model.cache_clear()

    forget()
    yield
    forget()


@needs_codecarbon
def test_cpu_name_is_read_without_timing_the_processor(unknown_machine, monkeypatch):
    import cpuinfo

    name = cpuinfo.cpuinfo._get_cpu_info_from_proc_cpuinfo().get("brand_raw")
    if not name:
        pytest.skip("a kernel that does not name its processor")
    timing = lambda: pytest.fail("a process that times the processor's clock")  # noqa: E731
    monkeypatch.setattr(cpuinfo, "get_cpu_info", timing)
    assert CodecarbonMeter()._tracker._conf["cpu_model"] == name
    assert cpuinfo.get_cpu_info is timing


@needs_codecarbon
def test_cpu_name_unknown_to_the_kernel_is_looked_up(unknown_machine, monkeypatch):
    import cpuinfo

    monkeypatch.setattr("resque.energy._codecarbon._CPUINFO", Path("none"))
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: {"brand_raw": "a name of its own"})
    assert CodecarbonMeter()._tracker._conf["cpu_model"] == "a name of its own"


def test_clock_measures_no_energy():
    with ClockMeter().window() as window:
        work(1000)
    assert window.reading.energy_kwh is None
    assert window.reading.wall_s > 0
    assert "resque[energy]" in window.reading.note


@needs_codecarbon
def test_codecarbon_is_preferred():
    assert isinstance(open_meter(), CodecarbonMeter)


def test_opening_without_codecarbon_gives_a_clock(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    assert isinstance(open_meter(), ClockMeter)


@pytest.mark.parametrize(
    ("component", "mode", "method"),
    [
        ("CPU", "intel_rapl", "measured"),
        ("CPU", "cpu_load", "modelled"),
        ("CPU", "constant", "assumed"),
        ("CPU", "a mode to come", "modelled"),
        ("RAM", None, "assumed"),
    ],
)
def test_method_follows_from_component_and_mode(component, mode, method):
    hardware = type(component, (), {} if mode is None else {"_mode": mode})()
    assert energy_methods(types.SimpleNamespace(_hardware=[hardware])) == {component.lower(): method}


class DriverError(Exception):
    pass


@pytest.mark.parametrize(
    ("device", "expected"), [(None, None), ("cpu", None), ("mps", None), ("cuda", [3]), ("cuda:1", [0])]
)
def test_gpu_is_watched_by_the_number_that_its_driver_gives_it(monkeypatch, device, expected):
    """The numbers of the driver and of this process differ, for instance with CUDA_VISIBLE_DEVICES=3,0."""
    visible = {0: "aa", 1: "bb"}
    driver = types.ModuleType("pynvml")
    driver.nvmlInit = lambda: None
    driver.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    driver.nvmlDeviceGetIndex = {"GPU-aa": 3, "GPU-bb": 0}.__getitem__
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda place: types.SimpleNamespace(uuid=visible[place.index or 0])
    )
    assert _gpu_ids(None if device is None else torch.device(device)) == expected


@needs_codecarbon
def test_driver_that_does_not_know_the_gpu_leaves_a_clock_with_a_warning(monkeypatch):
    def refuse(*_):
        raise DriverError("no such device")

    driver = types.ModuleType("pynvml")
    driver.nvmlInit, driver.nvmlDeviceGetHandleByUUID, driver.nvmlDeviceGetIndex = (lambda: None), refuse, int
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: types.SimpleNamespace(uuid="aa"))
    with pytest.warns(ResqueWarning, match="DriverError: no such device"):
        assert isinstance(open_meter(torch.device("cuda")), ClockMeter)


def gpu_tracker(*cards, watched=None):
    """A tracker of codecarbon with cards ``(counter works, watts)``."""
    devices = [
        types.SimpleNamespace(gpu_index=i, _use_power_fallback=not counter, _read_power_watts=lambda watts=watts: watts)
        for i, (counter, watts) in enumerate(cards)
    ]
    ids = list(range(len(cards))) if watched is None else watched
    hardware = type("GPU", (), {"_get_gpu_ids": lambda self: ids})()
    hardware.devices = types.SimpleNamespace(devices=devices)
    return types.SimpleNamespace(_hardware=[hardware])


@pytest.mark.parametrize(
    ("tracker", "method"),
    [
        (gpu_tracker((True, 100.0)), "measured"),
        (gpu_tracker((True, None)), "measured"),
        (types.SimpleNamespace(_hardware=[type("RAM", (), {})()]), "unknown"),  # no GPU was found at all
        (gpu_tracker((False, 100.0)), "modelled"),  # from samples of the power
        (gpu_tracker((True, 100.0), (False, 100.0)), "modelled"),
        (gpu_tracker((True, 100.0), (False, 100.0), watched=[0]), "measured"),
        (gpu_tracker((False, None)), "unknown"),
        (gpu_tracker((False, 0.0)), "unknown"),
        (gpu_tracker((True, 100.0), (False, None)), "unknown"),
        (gpu_tracker((True, 100.0), watched=[]), "unknown"),  # the card is not among those of the driver
        (gpu_tracker(), "unknown"),  # the driver refuses
    ],
)
def test_gpu_is_measured_only_by_its_counter(monkeypatch, tracker, method):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in (None, torch.device("cuda")):
        assert energy_methods(tracker, device)["gpu"] == method
    assert "gpu" not in energy_methods(tracker, torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "gpu" not in energy_methods(tracker, None)


@needs_codecarbon
def test_counter_that_stands_still_is_unknown(codecarbon_meter, monkeypatch):
    """A card never uses 0 W."""
    monkeypatch.setattr(
        "resque.energy.meters.energy_methods", lambda tracker, device: {"cpu": "modelled", "gpu": "measured"}
    )
    with codecarbon_meter.window() as window:
        work_for(0.6)
    assert window.reading.methods == {"cpu": "modelled", "gpu": "unknown"}
    assert window.reading.energy_kwh is None


@needs_codecarbon
@pytest.mark.parametrize(
    ("methods", "known", "note"),
    [
        ({"cpu": "modelled", "gpu": "unknown"}, {"cpu"}, "power of the GPU cannot be read"),
        ({"gpu": "unknown"}, set(), "power of the GPU cannot be read"),
        ({}, set(), "no component"),
    ],
)
def test_energy_is_unknown_as_a_whole_if_a_part_is(codecarbon_meter, monkeypatch, methods, known, note):
    monkeypatch.setattr("resque.energy.meters.energy_methods", lambda tracker, device: methods)
    with codecarbon_meter.window() as window:
        work_for(0.6)
    assert window.reading.energy_kwh is None
    assert set(window.reading.components_kwh) == known
    assert note in window.reading.note


@needs_codecarbon
@pytest.mark.parametrize("failure", [RuntimeError("a driver that refuses"), AttributeError("uuid")])
def test_meter_that_fails_is_replaced_by_a_clock_with_a_warning(monkeypatch, failure):
    def refuse(*_):
        raise failure

    monkeypatch.setattr("resque.energy.meters.open_tracker", refuse)
    with pytest.warns(ResqueWarning, match=f"cannot measure here .*{failure}"):
        assert isinstance(open_meter(), ClockMeter)


@needs_codecarbon
def test_meter_without_components_is_replaced_by_a_clock_with_a_warning(monkeypatch):
    monkeypatch.setattr("resque.energy.meters.energy_methods", lambda tracker, device: {})
    with pytest.warns(ResqueWarning, match="found no component"):
        assert isinstance(open_meter(), ClockMeter)
