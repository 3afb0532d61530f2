"""Embodied emissions of the hardware: a range for manufacturing, shared out by time used."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from resque.errors import SettingError

_HOURS_PER_YEAR = 8766.0
G_PER_KG = 1000.0


@dataclass(frozen=True)
class EmbodiedEmissions:
    """Emissions of making the hardware, as a range, because published figures differ by an order of magnitude.

    Attributes:
        low_kg: Least plausible total, kg CO2e.
        high_kg: Greatest plausible total.
        life_years: Expected lifespan.
        share: Of the hardware's resources that the run reserved, in (0, 1].
        source: Where the figures come from.
    """

    low_kg: float
    high_kg: float
    life_years: float = 4.0
    share: float = 1.0
    source: str = "given by the user"

    def during(self, wall_s: float) -> tuple[float, float]:
        """Grams of CO2e, least and greatest, that so much time of the hardware's life takes.

        Example:
            >>> low, high = EmbodiedEmissions(100.0, 1000.0, life_years=4.0).during(3600.0)
            >>> round(low, 2), round(high, 1)
            (2.85, 28.5)
        """
        reserved = wall_s / 3600.0 / (self.life_years * _HOURS_PER_YEAR) * self.share
        return self.low_kg * G_PER_KG * reserved, self.high_kg * G_PER_KG * reserved

    def __post_init__(self) -> None:
        sound = 0.0 <= self.low_kg <= self.high_kg < math.inf and 0.0 < self.life_years < math.inf
        if not (sound and 0.0 < self.share <= 1.0):
            both = " to ".join(dict.fromkeys((f"{self.low_kg:g}", f"{self.high_kg:g}")))
            raise SettingError(
                f"embodied emissions {both} kg over {self.life_years:g} years, share "
                f"{self.share:g}: expected a range from 0 on, a lifespan, and a share in (0, 1]"
            )


CPU_EMISSIONS = EmbodiedEmissions(
    100.0, 1000.0, source="modeled: a processor alone (100 kg) to a whole server (1,000 kg), 4 years"
)
GPU_EMISSIONS = EmbodiedEmissions(
    150.0, 1318.0, source="modeled: one GPU (150 to 318 kg) alone or with its server (1,000 kg), 4 years"
)


def embodied_emissions(
    host: Mapping[str, str], kg: float | None = None, life_years: float | None = None
) -> EmbodiedEmissions:
    """What making a machine emitted: as the user says, else the published range for a processor or a GPU.

    Args:
        host: Of an update.
        kg: Total, kg CO2e.
        life_years: Lifespan.

    Example:
        >>> embodied_emissions({"device": "cpu"}, kg=300.0).high_kg
        300.0
    """
    made = GPU_EMISSIONS if host.get("device", "").startswith("cuda") else CPU_EMISSIONS
    if kg is not None:
        made = EmbodiedEmissions(kg, kg, made.life_years)
    if life_years is not None:
        source = made.source if kg is not None else made.source.replace("4 years", f"{life_years:g} years as given")
        made = dataclasses.replace(made, life_years=life_years, source=source)
    return made
