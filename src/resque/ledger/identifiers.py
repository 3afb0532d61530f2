"""Id and time stamp of a new ledger entry."""

import datetime
import uuid

__all__ = ["new_id", "utc_now"]


def new_id() -> str:
    """Return a new random id for a ledger entry: 12 hexadecimal digits.

    Example:
        >>> len(new_id())
        12
    """
    return uuid.uuid4().hex[:12]


def utc_now() -> str:
    """Return the current time in UTC, ISO 8601, to the millisecond.

    Example:
        >>> utc_now().endswith("+00:00")
        True
    """
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
