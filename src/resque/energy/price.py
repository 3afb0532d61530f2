"""Prices of energy and machine time."""

import math
from dataclasses import dataclass

from resque.errors import SettingError


@dataclass(frozen=True)
class Tariff:
    """What a run is paid for.

    Attributes:
        per_kwh: Price of a kWh.
        per_hour: Price of an hour of the machine.
        currency: Of both.
    """

    per_kwh: float = 0.0
    per_hour: float = 0.0
    currency: str = "EUR"

    def __post_init__(self) -> None:
        if not (0.0 <= self.per_kwh < math.inf and 0.0 <= self.per_hour < math.inf):
            raise SettingError(f"prices {self.per_kwh:g} per kWh and {self.per_hour:g} per hour: expected 0 or more")

    def price(self, energy_kwh: float | None, wall_s: float) -> float | None:
        """What that costs; None where energy is paid for and not known.

        Example:
            >>> Tariff(per_kwh=0.3, per_hour=2.0).price(0.5, 1800.0)
            1.15
        """
        if self.per_kwh and energy_kwh is None:
            return None
        return self.per_kwh * (energy_kwh or 0.0) + self.per_hour * wall_s / 3600.0
