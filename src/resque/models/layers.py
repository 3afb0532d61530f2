"""Find the representation layer and the head of a classifier.

The search reads names, types and the order of registration; the model is never run. Auxiliary classifiers (``aux…``),
which evaluation does not run, and ``pre_logits…``, dense layers that timm builds as convolutions, are left out.

===========================================  ==========================================  ================
model family                                 representation layer                        head
===========================================  ==========================================  ================
convolutional network                        last convolution (raw output)               last dense layer
convolutional network without a dense layer  convolution before the head                 last convolution
transformer                                  last dense layer of the last encoder block  last dense layer
mixer (its convolutions only cut patches)    dense layer before the head                 last dense layer
perceptron                                   dense layer before the head                 last dense layer
===========================================  ==========================================  ================

A transformer is a model with a module whose type has "attention" or "attn" in its name; its last encoder block is the
smallest module around the last of them that holds dense layers outside attention.
"""

from torch import nn

from resque.errors import ModelError

__all__ = ["PENULTIMATE", "dense_names", "head", "head_name", "representation_layer"]

PENULTIMATE = "penultimate"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONTAINERS = (nn.Sequential, nn.ModuleList)
_UNUSED = ("aux", "pre_logits")
_ATTENTION = ("attention", "attn")
_CANDIDATES_SHOWN = 12
_Modules = dict[str, nn.Module]


def representation_layer(model: nn.Module, name: str | None = None) -> str:
    """Return the name of the module whose output is the representation.

    Args:
        model: Classifier of any family.
        name: Name of a module to use instead of the paper's, or ``"penultimate"`` for the input of the head, which
            comes after pooling.

    Returns:
        The module's name, or ``"penultimate"``.

    Raises:
        ModelError: There is no such module (the message lists candidates), or no layer to choose.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, "Normalized Embedding Vectors for Distributions".

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
        >>> representation_layer(net)
        '0'
    """
    modules = _modules_in_use(model)
    candidates = _convolutions(modules) + _dense(modules)
    if name == PENULTIMATE:
        head(model)
        return PENULTIMATE
    if name is not None:
        if name == "" or name not in dict(model.named_modules()):
            offered = ", ".join([PENULTIMATE, *candidates[-_CANDIDATES_SHOWN:]])
            raise ModelError(
                f"the model has no layer {name!r} (from --layer, or from the profile of another model): use one of "
                f"{offered}, or any other name in model.named_modules()"
            )
        return name
    chosen = _last_of_encoder(modules) or _before_head(modules)
    if chosen is None:
        raise ModelError(
            "found neither a convolution, nor an encoder block, nor two dense layers: "
            f"name the representation with --layer; candidates: {', '.join(candidates) or 'none'}"
        )
    return chosen


def head_name(model: nn.Module) -> str:
    """Return the name of the classification head: the last dense layer, or the last convolution if none is dense.

    Raises:
        ModelError: The model has neither.

    Example:
        >>> head_name(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
        '1'
    """
    modules = _modules_in_use(model)
    names = _dense(modules) or _convolutions(modules)
    if not names:
        raise ModelError("the model has no dense layer and no convolution, so no head: name the layer with --layer")
    return names[-1]


def head(model: nn.Module) -> nn.Module:
    """Return the classification head itself, see :func:`head_name`."""
    return model.get_submodule(head_name(model))


def dense_names(model: nn.Module) -> list[str]:
    """Return the names of all dense layers in use, in the order of registration."""
    return _dense(_modules_in_use(model))


def _modules_in_use(model: nn.Module) -> _Modules:
    return {
        name: module
        for name, module in model.named_modules()
        if not any(part.lower().startswith(_UNUSED) for part in name.split("."))
    }


def _convolutions(modules: _Modules) -> list[str]:
    return [name for name, module in modules.items() if isinstance(module, _CONVOLUTIONS)]


def _dense(modules: _Modules) -> list[str]:
    """Return the names of dense layers; ``Conv1D`` of transformers' GPT-2 is one with its weight transposed."""
    return [
        name for name, module in modules.items() if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
    ]


def _before_head(modules: _Modules) -> str | None:
    """Return the last convolution, or the dense layer before the head; None if there is neither."""
    convolutions, dense = _convolutions(modules), _dense(modules)
    if not dense:
        convolutions = convolutions[:-1]  # the last one is the head, as in SqueezeNet
    only_patches = all(_cuts_patches(modules[name]) for name in convolutions)
    if convolutions and not (only_patches and len(dense) > 1):
        return convolutions[-1]
    return dense[-2] if len(dense) > 1 else None


def _cuts_patches(convolution: nn.Module) -> bool:
    """Return whether the kernel is as large as the stride, so that no two outputs share a pixel."""
    size, stride = getattr(convolution, "kernel_size", None), getattr(convolution, "stride", None)
    return size == stride and size is not None and max(size) > 1


def _last_of_encoder(modules: _Modules) -> str | None:
    """Return the last dense layer of the block around the last attention; None without such a block.

    An attention module may hold attention alone, and its block the dense layers: the outermost attention modules are
    tried first. In MaxViT it is the whole block, with attention proper inside: the innermost are tried next.
    """
    attention = [
        name for name, module in modules.items() if any(word in type(module).__name__.lower() for word in _ATTENTION)
    ]
    outermost = [name for name in attention if not any(name.startswith(f"{other}.") for other in attention)]
    innermost = [name for name in attention if not any(other.startswith(f"{name}.") for other in attention)]
    return _dense_around(modules, outermost) or _dense_around(modules, innermost)


def _dense_around(modules: _Modules, attention: list[str]) -> str | None:
    """Return the last dense layer outside attention, from the smallest block around the last attention module."""
    inside = tuple(f"{name}." for name in attention)
    dense = [name for name in _dense(modules)[:-1] if not name.startswith(inside)]  # never the head
    block = attention[-1] if attention else ""
    while block:
        block = block.rpartition(".")[0]
        found = [name for name in dense if not block or name.startswith(f"{block}.")]
        if found:
            return found[-1]
        if isinstance(modules.get(block.rpartition(".")[0]), _CONTAINERS):
            return None  # one block of several, without a dense layer
    return None
