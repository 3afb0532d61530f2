"""Raw samples of a source, and their checked conversion to a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque.data.class_names import number_words
from resque.data.dataset import Inputs, LabeledDataset
from resque.data.preprocessing import Preprocessing, Tokenization, as_float, check_side, resize
from resque.errors import DataError, RepresentationError

__all__ = ["RawSamples", "samples_from_arrays", "to_dataset"]

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class RawSamples:
    """Samples as a source holds them, not yet checked.

    Attributes:
        inputs: Images ``(n, h, w)`` or ``(n, h, w, c)`` uint8, a list of such images of several sizes, a list of texts,
            or tensors that are ready for the model.
        labels: Class numbers or names, ``(n,)``; None if the source has none.
        class_names: Names of the labels 0, 1, …, if the source has them.
        numbered_by_name: Whether the numbers stand for places of the names in sorted order.
        rows: Which samples of the source the inputs are, if not all; the labels are those of all.
        total: Number of samples in the source, if not all were read.
    """

    inputs: np.ndarray | list[Any] | Tensor | Mapping[str, Tensor]
    labels: Any
    class_names: tuple[str, ...] = ()
    numbered_by_name: bool = False
    rows: np.ndarray | None = None
    total: int = 0


def samples_from_arrays(name: str, x: Any, y: Any) -> RawSamples:
    """Return the samples of a pair of arrays, lists or tensors.

    Args:
        name: Name of the data in error messages.
        x: An array of images, uint8 or floats in [0, 1], ``(n, h, w)`` or ``(n, h, w, c)``; a tensor of images
            ``(n, c, h, w)``, or of any other inputs that are ready for the model; or a list of texts.
        y: Class numbers or names, ``(n,)``; None for data without labels.

    Raises:
        DataError: If the inputs have a wrong shape, type or range.

    Example:
        >>> samples_from_arrays("mine", np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1]).inputs.shape
        torch.Size([4, 3, 8, 8])
    """
    if isinstance(x, list | tuple) and x and all(isinstance(text, str) for text in x):
        return RawSamples(list(x), y)
    if not isinstance(x, Tensor):
        inputs = _channels_first(name, x)
    else:
        inputs = as_tensor(x).cpu()
        inputs = inputs[:, None] if inputs.ndim == 3 and inputs.dtype == torch.uint8 else inputs
        if inputs.ndim < 2 or (inputs.ndim == 4 and inputs.shape[1] not in _CHANNELS):
            raise DataError(
                f"{name}: inputs have shape {tuple(inputs.shape)}; expected images (n, c, h, w) with 1, 3 or 4 "
                "channels (channels last: permute(0, 3, 1, 2)), or other inputs (n, …)"
            )
    if inputs.ndim != 4 or inputs.dtype == torch.uint8:
        return RawSamples(inputs, y)
    if not inputs.dtype.is_floating_point:
        raise DataError(f"{name}: images are {inputs.dtype}; expected uint8, 0 to 255, or floats in [0, 1]")
    if inputs.numel() and not (inputs.min() >= 0 and inputs.max() <= 1):  # refuses NaN, too
        low, high = float(inputs.min()), float(inputs.max())
        raise DataError(f"{name}: images hold values from {low:g} to {high:g}; expected uint8, or floats in [0, 1]")
    return RawSamples(inputs.float(), y)


def to_dataset(
    source: str, samples: RawSamples, preprocessing: Preprocessing, side: int | None = None
) -> LabeledDataset:
    """Check samples and return them as a dataset, images with their channels first.

    Args:
        source: Name of the dataset.
        samples: Samples of the source.
        preprocessing: Preprocessing of the model.
        side: Side in pixels of images that differ in size; None takes the model's.

    Raises:
        DataError: If the inputs or labels have a wrong shape or type.

    Example:
        >>> from resque.data.preprocessing import NO_PREPROCESSING
        >>> to_dataset("mine", RawSamples(torch.zeros(4, 7), [0, 1, 0, 1]), NO_PREPROCESSING).classes
        [0, 1]
    """
    inputs = _to_inputs(source, samples.inputs, preprocessing, side)
    n = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
    if n == 0:
        raise DataError(f"{source}: no samples; expected at least two")
    labeled = samples.labels is not None
    numbers, words = number_words(source, samples.labels)
    rows, total = (torch.arange(n), n) if samples.rows is None else (torch.from_numpy(samples.rows), samples.total)
    try:
        labels = as_labels(numbers, total) if labeled else torch.zeros(total, dtype=torch.int64)
    except RepresentationError as error:
        raise DataError(f"{source}: {error}") from error
    return LabeledDataset(
        source,
        inputs,
        labels.cpu()[rows],
        rows,
        transform=preprocessing,
        class_names=words or samples.class_names,
        labeled=labeled,
        numbered_by_name=bool(words) or samples.numbered_by_name,
    )


def _to_inputs(source: str, inputs: Any, preprocessing: Preprocessing, side: int | None) -> Inputs:
    """Tokenize texts and bring images to one size, with their channels first; return tensors as they are."""
    if isinstance(inputs, Mapping) or (isinstance(inputs, Tensor) and inputs.ndim != 4):
        return inputs
    if isinstance(inputs, list) and isinstance(inputs[0], str):
        if not isinstance(preprocessing, Tokenization):
            raise DataError(f"{source} holds texts, which a text classifier reads: --model hf:PATH_OR_ID")
        return preprocessing.encode(inputs)
    if isinstance(preprocessing, Tokenization):
        raise DataError(f"{source} holds images, and the model reads texts: name a dataset with a column of texts")
    if isinstance(inputs, list):
        return _resize_all(source, inputs, side or preprocessing.side)
    if isinstance(inputs, Tensor):
        if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
            raise DataError(f"{source}: images are {inputs.dtype}; expected uint8, 0 to 255, or floats in [0, 1]")
        return inputs
    images = _channels_first(source, inputs)
    if images.dtype != torch.uint8:
        raise DataError(f"{source}: images are {images.dtype}; expected uint8, 0 to 255 (scale and .astype('uint8'))")
    return images


def _resize_all(source: str, images: list[np.ndarray], side: int | None) -> Tensor:
    """Return images of several sizes as one tensor of images of ``side`` × ``side`` pixels."""
    sizes = sorted({image.shape[:2] for image in images})
    if side is None:
        shown = ", ".join(f"{h}×{w}" for h, w in (sizes[0], sizes[-1]))
        raise DataError(f"{source}: images of {len(sizes)} sizes ({shown}, …); bring them to one, e.g. {source}@64px")
    check_side(side, f"{source}@{side}px")
    dtype = torch.uint8 if images[0].dtype == np.uint8 else torch.float32
    resized = torch.empty(len(images), images[0].shape[2], side, side, dtype=dtype)
    for place, image in zip(resized, images, strict=True):
        smaller = resize(as_float(torch.from_numpy(np.array(np.moveaxis(image, -1, 0)))[None]), side)[0]
        place.copy_(smaller if dtype == torch.float32 else (smaller * 255.0).round())
    return resized


def _channels_first(source: str, values: Any) -> Tensor:
    """Return an array of images, with their channels last or gray without, as a tensor with channels first."""
    try:
        array = values if isinstance(values, np.ndarray) else as_tensor(values, "images").numpy()
        if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in _CHANNELS):
            raise DataError(
                f"{source}: images have shape {array.shape}; expected (n, h, w) or "
                "(n, h, w, c) with 1, 3 or 4 channels (in idx: the images come first)"
            )
        if 0 in array.shape:
            raise DataError(f"{source}: no images, shape {array.shape}; expected at least two samples")
        return as_tensor(array[:, None] if array.ndim == 3 else np.moveaxis(array, -1, 1), "images")  # one copy
    except (RepresentationError, TypeError) as error:
        raise DataError(f"{source}: {error}") from error
