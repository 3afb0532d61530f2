"""Records of updates and of their forecasts, as the ledger stores them.

Every record is a frozen dataclass with the unit in the field's name. A field that was not measured is None; zero
means zero.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_cost, format_estimate, format_price, format_probability
from resque._plain import Serializable
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.ledger.components import (
    COSTS,
    MEASURED,
    Cost,
    Estimate,
    Features,
    ForecastRevision,
    LearningCurve,
    MissingLabels,
    Pilot,
    StepCost,
)
from resque.types import StoredFloat

__all__ = [
    "BY_BUDGET", "BY_USER", "COSTS", "MEASURED", "WOULD_NOT_REACH", "Cost", "Estimate", "Features", "Forecast",
    "ForecastRevision", "LearningCurve", "MissingLabels", "Pilot", "StepCost", "Update", "Void",
]  # fmt: skip

BY_BUDGET = "budget: "
"""Start of :attr:`Update.stopped_by` for a run that its budget ended."""
WOULD_NOT_REACH = BY_BUDGET + "would not reach"
"""Value of :attr:`Update.stopped_by` for a run whose revised forecast gave up the target."""
BY_USER = "the user"
"""Value of :attr:`Update.stopped_by` for a run that the user's own training loop ended."""


@dataclass(frozen=True)
class Update(Displayable):
    """A measured update of a model: one retraining, complete whether or not it reached its target.

    Attributes:
        id: Unique id in the ledger.
        started_utc: Start time, ISO 8601.
        created_utc: End time, ISO 8601.
        model: Specification or name of the model.
        parent: Fingerprint of the model before the update.
        child: Fingerprint of the model after the update.
        train_data: Specification of the training data.
        test_data: Specification of the test data.
        shift_type: Name of the shift type; None if unknown.
        recipe: Settings of the training recipe.
        seed: Seed of the data order; None if unknown.
        target_accuracy: Target accuracy on the test data.
        reached: Whether the target was reached.
        stopped_by: Stopping reason: ``target``, ``tolerance 0.005``, ``tolerance 0.01``, ``max``, ``epochs`` (a fixed
            number), ``max hours``, ``max kWh`` (limits of the recipe), ``diverged``, or ``the user`` (a custom training
            loop). A budget ended the run if it is ``budget: kWh``, ``budget: kg CO2e``, ``budget: hours``,
            ``budget: epochs`` or ``budget: price`` (spent, or about to be exceeded), or ``budget: would not reach``.
            Such a run looked bad, so its cost is informatively right-censored.
        features: Features known before the update.
        curve: Learning curve.
        cost: Measured cost of the training steps.
        evaluation_s: Seconds of evaluation and of in-run forecast updates, excluded from the cost; None where they
            were not measured separately and the cost includes them.
        energy: Meter reading of the whole run, training and evaluation.
        grid: Grid whose carbon intensity the emissions use; None if not specified.
        original_accuracy_before: Accuracy on the original data before the update; None if not measured.
        original_accuracy_after: Accuracy on the original data after the update; None if not measured.
        forecast_id: Id of the forecast that this update settles; None without a forecast.
        host: Processor, device and software versions.
        trainable_share: Share of the parameters that were trained, adapters included; None if unknown.
        resumed: Number of times the run was interrupted and resumed.
        tariff: Tariff that the price uses; None if not specified.
        from_scratch: Whether training started from new random weights, for comparison with a retraining.
        angle_to_parent_rad: Mean angle between the class sums of the parent's profile and of the new model's, each on
            its own data in its own representation space. It compares two models, so it is not RESQUE_dist. None
            without a profile of the parent.
        angle_to_root_rad: Mean angle between the class sums of the root model's profile and of the new model's; None
            without a profile of the root.
        digest: Hash of the training and test data, independent of their names; empty if the data were not read.
        revisions: In-run forecast updates, oldest first.
        pilot_steps: Steps of its forecast's pilot, which this run continued; their cost is part of the update's. Zero
            if the run started from the beginning.
    """

    id: str
    started_utc: str
    created_utc: str
    model: str
    parent: str
    child: str
    train_data: str
    test_data: str
    shift_type: str | None
    recipe: Mapping[str, Any]
    seed: int | None
    target_accuracy: float
    reached: bool
    stopped_by: str
    features: Features
    curve: LearningCurve
    cost: Cost
    evaluation_s: float | None
    energy: EnergyReading
    grid: Grid | None
    original_accuracy_before: float | None
    original_accuracy_after: float | None
    forecast_id: str | None
    host: Mapping[str, str]
    trainable_share: float | None = 1.0
    resumed: int = 0
    tariff: Tariff | None = None
    from_scratch: bool = False
    angle_to_parent_rad: float | None = None
    angle_to_root_rad: float | None = None
    digest: str = ""
    revisions: tuple[ForecastRevision, ...] = ()
    pilot_steps: int = 0

    @property
    def whole_energy_kwh(self) -> float | None:
        """Energy of the whole run, evaluation included; None if unknown.

        A run that is too short for the meter gets the mean power of its training steps.
        """
        if self.energy.energy_kwh is not None or self.cost.energy_kwh is None or not self.cost.wall_s:
            return self.energy.energy_kwh
        return self.cost.energy_kwh * self.energy.wall_s / self.cost.wall_s

    @property
    def price(self) -> float | None:
        """Price of the whole run, evaluation included, in the tariff's currency; None without a tariff."""
        return None if self.tariff is None else self.tariff.price(self.whole_energy_kwh, self.energy.wall_s)

    @property
    def accuracy(self) -> float:
        """Accuracy on the test data at the last evaluation."""
        return self.curve.accuracy[-1]

    @property
    def peak_accuracy(self) -> float:
        """Highest accuracy on the test data at any evaluation."""
        return max(self.curve.accuracy)

    @property
    def ended_by_budget(self) -> bool:
        """Whether a budget ended the run, which is informative censoring."""
        return self.stopped_by.startswith(BY_BUDGET)

    @property
    def saving(self) -> str | None:
        """What the budget saved, for people; None unless a revised forecast was the reason that the run ended.

        A run that would not reach its target might have lasted for the whole step budget: that is an upper bound.
        """
        last, step = (self.revisions[-1] if self.revisions else None), self.cost.steps
        if not self.ended_by_budget or last is None or last.step != step:
            return None
        gave_up = self.stopped_by == WOULD_NOT_REACH
        expected = last.steps.interval.high if gave_up else last.steps.value
        if expected is None or not step < expected:
            return None
        cost = "wall_s" if self.cost.energy_kwh is None else "energy_kwh"
        rest = format_cost(cost, getattr(self.cost, cost) * (expected - step) / step)
        total, about = ("at most", "up to") if gave_up else ("an expected", "about")
        return f"stopped at step {step:,} of {total} {expected:,.0f}: {about} {rest} not spent"

    def cost_at(self, target_accuracy: float) -> Cost | None:
        """Return the cost of stopping at another target, from the learning curve; None if the curve never reaches it.

        Energy is proportional to training time, samples and floating point operations to steps.

        Example:
            >>> from resque.ledger.bundled import bundled_updates
            >>> update = bundled_updates()[0]
            >>> update.cost.steps, update.cost_at(0.79).steps, update.cost_at(0.99)
            (5, 1, None)
        """
        at = self.curve.first_at(target_accuracy)
        if at is None:
            return None
        steps, wall_s, per_epoch = self.curve.steps[at], self.curve.wall_s[at], self.curve.steps_per_epoch
        share = steps / self.cost.steps if self.cost.steps else 0.0
        energy_kwh = self.cost.energy_kwh
        if energy_kwh is not None:
            energy_kwh = energy_kwh * (wall_s / self.cost.wall_s) if self.cost.wall_s else 0.0
        return Cost(
            epochs=None if per_epoch is None else steps / per_epoch,
            steps=steps,
            samples=None if self.cost.samples is None else round(self.cost.samples * share),
            gradient_norm=self.curve.gradient_norm[at],
            gradient_norm_last_batch=self.curve.gradient_norm_last_batch[at],
            parameter_change=self.curve.parameter_change[at],
            wall_s=wall_s,
            energy_kwh=energy_kwh,
            carbon_kg=self.grid.carbon_kg(energy_kwh) if self.grid else None,
            flops=None if self.cost.flops is None else self.cost.flops * share,
        )

    def _display(self) -> Display:
        outcome = "reached" if self.reached else f"not reached, stopped by {self.stopped_by}"
        rows = [(COST_NAMES[cost], format_cost(cost, getattr(self.cost, cost))) for cost in (*COSTS, "flops")]
        if self.tariff is not None:
            rows.append(("price of the whole run", format_price(self.price, self.tariff.currency)))
        in_run = " and in-run forecasts" if self.revisions else ""
        rows.append((f"evaluation{in_run} (excluded)", format_cost("wall_s", self.evaluation_s)))
        line = f"test accuracy {self.accuracy:.4f}; target {self.target_accuracy:g} {outcome}"
        lines = list(filter(None, (line, self.saving)))
        return Display(f"Update {self.id}: {shorten_data(self.train_data)}", ("cost", "measured"), rows, lines)


@dataclass(frozen=True)
class Forecast(Displayable):
    """A forecast of what an update will cost, made before any training.

    Attributes:
        id: Unique id in the ledger.
        created_utc: Time of the forecast, ISO 8601.
        model: Specification or name of the model.
        parent: Fingerprint of the model before the update.
        train_data: Specification of the training data.
        test_data: Specification of the test data.
        shift_type: Name of the shift type; None if unknown.
        recipe: Settings of the training recipe.
        target_accuracy: Target accuracy on the test data.
        features: Features of the update.
        predictor: Names of the predictors that the forecast uses, separated by commas.
        estimates: Name of a cost → its forecast; a cost that cannot be forecast is missing.
        probability_reached: Probability of reaching the target within the step budget.
        n_history: Number of the user's own updates in the history.
        shift_types_history: Shift types of those updates.
        max_steps: Step budget of the recipe.
        step_cost: Measured cost of one training step.
        overhead: Time and energy of computing the forecast, from the start of the command or call: imports, data,
            forward passes, probe and fits, without a pilot. What no meter saw has the power of the rest, see its note.
        grid: Grid whose carbon intensity the emissions use; None if not specified.
        alternatives: Predictor → the steps it would forecast alone, for a later comparison with the outcome; a
            number that is not finite is read back from a ledger as None.
        notes: Remarks for the reader.
        reliability_issues: Reasons why the forecast is not reliable enough for a decision; empty if it is.
        n_bundled: Number of bundled updates in the history.
        level: Nominal coverage of the prediction intervals.
        pilot: First steps of the update itself, on which the forecast rests; None without a pilot.
        missing_labels: Number of new samples without labels; they are needed before the update can be done.
    """

    id: str
    created_utc: str
    model: str
    parent: str
    train_data: str
    test_data: str
    shift_type: str | None
    recipe: Mapping[str, Any]
    target_accuracy: float
    features: Features
    predictor: str
    estimates: Mapping[str, Estimate]
    probability_reached: StoredFloat
    n_history: int
    shift_types_history: tuple[str, ...]
    max_steps: int
    step_cost: StepCost
    overhead: EnergyReading
    grid: Grid | None
    alternatives: Mapping[str, StoredFloat] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reliability_issues: tuple[str, ...] = ()
    n_bundled: int = 0
    level: float = 0.8
    pilot: Pilot | None = None
    missing_labels: MissingLabels = dataclasses.field(default_factory=MissingLabels)

    def _display(self) -> Display:
        level = f"{next((each.interval.level for each in self.estimates.values()), self.level):.0%}"
        probability = format_probability(self.probability_reached)
        lines = [f"probability of reaching the target within {self.max_steps:,} steps: {probability}"]
        lines += [self.pilot.summary] if self.pilot else []
        lines += ["not reliable enough for a decision:"] if self.reliability_issues else []
        lines += [f"- {issue}" for issue in self.reliability_issues]
        title = f"Forecast {self.id}: {shorten_data(self.train_data)} to accuracy {self.target_accuracy:g}"
        rows = [(COST_NAMES[c], *format_estimate(c, e.value, e.interval, e.upper)) for c, e in self.estimates.items()]
        return Display(title, ("cost", "forecast", f"{level} interval", f"{level} upper bound"), rows, lines)


@dataclass(frozen=True)
class Void(Serializable):
    """A tombstone: an entry was withdrawn. It stays in the ledger, and counts nowhere.

    Attributes:
        id: Id of the withdrawn entry.
        entry: Kind of entry, ``update`` or ``forecast``.
        why: Reason.
        created_utc: Time of the withdrawal, ISO 8601.
    """

    id: str
    entry: Literal["update", "forecast"]
    why: str
    created_utc: str
