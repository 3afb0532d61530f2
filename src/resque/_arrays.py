"""Convert representations and labels of any array library to tensors."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.errors import RepresentationError

__all__ = ["all_finite", "as_labels", "as_tensor"]


def as_tensor(values: Any, name: str = "representations") -> Tensor:
    """Return a tensor, array, or list of numbers or tensors as a dense tensor without gradient.

    Args:
        values: Values to convert.
        name: Name of the values in error messages.

    Raises:
        RepresentationError: If the values are no numbers, or rows differ in length.

    Example:
        >>> as_tensor([[1.0, 2.0], [3.0, 4.0]]).shape
        torch.Size([2, 2])
    """
    if isinstance(values, Tensor):
        return values.detach() if values.layout == torch.strided else values.detach().to_dense()
    held = values if isinstance(values, list | tuple) else [values]
    if any(isinstance(each, np.ma.MaskedArray) and np.ma.is_masked(each) for each in held):
        raise RepresentationError(f"{name}: some values are masked; expected all: leave these samples out")
    try:
        if isinstance(values, list | tuple) and values and all(isinstance(value, Tensor) for value in values):
            return torch.stack([value.detach() for value in values])
        array = np.asarray(values)
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))  # writable, native
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise RepresentationError(f"{name}: expected numbers in rows of one length, below 2**63: {reason}") from error


def as_labels(values: Any, n: int) -> Tensor:
    """Return ``n`` class numbers as an int64 tensor.

    Raises:
        RepresentationError: If the values are no ``n`` integers, or exceed int64.

    Example:
        >>> as_labels([2, 0, 1], 3)
        tensor([2, 0, 1])
    """
    labels = as_tensor(values, "labels")
    if labels.shape[:1] == (n,) == (0,):
        return labels.to(torch.int64)
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise RepresentationError(f"labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.shape != (n,):
        raise RepresentationError(
            f"labels have shape {tuple(labels.shape)}; expected ({n},), one a sample "
            "(one-hot: argmax(1); a column: ravel())"
        )
    if labels.dtype == torch.uint64 and bool((labels.view(torch.int64) < 0).any()):
        raise RepresentationError("a label exceeds 2**63 - 1, the largest one that can be kept")
    return labels.to(torch.int64)


def all_finite(values: Tensor) -> Tensor:
    """Return whether no number is NaN or infinite, ``()``, without waiting for the device.

    Least and greatest value show it in an eighth of the time of :func:`torch.isfinite` on all values.

    Example:
        >>> bool(all_finite(torch.tensor([1.0, torch.nan]))), bool(all_finite(torch.zeros(0)))
        (False, True)
    """
    if not values.is_floating_point() or not values.numel():
        return torch.isfinite(values).all()
    return torch.isfinite(torch.stack([*torch.aminmax(values)])).all()
