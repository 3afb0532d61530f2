"""Conversion of result objects to plain dictionaries, lists and scalars, ready for JSON."""

import math
import os
from typing import Any

import msgspec

__all__ = ["Serializable", "finite", "to_builtins", "to_dict"]


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
    plain: dict[str, Any] = finite(to_builtins(record))
    return plain


def to_builtins(value: Any) -> Any:
    """Return a value as dictionaries, lists and scalars: arrays and tensors as their elements, a path as its text.

    Raises:
        TypeError: The value holds something else.

    Example:
        >>> from pathlib import Path
        >>> to_builtins({"file": Path("net.pt"), "sizes": (1, 2)})
        {'file': 'net.pt', 'sizes': (1, 2)}
    """
    return msgspec.to_builtins(value, enc_hook=_builtin)


def finite(value: Any) -> Any:
    """Return plain values in which each number that is not finite is None, because JSON has none.

    Example:
        >>> finite({"low": 1.0, "high": float("inf")})
        {'low': 1.0, 'high': None}
    """
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _builtin(value: Any) -> Any:
    """Return the built-in equal of an array, a path, or an instance of a subclass, such as PyTorch's version string."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"{value!r:.40} is a {type(value).__name__}, which has no place in JSON")
