"""Evaluate accuracy and loss of a classifier."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque.models.feature_extraction import eval_mode, forward

EVALUATION_BATCH = 1024


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """``(accuracy, mean cross-entropy in nats)`` of a classifier, which is left as it was found."""
    correct = loss = torch.zeros((), dtype=torch.float64)
    n = 0
    with eval_mode(model):
        for inputs, labels in batches:
            logits = forward(model, inputs)
            correct = correct.to(logits.device) + (logits.argmax(1) == labels).sum()
            loss = loss.to(logits.device) + F.cross_entropy(logits.float(), labels, reduction="sum").double()
            n += len(labels)
    return float(correct) / n, float(loss) / n
