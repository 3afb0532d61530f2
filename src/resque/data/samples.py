"""Raw samples of a source, and their checked conversion to a dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.data.dataset import Inputs, LabeledDataset, as_float, check_side
from resque.data.preprocessing import ImagePreprocessing, Tokenization, resize
from resque.errors import DataError

__all__ = ["RawSamples", "samples_from_arrays", "to_dataset"]

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class RawSamples:
    """Samples as a source holds them, not yet checked.

    Attributes:
        inputs: Images ``(n, h, w)`` or ``(n, h, w, c)`` uint8, a list of such images of several sizes, a list of texts,
            or tensors that are ready for a model.
        labels: Class numbers, ``(n,)``; None if the source has none.
        class_names: Names of the labels 0, 1, …, if the source has them.
    """

    inputs: np.ndarray | list[Any] | Tensor | Mapping[str, Tensor]
    labels: np.ndarray | None
    class_names: tuple[str, ...] = ()


def samples_from_arrays(name: str, x: Any, y: Any) -> RawSamples:
    """Return the samples of a pair of arrays, lists or tensors.

    Args:
        name: Name of the data in error messages.
        x: An array of images, uint8 or floats in [0, 1], ``(n, h, w)`` or ``(n, h, w, c)``; a tensor of images
            ``(n, c, h, w)``, or of any other inputs that are ready for the model; or a list of texts.
        y: Class numbers, ``(n,)``; None for data without labels.

    Raises:
        DataError: If the images have a wrong shape, type or range, or the labels are no array.
    """
    labels = None if y is None else _as_array(name, y, "labels")
    if isinstance(x, list | tuple) and x and all(isinstance(text, str) for text in x):
        return RawSamples(list(x), labels)
    inputs = _as_tensor(name, x) if isinstance(x, Tensor) else _as_images(name, _as_array(name, x, "images"), True)
    if inputs.ndim != 4 or inputs.dtype == torch.uint8:
        return RawSamples(inputs, labels)
    if not inputs.dtype.is_floating_point:
        raise DataError(f"{name}: images are {inputs.dtype}; expected uint8, 0 to 255, or floats in [0, 1]")
    if inputs.numel() and not (inputs.min() >= 0 and inputs.max() <= 1):  # refuses NaN, too
        low, high = float(inputs.min()), float(inputs.max())
        raise DataError(f"{name}: images hold values from {low:g} to {high:g}; expected uint8, or floats in [0, 1]")
    return RawSamples(inputs.float(), labels)


def to_dataset(
    source: str, samples: RawSamples, preprocessing: ImagePreprocessing | Tokenization, side: int | None = None
) -> LabeledDataset:
    """Check samples and return them as a dataset, images with their channels first.

    Args:
        source: Name of the dataset.
        samples: Samples of the source.
        preprocessing: Preprocessing of the model.
        side: Side in pixels of images that differ in size; None takes the model's.

    Raises:
        DataError: If the inputs or labels have a wrong shape or type.
    """
    labels = None if samples.labels is None else _checked_labels(source, samples.labels)
    inputs = _as_inputs(source, samples.inputs, preprocessing, side)
    n = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
    if labels is not None and labels.shape != (n,):
        raise DataError(
            f"{source}: labels have shape {tuple(labels.shape)}; expected ({n},), one a sample "
            "(one-hot: argmax(1); a column: ravel())"
        )
    if n == 0:
        raise DataError(f"{source}: no samples; expected at least two")
    return LabeledDataset(
        source,
        inputs,
        torch.zeros(n, dtype=torch.int64) if labels is None else labels,
        torch.arange(n),
        transform=preprocessing,
        class_names=samples.class_names,
        labeled=labels is not None,
    )


def _as_array(name: str, values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{name}: {what} are no array ({reason}); expected numbers of one shape") from error


def _as_tensor(name: str, values: Tensor) -> Tensor:
    """Return inputs in memory, images ``(n, h, w)`` uint8 with one channel."""
    inputs = values.detach().cpu()
    if inputs.ndim == 3 and inputs.dtype == torch.uint8:
        return inputs[:, None]
    if inputs.ndim < 2 or (inputs.ndim == 4 and inputs.shape[1] not in _CHANNELS):
        raise DataError(
            f"{name}: inputs have shape {tuple(inputs.shape)}; expected images (n, c, h, w) with 1, 3 or 4 channels "
            "(channels last: permute(0, 3, 1, 2)), or other inputs (n, …)"
        )
    return inputs


def _checked_labels(source: str, labels: np.ndarray) -> Tensor:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.dtype == np.uint64 and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {labels.max()} exceeds 2**63 - 1, the largest one that can be kept")
    return torch.from_numpy(labels.astype(np.int64))


def _as_inputs(source: str, inputs: Any, preprocessing: ImagePreprocessing | Tokenization, side: int | None) -> Inputs:
    if isinstance(inputs, Mapping) or (isinstance(inputs, Tensor) and inputs.ndim != 4):
        return inputs
    if isinstance(inputs, list) and isinstance(inputs[0], str):
        if not isinstance(preprocessing, Tokenization):
            raise DataError(f"{source} holds texts, which a text classifier reads: --model hf:PATH_OR_ID")
        return preprocessing.encode(inputs)
    if isinstance(preprocessing, Tokenization):
        raise DataError(f"{source} holds images, and the model reads texts: name a data set with a column of texts")
    if isinstance(inputs, list):
        return _resized_alike(source, inputs, side or preprocessing.side)
    return inputs if isinstance(inputs, Tensor) else _as_images(source, inputs)


def _resized_alike(source: str, images: list[np.ndarray], side: int | None) -> Tensor:
    """Return images of several sizes, resized to ``side`` × ``side`` pixels."""
    sizes = sorted({image.shape[:2] for image in images})
    if side is None:
        shown = ", ".join(f"{h}×{w}" for h, w in (sizes[0], sizes[-1]))
        raise DataError(f"{source}: images of {len(sizes)} sizes ({shown}, …); bring them to one, e.g. {source}@64px")
    check_side(side, f"{source}@{side}px")
    resized = torch.empty(len(images), images[0].shape[2], side, side, dtype=torch.uint8)
    for place, image in zip(resized, images, strict=True):
        stacked = torch.from_numpy(np.array(np.moveaxis(image, -1, 0)))[None]
        place.copy_((resize(as_float(stacked), side)[0] * 255.0).round())
    return resized


def _as_images(source: str, images: np.ndarray, floats: bool = False) -> Tensor:
    """Return an array of images, channels last or none, as a tensor with its channels first."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in _CHANNELS):
        raise DataError(
            f"{source}: images have shape {images.shape}; expected (n, h, w) or "
            "(n, h, w, c) with 1, 3 or 4 channels (in idx: the images come first)"
        )
    if floats and np.issubdtype(images.dtype, np.floating):
        images = images.astype(np.float32)
    elif images.dtype != np.uint8:
        raise DataError(f"{source}: images are {images.dtype}; expected uint8, 0 to 255 (scale and .astype('uint8'))")
    if len(images) == 0 or 0 in images.shape:
        raise DataError(f"{source}: no images, shape {images.shape}; expected at least two samples")
    stacked = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return torch.from_numpy(np.array(stacked, order="C"))
