"""Read small TOML files, whatever they hold."""

import os
import tomllib
from pathlib import Path
from typing import Any

from resque.errors import SettingError

__all__ = ["parse_toml", "read_toml", "shorten_value"]

_MOST_BYTES = 2**18
_MOST_DOTS = 200  # of a line: the parser takes quadratic time and memory for dotted keys
_SHOWN = 80


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: The file.
        kind: What it is, for error messages.

    Raises:
        SettingError: It is no regular file, is too large, or holds no TOML.

    Example:
        >>> read_toml(Path("none.toml"), "recipe")
        Traceback (most recent call last):
        resque.errors.SettingError: recipe none.toml cannot be read as TOML: no such file
    """
    if not os.path.isfile(path):  # pathlib raises on names that are too long
        raise SettingError(f"{kind} {path} cannot be read as TOML: no such file")
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise SettingError(f"{kind} {path} has {size:,} bytes; expected at most {_MOST_BYTES:,}")
        return parse_toml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"{kind} {path} cannot be read as TOML: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        ValueError: It is no TOML, or is nested too deeply.

    Example:
        >>> parse_toml("a = [1, 2]")
        {'a': [1, 2]}
    """
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError("it is nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def shorten_value(value: Any) -> str:
    """Return a value of TOML as text for an error message, cut to 80 characters.

    Example:
        >>> shorten_value([1, 2]), shorten_value(10**5000), shorten_value("x" * 99)[-5:]
        ('[1, 2]', 'a number of 16610 bits', 'xxxx…')
    """
    if isinstance(value, int) and value.bit_length() > 2 * _SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
