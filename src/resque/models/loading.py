"""Load a classifier: from its specification to a model with weights on a device.

:mod:`resque.models.registry` builds what a specification names, :mod:`resque.models.weights` reads the weights and
fingerprints the result, :mod:`resque.models.layers` finds its representation layer and its head. A specification is

* ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``, a function that returns an ``nn.Module``, or
* ``timm:NAME``, ``torchvision:NAME`` or ``hf:PATH_OR_ID``, a model of those libraries.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from resque.errors import ModelError
from resque.models.heads import fit_head
from resque.models.layers import head_name
from resque.models.randomness import isolated_random_state
from resque.models.registry import build_model
from resque.models.weights import check_weights, fingerprint, load_state, read_weights

__all__ = ["fresh_model", "is_untrained", "load_model", "move_to_device", "usable_device"]


def load_model(
    model: str | nn.Module,
    weights: str | Path | None = None,
    seed: int = 0,
    classes: int | None = None,
    download: bool = False,
) -> nn.Module:
    """Build the model that a specification names, or take one that is built, and load weights into it.

    Args:
        model: Specification, or an ``nn.Module``, which is changed in place.
        weights: ``.safetensors`` or ``.pt`` file of a state dict; None keeps the weights that the model has.
        seed: Seed of random initial weights, so that one specification always gives the same model.
        classes: Number of outputs; None takes that of the weights, or else the specification's own. A callable gets
            it if it has a parameter ``num_classes``. If weights differ in that number alone, the head is replaced.
        download: Whether names on a hub, and weights of tagged timm names, are fetched; if not, they must be here.

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: The specification names no ``nn.Module``, the weights do not fit or are not finite, or they or a
            model that is passed have another number of outputs than ``classes``.

    Example:
        >>> type(load_model("resque.networks:small_cnn")).__name__
        'Sequential'
        >>> load_model(nn.Linear(2, 3)).training
        False
    """
    state = None if weights is None else read_weights(Path(weights))
    if isinstance(model, nn.Module):
        network, outputs = model, _count_outputs(model.state_dict(), model)
        if classes not in (None, outputs):
            raise ModelError(
                f"the model has {outputs} outputs; expected {classes}: replace its head, or leave classes out"
            )
    else:
        network = build_model(model, seed, classes, download=download)
        outputs = None if state is None else _count_outputs(state, network)
        if classes is not None and outputs not in (None, classes):
            raise ModelError(
                f"the weights {weights} have {outputs} outputs, and --classes says {classes}: "
                "leave it out, or name other weights"
            )
        if classes is None and outputs not in (None, _count_outputs(network.state_dict(), network)):
            network = build_model(model, seed, outputs, download=download)
        network.resque_spec = model  # type: ignore[assignment]  # workflows know its preprocessing by it
    if state is not None:
        _fit_head(network, state, seed)
        load_state(network, state, weights)
    check_weights(network)
    return network.eval()


def fresh_model(spec: str, like: nn.Module, seed: int = 0) -> nn.Module:
    """Build the architecture of a model with new random weights.

    Args:
        spec: Specification of the model.
        like: The model, whose number of outputs is taken.
        seed: Seed of the weights.

    Raises:
        ModelError: The specification always gives the same weights, or another architecture.

    Example:
        >>> model = load_model("resque.networks:small_cnn", seed=1)
        >>> fingerprint(fresh_model("resque.networks:small_cnn", model, seed=1)) == fingerprint(model)
        True
    """
    outputs = _count_outputs(like.state_dict(), like)
    model, other = (build_model(spec, each, outputs, trained=False) for each in (seed, seed + 1))
    if fingerprint(model) == fingerprint(other):
        raise ModelError(
            f"{spec} gives the same weights for every seed; training from scratch needs random ones: "
            "let it leave them random, and name the trained ones with --weights"
        )
    _fit_head(model, like.state_dict(), seed)
    shapes, expected = ({name: t.shape for name, t in each.state_dict().items()} for each in (model, like))
    if shapes != expected:
        raise ModelError(f"{spec} builds another architecture than the model that is retrained")
    return model.eval()


def is_untrained(spec: str, model: nn.Module, seed: int = 0) -> bool:
    """Return whether a model has the random weights that its specification gives for a seed, as far as can be told.

    Args:
        spec: Specification of the model.
        model: The model.
        seed: Seed of the random weights.

    Example:
        >>> spec = "resque.networks:small_cnn"
        >>> [is_untrained(spec, load_model(spec, seed=1), seed) for seed in (1, 2)]
        [True, False]
    """
    try:
        return fingerprint(fresh_model(spec, model, seed)) == fingerprint(model)
    except ModelError:  # it always gives the same weights
        return False


def usable_device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        ModelError: The device is unknown or not available.

    Example:
        >>> usable_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.empty(0, device=name)
        device.cpu()  # a device without values is none to compute on
        return device.device
    except Exception as error:  # each backend raises errors of its own
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ModelError(f"device {name!r} cannot be used: {reason}; `resque doctor` shows the devices") from error


def move_to_device(model: nn.Module, device: str) -> nn.Module:
    """Move a model to a device.

    Raises:
        ModelError: The device is unknown or not available.

    Example:
        >>> move_to_device(nn.Linear(2, 2), "cpu").weight.device
        device(type='cpu')
    """
    return model.to(usable_device(device))


def _fit_head(model: nn.Module, state: Mapping[str, Tensor], seed: int) -> None:
    """Fit the head to a state dict; the global random state stays as it is."""
    with isolated_random_state(torch.device("cpu"), seed):
        fit_head(model, state)


def _count_outputs(state: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """Return the number of classes of a state dict, read from the weight of the model's head; None if unknown."""
    try:
        weight = state.get(f"{head_name(model)}.weight")
    except ModelError:
        return None
    return None if weight is None or not weight.ndim else len(weight)
