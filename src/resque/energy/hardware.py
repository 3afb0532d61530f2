"""Embodied emissions of hardware: a range for its manufacture, amortized over its lifespan."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from resque.errors import SettingError

__all__ = ["CPU_EMISSIONS", "GPU_EMISSIONS", "G_PER_KG", "EmbodiedEmissions", "embodied_emissions"]

G_PER_KG = 1000.0
_HOURS_PER_YEAR = 8766.0


@dataclass(frozen=True)
class EmbodiedEmissions:
    """Emissions of manufacturing the hardware, as a range: published figures differ by an order of magnitude.

    Attributes:
        low_kg: Lower end of the total, in kg of CO2 equivalent.
        high_kg: Upper end of the total, in kg of CO2 equivalent.
        life_years: Expected lifespan in years.
        share: Share of the hardware's resources that the run reserves, in (0, 1].
        source: Origin of the figures.
    """

    low_kg: float
    high_kg: float
    life_years: float = 4.0
    share: float = 1.0
    source: str = "given by the user"

    def __post_init__(self) -> None:
        valid = 0.0 <= self.low_kg <= self.high_kg < math.inf and 0.0 < self.life_years < math.inf
        if not (valid and 0.0 < self.share <= 1.0):
            total = " to ".join(dict.fromkeys((f"{self.low_kg:g}", f"{self.high_kg:g}")))
            raise SettingError(
                f"embodied emissions {total} kg over {self.life_years:g} years, share "
                f"{self.share:g}: expected a range from 0 on, a lifespan, and a share in (0, 1]"
            )

    def during(self, wall_s: float) -> tuple[float, float]:
        """Return the lower and upper amortized emissions of ``wall_s`` seconds of use, in grams of CO2 equivalent.

        This is M of the Software Carbon Intensity: total × time reserved / lifespan × share of resources.

        Example:
            >>> low, high = EmbodiedEmissions(100.0, 1000.0, life_years=4.0).during(3600.0)
            >>> round(low, 2), round(high, 1)
            (2.85, 28.5)
        """
        reserved = wall_s / 3600.0 / (self.life_years * _HOURS_PER_YEAR) * self.share
        return self.low_kg * G_PER_KG * reserved, self.high_kg * G_PER_KG * reserved


CPU_EMISSIONS = EmbodiedEmissions(
    100.0, 1000.0, source="modeled: a processor alone (100 kg) to a whole server (1,000 kg), 4 years"
)
GPU_EMISSIONS = EmbodiedEmissions(
    150.0, 1318.0, source="modeled: one GPU (150 to 318 kg) alone or with its server (1,000 kg), 4 years"
)


def embodied_emissions(
    host: Mapping[str, str], kg: float | None = None, life_years: float | None = None
) -> EmbodiedEmissions:
    """Return the user's figure for the embodied emissions, or the published range for a processor or GPU.

    Args:
        host: Description of the machine in an update; its ``"device"`` selects the range.
        kg: Total emissions in kg of CO2 equivalent; None takes the published range.
        life_years: Lifespan in years; None takes the default of 4 years.

    Example:
        >>> embodied_emissions({"device": "cpu"}, kg=300.0).high_kg
        300.0
    """
    emissions = GPU_EMISSIONS if host.get("device", "").startswith("cuda") else CPU_EMISSIONS
    if kg is not None:
        emissions = EmbodiedEmissions(kg, kg, emissions.life_years)
    if life_years is not None:
        source = emissions.source.replace("4 years", f"{life_years:g} years as given")
        emissions = dataclasses.replace(emissions, life_years=life_years, source=source)
    return emissions
