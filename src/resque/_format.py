"""Numbers for people: each with the unit in which it reads best."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence

from resque.types import Interval

__all__ = [
    "COST_NAMES", "NOT_MEASURED", "describe_error", "format_about", "format_beside", "format_column", "format_cost",
    "format_estimate", "format_interval", "format_like", "format_list", "format_number", "format_price",
    "format_probability", "format_share", "printable", "scale_and_unit", "shorten_names",
]  # fmt: skip

_COARSE = 0.01  # smallest part of a unit that reads well
_SCALES = {
    "energy_kwh": ((1.0, "kWh"), (1e-3, "Wh")),
    "carbon_kg": ((1.0, "kg"), (1e-3, "g")),
    "flops": ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "wall_s": ((3600.0, "h"), (60.0, "min"), (1.0, "s")),
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
    "price": "price",
}
NOT_MEASURED = "–"
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""Controls of a terminal (C0, C1), of the direction of writing, of lines, invisible signs, and halves of characters."""


_WEIGHTS = re.compile(r"(?<=[^=/])\.(safetensors|pth?)$")


def printable(text: str, keep: str = "") -> str:
    r"""Return a text in which control characters are escaped, so that a name cannot steer a terminal or a page.

    Args:
        text: Text, which may hold names of files, models or shifts.
        keep: Characters that stay.

    Example:
        >>> print(printable("new\x1b[2Jdata\u202enpz\n"))
        new\x1b[2Jdata\u202enpz\n
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def format_list(texts: Sequence[str]) -> str:
    """Return texts as a list in a sentence.

    Example:
        >>> format_list(["head", "LoRA", "all layers"])
        'head, LoRA and all layers'
    """
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def shorten_names(names: Iterable[str], width: int = 28) -> dict[str, str]:
    """Return each name of a model with a short one; all differ.

    Of those that are too long, what all of them have in common at both ends goes first. Then folders, the ending of
    the weights, the package or library and the middle go.

    Args:
        names: Names, such as ``net.py:build=weights.safetensors``.
        width: Length up to which a name stays as it is. Where two would be the same, they are longer.

    Example:
        >>> list(shorten_names(["/data/nets/net.py:build=/data/first/weights.safetensors"]).values())
        ['net.py:build=weights']
        >>> list(shorten_names([f"/a/long/path/{run}/net.py:build" for run in ("one", "two")]).values())
        ['one', 'two']
    """
    known = list(dict.fromkeys(names))
    long = [name for name in known if len(name) > width]
    shorter = dict(zip(long, _without_common(long), strict=True)) if len(long) > 1 else {}
    own = [shorter.get(name, name) for name in known]
    own = own if len({*own}) == len(known) else known
    kept = dict.fromkeys(own, 1)  # folders and file of each path
    for _ in range(max((name.count("/") for name in own), default=0)):
        shown = [_without_folders(name, width, kept[name]) for name in own]
        same = {name for name, text in zip(own, shown, strict=True) if shown.count(text) > 1}
        kept = {name: count + (name in same) for name, count in kept.items()}
    texts = [_without_folders(name, width, kept[name]) for name in own]
    without_place = [text.rpartition(":")[2] if len(text) > width else text for text in texts]
    texts = without_place if len({*without_place}) == len(texts) else texts
    cuts = ([_cut(text, length) for text in texts] for length in itertools.count(width, 4))
    return dict(zip(known, next(cut for cut in cuts if len({*cut}) == len(known)), strict=True))


def _without_common(names: Sequence[str]) -> list[str]:
    """Return names without the parts, between the signs of a path or specification, that all have at both ends."""
    parts = [re.split("([/=:])", name) for name in names]
    n = min(map(len, parts)) // 2  # of the parts that may go, each with its sign
    first = next((i for i in range(n) if len({tuple(each[2 * i : 2 * i + 2]) for each in parts}) > 1), n)
    last = next((i for i in range(n - first) if len({tuple(each[-2 * i - 2 :][:2]) for each in parts}) > 1), n - first)
    return ["".join(each[2 * first : len(each) - 2 * last]) for each in parts]


def _without_folders(name: str, width: int, kept: int) -> str:
    if len(name) <= width:
        return name
    text = "".join("/".join(part.split("/")[-kept:]) for part in re.split("([=:])", name))
    return text if kept > 1 or len(text) <= width else _WEIGHTS.sub("", text)


def _cut(text: str, width: int) -> str:
    half = width // 2
    return text if len(text) <= width else f"{text[:half]}…{text[half + 1 - width :]}"


def describe_error(error: BaseException) -> str:
    r"""Return the type and the text of an error of foreign code, as one line.

    Example:
        >>> describe_error(ValueError("a\nb"))
        'ValueError: a b'
    """
    try:
        text = str(error)
    except BaseException as another:  # its text is foreign code, too
        text = f"its text cannot be read ({type(another).__name__})"
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}"


def format_cost(cost: str, value: float | None) -> str:
    """Return a cost with its unit; a dash where it was not measured.

    Example:
        >>> format_cost("energy_kwh", 0.0000124), format_cost("wall_s", 95.0), format_cost("steps", 1400.0)
        ('0.0124 Wh', '1.58 min', '1,400')
        >>> format_cost("carbon_kg", None), format_cost("flops", 3.2e12)
        ('–', '3.2 TFLOP')
    """
    if value is None:
        return NOT_MEASURED
    scale, unit = scale_and_unit(cost, value)
    return f"{format_number(value / scale)} {unit}".rstrip()


def format_about(cost: str, value: float) -> str:
    """Return a cost with its unit, to the two digits that a forecast is known to.

    Example:
        >>> format_about("wall_s", 133.0), format_about("energy_kwh", 0.00056)
        ('2.2 min', '0.56 Wh')
    """
    scale, unit = scale_and_unit(cost, value)
    return f"{format_number(float(f'{value / scale:.2g}'))} {unit}".rstrip()


def format_column(cost: str, values: Sequence[float | None]) -> list[str]:
    """Return costs that stand in one column or row of a table, in the unit that suits their median.

    Where a hundredth of that unit is too coarse for the smallest, it is the unit that suits this one.

    Example:
        >>> format_column("wall_s", [30.0, 90.0, None, 240.0]), format_column("wall_s", [0.3, 90.0, 240.0])
        (['0.5 min', '1.5 min', '–', '4 min'], ['0.3 s', '90 s', '240 s'])
    """
    known = sorted(abs(value) for value in values if value)
    middle = known[len(known) // 2] if known else 0.0
    is_coarse = known and known[0] < _COARSE * scale_and_unit(cost, middle)[0]
    return [format_like(cost, value, known[0] if is_coarse else middle) for value in values]


def format_like(cost: str, value: float | None, reference: float) -> str:
    """Return a cost in the unit that suits another one, beside which it stands.

    Example:
        >>> format_like("wall_s", 30.0, 90.0), format_like("wall_s", None, 90.0)
        ('0.5 min', '–')
    """
    scale, unit = scale_and_unit(cost, reference)
    return NOT_MEASURED if value is None else f"{format_number(value / scale)} {unit}".rstrip()


def format_interval(cost: str, value: float, interval: Interval) -> str:
    """Return the interval of a cost, in the unit in which the value itself reads best.

    Example:
        >>> format_interval("energy_kwh", 2e-5, Interval(5.1e-6, 9.96e-5, 0.8, ""))
        '0.0051–0.1 Wh'
        >>> format_interval("steps", 40, Interval(10, None, 0.8, ""))
        'over 10'
    """
    scale, unit = scale_and_unit(cost, value)
    low = _format_bound(interval.low / scale)
    bounds = f"over {low}" if interval.high is None else f"{low}–{_format_bound(interval.high / scale)}"
    return f"{bounds} {unit}".rstrip()


def format_estimate(cost: str, value: float, interval: Interval, upper: float | None) -> tuple[str, str, str]:
    """Return the cells of a forecast cost, in one unit: its median, its interval and its one-sided upper bound."""
    return format_cost(cost, value), format_interval(cost, value, interval), format_like(cost, upper, value)


def format_probability(probability: float, is_measured: bool = False) -> str:
    """Return a probability in whole percent, rounded down so that it never seems certain or above a level.

    Args:
        probability: The probability, or a share.
        is_measured: Whether it is known, so that nothing and all are 0 % and 100 %.

    Example:
        >>> format_probability(0.7999), format_probability(1.0), format_probability(0.0)
        ('79%', '>99%', '<1%')
        >>> format_probability(1.0, is_measured=True), format_probability(0.9985, is_measured=True)
        ('100%', '>99%')
    """
    if is_measured and probability in (0.0, 1.0):
        return f"{probability:.0%}"
    if probability < 0.01:
        return "<1%"
    return ">99%" if probability > 0.99 else f"{math.floor(100.0 * probability + 1e-9)}%"


def format_beside(value: float, *references: float) -> str:
    """Return a share with three decimals, or as many more as tell on which side of each reference it is.

    Example:
        >>> format_beside(0.755, 0.75), format_beside(0.74996, 0.75), format_beside(0.75, 0.75)
        ('0.755', '0.74996', '0.750')
    """
    texts = (f"{value:.{digits}f}" for digits in range(3, 17))
    is_same = (text for text in texts if all((float(text) < each) == (value < each) for each in references))
    return next(is_same, repr(value))


def format_share(part: int, whole: int) -> str:
    """Return a count out of a total: ``7 of 8``."""
    return f"{part} of {whole}"


def format_count(n: int, noun: str) -> str:
    """Return a count of something, in the plural where it is not one.

    Example:
        >>> format_count(1, "step"), format_count(1200, "step")
        ('1 step', '1,200 steps')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"


def format_price(amount: float | None, currency: str) -> str:
    """Return a price with its currency, ``0.0123 EUR``; a dash where it is unknown."""
    return NOT_MEASURED if amount is None else f"{format_number(amount)} {currency}"


def format_number(value: float) -> str:
    """Return a number with three significant digits, or as a whole number from 100 on; a small one with two.

    Example:
        >>> format_number(1234.5), format_number(0.0123456), format_number(0.0000123), format_number(1.23e-9)
        ('1,234', '0.0123', '0.000012', '1.2e-09')
    """
    size = abs(value)
    if value == 0 or size >= 100:
        return f"{value:,.0f}"
    if size >= 1e-3:
        return f"{value:.3g}"
    return f"{value:.{1 - math.floor(math.log10(size))}f}".rstrip("0") if size >= 1e-6 else f"{value:.1e}"


def _format_bound(value: float) -> str:
    """Return an interval bound with two digits, which is all that a bound is known to."""
    return f"{value:,.0f}" if value >= 99.5 else format_number(value) if 0 < value < 1e-3 else f"{value:.2g}"


def scale_and_unit(cost: str, value: float) -> tuple[float, str]:
    """Return the largest unit that is no larger than the value, with its size in the stored unit."""
    scales = _SCALES.get(cost, ((1.0, ""),))
    return next(((scale, unit) for scale, unit in scales if abs(value) >= scale), scales[-1])
