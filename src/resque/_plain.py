"""Conversion of result objects to plain dictionaries, lists and scalars, ready for JSON."""

import math
from typing import Any

import msgspec

__all__ = ["Serializable", "to_dict"]


class Serializable:
    """Mixin of dataclasses: ``record.to_dict()``."""

    def to_dict(self) -> dict[str, Any]:
        """Return every field as plain dictionaries, lists and scalars, ready for JSON.

        A number that is not finite becomes None.
        """
        return to_dict(self)


def to_dict(record: Any) -> dict[str, Any]:
    """Return a dataclass as dictionaries, lists and scalars; a number that is not finite becomes None.

    Example:
        >>> from resque.types import Interval
        >>> to_dict(Interval(1.0, float("inf"), 0.8, "none"))
        {'low': 1.0, 'high': None, 'level': 0.8, 'guarantee': 'none'}
    """
    plain: dict[str, Any] = _finite(msgspec.to_builtins(record, enc_hook=_builtin))
    return plain


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _builtin(value: Any) -> Any:
    """Return the built-in equal of a NumPy scalar or of an instance of a subclass, such as PyTorch's version string."""
    if hasattr(value, "item"):
        return value.item()
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"{value!r:.40} is a {type(value).__name__}, which has no place in JSON")
