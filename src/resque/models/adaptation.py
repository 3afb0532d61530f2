"""Adapt a model to new data, without labels and without training, in the way that its layers allow."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from resque.models.batchnorm import adapt_batchnorm, has_running_statistics
from resque.models.channel_matching import Channels, match_channels

__all__ = ["adapt", "can_adapt"]


def can_adapt(model: nn.Module, original_channels: Channels | None) -> bool:
    """Return whether :func:`adapt` has anything to adapt.

    Example:
        >>> can_adapt(nn.Linear(2, 2), None), can_adapt(nn.BatchNorm1d(2), None)
        (False, True)
    """
    return has_running_statistics(model) or bool(original_channels)


def adapt(
    model: nn.Module, batches: Iterable[tuple[Any, Any]], original_channels: Channels | None = None
) -> nn.Module | None:
    """Return a copy of a model whose layers follow new data; None if it has nothing to adapt.

    Batch normalization gets the statistics of the new data. Without it, the channels of convolutions get the moments
    that they had on the original data, if these are known.

    Args:
        model: Classifier, left as it was found.
        batches: ``(inputs, labels)`` of the new data, passed once. Labels are ignored.
        original_channels: Sums over the channels on the original data, as a profile keeps them; None if unknown.

    Example:
        >>> adapt(nn.Linear(2, 2), []) is None
        True
    """
    if has_running_statistics(model):
        return adapt_batchnorm(model, batches)
    return match_channels(model, batches, original_channels) if original_channels else None
