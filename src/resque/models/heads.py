"""Replace or widen the head of a classifier, wherever the model uses it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from resque.errors import ModelError
from resque.models.layers import head_name

__all__ = ["fit_head", "replace_head", "widen_head"]

_Head = nn.Linear | nn.Conv2d
_CONVOLUTION_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")


def replace_head(model: nn.Module, outputs: int) -> None:
    """Replace the head of a model by a new, untrained one with ``outputs`` classes.

    Raises:
        ModelError: The head is neither a plain ``nn.Linear`` nor a plain ``nn.Conv2d``, or it is the whole model.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> replace_head(net, 2)
        >>> net[0].out_features
        2
    """
    old = _find_head(model)
    _substitute(model, old, _new_head(old, outputs))


def widen_head(model: nn.Module, outputs: int) -> None:
    """Add outputs to the head of a model; the weights of the old outputs stay bit for bit.

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
    old = _find_head(model)
    n = len(old.weight)
    if outputs <= n:
        raise ModelError(f"the head has {n} outputs already; expected more than that, not {outputs}")
    new = _new_head(old, outputs)
    with torch.no_grad():
        new.weight[:n] = old.weight
        if old.bias is not None and new.bias is not None:
            new.bias[:n] = old.bias
    _substitute(model, old, new)


def fit_head(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give the head as many outputs as that of a state dict, if the two differ in nothing else.

    The new head is untrained; the weights of the state dict are for the caller to load.

    Raises:
        ModelError: The head has another number of outputs, and cannot be replaced.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> fit_head(net, nn.Sequential(nn.Linear(4, 5)).state_dict())
        >>> net[0].out_features
        5
    """
    try:
        head = model.get_submodule(head_name(model))
    except ModelError:
        return
    own, found = _shapes(model.state_dict()), _shapes(state)
    names = [name for name, module in model.named_modules(remove_duplicate=False) if module is head]
    outputs, known = (shapes.get(f"{names[0]}.weight", ())[:1] for shapes in (found, own))
    for key in own.keys() & {f"{name}.{part}" for name in names for part in ("weight", "bias")}:
        own[key] = (*outputs, *own[key][1:])
    if own == found and outputs != known:
        replace_head(model, *outputs)


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(value, "shape", ())) for name, value in state.items()}


def _find_head(model: nn.Module) -> _Head:
    """Return the head if a new layer of its type would do the same: no parametrization, hook or own ``forward``."""
    name = head_name(model)
    head = model.get_submodule(name)
    if not name:
        raise ModelError("the model is a single layer: put it into nn.Sequential, so that its head can be replaced")
    plain = type(head).forward in (nn.Linear.forward, nn.Conv2d.forward)
    if (
        not isinstance(head, _Head)
        or not plain
        or is_parametrized(head)
        or head._forward_pre_hooks
        or head._forward_hooks
    ):
        found = "parametrized" if is_parametrized(head) else f"{type(head).__name__}, or has hooks of its own"
        raise ModelError(f"the head {name!r} is {found}; only a plain nn.Linear or nn.Conv2d can be replaced")
    return head


def _new_head(old: _Head, outputs: int) -> _Head:
    """Return an untrained layer with the settings of the old one and another number of outputs."""
    if outputs < 1:
        raise ModelError(f"a head of {outputs} outputs; expected one or more")
    common: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs, **common)
    settings = {name: getattr(old, name) for name in _CONVOLUTION_SETTINGS}
    try:
        return nn.Conv2d(old.in_channels, outputs, **settings, **common)
    except ValueError as error:
        raise ModelError(f"the head, a convolution of {old.groups} groups, cannot have {outputs} outputs") from error


def _substitute(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    new.train(old.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # a head may have several names, also in one parent
            if child is old:
                setattr(parent, name, new)
