"""Price of energy and machine time: one definition for what is forecast, decided, measured and settled."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from resque._plain import Serializable
from resque.errors import SettingError

__all__ = ["Spending", "Tariff", "price_of"]


@dataclass(frozen=True)
class Spending(Serializable):
    """What something took.

    Attributes:
        wall_s: Machine time in seconds.
        energy_kwh: Energy; None if unknown.

    Example:
        >>> Spending(10.0, 0.5).plus(Spending(2.0, None))
        Spending(wall_s=12.0, energy_kwh=None)
    """

    wall_s: float
    energy_kwh: float | None

    def plus(self, other: "Spending") -> "Spending":
        """Return the sum; its energy is unknown if one of the two is."""
        known = self.energy_kwh is not None and other.energy_kwh is not None
        energy_kwh = self.energy_kwh + other.energy_kwh if known else None  # type: ignore[operator]
        return Spending(self.wall_s + other.wall_s, energy_kwh)


@dataclass(frozen=True)
class Tariff(Serializable):
    """Prices by which a run is billed.

    Attributes:
        per_kwh: Price per kWh of energy.
        per_hour: Price per hour of machine time.
        currency: Currency of all prices.
        per_label: Price of labeling one sample; None if it is not given. It is paid before an update, so the price of
            a run does not have it.
    """

    per_kwh: float = 0.0
    per_hour: float = 0.0
    currency: str = "EUR"
    per_label: float | None = None

    def __post_init__(self) -> None:
        if not (0.0 <= self.per_kwh < math.inf and 0.0 <= self.per_hour < math.inf):
            raise SettingError(f"prices {self.per_kwh:g} per kWh and {self.per_hour:g} per hour: expected 0 or more")
        if self.per_label is not None and not 0.0 <= self.per_label < math.inf:
            raise SettingError(f"price {self.per_label:g} per label: expected a number from 0 on")

    @property
    def is_given(self) -> bool:
        """Whether anything has a price."""
        return bool(self.per_kwh or self.per_hour or self.per_label is not None)

    def price(self, energy_kwh: float | None, wall_s: float) -> float | None:
        """Return the price of a run; None if energy has a price but its amount is unknown.

        Args:
            energy_kwh: Energy of the run; None if unknown.
            wall_s: Machine time in seconds.

        Example:
            >>> Tariff(per_kwh=0.3, per_hour=2.0).price(0.5, 1800.0)
            1.15
        """
        if self.per_kwh and energy_kwh is None:
            return None
        return self.per_kwh * (energy_kwh or 0.0) + self.per_hour * wall_s / 3600.0

    def price_of_labels(self, labels: int) -> float | None:
        """Return the price of labeling so many samples; None if a label has no price.

        Example:
            >>> Tariff(per_label=0.05).price_of_labels(400), Tariff().price_of_labels(400)
            (20.0, None)
        """
        return None if self.per_label is None else self.per_label * labels


def price_of(tariff: Tariff, parts: Iterable[Spending]) -> float | None:
    """Return the price of an update from its parts: training, evaluation, and asking once.

    Args:
        tariff: Prices.
        parts: Time and energy of each part.

    Returns:
        Price in the tariff's currency; None if energy has a price but that of a part is unknown.

    Example:
        >>> price_of(Tariff(per_kwh=0.3, per_hour=2.0), [Spending(1800.0, 0.5), Spending(360.0, 0.1)])
        1.38
    """
    prices = [tariff.price(part.energy_kwh, part.wall_s) for part in parts]
    return None if None in prices else math.fsum(price for price in prices if price is not None)
