"""Software Carbon Intensity (SCI) of an update, ISO/IEC 21031:2024.

::

    SCI = (E · I + M) per R

* ``E`` is the energy of the hardware for the whole run, evaluation included, times the PUE of the site, in kWh.
* ``I`` is the location-based carbon intensity of the grid, in g CO2e per kWh, without offsets.
* ``M`` is the share of the hardware's embodied emissions for the time of the run, in g CO2e. Published totals differ
  by an order of magnitude, so M is a range.
* ``R`` is the functional unit: one update, one training sample, or one floating point operation.

Training from scratch takes more samples and operations than fine-tuning, and emissions grow with both. The SCI per
sample or per operation is therefore the same for both; only the SCI per update shows the difference.
"""

from dataclasses import dataclass

from resque.energy.hardware import G_PER_KG, EmbodiedEmissions, embodied_emissions
from resque.energy.reading import EnergyReading
from resque.ledger.records import Update

__all__ = ["SoftwareCarbonIntensity", "software_carbon_intensity"]


@dataclass(frozen=True)
class SoftwareCarbonIntensity:
    """Software Carbon Intensity with its terms, in g CO2e; a range, because embodied emissions are one.

    Attributes:
        energy_kwh: Energy of the whole run at the hardware; E is this times ``pue``.
        pue: Power usage effectiveness of the site.
        intensity_g_per_kwh: Carbon intensity of the grid, I.
        operational_g: Operational emissions, E · I.
        embodied_low_g: Lower bound of the embodied emissions, M.
        embodied_high_g: Upper bound of the embodied emissions, M.
        per_update_low_g: Lower bound of E · I + M, for R = one update.
        per_update_high_g: Upper bound of E · I + M, for R = one update.
        per_sample_low_g: Lower bound for R = one training sample, repeats counted; None if no step was taken.
        per_sample_high_g: Upper bound for R = one training sample; None if no step was taken.
        per_flop_low_g: Lower bound for R = one floating point operation; None if operations were not counted.
        per_flop_high_g: Upper bound for R = one floating point operation; None if operations were not counted.
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
    """Compute ``(E · I + M) per R`` of an update; return None if its energy or its grid is unknown.

    Args:
        update: A measured update.
        embodied: Embodied emissions of the hardware; None takes the published range for its processor or GPU.

    Example:
        An hour at 0.5 kWh and 400 g/kWh, with 100 to 1,000 kg of embodied emissions over 4 years, gives
        0.5 · 400 + 2.9 = 202.9 g to 0.5 · 400 + 28.5 = 228.5 g per update.

    References:
        ISO/IEC 21031:2024, Software Carbon Intensity (SCI) specification 1.1, Green Software Foundation.
    """
    energy_kwh, grid = update.whole_energy_kwh, update.grid
    if energy_kwh is None or grid is None:
        return None
    hardware = embodied or embodied_emissions(update.host)
    operational = energy_kwh * grid.kg_per_kwh * G_PER_KG
    low, high = hardware.during(update.energy.wall_s)
    samples, flops = update.cost.samples, update.cost.flops
    return SoftwareCarbonIntensity(
        energy_kwh=energy_kwh,
        pue=grid.pue,
        intensity_g_per_kwh=grid.intensity_g_per_kwh,
        operational_g=operational,
        embodied_low_g=low,
        embodied_high_g=high,
        per_update_low_g=operational + low,
        per_update_high_g=operational + high,
        per_sample_low_g=(operational + low) / samples if samples else None,
        per_sample_high_g=(operational + high) / samples if samples else None,
        per_flop_low_g=(operational + low) / flops if flops else None,
        per_flop_high_g=(operational + high) / flops if flops else None,
        tags={
            "E": _energy_tag(update.energy),
            "I": f"sourced: {grid.source}",
            "M": hardware.source,
            "FLOP": "modeled: one step counted",
        },
    )


def _energy_tag(energy: EnergyReading) -> str:
    """Return whether the energy was measured by a counter or modeled, with the name of the meter."""
    if energy.energy_kwh is None:
        return f"modeled: {energy.meter}, the power of probed steps"
    return f"{'modeled' if set(energy.methods.values()) - {'measured'} else 'measured'}: {energy.meter}"
