"""Training measures of the paper (gradient norm, parameter change), and the learning curve and cost made of them.

Nothing here trains. The measures are functions of arrays, and :class:`CostTracker` accumulates them during a run.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque._arrays import as_tensor
from resque.energy.grid import Grid
from resque.errors import RepresentationError, SettingError
from resque.ledger.records import Cost, LearningCurve

__all__ = ["CostTracker", "build_curve", "final_cost", "gradient_norm", "parameter_change"]


def gradient_norm(gradients: Iterable[Any]) -> float:
    """Compute the global L2 norm of a gradient that is spread over several arrays.

    Args:
        gradients: Arrays or tensors of any shape, or a mapping of them; None entries (no gradient) are ignored.

    Returns:
        Square root of the sum of all squares, computed in float64; NaN if any entry is NaN.

    Raises:
        RepresentationError: An entry is not an array of real numbers.

    Example:
        >>> gradient_norm([[3.0], [[4.0]]])
        5.0
    """
    if isinstance(gradients, Mapping):
        gradients = gradients.values()
    norms = [_norm(_real_array(gradient)) for gradient in gradients if gradient is not None]
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def parameter_change(before: Any, after: Any) -> float:
    """Compute the normalized parameter change over one interval (eq. 5), averaged over parameters.

    ``mean over parameters l of ||W_l(after) - W_l(before)||_2 / sqrt(|W_l|)``.

    Args:
        before: Mapping of names to parameters, list of parameters or of pairs (name, parameter), or model. Buffers
            such as running statistics are never included.
        after: The same parameters at the end of the interval, in the same form.

    Raises:
        RepresentationError: The two sides differ in names, number or shapes, or are empty.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 5.

    Example:
        >>> parameter_change({"w": [0.0, 0.0, 0.0, 0.0]}, {"w": [1.0, 1.0, 1.0, 1.0]})
        1.0
    """
    changes = []
    for name, old, new in _matched_parameters(before, after):
        if old.shape != new.shape or old.size == 0:
            raise RepresentationError(
                f"parameter {name} has shape {old.shape} before and {new.shape} after; expected the same, not empty"
            )
        changes.append(_root_mean_square_change(old, new))
    return math.fsum(change / len(changes) for change in changes)


class CostTracker:
    """Accumulates gradient norm and parameter change of a run, on the model's device.

    Parameter change (eq. 5) is summed over epochs; an unfinished epoch counts with the distance covered so far. The
    gradient norm is the mean over the steps of an epoch, summed over epochs; an unfinished epoch counts with its share.

    Args:
        parameters: Parameters of the model, the paper's layers; those that require no gradient are ignored.
        steps_per_epoch: Optimizer steps in an epoch.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> tracker = CostTracker(layer.parameters(), steps_per_epoch=1)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> tracker.after_backward()
        >>> tracker.end_epoch()
        >>> [round(total, 3) for total in tracker.totals(within_epoch=False)]
        [1.732, 1.732, 0.0]
    """

    def __init__(self, parameters: Iterable[nn.Parameter], steps_per_epoch: int) -> None:
        self._parameters = [p for p in parameters if p.requires_grad]
        self._steps_per_epoch = steps_per_epoch
        self._roots = torch.tensor([p.numel() for p in self._parameters], dtype=torch.float64).sqrt()
        self._before = self._snapshot()
        self._norm_sum = self._last_norm = torch.zeros((), dtype=torch.float64)
        self._last_sum = self._change = 0.0

    def after_backward(self) -> None:
        """Add the gradient of one step; to be called between backward pass and optimizer step.

        Raises:
            SettingError: No parameter has a gradient.
        """
        norms = torch._foreach_norm([p.grad for p in self._parameters if p.grad is not None])
        if not norms:
            raise SettingError("an optimizer step without a gradient: call backward() before step()")
        self._last_norm = torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)
        self._norm_sum = self._norm_sum.to(self._last_norm.device) + self._last_norm

    def end_epoch(self) -> None:
        """Close an interval of eq. 5."""
        self._change += self._distance()
        self._last_sum += float(self._last_norm)
        self._before = self._snapshot()

    def totals(self, within_epoch: bool) -> tuple[float, float, float]:
        """Return gradient norm, gradient norm of the last batch of each epoch alone, and parameter change so far.

        Args:
            within_epoch: Whether steps were taken since the last :meth:`end_epoch`.
        """
        last_sum = self._last_sum + (float(self._last_norm) if within_epoch else 0.0)
        change = self._change + (self._distance() if within_epoch else 0.0)
        return float(self._norm_sum) / self._steps_per_epoch, last_sum, change

    def state(self) -> dict[str, Any]:
        """Return the state after the steps so far, for :meth:`restore`: tensors and plain numbers."""
        return {
            "before": self._before,
            "norm_sum": self._norm_sum,
            "last_norm": self._last_norm,
            "last_sum": self._last_sum,
            "change": self._change,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        self._before = [old.to(p.device) for old, p in zip(state["before"], self._parameters, strict=True)]
        self._norm_sum, self._last_norm = state["norm_sum"], state["last_norm"]
        self._last_sum, self._change = state["last_sum"], state["change"]

    def _snapshot(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    def _distance(self) -> float:
        differences = torch._foreach_sub([p.detach() for p in self._parameters], self._before)
        norms = torch.stack(torch._foreach_norm(differences)).double().cpu()
        return float((norms / self._roots).mean())


def build_curve(evaluations: Sequence[Sequence[Any]], steps_per_epoch: int | None) -> LearningCurve:
    """Build a learning curve from its evaluations.

    Args:
        evaluations: One row per evaluation, at least one, in the order of the fields of :class:`LearningCurve`: steps,
            accuracy, loss, seconds, and the three totals of :meth:`CostTracker.totals`.
        steps_per_epoch: Optimizer steps in an epoch; None if unknown.

    Example:
        >>> build_curve([(0, 0.1, 2.3, 0.0, 0.0, 0.0, 0.0), (10, 0.9, 0.2, 1.5, 3.0, 3.0, 0.1)], 10).accuracy
        (0.1, 0.9)
    """
    fields: list[Any] = [*zip(*evaluations, strict=True), steps_per_epoch]
    return LearningCurve(*fields)


def final_cost(
    curve: LearningCurve, energy_kwh: float | None, grid: Grid | None, samples: int | None, flops: float | None = None
) -> Cost:
    """Compute the cost of a run at the last evaluation of its learning curve.

    Args:
        curve: Learning curve of the run.
        energy_kwh: Energy of the training steps; None if unknown.
        grid: Electricity grid; None leaves carbon unknown.
        samples: Training samples passed, counting repeats; None if unknown.
        flops: Floating point operations of the training steps; None if not counted.

    Example:
        >>> curve = build_curve([(10, 0.9, 0.2, 1.5, 3.0, 3.0, 0.1)], 10)
        >>> final_cost(curve, 0.002, Grid("FRA", 50.0, "given"), 320).carbon_kg
        0.0001
    """
    steps, per_epoch = curve.steps[-1], curve.steps_per_epoch
    return Cost(
        epochs=None if per_epoch is None else steps / per_epoch,
        steps=steps,
        samples=samples,
        gradient_norm=curve.gradient_norm[-1],
        gradient_norm_last_batch=curve.gradient_norm_last_batch[-1],
        parameter_change=curve.parameter_change[-1],
        wall_s=curve.wall_s[-1],
        energy_kwh=energy_kwh,
        carbon_kg=grid.carbon_kg(energy_kwh) if grid else None,
        flops=flops,
    )


def _real_array(values: Any) -> np.ndarray:
    tensor = as_tensor(values)
    if tensor.dtype.is_complex:
        raise RepresentationError("expected real numbers, got complex ones")
    array: np.ndarray = tensor.to("cpu", torch.float64).numpy()
    return array


def _root_mean_square_change(old: np.ndarray, new: np.ndarray) -> float:
    """Compute the root mean square of the difference; it overflows only where the result would."""
    with np.errstate(over="ignore"):
        change = new - old
    if np.isfinite(change).all():
        largest = float(np.max(np.abs(change)))
        return largest * float(np.sqrt(np.mean((change / largest) ** 2))) if largest else 0.0
    if np.isfinite(old).all() and np.isfinite(new).all():
        return 2.0 * _root_mean_square_change(old / 2.0, new / 2.0)
    return _norm(change) / math.sqrt(change.size)


def _norm(values: np.ndarray) -> float:
    """Compute the L2 norm; it neither overflows nor underflows where the result would not."""
    largest = float(np.max(np.abs(values), initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * float(np.linalg.norm((values / largest).ravel()))


def _by_name(values: Any) -> dict[Any, Any]:
    """Return parameters by name, or by position in a list without names."""
    if isinstance(values, Mapping):
        return dict(values)
    items = list(values.named_parameters() if isinstance(values, nn.Module) else values)
    named = bool(items) and all(isinstance(i, tuple) and len(i) == 2 and isinstance(i[0], str) for i in items)
    if named and len({name for name, _ in items}) < len(items):
        raise RepresentationError("a parameter's name comes twice: give each one of its own")
    return dict(items) if named else dict(enumerate(items))


def _matched_parameters(before: Any, after: Any) -> list[tuple[str, np.ndarray, np.ndarray]]:
    if isinstance(before, Mapping) != isinstance(after, Mapping):
        raise RepresentationError("one side is a mapping and the other a list: give both in the same form")
    old, new = _by_name(before), _by_name(after)
    if not old or old.keys() != new.keys():
        different = sorted(map(str, old.keys() ^ new.keys()))
        raise RepresentationError(
            f"expected the same parameters on both sides; differing: {different or 'all (none given)'}"
        )
    return [(str(name), _real_array(old[name]), _real_array(new[name])) for name in old]
