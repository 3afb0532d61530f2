"""The moment from which the user has waited: the start of a command, or of a call from Python."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["command", "waiting_since"]

_COMMAND_S: ContextVar[float | None] = ContextVar("command_s", default=None)


@contextmanager
def command(began_s: float) -> Iterator[None]:
    """Say that a command runs in this block, and when it began, as ``time.perf_counter`` counts."""
    token = _COMMAND_S.set(began_s)
    try:
        yield
    finally:
        _COMMAND_S.reset(token)


def waiting_since() -> float:
    """Return the beginning of the command for the first that asks, and the present for all others.

    A command that makes several forecasts spends its start on the first of them.

    Example:
        >>> with command(began_s=-100.0):
        ...     waiting_since(), waiting_since() > -100.0
        (-100.0, True)
    """
    began_s = _COMMAND_S.get()
    _COMMAND_S.set(None)
    return time.perf_counter() if began_s is None else began_s
