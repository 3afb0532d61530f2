"""Serialization of frozen dataclasses: to plain dictionaries ready for JSON, and back.

JSON has neither NaN nor infinity: both are written as null and read back as None. Records of earlier versions are
read through :func:`resque.ledger.migration.modernize`.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from resque._plain import to_builtins, to_dict
from resque.errors import ResqueError
from resque.ledger.migration import FORMER_PREFIX, modernize
from resque.ledger.validation import check_record

__all__ = ["checked", "decode", "encode", "from_dict", "from_dict_strict", "to_dict"]

Record = TypeVar("Record")

_JSON_TYPES = {"array": list, "bool": bool, "float": float, "int": int, "null": type(None), "object": dict, "str": str}
_ERROR = re.compile(
    r"(Expected `(?P<expected>.+)`, got `(?P<type>\w+)`|Object missing required field `(?P<missing>\w+)`)"
    r"( - at `\$(?P<path>.*)`)?"
)
_PATH_STEP = re.compile(r"\w+|\.\.\.")


def from_dict(cls: type[Record], mapping: Mapping[str, Any]) -> Record:
    """Rebuild a record from the result of :func:`to_dict`; keys that the class does not know are ignored.

    Raises:
        ValueError: A field is missing or has a value of another type.

    Example:
        >>> from resque.energy.grid import Grid
        >>> grid = Grid("FRA", 44.0, "given")
        >>> from_dict(Grid, to_dict(grid)) == grid
        True
    """
    return _convert(cls, mapping, strict=False)


def _convert(cls: type[Record], mapping: Mapping[str, Any], strict: bool) -> Record:
    try:
        return msgspec.convert(mapping, cls, strict=strict, str_keys=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ResqueError):  # raised by the record itself
            raise error.__cause__ from None
        raise ValueError(_explain(str(error), mapping)) from None


def encode(record: Any) -> str:
    """Return a record as one line of JSON, in ASCII.

    Example:
        >>> from resque.types import Interval
        >>> encode(Interval(1.0, None, 0.8, "none"))
        '{"low": 1.0, "high": null, "level": 0.8, "guarantee": "none"}'
    """
    return json.dumps(to_dict(record), allow_nan=False)


def decode(cls: type[Record], text: str) -> Record:
    """Rebuild a record from JSON that this or an earlier version wrote; unknown keys are ignored.

    An update takes 10 µs; parsing it into dictionaries and converting those in Python takes 310 µs. A record of an
    earlier version lacks a required field, or has the former name of a score, which sends it through the migration.

    Raises:
        ValueError: The text is not JSON, a field is missing or has a value of another type.

    Example:
        >>> from resque.types import Interval
        >>> decode(Interval, '{"low": 1, "high": null, "level": 0.8, "guarantee": "none"}')
        Interval(low=1.0, high=None, level=0.8, guarantee='none')
    """
    if FORMER_PREFIX not in text:
        with suppress(msgspec.DecodeError):
            record: Record = _decoder(cls).decode(text)  # type: ignore[arg-type]
            return record
    return from_dict(cls, modernize(json.loads(text)))


@functools.cache
def _decoder(cls: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cls, strict=False)


def from_dict_strict(cls: type[Record], mapping: Any) -> Record:
    """Rebuild a record as :func:`from_dict` does, but refuse unknown keys and values of another type or out of range.

    Raises:
        ValueError: The mapping is not exactly one record, or :func:`resque.ledger.validation.check_record` refuses it;
            the message names the field, its value and what was expected.

    Example:
        >>> from resque.energy.grid import Grid
        >>> from_dict_strict(Grid, {"region": "FRA", "intensity_g_per_kwh": "44", "source": "given"})
        Traceback (most recent call last):
            ...
        ValueError: intensity_g_per_kwh is '44', expected `float`
    """
    if isinstance(mapping, dict):
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name not in mapping and field.default is field.default_factory is dataclasses.MISSING:
                raise ValueError(f"it has no {field.name!r}")
    record = _convert(cls, mapping, strict=True)
    unknown = next(_unknown_keys(mapping, to_dict(record)), None)
    if unknown is not None:
        raise ValueError(f"{unknown}, which this version of resque does not know")
    check_record(record)
    return record


def checked(record: Record) -> Record:
    """Return a record with plain values; refuse what could not be imported again.

    Raises:
        ValueError: A value has another type or is out of range.

    Example:
        >>> from resque.energy.reading import EnergyReading
        >>> checked(EnergyReading(1.0, -2.0, {}, {}, "meter"))
        Traceback (most recent call last):
            ...
        ValueError: energy_kwh is -2.0, expected 0 or more
    """
    copy = _convert(type(record), to_builtins(record), strict=True)
    check_record(copy)
    return copy


def _unknown_keys(given: Any, known: Any, where: str = "") -> Iterator[str]:
    """Yield a phrase for each key of nested dictionaries that their copy does not have."""
    items = given.items() if isinstance(given, dict) else enumerate(given) if isinstance(given, list) else ()
    for key, value in items:
        if isinstance(given, dict) and key not in known:
            yield f"{where or 'it'} has {key!r}"
        else:
            yield from _unknown_keys(value, known[key], f"{where}.{key}".lstrip("."))


def _explain(message: str, mapping: Any) -> str:
    """Return msgspec's message with the names of all keys, and with the value that was found."""
    if error := _ERROR.fullmatch(message):
        for where, value in _places(mapping, _PATH_STEP.findall(error["path"] or "")):
            if error["missing"] and error["missing"] not in value:
                return f"{where or 'it'} has no {error['missing']!r}"
            if error["type"] and type(value) is _JSON_TYPES[error["type"]]:
                return f"{where or 'it'} is {value!r:.40}, expected `{error['expected']}`"
    return message


def _places(value: Any, path: Sequence[str], where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and value of every place that msgspec's path may mean: its ``...`` is any key of a mapping."""
    if not path:
        yield where, value
    elif isinstance(value, list):
        yield from _places(value[int(path[0])], path[1:], f"{where}[{path[0]}]")
    else:
        for key in value if path[0] == "..." else path[:1]:
            if key in value:
                yield from _places(value[key], path[1:], f"{where}.{key}".lstrip("."))
