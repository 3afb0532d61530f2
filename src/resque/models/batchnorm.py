"""A model whose batch normalisation has the statistics of other data: a pass without labels, and nothing is trained.

Much of what a shift costs a network with batch normalisation is gone after a few steps, as soon as its running
statistics follow the new data. What is left after a recalibration is the part that has to be learned.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from resque.models.inference import forward


def adapt_batchnorm(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> nn.Module:
    """A copy that normalises by the mean and variance of these batches; the model itself where it has none to change.

    Args:
        model: Left as it is.
        batches: ``(inputs, labels)`` of the new data; the labels are not looked at, a batch of one sample is left out.

    References:
        Schneider et al., Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2))
        >>> new = adapt_batchnorm(net, [(torch.tensor([[3.0], [5.0]]), None)])
        >>> float(new[0].running_mean), float(net[0].running_mean)
        (4.0, 0.0)
    """
    norms = [name for name, module in model.named_modules() if _follows(module)]
    if not norms:
        return model
    made = copy.deepcopy(model)
    momenta = {}
    made.eval()
    for name in norms:
        norm: Any = made.get_submodule(name)
        momenta[name], norm.momentum = norm.momentum, None  # the plain average over batches
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        for inputs, _ in batches:
            if _size(inputs) > 1:
                forward(made, inputs)
    for name, momentum in momenta.items():
        norm = made.get_submodule(name)
        norm.momentum = momentum
    return made.eval()


def _follows(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats and module.running_mean is not None


def _size(inputs: Any) -> int:
    return len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
