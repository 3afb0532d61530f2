import pytest

from resque.energy.reading import EnergyReading, energy_share, join_readings


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
