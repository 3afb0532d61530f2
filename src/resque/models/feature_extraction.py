"""Extract the representations of named layers, and the logits, in one forward pass.

A hook is a function that PyTorch calls with the output of a layer each time the layer runs. A forward hook on each
named layer records that output; for the penultimate features, a pre-hook records the input of the head. The hooks
exist only inside a ``with`` block. There, gradients are off and the model is in evaluation mode; afterwards its hooks,
flags and buffers are as they were before.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resque.data.dataset import Inputs
from resque.errors import ModelError, RepresentationError
from resque.models.inference import eval_mode, forward
from resque.models.layers import PENULTIMATE, head

__all__ = ["REDUCTIONS", "capture_features", "reduce_features"]

REDUCTIONS = ("flatten", "mean", "token-mean")
"""Reductions of a representation to a vector."""
_CHUNK = 64


def reduce_features(representations: Tensor, reduction: str = "flatten", mask: Tensor | None = None) -> Tensor:
    """Reduce a batch of representations to one row per sample.

    Args:
        representations: ``(n, …)`` output of a layer.
        reduction: ``flatten``; ``mean`` over everything after the channel axis; ``token-mean`` over axis 1.
        mask: ``(n, tokens)`` attention mask, 0 for padding, which ``token-mean`` leaves out.

    Returns:
        ``(n, width)``. ``flatten`` keeps the type and returns a view where possible; means are float64.

    Raises:
        RepresentationError: The reduction is unknown or does not fit the shape, or the numbers are complex.

    Example:
        >>> import torch
        >>> reduce_features(torch.ones(2, 3, 4, 4), "mean").shape
        torch.Size([2, 3])
    """
    shape = tuple(representations.shape)
    if reduction not in REDUCTIONS:
        raise RepresentationError(f"unknown reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
    if representations.dtype.is_complex:
        raise RepresentationError("representations are complex; expected real numbers")
    if 0 in shape[1:]:
        raise RepresentationError(f"representations of shape {shape} have no width")
    if not shape or (reduction == "token-mean" and len(shape) != 3):
        raise RepresentationError(f"{reduction} cannot reduce shape {shape}: token-mean needs (n, tokens, width)")
    if reduction == "flatten" or (reduction == "mean" and len(shape) <= 2):
        return representations.reshape(shape[0], math.prod(shape[1:]))
    chunks = torch.split(representations, _CHUNK)  # only a part of the batch is in float64 at a time
    if reduction == "mean":
        return torch.cat([chunk.flatten(2).double().mean(2) for chunk in chunks])
    if mask is None or mask.shape != shape[:2]:
        return torch.cat([chunk.double().mean(1) for chunk in chunks])
    weights = torch.split((mask.double() / mask.sum(1, keepdim=True)).unsqueeze(1), _CHUNK)
    return torch.cat([(part @ chunk.double()).squeeze(1) for part, chunk in zip(weights, chunks, strict=True)])


@contextmanager
def capture_features(
    model: nn.Module, layer: str, reduction: str = "flatten", also: Sequence[tuple[str, str]] = ()
) -> Iterator[Callable[[Inputs], tuple[Tensor, ...]]]:
    """Yield a function that maps a batch to ``(representations, logits)``; it works inside the ``with`` block only.

    Representations have shape ``(n, width)`` and the values that the layer returned, even if a later layer changes
    them in place. If a layer runs several times in one pass, its last output counts.

    Args:
        model: Classifier, unchanged after the block.
        layer: Name of a module, or ``"penultimate"`` for the input of the head.
        reduction: See :func:`reduce_features`; ``token-mean`` leaves out what an ``attention_mask`` masks.
        also: Further pairs ``(layer, reduction)``, whose representations stand between the first and the logits.

    Raises:
        ModelError: In the pass, a layer does not run, or does not return one row per sample.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> with capture_features(net, "0") as extract:
        ...     representations, logits = extract(torch.ones(5, 4))
        >>> representations.shape, logits.shape
        (torch.Size([5, 8]), torch.Size([5, 3]))
    """
    recorders = [_OutputRecorder(*each) for each in ((layer, reduction), *also)]

    def extract(batch: Inputs) -> tuple[Tensor, ...]:
        for recorder in recorders:
            recorder.mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        logits = forward(model, batch)
        lost = [recorder.lost_output() for recorder in recorders]
        if any(lost):  # the model works in place on this batch, and did not on the first
            logits = forward(model, batch)
        return *(recorder.take(len(logits)) for recorder in recorders), logits

    with ExitStack() as hooks:  # removes those that are attached, also if the next cannot be
        for recorder in recorders:
            hooks.enter_context(recorder.attach(model))
        with eval_mode(model):
            yield extract


class _OutputRecorder:
    """Last output of one layer, reduced; a copy only for models that overwrite it.

    A copy of each output would cost as much as the sums over it. So the first batch is always copied, and compared
    with the output after the pass: a later layer that works in place changes the tensor's version, or at least its
    values. From then on outputs are kept by reference, or copied if they were changed.
    """

    def __init__(self, layer: str, reduction: str) -> None:
        self.mask: Tensor | None = None
        self._layer, self._reduction = layer, reduction
        self._rows: Tensor | None = None
        self._shared: tuple[Tensor, int] | None = None  # output whose memory the rows shared, and its version
        self._copies: bool | None = None  # None before the first batch

    def attach(self, model: nn.Module) -> RemovableHandle:
        if self._layer == PENULTIMATE:
            return head(model).register_forward_pre_hook(
                lambda module, inputs, named: self._record([*inputs, *named.values()]), with_kwargs=True
            )
        return model.get_submodule(self._layer).register_forward_hook(
            lambda module, inputs, output: self._record(output)
        )

    def _record(self, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(tensor, Tensor):
            raise ModelError(
                f"layer {self._layer!r} returns a {type(output).__name__}; expected a tensor: name another with --layer"
            )
        tensor = tensor.detach()
        rows = reduce_features(tensor, self._reduction, self.mask)
        shares_memory, has_version = rows.data_ptr() == tensor.data_ptr(), not tensor.is_inference()
        self._shared = (tensor, tensor._version) if shares_memory and has_version else None
        copy = shares_memory and (self._copies is not False or not has_version)
        self._rows = rows.clone() if copy else rows

    def lost_output(self) -> bool:
        """Return whether the model overwrote rows that were not copied; later batches are copied then."""
        if self._rows is None or self._shared is None:
            return False
        tensor, version = self._shared
        changed = tensor._version != version
        if self._copies is None:  # some models change values past the version counter
            changed = changed or not torch.equal(self._rows, tensor.reshape(self._rows.shape))
        lost = changed and self._copies is False
        if changed or self._copies is None:
            self._copies = changed
        return lost

    def take(self, n: int) -> Tensor:
        """Return the recorded rows of ``n`` samples and let go of them."""
        rows, self._rows, self._shared = self._rows, None, None
        if rows is None:
            raise ModelError(f"layer {self._layer!r} did not run in the forward pass: name another with --layer")
        if len(rows) != n:
            raise ModelError(f"layer {self._layer!r} gave {len(rows)} rows for {n} samples: name another with --layer")
        return rows
