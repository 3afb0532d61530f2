"""Format numbers for people: each with the unit in which it reads best."""

import math

_SCALES = {
    "energy_kwh": ((1.0, "kWh"), (1e-3, "Wh"), (1e-6, "mWh"), (1e-9, "µWh")),
    "carbon_kg": ((1.0, "kg"), (1e-3, "g"), (1e-6, "mg"), (1e-9, "µg")),
    "flops": ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "wall_s": ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")),
}
COST_NAMES = {
    "epochs": "epochs",
    "steps": "steps",
    "gradient_norm": "gradient norm",
    "parameter_change": "parameter change",
    "wall_s": "time",
    "energy_kwh": "energy",
    "carbon_kg": "CO2e",
    "flops": "operations",
}
NOT_MEASURED = "–"


def format_cost(cost: str, value: float | None) -> str:
    """A cost with its unit; a dash where it was not measured.

    Example:
        >>> format_cost("energy_kwh", 0.0000124), format_cost("wall_s", 95.0), format_cost("steps", 1400.0)
        ('12.4 mWh', '1.58 min', '1,400')
        >>> format_cost("carbon_kg", None), format_cost("flops", 3.2e12)
        ('–', '3.2 TFLOP')
    """
    if value is None:
        return NOT_MEASURED
    scale, unit = unit_scale(cost, value)
    return f"{format_number(value / scale)} {unit}".rstrip()


def format_probability(probability: float) -> str:
    """A chance in whole percent, never rounded up to what is sure, or to a level that it does not reach.

    Example:
        >>> format_probability(0.7999), format_probability(0.9985), format_probability(1.0), format_probability(0.004)
        ('79%', '>99%', '100%', '<1%')
    """
    if 0.0 < probability < 0.01:
        return "<1%"
    return ">99%" if 0.99 < probability < 1.0 else f"{math.floor(100.0 * probability + 1e-9)}%"


def format_share(part: int, whole: int) -> str:
    """``7 of 8``."""
    return f"{part} of {whole}"


def format_price(amount: float | None, currency: str) -> str:
    """``0.0123 EUR``; a dash where it is not known."""
    return NOT_MEASURED if amount is None else f"{format_number(amount)} {currency}"


def unit_scale(cost: str, value: float) -> tuple[float, str]:
    scales = _SCALES.get(cost, ((1.0, ""),))
    if value == 0:
        return next((scale, unit) for scale, unit in scales if scale == 1.0)
    return next(((scale, unit) for scale, unit in scales if abs(value) >= scale), scales[-1])


def format_bound(value: float) -> str:
    """Two digits are enough for a bound."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.2g}"


def format_number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"
