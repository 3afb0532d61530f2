"""Results of the two RESQUE indices, each with its unit and the options it was computed with."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED, format_count
from resque.energy.reading import EnergyReading
from resque.types import Interval

__all__ = ["DistributionIndex", "Sampling", "TaskIndex", "TaskIndexOverhead"]


@dataclass(frozen=True)
class Sampling:
    """What a sampled index has read, and what a full pass would have cost.

    Attributes:
        precision: Half width of the interval at which the pass ends, e.g. ``"0.03"`` or ``"0.002rad"``.
        n_original_read: Number of original samples read; 0 for a profile.
        n_shifted_read: Number of shifted samples read.
        n_full: Number of samples that a full pass reads.
        rounds: Number of rounds.
        pass_s: Seconds of reading and passing.
        full_pass_s: Seconds that a full pass would take at the pace of the last round.
    """

    precision: str
    n_original_read: int
    n_shifted_read: int
    n_full: int
    rounds: int
    pass_s: float
    full_pass_s: float

    @property
    def n_read(self) -> int:
        """Number of samples read."""
        return self.n_original_read + self.n_shifted_read

    @property
    def sentence(self) -> str:
        """What was read, beside a full pass."""
        return (
            f"sampled to ±{self.precision}: read {self.n_read:,} of {self.n_full:,} samples "
            f"({self.n_read / self.n_full:.1%}) in {format_count(self.rounds, 'round')}, {self.pass_s:.2f} s; "
            f"a full pass would take about {self.full_pass_s:.2f} s"
        )


@dataclass(frozen=True)
class DistributionIndex(Displayable):
    """RESQUE_dist with its unit, its uncertainty and the options it was computed with.

    Attributes:
        value: Mean angle over the classes, in ``unit``.
        unit: ``"rad"``, or ``"pi"`` for fractions of pi.
        per_class: Angle by label, in ``unit``; None where it is undefined and skipped.
        reduction: Reduction of a representation to a vector: ``flatten``, ``mean`` or ``token-mean``.
        layer: Name of the module whose output is the representation; empty for plain arrays.
        labels: Labels of the shifted data: ``"true"``, or ``"pseudo"`` for the model's own predictions.
        n_original: Number of original samples.
        n_shifted: Number of shifted samples.
        interval: Confidence interval in ``unit``; None if a class has too few samples.
        floor: Expected index at these two sizes without a shift, in ``unit``; None if a half sum is zero or empty.
        debiased: Whether the angle that sampling noise adds was removed.
        sub_sums: Number G of independent sums per class that floor, interval and bias correction rest on.
        labels_original: Labels of the original data, ``"true"`` or ``"pseudo"``.
        skipped: Number of classes without an angle, left out of the mean.
        sampling: What was read of the data; None for a full pass.
    """

    value: float
    unit: str
    per_class: Mapping[int, float | None]
    reduction: str
    layer: str
    labels: str
    n_original: int
    n_shifted: int
    interval: Interval | None = None
    floor: float | None = None
    debiased: bool = False
    sub_sums: int = 2
    labels_original: str = "true"
    skipped: int = 0
    sampling: Sampling | None = None

    def _display(self) -> Display:
        bounds = self.interval
        interval = "unknown" if bounds is None else f"{bounds.low:.4f} to {bounds.high:.4f} ({bounds.level:.0%})"
        floor = "unknown" if self.floor is None else f"{self.floor:.4f} {self.unit}"
        lines = [
            f"confidence interval: {interval}; noise floor: {floor}",
            f"samples: {self.n_original:,} original ({self.labels_original} labels), "
            f"{self.n_shifted:,} shifted ({self.labels} labels)",
        ]
        if self.sampling is not None:
            lines.append(self.sampling.sentence)
        if self.skipped:
            classes = len(self.per_class)
            lines.append(f"mean over {classes - self.skipped} of {classes} classes; the others have no angle")
        lines.append(f"representation: {f'layer {self.layer}, ' if self.layer else ''}{self.reduction}")
        angles = self.per_class.items()
        rows = [(str(label), NOT_MEASURED if angle is None else f"{angle:.4f}") for label, angle in angles]
        title = f"RESQUE_dist {self.value:.4f} {self.unit}"
        return Display(title, ("class", f"angle [{self.unit}]"), rows, lines)


@dataclass(frozen=True)
class TaskIndexOverhead:
    """Cost of computing RESQUE_task: warm-up on the new task, forward passes and clustering.

    Attributes:
        head: ``"new"``, or ``"widened"`` if the old classes were kept.
        outputs: Number of outputs of that head.
        recipe: Recipe of the warm-up.
        steps: Optimizer steps of the warm-up.
        epochs: Epochs of the warm-up, possibly a fraction.
        accuracy: Accuracy on the new task's data after the warm-up, from the same pass as the index.
        warm_up_s: Seconds of the warm-up.
        pass_s: Seconds of the forward pass; of both passes without Lloyd's iterations.
        clustering_s: Seconds of the clustering and the index.
        energy: Energy reading over warm-up, passes and clustering.
        carbon_kg: Emissions in kg CO2e; None without a grid or without energy.
    """

    head: str
    outputs: int
    recipe: Mapping[str, Any]
    steps: int
    epochs: float
    accuracy: float
    warm_up_s: float
    pass_s: float
    clustering_s: float
    energy: EnergyReading
    carbon_kg: float | None


@dataclass(frozen=True)
class TaskIndex(Displayable):
    """RESQUE_task with the options it was computed with.

    Attributes:
        value: One minus the adjusted Rand index: 0 is best, 1 is chance agreement, larger values are possible.
        unit: ``"1 - ARI"``.
        init: Initialization of the clustering.
        lloyd: Whether Lloyd's iterations ran, or samples were assigned once to the nearest class mean.
        reduction: Reduction of a representation to a vector: ``flatten``, ``mean`` or ``token-mean``.
        n: Number of samples.
        classes: Number of classes, which is also the number of clusters.
        layer: Name of the module whose output is the representation; empty for plain arrays.
        keep: Rule that chose the random clustering; empty if there is none.
        by_init: Index by initialization, if all three were requested.
        agreement: Adjusted Rand index of each pair of clusterings, if all three were requested.
        overhead: Cost of computing the index; None for plain arrays.
    """

    value: float
    unit: str
    init: str
    lloyd: bool
    reduction: str
    n: int
    classes: int
    layer: str = ""
    keep: str = ""
    by_init: Mapping[str, float] = dataclasses.field(default_factory=dict)
    agreement: Mapping[str, float] = dataclasses.field(default_factory=dict)
    overhead: TaskIndexOverhead | None = None

    def _display(self) -> Display:
        form = "Lloyd to convergence" if self.lloyd else "each sample to its nearest class mean"
        return Display(
            f"RESQUE_task {self.value:.4f} (0 is best, 1 is chance level)",
            ("start of the clustering", "RESQUE_task"),
            [(init, f"{value:.4f}") for init, value in self.by_init.items()],
            [
                f"unit {self.unit}; {self.n:,} samples, {self.classes} classes; start {self.init}, {form}",
                f"representation: {f'layer {self.layer}, ' if self.layer else ''}{self.reduction}",
                "compare trained models by it; it does not tell reuse from training from scratch",
            ],
        )
