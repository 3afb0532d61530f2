"""The ways that a comparison tries: each is a forecast of an update, so far."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from resque._format import format_count
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, Option
from resque.forecasting.price import price_with_fees
from resque.forecasting.reliability import without_advice
from resque.ledger.components import MEASURED
from resque.ledger.decision import EXTRAPOLATION
from resque.ledger.records import Estimate, Features, Forecast, StepCost, Update
from resque.training.checkpoint import run_identity
from resque.training.finetuning import STATISTICS
from resque.training.job import RetrainingJob
from resque.types import Interval
from resque.workflows.sources import Source
from resque.workflows.ways import SCRATCH, Way

__all__ = ["Asked", "Start", "Trial", "pilot_key"]


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
        forecast, pilot, way = self.forecast, self.forecast.pilot, self.way
        labels = len(self.job.train) if way.needs_labels else 0
        fee = 0.0 if way.rung == SCRATCH else self.start.source.candidate.license_price  # of its weights
        kept, kept_known = self._kept()
        price = price_with_fees(forecast, tariff, fee + (tariff.price_of_labels(labels) or 0.0) or None)
        return Option(
            id=forecast.id,
            rung=way.rung,
            name=way.name,
            model=self.start.source.name,
            recipe=dict(forecast.recipe),
            chance=forecast.probability_reached,
            estimates={**forecast.estimates, **({} if price is None else {"price": price})},
            accuracy=self._accuracy_at_end(),
            how_known=self._how_known,
            labels=labels,
            original_accuracy=kept,
            original_known=kept_known,
            trainable_share=forecast.step_cost.trainable_share if pilot is None else pilot.trainable_share,
            note=self.note,
            doubt=self.doubt,
            license_price=fee,
            update_id=self.update_id,
        )

    @property
    def doubt(self) -> str:
        """Reason not to rely on its chance, of those of its forecast; without a pilot, no advice to make one."""
        issues = sorted(self.forecast.reliability_issues, key=lambda issue: not issue.startswith(EXTRAPOLATION))
        first = next(iter(issues), "")
        return first if self.forecast.pilot is not None else without_advice(first)

    @property
    def is_extrapolated(self) -> bool:
        """Whether its chance is of a kind that no history shows. Only this decides which pilots are made.

        If a thin history did, too, the way that looks cheapest by it would stay untried.
        """
        return self.doubt.startswith(EXTRAPOLATION)

    @property
    def _how_known(self) -> str:
        return BY_HISTORY if self.forecast.pilot is None else MEASURED if self.has_ended else BY_PILOT

    def _accuracy_at_end(self) -> Estimate | None:
        """Return the accuracy at the end of the training: the target, where it is reached and ends it."""
        best, target, pilot = self.forecast.best_accuracy, self.forecast.target_accuracy, self.forecast.pilot
        if pilot is not None and self.has_ended:
            at_end, level = pilot.curve.accuracy[-1], self.forecast.level
            return Estimate(at_end, Interval(at_end, at_end, level, "measured"))
        if best is None or self.job.recipe.fixed_epochs is not None or self.job.recipe.trains == STATISTICS:
            return best  # a pass does not stop at the target
        bounds = best.interval.low, best.interval.high
        low, high = (target if bound is None else min(bound, target) for bound in bounds)
        return Estimate(min(best.value, target), dataclasses.replace(best.interval, low=low, high=high))

    def _kept(self) -> tuple[float | None, str | None]:
        """Return the accuracy on the original test data, and how it is known.

        The lower of that after a pilot and that which earlier updates lead to expect: more is mostly forgotten later.
        """
        before, forecast = self.start.original_accuracy, self.forecast
        piloted = None if forecast.pilot is None else forecast.pilot.original_accuracy
        if piloted is not None and self.has_ended:
            return piloted, MEASURED
        expected = None
        if before is not None and forecast.expected_forgetting is not None:
            expected = min(1.0, max(0.0, before - forecast.expected_forgetting))
        if piloted is not None and piloted <= (1.0 if expected is None else expected):
            return piloted, BY_PILOT
        return expected, None if expected is None else BY_HISTORY

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


def pilot_key(parent: str, job: RetrainingJob) -> str:
    """Return the name under which the unfinished pilot of a job is kept.

    Args:
        parent: Fingerprint of the model.
        job: Job of the update.
    """
    return f"pilot-{run_identity(parent, job)}"
