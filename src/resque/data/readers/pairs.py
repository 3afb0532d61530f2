"""Readers of datasets of pairs (x, y): torchvision's, and the user's own."""

import inspect
import itertools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from resque._callables import load_callable
from resque._optional import import_optional
from resque.data.readers.images import image_to_array, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError, ModelError

__all__ = ["read_callable", "read_torchvision"]


def read_torchvision(spec: str, options: ReadOptions) -> RawSamples:
    """Read ``NAME`` or ``NAME:SPLIT`` of ``torchvision.datasets``, by default the training data, without download."""
    name, _, split = spec.partition(":")
    split = split or "train"
    constructor: Any = getattr(import_optional("torchvision.datasets", "models"), name, None)
    if not isinstance(constructor, type):
        raise DataError(f"torchvision has no dataset {name!r}: e.g. CIFAR10, SVHN, GTSRB, FashionMNIST (case counts)")
    parameters = inspect.signature(constructor).parameters
    arguments: dict[str, Any] = {"train": split == "train"} if "train" in parameters else {"split": split}
    if name == "EMNIST":
        arguments = {"split": "balanced", "train": split == "train"}
    if "train" in arguments and split not in ("train", "test"):
        raise DataError(f"torchvision:{name} has no part {split!r}: use train or test")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's own reading, e.g. numpy's deprecations
            dataset: Any = constructor(str(options.root), **arguments)
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        reason, root = (str(error).splitlines() or [""])[0][:200], str(options.root)
        raise DataError(
            f"torchvision:{name} cannot be read under {root!r} ({reason}); name the folder with --data-root, "
            f"or fetch it there: torchvision.datasets.{name}({root!r}, …, download=True)"
        ) from error
    names = tuple(map(str, getattr(dataset, "classes", ()) or ()))
    return _read_pairs(options.track(map(dataset.__getitem__, range(len(dataset))), len(dataset)), spec, names)


def read_callable(spec: str, options: ReadOptions) -> RawSamples:
    """Call a function of the user, and read the dataset of pairs (x, y) that it returns."""
    try:
        dataset: Any = load_callable(spec)()
    except ModelError as error:
        raise DataError(str(error)) from error
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise DataError(f"{spec} failed: {type(error).__name__}: {error}; it must run without arguments") from error
    total = len(dataset) if hasattr(dataset, "__len__") else None
    if total is not None and hasattr(dataset, "__getitem__"):
        pairs: Iterable[Any] = map(dataset.__getitem__, range(total))
    elif hasattr(dataset, "__iter__"):
        pairs = itertools.islice(iter(dataset), options.limit)
    else:
        raise DataError(f"{spec} returned a {type(dataset).__name__}; expected a dataset of pairs (x, y)")
    return _read_pairs(options.track(pairs, total), spec)


def _read_pairs(pairs: Iterable[Any], name: str, class_names: tuple[str, ...] = ()) -> RawSamples:
    values, labels = [], []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise DataError(f"{name}: a sample is a {type(pair).__name__}; expected a pair (x, y)")
        values.append(image_to_array(pair[0]) if hasattr(pair[0], "convert") else pair[0])
        labels.append(pair[1])
    if not values:
        raise DataError(f"{name} holds no samples")
    return RawSamples(_collate(values, name), labels, class_names)


def _collate(values: list[Any], name: str) -> Any:
    """Return images, texts, tensors, or mappings of these, as one batch."""
    first = values[0]
    if isinstance(first, str):
        return values
    if isinstance(first, Mapping):
        return {key: _collate([value[key] for value in values], name) for key in first}
    if isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim in (2, 3):
        return stack_images([value[:, :, None] if value.ndim == 2 else value for value in values])
    try:
        return torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{name}: samples cannot be put together ({reason}); expected one shape") from error
