"""The electricity grid that carbon is computed with: region, carbon intensity, facility overhead (PUE)."""

import json
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

from resque.errors import MeterError, SettingError

LARGEST_PUE = 10.0


@dataclass(frozen=True)
class Grid:
    """The electricity that a machine runs on.

    Attributes:
        region: ISO 3166 alpha-3 code, or ``"given"`` for an intensity named by the user.
        intensity_g_per_kwh: Carbon intensity, grams of CO2 equivalent per kWh, location based.
        source: Where the intensity comes from.
        pue: Power usage effectiveness of the site: what it draws in all for each kWh of the machine.
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
        """Emissions of a kWh of the machine, with the site's share."""
        return self.pue * self.intensity_g_per_kwh / 1000.0

    def carbon_kg(self, energy_kwh: float | None) -> float | None:
        """Emissions of that much energy of the machine, with the site's share; None for None.

        Example:
            >>> round(Grid("DEU", 400.0, "given", pue=1.5).carbon_kg(2.0), 9)
            1.2
        """
        return None if energy_kwh is None else energy_kwh * self.kg_per_kwh


def named_grid(country: str | None = None, intensity: float | None = None, pue: float = 1.0) -> Grid | None:
    """The grid that carbon is computed with; None when neither country nor intensity is named.

    Args:
        country: ISO 3166 alpha-3 code, e.g. ``"FRA"``; yearly mean intensity from codecarbon's table.
        intensity: Grams of CO2 equivalent per kWh; goes before the country's.
        pue: Power usage effectiveness of the site; energy stays the machine's own, carbon is the site's.

    Raises:
        MeterError: Unknown country, negative intensity, a PUE without a grid, or no table installed.
        SettingError: A PUE that is none.

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
    table, code = _intensities(), country.upper()
    if code not in table:
        raise MeterError(f"unknown country {country!r}: use an ISO alpha-3 code such as FRA or USA, or --intensity")
    entry = table[code]
    source = f"yearly mean {entry['year']}, Our World in Data by way of codecarbon"
    return Grid(code, float(entry["carbon_intensity"]), source, pue)


def _intensities() -> dict[str, dict[str, Any]]:
    try:
        table = resources.files("codecarbon") / "data/private_infra/global_energy_mix.json"
        found: dict[str, dict[str, Any]] = json.loads(table.read_text())
    except (ImportError, OSError) as error:
        raise MeterError("no table of countries: install resque[energy], or give --intensity") from error
    return found
