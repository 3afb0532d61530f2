"""What a model sees in one data set, gathered in one pass: all that the rivals of the index are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.data.dataset import LabeledDataset
from resque.indices.baselines.moments import Moments
from resque.models.feature_extraction import capture_features
from resque.models.inference import device_of
from resque.models.layers import PENULTIMATE

KNN_SAMPLES = 2000


@dataclass(frozen=True)
class ModelOutputs:
    """What a model sees in one data set: all that the rivals need, from one pass.

    Attributes:
        moments: Of the features.
        probabilities: ``(n, classes of the model)``.
        labels: ``(n,)``.
        sample: ``(m, d)`` features of at most 2,000 samples, drawn without order, for neighbours.
        sample_labels: ``(m,)``, theirs.
        loss: Mean cross-entropy, nats.
    """

    moments: Moments
    probabilities: np.ndarray
    labels: np.ndarray
    sample: np.ndarray
    sample_labels: np.ndarray
    loss: float

    @property
    def predicted(self) -> np.ndarray:
        """``(n,)`` the model's own classes."""
        found: np.ndarray = self.probabilities.argmax(1)
        return found

    @property
    def confidence(self) -> np.ndarray:
        """``(n,)`` the largest probability."""
        found: np.ndarray = self.probabilities.max(1)
        return found

    @property
    def accuracy(self) -> float:
        """Share classified correctly."""
        return float((self.predicted == self.labels).mean())


class OutputCollector:
    """Gathers a view, batch by batch.

    Args:
        classes: The labels that may occur.
        n: Samples that will come.
        seed: Of the sample for neighbours.
    """

    def __init__(self, classes: Sequence[int], n: int, seed: int = 0) -> None:
        self._moments = Moments(classes)
        self._chosen = torch.zeros(n, dtype=torch.bool)
        self._chosen[torch.from_numpy(np.random.default_rng(seed).permutation(n)[:KNN_SAMPLES])] = True
        self._probabilities: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._sample: list[np.ndarray] = []
        self._loss, self._seen = 0.0, 0

    def update(self, rows: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take a batch: ``(n, d)`` features, ``(n, classes of the model)`` logits, ``(n,)`` labels."""
        self._moments.update(rows, labels)
        self._probabilities.append(logits.float().softmax(1).cpu().numpy())
        self._loss += float(F.cross_entropy(logits.float(), labels, reduction="sum"))
        own = self._chosen[self._seen : self._seen + len(labels)]
        self._sample.append(rows.cpu()[own].double().numpy())
        self._labels.append(labels.cpu().numpy())
        self._seen += len(labels)

    def outputs(self) -> ModelOutputs:
        """What was seen so far."""
        labels = np.concatenate(self._labels)
        return ModelOutputs(
            self._moments,
            np.concatenate(self._probabilities),
            labels,
            np.concatenate(self._sample),
            labels[self._chosen.numpy()[: len(labels)]],
            self._loss / self._seen,
        )


def collect_outputs(
    model: nn.Module, data: LabeledDataset, layer: str = PENULTIMATE, reduction: str = "mean", seed: int = 0
) -> ModelOutputs:
    """One pass over a data set.

    Args:
        model: Left as it is.
        data: With true labels.
        layer: Of the features; the products of a wide one do not fit into memory.
        reduction: ``"mean"`` over positions, or ``"flatten"`` or ``"token-mean"``.
        seed: Of the sample for neighbours.
    """
    found = OutputCollector(data.classes, len(data), seed)
    with capture_features(model, layer, reduction) as observe:
        for inputs, labels in data.batches(device=device_of(model)):
            rows, logits = observe(inputs)
            found.update(rows, logits, labels)
    return found.outputs()
