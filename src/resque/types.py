"""Interval: the range that a prediction or confidence statement covers, with its nominal level."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

__all__ = ["Interval", "StoredFloat"]

if TYPE_CHECKING:
    StoredFloat = float
else:
    StoredFloat = float | None
    """A float that may not be finite: JSON stores it as null then, which is read back as None."""


@dataclass(frozen=True)
class Interval:
    """A prediction interval of a cost, or a confidence interval of an index.

    Attributes:
        low: Lower bound, in the unit of the value it belongs to.
        high: Upper bound; None when the history cannot bound it from above.
        level: Nominal coverage, e.g. 0.8.
        guarantee: What is promised of what, and under which condition.
    """

    low: StoredFloat
    high: float | None
    level: float
    guarantee: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)
