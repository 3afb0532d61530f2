"""Inputs of a classifier's dense head on new data: k-NN accuracy, and a refit of the head in closed form."""

import torch
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.errors import ModelError
from resque.indices.baselines.model_outputs import KNN_SAMPLES, RowSample
from resque.indices.baselines.refit import LinearHead, RefitSums
from resque.indices.baselines.transferability import knn_accuracy
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import PENULTIMATE, head
from resque.training.evaluation import Evaluation, with_batches_that_fit

__all__ = ["HeadInputs", "evaluate_with_refit", "head_width", "model_knn_accuracy"]


class HeadInputs:
    """Accumulator of a labeled dataset's inputs of the head; no more than 2,000 samples of them are kept.

    Args:
        data: Dataset that will be passed.
        width: Width of the head's inputs. Above 1 GiB of their products, no head is refit.

    Example:
        >>> from resque import load_data, load_model
        >>> data = load_data("digits@16px@200")
        >>> inputs = HeadInputs.of(load_model("resque.networks:small_cnn"), data, width=64)
        >>> inputs.knn_accuracy > 0.5, inputs.refit().weight.shape
        (True, torch.Size([10, 64]))
    """

    def __init__(self, data: LabeledDataset, width: int) -> None:
        self._sample = RowSample(len(data))
        self._sums = RefitSums(data.classes) if RefitSums.fit_into_memory(width) else None

    @classmethod
    def of(cls, model: nn.Module, data: LabeledDataset, width: int) -> "HeadInputs":
        """Pass a dataset, or at most 2,000 samples of it if no head can be refit."""
        passed = data if RefitSums.fit_into_memory(width) else data.limited(KNN_SAMPLES)
        inputs = cls(passed, width)
        with capture_features(model, PENULTIMATE, "flatten") as observe:
            for batch, labels in passed.batches(device=device_of(model)):
                rows, logits = observe(batch)
                inputs.update(rows, logits, labels)
        return inputs

    def update(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``(n, d)`` inputs of the head, logits, which are not used, and ``(n,)`` labels."""
        self._sample.update(rows, labels)
        if self._sums is not None:
            self._sums.update(rows, labels)

    @property
    def knn_accuracy(self) -> float:
        """Leave-one-out k-NN accuracy of at most 2,000 samples, drawn at random."""
        return knn_accuracy(self._sample.rows, self._sample.labels)

    def refit(self) -> LinearHead | None:
        """Return the head refit to all samples; None if their products were too large."""
        return None if self._sums is None else self._sums.head()


def evaluate_with_refit(model: nn.Module, data: LabeledDataset, refit: LinearHead) -> tuple[float, float, float]:
    """Compute accuracy and loss of a classifier, and the accuracy with another head, in one forward pass.

    Example:
        >>> from resque import load_data, load_model
        >>> model, data = load_model("resque.networks:small_cnn"), load_data("digits@16px@200")
        >>> accuracy, loss, refit = evaluate_with_refit(model, data, HeadInputs.of(model, data, 64).refit())
        >>> accuracy < refit <= 1.0
        True
    """

    def work(batch_size: int) -> tuple[float, float, float]:
        own, correct = Evaluation(), torch.zeros((), dtype=torch.int64, device=device_of(model))
        with capture_features(model, PENULTIMATE, "flatten") as observe:
            for batch, labels in data.batches(batch_size, device_of(model)):
                rows, logits = observe(batch)
                own.add(logits, labels)
                correct += (refit.predict(rows) == labels).sum()
        return *own.result(), int(correct) / len(data)

    return with_batches_that_fit(work)


def model_knn_accuracy(model: nn.Module, data: LabeledDataset) -> float | None:
    """Compute leave-one-out k-NN accuracy of a dataset, with the inputs of the model's head as features.

    Returns:
        The accuracy; None if no head is found, or if it takes more than one row per sample.

    Example:
        >>> from resque import load_data, load_model
        >>> model_knn_accuracy(load_model("resque.networks:small_cnn"), load_data("digits@16px@100")) > 0.5
        True
    """
    if head_width(model, data) is None:
        return None
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = torch.cat([observe(inputs)[0].double().cpu() for inputs, _ in data.batches(device=device_of(model))])
    return knn_accuracy(rows.numpy(), data.labels.cpu().numpy())


def head_width(model: nn.Module, data: LabeledDataset) -> int | None:
    """Return the width of a dense head's input; None without such a head, or if it takes a row per token.

    Example:
        >>> from resque import load_data, load_model
        >>> head_width(load_model("resque.networks:small_cnn"), load_data("digits@16px@100"))
        64
    """
    try:
        width = getattr(head(model), "in_features", None)
    except ModelError:
        return None
    inputs, _ = next(data.batches(2, device_of(model)))
    with capture_features(model, PENULTIMATE, "flatten") as observe:
        rows = observe(inputs)[0]
    return width if width is not None and rows.shape[1] == width else None
