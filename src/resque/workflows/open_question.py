"""A question that is being asked: where it ends without a forecast, what it took is stored all the same."""

import time
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff
from resque.energy.reading import EnergyReading, energy_share, join_readings
from resque.errors import ResqueError, TooFewUpdatesError
from resque.ledger.identifiers import new_id, utc_now
from resque.ledger.records import Question
from resque.ledger.store import Ledger

__all__ = ["OpenQuestion"]


@dataclass
class OpenQuestion:
    """A context in which a question is asked. What is known of it is set meanwhile.

    An interruption is stored, and so is an error after a first reading: then passes and probes were made for nothing.
    Nothing is stored of what is refused, also for want of history.

    Attributes:
        history: Ledger that gets the question.
        began_s: Moment from which the user has waited, see :func:`resque._waiting.waiting_since`.
        model: Specification or name of the model.
        target_accuracy: Target accuracy on the test data.
        train_data: Specification of the new training data.
        grid: Electricity grid.
        tariff: Prices.
        parent: Fingerprint of the model; empty as long as it is not loaded.
        readings: Readings of what was measured so far, at whose power the rest is modeled.
    """

    history: Ledger
    began_s: float
    model: str
    target_accuracy: float
    train_data: str
    grid: Grid | None = None
    tariff: Tariff | None = None
    parent: str = ""
    readings: list[EnergyReading] = field(default_factory=list)
    is_stored: bool = False
    """Whether it was stored before the end of the context, which then stores nothing more."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        is_refused = isinstance(error, TooFewUpdatesError) or (isinstance(error, Exception) and not self.readings)
        if error is not None and not (is_refused or self.is_stored):
            with suppress(ResqueError):  # the reason of the interruption is what is told
                wall_s = time.perf_counter() - self.began_s
                energy_kwh = energy_share(join_readings(self.readings), wall_s) if self.readings else None
                self.store(Spending(wall_s, energy_kwh))

    def store(self, spending: Spending) -> None:
        """Store the question with what it took.

        Raises:
            LedgerError: The ledger cannot be written.
        """
        of = self.model, self.parent, self.train_data, self.target_accuracy, spending
        tariff = self.tariff if self.tariff is not None and self.tariff.is_given else None
        self.history.add(Question(new_id(), utc_now(), *of, self.grid, tariff))
        self.is_stored = True
