"""One forward pass with a hook: representations and logits, and the model left as it was found.

Gradients are off, the model is in evaluation mode, every sample is passed once. Whatever happens, the
hook is removed and each module's ``training`` flag is put back.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque.errors import ModelError, RepresentationError, ResqueError
from resque.models import PENULTIMATE, head

REDUCTIONS = ("flatten", "mean", "token-mean")
Observe = Callable[[Tensor], tuple[Tensor, Tensor]]


def reduce(representations: Tensor, reduction: str = "flatten") -> Tensor:
    """A batch of representations as one row a sample.

    Args:
        representations: ``(n, …)``.
        reduction: ``flatten``; ``mean`` over everything after the channel axis; ``token-mean`` over axis 1.

    Returns:
        ``(n, width)``.

    Example:
        >>> import torch
        >>> reduce(torch.ones(2, 3, 4, 4), "mean").shape
        torch.Size([2, 3])
    """
    if reduction not in REDUCTIONS:
        raise RepresentationError(f"unknown reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
    if representations.ndim < 1 or (reduction == "token-mean" and representations.ndim != 3):
        shape = tuple(representations.shape)
        raise RepresentationError(f"{reduction} cannot reduce shape {shape}: token-mean needs (n, tokens, width)")
    if reduction == "mean" and representations.ndim > 2:
        return representations.flatten(2).double().mean(2)
    if reduction == "token-mean":
        return representations.double().mean(1)
    return representations.reshape(len(representations), math.prod(representations.shape[1:]))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module trains or not as it did before."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in training.items():
            module.training = flag


@contextmanager
def observing(model: nn.Module, layer: str, reduction: str = "flatten") -> Iterator[Observe]:
    """A function ``batch → (representations, logits)`` for one layer, valid inside the block.

    Representations are float64, ``(n, width)``; they are copied inside the hook, because a later layer may
    work in place. The last call counts when a forward pass runs the layer more than once.

    Args:
        model: The classifier.
        layer: A module's name, or ``"penultimate"`` for the input of the head.
        reduction: See :func:`reduce`.
    """
    caught: list[Tensor] = []

    def keep(output: Any) -> None:
        tensor = output[0] if isinstance(output, tuple | list) else output
        caught[:] = [reduce(tensor.detach(), reduction).to(torch.float64, copy=True)]

    if layer == PENULTIMATE:
        handle = head(model).register_forward_pre_hook(lambda module, inputs: keep(inputs[0]))
    else:
        handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: keep(output))

    def observe(batch: Tensor) -> tuple[Tensor, Tensor]:
        caught.clear()
        logits = forward(model, batch)
        if not caught:
            raise ModelError(f"layer {layer!r} did not run in the forward pass: name another one with --layer")
        return caught[0], logits

    try:
        with evaluating(model):
            yield observe
    finally:
        handle.remove()


def forward(model: nn.Module, batch: Tensor) -> Tensor:
    """Logits ``(n, classes)`` of one batch, also from models that return an object with ``.logits``."""
    try:
        output = model(batch)
    except (ResqueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a user's own model may raise anything
        reason = " ".join(str(error).split())[:160]
        shape = tuple(batch.shape[1:])
        raise ModelError(
            f"the model does not take images of shape {shape} (channels, height, width): "
            f"{type(error).__name__}: {reason}; "
            "resize the data to what the model was trained on, e.g. @32px, or check the model's input"
        ) from error
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(batch):
        came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returned {came}; expected logits of shape ({len(batch)}, classes)")
    return logits


def device_of(model: nn.Module) -> torch.device:
    """Where the model's parameters are; the CPU for a model without any."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def passed(loader: Iterable[Any], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``(inputs, labels)`` on the model's device, checked for shape."""
    for batch in loader:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise RepresentationError(f"a batch is a {type(batch).__name__}; expected a pair (inputs, labels)")
        inputs, labels = batch
        yield inputs.to(device, non_blocking=True), torch.as_tensor(labels).to(device, non_blocking=True)


def as_tensor(values: Any) -> Tensor:
    """An array of any layout, or a tensor, as a tensor without history."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))  # writable, native


def as_labels(values: Any, n: int) -> Tensor:
    """``n`` class numbers as int64; anything else is refused."""
    labels = as_tensor(values)
    if len(labels) == n == 0:
        return labels.to(torch.int64)
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise RepresentationError(f"labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.shape != (n,):
        raise RepresentationError(f"{n} representations with labels of shape {tuple(labels.shape)}; expected ({n},)")
    if labels.dtype == torch.uint64 and bool((labels.view(torch.int64) < 0).any()):
        raise RepresentationError("a label exceeds 2**63 - 1, the largest one that can be kept")
    return labels.to(torch.int64)
