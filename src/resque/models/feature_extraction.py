"""One forward pass with a hook: representations and logits, and the model left as it was found.

Gradients are off, the model is in evaluation mode, every sample is passed once. Whatever happens, the
hook is removed and each module's ``training`` flag is put back. Inputs are a tensor, or a mapping of tensors as
transformers models take them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from resque._arrays import as_tensor
from resque.errors import ModelError, RepresentationError, ResqueError
from resque.models.layers import PENULTIMATE, head

REDUCTIONS = ("flatten", "mean", "token-mean")
Inputs = Tensor | Mapping[str, Tensor]
Observe = Callable[[Inputs], tuple[Tensor, Tensor]]
_CHUNK = 64


def reduce_features(representations: Tensor, reduction: str = "flatten", mask: Tensor | None = None) -> Tensor:
    """A batch of representations as one row a sample.

    Args:
        representations: ``(n, …)``.
        reduction: ``flatten``; ``mean`` over everything after the channel axis; ``token-mean`` over axis 1.
        mask: ``(n, tokens)``, 0 where a token only fills up: ``token-mean`` leaves those out.

    Returns:
        ``(n, width)``; for ``flatten`` of the same type (a view where it can be), for means float64.

    Example:
        >>> import torch
        >>> reduce_features(torch.ones(2, 3, 4, 4), "mean").shape
        torch.Size([2, 3])
    """
    if reduction not in REDUCTIONS:
        raise RepresentationError(f"unknown reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
    if representations.dtype.is_complex:
        raise RepresentationError("representations are complex; expected real numbers")
    if 0 in representations.shape[1:]:
        raise RepresentationError(f"representations of shape {tuple(representations.shape)} have no width")
    if representations.ndim < 1 or (reduction == "token-mean" and representations.ndim != 3):
        shape = tuple(representations.shape)
        raise RepresentationError(f"{reduction} cannot reduce shape {shape}: token-mean needs (n, tokens, width)")
    if reduction == "flatten" or (reduction == "mean" and representations.ndim <= 2):
        return representations.reshape(representations.shape[0], math.prod(representations.shape[1:]))
    chunks = torch.split(representations, _CHUNK)  # float64 for a part of the batch at a time
    if reduction == "mean":
        return torch.cat([chunk.flatten(2).double().mean(2) for chunk in chunks])
    if mask is None or mask.shape != representations.shape[:2]:
        return torch.cat([chunk.double().mean(1) for chunk in chunks])
    weights = torch.split((mask.double() / mask.sum(1, keepdim=True)).unsqueeze(1), _CHUNK)
    return torch.cat([(part @ chunk.double()).squeeze(1) for part, chunk in zip(weights, chunks, strict=True)])


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards flags and buffers of every module are as they were before."""
    training = {module: module.training for module in model.modules()}
    buffers = [(module._buffers, dict(module._buffers)) for module in model.modules() if module._buffers]
    values = [(buffer, buffer.clone()) for _, own in buffers for buffer in own.values() if buffer is not None]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, flag in training.items():
            module.training = flag
        for place, own in buffers:  # a forward pass may count, or average, in evaluation mode too
            place.update(own)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


class _Kept:
    """What a layer put out last: by reference where it stays intact, else as a copy.

    Copying every output would cost as much as summing it. A later layer that works in place changes the tensor's
    version, or at least its values, so the first batch, which is always copied, tells whether that is needed.
    """

    def __init__(self, reduction: str) -> None:
        self.rows: Tensor | None = None
        self.mask: Tensor | None = None
        self._reduction = reduction
        self._output: Tensor | None = None
        self._version = 0
        self._copies = self._unsure = True
        self._shared = False

    def keep(self, output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(tensor, Tensor):
            raise ModelError(
                f"the layer puts out a {type(output).__name__}, not a tensor: name another one with --layer"
            )
        rows = reduce_features(tensor.detach(), self._reduction, self.mask)
        if tensor.is_inference():  # such tensors have no version to go by
            self._output, self._copies = None, True
        else:
            self._output, self._version = tensor.detach(), tensor._version
        self._shared = rows.data_ptr() == tensor.data_ptr()
        self.rows = rows.clone() if self._copies and self._shared else rows

    def spoiled(self) -> bool:
        """Whether the kept rows were changed behind our back; from then on copies are kept."""
        changed = self._output is not None and self._output._version != self._version
        if self._unsure and self.rows is not None and self._output is not None and self._shared:
            changed = changed or not torch.equal(self.rows, self._output.reshape(self.rows.shape))
        lost = changed and not self._copies
        if self._unsure or changed:
            self._copies, self._unsure = changed, False
        return lost

    def take(self) -> Tensor | None:
        rows, self.rows, self._output = self.rows, None, None
        return rows


@contextmanager
def capture_features(model: nn.Module, layer: str, reduction: str = "flatten") -> Iterator[Observe]:
    """A function ``batch → (representations, logits)`` for one layer, valid inside the block.

    Representations are ``(n, width)``, as the layer put them out: what later layers do in place is not seen. The
    last call counts when a forward pass runs the layer more than once.

    Args:
        model: The classifier.
        layer: A module's name, or ``"penultimate"`` for the input of the head.
        reduction: See :func:`reduce`; padding that an ``attention_mask`` names is left out of ``token-mean``.
    """
    with capture_features_at(model, [(layer, reduction)]) as observe:

        def first(batch: Inputs) -> tuple[Tensor, Tensor]:
            (rows,), logits = observe(batch)
            return rows, logits

        yield first


@contextmanager
def capture_features_at(
    model: nn.Module, places: Sequence[tuple[str, str]]
) -> Iterator[Callable[[Inputs], tuple[list[Tensor], Tensor]]]:
    """A function ``batch → (representations of each place, logits)``: several layers in one forward pass.

    Args:
        model: The classifier.
        places: ``(layer, reduction)`` each, as :func:`observing` takes them.
    """
    kept = [_Kept(reduction) for _, reduction in places]
    handles = [_hook(model, layer, each) for (layer, _), each in zip(places, kept, strict=True)]

    def observe(batch: Inputs) -> tuple[list[Tensor], Tensor]:
        for each in kept:
            each.mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        logits = forward(model, batch)
        spoiled = [each.spoiled() for each in kept]  # each has to look
        if any(spoiled):  # a model that works in place on some batches and not on the first
            logits = forward(model, batch)
        return [_rows_of(each, layer, logits) for (layer, _), each in zip(places, kept, strict=True)], logits

    try:
        with eval_mode(model):
            yield observe
    finally:
        for handle in handles:
            handle.remove()


def _hook(model: nn.Module, layer: str, kept: _Kept) -> RemovableHandle:
    if layer == PENULTIMATE:
        return head(model).register_forward_pre_hook(
            lambda module, inputs, named: kept.keep([*inputs, *named.values()]), with_kwargs=True
        )
    return model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: kept.keep(output))


def _rows_of(kept: _Kept, layer: str, logits: Tensor) -> Tensor:
    rows = kept.take()
    if rows is None:
        raise ModelError(f"layer {layer!r} did not run in the forward pass: name another one with --layer")
    if rows.shape[0] != logits.shape[0]:
        came, expected = rows.shape[0], logits.shape[0]
        raise ModelError(f"layer {layer!r} gave {came} rows for {expected} samples: name another one")
    return rows


def forward(model: nn.Module, batch: Inputs) -> Tensor:
    """Logits ``(n, classes)`` of one batch.

    Inputs of a float type take the model's own. A model may return the logits, an object or a mapping that has them
    under ``logits``, or a tuple in which they come first.
    """
    n = len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)
    try:
        if isinstance(batch, Mapping):
            output = model(**{key: _as_taken(model, value) for key, value in batch.items()})
        else:
            output = model(_as_taken(model, batch))
    except (ResqueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own model may raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        if isinstance(batch, Mapping):
            raise ModelError(f"the model does not take the inputs {', '.join(batch)}: {reason}") from error
        shape = tuple(batch.shape[1:])
        if not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
            raise ModelError(f"the model failed on inputs of shape {shape}: {reason}") from error
        raise ModelError(
            f"the model does not take images of shape {shape} (channels, height, width): {reason}; "
            "make the data what the model was trained on (@32px, @gray, @rgb), or check the model's input"
        ) from error
    logits = _logits(output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returned {came}; expected logits of shape ({n}, classes)")
    return logits


def _as_taken(model: nn.Module, values: Tensor) -> Tensor:
    own = (p.dtype for p in model.parameters() if p.is_floating_point())
    return values.to(next(own, values.dtype)) if values.is_floating_point() else values


def _logits(output: Any) -> Any:
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def iterate_batches(
    loader: Iterable[Any], device: torch.device, labeled: bool = True
) -> Iterator[tuple[Inputs, Tensor | None]]:
    """Inputs on the model's device, with labels where they are.

    Args:
        loader: Yields pairs, or mappings with ``labels`` in them; where no labels are wanted also inputs alone.
        device: The model's.
        labeled: Whether labels are wanted; else they are None.
    """
    inputs: Any
    for batch in loader:
        if isinstance(batch, Mapping) and ("labels" in batch or not labeled):
            inputs = dict(batch)
            labels = inputs.pop("labels", None)
        elif isinstance(batch, tuple | list) and len(batch) == 2:
            inputs, labels = batch
        elif not labeled and isinstance(batch, Tensor | np.ndarray):
            inputs, labels = batch, None
        elif not labeled and isinstance(batch, tuple | list) and len(batch) == 1:
            inputs, labels = batch[0], None
        else:
            raise RepresentationError(
                f"a batch is a {type(batch).__name__}; expected a pair (inputs, labels), or a mapping with labels"
            )
        if isinstance(inputs, Mapping):
            moved: Inputs = {key: as_tensor(value).to(device, non_blocking=True) for key, value in inputs.items()}
        else:
            moved = as_tensor(inputs).to(device, non_blocking=True)
        yield moved, as_tensor(labels) if labeled else None
