"""What a retraining does to a model: accuracy, gradient norm, parameter change, and when it may stop.

Functions of tensors, arrays or numbers, and one running tally; nothing here trains.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque._arrays import as_tensor
from resque.errors import RepresentationError, SettingError


def gradient_norm(gradients: Iterable[Any]) -> float:
    """Global L2 norm of a gradient that is spread over several arrays.

    Args:
        gradients: Arrays or tensors of any shape, or a mapping of them; None entries (no gradient) are passed over.

    Returns:
        The square root of the sum of all squares, computed in float64; NaN if any of them is.

    Raises:
        RepresentationError: What is no array of real numbers.

    Example:
        >>> gradient_norm([[3.0], [[4.0]]])
        5.0
    """
    if isinstance(gradients, Mapping):
        gradients = gradients.values()
    norms = [_norm(_array(gradient)) for gradient in gradients if gradient is not None]
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def parameter_change(before: Any, after: Any) -> float:
    """Normalized parameter change over one interval (eq. 5), averaged over parameters.

    ``mean over parameters l of ||W_l(after) - W_l(before)||_2 / sqrt(|W_l|)``.

    Args:
        before: Name → parameter, a list of parameters or of pairs (name, parameter), or a model;
            never buffers such as running statistics.
        after: The same parameters later.

    Raises:
        RepresentationError: The two sides differ in names, number or shapes, or are empty.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 5.

    Example:
        >>> parameter_change({"w": [0.0, 0.0, 0.0, 0.0]}, {"w": [1.0, 1.0, 1.0, 1.0]})
        1.0
    """
    pairs = _pairs(before, after)
    changes = []
    for name, old, new in pairs:
        if old.shape != new.shape or old.size == 0:
            raise RepresentationError(
                f"parameter {name} has shape {old.shape} before and {new.shape} after; expected the same, not empty"
            )
        changes.append(_mean_change(old, new))
    return math.fsum(change / len(changes) for change in changes)


class CostTracker:
    """Gradient norm and parameter change of a run, kept on the model's device until they are asked for.

    Eq. 5 is summed over epochs; an epoch that has not ended counts with the distance covered so far. The
    gradient norm is the mean over an epoch's steps, summed over epochs: over a part of an epoch, its share.

    Args:
        parameters: What is trained: the paper's layers.
        steps_per_epoch: Optimizer steps in an epoch.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], steps_per_epoch: int) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._steps_per_epoch = steps_per_epoch
        self._sizes = torch.tensor([p.numel() for p in self._parameters], dtype=torch.float64).sqrt()
        self._before = self._snapshot()
        self._norm_sum = self._last_norm = torch.zeros((), dtype=torch.float64)
        self._last_sum = self._change = 0.0

    def after_backward(self) -> None:
        """Count one step's gradient; call it when the gradients are there."""
        norms = torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None])
        if not norms:
            raise SettingError("an optimizer step without a gradient: call backward() before step()")
        self._last_norm = torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)
        self._norm_sum = self._norm_sum.to(self._last_norm.device) + self._last_norm

    def end_epoch(self) -> None:
        """Close the interval of eq. 5."""
        self._change += self._distance()
        self._last_sum += float(self._last_norm)
        self._before = self._snapshot()

    def totals(self, within_epoch: bool) -> tuple[float, float, float]:
        """``(gradient norm, the same from last batches alone, parameter change)`` so far.

        Args:
            within_epoch: Whether steps were taken since the last :meth:`end_epoch`.
        """
        last_sum = self._last_sum + (float(self._last_norm) if within_epoch else 0.0)
        change = self._change + (self._distance() if within_epoch else 0.0)
        return float(self._norm_sum) / self._steps_per_epoch, last_sum, change

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` needs, at the end of an epoch; tensors and plain numbers."""
        return {
            "before": self._before,
            "norm_sum": self._norm_sum,
            "last_norm": self._last_norm,
            "last_sum": self._last_sum,
            "change": self._change,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self._before = [old.to(p.device) for old, p in zip(state["before"], self._parameters, strict=True)]
        self._norm_sum, self._last_norm = state["norm_sum"], state["last_norm"]
        self._last_sum, self._change = state["last_sum"], state["change"]

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    def _distance(self) -> float:
        moved = torch._foreach_sub([p.detach() for p in self._parameters], self._before)
        norms = torch.stack(torch._foreach_norm(moved)).double().cpu()
        return float((norms / self._sizes).mean())


def _array(values: Any) -> np.ndarray:
    tensor = as_tensor(values)
    if tensor.dtype.is_complex:
        raise RepresentationError("expected real numbers, got complex ones")
    found: np.ndarray = tensor.to("cpu", torch.float64).numpy()
    return found


def _mean_change(old: np.ndarray, new: np.ndarray) -> float:
    """Root mean square of the difference; it overflows only where the result would."""
    with np.errstate(over="ignore"):
        moved = new - old
    if np.isfinite(moved).all():
        largest = float(np.max(np.abs(moved)))
        return largest * float(np.sqrt(np.mean((moved / largest) ** 2))) if largest else 0.0
    if np.isfinite(old).all() and np.isfinite(new).all():
        return 2.0 * _mean_change(old / 2.0, new / 2.0)
    return _norm(moved) / math.sqrt(moved.size)


def _norm(values: np.ndarray) -> float:
    """L2 norm that neither overflows nor underflows where the result would not."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm((values / largest).ravel()))


def _named(values: Iterable[Any]) -> dict[Any, Any]:
    """A list of arrays, or of ``(name, array)`` as ``named_parameters()`` gives them, by name or position."""
    items = list(values.named_parameters() if isinstance(values, nn.Module) else values)
    named = bool(items) and all(isinstance(i, tuple) and len(i) == 2 and isinstance(i[0], str) for i in items)
    if named and len({name for name, _ in items}) < len(items):
        raise RepresentationError("a parameter's name comes twice: give each one of its own")
    return dict(items) if named else dict(enumerate(items))


def _pairs(before: Any, after: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    if isinstance(before, Mapping) != isinstance(after, Mapping):
        raise RepresentationError("one side is a mapping and the other a list: give both in the same form")
    if isinstance(before, Mapping):
        old, new = dict(before), dict(after)
    else:
        old, new = _named(before), _named(after)
    if not old or old.keys() != new.keys():
        missing = sorted(map(str, old.keys() ^ new.keys()))
        raise RepresentationError(
            f"expected the same parameters on both sides; differing: {missing or 'all (none given)'}"
        )
    return [(str(name), _array(old[name]), _array(new[name])) for name in old]
