"""Model specifications → ``nn.Module``, its weights, its device, and a fingerprint of what it has learned.

``FILE.py:CALLABLE`` or ``package.module:CALLABLE`` names a function that returns an ``nn.Module``; ``timm:``,
``torchvision:`` and ``hf:`` name models of those libraries (:mod:`resque.families`). Weights come from
``.safetensors``, or from ``.pt`` read without executing pickled code.
"""

import hashlib
import importlib
import importlib.util
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from resque import families
from resque.errors import ModelError
from resque.families import family_of
from resque.files import replacing
from resque.layers import head_name


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
        _put(model, state, weights)
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
    family = family_of(spec)
    build = None if family else in_python(spec)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if build is None:
            assert family is not None
            return families.build(*family, classes, trained)
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


def in_python(spec: str) -> Callable[..., Any]:
    """The callable of ``FILE.py:CALLABLE`` or ``package.module:CALLABLE``."""
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise ModelError(
            f"cannot find {spec!r}: expected FILE.py:CALLABLE or package.module:CALLABLE; "
            "a model may also be timm:NAME, torchvision:NAME or hf:PATH_OR_ID"
        )
    if place.endswith(".py"):
        module = _module_from_file(Path(place))
    else:
        try:
            module = importlib.import_module(place)
        except Exception as error:
            raise ModelError(f"cannot import {place!r} ({error}); for a file write {place}.py:{name}") from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if found is None or not callable(found):
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"no callable {name!r} in {place}; it offers: {', '.join(sorted(offered)) or 'none'}")
    return found


def _module_from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModelError(f"no such file: {path}; expected a Python file with a callable that returns an nn.Module")
    name = f"resque_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ModelError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file; pickled code is refused."""
    if not path.is_file():
        raise ModelError(f"no such weights file: {path}; expected a .safetensors or .pt file")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds pickled code, which is never run here; save model.state_dict() as .safetensors"
        ) from error
    except Exception as error:  # torch's reader raises many kinds on a file that is none
        raise ModelError(f"{path} is not a weights file that can be read: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}; expected a state dict of tensors")
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Put the state dict of a file into the model; one that does not fit is refused."""
    _put(model, read_weights(path), path)


def _put(model: nn.Module, state: dict[str, Tensor], path: str | Path | None) -> None:
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"weights {path} do not fit the model: {first}") from error


def on_device(model: nn.Module, device: str) -> nn.Module:
    """Move the model; a device that is not there is refused."""
    try:
        return model.to(torch.device(device))
    except Exception as error:  # each backend has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"device {device!r} cannot be used: {reason}; `resque doctor` shows the devices") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with replacing(path) as scratch:
        save_file(state, scratch)


def fingerprint(model: nn.Module) -> str:
    """Which model this is: a hash of the names, shapes and values of its state, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
