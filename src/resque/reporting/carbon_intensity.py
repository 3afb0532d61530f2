"""Software Carbon Intensity of an update: ``(E · I + M) per R``, every term beside the sum (ISO/IEC 21031:2024).

``E`` is the energy of the whole run, evaluation included, times the site's PUE; ``I`` the grid's location-based
intensity; ``M`` the share of the hardware's embodied emissions that the run's time takes; ``R`` one update, one sample
passed in training, one floating point operation. Per sample or operation, fewer of them change nothing: that a
fine-tuned model needed less than one trained from scratch shows per update alone.
"""

from dataclasses import dataclass
from typing import Any

from resque.energy.hardware import G_PER_KG, EmbodiedEmissions, embodied_emissions
from resque.energy.reading import EnergyReading
from resque.ledger.records import Update


@dataclass(frozen=True)
class SoftwareCarbonIntensity:
    """Software Carbon SoftwareCarbonIntensity with its terms; carbon in g CO2e, because one update is small.

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


def software_carbon_intensity(
    update: Update, embodied: EmbodiedEmissions | None = None
) -> SoftwareCarbonIntensity | None:
    """The SCI of one update; None where its energy or its grid is not known.

    Args:
        update: What was done.
        embodied: Of the hardware; None takes the published range, see :func:`embodied_of`.

    References:
        ISO/IEC 21031:2024, Software Carbon SoftwareCarbonIntensity specification 1.1, Green Software Foundation.
    """
    energy, grid = update.energy, update.grid
    energy_kwh = update.whole_energy_kwh
    if energy_kwh is None or grid is None:
        return None
    made = embodied or embodied_emissions(update.host)
    operational = energy_kwh * grid.kg_per_kwh * G_PER_KG
    low, high = made.during(energy.wall_s)
    samples, flops = update.cost.samples or None, update.cost.flops or None

    def per(unit: float | None) -> tuple[Any, Any]:
        return (None, None) if unit is None else ((operational + low) / unit, (operational + high) / unit)

    return SoftwareCarbonIntensity(
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
