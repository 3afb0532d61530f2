"""Parts of the stored records: measured cost, learning curve, features, and the estimates of a forecast.

Each is a frozen dataclass with the unit in the field's name. A field that was not measured is None; zero means zero.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resque._format import format_cost, format_count
from resque._plain import Serializable
from resque.energy.reading import EnergyReading
from resque.types import Interval, StoredFloat

__all__ = [
    "COSTS", "MEASURED", "Cost", "Estimate", "Features", "ForecastRevision", "LearningCurve", "MissingLabels", "Pilot",
    "StepCost",
]  # fmt: skip

MEASURED = "measured"
"""Value of :attr:`Features.accuracy_method` for an accuracy on labeled test data."""

COSTS = {
    "epochs": "epochs",
    "steps": "optimizer steps",
    "gradient_norm": "total gradient norm",
    "parameter_change": "normalized parameter change",
    "wall_s": "s",
    "energy_kwh": "kWh",
    "carbon_kg": "kg CO2e",
}
"""Measured and forecast costs: name of the field in :class:`Cost` → unit."""


@dataclass(frozen=True)
class Cost(Serializable):
    """The measured cost of a retraining: training only, without evaluation.

    Attributes:
        epochs: Number of epochs, steps over steps per epoch; the paper's whole epochs are its ceiling. None if the
            length of an epoch is unknown.
        steps: Number of optimizer steps.
        samples: Number of training samples processed, repeats included; None if the batch size is unknown.
        gradient_norm: Global L2 norm of the gradient: mean over the steps of an epoch, summed over epochs; None if not
            measured.
        gradient_norm_last_batch: Global L2 norm of the gradient of each epoch's last batch, summed over epochs, as the
            authors' code computes it; None if not measured.
        parameter_change: Parameter change (eq. 5) summed over epochs, averaged over named parameters; None if not
            measured.
        wall_s: Seconds spent in training steps.
        energy_kwh: Energy of the training steps; None if not measured.
        carbon_kg: Emissions of the training steps, kg CO2e; None without a grid.
        flops: Floating point operations of forward and backward passes, counted by PyTorch for one step (products and
            convolutions) and scaled by the number of samples; None if not counted.

    Example:
        >>> Cost(2.0, 40, 1280, None, None, None, wall_s=1.5, energy_kwh=2e-5).energy_kwh
        2e-05
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
class LearningCurve(Serializable):
    """The evaluations of a retraining; every tuple has one entry per evaluation, the first before any step.

    Attributes:
        steps: Optimizer steps taken before each evaluation.
        accuracy: Accuracy on the test data, in [0, 1].
        loss: Mean cross-entropy on the test data, nats; None where unknown.
        wall_s: Seconds of training before each evaluation.
        gradient_norm: Running total of :attr:`Cost.gradient_norm`.
        gradient_norm_last_batch: Running total of :attr:`Cost.gradient_norm_last_batch`.
        parameter_change: Running total of :attr:`Cost.parameter_change`.
        steps_per_epoch: Optimizer steps in an epoch; None if unknown.

    Example:
        >>> none = (None, None)
        >>> curve = LearningCurve((0, 40), (0.5, 0.9), none, (0.0, 1.5), none, none, none, steps_per_epoch=20)
        >>> curve.first_at(target_accuracy=0.8), curve.until(step=10).accuracy
        (1, (0.5,))
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
        """Return the position of the first evaluation at or above the target; None if there is none."""
        return next((i for i, a in enumerate(self.accuracy) if a >= target_accuracy), None)

    def until(self, step: int) -> "LearningCurve":
        """Return the evaluations up to and including a step."""
        kept = sum(at <= step for at in self.steps)
        columns = [field.name for field in dataclasses.fields(self) if field.name != "steps_per_epoch"]
        return dataclasses.replace(self, **{name: getattr(self, name)[:kept] for name in columns})


@dataclass(frozen=True)
class Features(Serializable):
    """The features of an update, known before it starts: from forward passes, without training.

    Attributes:
        index_rad: RESQUE_dist in radians; None without original data.
        accuracy: Accuracy of the model on the new test data before the update; None if not evaluated.
        loss: Mean cross-entropy on the new test data before the update, nats; None if unknown.
        floor_rad: Noise floor: expected index without a shift; None if it cannot be estimated.
        layer: Layer whose representations the index uses; empty without an index.
        reduction: Method that flattens a representation; empty without an index.
        labels: Source of the labels, ``"true"`` or ``"pseudo"``; empty without an index.
        samples: Number of new training samples; None if unknown.
        classes: Number of classes in the new training data; None if unknown.
        parameters: Number of parameters of the model; None if unknown.
        scores: Baseline scores, by the names of :func:`resque.indices.baselines.scores.baseline_scores`; a score that
            is not finite is read back from a ledger as None.
        task_index: RESQUE_task in [0, 1] after the warm-up; None unless the update is a new task.
        accuracy_method: Origin of the accuracy: ``"measured"``, or ``"estimated without labels: "`` and the method.
        accuracy_error_logit: Standard error of an estimated accuracy on the logit scale; None if it was measured.
        evaluation_s: Seconds of an evaluation on the test data; None if it was not timed.
        free_accuracy: Accuracy on the new test data once normalization is re-estimated (``trains=norm``), which is one
            pass without labels; None if the model has no such layers or the test data no labels.

    Example:
        >>> features = Features(index_rad=0.28, accuracy=0.78, loss=0.95, scores={"LEEP": -1.4})
        >>> features.to_dict()["scores"], features.is_estimated
        ({'LEEP': -1.4}, False)
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
    scores: Mapping[str, StoredFloat] = dataclasses.field(default_factory=dict)
    task_index: float | None = None
    accuracy_method: str = MEASURED
    accuracy_error_logit: float | None = None
    evaluation_s: float | None = dataclasses.field(default=None, compare=False)  # a clock, not a feature
    free_accuracy: float | None = None

    @property
    def is_estimated(self) -> bool:
        """Whether the accuracy was estimated without labels."""
        return self.accuracy_method != MEASURED

    def measured(self, accuracy: float | None, loss: float | None) -> "Features":
        """Return the features with measured accuracy and loss in place of an estimate; measured ones stay.

        Args:
            accuracy: Accuracy on the test data before the first step; None if it was not evaluated.
            loss: Mean cross-entropy there; None if unknown.
        """
        if not self.is_estimated:
            return self
        return dataclasses.replace(
            self, accuracy=accuracy, loss=loss, accuracy_method=MEASURED, accuracy_error_logit=None
        )


@dataclass(frozen=True)
class MissingLabels(Serializable):
    """Number of new samples that had no labels when an update was forecast.

    Attributes:
        train: Number of training samples without labels.
        test: Number of test samples without labels.

    Example:
        >>> MissingLabels(train=300, test=100).total
        400
    """

    train: int = 0
    test: int = 0

    @property
    def total(self) -> int:
        """Number of labels to be made."""
        return self.train + self.test


@dataclass(frozen=True)
class Estimate(Serializable):
    """The forecast of one cost.

    Attributes:
        value: Median of the cost, given that the target is reached.
        interval: Prediction interval of the cost, whether or not the target is reached.
        upper: One-sided upper prediction bound at the interval's level, which a budget is compared with; None in
            records of versions that had no such bound.

    Example:
        >>> steps = Estimate(180.0, Interval(120.0, 260.0, 0.8, "no coverage guarantee"), upper=230.0)
        >>> 200.0 in steps.interval
        True
    """

    value: StoredFloat
    interval: Interval
    upper: float | None = None

    def map(self, change: Callable[[float], float]) -> "Estimate":
        """Return the estimate with a monotone function applied to the median and all bounds.

        Example:
            >>> Estimate(3.0, Interval(1.0, None, 0.8, "")).map(lambda value: value + 1.0).interval.low
            2.0
        """
        high = None if self.interval.high is None else change(self.interval.high)
        interval = dataclasses.replace(self.interval, low=change(self.interval.low), high=high)
        return Estimate(change(self.value), interval, None if self.upper is None else change(self.upper))


@dataclass(frozen=True)
class ForecastRevision(Serializable):
    """An in-run forecast update: the forecast revised after an evaluation of the running update.

    Attributes:
        step: Optimizer steps taken before the revision.
        accuracy: Accuracy on the test data at that step.
        steps: Forecast of the total number of optimizer steps.
        probability_reached: Probability of reaching the target within the step budget.
        n_history: Number of the user's own earlier updates whose learning curves shape the revision.
        steps_lower: Number of steps that the run takes at least, with the confidence of a budget, by default 0.95
            (one-sided lower prediction bound); None in records of versions that had no such bound.
        best_accuracy: Forecast of the highest accuracy within the step budget, if the run went on after its target;
            None in records of versions that did not forecast it.
    """

    step: int
    accuracy: float
    steps: Estimate
    probability_reached: StoredFloat
    n_history: int
    steps_lower: float | None = None
    best_accuracy: Estimate | None = None


@dataclass(frozen=True)
class StepCost(Serializable):
    """The measured cost of one training step on this machine, from a probe of real steps on a copy of the model.

    Attributes:
        wall_s: Seconds per step.
        energy_kwh: Energy per step; None if the meter does not measure energy.
        steps: Number of steps in the probe.
        reading: Meter reading of the probe, part of the forecasting overhead.
        start_s: Seconds before the first step: the pass over the data of a head that is trained alone, at the power of
            the steps. Zero for other runs.
        others_busy_share: Share of the machine's processor time that other processes used during the probe; None where
            it was not measured.
        trainable_share: Share of the parameters that are trained, adapters included; None for probes of earlier
            versions.

    Example:
        >>> cost = StepCost(0.5, 0.01, 10, EnergyReading(5.0, 0.1, {}, {}, "meter"), start_s=2.0)
        >>> cost.energy_after(0), cost.energy_after(6)
        (0.0, 0.1)
    """

    wall_s: float
    energy_kwh: float | None
    steps: int
    reading: EnergyReading
    start_s: float = 0.0
    others_busy_share: float | None = None
    trainable_share: float | None = None

    def energy_after(self, steps: int) -> float | None:
        """Return the energy of a run of so many steps; None if unknown."""
        if self.energy_kwh is None:
            return None
        return self.energy_kwh * (steps + self.start_s / self.wall_s) if steps else 0.0


@dataclass(frozen=True)
class Pilot(Serializable):
    """The first steps of an update, trained on a copy of the model to make its forecast sharper.

    Attributes:
        steps: Optimizer steps of the pilot.
        seed: Seed of the data order.
        identity: Hash of what decides the run, see :func:`resque.training.checkpoint.run_identity`.
        curve: Learning curve; its evaluations are more frequent than those of the recipe.
        reading: Meter reading of the pilot, training and evaluation.
        evaluation_s: Seconds of evaluation.
        stopped_by: Stopping reason, if the run ended within the pilot; else None.
        original_accuracy: Accuracy on held-out original data after the pilot; None if it was not measured.
        trainable_share: Share of the parameters that are trained; None in records of versions that did not keep it.

    Example:
        >>> none = (None, None)
        >>> curve = LearningCurve((0, 9), (0.5, 0.75), none, (0.0, 1.5), none, none, none, steps_per_epoch=20)
        >>> pilot = Pilot(9, 0, "", curve, EnergyReading(2.0, None, {}, {}, "clock"), evaluation_s=0.5)
        >>> pilot.steps, pilot.accuracy, pilot.training_s
        (9, 0.75, 1.5)
    """

    steps: int
    seed: int
    identity: str
    curve: LearningCurve
    reading: EnergyReading
    evaluation_s: float
    stopped_by: str | None = None
    original_accuracy: float | None = None
    trainable_share: float | None = None

    @property
    def accuracy(self) -> float:
        """Accuracy on the test data after the pilot."""
        return self.curve.accuracy[-1]

    @property
    def training_s(self) -> float:
        """Seconds of training steps."""
        return self.curve.wall_s[-1]

    @property
    def summary(self) -> str:
        """Steps, time and accuracy for people: ``pilot of 100 steps in 4.0 s: test accuracy 0.612 to 0.731``."""
        took = format_cost("wall_s", self.reading.wall_s)
        accuracy = f"test accuracy {self.curve.accuracy[0]:.3f} to {self.accuracy:.3f}"
        return f"pilot of {format_count(self.steps, 'step')} in {took}: {accuracy}"
