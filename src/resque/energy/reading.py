"""Energy readings of a measured window, and arithmetic on them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class EnergyReading:
    """What a meter says of one window.

    Attributes:
        wall_s: Length of the window.
        energy_kwh: Sum of the components, None if any is unknown.
        components_kwh: Device → energy.
        methods: Device → ``measured``, ``modelled``, ``assumed``, or ``unknown``.
        meter: The meter's name and settings.
        note: Why energy is None, or how it was obtained; empty where there is nothing to say.
    """

    wall_s: float
    energy_kwh: float | None
    components_kwh: Mapping[str, float]
    methods: Mapping[str, str]
    meter: str
    note: str = ""


def energy_share(reading: EnergyReading, share_s: float) -> float | None:
    """Energy of ``share_s`` seconds out of a window, by time; None where the window's is."""
    if reading.energy_kwh is None:
        return None
    return reading.energy_kwh * share_s / reading.wall_s if reading.wall_s else 0.0


def join_readings(readings: Sequence[EnergyReading]) -> EnergyReading:
    """Windows one after the other as one; one too short for the meter is priced at the power of the others.

    Example:
        >>> parts = EnergyReading(2.0, 4.0, {"cpu": 4.0}, {}, "m"), EnergyReading(0.5, None, {}, {}, "m", "short")
        >>> whole = join_readings(parts)
        >>> whole.wall_s, whole.energy_kwh
        (2.5, 5.0)
    """
    if len(readings) == 1:
        return readings[0]
    known = [reading for reading in readings if reading.energy_kwh is not None]
    wall_s = math.fsum(reading.wall_s for reading in readings)
    known_s = math.fsum(reading.wall_s for reading in known)
    last = readings[-1]
    if not known_s:
        return dataclasses.replace(last, wall_s=wall_s)
    factor = wall_s / known_s
    parts = {
        device: factor * math.fsum(r.components_kwh.get(device, 0.0) for r in known)
        for device in known[0].components_kwh
    }
    total = factor * math.fsum(r.energy_kwh or 0.0 for r in known)
    notes = [f"{len(readings) - len(known)} of {len(readings)} windows priced at the others' power", known[-1].note]
    note = "; ".join(filter(None, notes if len(known) < len(readings) else notes[1:]))
    return EnergyReading(wall_s, total, parts, known[0].methods, last.meter, note)
