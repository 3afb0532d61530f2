"""The accumulators as torchmetrics metrics, for a user's own loop, on a device and under distributed training.

States are sums, so any cut of the data over batches and processes gives the whole. Classes are given, because processes
may see different ones. Needs the extra ``metrics`` (torchmetrics).
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError, ResqueError
from resque.indices.class_sums import (
    HALVES,
    ClassSums,
    ScratchBuffers,
    assign_halves_from,
    declared_labels,
    random_half_offset,
)
from resque.indices.clustering import NearestMeanAssignment
from resque.indices.profile import Origin, Profile
from resque.indices.results import TaskIndex
from resque.indices.task import index_of_assignment, nearest_mean_assignment
from resque.models.feature_extraction import reduce_features

try:
    from torchmetrics import Metric
except ImportError as error:  # pragma: no cover - the tests have it
    raise ResqueError("torchmetrics is not installed: pip install 'resque[metrics]'") from error


class ProfileMetric(Metric):
    """Class sums of representations (eq. 1) as a metric whose value is a :class:`resque.Profile`.

    Args:
        classes: The labels that may occur, or their number.
        width: Length of a representation after reduction; every process has to know it before it has seen any.
        origin: Where the representations come from; profiles are compared only when it agrees: that of the profile it
            is to be compared with (``origin=saved.origin``).
        labels_from: ``"true"`` or ``"pseudo"``.
        **kwargs: Of ``torchmetrics.Metric``.

    Example:
        >>> metric = ProfileMetric(classes=3, width=2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 2]))
        >>> metric.update(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
        >>> made = metric.compute()
        >>> made.counts, made.sums[0].tolist()
        ({0: 2, 2: 1}, [4.0, 0.0])
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor
    strangers: Tensor
    labels: Tensor

    def __init__(
        self,
        classes: Sequence[int] | int,
        width: int,
        origin: Origin | None = None,
        labels_from: str = "true",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"compute_with_cache": False} | kwargs)  # a profile can be updated: it is the caller's own
        if width < 1:
            raise RepresentationError(f"width {width}: expected the length of a representation, 1 or more")
        self.origin, self.labels_from = origin or Origin(), labels_from
        self.register_buffer("labels", declared_labels(classes), persistent=False)
        sums = torch.zeros(HALVES, len(self.labels), width, dtype=torch.float64)
        self.add_state("sums", sums, dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(HALVES, len(self.labels), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("strangers", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self._scratch = ScratchBuffers()
        self._number = 0
        self._flip: Tensor | None = None

    def update(self, representations: Any, labels: Any) -> None:
        """Add a batch: representations ``(n, …)`` and labels ``(n,)``; nothing here waits for the device."""
        rows = reduce_features(as_tensor(representations), self.origin.reduction)
        target = as_labels(labels, len(rows))
        if rows.shape[1] != self.sums.shape[2]:
            raise RepresentationError(
                f"representations of width {rows.shape[1]}; the metric was made for width {self.sums.shape[2]}"
            )
        if not len(rows):
            return
        if self._flip is None:
            self._flip = random_half_offset(rows)
        half = assign_halves_from(self._number, len(rows), rows.device) ^ self._flip.to(rows.device)
        table = ClassSums(self.labels, self.sums, self.counts, self.strangers)
        table.add(rows, target, half, self._scratch, exactly=False)
        self._number += len(rows)

    def compute(self) -> Profile:
        """The profile of everything seen, by all processes.

        Raises:
            RepresentationError: A representation was NaN or infinite, or a label was none of the classes.
        """
        table = ClassSums(self.labels, self.sums.clone(), self.counts.clone(), self.strangers.clone())
        made = Profile.of_sums(table, self.origin, self.labels_from)
        made.check()
        return made

    def reset(self) -> None:
        """Begin anew, as if nothing had been seen."""
        super().reset()
        self._number, self._flip = 0, None

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        super()._apply(_move_only(fn), *args, **kwargs)
        return self


class TaskMetric(Metric):
    """RESQUE_task by assignment to the nearest class mean: the second of two streaming passes.

    Args:
        means: The first pass: the profile of the same data, merged over all processes.
        **kwargs: Of ``torchmetrics.Metric``.

    Example:
        >>> rows, labels = torch.tensor([[0.0], [0.1], [5.0], [5.1]]), torch.tensor([3, 3, 8, 8])
        >>> metric = TaskMetric(Profile.from_arrays(rows, labels))
        >>> metric.update(rows[:2], labels[:2])
        >>> metric.update(rows[2:], labels[2:])
        >>> metric.compute()
        tensor(0., dtype=torch.float64)
    """

    full_state_update = False
    table: Tensor
    strangers: Tensor
    labels: Tensor

    def __init__(self, means: Profile, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = means.origin.reduction
        start = nearest_mean_assignment(means)
        self.register_buffer("labels", start.labels, persistent=False)
        self._means = start.means
        self.add_state("table", start.table, dist_reduce_fx="sum")
        self.add_state("strangers", start.strangers, dist_reduce_fx="sum")

    def update(self, representations: Any, labels: Any) -> None:
        """Assign a batch: representations ``(n, …)`` and labels ``(n,)``."""
        rows = reduce_features(as_tensor(representations), self.reduction)
        NearestMeanAssignment(self.labels, self._means, self.table, self.strangers).add(
            rows, as_labels(labels, len(rows))
        )

    def compute(self) -> Tensor:
        """The index as a float64 scalar, of everything seen by all processes; :meth:`index` says how it was made."""
        return torch.tensor(self.index().value, dtype=torch.float64)

    def index(self) -> TaskIndex:
        """The index of what this process holds (after a synchronisation: of everything) with all it depends on."""
        return index_of_assignment(
            NearestMeanAssignment(self.labels, self._means, self.table, self.strangers), self.reduction
        )


def _move_only(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What a module is moved by, without its cast to another type: sums of a half-precision model stay float64."""
    return lambda tensor: tensor.to(fn(tensor.new_empty(0)).device)
