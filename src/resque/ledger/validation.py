"""Rules for the values of records: what no measured update and no forecast can have is refused.

Every importer uses them, and every run before it starts. What a ledger holds is read without them, so that no stored
entry becomes unreadable.
"""

import dataclasses
import datetime
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from resque.energy.reading import EnergyReading
from resque.ledger.components import COSTS, MEASURED, LearningCurve
from resque.ledger.records import Forecast, Update, Void
from resque.types import Interval

__all__ = ["check_record"]

_SHARE, _ANGLE, _ANY = (0.0, 1.0), (0.0, math.pi + 1e-9), (-math.inf, math.inf)
_BOUNDS = {
    **dict.fromkeys(("accuracy", "target_accuracy", "probability_reached", "trainable_share", "level"), _SHARE),
    **dict.fromkeys(("original_accuracy", "original_accuracy_before", "original_accuracy_after"), _SHARE),
    **dict.fromkeys(("others_busy_share", "free_accuracy"), _SHARE),
    "expected_forgetting": (-1.0, 1.0),
    **dict.fromkeys(("index_rad", "floor_rad", "angle_to_parent_rad", "angle_to_root_rad"), _ANGLE),
    "task_index": (0.0, 1.5),  # one minus an adjusted Rand index, which is -0.5 at least
    **dict.fromkeys(("steps_per_epoch", "max_steps", "processes"), (1, math.inf)),
    "intensity_g_per_kwh": (0.0, 5000.0),  # oil at a poor efficiency has some 1,500
    **dict.fromkeys(("seed", "scores", "alternatives", "recipe"), _ANY),
}
"""Name of a field → its bounds; any other number is 0 or more."""
_TIMES = "started_utc", "created_utc"
_INT64 = 2**63
_ROUNDING = 1.0 + 1e-4  # published results have six digits
_CLOCKS = datetime.timedelta(days=1)  # by which clocks of one run may differ
_SLACK, _SLACK_S = 1.1, 1.0  # another tool's meter covers 95 % of the training at least, and cuts off seconds


def check_record(record: Any, field: str = "") -> None:
    """Raise an error unless a record, with the records in it, has values that a measurement or forecast can have.

    Args:
        record: A record, or the value of a field.
        field: Name of the field that holds it; empty for a whole record.

    Raises:
        ValueError: A value is out of its range or contradicts another; the message names the field and the value.

    Example:
        >>> check_record(EnergyReading(-1.0, None, {}, {}, "meter"))
        Traceback (most recent call last):
            ...
        ValueError: wall_s is -1.0, expected 0 or more
    """
    if (problem := next(_problems(record, field, field), None)) is not None:
        raise ValueError(problem.encode("ascii", "backslashreplace").decode())


def _problems(value: Any, where: str, field: str) -> Iterator[str]:
    """Yield what is wrong with a value and with all that it holds.

    Args:
        value: A record, mapping, sequence or scalar.
        where: Place of the value, for people.
        field: Name of the field that holds it, by which its bounds are found.
    """
    if dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            name = field if field in ("scores", "recipe") else each.name
            yield from _problems(getattr(value, each.name), f"{where}.{each.name}".lstrip("."), name)
        for problem in _contradictions(value):
            yield f"{where}.{problem}".lstrip(".")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _problems_of_text(key, f"a name in {where}")
            yield from _problems(item, f"{where}.{key}", field)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _problems(item, f"{where}[{i}]", field)
    elif isinstance(value, str):
        yield from _problems_of_text(value, where, field in _TIMES)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _problems_of_number(value, where, *_BOUNDS.get(field, (0.0, math.inf)))


def _problems_of_text(text: Any, where: str, is_time: bool = False) -> Iterator[str]:
    if not isinstance(text, str):
        yield f"{where} is {text!r:.40}, expected text"
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        yield f"{where} is {text!r:.40}, which is no Unicode text: give it another name"
    if is_time:
        try:
            datetime.datetime.fromisoformat(text)
        except ValueError:
            yield f"{where} is {text!r:.40}, expected a time in ISO 8601"


def _problems_of_number(value: float, where: str, low: float, high: float) -> Iterator[str]:
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        yield f"{where} is a number of {value.bit_length()} bits, expected 63 at most"
    elif not math.isfinite(value):
        yield f"{where} is {value}, expected a finite number"
    elif not low <= value <= high:
        expected = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:.4g}"
        yield f"{where} is {value}, expected {expected}"


def _contradictions(record: Any) -> Iterable[str]:
    """Return what is wrong between the fields of a record."""
    if isinstance(record, Update):
        return _of_update(record)
    if isinstance(record, LearningCurve):
        return _of_curve(record)
    if isinstance(record, EnergyReading):
        return _of_reading(record)
    if isinstance(record, Interval) and None not in (record.low, record.high) and record.low > (record.high or 0.0):
        return [f"low is {record.low}, above high, {record.high}"]
    if isinstance(record, Forecast):
        return [f"estimates has {name!r:.40}, which is no cost" for name in record.estimates if name not in COSTS]
    if isinstance(record, Void) and not record.why.strip():
        return ["why is empty, expected a reason"]
    return ()


def _of_update(update: Update) -> Iterator[str]:
    """Yield what contradicts the learning curve or is a part above its whole."""
    curve, cost, energy = update.curve, update.cost, update.energy
    if not update.id:
        yield "id is empty"
    if update.reached != (update.peak_accuracy >= update.target_accuracy):
        yield f"reached is {update.reached}, and the best accuracy {update.peak_accuracy} of {update.target_accuracy}"
    if cost.steps < curve.steps[-1]:
        yield f"cost.steps is {cost.steps}, less than those of the curve, {curve.steps[-1]}"
    per_epoch = curve.steps_per_epoch
    if per_epoch and cost.epochs is not None and cost.epochs > _SLACK * cost.steps / per_epoch + 1.0:
        yield f"cost.epochs is {cost.epochs}, more than {cost.steps} steps of {per_epoch} an epoch"
    if update.stopped_by == "target" and not update.reached:
        yield "stopped_by is 'target', and the target was not reached"
    yield from _of_times(update.started_utc, update.created_utc)
    if update.features.is_estimated:
        yield f"features.accuracy_method is {update.features.accuracy_method!r:.40}, expected {MEASURED!r}"
    if update.pilot_steps > cost.steps:
        yield f"pilot_steps is {update.pilot_steps}, more than cost.steps, {cost.steps}"
    whole_s = _SLACK * energy.wall_s + _SLACK_S
    parts_s = {
        "curve.wall_s": curve.wall_s[-1],
        "cost.wall_s": cost.wall_s,
        "evaluation_s": update.evaluation_s or 0.0,
    }
    for name, seconds in parts_s.items():
        if seconds > whole_s:
            yield f"{name} is {seconds}, more than the whole run, {energy.wall_s}"
    if cost.energy_kwh is not None and energy.energy_kwh is not None and cost.energy_kwh > _SLACK * energy.energy_kwh:
        yield f"cost.energy_kwh is {cost.energy_kwh}, more than the whole run, {energy.energy_kwh}"


def _of_times(started_utc: str, created_utc: str) -> Iterator[str]:
    """Yield that a run ended more than a day before it began; what is no time is told elsewhere."""
    try:
        started, created = (datetime.datetime.fromisoformat(text) for text in (started_utc, created_utc))
        if created + _CLOCKS < started:
            yield f"created_utc is {created_utc}, before started_utc, {started_utc}"
    except (TypeError, ValueError, OverflowError):  # no time, with and without a zone, or beyond the last year
        return


def _of_curve(curve: LearningCurve) -> Iterator[str]:
    lengths = {len(column) for column in vars(curve).values() if isinstance(column, tuple)}
    if len(lengths) != 1 or 0 in lengths:
        yield f"steps and the other columns have {sorted(lengths)} entries, expected one length from 1 on"
    for before, after in itertools.pairwise(curve.steps):
        if after <= before:
            yield f"steps go from {before} to {after}, expected growing numbers"
    for earlier, later in itertools.pairwise(curve.wall_s):
        if later < earlier:
            yield f"wall_s falls from {earlier} to {later}, expected a running total"


def _of_reading(reading: EnergyReading) -> Iterator[str]:
    parts = math.fsum(part for part in reading.components_kwh.values() if part is not None)
    if reading.energy_kwh is not None and parts > reading.energy_kwh * _ROUNDING:
        yield f"components_kwh are {parts} together, more than energy_kwh, {reading.energy_kwh}"
