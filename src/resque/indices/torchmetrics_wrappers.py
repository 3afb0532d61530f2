"""Wrap the accumulators of both indices as torchmetrics metrics, for a custom loop and for distributed training.

States are sums, so any cut of the data over batches and processes gives the same result. Classes are declared, because
processes may see different ones. Needs the extra ``metrics`` (torchmetrics).
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError, ResqueError
from resque.indices.class_sums import ClassSums, ScratchBuffer, declared_labels
from resque.indices.half_assignment import HalfAssigner
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.indices.profile import Origin, Profile
from resque.indices.results import TaskIndex
from resque.indices.task import index_of_assignment
from resque.models.feature_extraction import reduce_features

try:
    from torchmetrics import Metric
except ImportError as error:  # pragma: no cover - the tests have it
    raise ResqueError("torchmetrics is not installed: pip install 'resque[metrics]'") from error

__all__ = ["ProfileMetric", "TaskMetric"]


class ProfileMetric(Metric):
    """Class sums of representations (eq. 1) as a metric whose value is a :class:`resque.Profile`.

    Args:
        classes: Labels that may occur, or their number.
        width: Length of a representation after reduction, which every process has to know before its first batch.
        origin: Where the representations come from. Only profiles of the same origin are comparable: pass that of the
            saved profile (``origin=saved.origin``).
        labels_from: ``"true"`` labels, or ``"pseudo"`` for the model's own predictions.
        **kwargs: Options of ``torchmetrics.Metric``.

    Example:
        >>> metric = ProfileMetric(classes=3, width=2)
        >>> metric.update(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 2]))
        >>> metric.update(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
        >>> profile = metric.compute()
        >>> profile.counts, profile.sums[0].tolist()
        ({0: 2, 2: 1}, [4.0, 0.0])
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor
    unknown: Tensor
    labels: Tensor

    def __init__(
        self,
        classes: Sequence[int] | int,
        width: int,
        origin: Origin | None = None,
        labels_from: str = "true",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"compute_with_cache": False} | kwargs)  # the caller may update the profile it gets
        if width < 1:
            raise RepresentationError(f"width {width}: expected the length of a representation, 1 or more")
        self.origin, self.labels_from = origin or Origin(), labels_from
        table = ClassSums.zeros(declared_labels(classes), width)
        self.register_buffer("labels", table.labels, persistent=False)
        for name in ("sums", "counts", "unknown"):
            self.add_state(name, getattr(table, name), dist_reduce_fx="sum")
        self._scratch = ScratchBuffer()
        self._assigner = HalfAssigner()

    def update(self, representations: Any, labels: Any) -> None:
        """Add a batch of representations ``(n, …)`` and labels ``(n,)``, without waiting for the device."""
        rows = reduce_features(as_tensor(representations), self.origin.reduction)
        target = as_labels(labels, len(rows))
        if rows.shape[1] != self.sums.shape[2]:
            raise RepresentationError(
                f"representations of width {rows.shape[1]}; the metric was made for width {self.sums.shape[2]}"
            )
        if len(rows):
            table = ClassSums(self.labels, self.sums, self.counts, self.unknown)
            table.add(rows, target, self._assigner.assign(rows), self._scratch, compensated=False)

    def compute(self) -> Profile:
        """Return the profile of all samples in all processes.

        Raises:
            RepresentationError: A representation was NaN or infinite, or a label was not declared.
        """
        table = ClassSums(self.labels, self.sums.clone(), self.counts.clone(), self.unknown.clone())
        profile = Profile.from_sums(table, self.origin, self.labels_from)
        profile.check()
        return profile

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._assigner = HalfAssigner()

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        super()._apply(_without_cast(fn), *args, **kwargs)
        return self


class TaskMetric(Metric):
    """RESQUE_task by assignment to the nearest class mean: the second of two streaming passes.

    Args:
        means: Profile of the same data from the first pass, merged over all processes.
        **kwargs: Options of ``torchmetrics.Metric``.

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
    invalid: Tensor
    labels: Tensor

    def __init__(self, means: Profile, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reduction = means.origin.reduction
        empty = NearestMeanAssignment.to_profile(means)
        self.register_buffer("labels", empty.labels, persistent=False)
        self._means = empty.means
        self.add_state("table", empty.table, dist_reduce_fx="sum")
        self.add_state("invalid", empty.invalid, dist_reduce_fx="sum")

    @property
    def _assignment(self) -> NearestMeanAssignment:
        return NearestMeanAssignment(self.labels, self._means, self.table, self.invalid)

    def update(self, representations: Any, labels: Any) -> None:
        """Assign a batch of representations ``(n, …)`` and labels ``(n,)``."""
        rows = reduce_features(as_tensor(representations), self.reduction)
        self._assignment.add(rows, as_labels(labels, len(rows)))

    def compute(self) -> Tensor:
        """Return the index over all samples in all processes as a float64 scalar; :meth:`index` has the options."""
        return torch.tensor(self.index().value, dtype=torch.float64)

    def index(self) -> TaskIndex:
        """Return the index with its options, over the samples of this process, or of all after a synchronization."""
        return index_of_assignment(self._assignment, self.reduction)


def _without_cast(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Keep of a module's move only the device, so that sums stay float64 within a half-precision model."""
    return lambda tensor: tensor.to(fn(tensor.new_empty(0)).device)
