"""Energy readings of measured windows, and arithmetic on them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from resque._plain import Serializable
from resque.types import StoredFloat

__all__ = ["EnergyReading", "energy_share", "extend_reading", "join_readings", "nothing_more", "split_reading"]


@dataclass(frozen=True)
class EnergyReading(Serializable):
    """Wall time and energy of a measured window.

    Attributes:
        wall_s: Length of the window in seconds.
        energy_kwh: Total energy of the components in kWh; None if it is unknown.
        components_kwh: Device → energy in kWh.
        methods: Device → ``measured``, ``modelled``, ``assumed`` or ``unknown``.
        meter: Name and settings of the meter.
        note: Reason why the energy is None, or how it was obtained; may be empty.
    """

    wall_s: float
    energy_kwh: float | None
    components_kwh: Mapping[str, StoredFloat]
    methods: Mapping[str, str]
    meter: str
    note: str = ""


def energy_share(reading: EnergyReading, share_s: float) -> float | None:
    """Return the energy of ``share_s`` seconds of a window at its mean power; None if the energy is unknown.

    Example:
        >>> energy_share(EnergyReading(10.0, 2.0, {"cpu": 2.0}, {"cpu": "modelled"}, "meter"), 4.0)
        0.8
    """
    if reading.energy_kwh is None:
        return None
    return reading.energy_kwh * share_s / reading.wall_s if reading.wall_s else 0.0


def extend_reading(reading: EnergyReading, wall_s: float, what: str, more_kwh: float | None = None) -> EnergyReading:
    """Extend a reading to the longer time around its window at its mean power; a shorter time leaves it as it is.

    Where the window is less than half of that time, what a counter measured is only modeled.

    Args:
        reading: Reading of the window.
        wall_s: Seconds of the whole.
        what: Description of the work outside the window, for the note.
        more_kwh: Energy of that work, where it is known better than by the window's power.

    Example:
        >>> whole = extend_reading(EnergyReading(1.0, 2.0, {"cpu": 2.0}, {"cpu": "measured"}, "meter"), 4.0, "imports")
        >>> whole.energy_kwh, whole.methods, whole.note
        (8.0, {'cpu': 'modelled'}, '3.00 of 4.00 s (imports) modeled at the power of the rest')
    """
    more_s = wall_s - reading.wall_s
    if more_s <= 0.0:
        return reading
    note = f"{more_s:.2f} of {wall_s:.2f} s ({what}) modeled at the power of the rest"
    methods = reading.methods
    if more_s > reading.wall_s:
        methods = {device: "modelled" if how == "measured" else how for device, how in methods.items()}

    def extended(kwh: float) -> float:
        if more_kwh is not None and reading.energy_kwh:
            return kwh + more_kwh * kwh / reading.energy_kwh
        return kwh * wall_s / reading.wall_s if reading.wall_s else 0.0

    return dataclasses.replace(
        reading,
        wall_s=wall_s,
        energy_kwh=None if reading.energy_kwh is None else extended(reading.energy_kwh),
        components_kwh={device: extended(kwh) for device, kwh in reading.components_kwh.items()},
        methods=methods,
        note="; ".join(filter(None, (reading.note, note))),
    )


def nothing_more(reading: EnergyReading) -> EnergyReading:
    """Return the reading of an empty window by the same meter, as of what another window has measured already.

    Example:
        >>> nothing_more(EnergyReading(2.0, 4.0, {"cpu": 4.0}, {"cpu": "measured"}, "m")).energy_kwh
        0.0
    """
    energy_kwh = None if reading.energy_kwh is None else 0.0
    nothing = dict.fromkeys(reading.components_kwh, 0.0)
    return dataclasses.replace(reading, wall_s=0.0, energy_kwh=energy_kwh, components_kwh=nothing)


def split_reading(reading: EnergyReading, parts: int) -> EnergyReading:
    """Return one of several equal parts of a reading.

    Example:
        >>> split_reading(EnergyReading(2.0, 4.0, {"cpu": 4.0}, {"cpu": "measured"}, "m"), 4).energy_kwh
        1.0
    """
    return dataclasses.replace(
        reading,
        wall_s=reading.wall_s / parts,
        energy_kwh=energy_share(reading, reading.wall_s / parts),
        components_kwh={device: kwh / parts for device, kwh in reading.components_kwh.items()},
    )


def join_readings(readings: Sequence[EnergyReading]) -> EnergyReading:
    """Join consecutive windows into one; windows without energy are imputed from the mean power of the others.

    Example:
        >>> parts = EnergyReading(2.0, 4.0, {"cpu": 4.0}, {}, "m"), EnergyReading(0.5, None, {}, {}, "m", "short")
        >>> whole = join_readings(parts)
        >>> whole.wall_s, whole.energy_kwh, whole.note
        (2.5, 5.0, 'energy of 1 of 2 windows imputed from the mean power of the others')
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
    components = {
        device: factor * math.fsum(reading.components_kwh.get(device, 0.0) for reading in known)
        for device in known[0].components_kwh
    }
    total = factor * math.fsum(reading.energy_kwh or 0.0 for reading in known)
    missing = len(readings) - len(known)
    imputed = f"energy of {missing} of {len(readings)} windows imputed from the mean power of the others"
    note = "; ".join(filter(None, [imputed if missing else "", known[-1].note]))
    return EnergyReading(wall_s, total, components, known[0].methods, last.meter, note)
