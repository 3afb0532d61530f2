"""Model specifications → ``nn.Module``, its weights, its device, and a fingerprint of what it has learned.

``FILE.py:CALLABLE`` or ``package.module:CALLABLE`` names a function that returns an ``nn.Module``; ``timm:``,
``torchvision:`` and ``hf:`` name models of those libraries (:mod:`resque.models.registry`). Weights come from
``.safetensors``, or from ``.pt`` read without executing pickled code.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from resque._callables import load_callable
from resque.errors import ModelError
from resque.models import registry
from resque.models.layers import head_name
from resque.models.registry import library_of
from resque.models.weights import fingerprint, put_weights, read_weights


def load_model(spec: str, weights: str | Path | None = None, seed: int = 0, classes: int | None = None) -> nn.Module:
    """Build a model from its specification and load its weights.

    Args:
        spec: ``timm:NAME``, ``torchvision:NAME``, ``hf:PATH_OR_ID``, ``FILE.py:CALLABLE`` or
            ``package.module:CALLABLE``.
        weights: ``.safetensors`` or ``.pt`` file of a state dict; None keeps those that the specification gives.
        seed: Of random initial weights, so that two commands that name the same model get the same one.
        classes: Outputs; None takes the number that the weights have, or else the specification's own. A callable is
            told if it takes ``num_classes``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: No such file, callable or architecture, it is no ``nn.Module``, or the weights do not fit.

    Example:
        >>> type(load_model("resque.networks:small_cnn")).__name__
        'Sequential'
    """
    state = None if weights is None else read_weights(Path(weights))
    model = _built(spec, seed, classes)
    if state is not None:
        outputs = _outputs(state, model)
        if classes is None and outputs not in (None, _outputs(model.state_dict(), model)):
            model = _built(spec, seed, outputs)
        put_weights(model, state, weights)
    return model.eval()


def fresh_model(spec: str, like: nn.Module, seed: int = 0) -> nn.Module:
    """The same architecture with new random weights.

    Args:
        spec: Of the model.
        like: The model, which says how many outputs.
        seed: Of the weights.

    Raises:
        ModelError: What the specification names has weights of its own, or is another architecture.

    Example:
        >>> model = load_model("resque.networks:small_cnn", seed=1)
        >>> fingerprint(fresh_model("resque.networks:small_cnn", model, seed=1)) == fingerprint(model)
        True
    """
    outputs = _outputs(like.state_dict(), like)
    model = _built(spec, seed, outputs, trained=False)
    if fingerprint(model) == fingerprint(_built(spec, seed + 1, outputs, trained=False)):
        raise ModelError(
            f"{spec} has the same weights whatever the seed, so none to begin from scratch with: "
            "let it leave them random, and name the trained ones with --weights"
        )
    shapes = [{name: tensor.shape for name, tensor in each.state_dict().items()} for each in (like, model)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"{spec} builds another architecture than the model that is retrained")
    return model.eval()


def _built(spec: str, seed: int, classes: int | None, trained: bool = True) -> nn.Module:
    family = library_of(spec)
    build = None if family else load_callable(spec)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if build is None:
            assert family is not None
            return registry.build_from_library(*family, classes, trained)
        try:
            takes = inspect.signature(build).parameters
            model = build(num_classes=classes) if classes is not None and "num_classes" in takes else build()
        except (Exception, SystemExit) as error:  # a user's own code may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise ModelError(f"{spec} failed: {reason}; it must run without arguments") from error
    if isinstance(model, nn.Module) and any(is_lazy(p) for p in (*model.parameters(), *model.buffers())):
        raise ModelError(f"{spec} has lazy layers without a size: pass one batch through the model before returning it")
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} returned {type(model).__name__}; expected a torch.nn.Module")
    return model


def _outputs(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """How many classes a state dict has, by the name of the model's head; None if it does not say."""
    try:
        there = state.get(f"{head_name(model)}.weight")
    except ModelError:
        return None
    return None if there is None else len(there)


def move_to_device(model: nn.Module, device: str) -> nn.Module:
    """Move the model; a device that is not there is refused."""
    try:
        return model.to(torch.device(device))
    except Exception as error:  # each backend has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"device {device!r} cannot be used: {reason}; `resque doctor` shows the devices") from error
