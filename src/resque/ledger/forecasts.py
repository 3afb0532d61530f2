"""The record of a forecast, as the ledger stores it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_count, format_estimate, format_probability
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff
from resque.energy.reading import EnergyReading, energy_share
from resque.ledger import decision
from resque.ledger.components import Estimate, Features, MissingLabels, Pilot, StepCost
from resque.types import StoredFloat

__all__ = ["Forecast"]

_DECIDING = "steps", "wall_s", "energy_kwh", "carbon_kg"


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
        best_accuracy: Highest accuracy within the step budget, if the run went on after its target; None in records of
            versions that did not forecast it.
        missing_labels: Number of new samples without labels; they are needed before the update can be done.
        replay_data: Specification of the original data that the update mixes in; None without replay.
        tariff: Tariff that it was asked with; None if not specified.
        price: Price by that tariff, of training, evaluation and asking once; None if unknown.
        expected_forgetting: Accuracy on the original data that earlier updates of this model lost which trained the
            same parts, their median; None if it was not measured.
        from_scratch: Whether the training starts from new random weights.
        original_accuracy: Accuracy on the original test data before the update; None if not measured.
        license_price: Price of the license of the weights that it starts from, paid beside its price.
        inputs: Names by which model and data were loaded, and how: argument of :func:`resque.update` → value. Objects
            have no name. None in records of versions that did not keep them.
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
    best_accuracy: Estimate | None = None
    missing_labels: MissingLabels = dataclasses.field(default_factory=MissingLabels)
    replay_data: str | None = None
    tariff: Tariff | None = None
    price: Estimate | None = None
    expected_forgetting: float | None = None
    from_scratch: bool = False
    inputs: Mapping[str, Any] | None = None
    original_accuracy: float | None = None
    license_price: float = 0.0

    def asking(self, continued: bool) -> Spending:
        """Return time and energy of computing the forecast.

        A pilot that was too short for the meter has the power of the probe.

        Args:
            continued: Whether an update goes on from its pilot, which is a part of the update then.
        """
        wall_s, energy_kwh, pilot = self.overhead.wall_s, self.overhead.energy_kwh, self.pilot
        if pilot is None or continued:
            return Spending(wall_s, energy_kwh)
        more_kwh = pilot.reading.energy_kwh
        if more_kwh is None:
            more_kwh = energy_share(self.step_cost.reading, pilot.reading.wall_s)
        return Spending(wall_s, energy_kwh).plus(Spending(pilot.reading.wall_s, more_kwh))

    @property
    def chance(self) -> str:
        """Probability of reaching the target in words: certain only where the outcome was measured."""
        steps = self.estimates.get("steps")
        is_measured = steps is not None and steps.interval.guarantee.startswith("measured")
        return format_probability(self.probability_reached, is_measured)

    @property
    def decision(self) -> str:
        """What to do, in plain words: costs, chance, what is free, what it would lose and the remedy."""
        if not self.estimates["steps"].value:
            known = self.features.accuracy
            at = "at the target" if known is None else f"at accuracy {known:.3g}"
            return f"Do nothing: the model is {at} already, and {self.target_accuracy:g} is asked for."
        costs = decision.costs_in_words(self.estimates, self.price, self.tariff)
        outcome = decision.outcome_in_words(self.probability_reached, self.target_accuracy, self.pilot)
        parts = [f"{decision.action(self.recipe, self.from_scratch)}: {costs}, {outcome}."]
        parts += ["Not reliable enough to decide."] if self.reliability_issues else []
        parts.append(decision.free_in_words(self.features, self.recipe))
        parts.append(decision.loss_in_words(self.expected_forgetting, self.recipe, self.pilot))
        return " ".join(filter(None, parts))

    def _display(self, details: bool = False) -> Display:
        """Describe the forecast: the decision, the costs that decide or all of them, and reasons not to rely on it."""
        level = f"{next((each.interval.level for each in self.estimates.values()), self.level):.0%}"
        shown = {cost: each for cost, each in self.estimates.items() if details or cost in _DECIDING}
        rows = [(COST_NAMES[c], *format_estimate(c, e.value, e.interval, e.upper)) for c, e in shown.items()]
        if self.price is not None and self.tariff is not None:
            cells = format_estimate("price", self.price.value, self.price.interval, self.price.upper)
            rows.append((f"price, {self.tariff.currency}", *cells))
        lines = [
            f"forecast {self.id}: {shorten_data(self.train_data)} to accuracy {self.target_accuracy:g}",
            f"probability of reaching the target within {format_count(self.max_steps, 'step')}: {self.chance}",
        ]
        lines += [self.pilot.summary] if self.pilot else []
        lines += ["not reliable enough for a decision:"] if self.reliability_issues else []
        lines += [f"- {issue}" for issue in self.reliability_issues]
        return Display(self.decision, ("cost", "forecast", f"{level} interval", f"{level} upper bound"), rows, lines)
