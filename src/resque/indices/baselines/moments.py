"""Accumulate second moments of representations by class, in float64, batch by batch; no sample is kept.

Transferability scores and distances between datasets are computed from them. All sums are about the mean of the first
batch: a mean far larger than the spread would otherwise cost the digits of the spread.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError

__all__ = ["Moments"]

_Floats = NDArray[np.float64]


class Moments:
    """Counts, sums, squares and products of representations ``(n, d)``, by class.

    Properties by class hold only the classes that occurred, ``c`` of them, in the order of the labels.

    Args:
        classes: Labels that may occur; any integers.

    Attributes:
        labels: Labels that may occur, ascending.
        counts: ``(classes,)`` int64, number of samples.

    Example:
        >>> moments = Moments([4, 7])
        >>> moments.update([[1.0, 0.0], [3.0, 2.0]], [4, 4])
        >>> moments.update([[0.0, 1.0]], [7])
        >>> moments.counts.tolist(), moments.means[0].tolist(), moments.n
        ([2, 1], [2.0, 1.0], 3)
    """

    def __init__(self, classes: Sequence[int]) -> None:
        self.labels = np.unique(np.asarray(list(classes), dtype=np.int64))
        self.counts = np.zeros(len(self.labels), dtype=np.int64)
        self._reference: _Floats | None = None  # (d,), the point that all sums are about

    def update(self, representations: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            representations: ``(n, d)`` real numbers, after pooling: the products take ``classes × d × d`` numbers.
            labels: ``(n,)`` integers.

        Raises:
            RepresentationError: NaN or infinity, another width, or a label that is none of the classes.
        """
        rows = as_tensor(representations).detach().to("cpu", torch.float64)
        target = as_labels(labels, len(rows)).cpu().numpy()
        if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
            raise RepresentationError(f"representations of shape {tuple(rows.shape)}: expected (n, d) finite numbers")
        if not np.isin(target, self.labels).all():
            raise RepresentationError(f"a label is none of the classes {self.labels.tolist()}: name it among them")
        if self._reference is None:
            self._begin(rows.mean(0).numpy())
        if rows.shape[1] != self.width:
            raise RepresentationError(f"representations of width {rows.shape[1]} after some of width {self.width}")
        centered = rows - torch.from_numpy(self._about)
        squared_norms = centered.square().sum(1)
        self._fourth += float(squared_norms.square().sum())
        self._third += (squared_norms[:, None] * centered).sum(0).numpy()
        for index, label in enumerate(self.labels):
            own = centered[torch.from_numpy(target == label)]
            if len(own):
                self.counts[index] += len(own)
                self._sums[index] += own.sum(0).numpy()
                self._squares[index] += own.square().sum(0).numpy()
                self._products[index] += (own.T @ own).numpy()

    def _begin(self, reference: _Floats) -> None:
        """Set the point that all sums are about; g is a representation minus that point."""
        classes, width = len(self.labels), len(reference)
        self._reference = reference
        self._sums: _Floats = np.zeros((classes, width))
        self._squares: _Floats = np.zeros((classes, width))
        self._products: _Floats = np.zeros((classes, width, width))
        self._third: _Floats = np.zeros(width)  # sum of ||g||^2 g over all samples
        self._fourth = 0.0  # sum of ||g||^4

    @property
    def width(self) -> int:
        """Length ``d`` of a representation; 0 before the first batch."""
        return 0 if self._reference is None else len(self._reference)

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
        variances: _Floats = np.maximum(self._squares[seen] / n - (self._sums[seen] / n) ** 2, 0.0)
        return variances

    @property
    def shares(self) -> _Floats:
        """``(c,)`` share of each class in the samples."""
        return self.counts[self.counts > 0] / self.n

    @property
    def covariance(self) -> _Floats:
        """``(d, d)`` covariance of all samples, divided by n."""
        offset = self._offset
        covariance: _Floats = self._products.sum(0) / self.n - np.outer(offset, offset)
        return covariance

    @property
    def covariance_of_means(self) -> _Floats:
        """``(d, d)`` covariance of the class means, weighted by the shares of the classes."""
        centered = (self.means - self.mean) * np.sqrt(self.shares)[:, None]
        return centered.T @ centered

    def products_about(self, point: _Floats) -> _Floats:
        """Compute ``(c, d, d)``: the sum of ``(f - point)(f - point)^T`` over the samples f of each class."""
        step, seen = self._about - point, self.counts > 0
        cross = self._sums[seen][:, :, None] * step[None, None, :]
        return (
            self._products[seen]
            + cross
            + cross.transpose(0, 2, 1)
            + self.counts[seen, None, None] * np.outer(step, step)[None]
        )

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's weight of the identity in a well-conditioned covariance, in [0, 1].

        References:
            Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
        """
        offset, covariance = self._offset, self.covariance
        n, d, products, square = self.n, self.width, self._products.sum(0), float(offset @ offset)
        fourth = (  # sum of ||f - mean||^4
            self._fourth
            - 4.0 * float(self._third @ offset)
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
        if self._reference is None:
            raise RepresentationError("no representations yet: update the moments first")
        return self._reference

    @property
    def _offset(self) -> _Floats:
        """``(d,)`` mean of all samples about the reference point."""
        if self.n == 0:
            raise RepresentationError("no representations yet: update the moments first")
        offset: _Floats = self._sums.sum(0) / self.n
        return offset
