"""Readers of datasets of pairs (x, y): torchvision's, and the user's own."""

import inspect
import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from resque._callables import describe_failure, load_callable
from resque._format import describe_error
from resque._optional import import_optional
from resque._sizes import check_memory
from resque.data.readers.images import image_to_array, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError, ModelError

__all__ = ["read_callable", "read_torchvision"]

_OVERHEAD = 512  # bytes of a sample besides its values
_CHECKED = 2**24  # bytes after which the free memory is looked at again


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
    return _read_pairs(options.track(_samples_of(dataset, spec, options), len(dataset)), spec, names)


def read_callable(spec: str, options: ReadOptions) -> RawSamples:
    """Call a function of the user, and read the dataset of pairs (x, y) that it returns."""
    try:
        function = load_callable(spec)
    except ModelError as error:
        raise DataError(str(error)) from error
    try:
        dataset: Any = function()
    except (KeyboardInterrupt, DataError):
        raise
    except BaseException as error:  # a user's own code may raise anything
        raise DataError(describe_failure(spec, function, error)) from error
    return _read_pairs(options.track(_samples_of(dataset, spec, options), None), spec)


@contextmanager
def _foreign_code(what: str) -> Iterator[None]:
    """Turn whatever the code of a user raises into a DataError; an interruption stays one."""
    try:
        yield
    except (KeyboardInterrupt, DataError):
        raise
    except BaseException as error:
        raise DataError(f"{what}: {describe_error(error)}") from error


def _samples_of(dataset: Any, name: str, options: ReadOptions) -> Iterator[Any]:
    """Yield the samples of a dataset; turn what its code raises, and a false length, into a DataError.

    Args:
        dataset: Dataset with indices and a length, or an iterable.
        name: Its name in error messages.
        options: Settings of the reader; its limit ends an iterable.
    """
    total, by_index, limit = None, hasattr(dataset, "__getitem__"), options.limit
    if hasattr(dataset, "__len__"):
        with _foreign_code(f"{name}: the length of its dataset failed"):
            total = len(dataset)
    of, end = "" if total is None else f" of {total:,}", object()
    if total is not None and by_index and not isinstance(dataset, IterableDataset):
        samples: Iterator[Any] = map(dataset.__getitem__, range(total))
    elif hasattr(dataset, "__iter__"):
        options.refuse_stream(name)
        with _foreign_code(f"{name}: sample 0{of} failed"):
            samples = itertools.islice(iter(dataset), limit)
    else:
        raise DataError(f"{name} returned a {type(dataset).__name__}; expected a dataset of pairs (x, y)")
    for number in itertools.count():
        with _foreign_code(f"{name}: sample {number}{of} failed"):
            sample = next(samples, end)
        if sample is end:
            break
        yield sample
        if total is not None and number >= total:
            raise DataError(f"{name} has more samples than its length says, {total:,}; expected as many")
    if total is not None and number < min(total, total if limit is None else limit):
        raise DataError(f"{name} has {number:,} samples, and its length says {total:,}; expected as many")


def _read_pairs(pairs: Iterable[Any], name: str, class_names: tuple[str, ...] = ()) -> RawSamples:
    decoded, labels, size, checked = [], [], 0, 0
    for number, pair in enumerate(pairs):
        with _foreign_code(f"{name}: sample {number} cannot be used as input"):
            if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) != 2:
                raise DataError(f"{name}: sample {number} is a {type(pair).__name__}; expected a pair (x, y)")
            value, label = pair[0], pair[1]
            try:
                decoded.append(_decode(value))
            except DataError as error:
                raise DataError(f"{name}: sample {number} {error}") from error
        labels.append(label)
        size += _OVERHEAD + _bytes_of(decoded[-1][1])
        if size - checked > _CHECKED:
            check_memory(name, size, held=size)
            checked = size
    if not decoded:
        raise DataError(f"{name} holds no samples")
    return RawSamples(_collate(decoded, name), labels, class_names)


def _bytes_of(value: Any) -> int:
    """Return the bytes of an input, or of a mapping of inputs with their kinds."""
    if isinstance(value, dict):
        return sum(_bytes_of(each) for _, each in value.values())
    return len(value) if isinstance(value, str) else int(value.nbytes)


def _decode(value: Any) -> tuple[str, Any]:
    """Return the kind of an input, and the input as it is put together with others of its kind."""
    if np.ma.is_masked(value):
        raise DataError("has masked values; expected all: leave it out")
    if hasattr(value, "convert"):
        return "image", image_to_array(value)
    if isinstance(value, np.ndarray) and value.ndim in (2, 3) and np.issubdtype(value.dtype, np.integer):
        if value.dtype != np.uint8:
            raise DataError(f"is an image of {value.dtype}; expected uint8, 0 to 255, or floats in [0, 1]")
        return "image", value if value.ndim == 3 else value[:, :, None]
    if isinstance(value, str):
        return "text", value
    if isinstance(value, Mapping) and value:
        return f"mapping of {', '.join(map(str, value))}", {key: _decode(each) for key, each in value.items()}
    return "tensor", torch.as_tensor(value)


def _collate(decoded: list[tuple[str, Any]], name: str) -> Any:
    """Return images, texts, tensors, or mappings of these, as one batch."""
    kinds, values = sorted({kind for kind, _ in decoded}), [value for _, value in decoded]
    if len(kinds) > 1:
        raise DataError(f"{name}: samples are of several kinds: {'; '.join(kinds)[:200]}; expected one kind")
    if kinds == ["text"]:
        return values
    if isinstance(values[0], dict):
        return {key: _collate([value[key] for value in values], name) for key in values[0]}
    try:
        return stack_images(values) if kinds == ["image"] else torch.stack(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name}: samples cannot be put together ({describe_error(error)}); expected one shape"
        ) from error
