"""Records of updates and of their forecasts, as the ledger stores them.

Every record is a frozen dataclass with the unit in the field's name. A field that was not measured is None; zero
means zero.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resque._display import Display, Displayable
from resque._format import COST_NAMES, format_cost, format_price
from resque._plain import Serializable
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff, price_of
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
from resque.ledger.decision import FORGETTING
from resque.ledger.forecasts import Forecast

__all__ = [
    "BY_BUDGET", "BY_USER", "COSTS", "LAST_EPOCH", "MEASURED", "PLATEAU", "WOULD_NOT_REACH", "Cost", "Estimate",
    "Features", "Forecast", "ForecastRevision", "LearningCurve", "MissingLabels", "Pilot", "Question", "StepCost",
    "Update", "Void",
]  # fmt: skip

BY_BUDGET = "budget: "
"""Start of :attr:`Update.stopped_by` for a run that its budget ended."""
WOULD_NOT_REACH = BY_BUDGET + "would not reach"
"""Value of :attr:`Update.stopped_by` for a run whose revised forecast gave up the target."""
BY_USER = "the user"
"""Value of :attr:`Update.stopped_by` for a run that the user's own training loop ended."""
PLATEAU, LAST_EPOCH = "tolerance", ("max", "epochs")
"""Start of :attr:`Update.stopped_by` for a run on a plateau; its values for one that took all its epochs."""


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
        digest: Hash of the training, test and replayed data, independent of their names; empty if they were not read.
        revisions: In-run forecast updates, oldest first.
        pilot_steps: Steps of its forecast's pilot, which this run continued; their cost is part of the update's. Zero
            if the run started from the beginning.
        replay_data: Specification of the original data that were mixed in; None without replay.
        asked: Time and energy of its forecast; None without a forecast, and in records of versions that did not keep
            it, see :meth:`asked_by`.
        processes: Number of processes that trained together. Time and energy are those of all, on their devices.
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
    replay_data: str | None = None
    asked: Spending | None = None
    processes: int = 1

    @property
    def whole_energy_kwh(self) -> float | None:
        """Energy of the whole run, evaluation included; None if unknown.

        A run that is too short for the meter gets the mean power of its training steps.
        """
        if self.energy.energy_kwh is not None or self.cost.energy_kwh is None or not self.cost.wall_s:
            return self.energy.energy_kwh
        return self.cost.energy_kwh * self.energy.wall_s / self.cost.wall_s

    @property
    def spending(self) -> Spending:
        """Time and energy of the whole run, evaluation included; a pilot that it continued is a part of it."""
        return Spending(self.energy.wall_s, self.whole_energy_kwh)

    @property
    def price(self) -> float | None:
        """Price of training, evaluation and asking once, in the tariff's currency.

        None without a tariff, or if the cost of its forecast is unknown.
        """
        if self.tariff is None or (self.forecast_id is not None and self.asked is None):
            return None
        return price_of(self.tariff, filter(None, (self.spending, self.asked)))

    def asked_by(self, forecast: Forecast | None) -> "Update":
        """Return the update with the time and energy of the forecast that it settles; as it is without one."""
        if forecast is None:
            return self
        return dataclasses.replace(self, asked=forecast.asking(continued=bool(self.pilot_steps)))

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

    def reaches(self, target_accuracy: float) -> bool | None:
        """Return whether its way reaches a target; None where the run does not tell, because it ended too early.

        A run shows that the target is out of reach if it went on to its last epoch, or diverged. The rule that ends a
        run close to its own target would end one to a lower target no later.

        Example:
            >>> from resque.ledger.bundled import bundled_updates
            >>> update = dataclasses.replace(bundled_updates()[0], reached=False, stopped_by="max")
            >>> update.reaches(0.79), update.reaches(0.99)
            (True, False)
            >>> dataclasses.replace(update, stopped_by="budget: kWh").reaches(0.99) is None
            True
        """
        if self.curve.first_at(target_accuracy) is not None:
            return True
        is_plateau = self.stopped_by.startswith(PLATEAU) and target_accuracy <= self.target_accuracy
        return False if is_plateau or self.stopped_by in (*LAST_EPOCH, "diverged") else None

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

    @property
    def forgetting(self) -> str | None:
        """What the update forgot, and what helps; None where that is unknown, or two points at most without replay.

        A network that was trained from scratch had nothing to forget: its accuracy is said alone.

        Example:
            >>> from resque.ledger.bundled import bundled_updates
            >>> known = {"original_accuracy_before": 0.95, "original_accuracy_after": 0.9}
            >>> dataclasses.replace(bundled_updates()[0], **known).forgetting
            'accuracy on the original data fell by 5.0 points: replay=0.2 in the recipe mixes original data in'
        """
        before, after, replay = self.original_accuracy_before, self.original_accuracy_after, self.recipe.get("replay")
        if before is None or after is None or not (replay or self.from_scratch or before - after > FORGETTING):
            return None
        mixed = f" with replay={replay:.2g}" if replay else ""
        if self.from_scratch:
            return f"accuracy on the original data is {after:.3f}, from scratch{mixed}"
        change = f"{'fell' if after < before else 'rose'} by {100 * abs(before - after):.1f} points"
        fact = f"accuracy on the original data {change}{mixed}"
        if not before - after > FORGETTING:
            return fact
        more = "a larger share mixes more of them in" if replay else "replay=0.2 in the recipe mixes original data in"
        return f"{fact}: {more}"

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
            rows.append(("price, evaluation and asking included", format_price(self.price, self.tariff.currency)))
        in_run = " and in-run forecasts" if self.revisions else ""
        rows.append((f"evaluation{in_run} (excluded)", format_cost("wall_s", self.evaluation_s)))
        line = f"test accuracy {self.accuracy:.4f}; target {self.target_accuracy:g} {outcome}"
        lines = list(filter(None, (line, self.saving, self.forgetting)))
        return Display(f"Update {self.id}: {shorten_data(self.train_data)}", ("cost", "measured"), rows, lines)


@dataclass(frozen=True)
class Question(Serializable):
    """What a question took beside stored forecasts: it was interrupted, or had nothing new to store.

    Attributes:
        id: Unique id in the ledger.
        created_utc: Time of its end, ISO 8601.
        model: Specification or name of the model; of several models, of the first.
        parent: Fingerprint of that model.
        train_data: Specification of the new training data.
        target_accuracy: Target accuracy on the test data.
        spending: Time and energy that are in no forecast.
        grid: Grid whose carbon intensity the emissions use; None if not specified.
        tariff: Tariff that the price uses; None if not specified.
    """

    id: str
    created_utc: str
    model: str
    parent: str
    train_data: str
    target_accuracy: float
    spending: Spending
    grid: Grid | None = None
    tariff: Tariff | None = None


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
