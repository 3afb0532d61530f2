"""Sum representations by class and half, in float64, without waiting for the device.

This is the arithmetic that :class:`resque.Profile` and :class:`resque.ProfileMetric` share. On a GPU a batch costs its
kernels and no synchronization. Invalid data are noted, and found when the sums are read.

Float32 and shorter rows are summed in plain float64, which has 29 bits to spare for them. Float64 rows have none to
spare, so they are summed to about twice their precision. Each batch is cut into parts whose sums are exact (Rump,
Ogita and Oishi, Accurate floating-point summation, 2008). A second table keeps the rounding errors. Without it a
class whose samples cancel exactly would keep a direction made of rounding errors instead of being refused.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resque._arrays import all_finite
from resque._sizes import MOST_CLASSES, is_number_of_classes
from resque.errors import RepresentationError

__all__ = ["HALVES", "ClassSums", "ScratchBuffer", "declared_labels"]

HALVES = 2  # G: sub-sums per class, for noise floor, bias correction and interval
_LARGEST_EXPONENT = 1023


@dataclass
class ClassSums:
    """Sums of representations (``V_l`` of eq. 1) and sample counts, by half and class.

    Attributes:
        labels: ``(classes,)`` int64, ascending.
        sums: ``(2, classes, width)`` float64.
        counts: ``(2, classes)`` int64, number of samples.
        unknown: ``()`` int64, number of samples whose label is not in ``labels``; any such sample spoils the sums.
        rounding: ``(2, classes, width)`` float64, rounding errors of ``sums``; None before the first float64 rows.

    Example:
        >>> table = ClassSums.zeros(torch.tensor([4, 7]), width=2)
        >>> table.add(torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([7, 7]), torch.tensor([0, 1]))
        >>> table.totals.tolist(), table.counts.tolist()
        ([[0.0, 0.0], [4.0, 2.0]], [[0, 1], [0, 1]])
    """

    labels: Tensor
    sums: Tensor
    counts: Tensor
    unknown: Tensor
    rounding: Tensor | None = None

    @classmethod
    def zeros(cls, labels: Tensor, width: int, device: torch.device | str = "cpu") -> "ClassSums":
        """Create an empty table; for Apple's GPU, which has no float64, on the CPU."""
        place = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
        with torch.inference_mode(False):  # so that they can be updated outside of it
            sums = torch.zeros(HALVES, len(labels), width, dtype=torch.float64, device=place)
            counts = torch.zeros(HALVES, len(labels), dtype=torch.int64, device=place)
            return cls(labels.to(place), sums, counts, torch.zeros((), dtype=torch.int64, device=place))

    @property
    def width(self) -> int:
        """Length of a representation."""
        return self.sums.shape[2]

    @property
    def device(self) -> torch.device:
        """Device of the sums."""
        return self.sums.device

    def add(
        self,
        rows: Tensor,
        labels: Tensor,
        half: Tensor,
        scratch: "ScratchBuffer | None" = None,
        compensated: bool = True,
    ) -> None:
        """Add a batch.

        Args:
            rows: ``(n, width)`` of any float type.
            labels: ``(n,)`` int64.
            half: ``(n,)`` int64, half of each sample, 0 or 1.
            scratch: Buffer that is reused from batch to batch.
            compensated: Keep the rounding errors of sums of float64 rows, which takes a second table.
        """
        rows, labels, half = (values.to(self.device, non_blocking=True) for values in (rows, labels, half))
        classes = self.labels.shape[0]
        column = torch.searchsorted(self.labels, labels).clamp_(max=classes - 1)
        self.unknown += (self.labels[column] != labels).sum()
        cell = torch.add(column, half, alpha=classes)
        self.counts.view(-1).index_add_(0, cell, torch.ones_like(cell))
        table = self.sums.view(-1, self.width)
        if rows.dtype == table.dtype:
            self._add_compensated(cell, rows) if compensated else table.index_add_(0, cell, rows)
            return
        for part, values in (scratch or ScratchBuffer()).parts(rows):
            table.index_add_(0, cell[part], values)

    def _add_compensated(self, cell: Tensor, rows: Tensor) -> None:
        """Add float64 rows, one at least, as a part on a grid so coarse that its sums are exact, and the remainder."""
        high = torch.frexp(rows.abs().max()).exponent + (2 * len(rows)).bit_length()
        bound = torch.where(high < _LARGEST_EXPONENT, torch.ldexp(torch.ones_like(rows[0, 0]), high), 0.0)
        coarse = (rows + bound) - bound
        parts = torch.zeros(2, *self.sums.view(-1, self.width).shape, dtype=rows.dtype, device=rows.device)
        parts[0].index_add_(0, cell, coarse)
        parts[1].index_add_(0, cell, rows - coarse)
        self._add_table(parts[0].view_as(self.sums), parts[1].view_as(self.sums))

    def _add_table(self, sums: Tensor, rounding: Tensor | None) -> None:
        """Add another table, and the rounding errors of that to :attr:`rounding` (Knuth's two-sum)."""
        if self.rounding is None:
            with torch.inference_mode(False):
                self.rounding = torch.zeros_like(self.sums)
        before = self.sums.clone()
        self.sums += sums
        added = self.sums - before
        self.rounding += (before - (self.sums - added)) + (sums - added)
        if rounding is not None:
            self.rounding += rounding

    def merge(self, other: "ClassSums") -> None:
        """Add the sums of another table, whose labels are all among these."""
        columns = torch.searchsorted(self.labels, other.labels.to(self.device))
        if self.rounding is None and other.rounding is None:
            self.sums.index_add_(1, columns, other.sums.to(self.device))
        else:
            empty = torch.zeros_like(self.sums)
            sums = empty.index_copy(1, columns, other.sums.to(self.device))
            rounding = None if other.rounding is None else empty.index_copy(1, columns, other.rounding.to(self.device))
            self._add_table(sums, rounding)
        self.counts.index_add_(1, columns, other.counts.to(self.device))
        self.unknown += other.unknown.to(self.device)

    def with_labels(self, labels: Tensor) -> "ClassSums":
        """Return a copy of the sums with room for more labels."""
        wider = ClassSums.zeros(torch.unique(torch.cat([self.labels.cpu(), labels.cpu()])), self.width, self.device)
        wider.merge(self)
        return wider

    def with_swapped_halves(self) -> "ClassSums":
        """Return the same sums with the halves exchanged."""
        rounding = None if self.rounding is None else self.rounding.flip(0)
        return ClassSums(self.labels, self.sums.flip(0), self.counts.flip(0), self.unknown, rounding)

    @property
    def half_sums(self) -> Tensor:
        """Sums of both halves with their rounding errors, ``(2, classes, width)``."""
        return self.sums if self.rounding is None else self.sums + self.rounding

    @property
    def totals(self) -> Tensor:
        """Sums over both halves, rounded once, ``(classes, width)``."""
        first, second = self.sums[0], self.sums[1]
        total = first + second
        if self.rounding is None:
            return total
        added = total - first
        return total + (((first - (total - added)) + (second - added)) + self.rounding.sum(0))

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the labels with samples ``(classes,)``, and the mean of each ``(classes, width)``."""
        counts, means = self.counts.sum(0), self.totals
        seen = counts > 0
        if not bool(seen.all()):
            counts, means = counts[seen], means[seen]
        means /= counts[:, None]  # in place: a table is large
        return self.labels[seen], means

    @property
    def finite(self) -> bool:
        """Whether no sum is NaN or infinite."""
        return bool(all_finite(self.sums))


class ScratchBuffer:
    """Memory to convert rows to float64, at most as many bytes as one batch, reused from batch to batch.

    Fresh memory for each batch would cost more than the sums themselves.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.float64)

    def parts(self, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows in float64, part by part, each with its position; a part overwrites the one before."""
        n = rows.shape[0]
        step = max(1, n * rows.element_size() // self._memory.element_size())
        for start in range(0, n, step):
            part = rows[start : start + step]
            yield slice(start, start + step), self._memory_for(part).copy_(part)

    def _memory_for(self, part: Tensor) -> Tensor:
        if self._memory.numel() < part.numel() or self._memory.device != part.device:
            with torch.inference_mode(False):
                self._memory = torch.empty(part.numel(), dtype=torch.float64, device=part.device)
        return self._memory[: part.numel()].view(part.shape)


def declared_labels(classes: Sequence[int] | int) -> Tensor:
    """Return the labels that may occur, ascending: a list of them, or ``0 … number - 1``.

    Raises:
        RepresentationError: No labels, or labels that are not integers below 2**63.

    Example:
        >>> declared_labels(3).tolist(), declared_labels([7, -1]).tolist()
        ([0, 1, 2], [-1, 7])
    """
    try:
        given = classes if isinstance(classes, Iterable) else range(operator.index(classes))
        if not isinstance(classes, Iterable) and not is_number_of_classes(classes):
            raise RepresentationError(
                f"classes={str(classes)[:40]}: expected 1 to {MOST_CLASSES:,}, or a list of labels"
            )
        labels = torch.tensor(sorted({operator.index(label) for label in given}))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise RepresentationError(f"classes {classes!r}: expected integers below 2**63, or their number") from error
    if len(labels) == 0:
        raise RepresentationError("classes is empty: give the labels, or their number")
    return labels
