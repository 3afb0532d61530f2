import importlib.util
import socket
import time
from pathlib import Path

import pytest

from resque.energy.grid import named_grid
from resque.energy.meters import ClockMeter, CodecarbonMeter, open_meter
from resque.energy.reading import EnergyReading, energy_share
from resque.errors import MeterError, SettingError
from resque.reporting.sentences import grid_sentence

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
def test_a_window_tells_energy_and_method_of_every_component(codecarbon_meter):
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
def test_a_window_that_is_too_short_has_no_energy(codecarbon_meter):
    with codecarbon_meter.window() as window:
        pass
    assert window.reading.energy_kwh is None
    assert "below the meter's 0.5 s" in window.reading.note


@needs_codecarbon
def test_a_window_closes_when_the_work_fails(codecarbon_meter):
    with pytest.raises(KeyError), codecarbon_meter.window():
        raise KeyError
    with codecarbon_meter.window() as window:
        work()
    assert window.reading.methods == codecarbon_meter.methods


@needs_codecarbon
def test_the_meter_makes_no_network_call_and_leaves_no_file(folder, monkeypatch):
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *_: pytest.fail("a network call"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a look-up of a host's address"))
    monkeypatch.setenv("CODECARBON_SAVE_TO_API", "true")
    monkeypatch.setenv("CODECARBON_ELECTRICITYMAPS_API_TOKEN", "token")
    with CodecarbonMeter().window():
        work()
    assert not list(folder.iterdir())


@pytest.fixture
def unknown_machine():
    """Codecarbon has to look for the machine's parts, whatever other tests have found before."""
    from codecarbon.core import hardware_cache, util

    def forget():
        hardware_cache.clear_cache()
        util.detect_cpu_model.cache_clear()

    forget()
    yield
    forget()


@needs_codecarbon
def test_the_processor_is_not_timed_to_learn_its_name(unknown_machine, monkeypatch):
    import cpuinfo

    name = cpuinfo.cpuinfo._get_cpu_info_from_proc_cpuinfo().get("brand_raw")
    if not name:
        pytest.skip("a kernel that does not name its processor")
    timing = lambda: pytest.fail("a process that times the processor's clock")  # noqa: E731
    monkeypatch.setattr(cpuinfo, "get_cpu_info", timing)
    assert CodecarbonMeter()._tracker._conf["cpu_model"] == name
    assert cpuinfo.get_cpu_info is timing


@needs_codecarbon
def test_a_processor_that_the_kernel_does_not_name_is_looked_up(unknown_machine, monkeypatch):
    import cpuinfo

    monkeypatch.setattr("resque.energy._codecarbon._CPUINFO", Path("none"))
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: {"brand_raw": "a name of its own"})
    assert CodecarbonMeter()._tracker._conf["cpu_model"] == "a name of its own"


def test_the_clock_knows_no_energy():
    with ClockMeter().window() as window:
        work(1000)
    assert window.reading.energy_kwh is None
    assert window.reading.wall_s > 0
    assert "resque[energy]" in window.reading.note


@needs_codecarbon
def test_the_best_meter_is_opened():
    assert isinstance(open_meter(), CodecarbonMeter)


@needs_codecarbon
def test_a_country_names_its_intensity_and_source():
    grid = named_grid("fra")
    assert grid.region == "FRA"
    assert 10 < grid.intensity_g_per_kwh < 150
    assert "Our World in Data" in grid.source
    assert grid.carbon_kg(2.0) == pytest.approx(grid.intensity_g_per_kwh * 2 / 1000)
    assert grid.carbon_kg(None) is None
    with pytest.raises(MeterError, match="unknown country 'Atlantis': use an ISO alpha-3 code"):
        named_grid("Atlantis")


def test_an_intensity_goes_before_a_country_and_nothing_is_guessed():
    assert named_grid("FRA", 0.0).intensity_g_per_kwh == 0.0
    assert named_grid() is None
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(MeterError, match="0 or more"):
            named_grid(intensity=wrong)


def test_the_sites_share_multiplies_carbon_and_needs_a_grid():
    grid = named_grid(intensity=400.0, pue=1.5)
    assert grid.carbon_kg(2.0) == pytest.approx(1.2)
    assert "× PUE 1.5" in grid_sentence(grid)
    assert "PUE" not in grid_sentence(named_grid(intensity=400.0))
    with pytest.raises(MeterError, match="add --country or --intensity"):
        named_grid(pue=1.5)
    for wrong in (0.99, 130.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="expected 1 to 10"):
            named_grid(intensity=400.0, pue=wrong)


def test_energy_is_shared_by_time():
    assert energy_share(EnergyReading(10.0, 2.0, {}, {}, "m"), 4.0) == pytest.approx(0.8)
    assert energy_share(EnergyReading(10.0, None, {}, {}, "m"), 4.0) is None
    assert energy_share(EnergyReading(0.0, 0.0, {}, {}, "m"), 0.0) == 0.0
