"""Collect the outputs of a model on a dataset in one forward pass: everything the baselines are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset, draw_rows
from resque.errors import DataError
from resque.indices.baselines.moments import Moments
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import PENULTIMATE

__all__ = ["KNN_SAMPLES", "ModelOutputs", "OutputCollector", "RowSample", "collect_outputs"]

KNN_SAMPLES = 2000


@dataclass(frozen=True)
class ModelOutputs:
    """Outputs of a model on a labeled dataset: everything the baselines need.

    The labels are any integers. For a new task, the outputs of the model are the classes it was trained on.

    Attributes:
        moments: Second moments of the features.
        probabilities: ``(n, classes of the model)`` softmax probabilities.
        labels: ``(n,)`` true labels.
        sample: ``(m, d)`` features of a random subset of at most 2,000 samples, for k-NN accuracy.
        sample_labels: ``(m,)`` labels of that subset.
        loss: Mean cross-entropy in nats; None if a label is not an output of the model.
    """

    moments: Moments
    probabilities: np.ndarray
    labels: np.ndarray
    sample: np.ndarray
    sample_labels: np.ndarray
    loss: float | None

    @property
    def predicted(self) -> np.ndarray:
        """``(n,)`` predicted classes."""
        predicted: np.ndarray = self.probabilities.argmax(1)
        return predicted

    @property
    def confidence(self) -> np.ndarray:
        """``(n,)`` probabilities of the predicted classes."""
        confidence: np.ndarray = self.probabilities.max(1)
        return confidence

    @property
    def correct(self) -> np.ndarray:
        """``(n,)`` whether each sample is classified correctly.

        Raises:
            DataError: A label is not an output of the model.
        """
        if self.loss is None:
            raise DataError(
                f"labels run from {self.labels.min()} to {self.labels.max()}, the model has "
                f"{self.probabilities.shape[1]} outputs: accuracy needs labels among them"
            )
        correct: np.ndarray = self.predicted == self.labels
        return correct

    @property
    def accuracy(self) -> float:
        """Share of the samples that are classified correctly."""
        return float(self.correct.mean())


class RowSample:
    """Accumulator of the features of at most 2,000 samples, drawn at random, for k-NN accuracy.

    Args:
        n: Number of samples that will come.
        seed: Seed of the random subset.

    Example:
        >>> sample = RowSample(n=2)
        >>> sample.update(torch.eye(2), torch.tensor([0, 1]))
        >>> sample.rows.shape, sample.labels.tolist()
        ((2, 2), [0, 1])
    """

    def __init__(self, n: int, seed: int = 0) -> None:
        self._chosen = draw_rows(n, KNN_SAMPLES, seed)
        self._rows: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._seen = 0

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Add a batch: ``(n, d)`` features, ``(n,)`` labels; those that were drawn stay on the device."""
        first, last = np.searchsorted(self._chosen, [self._seen, self._seen + len(labels)])
        chosen = torch.from_numpy(self._chosen[first:last] - self._seen)
        self._rows.append(rows[chosen.to(rows.device, non_blocking=True)])
        self._labels.append(labels[chosen.to(labels.device, non_blocking=True)])
        self._seen += len(labels)

    @property
    def rows(self) -> np.ndarray:
        """``(m, d)`` float64 features of the samples drawn."""
        rows: np.ndarray = torch.cat(self._rows).double().cpu().numpy()
        return rows

    @property
    def labels(self) -> np.ndarray:
        """``(m,)`` labels of the samples drawn."""
        labels: np.ndarray = torch.cat(self._labels).cpu().numpy()
        return labels


class OutputCollector:
    """Accumulator of :class:`ModelOutputs`, batch by batch.

    Args:
        classes: Labels that may occur.
        n: Number of samples that will come.
        seed: Seed of the random subset for k-NN accuracy.
        by_class: Whether products are kept by class, which TransRate needs: ``classes × width²`` numbers.

    Example:
        >>> collector = OutputCollector([0, 1], n=2)
        >>> collector.update(torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
        >>> collector.outputs().accuracy
        0.5
    """

    def __init__(self, classes: Sequence[int], n: int, seed: int = 0, by_class: bool = False) -> None:
        self._moments = Moments(classes, by_class)
        self._sample = RowSample(n, seed)
        self._probabilities: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._losses: list[Tensor] = []

    def update(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: ``(n, d)`` features, ``(n, classes of the model)`` logits, ``(n,)`` labels.

        Outputs stay on the device until all are there, so that no batch waits for it.
        """
        self._moments.update(rows, labels)
        self._probabilities.append(logits.float().softmax(1))
        outputs = labels.clamp(0, logits.shape[1] - 1)  # some labels of a new task are none
        self._losses.append(F.cross_entropy(logits.float(), outputs, reduction="sum"))
        self._sample.update(rows, labels)
        self._labels.append(labels)

    def outputs(self) -> ModelOutputs:
        """Return the outputs on the samples seen so far."""
        labels, probabilities = (torch.cat(parts).cpu().numpy() for parts in (self._labels, self._probabilities))
        same_classes = labels.min() >= 0 and labels.max() < probabilities.shape[1]
        loss = sum(torch.stack(self._losses).double().tolist()) / len(labels) if same_classes else None
        return ModelOutputs(self._moments, probabilities, labels, self._sample.rows, self._sample.labels, loss)


def collect_outputs(
    model: nn.Module,
    data: LabeledDataset,
    layer: str = PENULTIMATE,
    reduction: str = "mean",
    seed: int = 0,
    by_class: bool = False,
) -> ModelOutputs:
    """Collect the outputs of a model on a dataset in one forward pass.

    Args:
        model: Classifier; it is left as it was found.
        data: Dataset with true labels, any integers: those of a new task need no new head.
        layer: Layer of the features. Their products take ``width²`` numbers, too many for a wide layer.
        reduction: ``"mean"`` over positions, ``"flatten"`` or ``"token-mean"``.
        seed: Seed of the random subset for k-NN accuracy.
        by_class: Whether products are kept by class, which TransRate needs: ``classes × width²`` numbers.

    Example:
        >>> from resque import load_data, load_model
        >>> outputs = collect_outputs(load_model("resque.networks:small_cnn"), load_data("digits@16px@test"))
        >>> outputs.probabilities.shape, outputs.moments.width
        ((539, 10), 64)
    """
    collector = OutputCollector(data.classes, len(data), seed, by_class)
    with capture_features(model, layer, reduction) as observe:
        for inputs, labels in data.batches(device=device_of(model)):
            rows, logits = observe(inputs)
            collector.update(rows, logits, labels)
    return collector.outputs()
