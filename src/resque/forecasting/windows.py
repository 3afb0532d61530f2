"""Windows of time that batches of data stand for: their dates, how far apart they lie, and the windows to come."""

import datetime
import itertools
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resque.errors import DataError

__all__ = ["Calendar"]

_YEAR = r"(?:19|20|21)\d\d"
_FORMS = {"month": rf"{_YEAR}-\d\d", "week": rf"{_YEAR}-W\d\d", "day": rf"{_YEAR}-\d\d-\d\d"}
_PER_YEAR = {"month": 12.0, "week": 365.25 / 7.0, "day": 365.25}
_EXPECTED = "expected 2026-01, 2026-W03 or 2026-01-15"


@dataclass(frozen=True)
class Calendar:
    """Dates of the windows, by actual time: a window that is missing leaves a gap.

    Attributes:
        unit: ``"month"``, ``"week"`` or ``"day"``, as the dates are written.
        numbers: Number of each date, in units since a fixed one.
        window: Units in a window: the median distance of neighboring dates, the lower one of two.

    Example:
        >>> calendar = Calendar.of(["2025-10", "2025-11", "2026-01"])
        >>> calendar.positions, calendar.per_year, calendar.name(2)
        ((-3.0, -2.0, 0.0), 12, '2026-03')
    """

    unit: str
    numbers: tuple[int, ...]
    window: int

    @classmethod
    def of(cls, dates: Sequence[str]) -> "Calendar":
        """Read the dates of batches, the oldest first.

        Raises:
            DataError: There is none, or one is no date, of another form, out of order, or there twice.
        """
        if not dates:
            raise DataError("there is no batch: give --batch DATE=DATA once for each window, or --batches FOLDER")
        units = [_unit(date) for date in dates]
        for date, unit in zip(dates, units, strict=True):
            if unit != units[0]:
                raise DataError(f"batch {dates[0]} is a {units[0]} and {date} a {unit}: give dates of one form")
        numbers = [_number(date, unit) for date, unit in zip(dates, units, strict=True)]
        for i in range(1, len(numbers)):
            if numbers[i] == numbers[i - 1]:
                raise DataError(f"batch {dates[i]} is there twice: give one batch for each window")
            if numbers[i] < numbers[i - 1]:
                raise DataError(f"batch {dates[i]} comes after {dates[i - 1]}: give the batches in the order of time")
        gaps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
        return cls(units[0], tuple(numbers), statistics.median_low(gaps) if gaps else 1)

    @property
    def positions(self) -> tuple[float, ...]:
        """Distance of each date from the newest, in windows; zero or negative."""
        return tuple((number - self.numbers[-1]) / self.window for number in self.numbers)

    @property
    def per_year(self) -> int:
        """Number of windows in a year, at least one."""
        return max(1, round(_PER_YEAR[self.unit] / self.window))

    def name(self, ahead: int) -> str:
        """Return the date of a window to come, so many windows after the newest."""
        number = self.numbers[-1] + ahead * self.window
        if self.unit == "month":
            return f"{number // 12:04d}-{number % 12 + 1:02d}"
        day = datetime.date.fromordinal(number * 7 + 1 if self.unit == "week" else number)
        return day.strftime("%G-W%V") if self.unit == "week" else day.isoformat()


def _unit(date: str) -> str:
    for unit, form in _FORMS.items():
        if re.fullmatch(form, date, re.ASCII):
            return unit
    raise DataError(f"batch {date!r:.40} has no date: {_EXPECTED}")


def _number(date: str, unit: str) -> int:
    """Return a date as a number of its units."""
    try:
        if unit == "month":
            first = datetime.date.fromisoformat(f"{date}-01")
            return 12 * first.year + first.month - 1
        if unit == "week":
            return (datetime.date.fromisocalendar(int(date[:4]), int(date[6:]), 1).toordinal() - 1) // 7
        return datetime.date.fromisoformat(date).toordinal()
    except ValueError as error:
        raise DataError(f"batch {date} is no date ({error}): {_EXPECTED}") from error
