"""Records as plain dictionaries, ready for JSON, and back again."""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

Record = TypeVar("Record")


def to_dict(record: Any) -> dict[str, Any]:
    """A record as plain dictionaries, lists and scalars, ready for JSON; what is not finite becomes None."""
    return typing.cast(dict[str, Any], _finite(dataclasses.asdict(record)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_dict(cls: type[Record], plain: Mapping[str, Any]) -> Record:
    """The inverse of ``to_plain``: rebuild a record from what JSON gives back.

    Example:
        >>> from resque.energy.grid import Grid
        >>> grid = Grid("FRA", 44.0, "given")
        >>> from_dict(Grid, to_dict(grid)) == grid
        True
    """
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{key: _revive(hints[key], value) for key, value in plain.items() if key in known})


def _revive(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if value is None or hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _revive(next(a for a in arguments if a is not type(None)), value)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if origin is tuple:
        return tuple(_revive(arguments[0], item) for item in value)
    if isinstance(value, dict):
        key_type, item_type = arguments
        return {key_type(key): _revive(item_type, item) for key, item in value.items()}
    return value


def misfit(cls: type, plain: Any) -> str | None:
    """What first keeps ``plain`` from being a whole record of this class and nothing else, in words; None if it is one.

    Example:
        >>> from resque.energy.grid import Grid
        >>> misfit(Grid, {"region": "FRA", "intensity_g_per_kwh": "44", "source": "given"})
        "intensity_g_per_kwh is '44', expected a number"
        >>> misfit(Grid, {"region": "FRA", "intensity_g_per_kwh": 44, "source": "given"}) is None
        True
    """
    return _misfit(cls, plain, "it")


_WORDS: Mapping[Any, tuple[tuple[type, ...], str]] = {
    float: ((int, float), "a number"),
    int: ((int,), "a whole number"),
    str: ((str,), "a text"),
    bool: ((bool,), "true or false"),
}


def _misfit(hint: Any, value: Any, where: str) -> str | None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (value is None and type(None) in arguments):
        return None
    if origin in (types.UnionType, typing.Union):
        return _misfit(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            return f"{where} is {value!r:.40}, expected a list"
        return _first(_misfit(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint) or origin is not None:
        if not isinstance(value, dict):
            return f"{where} is {value!r:.40}, expected an object"
        if origin is None:
            return _misfit_of_fields(hint, value, where)
        each = float | None if arguments[1] is float else arguments[1]  # to_plain makes None of what is not finite
        return _first(_misfit(each, item, f"{where}.{key}") for key, item in value.items())
    kinds, expected = _WORDS[hint]
    fits = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    return None if fits else f"{where} is {value!r:.40}, expected {expected}"


def _misfit_of_fields(cls: Any, plain: Mapping[str, Any], where: str) -> str | None:
    hints, fields = typing.get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    for name, field in fields.items():
        if name not in plain and field.default is field.default_factory is dataclasses.MISSING:
            return f"{where} has no {name!r}"
    for name in plain:
        if name not in fields:
            return f"{where} has {name!r}, which this version of resque does not know"
    prefix = "" if where == "it" else f"{where}."
    return _first(_misfit(hints[name], value, prefix + name) for name, value in plain.items())


def _first(found: Iterable[str | None]) -> str | None:
    return next((each for each in found if each is not None), None)
