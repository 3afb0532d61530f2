"""Records as plain dictionaries, ready for JSON, and back again."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Record = TypeVar("Record")


def to_plain(record: Any) -> dict[str, Any]:
    """A record as plain dictionaries, lists and scalars, ready for JSON; what is not finite becomes None."""
    return typing.cast(dict[str, Any], _finite(dataclasses.asdict(record)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_plain(cls: type[Record], plain: Mapping[str, Any]) -> Record:
    """The inverse of ``to_plain``: rebuild a record from what JSON gives back.

    Example:
        >>> from resque.readings import Grid
        >>> grid = Grid("FRA", 44.0, "given")
        >>> from_plain(Grid, to_plain(grid)) == grid
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
        return from_plain(hint, value)  # type: ignore[arg-type]
    if origin is tuple:
        return tuple(_revive(arguments[0], item) for item in value)
    if isinstance(value, dict):
        key_type, item_type = arguments
        return {key_type(key): _revive(item_type, item) for key, item in value.items()}
    return value
