"""Evaluate a classifier on a dataset, and check that the two fit together."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque._processes import ALONE, Processes
from resque.data.dataset import LabeledDataset
from resque.errors import DataError, DeviceMemoryError
from resque.models.inference import device_of, eval_mode, forward

__all__ = [
    "Evaluation", "check_data_fits_model", "count_outputs", "evaluate", "evaluate_dataset", "with_batches_that_fit",
]  # fmt: skip

Result = TypeVar("Result")

_BATCH_SIZE = 1024


class Evaluation:
    """Accumulator of accuracy and mean cross-entropy; nothing waits for the device before they are read.

    Example:
        >>> evaluation = Evaluation()
        >>> evaluation.add(100.0 * torch.eye(2), torch.tensor([0, 1]))
        >>> evaluation.result()
        (1.0, 0.0)
    """

    def __init__(self) -> None:
        self._correct = self._loss = torch.zeros((), dtype=torch.float64)
        self._n = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``(n, classes)`` logits, ``(n,)`` labels on their device."""
        self._correct = self._correct.to(logits.device) + (logits.argmax(1) == labels).sum()
        self._loss = self._loss.to(logits.device) + F.cross_entropy(logits.float(), labels, reduction="sum").double()
        self._n += len(labels)

    def __add__(self, other: "Evaluation") -> "Evaluation":
        """Return the evaluation of both sets of samples."""
        total = Evaluation()
        total._correct = self._correct.cpu() + other._correct.cpu()
        total._loss = self._loss.cpu() + other._loss.cpu()
        total._n = self._n + other._n
        return total

    def result(self) -> tuple[float, float]:
        """Return accuracy in [0, 1], and mean cross-entropy in nats."""
        return float(self._correct) / self._n, float(self._loss) / self._n


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Compute accuracy and mean cross-entropy of a classifier over batches.

    Args:
        model: Classifier; its training flags are the same before and after.
        batches: Pairs of inputs and labels, on the model's device.

    Returns:
        Accuracy in [0, 1], and mean cross-entropy in nats.

    Example:
        >>> inputs, labels = torch.eye(2), torch.tensor([0, 1])
        >>> evaluate(nn.Identity(), [(100.0 * inputs, labels)])
        (1.0, 0.0)
    """
    return _evaluation(model, batches).result()


def _evaluation(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    evaluation = Evaluation()
    with eval_mode(model):
        for inputs, labels in batches:
            evaluation.add(forward(model, inputs), labels)
    return evaluation


def evaluate_dataset(model: nn.Module, data: LabeledDataset, processes: Processes = ALONE) -> tuple[float, float]:
    """Compute accuracy and mean cross-entropy of a classifier on a dataset, see :func:`evaluate`.

    Args:
        model: Classifier, the same in all processes.
        data: The dataset.
        processes: Processes that share the pass; each gets the result for all samples.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> accuracy, loss = evaluate_dataset(small_cnn(), load_data("digits@16px@100"))
        >>> 0.0 <= accuracy <= 1.0 and loss > 0.0
        True
    """
    order = None
    if processes.count > 1:
        order = torch.arange(len(data)).tensor_split(processes.count)[processes.rank]
    own = with_batches_that_fit(lambda size: _evaluation(model, data.batches(size, device_of(model), order)))
    return processes.combine(own, lambda parts: sum(parts, Evaluation())).result()


def with_batches_that_fit(work: Callable[[int], Result]) -> Result:
    """Call a function with a batch size that is halved as long as a batch takes more memory than the device has.

    Example:
        >>> with_batches_that_fit(lambda size: size)
        1024
    """
    batch_size = _BATCH_SIZE
    while True:
        try:
            return work(batch_size)
        except DeviceMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2


def count_outputs(model: nn.Module, data: LabeledDataset) -> int:
    """Return the number of outputs of a classifier, from a forward pass over two samples.

    Raises:
        ModelError: The model does not accept these inputs.

    Example:
        >>> from resque.data.loading import load_data
        >>> from resque.models.networks import small_cnn
        >>> count_outputs(small_cnn(), load_data("digits@16px@100"))
        10
    """
    with eval_mode(model):
        inputs, _ = next(data.batches(2, device_of(model)))
        return forward(model, inputs).shape[1]


def check_data_fits_model(model: nn.Module, data: LabeledDataset) -> None:
    """Raise an error unless this classifier can learn from the data.

    Raises:
        DataError: There are fewer samples than classes, or a label is not an output of the model.
        ModelError: The model does not accept these inputs.
    """
    classes = count_outputs(model, data)
    if len(data) < classes:
        raise DataError(f"{data.name}: {len(data)} samples for {classes} classes; expected at least one per class")
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{data.name}: labels run from {low} to {high}, the model has {classes} outputs; "
            f"expected labels 0 to {classes - 1}, or a model with more outputs (--classes)"
        )
