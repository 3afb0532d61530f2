import importlib.util
import sys

import pytest

from resque.energy.grid import named_grid
from resque.errors import MeterError, SettingError
from resque.reporting.sentences import grid_sentence

needs_codecarbon = pytest.mark.skipif(not importlib.util.find_spec("codecarbon"), reason="needs resque[energy]")


@needs_codecarbon
def test_country_has_intensity_and_source():
    grid = named_grid("fra")
    assert grid.region == "FRA"
    assert 10 < grid.intensity_g_per_kwh < 150
    assert "Our World in Data" in grid.source
    assert grid.carbon_kg(2.0) == pytest.approx(grid.intensity_g_per_kwh * 2 / 1000)
    assert grid.carbon_kg(None) is None
    with pytest.raises(MeterError, match="unknown country 'Atlantis': use an ISO alpha-3 code"):
        named_grid("Atlantis")


def test_intensity_overrides_country_and_nothing_is_guessed():
    assert named_grid("FRA", 0.0).intensity_g_per_kwh == 0.0
    assert named_grid() is None
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(MeterError, match="0 or more"):
            named_grid(intensity=wrong)


def test_pue_multiplies_carbon_and_needs_a_grid():
    grid = named_grid(intensity=400.0, pue=1.5)
    assert grid.carbon_kg(2.0) == pytest.approx(1.2)
    assert "× PUE 1.5" in grid_sentence(grid)
    assert "PUE" not in grid_sentence(named_grid(intensity=400.0))
    with pytest.raises(MeterError, match="add --country or --intensity"):
        named_grid(pue=1.5)
    for wrong in (0.99, 130.0, float("nan"), float("inf")):
        with pytest.raises(SettingError, match="expected 1 to 10"):
            named_grid(intensity=400.0, pue=wrong)


def test_country_without_a_table_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(MeterError, match=r"no table of countries: install resque\[energy\], or give --intensity"):
        named_grid("FRA")
