"""Second moments of representations by class: counts, sums, squares and products, streamed and merged in float64.

What transfer scores and distances between data sets are computed from; the samples are not kept. Sums run about the
mean of the first batch, because a mean far larger than the spread would cost the digits of the spread.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque.errors import RepresentationError


class Moments:
    """Counts, sums, squares and products of representations, by class.

    Args:
        classes: The labels that may come; any integers.

    Attributes:
        labels: The same, sorted.
        counts: ``(classes,)`` samples.

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
        self._at: np.ndarray | None = None  # what everything below is about, (d,)
        self._sums = self._squares = np.zeros((0, 0))  # (classes, d)
        self._products = np.zeros((0, 0, 0))  # (classes, d, d)
        self._fourth = 0.0  # sum of |g|^4
        self._third = np.zeros(0)  # sum of |g|^2 g

    def update(self, representations: Any, labels: Any) -> None:
        """Add a batch.

        Args:
            representations: ``(n, d)`` real numbers, after pooling: the products take ``classes × d × d`` numbers.
            labels: ``(n,)`` integers.

        Raises:
            RepresentationError: NaN or infinity, another width, or a label that is none of the classes.
        """
        rows = as_tensor(representations).detach().to("cpu", torch.float64)
        own = as_labels(labels, len(rows)).cpu().numpy()
        if rows.ndim != 2 or not bool(torch.isfinite(rows).all()):
            raise RepresentationError(f"representations of shape {tuple(rows.shape)}: expected (n, d) finite numbers")
        if not np.isin(own, self.labels).all():
            raise RepresentationError(f"a label is none of the classes {self.labels.tolist()}: name it among them")
        if self._at is None:
            self._begin(rows.mean(0).numpy())
        assert self._at is not None
        if rows.shape[1] != self.width:
            raise RepresentationError(f"representations of width {rows.shape[1]} after some of width {self.width}")
        shifted = rows - torch.from_numpy(self._at)
        norms = shifted.square().sum(1)
        self._fourth += float(norms.square().sum())
        self._third += (norms[:, None] * shifted).sum(0).numpy()
        for place, label in enumerate(self.labels):
            self._add(place, shifted[torch.from_numpy(own == label)])

    def _begin(self, at: np.ndarray) -> None:
        classes, width = len(self.labels), len(at)
        self._at = at
        self._sums, self._squares = np.zeros((2, classes, width))
        self._products, self._third = np.zeros((classes, width, width)), np.zeros(width)

    def _add(self, place: int, rows: Tensor) -> None:
        if len(rows):
            self.counts[place] += len(rows)
            self._sums[place] += rows.sum(0).numpy()
            self._squares[place] += rows.square().sum(0).numpy()
            self._products[place] += (rows.T @ rows).numpy()

    @property
    def width(self) -> int:
        """d; 0 before the first batch."""
        return 0 if self._at is None else len(self._at)

    @property
    def n(self) -> int:
        """Samples of all classes."""
        return int(self.counts.sum())

    @property
    def mean(self) -> np.ndarray:
        """``(d,)``, over all samples."""
        found: np.ndarray = self._about() + self._sums.sum(0) / self._some()
        return found

    @property
    def means(self) -> np.ndarray:
        """``(classes seen, d)``, in the order of the labels."""
        seen = self.counts > 0
        found: np.ndarray = self._about() + self._sums[seen] / self.counts[seen, None]
        return found

    @property
    def variances(self) -> np.ndarray:
        """``(classes seen, d)``, of each class about its own mean, over n."""
        seen = self.counts > 0
        n = self.counts[seen, None]
        found: np.ndarray = np.maximum(self._squares[seen] / n - (self._sums[seen] / n) ** 2, 0.0)
        return found

    @property
    def shares(self) -> np.ndarray:
        """``(classes seen,)``, of the samples."""
        found: np.ndarray = self.counts[self.counts > 0] / self._some()
        return found

    @property
    def covariance(self) -> np.ndarray:
        """``(d, d)``, of all samples, over n."""
        offset = self._sums.sum(0) / self._some()
        found: np.ndarray = self._products.sum(0) / self.n - np.outer(offset, offset)
        return found

    @property
    def covariance_of_means(self) -> np.ndarray:
        """``(d, d)``, of the class means, weighted by the classes' shares."""
        centred = (self.means - self.mean) * np.sqrt(self.shares)[:, None]
        found: np.ndarray = centred.T @ centred
        return found

    def products_about(self, point: np.ndarray) -> np.ndarray:
        """``(classes seen, d, d)``: sums of ``(f - point)(f - point)^T`` by class."""
        step, seen = self._about() - point, self.counts > 0
        cross = self._sums[seen][:, :, None] * step[None, None, :]
        found: np.ndarray = (
            self._products[seen]
            + cross
            + cross.transpose(0, 2, 1)
            + self.counts[seen, None, None] * np.outer(step, step)[None]
        )
        return found

    @property
    def shrinkage(self) -> float:
        """Ledoit and Wolf's share of the identity in a well-conditioned covariance, in [0, 1].

        References:
            Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004.
        """
        n, d, offset = self._some(), self.width, self._sums.sum(0) / self._some()
        products, square = self._products.sum(0), float(offset @ offset)
        fourth = (
            self._fourth
            - 4.0 * float(self._third @ offset)
            + 4.0 * float(offset @ products @ offset)
            + 2.0 * square * float(np.trace(products))
            - 3.0 * n * square**2
        )
        covariance = self.covariance
        level, total = float(np.trace(covariance)) / d, float((covariance**2).sum())
        distance = total / d - level**2
        noise = min((fourth / n - total) / (d * n), distance)
        return noise / distance if distance > 0.0 and noise > 0.0 else 0.0

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both; the classes may differ."""
        if self._at is None or other._at is None:
            return self if other._at is None else other
        if self.width != other.width:
            raise RepresentationError(f"moments of widths {self.width} and {other.width} have no sum")
        whole = Moments([*self.labels, *other.labels])
        whole._begin(self._at)
        for part in (self, other._moved(self._at)):
            places = np.searchsorted(whole.labels, part.labels)
            for name in ("counts", "_sums", "_squares", "_products"):
                getattr(whole, name)[places] += getattr(part, name)
            whole._fourth += part._fourth
            whole._third += part._third
        return whole

    def _moved(self, at: np.ndarray) -> "Moments":
        """The same about another point: g + step for g."""
        step, n = self._about() - at, self.counts[:, None]
        square, sums, products = float(step @ step), self._sums.sum(0), self._products.sum(0)
        trace, towards = float(np.trace(products)), float(sums @ step)
        made = Moments(self.labels.tolist())
        made._begin(at)
        made.counts = self.counts.copy()
        made._sums = self._sums + n * step
        made._squares = self._squares + 2.0 * self._sums * step + n * step**2
        cross = self._sums[:, :, None] * step[None, None, :]
        outer = np.outer(step, step)[None]
        made._products = self._products + cross + cross.transpose(0, 2, 1) + n[:, :, None] * outer
        made._third = (
            self._third + trace * step + 2.0 * products @ step + 2.0 * towards * step + square * (sums + self.n * step)
        )
        made._fourth = (
            self._fourth
            + 4.0 * float(self._third @ step)
            + 4.0 * float(step @ products @ step)
            + 2.0 * square * trace
            + 4.0 * square * towards
            + self.n * square**2
        )
        return made

    def _about(self) -> np.ndarray:
        if self._at is None:
            raise RepresentationError("no representations yet: update the moments first")
        return self._at

    def _some(self) -> int:
        if self.n == 0:
            raise RepresentationError("no representations yet: update the moments first")
        return self.n
