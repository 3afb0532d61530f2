"""Accumulate second moments of representations, in float64, batch by batch; no sample is kept.

They take ``d² + classes × d`` numbers, or ``classes × d²`` if the products are wanted by class. Transferability scores
and distances between datasets are computed from them. All sums are about the mean of the first batch: a mean far larger
than the spread would otherwise cost the digits of the spread. Sums are kept on the device of the representations, and
nothing waits for it before they are read.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resque._arrays import all_finite, as_labels, as_tensor
from resque.errors import RepresentationError

__all__ = ["Moments"]

_Floats = NDArray[np.float64]


class Moments:
    """Counts, sums and squares of representations ``(n, d)`` by class, and their products.

    Properties by class hold only the classes that occurred, ``c`` of them, in the order of the labels.

    Args:
        classes: Labels that may occur; any integers.
        by_class: Whether the products are kept by class, too, as TransRate needs them.

    Attributes:
        labels: Labels that may occur, ascending.
        by_class: Whether the products are kept by class.

    Example:
        >>> moments = Moments([4, 7])
        >>> moments.update([[1.0, 0.0], [3.0, 2.0]], [4, 4])
        >>> moments.update([[0.0, 1.0]], [7])
        >>> moments.counts.tolist(), moments.means[0].tolist(), moments.n
        ([2, 1], [2.0, 1.0], 3)
    """

    def __init__(self, classes: Sequence[int], by_class: bool = False) -> None:
        self.by_class = by_class
        self.labels = np.unique(np.asarray(list(classes), dtype=np.int64))
        if not len(self.labels):
            raise RepresentationError("no classes: expected the labels that may occur")
        self._declared = torch.from_numpy(self.labels)
        self._totals: _Totals | None = None

    def update(self, representations: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            representations: ``(n, d)`` real numbers, after pooling: the products take ``d × d`` numbers.
            labels: ``(n,)`` integers.

        Raises:
            RepresentationError: NaN or infinity, another width, or a label that is none of the classes. On another
                device than the CPU, bad values are reported when the sums are read.
        """
        rows = as_tensor(representations).detach()
        rows = rows.to("cpu" if rows.device.type == "mps" else rows.device, torch.float64)  # Apple's GPU has no float64
        target = as_labels(labels, len(rows)).to(rows.device)
        if rows.ndim != 2:
            raise RepresentationError(f"representations of shape {tuple(rows.shape)}: expected (n, d) finite numbers")
        if not len(rows):
            return
        if self._declared.device != rows.device:
            self._declared = self._declared.to(rows.device)
        column = torch.searchsorted(self._declared, target).clamp_(max=len(self.labels) - 1)
        finite, known = all_finite(rows), (self._declared[column] == target).all()
        if rows.device.type == "cpu":
            self._check(bool(finite), bool(known))
        if self._totals is None:
            self._totals = _Totals(rows.mean(0), len(self.labels), self.by_class)
        if rows.shape[1] != self.width:
            raise RepresentationError(f"representations of width {rows.shape[1]} after some of width {self.width}")
        self._totals.add(rows, column, finite, known)

    def _check(self, finite: bool, known: bool) -> None:
        if not finite:
            raise RepresentationError("representations hold NaN or infinity: expected (n, d) finite numbers")
        if not known:
            raise RepresentationError(f"a label is none of the classes {self.labels.tolist()}: name it among them")

    def _read(self) -> "_Totals":
        """Return the totals on the CPU, checked."""
        if self._totals is None:
            raise RepresentationError("no representations yet: update the moments first")
        if self._totals.reference.device.type != "cpu":
            self._totals.move_to_cpu()
            self._check(bool(self._totals.finite), bool(self._totals.known))
        return self._totals

    @property
    def counts(self) -> NDArray[np.int64]:
        """``(classes,)`` number of samples."""
        if self._totals is None:
            return np.zeros(len(self.labels), dtype=np.int64)
        counts: NDArray[np.int64] = self._read().counts.numpy()
        return counts

    @property
    def width(self) -> int:
        """Length ``d`` of a representation; 0 before the first batch."""
        return 0 if self._totals is None else len(self._totals.reference)

    @property
    def n(self) -> int:
        """Number of samples of all classes."""
        return int(self.counts.sum())

    @property
    def mean(self) -> _Floats:
        """``(d,)`` mean of all samples."""
        return self._offset + self._about

    @property
    def means(self) -> _Floats:
        """``(c, d)`` mean of each class."""
        seen = self.counts > 0
        return self._about + self._sums[seen] / self.counts[seen, None]

    @property
    def variances(self) -> _Floats:
        """``(c, d)`` variance of each class about its own mean, divided by the number of samples."""
        seen = self.counts > 0
        n = self.counts[seen, None]
        variances: _Floats = np.maximum(_array(self._read().squares)[seen] / n - (self._sums[seen] / n) ** 2, 0.0)
        return variances

    @property
    def shares(self) -> _Floats:
        """``(c,)`` share of each class in the samples."""
        return self.counts[self.counts > 0] / self.n

    @property
    def covariance(self) -> _Floats:
        """``(d, d)`` covariance of all samples, divided by n."""
        offset = self._offset
        covariance: _Floats = self._products / self.n - np.outer(offset, offset)
        return covariance

    @property
    def covariance_of_means(self) -> _Floats:
        """``(d, d)`` covariance of the class means, weighted by the shares of the classes."""
        centered = (self.means - self.mean) * np.sqrt(self.shares)[:, None]
        return centered.T @ centered

    def products_about(self, point: _Floats) -> _Floats:
        """Compute ``(d, d)``: the sum of ``(f - point)(f - point)^T`` over all samples f."""
        return _moved(self._products, self._sums.sum(0), self.n, self._about - point)

    def class_products_about(self, point: _Floats) -> Iterator[_Floats]:
        """Yield ``(d, d)`` for one class after another: :meth:`products_about` over its samples.

        Raises:
            RepresentationError: The products were not kept by class.
        """
        products = self._read().products
        if not self.by_class:
            raise RepresentationError(
                "products are not kept by class: create the moments with by_class=True, as TransRate needs them"
            )
        for index in np.flatnonzero(self.counts):
            own = _array(products[index])
            yield _moved(own, self._sums[index], int(self.counts[index]), self._about - point)

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's weight of the identity in a well-conditioned covariance, in [0, 1].

        References:
            Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
        """
        offset, covariance = self._offset, self.covariance
        n, d, products, square = self.n, self.width, self._products, float(offset @ offset)
        totals = self._read()
        fourth = (  # sum of ||f - mean||^4
            float(totals.fourth)
            - 4.0 * float(_array(totals.third) @ offset)
            + 4.0 * float(offset @ products @ offset)
            + 2.0 * square * float(np.trace(products))
            - 3.0 * n * square**2
        )
        mean_variance, total = float(np.trace(covariance)) / d, float((covariance**2).sum())
        distance = total / d - mean_variance**2
        noise = min((fourth / n - total) / (d * n), distance)
        return noise / distance if distance > 0.0 and noise > 0.0 else 0.0

    @property
    def _about(self) -> _Floats:
        """``(d,)`` reference point of all sums."""
        return _array(self._read().reference)

    @property
    def _sums(self) -> _Floats:
        return _array(self._read().sums)

    @property
    def _products(self) -> _Floats:
        """``(d, d)`` products of all samples about the reference point."""
        products: _Floats = _array(self._read().products).sum(0)
        return products

    @property
    def _offset(self) -> _Floats:
        """``(d,)`` mean of all samples about the reference point."""
        if self.n == 0:
            raise RepresentationError("no representations yet: update the moments first")
        offset: _Floats = self._sums.sum(0) / self.n
        return offset


class _Totals:
    """Sums over representations minus a reference point; g is such a difference.

    Attributes:
        reference: ``(d,)`` reference point.
        counts: ``(classes,)`` int64, number of samples.
        sums: ``(classes, d)`` sum of g.
        squares: ``(classes, d)`` sum of the squares of g.
        products: Sum of ``g g^T``: ``(classes, d, d)`` by class, or ``(1, d, d)`` over all samples.
        third: ``(d,)`` sum of ``||g||^2 g`` over all samples.
        fourth: ``()`` sum of ``||g||^4``.
        finite: ``()`` whether no representation held NaN or infinity.
        known: ``()`` whether every label was among the classes.
    """

    def __init__(self, reference: Tensor, classes: int, by_class: bool) -> None:
        width, zeros = len(reference), reference.new_zeros
        self.reference = reference
        self.counts = zeros(classes, dtype=torch.int64)
        self.sums, self.squares = zeros(classes, width), zeros(classes, width)
        self.products = zeros(classes if by_class else 1, width, width)
        self.third, self.fourth = zeros(width), zeros(())
        self.finite = self.known = torch.ones((), dtype=torch.bool, device=reference.device)

    def add(self, rows: Tensor, column: Tensor, finite: Tensor, known: Tensor) -> None:
        """Add rows ``(n, d)`` of the classes in the columns ``(n,)``, and whether they are valid."""
        centered = rows - self.reference
        squares = centered.square()
        squared_norms = squares.sum(1)
        self.fourth += squared_norms @ squared_norms
        self.third += squared_norms @ centered
        self.counts.index_add_(0, column, torch.ones_like(column))
        self.finite, self.known = self.finite & finite, self.known & known
        self.sums.index_add_(0, column, centered)
        self.squares.index_add_(0, column, squares)
        for index, own in self._groups(centered, column):
            self.products[index].addmm_(own.T, own)

    def _groups(self, centered: Tensor, column: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield all rows, or each class with its own. On a GPU others become zero: to pick rows would wait for it."""
        if len(self.products) == 1:
            yield 0, centered
            return
        for index in range(len(self.counts)):
            members = column == index
            if centered.device.type != "cpu":
                yield index, centered * members[:, None]
            elif len(own := centered[members]):
                yield index, own

    def move_to_cpu(self) -> None:
        """Move all sums to the CPU."""
        for name, values in vars(self).items():
            setattr(self, name, values.cpu())


def _array(values: Tensor) -> _Floats:
    array: _Floats = values.numpy()
    return array


def _moved(products: _Floats, sums: _Floats, n: int, step: _Floats) -> _Floats:
    """Return the products of n samples, whose differences g sum up to ``sums``, about a point ``step`` before."""
    cross = np.outer(sums, step)
    return products + cross + cross.T + n * np.outer(step, step)
