"""Which part of a model is what: the layer whose output is the representation, and the head.

Found from names, types and the order of registration alone; the model is never run here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from resque.errors import ModelError

PENULTIMATE = "penultimate"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONTAINERS = (nn.Sequential, nn.ModuleList)
_ASIDE = ("aux", "pre_logits")
_ATTENTION = ("attention", "attn")
_SHOWN = 12
_CONVOLUTION = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
Modules = dict[str, nn.Module]


def representation_layer(model: nn.Module, name: str | None = None) -> str:
    """The name of the module whose output is the representation.

    The paper's choice: the raw output of the last convolution; for a transformer the last dense layer of the
    last encoder block. For a plain perceptron, and for mixers, whose only convolutions cut patches, it is the
    dense layer before the head.

    Args:
        model: Any classifier.
        name: A module's name to use instead, or ``"penultimate"`` for the head's input (after pooling).

    Returns:
        The module's name; for ``"penultimate"`` that word itself.

    Raises:
        ModelError: No such module (the message lists candidates), or nothing to choose from.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, "Normalized Embedding Vectors for Distributions".

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
        >>> representation_layer(net)
        '0'
    """
    modules = _in_use(model)
    candidates = _representing(modules)
    if name == PENULTIMATE:
        head(model)
        return PENULTIMATE
    if name is not None:
        if name == "" or name not in dict(model.named_modules()):
            offered = ", ".join([PENULTIMATE, *candidates[-_SHOWN:]])
            raise ModelError(
                f"the model has no layer {name!r}, which --layer names, or a profile of another model: use one of "
                f"{offered}, or any other name in model.named_modules()"
            )
        return name
    chosen = _last_encoder_dense(modules) or _before_the_head(modules)
    if chosen is None:
        raise ModelError(
            "found neither a convolution, nor an encoder block, nor two dense layers: "
            f"name the representation with --layer; candidates: {', '.join(candidates) or 'none'}"
        )
    return chosen


def head_name(model: nn.Module) -> str:
    """The classifier's name: the last dense layer in module order, or the last convolution where none is dense."""
    names = _representing(_in_use(model))
    if not names:
        raise ModelError("the model has no dense layer and no convolution, so no head: name the layer with --layer")
    return names[-1]


def head(model: nn.Module) -> nn.Module:
    """The classifier itself, see :func:`head_name`."""
    return model.get_submodule(head_name(model))


def dense_names(model: nn.Module) -> list[str]:
    """The names of all dense layers in use, in module order."""
    return _dense(_in_use(model))


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
        kind = "parametrized" if is_parametrized(old) else f"{type(old).__name__}, or has hooks of its own"
        raise ModelError(f"the head {name!r} is {kind}; only a plain nn.Linear or nn.Conv2d can be made anew")
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
    settings = {name: getattr(old, name) for name in _CONVOLUTION}
    try:
        return nn.Conv2d(old.in_channels, outputs, **settings, **common)
    except ValueError as error:
        raise ModelError(f"the head, a convolution of {old.groups} groups, cannot have {outputs} outputs") from error


def _in_use(model: nn.Module) -> Modules:
    """Named modules without auxiliary classifiers, which evaluation never runs, and timm's dense convolutions."""
    return {
        name: module
        for name, module in model.named_modules()
        if not any(part.lower().startswith(_ASIDE) for part in name.split("."))
    }


def _is_dense(module: nn.Module) -> bool:
    """Also transformers' Conv1D of the GPT-2 family, a dense layer with its weight transposed."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _convolutions(modules: Modules) -> list[str]:
    return [name for name, module in modules.items() if isinstance(module, _CONVOLUTIONS)]


def _dense(modules: Modules) -> list[str]:
    return [name for name, module in modules.items() if _is_dense(module)]


def _representing(modules: Modules) -> list[str]:
    """What may be named as the representation, the head last."""
    return _convolutions(modules) + _dense(modules)


def _before_the_head(modules: Modules) -> str | None:
    """The last convolution, or the dense layer before the head; None if there is neither."""
    convolutions, dense = _convolutions(modules), _dense(modules)
    if not dense:
        convolutions = convolutions[:-1]  # the last one is the classifier, as in SqueezeNet
    only_patches = all(_cuts_patches(modules[name]) for name in convolutions)
    if convolutions and not (only_patches and len(dense) > 1):
        return convolutions[-1]
    return dense[-2] if len(dense) > 1 else None


def _cuts_patches(module: nn.Module) -> bool:
    size, stride = getattr(module, "kernel_size", None), getattr(module, "stride", None)
    return size == stride and size is not None and max(size) > 1


def _last_encoder_dense(modules: Modules) -> str | None:
    """The last dense layer of the block around the last attention; None without such a block.

    An attention module may hold nothing but attention (then its block has the dense layers), or be a whole
    block itself with the attention proper inside, as in MaxViT: the second try.
    """
    attentions = [
        name for name, module in modules.items() if any(word in type(module).__name__.lower() for word in _ATTENTION)
    ]
    outermost = [name for name in attentions if not any(name.startswith(f"{other}.") for other in attentions)]
    innermost = [name for name in attentions if not any(other.startswith(f"{name}.") for other in attentions)]
    return _dense_around(modules, outermost) or _dense_around(modules, innermost)


def _dense_around(modules: Modules, attentions: list[str]) -> str | None:
    if not attentions:
        return None
    inside = tuple(f"{name}." for name in attentions)
    dense = [name for name in _dense(modules)[:-1] if not name.startswith(inside)]  # never the head
    block = attentions[-1]
    while block:
        block = block.rpartition(".")[0]
        found = [name for name in dense if not block or name.startswith(f"{block}.")]
        if found:
            return found[-1]
        if isinstance(modules.get(block.rpartition(".")[0]), _CONTAINERS):
            return None  # one block of several, and it has no dense layer
    return None
