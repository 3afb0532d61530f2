"""Adapt the batch normalization of a model to new data, without labels and without training.

Much of the accuracy that a shift costs a network with batch normalization returns after a few steps, as soon as the
running statistics follow the new data. What is still missing after the adaptation has to be learned.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from resque.models.inference import count_samples, forward

__all__ = ["adapt_batchnorm", "has_running_statistics", "normalization_layers", "reestimate"]


def adapt_batchnorm(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> nn.Module:
    """Return a copy of a model whose running means and variances are re-estimated on new data.

    Args:
        model: Classifier, left unchanged; it is returned itself if it has no running statistics.
        batches: ``(inputs, labels)`` of the new data. Labels are ignored, and so are batches of one sample, which
            have no variance.

    References:
        Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
        >>> new = adapt_batchnorm(net, [(torch.tensor([[3.0], [5.0]]), None)])
        >>> float(new[0].running_mean), float(net[0].running_mean)
        (4.0, 0.0)
    """
    if not _running_norms(model):
        return model
    adapted = copy.deepcopy(model)
    reestimate(adapted, batches)
    return adapted


def reestimate(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> None:
    """Estimate the running means and variances of a model anew, in place, and leave it in evaluation mode.

    Args:
        model: Classifier with running statistics.
        batches: As of :func:`adapt_batchnorm`.

    Example:
        >>> net = nn.BatchNorm1d(1)
        >>> reestimate(net, [(torch.tensor([[3.0], [5.0]]), None)])
        >>> float(net.running_mean)
        4.0
    """
    model.eval()
    norms = [(norm, norm.momentum) for norm in _running_norms(model)]
    for norm, _ in norms:
        norm.reset_running_stats()
        norm.train()
    counted = (inputs for inputs, _ in batches if count_samples(inputs) > 1)
    with torch.no_grad():
        for number, inputs in enumerate(counted, start=1):
            for norm, _ in norms:
                # The plain average over batches. With momentum None, PyTorch reads its own count from the device.
                norm.momentum = 1.0 / number
            forward(model, inputs)
    for norm, momentum in norms:
        norm.momentum = momentum
    model.eval()


def has_running_statistics(model: nn.Module) -> bool:
    """Return whether a model has batch normalization that keeps running statistics.

    Example:
        >>> has_running_statistics(nn.BatchNorm1d(2)), has_running_statistics(nn.LayerNorm(2))
        (True, False)
    """
    return bool(_running_norms(model))


def normalization_layers(model: nn.Module) -> list[nn.Module]:
    """Return the normalization layers that have scales or shifts: batch, instance, layer, group and RMS normalization.

    Layers of other libraries count by their name, such as ``LlamaRMSNorm``.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2), nn.InstanceNorm1d(2), nn.Linear(2, 2))
        >>> [type(layer).__name__ for layer in normalization_layers(net)]
        ['BatchNorm1d', 'LayerNorm']
    """
    return [
        module
        for module in model.modules()
        if (isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm) or type(module).__name__.endswith("Norm"))
        and any(True for _ in module.parameters(recurse=False))
    ]


def _running_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch normalization layers that keep running statistics."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats and module.running_mean is not None
    ]
