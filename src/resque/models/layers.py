"""Which part of a model is what: the layer whose output is the representation, and the head.

Found from names, types and the order of registration alone; the model is never run here.
"""

from torch import nn

from resque.errors import ModelError

PENULTIMATE = "penultimate"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONTAINERS = (nn.Sequential, nn.ModuleList)
_ASIDE = ("aux", "pre_logits")
_ATTENTION = ("attention", "attn")
_SHOWN = 12
CONVOLUTION = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
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
    modules = modules_in_use(model)
    candidates = representing_modules(modules)
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


def modules_in_use(model: nn.Module) -> Modules:
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


def dense_modules(modules: Modules) -> list[str]:
    """Return the names of the dense layers, in order."""
    return [name for name, module in modules.items() if _is_dense(module)]


def representing_modules(modules: Modules) -> list[str]:
    """What may be named as the representation, the head last."""
    return _convolutions(modules) + dense_modules(modules)


def _before_the_head(modules: Modules) -> str | None:
    """The last convolution, or the dense layer before the head; None if there is neither."""
    convolutions, dense = _convolutions(modules), dense_modules(modules)
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
    dense = [name for name in dense_modules(modules)[:-1] if not name.startswith(inside)]  # never the head
    block = attentions[-1]
    while block:
        block = block.rpartition(".")[0]
        found = [name for name in dense if not block or name.startswith(f"{block}.")]
        if found:
            return found[-1]
        if isinstance(modules.get(block.rpartition(".")[0]), _CONTAINERS):
            return None  # one block of several, and it has no dense layer
    return None


def head_name(model: nn.Module) -> str:
    """The classifier's name: the last dense layer in module order, or the last convolution where none is dense."""
    names = representing_modules(modules_in_use(model))
    if not names:
        raise ModelError("the model has no dense layer and no convolution, so no head: name the layer with --layer")
    return names[-1]


def head(model: nn.Module) -> nn.Module:
    """The classifier itself, see :func:`head_name`."""
    return model.get_submodule(head_name(model))


def dense_names(model: nn.Module) -> list[str]:
    """The names of all dense layers in use, in module order."""
    return dense_modules(modules_in_use(model))
