"""The nouns of an update that travel between modules: frozen, with the unit in the field's name.

A field is None when it was not measured; zero means zero.
"""

import dataclasses
import datetime
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.types import Interval

COSTS = {
    "epochs": "epochs",
    "steps": "optimizer steps",
    "gradient_norm": "total gradient norm",
    "parameter_change": "normalized parameter change",
    "wall_s": "s",
    "energy_kwh": "kWh",
    "carbon_kg": "kg CO2e",
}
"""The costs that are measured and forecast, each with its unit."""
BY_USER = "the user"
"""What stopped an update that no rule of ours did."""


@dataclass(frozen=True)
class Cost:
    """What a retraining took, training only (evaluation is counted apart).

    Attributes:
        epochs: Steps over steps per epoch; the paper's whole epochs are its ceiling. None where that is not known.
        steps: Optimizer steps.
        samples: Training samples passed, counting repeats; None where the batch size is not known.
        gradient_norm: Global L2 norm of the gradient, mean over an epoch's steps, summed over epochs; None where it was
            not measured, as the two below.
        gradient_norm_last_batch: The same from the last batch of each epoch alone, as the authors' code does.
        parameter_change: Eq. 5 summed over epochs, averaged over named parameters.
        wall_s: Seconds spent in training steps.
        energy_kwh: Energy of the training steps.
        carbon_kg: Its emissions, None without a region.
        flops: Floating point operations of forward and backward passes, counted by PyTorch on one step (products and
            convolutions) and multiplied by the samples; None where it was not counted.
    """

    epochs: float | None
    steps: int
    samples: int | None
    gradient_norm: float | None
    gradient_norm_last_batch: float | None
    parameter_change: float | None
    wall_s: float
    energy_kwh: float | None = None
    carbon_kg: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class LearningCurve:
    """Every evaluation of a retraining; all tuples have one entry per evaluation, the first before any step.

    Attributes:
        steps: Optimizer steps taken before the evaluation.
        accuracy: Share of the test data classified correctly.
        loss: Mean cross-entropy on the test data, nats; None where it was not told.
        wall_s: Seconds of training so far.
        gradient_norm: Total so far, as in ``Cost``.
        gradient_norm_last_batch: Total so far, as in ``Cost``.
        parameter_change: Total so far, as in ``Cost``.
        steps_per_epoch: Optimizer steps in an epoch; None where that is not known.
    """

    steps: tuple[int, ...]
    accuracy: tuple[float, ...]
    loss: tuple[float | None, ...]
    wall_s: tuple[float, ...]
    gradient_norm: tuple[float | None, ...]
    gradient_norm_last_batch: tuple[float | None, ...]
    parameter_change: tuple[float | None, ...]
    steps_per_epoch: int | None

    def first_at(self, target_accuracy: float) -> int | None:
        """Position of the first evaluation at or above the target; None if there is none."""
        return next((i for i, a in enumerate(self.accuracy) if a >= target_accuracy), None)

    def until(self, step: int) -> "LearningCurve":
        """What had been seen by then."""
        kept = sum(at <= step for at in self.steps)
        columns = [field.name for field in dataclasses.fields(self) if field.name != "steps_per_epoch"]
        return dataclasses.replace(self, **{name: getattr(self, name)[:kept] for name in columns})


@dataclass(frozen=True)
class Features:
    """What one forward pass tells before an update, and what a forecast may use.

    Attributes:
        index_rad: RESQUE_dist in radians, None without an original side.
        accuracy: Accuracy of the model on the new test data, before the update; None where nobody looked.
        loss: Mean cross-entropy there, nats; None where it was not told.
        floor_rad: What the index would be without a shift, None where it cannot be told.
        layer: Where the index was taken, empty without an index.
        reduction: How a representation was made flat, empty without an index.
        labels: ``"true"`` or ``"pseudo"``, empty without an index.
        samples: Of the new training data; None where nobody said, as the two below.
        classes: Of them.
        parameters: Of the model.
        scores: What else the pass tells, by the names of :func:`resque.indices.baselines.scores.baseline_scores`.
        task_index: RESQUE_task in [0, 1] after the warm-up; None where no new task was asked about.
    """

    index_rad: float | None
    accuracy: float | None
    loss: float | None
    floor_rad: float | None = None
    layer: str = ""
    reduction: str = ""
    labels: str = ""
    samples: int | None = None
    classes: int | None = None
    parameters: int | None = None
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    task_index: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A forecast cost.

    Attributes:
        value: The middle of runs that reach the target.
        interval: Of what a run will cost, whether it gets there or not.
        upper: What the cost stays below with the interval's level, one-sided: what a budget is held against. None in
            what was written before there was one.
    """

    value: float
    interval: Interval
    upper: float | None = None


@dataclass(frozen=True)
class ForecastRevision:
    """A forecast renewed while its update ran.

    Attributes:
        step: Optimizer steps taken by then.
        accuracy: On the test data then.
        steps: What it will take in all.
        probability_reached: Chance of reaching the target within the recipe's longest run.
        n_history: Own updates that stood there too.
    """

    step: int
    accuracy: float
    steps: Estimate
    probability_reached: float
    n_history: int


@dataclass(frozen=True)
class Update:
    """One retraining, complete whether or not it reached its target.

    Attributes:
        id: Unique name in the ledger.
        started_utc: When it began, ISO 8601.
        created_utc: When it ended.
        model: Model specification or name.
        parent: Fingerprint of the model before the update.
        child: Fingerprint of the model after it.
        train_data: Specification of the training data.
        test_data: Specification of the test data.
        shift_type: Kind of shift, None if unknown.
        recipe: The recipe's settings.
        seed: Seed of the order of the training samples.
        target_accuracy: What had to be reached on the test data.
        reached: Whether it was.
        stopped_by: ``target``, ``tolerance 0.005``, ``tolerance 0.01``, ``max``, ``epochs`` (a fixed number),
            ``max hours``, ``max kWh``, ``diverged``, or ``the user`` in a loop of their own.
        features: What was known before.
        curve: Every evaluation.
        cost: What it took.
        evaluation_s: Seconds spent evaluating and renewing a forecast, not part of the cost; None where they were not
            told apart and are.
        energy: The meter's reading for the whole run (training and evaluation).
        grid: The electricity it ran on, None if not named.
        original_accuracy_before: Accuracy on the original data before the update, None if not measured.
        original_accuracy_after: The same afterwards: what was forgotten is the difference.
        forecast_id: The forecast that this update settles, None if there was none.
        host: Processor, device and versions.
        trainable_share: Share of the parameters that were trained, adapters included; None where that is not known.
        resumed: How often the run was interrupted and went on.
        tariff: What it was paid by, None if not named.
        from_scratch: Whether it began with new random weights, to stand beside a retraining.
        angle_to_parent_rad: Mean angle between the class sums of the parent's profile, of its data in its own space,
            and of the new model's; None where there is no profile of the parent. Two models are no RESQUE_dist.
        angle_to_root_rad: The same from the first model of the line.
        digest: Of the training and the test data, whatever their names; empty where they were not seen.
        revisions: Its forecast, as it was renewed on the way.
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
    seed: int
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

    @property
    def whole_energy_kwh(self) -> float | None:
        """Energy of the whole run, evaluation included; of one too short for the meter at its probed steps' power."""
        if self.energy.energy_kwh is not None or self.cost.energy_kwh is None or not self.cost.wall_s:
            return self.energy.energy_kwh
        return self.cost.energy_kwh * self.energy.wall_s / self.cost.wall_s

    @property
    def price(self) -> float | None:
        """What the whole run costs, evaluation included, in the tariff's currency; None without one."""
        return None if self.tariff is None else self.tariff.price(self.whole_energy_kwh, self.energy.wall_s)

    @property
    def accuracy(self) -> float:
        """Accuracy on the test data when it ended."""
        return self.curve.accuracy[-1]

    @property
    def peak_accuracy(self) -> float:
        """The best accuracy on the test data at any evaluation."""
        return max(self.curve.accuracy)

    def cost_at(self, target_accuracy: float) -> Cost | None:
        """The cost of having stopped at another target, read off the stored curve.

        Energy is shared out by training time. None when the curve never reaches the target.
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


@dataclass(frozen=True)
class StepCost:
    """What one training step takes on this machine, from a probe of real steps on a copy of the model.

    Attributes:
        wall_s: Seconds per step.
        energy_kwh: Energy per step, None where the meter knows none.
        steps: Steps the probe took.
        reading: The meter's reading of the probe itself: part of the price of asking.
    """

    wall_s: float
    energy_kwh: float | None
    steps: int
    reading: EnergyReading


@dataclass(frozen=True)
class Forecast:
    """What an update will cost, said before anything is trained.

    Attributes:
        id: Unique name in the ledger.
        created_utc: When it was made, ISO 8601.
        model: Model specification or name.
        parent: Fingerprint of the model that would be updated.
        train_data: Specification of the data it would be trained on.
        test_data: Specification of the data it would be tested on.
        shift_type: Kind of shift, None if unknown.
        recipe: The recipe's settings.
        target_accuracy: What the update has to reach.
        features: What one forward pass said.
        predictor: The features that the forecast rests on, with commas between them.
        estimates: Cost → estimate; a cost that cannot be told is missing.
        probability_reached: Chance of reaching the target within the recipe's longest run.
        n_history: Updates it was learned from.
        shift_types_history: Kinds of shift among them.
        max_steps: Length of the recipe's longest run.
        step_cost: The probe.
        overhead: What making the forecast took: the passes and the probe.
        grid: The electricity it is priced with.
        alternatives: Predictor → the steps it would have foretold alone, for the comparison afterwards.
        notes: What the reader has to know.
        reliability_issues: Why it is not reliable enough to decide by; none where it is.
        n_bundled: Updates of others that it was learned from, too.
        level: Nominal coverage of the intervals.
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
    probability_reached: float
    n_history: int
    shift_types_history: tuple[str, ...]
    max_steps: int
    step_cost: StepCost
    overhead: EnergyReading
    grid: Grid | None
    alternatives: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reliability_issues: tuple[str, ...] = ()
    n_bundled: int = 0
    level: float = 0.8


def new_id() -> str:
    """A fresh name for a ledger entry."""
    return uuid.uuid4().hex[:12]


def utc_now() -> str:
    """The time now, ISO 8601, in milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
