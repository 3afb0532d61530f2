"""What decides when a model is updated: a floor of accuracy, or the price of errors and of updates; a yearly budget."""

import math
from dataclasses import dataclass

from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.budget import Budget

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """What decides when a model is updated.

    Attributes:
        floor: Lowest accuracy that is accepted; None for none.
        price_per_error: Price of a wrong prediction; None if it is not given.
        samples_per_window: Number of predictions per window.
        tariff: Prices of energy, machine time and labels.
        yearly: Budget of a year.
    """

    floor: float | None
    price_per_error: float | None
    samples_per_window: int | None
    tariff: Tariff
    yearly: Budget

    @property
    def price_of_errors(self) -> float | None:
        """Price of a window in which every prediction is wrong; None without a price per error."""
        if self.price_per_error is None or self.samples_per_window is None:
            return None
        return self.price_per_error * self.samples_per_window

    def check(self, target_accuracy: float) -> None:
        """Raise SettingError if these do not tell when to update, or contradict the target.

        Example:
            >>> Objective(0.9, None, None, Tariff(), Budget()).check(target_accuracy=0.8)
            Traceback (most recent call last):
            resque.errors.SettingError: floor 0.9 is above the target accuracy 0.8 of an update: lower the floor
        """
        if self.floor is None and self.price_per_error is None:
            raise SettingError(
                "nothing tells when an update is due: give --floor, the lowest accuracy you accept, or "
                "--price-per-error with --samples-per-window"
            )
        if self.floor is not None and not 0.0 < self.floor <= 1.0:
            raise SettingError(f"floor {self.floor:g}: expected an accuracy in (0, 1]")
        if self.floor is not None and self.floor > target_accuracy:
            raise SettingError(
                f"floor {self.floor:g} is above the target accuracy {target_accuracy:g} of an update: lower the floor"
            )
        if self.price_per_error is None:
            return
        if not 0.0 < self.price_per_error < math.inf:
            raise SettingError(f"price per error {self.price_per_error:g}: expected a number above 0")
        if self.samples_per_window is None:
            raise SettingError(
                "--price-per-error needs the number of predictions from one batch to the next: add "
                "--samples-per-window, e.g. --samples-per-window 10000, or decide by --floor"
            )
        if self.samples_per_window < 1:
            raise SettingError(f"--samples-per-window is {self.samples_per_window}: expected a number from 1 on")
        if not (self.tariff.per_kwh or self.tariff.per_hour or self.tariff.per_label):
            raise SettingError(
                "--price-per-error needs the price of an update: give --price-per-kwh, --price-per-hour or "
                "--price-per-label"
            )

    def check_measurable(self, measures_energy: bool) -> None:
        """Raise SettingError if errors have a price, and the price of an update needs energy that no meter measures.

        Args:
            measures_energy: Whether the meter measures energy.
        """
        if self.price_per_error is not None and self.tariff.per_kwh and not measures_energy:
            raise SettingError(
                "--price-per-kwh needs energy, which no meter here measures: give --price-per-hour in its place"
            )
