"""Electricity grids: region, carbon intensity and facility overhead (PUE)."""

import math
from dataclasses import dataclass

from resque._plain import Serializable
from resque.energy._codecarbon import energy_mix
from resque.errors import MeterError, SettingError

__all__ = ["LARGEST_PUE", "Grid", "named_grid"]

LARGEST_PUE = 10.0


@dataclass(frozen=True)
class Grid(Serializable):
    """The electricity grid that a machine draws from.

    Attributes:
        region: ISO 3166 alpha-3 code, or ``"given"`` if the user names only an intensity.
        intensity_g_per_kwh: Location-based carbon intensity in grams of CO2 equivalent per kWh.
        source: Origin of the intensity.
        pue: Power usage effectiveness: energy of the whole facility per unit of IT energy.
    """

    region: str
    intensity_g_per_kwh: float
    source: str
    pue: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.pue <= LARGEST_PUE:
            raise SettingError(
                f"power usage effectiveness (--pue) {self.pue:g}: expected 1 to {LARGEST_PUE:g}, e.g. 1.2"
            )

    @property
    def kg_per_kwh(self) -> float:
        """Emissions per kWh of IT energy, facility overhead included, in kg of CO2 equivalent."""
        return self.pue * self.intensity_g_per_kwh / 1000.0

    def carbon_kg(self, energy_kwh: float | None) -> float | None:
        """Return the emissions of an amount of IT energy, in kg; None if the energy is None.

        Example:
            >>> round(Grid("DEU", 400.0, "given", pue=1.5).carbon_kg(2.0), 9)
            1.2
        """
        return None if energy_kwh is None else energy_kwh * self.kg_per_kwh


def named_grid(country: str | None = None, intensity: float | None = None, pue: float = 1.0) -> Grid | None:
    """Return the grid of a country or of a given intensity; None without both, so that no carbon is reported.

    Args:
        country: ISO 3166 alpha-3 code, e.g. ``"FRA"``; selects the yearly mean intensity in codecarbon's table.
        intensity: Grams of CO2 equivalent per kWh; overrides the country's intensity.
        pue: Power usage effectiveness of the facility; it multiplies carbon, not energy.

    Raises:
        MeterError: If the country is unknown, the intensity is negative, a PUE comes without a grid, or no table is
            installed.
        SettingError: If the PUE is outside 1 to 10.

    Example:
        >>> named_grid(intensity=44.0).carbon_kg(2.0)
        0.088
        >>> named_grid() is None
        True
    """
    if intensity is not None:
        if not (math.isfinite(intensity) and intensity >= 0):
            raise MeterError(f"carbon intensity {intensity}: expected grams of CO2e per kWh, 0 or more")
        return Grid(country.upper() if country else "given", float(intensity), "given by the user", pue)
    if country is None:
        if pue != 1.0:
            raise MeterError("a power usage effectiveness has no grid to multiply: add --country or --intensity")
        return None
    try:
        entry = energy_mix().get(country.upper())
    except (ImportError, OSError) as error:
        raise MeterError("no table of countries: install resque[energy], or give --intensity") from error
    if entry is None:
        raise MeterError(f"unknown country {country!r}: use an ISO alpha-3 code such as FRA or USA, or --intensity")
    source = f"yearly mean {entry['year']}, Our World in Data by way of codecarbon"
    return Grid(country.upper(), float(entry["carbon_intensity"]), source, pue)
