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
from resque.forecasting.costs import estimates_by_step
from resque.ledger.components import Estimate
from resque.training.probe import probe
from resque.training.recipe import Recipe
from resque.types import Interval

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


class Machine:
    """A machine on which others slow this process down: processor time stays, wall time grows. Nothing waits."""

    def __init__(self, slowdown, threads, mode="cpu_load"):
        self.slowdown, self.threads, self.wall_s, self.cpu_s = slowdown, threads, 0.0, 0.0
        cpu = type("CPU", (), {"_mode": mode})()
        self._hardware = [cpu, type("RAM", (), {})()]

    def compute(self, cpu_s):
        self.cpu_s += cpu_s
        self.wall_s += cpu_s / self.threads * self.slowdown

    def start_task(self, name):
        self.began = self.wall_s, self.cpu_s

    def stop_task(self, name):
        """As codecarbon does: 7 W for each busy core, 20 W of memory all the time."""
        wall_s, cpu_s = self.wall_s - self.began[0], self.cpu_s - self.began[1]
        return types.SimpleNamespace(cpu_energy=7.0 * cpu_s / 3.6e6, ram_energy=20.0 * wall_s / 3.6e6)


@pytest.fixture
def on_machine(monkeypatch):
    """Open a meter on a machine of known slowdown."""

    def opened(*given):
        machine = Machine(*given)
        for place in ("resque.energy.meters.now", "resque.training.probe.now"):
            monkeypatch.setattr(place, lambda device=None: machine.wall_s)
        monkeypatch.setattr(time, "process_time", lambda: machine.cpu_s)
        monkeypatch.setattr(torch, "get_num_threads", lambda: machine.threads)
        monkeypatch.setattr("resque.energy.meters.open_tracker", lambda device, mode: machine)
        monkeypatch.setattr("resque.energy.meters.version", lambda name: "3")
        monkeypatch.setattr("resque.training.probe._take_steps", lambda trainer, steps: machine.compute(0.1 * steps))
        return machine, CodecarbonMeter(torch.device("cpu"))

    return opened


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("slowdown", [1.0, 1.7, 3.0, 27.0])
def test_others_do_not_make_a_forecast_dearer_where_no_counter_is(on_machine, cnn, small, slowdown, threads):
    def forecast(slowdown):
        _, meter = on_machine(slowdown, threads)
        step_cost = probe(cnn, small[0], Recipe(), meter)
        steps = Estimate(1000.0, Interval(1000.0, 1000.0, 0.8, ""))
        return {cost: found.value for cost, found in estimates_by_step(steps, step_cost, None, None).items()}

    idle, busy = forecast(1.0), forecast(slowdown)
    assert busy["wall_s"] == pytest.approx(slowdown * idle["wall_s"])
    assert busy["energy_kwh"] == pytest.approx(idle["energy_kwh"])
    assert idle["energy_kwh"] == pytest.approx(1000 * 0.1 * (7.0 + 20.0 / threads) / 3.6e6)


@pytest.mark.parametrize(
    ("mode", "share"), [("cpu_load", 1 / 3), ("constant", 1 / 3), ("intel_rapl", 1.0), ("apple_powermetrics", 1.0)]
)
def test_constant_power_counts_for_all_the_time_only_beside_a_counter(on_machine, mode, share):
    machine, meter = on_machine(3.0, 2, mode)
    with meter.window() as window:
        machine.compute(8.0)
    reading = window.reading
    assert reading.wall_s == pytest.approx(12.0)
    assert reading.components_kwh["ram"] == pytest.approx(share * 20.0 * 12.0 / 3.6e6)
    assert reading.energy_kwh == pytest.approx(sum(reading.components_kwh.values()))
    for text in (reading.note, reading.meter):
        assert ("by processor time" in text) == (share < 1.0)
