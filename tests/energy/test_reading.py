import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.energy.reading import EnergyReading, energy_share, extend_reading, join_readings


def test_energy_is_shared_in_proportion_to_time():
    assert energy_share(EnergyReading(10.0, 2.0, {}, {}, "m"), 4.0) == pytest.approx(0.8)
    assert energy_share(EnergyReading(10.0, None, {}, {}, "m"), 4.0) is None
    assert energy_share(EnergyReading(0.0, 0.0, {}, {}, "m"), 0.0) == 0.0


def test_joined_windows_sum_their_components():
    parts = [
        EnergyReading(2.0, 3.0, {"cpu": 2.0, "ram": 1.0}, {"cpu": "modelled", "ram": "assumed"}, "m"),
        EnergyReading(1.0, None, {}, {}, "m", "too short"),
        EnergyReading(2.0, 5.0, {"cpu": 4.0, "ram": 1.0}, {"cpu": "modelled", "ram": "assumed"}, "m", "modelled"),
    ]
    whole = join_readings(parts)
    assert (whole.wall_s, whole.energy_kwh, whole.components_kwh) == (5.0, 10.0, {"cpu": 7.5, "ram": 2.5})
    assert whole.note == "energy of 1 of 3 windows imputed from the mean power of the others; modelled"
    assert join_readings(parts[:1]) is parts[0]


def test_joined_windows_without_energy_have_none():
    whole = join_readings([EnergyReading(1.0, None, {}, {}, "m", "too short")] * 2)
    assert (whole.wall_s, whole.energy_kwh, whole.note) == (2.0, None, "too short")


@given(st.floats(0.0, 100.0), st.floats(0.0, 100.0), st.one_of(st.none(), st.floats(0.0, 10.0)))
def test_a_reading_is_extended_at_its_power_and_says_what_is_modeled(measured_s, whole_s, kwh):
    parts = {} if kwh is None else {"cpu": kwh}
    reading = EnergyReading(measured_s, kwh, parts, {"cpu": "measured", "ram": "assumed"}, "m", "as it was")
    whole = extend_reading(reading, whole_s, "fits")
    if whole_s <= measured_s:
        assert whole is reading
        return
    assert (whole.wall_s, whole.energy_kwh) == (whole_s, energy_share(reading, whole_s))
    assert sum(whole.components_kwh.values()) == pytest.approx(whole.energy_kwh or 0.0)
    assert whole.methods["ram"] == "assumed"
    assert (whole.methods["cpu"] == "modelled") == (whole_s - measured_s > measured_s)
    assert whole.note.startswith("as it was; ")
    assert "(fits) modeled" in whole.note
