"""Refit the dense head of a classifier in closed form, from sums that are streamed over its inputs.

How well a refit head does shows whether the features still tell the classes apart, and so what an update can reach
without learning new features. No sample is kept, and nothing waits for the device before the sums are read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resque.errors import RepresentationError

__all__ = ["PENALTIES", "LinearHead", "RefitSums"]

PENALTIES = tuple(10.0 ** (-6.0 + exponent / 2.0) for exponent in range(17))
"""Penalties to choose from, as factors of the mean eigenvalue of the features' products."""
_MAX_PRODUCT_BYTES = 2**30


@dataclass(frozen=True)
class LinearHead:
    """Linear map from features to one number per class.

    Attributes:
        weight: ``(classes, d)`` float64.
        bias: ``(classes,)`` float64.
        labels: ``(classes,)`` int64, label of each number.
        penalty: Ridge penalty of the weights.
    """

    weight: Tensor
    bias: Tensor
    labels: Tensor
    penalty: float

    def predict(self, rows: Tensor) -> Tensor:
        """Return the labels ``(n,)`` whose numbers are largest, on the device of the features ``(n, d)``.

        Example:
            >>> head = LinearHead(torch.eye(2).double(), torch.zeros(2).double(), torch.tensor([3, 8]), 0.0)
            >>> head.predict(torch.tensor([[0.0, 1.0]]))
            tensor([8])
        """
        values = rows.to(self.weight.device, torch.float64)
        chosen = (values @ self.weight.T + self.bias).argmax(1)
        return self.labels[chosen].to(rows.device)


class RefitSums:
    """Sums over features and labels from which ridge regression on one-hot labels, with an intercept, is solved.

    They take ``d²`` numbers. All sums are about the mean of the first batch, so that a mean far larger than the spread
    does not cost the digits of the spread.

    Args:
        classes: Labels that may occur.

    References:
        Hoerl and Kennard, Ridge regression, 1970; Golub, Heath and Wahba, Generalized cross-validation, 1979; Alain
        and Bengio, Understanding intermediate layers using linear classifier probes, 2016.

    Example:
        >>> sums = RefitSums([4, 7])
        >>> sums.update(torch.tensor([[0.0], [1.0], [4.0], [5.0]]), torch.tensor([4, 4, 7, 7]))
        >>> sums.head().predict(torch.tensor([[0.5], [4.5]])).tolist()
        [4, 7]
    """

    def __init__(self, classes: Sequence[int]) -> None:
        self._labels = torch.tensor(sorted(classes))
        self._reference: Tensor | None = None

    @staticmethod
    def fit_into_memory(width: int) -> bool:
        """Return whether the products of features of this width take at most 1 GiB.

        Example:
            >>> RefitSums.fit_into_memory(2048), RefitSums.fit_into_memory(25088)
            (True, False)
        """
        return 8 * width**2 <= _MAX_PRODUCT_BYTES

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Add a batch: ``(n, d)`` features, and ``(n,)`` labels that are all among the classes."""
        values = rows.detach().to("cpu" if rows.device.type == "mps" else rows.device, torch.float64)
        if self._reference is None:
            self._reference = self._start(values)
        centered = values - self._reference
        column = torch.searchsorted(self._labels, labels.to(values.device))
        self._counts.index_add_(0, column, torch.ones_like(column, dtype=torch.float64))
        self._sums.index_add_(0, column, centered)
        self._products.addmm_(centered.T, centered)

    def _start(self, values: Tensor) -> Tensor:
        """Create the sums on the device of the first batch; return its mean."""
        self._labels = self._labels.to(values.device)
        width, classes = values.shape[1], len(self._labels)
        self._counts = values.new_zeros(classes)
        self._sums = values.new_zeros(classes, width)
        self._products = values.new_zeros(width, width)
        return values.mean(0)

    def head(self, penalties: Sequence[float] = PENALTIES) -> LinearHead:
        """Solve ridge regression with the penalty of the smallest error by generalized cross-validation.

        With eigenvalues ``e`` of the products of the centered features, a penalty is a factor times the mean of those
        that n samples can have. The error is ``RSS / (n - df)²`` with ``df = 1 + Σ e / (e + p)`` degrees of freedom.

        Args:
            penalties: Factors to choose from.

        Raises:
            RepresentationError: No sample yet, or the features hold NaN or infinity.
        """
        if self._reference is None:
            raise RepresentationError("no features yet: update the sums with at least one batch")
        n, total = float(self._counts.sum()), self._sums.sum(0)
        share, offset = self._counts / n, total / n
        products = self._products - torch.outer(total, offset)
        if not bool(torch.isfinite(products).all()):
            raise RepresentationError("features hold NaN or infinity: check the model's weights and the data's range")
        targets = self._sums - share[:, None] * total  # sum of (y - share) (f - mean)^T
        eigenvalues, vectors = torch.linalg.eigh(products)
        kept = eigenvalues > eigenvalues.max().clamp_min(0.0) * len(eigenvalues) * torch.finfo(torch.float64).eps
        eigenvalues, vectors = eigenvalues[kept], vectors[:, kept]
        projected = targets @ vectors
        explained = (projected**2).sum(0) / eigenvalues
        misfit = (n * (share * (1.0 - share)).sum() - explained.sum()).clamp_min(0.0)  # whatever the penalty
        scale = float(eigenvalues.sum()) / min(n, len(products))

        def error(penalty: float) -> float:
            left = penalty / (eigenvalues + penalty)
            freedom = float(left.sum()) + (n - 1.0 - len(left))
            return float(misfit + (left**2 * explained).sum()) / freedom**2 if freedom > 0.0 else math.inf

        penalty = min((factor * scale for factor in penalties), key=error)
        weight = (projected / (eigenvalues + penalty)) @ vectors.T
        bias = share - weight @ (self._reference + offset)
        return LinearHead(weight, bias, self._labels, penalty)
