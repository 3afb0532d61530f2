"""When to update a model, and why, in a sentence or two."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from resque._format import format_cost, format_count, format_price, format_probability
from resque.forecasting.drift import FEWEST_WINDOWS
from resque.forecasting.objective import Objective
from resque.forecasting.plan import LATER, NEVER, NOW, UNDECIDED, Cadence, PlanWindow, UpdateLater, UpdateNow
from resque.forecasting.planning import Year
from resque.ledger.components import MEASURED

__all__ = ["Recommendation"]


@dataclass(frozen=True)
class Recommendation:
    """What to do.

    Attributes:
        decision: ``"now"``, ``"later"``, ``"never"`` or ``"undecided"``.
        sentence: The decision with its reason.
        later: When the first update is due; None if that is not known.
        cadences: A year at several cadences, the schedule that is recommended first.
        needed_updates: Number of updates of the schedule that is recommended; of the best one without a budget, where
            with it the floor does not hold, or no update is possible. None if it is not known.
    """

    decision: str
    sentence: str
    later: UpdateLater | None = None
    cadences: tuple[Cadence, ...] = ()
    needed_updates: int | None = None

    @classmethod
    def of_year(cls, year: Year, now: UpdateNow, window: PlanWindow, objective: Objective) -> Self:
        """Recommend the best schedule of a year.

        Args:
            year: The year.
            now: An update now.
            window: The newest window.
            objective: Floor, prices and yearly budget that decide.
        """
        most = year.most_updates
        best, soon, late = (year.schedule(bound, most) for bound in (0, -1, 1))
        planned, unlimited = year.cadence("planned", best), year.schedule()
        needed = unlimited if planned.holds_floor is False or not best else best
        later = UpdateLater(*_dates(year, best, soon, late))
        is_now = bool(best) and best[0] == 1 and now.is_needed
        decision = NOW if is_now else LATER if best else NEVER
        without = year.cadence("never", ())
        why = _Why(year, now, window, objective, later, planned, without)
        sentence = {NOW: why.now, LATER: why.later, NEVER: why.never}[decision]()
        if planned.holds_floor is False:
            lowest = planned.lowest_accuracy.value
            limit = f"within the budget, which allows {most} by upper bounds"
            cause = limit if len(unlimited) > len(best) else "even so"
            sentence += f" The floor does not hold {cause}: accuracy falls to {lowest:.2f} in some window."
        return cls(decision, sentence, later, (planned, *year.cadences()), len(needed))

    @classmethod
    def of_today(cls, now: UpdateNow, window: PlanWindow, objective: Objective, n_windows: int) -> Self:
        """Recommend what to do where nothing can be said of the windows to come.

        Args:
            now: An update now.
            window: The newest window.
            objective: Floor, prices and yearly budget that decide.
            n_windows: Number of windows.
        """
        accuracy = _accuracy(window)
        unknown = f"from {format_count(n_windows, 'window')} ({FEWEST_WINDOWS} are needed)"
        if not now.is_needed:
            known = "" if n_windows >= FEWEST_WINDOWS else f"; how fast it will fall is not known {unknown}"
            return cls(LATER, f"Not now: accuracy {accuracy} is at the target already, nothing is to be gained{known}.")
        if objective.floor is not None and window.accuracy < objective.floor:
            broken = f"accuracy {accuracy} is below the floor of {objective.floor:.2f}"
            return cls(NOW, f"Update now: {broken}; {_costs(now, objective)}.")
        if objective.price_of_errors is None:
            when = f"when it will fall below is not known {unknown}"
            return cls(LATER, f"Not now: accuracy {accuracy} holds the floor of {objective.floor:.2f}; {when}.")
        saved = objective.price_of_errors * (now.accuracy_after - window.accuracy)
        price = now.estimates["price"].value
        pays, cost = (format_price(amount, objective.tariff.currency) for amount in (saved, price))
        if saved >= price:
            return cls(
                NOW, f"Update now: it saves errors of {pays} in a window and costs {cost}; {_costs(now, objective)}."
            )
        if saved <= 0.0:
            return cls(LATER, f"Not now: an update would not raise the accuracy of {accuracy}.")
        sentence = f"an update now costs {cost} and saves errors of {pays} in a window"
        return cls(UNDECIDED, f"Undecided: {sentence}; how many windows it serves is not known {unknown}.")


@dataclass(frozen=True)
class _Why:
    """The reasons for a schedule."""

    year: Year
    of_now: UpdateNow
    window: PlanWindow
    objective: Objective
    due: UpdateLater
    planned: Cadence
    without: Cadence

    def now(self) -> str:
        """Return why an update is due now, and what it costs."""
        waits = self.due.latest != self.due.window
        waiting = f" By the upper bounds it can wait until {_date(self.due.latest)}." if waits else ""
        return f"Update now: {self._reason()}; {_costs(self.of_now, self.objective)}.{waiting}"

    def later(self) -> str:
        """Return before which window an update is due, and why."""
        due = self.due
        dates = f"{_date(due.earliest)} to {_date(due.latest)}"
        between = "" if due.earliest == due.latest else f" ({self.year.drift.level:.0%}: {dates})"
        updates = format_count(len(self.planned.updates), "update")
        waits = f", and the budget allows {updates}, of most use from then on" if self._is_below_floor else ""
        return f"Update before {due.window}{between}: {self._reason()}{waits}."

    def never(self) -> str:
        """Return why no update is due within a year."""
        sooner = self.due.earliest
        if self.year.most_updates == 0 and (unlimited := self.year.schedule()):
            without_limit = dataclasses.replace(self, planned=self.year.cadence("unlimited", unlimited))
            return f"No update within a year: the budget allows none, though {without_limit._reason()}."
        before = "" if sooner is None else f" By the lower bounds one is due before {sooner}."
        return f"No update within a year: {self._reason()}.{before}"

    @property
    def _is_below_floor(self) -> bool:
        return self.objective.floor is not None and self.window.accuracy < self.objective.floor

    def _reason(self) -> str:
        floor, accuracy = self.objective.floor, _accuracy(self.window)
        if floor is not None and self._is_below_floor:
            return f"accuracy {accuracy} is below the floor of {floor:.2f}"
        if self.objective.price_of_errors is not None and self.planned.total and self.without.total:
            return self._by_price(self.planned.total.value, self.without.total.value)
        path = self.year.path(())
        below = [at for at, expected in enumerate(path, start=1) if floor is not None and expected < floor]
        if not below:
            return f"accuracy is expected to be {path.min():.2f} at least, and the floor is {floor:.2f}"
        when = f"{path[below[0] - 1]:.2f} in {self.year.calendar.name(below[0])}"
        return f"accuracy {accuracy} is expected to fall below the floor of {floor:.2f} ({when})"

    def _by_price(self, planned: float, without: float) -> str:
        costs, idle = (format_price(amount, self.objective.tariff.currency) for amount in (planned, without))
        n = len(self.planned.updates)
        if not n:
            price = format_price(self.of_now.estimates["price"].value, self.objective.tariff.currency)
            return f"errors cost {idle} without any, and an update would save less than the {price} it costs"
        return f"errors and {format_count(n, 'update')} cost {costs} in a year, errors without any {idle}"


def _dates(year: Year, best: Sequence[int], *others: Sequence[int]) -> Iterator[str | None]:
    """Yield the dates of the first updates of schedules: of the best one, the earliest and the latest; None is never.

    With few updates for a year, worse bounds may call for a later one.
    """
    firsts = [next(iter(found), year.windows + 1) for found in (best, *others)]
    for at in (firsts[0], min(firsts), max(firsts)):
        yield year.calendar.name(at) if at <= year.windows else None


def _costs(now: UpdateNow, objective: Objective) -> str:
    """Return what an update costs, and how likely it reaches the target."""
    shown = [
        format_price(now.estimates[cost].value, objective.tariff.currency)
        if cost == "price"
        else format_cost(cost, now.estimates[cost].value)
        for cost in ("wall_s", "energy_kwh", "price")
        if cost in now.estimates
    ]
    doubt = " (in doubt)" if now.reliability_issues else ""
    likely = f"{format_probability(now.chance)} likely to reach {now.target_accuracy:.2f}{doubt}"
    return f"about {', '.join(shown)}, {likely}"


def _accuracy(window: PlanWindow) -> str:
    return f"{window.accuracy:.2f}{'' if window.accuracy_method == MEASURED else ' (estimated)'}"


def _date(date: str | None) -> str:
    return date or "after a year"
