"""Results of the two RESQUE indices, each with its unit and how it was computed."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED
from resque.energy.reading import EnergyReading
from resque.types import Interval


@dataclass(frozen=True)
class DistributionIndex(Displayable):
    """A RESQUE index, which never travels without its unit and how it was made.

    Attributes:
        value: The index.
        unit: ``"rad"`` or ``"pi"`` (fractions of pi).
        per_class: Label → angle of that class, None where undefined and skipped.
        reduction: How a representation was made flat: ``flatten``, ``mean`` or ``token-mean``.
        layer: Name of the module whose output is the representation.
        labels: ``"true"`` or ``"pseudo"`` (the model's own predictions), for the shifted side.
        n_original: Samples on the original side.
        n_shifted: Samples on the shifted side.
        interval: Confidence interval, None where samples are too few to tell; its ``guarantee`` says of what.
        floor: What the index would be at these two sizes without any shift, None where it cannot be told.
        debiased: Whether the angle that sampling noise adds was taken out.
        sub_sums: G, the independent sums per class that floor, interval and correction rest on.
        labels_original: As ``labels``, for the original side.
        skipped: Classes without an angle, left out of the mean.
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

    def _display(self) -> Display:
        bounds = self.interval
        interval = "unknown" if bounds is None else f"{bounds.low:.4f} to {bounds.high:.4f} ({bounds.level:.0%})"
        floor = "unknown" if self.floor is None else f"{self.floor:.4f} {self.unit}"
        lines = [
            f"confidence interval: {interval}; noise floor: {floor}",
            f"samples: {self.n_original:,} original ({self.labels_original} labels), "
            f"{self.n_shifted:,} shifted ({self.labels} labels)",
        ]
        if self.skipped:
            classes = len(self.per_class)
            lines.append(f"mean over {classes - self.skipped} of {classes} classes; the others have no angle")
        return Display(
            f"RESQUE_dist {self.value:.4f} {self.unit}, layer {self.layer}, {self.reduction}",
            ("class", f"angle [{self.unit}]"),
            [
                (str(label), NOT_MEASURED if angle is None else f"{angle:.4f}")
                for label, angle in self.per_class.items()
            ],
            lines,
        )


@dataclass(frozen=True)
class TaskIndexOverhead:
    """What it took to ask for RESQUE_task: the warm-up on the new task, the pass and the clustering.

    Attributes:
        head: ``"new"``, or ``"widened"`` where the old classes stayed.
        outputs: Classes of that head.
        recipe: How the warm-up trained.
        steps: Its optimizer steps.
        epochs: Its share of a pass over the data.
        accuracy: On that data after the warm-up, from the same pass.
        warm_up_s: Seconds of training.
        pass_s: Seconds of the forward pass (two where samples go to the nearest class mean).
        clustering_s: Seconds of clustering and index.
        energy: The meter's reading of all of it.
        carbon_kg: Its emissions, None without a region or without energy.
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
    """RESQUE_task, and how it was made.

    Attributes:
        value: One minus the adjusted Rand index; 0 is best, 1 what chance gives, and more is possible.
        unit: ``"1 - ARI"``.
        init: How the clustering began.
        lloyd: Whether Lloyd's iterations ran, or samples went to the nearest class mean once.
        reduction: How a representation was made flat.
        n: Samples.
        classes: Classes, which is also the number of clusters.
        layer: Name of the module whose output is the representation, empty for plain arrays.
        keep: Which of the random clusterings counts, empty where there are none.
        by_init: Start → index, where all three were asked for.
        agreement: Pair of starts → adjusted Rand index of their clusterings, where all three were asked for.
        overhead: None for plain arrays.
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
            ],
        )
