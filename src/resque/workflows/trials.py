"""The ways that a comparison tries: each is a forecast of an update, so far."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from resque._format import format_count
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.forecasting.comparison import SCRATCH, Option
from resque.forecasting.options import doubt_of, option_of
from resque.ledger.decision import EXTRAPOLATION
from resque.ledger.records import Features, Forecast, StepCost, Update
from resque.training.checkpoint import run_identity
from resque.training.job import RetrainingJob
from resque.workflows.sources import Source
from resque.workflows.ways import Way

__all__ = ["Asked", "Start", "Trial", "pilot_key", "way_license"]


@dataclass(frozen=True, eq=False)
class Start:
    """What is known of a model that updates start from; its network is not kept."""

    source: Source
    job: RetrainingJob
    features: Features
    parent: str
    updates: Sequence[Update]
    evaluation_s: float
    probed: dict[tuple[object, ...], tuple[StepCost, EnergyReading]]
    """Settings of a step → what a step takes, and what it took to know that, until the forecast of a way has it."""
    original_accuracy: float | None = None
    """Accuracy on the original test data, before anything is done."""


@dataclass(eq=False)
class Trial:
    """A way that is tried: its forecast so far."""

    way: Way
    start: Start
    job: RetrainingJob
    forecast: Forecast
    is_stored: bool = False
    note: str = ""
    update_id: str | None = None
    """Update that did it before, which is what the forecast says then."""
    unused: list[EnergyReading] = field(default_factory=list)
    """Readings of pilots that were begun beside others, and were not needed after these."""
    earlier_s: float = 0.0
    """Seconds that it had taken before the comparison was interrupted."""
    spared_for: "Trial | None" = None
    """The best way at the time when this one got no pilot; None if it has one, or was not in a round yet."""

    @property
    def steps(self) -> int:
        """Steps of its pilot."""
        return 0 if self.forecast.pilot is None else self.forecast.pilot.steps

    @property
    def tried(self) -> str:
        """How much of it was tried, in words."""
        return f"a pilot of {format_count(self.steps, 'step')}"

    @property
    def key(self) -> str:
        """Name of its unfinished pilot in the cache."""
        return pilot_key(self.forecast.parent, self.job)

    @property
    def step_s(self) -> float:
        """Seconds of a step."""
        return self.forecast.step_cost.wall_s

    def seconds_for(self, steps: int) -> float:
        """Return about how long a pilot until so many steps takes at most."""
        evaluations = sum(self.steps < step <= steps for step in self.job.evaluations)
        return (steps - self.steps) * self.step_s + (evaluations + 1) * self.start.evaluation_s

    def expected_seconds_for(self, steps: int) -> float:
        """Return about how long a pilot until so many steps will take: it ends where the update would."""
        return self.seconds_for(max(self.steps, min(steps, math.ceil(self.forecast.estimates["steps"].value))))

    def rank(self, steps: int) -> tuple[bool, float]:
        """Return what sorts the trials of a round: those without labels first, then the shortest pilots."""
        return self.way.needs_labels, self.expected_seconds_for(min(steps, self.job.max_steps))

    @property
    def has_ended(self) -> bool:
        """Whether it ran to its end within its pilot."""
        return self.forecast.pilot is not None and self.forecast.pilot.stopped_by is not None

    def option(self, tariff: Tariff) -> Option:
        """Return it as a row of the comparison."""
        way, source = self.way, self.start.source
        return option_of(
            self.forecast,
            way.name,
            tariff,
            self.start.original_accuracy,
            model=source.name,
            labels=len(self.job.train) if way.needs_labels else 0,
            note=self.note,
            license_price=way_license(way, source),
            update_id=self.update_id,
        )

    @property
    def is_extrapolated(self) -> bool:
        """Whether its chance is of a kind that no history shows. Only this decides which pilots are made.

        If a thin history did, too, the way that looks cheapest by it would stay untried.
        """
        return doubt_of(self.forecast).startswith(EXTRAPOLATION)

    def readings(self) -> Iterator[EnergyReading]:
        """Yield the readings of what it took to know it; nothing for one that was in the ledger."""
        if not self.is_stored:
            yield self.forecast.overhead
            if self.forecast.pilot is not None:
                yield self.forecast.pilot.reading
        yield from self.unused


@dataclass(eq=False)
class Asked:
    """What is known of a model, and its ways."""

    start: Start
    nothing: list[Option]
    trials: list[Trial] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def way_license(way: Way, source: Source) -> float:
    """Return the price of the license that a way needs: that of weights, which training from scratch has none of."""
    return 0.0 if way.rung == SCRATCH else source.candidate.license_price


def pilot_key(parent: str, job: RetrainingJob) -> str:
    """Return the name under which the unfinished pilot of a job is kept.

    Args:
        parent: Fingerprint of the model.
        job: Job of the update.
    """
    return f"pilot-{run_identity(parent, job)}"
