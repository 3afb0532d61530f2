"""Sums of representations by class, in float64, in independent halves: what a stream of batches leaves behind.

Float32 and shorter types are summed in float64, which has 29 bits to spare for them. Float64 rows have none to lose, so
they are summed to twice their precision: each batch is cut into parts whose sums are exact (Rump, Ogita and Oishi 2008,
"Accurate floating-point summation"), and what rounding takes from the sums is kept in a second table.

The arithmetic that a profile and its torchmetrics form share. Nothing here waits for the device, so that on a GPU a
batch costs its kernels and no synchronisation; what is wrong with the data is noted and found when the sums are read.
"""

import math
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from resque.errors import RepresentationError

HALVES = 2  # G: sub-sums per class, for floor, bias correction and interval
_BITS = (1 << 31) - 1
_BLOCK = 8192
_LARGEST_EXPONENT = 1023


@dataclass
class ClassSums:
    """Sums and counts by half and class.

    Attributes:
        labels: ``(classes,)`` int64, rising.
        sums: ``(halves, classes, width)`` float64.
        counts: ``(halves, classes)`` int64.
        strangers: ``()`` int64, samples whose label is none of these; any at all spoil the sums.
        rest: As ``sums``, what rounding took from them; None before the first float64 rows.
    """

    labels: Tensor
    sums: Tensor
    counts: Tensor
    strangers: Tensor
    rest: Tensor | None = None

    @classmethod
    def zeros(cls, labels: Tensor, width: int, device: torch.device | str = "cpu") -> "ClassSums":
        """Nothing summed yet; on Apple's GPU, which has no float64, the sums stay on the CPU."""
        place = torch.device("cpu") if torch.device(device).type == "mps" else torch.device(device)
        with torch.inference_mode(False):  # so that they can go on outside of it
            sums = torch.zeros(HALVES, len(labels), width, dtype=torch.float64, device=place)
            counts = torch.zeros(HALVES, len(labels), dtype=torch.int64, device=place)
            return cls(labels.to(place), sums, counts, torch.zeros((), dtype=torch.int64, device=place))

    @property
    def width(self) -> int:
        """Length of a representation."""
        return self.sums.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        return self.sums.device

    def add(self, rows: Tensor, target: Tensor, half: Tensor, scratch: "ScratchBuffers", exactly: bool = True) -> None:
        """Add a batch.

        Args:
            rows: ``(n, width)`` of any float type.
            target: ``(n,)`` labels.
            half: ``(n,)`` halves, see :func:`half_of`.
            scratch: Room that is kept from batch to batch.
            exactly: Keep what rounding takes from sums of float64 rows, which takes a table more.
        """
        rows, target, half = (values.to(self.device, non_blocking=True) for values in (rows, target, half))
        classes = self.labels.shape[0]
        column = torch.searchsorted(self.labels, target).clamp_(max=classes - 1)
        self.strangers += (self.labels[column] != target).sum()
        cell = torch.add(column, half, alpha=classes)
        self.counts.view(-1).index_add_(0, cell, torch.ones_like(cell))
        table = self.sums.view(-1, self.width)
        if rows.dtype == table.dtype:
            self._add_exactly(cell, rows) if exactly else table.index_add_(0, cell, rows)
            return
        for place, part in scratch.parts(rows):
            table.index_add_(0, cell[place], part)

    def _add_exactly(self, cell: Tensor, rows: Tensor) -> None:
        """Add float64 rows: a part on a grid so coarse that its sums are exact, and what is left."""
        if not len(rows):
            return
        high = torch.frexp(rows.abs().max()).exponent + (2 * len(rows)).bit_length()
        bound = torch.where(high < _LARGEST_EXPONENT, torch.ldexp(torch.ones_like(rows[0, 0]), high), 0.0)
        coarse = (rows + bound) - bound
        made = torch.zeros(2, self.sums.shape[0] * self.sums.shape[1], self.width, dtype=rows.dtype, device=rows.device)
        made[0].index_add_(0, cell, coarse)
        made[1].index_add_(0, cell, rows - coarse)
        self._add_table(made[0].view_as(self.sums), made[1].view_as(self.sums))

    def _add_table(self, sums: Tensor, rest: Tensor | None) -> None:
        """Add another table, its rounding errors to the rest (Knuth's two-sum)."""
        if self.rest is None:
            with torch.inference_mode(False):
                self.rest = torch.zeros_like(self.sums)
        before = self.sums.clone()
        self.sums += sums
        added = self.sums - before
        self.rest += (before - (self.sums - added)) + (sums - added)
        if rest is not None:
            self.rest += rest

    def merge(self, other: "ClassSums") -> None:
        """Add the other's sums; its labels are all among these."""
        place = torch.searchsorted(self.labels, other.labels.to(self.device))
        if self.rest is None and other.rest is None:
            self.sums.index_add_(1, place, other.sums.to(self.device))
        else:
            spread = torch.zeros_like(self.sums)
            sums = spread.index_copy(1, place, other.sums.to(self.device))
            rest = None if other.rest is None else spread.index_copy(1, place, other.rest.to(self.device))
            self._add_table(sums, rest)
        self.counts.index_add_(1, place, other.counts.to(self.device))
        self.strangers += other.strangers.to(self.device)

    def with_labels(self, labels: Tensor) -> "ClassSums":
        """The same sums with room for more labels."""
        wider = ClassSums.zeros(torch.unique(torch.cat([self.labels.cpu(), labels.cpu()])), self.width, self.device)
        wider.merge(self)
        return wider

    @property
    def rounded(self) -> Tensor:
        """The sums with what rounding took from them, ``(halves, classes, width)``."""
        return self.sums if self.rest is None else self.sums + self.rest

    @property
    def whole(self) -> Tensor:
        """Both halves together, rounded once, ``(classes, width)``."""
        one, other = self.sums[0], self.sums[1]
        total = one + other
        if self.rest is None:
            return total
        added = total - one
        return total + (((one - (total - added)) + (other - added)) + self.rest.sum(0))

    def means(self) -> tuple[Tensor, Tensor]:
        """Labels with any samples, and the mean of each, ``(classes, width)``."""
        counts, means = self.counts.sum(0), self.whole
        seen = counts > 0
        if not bool(seen.all()):
            counts, means = counts[seen], means[seen]
        means /= counts[:, None]  # in place: a table is large
        return self.labels[seen], means

    @property
    def finite(self) -> bool:
        """Whether no sum is NaN or infinite; the largest one tells, without a second table."""
        return bool(torch.isfinite(torch.linalg.vector_norm(self.sums, math.inf))) if self.sums.numel() else True

    @property
    def sound(self) -> bool:
        """Whether shapes, labels, counts and sums are such as a stream of batches leaves."""
        shapes = self.labels.ndim == 1 and self.sums.ndim == 3 and self.sums.shape[:2] == self.counts.shape
        if not shapes or self.counts.shape != (HALVES, len(self.labels)):
            return False
        rising = bool((self.labels[1:] > self.labels[:-1]).all())
        return rising and bool((self.counts >= 0).all()) and self.finite


class ScratchBuffers:
    """Room to turn rows into float64, at most one batch's bytes, kept from batch to batch.

    Fresh memory for each batch would cost more than the sums themselves.
    """

    def __init__(self) -> None:
        self._room = torch.empty(0, dtype=torch.float64)

    def parts(self, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The rows in float64, part by part, with where each part stands; the next part overwrites the one before."""
        n = rows.shape[0]
        step = max(1, n * rows.element_size() // self._room.element_size())
        for start in range(0, n, step):
            part = rows[start : start + step]
            yield slice(start, start + step), self._room_for(part).copy_(part)

    def _room_for(self, part: Tensor) -> Tensor:
        if self._room.numel() < part.numel() or self._room.device != part.device:
            with torch.inference_mode(False):
                self._room = torch.empty(part.numel(), dtype=torch.float64, device=part.device)
        return self._room[: part.numel()].view(part.shape)


def assign_half(numbers: Tensor) -> Tensor:
    """0 or 1 for each sample's own number: mixed bits, so that no pattern in the order of the data shows in them.

    Args:
        numbers: ``(n,)`` int64.

    Example:
        >>> assign_half(torch.arange(8)).tolist()
        [0, 0, 1, 0, 0, 1, 1, 0]
    """
    mixed = (numbers & _BITS) ^ ((numbers >> 31) & _BITS)
    for factor in (0x045D9F3B, 0x119DE1F3):  # 31-bit products stay below 2**62: no overflow in int64
        mixed = ((mixed ^ (mixed >> 16)) * factor) & _BITS
    return (mixed ^ (mixed >> 15)) & 1


def assign_halves_from(start: int, n: int, device: torch.device) -> Tensor:
    """:func:`half_of` of the numbers ``start … start + n - 1``, without computing them anew for each batch.

    Example:
        >>> assign_halves_from(3, 5, torch.device("cpu")).tolist() == assign_half(torch.arange(3, 8)).tolist()
        True
    """
    first, last = start // _BLOCK, (start + max(n, 1) - 1) // _BLOCK
    blocks = [_block_of_halves(block, device) for block in range(first, last + 1)]
    return (blocks[0] if first == last else torch.cat(blocks))[start - first * _BLOCK :][:n]


@lru_cache(maxsize=8)
def _block_of_halves(block: int, device: torch.device) -> Tensor:
    return assign_half(torch.arange(block * _BLOCK, (block + 1) * _BLOCK, device=device))


def random_half_offset(rows: Tensor) -> Tensor:
    """0 or 1, drawn from the first row's bits: which half the first sample of a stream belongs to, ``()`` int64.

    Every stream numbers its samples from 0. Without this, many short ones put together would fill one half alone.
    """
    return assign_half(rows[0].double().view(torch.int64)).sum() & 1


def declared_labels(classes: Sequence[int] | int) -> Tensor:
    """The labels that may occur, rising: a list of them, or ``0 … number - 1``."""
    try:
        given = classes if isinstance(classes, Iterable) else range(operator.index(classes))
        labels = torch.tensor(sorted({operator.index(label) for label in given}))
    except (TypeError, RuntimeError, OverflowError) as error:
        raise RepresentationError(f"classes {classes!r}: expected integers below 2**63, or their number") from error
    if len(labels) == 0:
        raise RepresentationError("classes is empty: give the labels, or their number")
    return labels
