"""Software Carbon Intensity of an update: ``(E · I + M) per R``, every term beside the sum (ISO/IEC 21031:2024).

``E`` is the energy of the whole run, evaluation included, times the site's PUE; ``I`` the grid's location-based
intensity; ``M`` the share of the hardware's embodied emissions that the run's time takes; ``R`` one update, one sample
passed in training, one floating point operation. Per sample or operation, fewer of them change nothing: that a
fine-tuned model needed less than one trained from scratch shows per update alone.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque.errors import SettingError
from resque.readings import EnergyReading
from resque.records import Update

_HOURS_PER_YEAR = 8766.0
_G_PER_KG = 1000.0


@dataclass(frozen=True)
class Embodied:
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
            >>> low, high = Embodied(100.0, 1000.0, life_years=4.0).during(3600.0)
            >>> round(low, 2), round(high, 1)
            (2.85, 28.5)
        """
        reserved = wall_s / 3600.0 / (self.life_years * _HOURS_PER_YEAR) * self.share
        return self.low_kg * _G_PER_KG * reserved, self.high_kg * _G_PER_KG * reserved

    def __post_init__(self) -> None:
        sound = 0.0 <= self.low_kg <= self.high_kg < math.inf and 0.0 < self.life_years < math.inf
        if not (sound and 0.0 < self.share <= 1.0):
            both = " to ".join(dict.fromkeys((f"{self.low_kg:g}", f"{self.high_kg:g}")))
            raise SettingError(
                f"embodied emissions {both} kg over {self.life_years:g} years, share "
                f"{self.share:g}: expected a range from 0 on, a lifespan, and a share in (0, 1]"
            )


CPU = Embodied(100.0, 1000.0, source="modeled: a processor alone (100 kg) to a whole server (1,000 kg), 4 years")
GPU = Embodied(150.0, 1318.0, source="modeled: one GPU (150 to 318 kg) alone or with its server (1,000 kg), 4 years")


@dataclass(frozen=True)
class Intensity:
    """Software Carbon Intensity with its terms; carbon in g CO2e, because one update is small.

    Attributes:
        energy_kwh: The machine's, of the whole run.
        pue: Of the site; E is the machine's energy times it.
        intensity_g_per_kwh: I.
        operational_g: E · I.
        embodied_low_g: M at the low end.
        embodied_high_g: M at the high end.
        per_update_low_g: ``(E · I + M)`` for R = one update.
        per_update_high_g: The same at the high end.
        per_sample_low_g: For R = one training sample passed; None where no step was taken.
        per_sample_high_g: The same at the high end.
        per_flop_low_g: For R = one floating point operation; None where they were not counted.
        per_flop_high_g: The same at the high end.
        tags: Term → ``measured``, ``modeled`` or ``sourced``, with its source.
    """

    energy_kwh: float
    pue: float
    intensity_g_per_kwh: float
    operational_g: float
    embodied_low_g: float
    embodied_high_g: float
    per_update_low_g: float
    per_update_high_g: float
    per_sample_low_g: float | None
    per_sample_high_g: float | None
    per_flop_low_g: float | None
    per_flop_high_g: float | None
    tags: dict[str, str]


def embodied_of(host: Mapping[str, str], kg: float | None = None, life_years: float | None = None) -> Embodied:
    """What making a machine emitted: as the user says, else the published range for a processor or a GPU.

    Args:
        host: Of an update.
        kg: Total, kg CO2e.
        life_years: Lifespan.

    Example:
        >>> embodied_of({"device": "cpu"}, kg=300.0).high_kg, embodied_of({"device": "cuda"}, life_years=3.0).life_years
        (300.0, 3.0)
    """
    made = GPU if host.get("device", "").startswith("cuda") else CPU
    if kg is not None:
        made = Embodied(kg, kg, made.life_years)
    if life_years is not None:
        source = made.source if kg is not None else made.source.replace("4 years", f"{life_years:g} years as given")
        made = dataclasses.replace(made, life_years=life_years, source=source)
    return made


def software_carbon_intensity(update: Update, embodied: Embodied | None = None) -> Intensity | None:
    """The SCI of one update; None where its energy or its grid is not known.

    Args:
        update: What was done.
        embodied: Of the hardware; None takes the published range, see :func:`embodied_of`.

    References:
        ISO/IEC 21031:2024, Software Carbon Intensity specification 1.1, Green Software Foundation.
    """
    energy, grid = update.energy, update.grid
    energy_kwh = update.whole_energy_kwh
    if energy_kwh is None or grid is None:
        return None
    made = embodied or embodied_of(update.host)
    operational = energy_kwh * grid.kg_per_kwh * _G_PER_KG
    low, high = made.during(energy.wall_s)
    samples, flops = update.cost.samples or None, update.cost.flops or None

    def per(unit: float | None) -> tuple[Any, Any]:
        return (None, None) if unit is None else ((operational + low) / unit, (operational + high) / unit)

    return Intensity(
        energy_kwh,
        grid.pue,
        grid.intensity_g_per_kwh,
        operational,
        low,
        high,
        *per(1.0),
        *per(samples),
        *per(flops),
        tags={
            "E": _how_known(energy),
            "I": f"sourced: {grid.source}",
            "M": made.source,
            "FLOP": "modeled: one step counted",
        },
    )


def _how_known(energy: EnergyReading) -> str:
    if energy.energy_kwh is None:
        return f"modeled: {energy.meter}, the power of probed steps"
    return f"{'modeled' if set(energy.methods.values()) - {'measured'} else 'measured'}: {energy.meter}"
