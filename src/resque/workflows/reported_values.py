"""Numbers that a user's training loop reports: of Python, NumPy or PyTorch."""

from typing import Any

from resque.errors import SettingError

__all__ = ["reported_number", "whole_number"]


_LARGEST = 2**53
"""Largest whole number up to which a float holds each."""


def whole_number(name: str, value: Any, at_least: int = 0) -> int:
    """Return a whole number, also one of NumPy or PyTorch, or a float without a fraction."""
    number = reported_number(name, value)
    if not number.is_integer() or number < at_least:
        raise SettingError(f"{name} is {value!r:.40}; expected a whole number from {at_least} on")
    if number > _LARGEST:
        raise SettingError(f"{name} is {value!r:.40}; expected a whole number up to {_LARGEST:,}")
    return int(number)


def reported_number(name: str, value: Any) -> float:
    """Return a number, also one of NumPy or PyTorch, as a float."""
    try:
        plain = value.item() if hasattr(value, "item") else value
        if isinstance(plain, str | bytes | bool):
            raise TypeError
        return float(plain)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise SettingError(f"{name} is {value!r:.40}; expected one number") from error
