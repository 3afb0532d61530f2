"""Find, replace and widen the classification head of a model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from resque.errors import ModelError
from resque.models.layers import CONVOLUTION, head_name


def replace_head(model: nn.Module, outputs: int) -> None:
    """Put a new, untrained head of ``outputs`` classes in place of the old one, wherever it is used.

    Raises:
        ModelError: The head is neither a plain ``nn.Linear`` nor a plain ``nn.Conv2d``, or it is the whole model.
    """
    _change_head(model, lambda old: _like(old, outputs))


def widen_head(model: nn.Module, outputs: int) -> None:
    """Give the head more outputs; what it has learned for the old ones stays, bit for bit.

    Raises:
        ModelError: As for :func:`replace_head`, or the head has as many outputs already.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> old = net(torch.ones(1, 4))
        >>> widen_head(net, 5)
        >>> new = net(torch.ones(1, 4))
        >>> new.shape, bool((new[:, :3] == old).all())
        (torch.Size([1, 5]), True)
    """

    def widened(old: nn.Linear | nn.Conv2d) -> nn.Module:
        kept = len(old.weight)
        if outputs <= kept:
            raise ModelError(f"the head has {kept} outputs already; expected more than that, not {outputs}")
        new = _like(old, outputs)
        with torch.no_grad():
            new.weight[:kept] = old.weight
            if old.bias is not None and new.bias is not None:
                new.bias[:kept] = old.bias
        return new

    _change_head(model, widened)


def _change_head(model: nn.Module, change: Callable[[nn.Linear | nn.Conv2d], nn.Module]) -> None:
    name = head_name(model)
    old = model.get_submodule(name)
    if not name:
        raise ModelError("the model is a single layer: put it into nn.Sequential, so that its head can be replaced")
    if not isinstance(old, nn.Linear | nn.Conv2d) or not _is_plain(old):
        found = "parametrized" if is_parametrized(old) else f"{type(old).__name__}, or has hooks of its own"
        raise ModelError(f"the head {name!r} is {found}; only a plain nn.Linear or nn.Conv2d can be made anew")
    new = change(old)
    new.train(old.training)
    for parent in list(model.modules()):
        for own, child in list(parent._modules.items()):  # a head may go by several names, also in one parent
            if child is old:
                setattr(parent, own, new)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a new layer of its kind would do what it does: no parametrization, hook or ``forward`` of its own."""
    own_forward = type(layer).forward not in (nn.Linear.forward, nn.Conv2d.forward)
    return not (own_forward or is_parametrized(layer) or layer._forward_pre_hooks or layer._forward_hooks)


def _like(old: nn.Linear | nn.Conv2d, outputs: int) -> nn.Linear | nn.Conv2d:
    """An untrained layer like the old one, with its initialisation, and another number of outputs."""
    common: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    if outputs < 1:
        raise ModelError(f"a head of {outputs} outputs; expected one or more")
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs, **common)
    settings = {name: getattr(old, name) for name in CONVOLUTION}
    try:
        return nn.Conv2d(old.in_channels, outputs, **settings, **common)
    except ValueError as error:
        raise ModelError(f"the head, a convolution of {old.groups} groups, cannot have {outputs} outputs") from error
