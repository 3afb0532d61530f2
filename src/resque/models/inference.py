"""Run a classifier on batches: evaluation mode that leaves no trace, inputs on its device, logits in one form.

Inputs are one tensor, or a mapping of tensors as transformers models take them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resque._arrays import as_tensor
from resque._format import describe_error
from resque.data.dataset import Inputs
from resque.errors import DeviceMemoryError, ModelError, RepresentationError, ResqueError

__all__ = ["count_samples", "device_of", "eval_mode", "forward", "is_out_of_memory", "iterate_batches"]


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters; the CPU for a model without parameters.

    Example:
        >>> device_of(nn.Linear(2, 2))
        device(type='cpu')
    """
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def count_samples(batch: Inputs) -> int:
    """Return the number of samples of a batch.

    Example:
        >>> count_samples({"input_ids": torch.ones(4, 7)})
        4
    """
    return len(next(iter(batch.values()))) if isinstance(batch, Mapping) else len(batch)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Switch a model to evaluation mode and gradients off; restore flags and buffers at the end of the block.

    Buffers are restored too, because a forward pass may count or average in evaluation mode.

    Example:
        >>> net = nn.Sequential(nn.Dropout()).train()
        >>> with eval_mode(net):
        ...     net[0].training
        False
        >>> net[0].training
        True
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag
        for owner, name, buffer, _ in buffers:
            owner[name] = buffer  # the pass may have put another tensor in its place
        _restore([(buffer, value) for *_, buffer, value in buffers if buffer is not None and value is not None])


def _restore(buffers: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy values back to the buffers that differ from them; the device is waited for once, not for each buffer."""
    if not buffers:
        return
    with torch.no_grad():
        device = buffers[0][0].device
        differs = torch.stack([(buffer != value).any().to(device) for buffer, value in buffers]).tolist()
        for (buffer, value), changed in zip(buffers, differs, strict=True):
            if changed:
                buffer.copy_(value)


def forward(model: nn.Module, batch: Inputs) -> Tensor:
    """Compute the logits ``(n, classes)`` of one batch.

    Args:
        model: Classifier that returns logits, an object or mapping with ``logits``, or a tuple that begins with them.
        batch: ``(n, …)`` tensor, or mapping of such tensors; floating-point inputs take the model's own precision.

    Raises:
        ModelError: The model fails on these inputs, or does not return one row of logits per sample.

    Example:
        >>> forward(nn.Linear(3, 2), torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """
    try:
        if isinstance(batch, Mapping):
            output = model(**{key: _in_model_precision(model, value) for key, value in batch.items()})
        else:
            output = model(_in_model_precision(model, batch))
    except (ResqueError, MemoryError):
        raise
    except Exception as error:  # a user's own model may raise anything
        if is_out_of_memory(error):
            raise DeviceMemoryError.for_batch(count_samples(batch)) from error
        raise ModelError(_describe_failure(batch, error)) from error
    logits = _find_logits(output)
    n = count_samples(batch)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n:
        actual = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"the model returned {actual}; expected logits of shape ({n}, classes)")
    return logits


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a device, or PyTorch's allocator on the CPU, had too little memory.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory")), is_out_of_memory(ValueError("no"))
        (True, False)
    """
    text = describe_error(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def _in_model_precision(model: nn.Module, values: Tensor) -> Tensor:
    precisions = (p.dtype for p in model.parameters() if p.is_floating_point())
    return values.to(next(precisions, values.dtype)) if values.is_floating_point() else values


def _describe_failure(batch: Inputs, error: Exception) -> str:
    reason = describe_error(error)
    if isinstance(batch, Mapping):
        return f"the model does not take the inputs {', '.join(batch)}: {reason}"
    shape = tuple(batch.shape[1:])
    if not isinstance(error, RuntimeError | ValueError | AssertionError | IndexError):
        return f"the model failed on inputs of shape {shape}: {reason}"  # the shape is not what is wrong
    return (
        f"the model does not take images of shape {shape} (channels, height, width): {reason}; "
        "make the data what the model was trained on (@32px, @gray, @rgb), or check the model's input"
    )


def _find_logits(output: Any) -> Any:
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return getattr(output, "logits", output[0] if isinstance(output, tuple | list) and output else output)


def iterate_batches(
    loader: Iterable[Any], device: torch.device, labeled: bool = True
) -> Iterator[tuple[Inputs, Tensor | None]]:
    """Yield ``(inputs, labels)`` of each batch as tensors, the inputs on a device.

    Args:
        loader: Pairs, or mappings that hold ``labels``; inputs alone are accepted where no labels are wanted.
        device: Device of the model.
        labeled: Whether labels are wanted; if not, they are None.

    Raises:
        RepresentationError: A batch is of another form.

    Example:
        >>> [(inputs, labels)] = iterate_batches([(np.zeros((2, 3)), [0, 1])], torch.device("cpu"))
        >>> inputs.shape, labels
        (torch.Size([2, 3]), tensor([0, 1]))
    """
    for batch in loader:
        inputs, labels = _split_labels(batch, labeled)
        if isinstance(inputs, Mapping):
            moved: Inputs = {key: as_tensor(value).to(device, non_blocking=True) for key, value in inputs.items()}
        else:
            moved = as_tensor(inputs).to(device, non_blocking=True)
        yield moved, as_tensor(labels) if labeled else None


def _split_labels(batch: Any, labeled: bool) -> tuple[Any, Any]:
    if isinstance(batch, Mapping) and ("labels" in batch or not labeled):
        return {key: value for key, value in batch.items() if key != "labels"}, batch.get("labels")
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return batch[0], batch[1]
    if not labeled and isinstance(batch, Tensor | np.ndarray):
        return batch, None
    if not labeled and isinstance(batch, tuple | list) and len(batch) == 1:
        return batch[0], None
    raise RepresentationError(
        f"a batch is a {type(batch).__name__}; expected a pair (inputs, labels), or a mapping with labels"
    )
