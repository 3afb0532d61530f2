"""Read and write state dicts without pickled code, and fingerprint a model."""

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resque._files import write_atomically
from resque.errors import ModelError


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
    put_weights(model, read_weights(path), path)


def put_weights(model: nn.Module, state: dict[str, Tensor], path: str | Path | None) -> None:
    """Load a state dict into a model; raise ModelError where it does not fit."""
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ModelError(f"weights {path} do not fit the model: {first}") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with write_atomically(path) as scratch:
        save_file(state, scratch)


def fingerprint(model: nn.Module) -> str:
    """Which model this is: a hash of the names, shapes and values of its state, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
