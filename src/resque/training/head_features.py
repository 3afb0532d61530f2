"""Inputs of a head that is trained alone: frozen layers give the same ones in every epoch, so one pass will do.

They stand in for the data where the model returns what its dense head gives, sample by sample. Not so for a head over
tokens, for outputs that are changed afterwards, for layers that draw random numbers or mix the samples of a batch, and
for weights that the head shares.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resque.data.dataset import Inputs, LabeledDataset
from resque.data.preprocessing import NO_PREPROCESSING
from resque.models.inference import device_of, eval_mode, forward
from resque.models.layers import head, head_name
from resque.training.evaluation import with_batches_that_fit

__all__ = ["FeatureCache"]

_MOST_BYTES = 1024**3  # an epoch holds them twice: as they were passed, and in its own order
_TRIED = 64


class FeatureCache:
    """Computes the inputs of a model's head, one dataset in one pass, as another dataset.

    Args:
        model: Classifier, of which the head alone changes.
        compute: Function from a batch to the logits of that model; None is :func:`resque.models.inference.forward`.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> digits = load_data("digits@16px@100")
        >>> features = FeatureCache(small_cnn()).dataset(digits)
        >>> features.inputs.shape, torch.equal(features.labels, digits.labels)
        (torch.Size([100, 64]), True)
    """

    def __init__(self, model: nn.Module, compute: Callable[[Inputs], Tensor] | None = None) -> None:
        self._model, self.head = model, head(model)
        self._compute = compute or (lambda inputs: forward(model, inputs))

    def allows(self, data: LabeledDataset) -> bool:
        """Return whether the inputs of the head can stand in for the data, from passes over a few samples."""
        if self._shares_weights():
            return False
        rows = torch.arange(min(_TRIED, len(data)))
        with self._recorded() as record:
            whole, part = (record(data.take(rows[:n]), n) for n in (len(rows), max(1, len(rows) // 2)))
        if whole is None or part is None:
            return False
        tolerance = torch.finfo(whole.dtype).eps ** (2 / 3) * (1.0 + float(whole.abs().max()))
        same = torch.allclose(whole[: len(part)], part, rtol=0.0, atol=tolerance)
        return same and len(data) * whole[0].numel() * whole.element_size() <= _MOST_BYTES

    def dataset(self, data: LabeledDataset) -> LabeledDataset | None:
        """Return the inputs of the head as a dataset, on the device if there is room; None if they cannot be told."""
        with self._recorded() as record:
            rows = with_batches_that_fit(lambda size: record(data, size))
        if rows is None:
            return None
        features = dataclasses.replace(data, inputs=rows, labels=data.labels.cpu(), transform=NO_PREPROCESSING)
        return features.resident(device_of(self._model))

    def _shares_weights(self) -> bool:
        inside = f"{head_name(self._model)}."
        own = {id(p) for p in self.head.parameters()}
        everywhere = self._model.named_parameters(remove_duplicate=False)
        return any(id(p) in own and not f".{name}".startswith(f".{inside}") for name, p in everywhere)

    @contextmanager
    def _recorded(self) -> Iterator[Callable[[LabeledDataset, int], Tensor | None]]:
        """Yield a function from data and a batch size to the inputs of the head; it returns None if they are no proxy.

        They are one if the head runs once, on a row per sample, and the model returns its output as it is.
        """
        calls: list[tuple[Any, Tensor, int]] = []

        def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
            inputs = [*given, *named.values()]
            rows = inputs[0].detach().to("cpu", copy=True) if len(inputs) == 1 else None
            calls.append((rows, output, output._version))

        def record(data: LabeledDataset, batch_size: int) -> Tensor | None:
            passed = []
            for inputs, _ in data.batches(batch_size, device_of(self._model)):
                calls.clear()
                logits = self._compute(inputs)
                rows, output, version = calls[0] if len(calls) == 1 else (None, logits, -1)
                as_it_is = logits.data_ptr() == output.data_ptr() and logits._version == version
                if rows is None or rows.ndim != 2 or len(rows) != len(logits) or not as_it_is:
                    return None
                passed.append(rows)
            return torch.cat(passed)

        hook = self.head.register_forward_hook(note, with_kwargs=True)
        try:
            with eval_mode(self._model):
                yield record
        finally:
            hook.remove()
            calls.clear()
