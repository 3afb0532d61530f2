"""Types shared by all packages."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from resque._plain import Serializable

__all__ = ["Interval", "StoredFloat"]

if TYPE_CHECKING:
    StoredFloat = float
else:
    StoredFloat = float | None
    """A float that may not be finite: JSON stores it as null then, which is read back as None."""


@dataclass(frozen=True)
class Interval(Serializable):
    """A prediction interval of a cost, or a confidence interval of an index.

    Attributes:
        low: Lower bound, in the unit of the value.
        high: Upper bound, in the unit of the value; None if the history cannot bound it from above.
        level: Nominal coverage in (0, 1), e.g. 0.8.
        guarantee: Coverage guarantee and its conditions, in words.

    Example:
        >>> 3.0 in Interval(2.0, None, 0.8, "none")
        True
    """

    low: StoredFloat
    high: float | None
    level: float
    guarantee: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value and (self.high is None or value <= self.high)
