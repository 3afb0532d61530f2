"""Find the prices of labels and licenses at which another way to the target becomes the cheapest."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from resque._plain import Serializable
from resque.ledger.components import Estimate

__all__ = ["BreakEven", "break_even_points"]


class Priced(Protocol):
    """What is compared by its price; see :class:`resque.forecasting.comparison.Option`."""

    @property
    def id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def labels(self) -> int: ...
    @property
    def license_price(self) -> float: ...
    @property
    def estimates(self) -> Mapping[str, Estimate]: ...
    def ahead(self, name: str) -> Estimate: ...


@dataclass(frozen=True)
class BreakEven(Serializable):
    """Price at which another option becomes the cheapest.

    Attributes:
        of: ``"label"``, for the price of labeling a sample, or ``"license"``.
        at: The price.
        above: Whether the other option is cheaper above this price, or below it.
        then: Id of the other option.
        model: Model whose license it is; empty for labels.
    """

    of: str
    at: float
    above: bool
    then: str
    model: str = ""


def break_even_points(best: Priced, others: Sequence[Priced], per_label: float) -> list[BreakEven]:
    """Return the prices at which the recommendation changes, all other prices as they are.

    Args:
        best: The cheapest option that suffices.
        others: The other options that suffice.
        per_label: Price of labeling a sample.

    Example:
        >>> from resque.forecasting.comparison import Option
        >>> from resque.ledger.records import Estimate
        >>> from resque.types import Interval
        >>> def option(id, price, labels):
        ...     cost = Estimate(price, Interval(price, price, 0.8, ""), price)
        ...     return Option(id, "all", id, "m", {}, 1.0, {"price": cost}, None, "pilot", labels)
        >>> [(point.at, point.then) for point in break_even_points(option("a", 3.0, 100), [option("b", 5.0, 0)], 0.01)]
        [(0.03, 'b')]
    """
    points = [*_of_labels(best, others, per_label), *_of_licenses(best, others)]
    nearest = sorted(points, key=lambda point: point.at if point.above else -point.at)
    return list({(point.of, point.above, point.model): point for point in reversed(nearest)}.values())


def _of_labels(best: Priced, others: Sequence[Priced], per_label: float) -> Iterator[BreakEven]:
    for other in others:
        saved, fewer = _difference(best, other), best.labels - other.labels
        if saved is not None and fewer:
            at = per_label + saved / fewer
            if at >= 0.0:
                yield BreakEven("label", at, fewer > 0, other.id)


def _of_licenses(best: Priced, others: Sequence[Priced]) -> Iterator[BreakEven]:
    for other in others:
        saved = _difference(best, other)
        if saved is not None and other.model != best.model:
            yield BreakEven("license", best.license_price + saved, True, other.id, best.model)
            if other.license_price >= saved and other.license_price > 0.0:
                yield BreakEven("license", other.license_price - saved, False, other.id, other.model)


def _difference(best: Priced, other: Priced) -> float | None:
    """Return how much cheaper the best option is; None if a price is unknown."""
    if "price" not in other.estimates or "price" not in best.estimates:
        return None
    return max(other.ahead("price").value - best.ahead("price").value, 0.0)
