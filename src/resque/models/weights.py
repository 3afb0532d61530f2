"""Weights files without pickled code, and the fingerprint of a model."""

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resque._files import write_atomically
from resque._sizes import check_expansion, check_memory, stored_bytes
from resque.errors import ModelError

__all__ = [
    "check_weights", "fingerprint", "load_state", "read_class_names", "read_weights", "save_weights", "write_tensors",
]  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a ``.safetensors`` or ``.pt`` file onto the CPU.

    Raises:
        ModelError: There is no such file, it holds pickled code, or it is no state dict.
    """
    if not os.path.isfile(path):  # pathlib raises on names that are too long
        raise ModelError(f"no such weights file: {path}; expected a .safetensors or .pt file")
    size = _unpacked_bytes(path)
    check_expansion(path, size, stored_bytes(path))
    check_memory(path, size)
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path} holds pickled code, which is never run here; save model.state_dict() as .safetensors"
        ) from error
    except Exception as error:  # torch's reader raises errors of many types on other files
        raise ModelError(f"{path} is not a weights file that can be read: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}; expected a state dict of tensors")
    return state


def _unpacked_bytes(path: Path) -> int:
    """Return the bytes that a file takes in memory, unpacked if it is an archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(info.file_size for info in archive.infolist())
    except (OSError, zipfile.BadZipFile):
        return path.stat().st_size


def load_state(model: nn.Module, state: dict[str, Tensor], source: str | Path | None) -> None:
    """Load a state dict into a model; the error for one that does not fit names its source.

    Raises:
        ModelError: Names or shapes differ.
    """
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"weights {source} do not fit the model: {reason}") from error


def check_weights(model: nn.Module) -> None:
    """Raise an error if a weight or buffer is not finite; a buffer may hold -inf, as attention masks do.

    Raises:
        ModelError: A tensor holds NaN or infinity; names it.

    Example:
        >>> check_weights(nn.BatchNorm1d(2))
    """
    parameters = {name for name, _ in model.named_parameters()}
    spoiled: dict[str, Tensor] = {}  # name → a boolean on the device, which is waited for once
    for name, tensor in model.state_dict().items():
        if not tensor.is_meta and (tensor.is_floating_point() or tensor.is_complex()):
            values = tensor if tensor.element_size() > 1 else tensor.float()  # 8 bits: no isfinite
            allowed = torch.isfinite(values)
            spoiled[name] = ~(allowed if name in parameters else allowed | (values == -torch.inf)).all()
    flags = list(spoiled.values())
    if flags and bool(torch.stack([flag.to(flags[0].device) for flag in flags]).any()):
        name = next(name for name, flag in spoiled.items() if flag)
        raise ModelError(
            f"{name} of the model holds NaN or infinity: expected finite weights; load those of a sound training"
        )


def save_weights(model: nn.Module, path: Path, class_names: Sequence[str] = ()) -> None:
    """Write the state dict of a model as safetensors, atomically; names of its classes go into the metadata."""
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with write_atomically(path) as scratch:
        write_tensors(state, scratch, {"class_names": json.dumps(class_names)} if class_names else None)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Return the names of a model's classes that are kept with its weights; none if there are none.

    Raises:
        ModelError: They are no list of texts.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(nn.Linear(4, 2), Path(folder) / "w.safetensors", ("cat", "dog"))
        ...     read_class_names(Path(folder) / "w.safetensors")
        ('cat', 'dog')
    """
    if path.suffix != ".safetensors" or not os.path.isfile(path):
        return ()
    try:
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get("class_names", "[]")
    except (SafetensorError, OSError):  # read_weights says what is wrong
        return ()
    try:
        names = json.loads(written)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{path}: class_names is {written!r:.40}; expected a JSON list of texts in the metadata")
    return tuple(names)


def write_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors; a full disk is an OSError, as it is for other files.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors({"w": torch.ones(2)}, Path(folder) / "w.safetensors")
        ...     load_file(Path(folder) / "w.safetensors")["w"].tolist()
        [1.0, 1.0]
    """
    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def fingerprint(model: nn.Module) -> str:
    """Hash the names, shapes, types and values of a model's state to 16 hexadecimal digits.

    Example:
        >>> zeros = nn.Linear(2, 1)
        >>> for parameter in zeros.parameters():
        ...     _ = nn.init.zeros_(parameter)
        >>> fingerprint(zeros) == fingerprint(nn.Linear(2, 1))
        False
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
