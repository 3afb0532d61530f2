"""Plan the updates of a model over a year: the schedule with the least cost of errors and updates, or by a floor.

The objective is that of cost-aware retraining (Mahadevan and Mathioudakis, 2024; Regol et al., ICML 2025): the cost of
staleness, which grows with the age of the last update, plus the cost of the updates. Here the price of an update and
the drift are forecasts, and each comes with its interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from resque.forecasting.costs import scale
from resque.forecasting.drift import Drift
from resque.forecasting.plan import Cadence
from resque.forecasting.windows import Calendar
from resque.ledger.records import Estimate
from resque.types import Interval

__all__ = ["CADENCES", "Year", "best_schedule"]

CADENCES = 1, 2, 3, 6, 12
_SUMMED = "bounds of all windows and updates together: no coverage guarantee"


def best_schedule(stay: np.ndarray, price: float, at_most: int | None = None) -> tuple[float, tuple[int, ...]]:
    """Find the schedule of updates with the least cost over ``T`` windows.

    An exact recursion over the times of the last update, O(T²), or O(T² × updates) with a limit. Among schedules of the
    same cost each update is as late as it can be.

    Args:
        stay: ``(T + 1, T)`` costs: row ``u`` and column ``w - 1`` hold that of window ``w`` if the last update was made
            before window ``u``, 1 to T; row 0 is without any. Entries before an update are not used.
        price: Price of an update.
        at_most: Largest number of updates; None for no limit.

    Returns:
        The cost, and the windows before which the model is updated.

    Example:
        >>> stay = np.array([[3.0, 4.0, 5.0], [0.0, 1.0, 2.0], [9.0, 0.0, 1.0], [9.0, 9.0, 0.0]])
        >>> best_schedule(stay, price=3.0), best_schedule(stay, price=3.0, at_most=0)
        ((6.0, (1,)), (12.0, ()))
    """
    windows = stay.shape[1]
    # costs[u][j]: the j windows from an update before window u on; row 0 starts at window 1 as well
    costs = [np.concatenate([[0.0], np.cumsum(stay[u, max(u, 1) - 1 :])]) for u in range(windows + 1)]
    limited = at_most is not None and at_most < windows
    following: list[np.ndarray] = []  # by number of updates left: the window of the next update, T + 1 for none
    onward = np.append(np.full(windows + 1, np.inf), 0.0)  # least cost from an update on, its price included
    for _ in range(at_most + 1 if limited and at_most is not None else 1):
        value, chosen = np.zeros(windows + 2), np.zeros(windows + 1, dtype=int)
        for u in range(windows, -1, -1):
            ends = np.arange(u + 1, windows + 2)
            found = costs[u][ends - max(u, 1)] + (onward if limited else value)[ends]
            best = found.min()
            chosen[u] = ends[np.flatnonzero(found <= best + 1e-12 * abs(best))[-1]]
            value[u] = best + (price if u else 0.0)
        onward = value
        following.append(chosen)
    updates, at, k = [], 0, len(following) - 1
    while (at := int(following[k][at])) <= windows:
        updates.append(at)
        k -= limited
    return float(onward[0]), tuple(updates)


@dataclass(frozen=True)
class Year:
    """A year of windows to come, and what an update does in it.

    Attributes:
        drift: Drift of the accuracy.
        calendar: Dates of the windows.
        accuracy_after: Accuracy on the data of an update.
        estimates: Costs of an update, by name; empty where it has no forecast.
        floor: Lowest accuracy that is accepted; None without one.
        is_below_floor: Whether the newest window is below the floor.
        price_of_errors: Price of a window in which every prediction is wrong; None without a price per error.
        limits: Budget of a year, by the name of the cost.
    """

    drift: Drift
    calendar: Calendar
    accuracy_after: float
    estimates: Mapping[str, Estimate]
    floor: float | None
    is_below_floor: bool
    price_of_errors: float | None
    limits: Mapping[str, float]

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.calendar.per_year

    @property
    def most_updates(self) -> int | None:
        """Number of updates whose upper bounds the budget allows; None without a limit that is known."""
        bounds = {cost: self.estimates[cost].upper for cost in self.limits if cost in self.estimates}
        return min((int(self.limits[c] / b + 1e-9) for c, b in bounds.items() if b), default=None)

    def schedule(self, bound: int = 0, at_most: int | None = None) -> tuple[int, ...]:
        """Return the best schedule.

        The floor comes first: as few windows below it as can be, and these as little. Then the price of errors and
        updates decides, or, without a price per error, the number of updates; then each is as late as it can be.

        Args:
            bound: 0 by the medians of accuracy and price; -1 by the bounds that call for updates, 1 by the others.
            at_most: Largest number of updates; None for no limit.
        """
        accuracies, price = self._accuracies(bound), 1.0
        stay = np.zeros_like(accuracies)
        if self.price_of_errors is not None:
            stay = self.price_of_errors * (1.0 - accuracies)
            price = _bound_of(self.estimates["price"], bound)
        if self.floor is not None:
            below = accuracies < self.floor
            below[0, 0] |= self.is_below_floor
            missing = 1e3 * (1.0 + (float(stay.max()) + price) * self.windows)  # .001 outweighs a year of all else
            stay += missing * (np.maximum(self.floor - accuracies, 0.0) + below * (self.windows + 1.0))
        return best_schedule(stay, price, at_most)[1]

    def cadences(self) -> Iterator[Cadence]:
        """Yield the year at the usual cadences, as far as a year has so many windows, and without updates."""
        for every in CADENCES:
            if every <= self.windows:
                yield self.cadence(f"every {every}", tuple(range(1, self.windows + 1, every)), every)
        yield self.cadence("never", ())

    def cadence(self, name: str, updates: tuple[int, ...], every: int | None = None) -> Cadence:
        """Return what a year with updates before these windows costs, and its accuracies."""
        low, middle, high = (self.path(updates, bound) for bound in (-1, 0, 1))
        costs = {name: scale(estimate, float(len(updates))) for name, estimate in self.estimates.items()}
        errors = None
        if self.price_of_errors is not None:
            errors = self._estimate(*(self.price_of_errors * float((1.0 - path).sum()) for path in (high, middle, low)))
        known = [cost in costs for cost in self.limits]
        within = all(
            (bound := costs[cost].upper) is not None and bound <= limit * (1.0 + 1e-9)
            for cost, limit in self.limits.items()
            if cost in costs
        )
        lowest = self._estimate(*(float(path.min()) for path in (low, middle, high)))
        return Cadence(
            name=name,
            every=every,
            updates=tuple(self.calendar.name(at) for at in updates),
            costs=costs,
            errors=errors,
            total=_sum(errors, costs.get("price")),
            mean_accuracy=self._estimate(*(float(path.mean()) for path in (low, middle, high))),
            lowest_accuracy=lowest,
            holds_floor=None if self.floor is None else bool(lowest.value >= self.floor),
            within_budget=within if known and all(known) else None,
        )

    def path(self, updates: Sequence[int], bound: int = 0) -> np.ndarray:
        """Return the accuracy in each window of a schedule."""
        last = [max((at for at in updates if at <= w), default=0) for w in range(1, self.windows + 1)]
        return np.asarray(self._accuracies(bound)[last, np.arange(self.windows)])

    def _accuracies(self, bound: int) -> np.ndarray:
        """Return the accuracy by last update and window, as :func:`best_schedule` takes costs."""
        windows = np.arange(1, self.windows + 1)
        ages = np.maximum(windows[None, :] - windows[:, None] + 1, 0)
        after = self.drift.accuracy_after_update(self.accuracy_after, ages, bound)
        return np.concatenate([self.drift.accuracy(windows, bound)[None, :], after])

    def _estimate(self, low: float, value: float, high: float) -> Estimate:
        return Estimate(value, Interval(low, high, self.drift.level, _SUMMED), high)


def _bound_of(price: Estimate, bound: int) -> float:
    """Return the price by which updates are called for: the low one with the low accuracies."""
    if bound == 0:
        return price.value
    high = price.interval.high
    return price.interval.low if bound < 0 else max(price.value, high if high is not None else price.value)


def _sum(one: Estimate | None, other: Estimate | None) -> Estimate | None:
    """Return the sum of two prices, bound by bound; None where one is unknown."""
    if one is None or other is None:
        return None
    highs, uppers = (one.interval.high, other.interval.high), (one.upper, other.upper)
    high = None if None in highs else sum(filter(None, highs))
    upper = None if None in uppers else sum(filter(None, uppers))
    interval = Interval(one.interval.low + other.interval.low, high, one.interval.level, _SUMMED)
    return Estimate(one.value + other.value, interval, upper)
