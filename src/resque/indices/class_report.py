"""Tell which classes carry a shift and the errors that it makes, and which of them seem to have exchanged names."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED, format_list
from resque._plain import Serializable
from resque.data.dataset import LabeledDataset
from resque.errors import DataError
from resque.indices.results import DistributionIndex
from resque.models.batchnorm import adapt_batchnorm, has_running_statistics
from resque.models.inference import device_of, eval_mode, forward
from resque.training.evaluation import check_data_fits_model, with_batches_that_fit

__all__ = ["ClassErrors", "ClassReport", "class_report", "confusion_matrix", "exchanged_classes"]

_BAR = 8  # characters
_CONFIDENCE_Z = 1.96  # of a share above one half, two-sided 95 %


@dataclass(frozen=True)
class ClassErrors(Serializable):
    """Angle and errors of one class of the shifted data.

    Attributes:
        label: Label of the class.
        name: Name of the class; the label as text if it has none.
        samples: Number of samples.
        angle_rad: Angle by which the shift turns the class sum, in radians; None if undefined.
        errors: Number of samples for which the model predicts another class.
        errors_adapted: The same after normalization is re-estimated on the shifted data; None without such layers.
        errors_left: Those after what is free: the adapted ones where re-estimating raises the accuracy of all classes.
        taken_for: Name of the other class that is predicted most often in what is left; empty without errors.
    """

    label: int
    name: str
    samples: int
    angle_rad: float | None
    errors: int
    errors_adapted: int | None
    errors_left: int
    taken_for: str


@dataclass(frozen=True)
class ClassReport(Displayable):
    """Index, errors and exchanged names, class by class.

    Attributes:
        data: Name of the shifted data.
        index: RESQUE_dist of the shifted data.
        classes: Each class, the one with the most remaining errors first.
        labels: Label of each row of the confusion matrices.
        confusion: Number of samples by true class (row) and predicted class (column).
        confusion_adapted: The same after normalization is re-estimated; None without such layers.
        exchanged: Cycles of labels; most samples of each label are predicted as the next one, by the model as it is or
            after normalization is re-estimated.
    """

    data: str
    index: DistributionIndex
    classes: tuple[ClassErrors, ...]
    labels: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    confusion_adapted: tuple[tuple[int, ...], ...] | None
    exchanged: tuple[tuple[int, ...], ...]

    @property
    def accuracy(self) -> float:
        """Accuracy of the model as it is."""
        return 1.0 - sum(each.errors for each in self.classes) / self._samples

    @property
    def accuracy_adapted(self) -> float | None:
        """Accuracy after normalization is re-estimated; None without such layers."""
        if self.confusion_adapted is None:
            return None
        return 1.0 - sum(each.errors_adapted or 0 for each in self.classes) / self._samples

    @property
    def is_helped(self) -> bool:
        """Whether re-estimating normalization raises the accuracy."""
        return self.accuracy_adapted is not None and self.accuracy_adapted > self.accuracy

    @property
    def accuracy_renamed(self) -> float:
        """Accuracy of the model as it is, if exchanged names are put back."""
        renamed = dict(pair for cycle in self.exchanged for pair in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        rows = zip(self.labels, self.confusion, strict=True)
        return sum(row[renamed.get(label, label)] for label, row in rows) / self._samples

    @property
    def findings(self) -> tuple[str, ...]:
        """What to do about it, in sentences."""
        found = [self._exchange(cycle) for cycle in self.exchanged]
        if self.exchanged:
            found.append(
                f"With the names put back, accuracy would be {self.accuracy_renamed:.3f} in place of "
                f"{self.accuracy:.3f}: check the labels before you retrain."
            )
        if self.accuracy_adapted is not None:
            helps = "needs no labels and takes" if self.is_helped else "does not help: it takes"
            found.append(
                f"Re-estimating normalization {helps} accuracy from {self.accuracy:.3f} to "
                f"{self.accuracy_adapted:.3f}; “left” are the errors {'after' if self.is_helped else 'without'} it."
            )
        return (*found, *([] if self.exchanged else self._errors_left()), *self._largest_angle())

    @property
    def _samples(self) -> int:
        return sum(each.samples for each in self.classes)

    def _exchange(self, cycle: tuple[int, ...]) -> str:
        names = {each.label: each.name for each in self.classes}
        after = (*cycle[1:], cycle[0])
        as_it_is = cycle in exchanged_classes(np.array(self.confusion), self.labels)
        confusion = self.confusion if as_it_is else self.confusion_adapted or ()
        shares = [
            f"{row[to] / sum(row):.0%} of {names[label]} are predicted as {names[to]}"
            for label, to in zip(cycle, after, strict=True)
            for row in [confusion[self.labels.index(label)]]
        ]
        listed = format_list([names[label] for label in cycle])
        when = "" if as_it_is else " after normalization is re-estimated"
        return f"Classes {listed} seem to have exchanged names: {format_list(shares)}{when}."

    def _errors_left(self) -> list[str]:
        total, worst = sum(each.errors_left for each in self.classes), self.classes[0]
        if not worst.errors_left:
            return []
        half, named = 0, list[str]()
        for each in self.classes:
            named.append(each.name)
            half += each.errors_left
            if 2 * half >= total:
                break
        left = "errors that are left" if self.is_helped else "errors"
        others = "" if len(named) < 2 else f" {len(named)} of {len(self.classes)} classes make half of them."
        return [
            f"Of the {total:,} {left}, {worst.errors_left / total:.0%} are of class {worst.name}, most often taken for "
            f"{worst.taken_for}: samples or labels of it would help most.{others}"
        ]

    def _largest_angle(self) -> list[str]:
        known = [each for each in self.classes if each.angle_rad is not None]
        most = max(known, key=lambda each: each.angle_rad or 0.0)
        return [f"Class {most.name} turns most: {most.angle_rad:.3f} rad, where the mean is {self.index.value:.3f}."]

    def _display(self) -> Display:
        total = max(1, sum(each.errors_left for each in self.classes))
        largest = max(1, *(each.errors_left for each in self.classes))
        columns = ("class", "taken for", "samples", "angle [rad]", "errors", "left", "share of those left")
        rows = [
            (
                each.name,
                each.taken_for or "–",
                f"{each.samples:,}",
                NOT_MEASURED if each.angle_rad is None else f"{each.angle_rad:.3f}",
                f"{each.errors:,}",
                NOT_MEASURED if each.errors_adapted is None else f"{each.errors_adapted:,}",
                f"{'█' * round(_BAR * each.errors_left / largest)} {each.errors_left / total:4.0%}",
            )
            for each in self.classes
        ]
        title = f"Accuracy {self.accuracy:.3f}, RESQUE_dist {self.index.value:.3f} rad, class by class: {self.data}"
        return Display(title, columns, rows, self.findings, text_columns=2)


def class_report(model: nn.Module, data: LabeledDataset, index: DistributionIndex) -> ClassReport:
    """Tell which classes carry the index and the errors, before and after normalization is re-estimated.

    Args:
        model: Classifier; it is left as it was found.
        data: Shifted data with true labels.
        index: Their RESQUE_dist in radians.

    Raises:
        DataError: The data have no labels.
        ModelError: The model has no output for one of the classes.

    Example:
        >>> import resque
        >>> model, data = resque.load_model("resque.networks:small_cnn"), resque.load_data("digits@16px@test@100")
        >>> profile = resque.profile(model, data.batches())
        >>> report = class_report(model, data, resque.resque_dist(profile, profile))
        >>> len(report.classes), report.index.value, sum(map(sum, report.confusion))
        (10, 0.0, 100)
    """
    if not data.labeled:
        raise DataError(f"{data.name} has no labels: errors cannot be told class by class without them")
    check_data_fits_model(model, data)
    before, after = confusion_matrix(model, data), None
    if has_running_statistics(model):
        adapted = adapt_batchnorm(model, data.batches(device=device_of(model)))
        after = confusion_matrix(adapted, data)
    labels = tuple(data.classes)
    is_helped = after is not None and _right(after, labels) > _right(before, labels)
    cycles = [exchanged_classes(each, labels) for each in (before, after) if each is not None]
    names = dict(enumerate(data.class_names)) if data.class_names else {}
    rows = list[ClassErrors]()
    for place, label in enumerate(labels):
        last = (after if after is not None and is_helped else before)[place].copy()
        errors_left = int(last.sum() - last[label])
        last[label] = -1
        rows.append(
            ClassErrors(
                label=label,
                name=names.get(label, str(label)),
                samples=int(before[place].sum()),
                angle_rad=index.per_class.get(label),
                errors=int(before[place].sum() - before[place, label]),
                errors_adapted=None if after is None else int(after[place].sum() - after[place, label]),
                errors_left=errors_left,
                taken_for=names.get(int(last.argmax()), str(last.argmax())) if errors_left else "",
            )
        )
    return ClassReport(
        data=data.name,
        index=index,
        classes=tuple(sorted(rows, key=lambda each: (-each.errors_left, each.label))),
        labels=labels,
        confusion=_plain(before),
        confusion_adapted=None if after is None else _plain(after),
        exchanged=max(cycles, key=lambda found: sum(map(len, found))),
    )


def confusion_matrix(model: nn.Module, data: LabeledDataset) -> np.ndarray:
    """Count the ``(classes, outputs)`` samples of each class of the data by the class that a model predicts.

    Example:
        >>> import resque
        >>> data = resque.load_data("digits@16px@test@100")
        >>> confusion_matrix(resque.load_model("resque.networks:small_cnn"), data).sum(1).tolist() == [
        ...     int((data.labels == label).sum()) for label in data.classes
        ... ]
        True
    """

    def count(batch_size: int) -> np.ndarray:
        pairs = []
        with eval_mode(model):
            for inputs, labels in data.batches(batch_size, device_of(model)):
                outputs = forward(model, inputs)
                pairs.append(labels.to(outputs.device) * outputs.shape[1] + outputs.argmax(1))
        counts = torch.cat(pairs).bincount(minlength=(max(data.classes) + 1) * outputs.shape[1])
        matrix: np.ndarray = counts.reshape(-1, outputs.shape[1])[list(data.classes)].cpu().numpy()
        return matrix

    return with_batches_that_fit(count)


def exchanged_classes(confusion: np.ndarray, labels: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the cycles of labels of which most samples are predicted as the next one.

    More than half of the samples of each class must be predicted as one other class, beyond chance: the lower end of
    Wilson's interval (95 %) is above one half.

    Args:
        confusion: ``(classes, outputs)`` number of samples.
        labels: Label of each row, which is also the column of its own class.

    Example:
        >>> exchanged_classes(np.array([[2, 30, 1], [28, 3, 0], [0, 1, 30]]), (0, 1, 2))
        ((0, 1),)
    """
    following = {}
    for label, row in zip(labels, confusion, strict=True):
        other, n = int(row.argmax()), int(row.sum())
        if other != label and row[other] - n / 2 > _CONFIDENCE_Z * np.sqrt(n) / 2:
            following[label] = other
    cycles = set[tuple[int, ...]]()
    for start in following:
        path = [start]
        while (step := following.get(path[-1])) is not None and step not in path:
            path.append(step)
        if step == start:
            first = path.index(min(path))
            cycles.add((*path[first:], *path[:first]))
    return tuple(sorted(cycles))


def _right(confusion: np.ndarray, labels: tuple[int, ...]) -> int:
    """Return the number of samples that are predicted as their own class."""
    return int(confusion[range(len(labels)), labels].sum())


def _plain(counts: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(row) for row in counts.tolist())
