"""Software Carbon Intensity and price: closed forms, and None where something is not known."""

import dataclasses

import pytest

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.hardware import CPU_EMISSIONS, EmbodiedEmissions
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.errors import SettingError
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.reporting.carbon_intensity import software_carbon_intensity
from resque.reporting.html import write_report
from resque.reporting.sentences import carbon_sentence, format_carbon


@pytest.fixture
def update():
    made = synthetic_update("u", index=0.5, steps=100)
    energy = EnergyReading(3600.0, 0.5, {"cpu": 0.5}, {"cpu": "measured"}, "a meter")
    cost = dataclasses.replace(made.cost, samples=1000, flops=2e9)
    return dataclasses.replace(made, energy=energy, grid=Grid("TST", 400.0, "a table"), cost=cost)


def test_it_is_e_times_i_plus_m_per_r(update):
    found = software_carbon_intensity(update, EmbodiedEmissions(100.0, 1000.0, life_years=2.0, share=0.5))
    hour = 3600.0 / (2.0 * 365.25 * 24 * 3600.0)
    assert found.operational_g == pytest.approx(0.5 * 400.0)
    assert found.embodied_low_g == pytest.approx(100e3 * hour * 0.5)
    assert found.embodied_high_g == pytest.approx(10 * found.embodied_low_g)
    assert found.per_update_low_g == pytest.approx(found.operational_g + found.embodied_low_g)
    assert found.per_sample_high_g == pytest.approx(found.per_update_high_g / 1000)
    assert found.per_flop_low_g == pytest.approx(found.per_update_low_g / 2e9)
    assert found.tags["E"] == "measured: a meter"


def test_what_the_site_adds_is_in_e_and_said(update):
    at_site = dataclasses.replace(update, grid=dataclasses.replace(update.grid, pue=1.5))
    found = software_carbon_intensity(at_site, EmbodiedEmissions(0.0, 0.0))
    assert found.operational_g == pytest.approx(1.5 * 0.5 * 400.0)
    assert found.energy_kwh == pytest.approx(0.5)
    assert "× PUE 1.5 × I 400" in carbon_sentence(found)


def test_per_sample_does_not_reward_doing_less_and_per_update_does(update):
    """Half the steps, half the time and energy: the worked example of the docstring."""
    half = dataclasses.replace(
        update,
        energy=dataclasses.replace(update.energy, wall_s=1800.0, energy_kwh=0.25),
        cost=dataclasses.replace(update.cost, samples=500, flops=1e9),
    )
    whole, less = map(software_carbon_intensity, (update, half))
    assert less.per_update_low_g == pytest.approx(whole.per_update_low_g / 2)
    assert less.per_sample_low_g == pytest.approx(whole.per_sample_low_g)
    assert less.per_flop_low_g == pytest.approx(whole.per_flop_low_g)


def test_what_is_not_known_is_none(update):
    assert software_carbon_intensity(dataclasses.replace(update, grid=None)) is None
    short = dataclasses.replace(update, energy=dataclasses.replace(update.energy, energy_kwh=None))
    probed = software_carbon_intensity(short)
    assert probed.energy_kwh == pytest.approx(short.cost.energy_kwh * short.energy.wall_s / short.cost.wall_s)
    assert probed.tags["E"] == "modeled: a meter, the power of probed steps"
    unknown = dataclasses.replace(short, cost=dataclasses.replace(short.cost, energy_kwh=None))
    assert software_carbon_intensity(unknown) is None
    uncounted = dataclasses.replace(update, cost=dataclasses.replace(update.cost, flops=None, samples=0))
    found = software_carbon_intensity(uncounted)
    assert (found.per_flop_low_g, found.per_sample_high_g) == (None, None)


def test_a_price_needs_a_tariff_and_what_it_is_for(update):
    assert update.price is None
    priced = dataclasses.replace(update, tariff=Tariff(0.3, 2.0))
    assert priced.price == pytest.approx(0.15 + 2.0)
    blind = dataclasses.replace(
        priced,
        energy=dataclasses.replace(update.energy, energy_kwh=None),
        cost=dataclasses.replace(update.cost, energy_kwh=None),
    )
    assert blind.price is None
    assert dataclasses.replace(blind, tariff=Tariff(per_hour=2.0)).price == 2.0


@pytest.mark.parametrize("wrong", [{"low_kg": -1.0}, {"high_kg": 1.0}, {"share": 0.0}, {"life_years": 0.0}])
def test_nonsense_is_refused(wrong):
    with pytest.raises(SettingError):
        EmbodiedEmissions(**{"low_kg": 10.0, "high_kg": 20.0} | wrong)
    with pytest.raises(SettingError):
        Tariff(per_kwh=-0.1)


def test_the_report_tells_of_making_the_machine(update, tmp_path):
    write_report(tmp_path / "report.html", [update], [], summarize_settlements([]))
    page = (tmp_path / "report.html").read_text()
    low, high = (200.0 + grams for grams in CPU_EMISSIONS.during(3600.0))
    assert f"{low:.0f} g to {high:.0f} g" in page
    assert format_carbon(dataclasses.replace(update, grid=None)) == "–"
