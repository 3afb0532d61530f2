"""Data specifications → labeled samples in memory, and the paper's overlapping split.

A specification is a source, then any number of steps that are applied from left to right::

    digits                          scikit-learn's 1,797 real scans, 8×8
    npz:FILE                        x: (n, h, w) or (n, h, w, c) uint8, y: (n,) integers
    idx:IMAGES,LABELS               MNIST's format, gzipped or not
    folder:PATH                     one folder of images a class
    parquet:FILE                    a column of images or texts, and one of labels
    hf:NAME or hf:NAME:SPLIT        a Hugging Face data set, a folder or on the hub
    torchvision:NAME or NAME:SPLIT  one of torchvision's, on this machine already
    FILE.py:CALLABLE                returns a data set of pairs (x, y)
    …@train  …@test                 70 % and the other 30 % of each class
    …@original  …@shifted           the paper's 70 % and 50 % of each class, 20 % in both
    …@32px  …@gray  …@rgb           resized to 32×32 (bilinear); one channel; three
    …@500                           at most 500 samples, drawn without order
    …+gaussian:5  +jpeg:5 …         a shift at level 1 to 10, see resque.corruptions; they stack
    …+blur:5/gaussian:3/none        each sample one of these, or none, each as likely as the other
    A@700~B@300                     both, e.g. new data and old; each step belongs to the source before it

Splits and noise depend on the specification alone, so that two commands that name the same data see the
same samples. This module knows nothing of models but what they want of their inputs.
"""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.data.dataset import CHANNELS, Inputs, LabeledDataset, as_float, check_side
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing, Tokenization, resize
from resque.data.readers import RawSamples, Watch, read_source
from resque.data.shifts import parse_shift
from resque.data.spec import mixture_parts
from resque.errors import DataError

_PART = r"(?:[a-z_]+:-?\d+|none)"
_STEP = re.compile(
    rf"^(?P<head>.+?)(?P<step>@(?:train|test|original|shifted|gray|rgb|\d+px|\d+)|\+{_PART}(?:/{_PART})*)$"
)
_DOUBTFUL = re.compile(r"\+[a-z_]+:[^:/+@]*$")


def load_data(
    spec: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    preprocessing: ImagePreprocessing | Tokenization | None = None,
    root: str | Path = "data",
    for_training: bool = True,
    on_progress: Watch = lambda done, total: None,
) -> LabeledDataset:
    """Read a data set from its specification.

    Args:
        spec: A source, then steps such as ``@test`` or ``+blur:5``; see :mod:`resque.data.loading`.
        limit: The same as ``@LIMIT`` right after the source.
        seed: Seed of splits and noise; the command line always uses 0.
        preprocessing: What the model wants, see :func:`resque.models.registry.preprocessing_for`; texts need one.
        root: Where torchvision's data sets lie.
        for_training: False takes a single class, too, and samples without labels, which are then all 0.
        on_progress: Called with ``(samples read, samples in all or None)`` now and then.

    Returns:
        The data in memory.

    Raises:
        DataError: The source is missing, or what it holds cannot be used; the message says what was expected.

    Example:
        >>> load_data("digits").classes
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> load_data("digits+fog:3")
        Traceback (most recent call last):
        resque.errors.DataError: unknown shift 'fog': use one of gaussian, blur, salt_pepper, rotation, contrast, jpeg,
        bit_depth, desaturate, relabel, exchange, imbalance
    """
    common: dict[str, Any] = {"limit": limit, "seed": seed, "root": Path(root), "on_progress": on_progress}
    wanted = preprocessing or NO_PREPROCESSING
    parts = [_loaded(part, wanted=wanted, for_training=for_training, **common) for part in mixture_parts(spec)]
    data = parts[0] if len(parts) == 1 else _joined(parts)
    if for_training and len(data.classes) < 2:
        raise DataError(f"{data.name}: only class {data.classes} is left; a classifier needs at least two classes")
    return data


def _loaded(
    spec: str,
    *,
    limit: int | None,
    seed: int,
    wanted: ImagePreprocessing | Tokenization,
    root: Path,
    for_training: bool,
    on_progress: Watch,
) -> LabeledDataset:
    """The data of one source after its steps."""
    steps: list[str] = []
    source = spec
    while match := _STEP.match(source):
        source, step = match["head"], match["step"]
        steps.insert(0, step)
    if doubtful := _DOUBTFUL.search(source):
        raise DataError(f"cannot apply {doubtful[0]!r}: a shift is written +KIND:LEVEL with a whole level 1 to 10")
    for step in steps:
        if step.startswith("+"):
            parse_shift(step[1:])  # refuse before the data are read
    sides = [int(step[1:-2]) for step in steps if step.endswith("px")]
    samples = read_source(source, root, limit, on_progress)
    if for_training and not samples.labeled:
        raise DataError(
            f"{source} has no labels, and nothing can be trained or tested without; what needs none is "
            "`resque dist --labels pseudo`"
        )
    data = _checked(source, samples, wanted, sides[0] if sides else None)
    if limit is not None:
        data = data.limited(limit, seed)
    if limit == len(data) and data.name == source:  # a stream that ended there
        data = dataclasses.replace(data, name=f"{source}@{limit}")
    for step in steps:
        data = _apply(data, step, seed)
    return data


def _joined(parts: list[LabeledDataset]) -> LabeledDataset:
    """Data from several sources as one; each must have the same form and classes."""
    first, name = parts[0], "~".join(part.name for part in parts)
    if not all(part.class_names == first.class_names and part.labeled == first.labeled for part in parts):
        raise DataError(f"{name}: not all of these number the same classes alike, so they cannot be mixed")
    shapes = [tuple(part.inputs.shape[1:]) if isinstance(part.inputs, Tensor) else None for part in parts]
    if None in shapes or len(set(shapes)) > 1:
        shown = ", ".join("texts" if shape is None else "×".join(map(str, shape)) for shape in shapes)
        raise DataError(f"{name}: samples of different forms ({shown}) cannot be mixed; images: @32px, @gray or @rgb")
    images = [part.inputs for part in parts if isinstance(part.inputs, Tensor)]
    alike = len({values.dtype for values in images}) == 1
    starts = [0, *itertools.accumulate(int(part.indices.max()) + 1 for part in parts)]
    return dataclasses.replace(
        first,
        name=name,
        inputs=torch.cat(images if alike else [as_float(values) for values in images]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.cat([part.indices + start for part, start in zip(parts, starts, strict=False)]),
        shifts=(),
        mixed=tuple(part.shift_type for part in parts),
    )


def _apply(data: LabeledDataset, step: str, seed: int) -> LabeledDataset:
    if step.startswith("+"):
        return data.shifted(parse_shift(step[1:]), seed)
    if step in CHANNELS:
        return data.with_channels(CHANNELS[step])
    if step.endswith("px"):
        return data.resized(int(step[1:-2]))
    if step[1:].isdigit():
        return data.limited(int(step[1:]), seed)
    return data.part(step[1:], seed)


def _checked(
    source: str, samples: RawSamples, preprocessing: ImagePreprocessing | Tokenization, side: int | None
) -> LabeledDataset:
    """Labels and inputs of one form each, images with their channels first; anything else is refused."""
    labels = _checked_labels(source, samples.labels)
    inputs = _as_inputs(source, samples.inputs, preprocessing, side)
    n = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
    if labels.shape != (n,):
        raise DataError(
            f"{source}: labels have shape {tuple(labels.shape)}; expected ({n},), one a sample "
            "(one-hot: argmax(1); a column: ravel())"
        )
    if n == 0:
        raise DataError(f"{source}: no samples; expected at least two")
    return LabeledDataset(
        source,
        inputs,
        labels,
        torch.arange(n),
        transform=preprocessing,
        class_names=samples.class_names,
        labeled=samples.labeled,
    )


def _checked_labels(source: str, labels: np.ndarray) -> Tensor:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.dtype == np.uint64 and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {labels.max()} exceeds 2**63 - 1, the largest one that can be kept")
    return torch.from_numpy(labels.astype(np.int64))


def _as_inputs(source: str, inputs: Any, preprocessing: ImagePreprocessing | Tokenization, side: int | None) -> Inputs:
    if isinstance(inputs, Mapping | Tensor):
        return inputs
    if isinstance(inputs, list) and isinstance(inputs[0], str):
        if not isinstance(preprocessing, Tokenization):
            raise DataError(f"{source} holds texts, which a text classifier reads: --model hf:PATH_OR_ID")
        return preprocessing.encode(inputs)
    if isinstance(preprocessing, Tokenization):
        raise DataError(f"{source} holds images, and the model reads texts: name a data set with a column of texts")
    if isinstance(inputs, list):
        return _of_one_size(source, inputs, side or preprocessing.side)
    return _as_images(source, inputs)


def _of_one_size(source: str, images: list[np.ndarray], side: int | None) -> Tensor:
    sizes = sorted({image.shape[:2] for image in images})
    if side is None:
        shown = ", ".join(f"{h}×{w}" for h, w in (sizes[0], sizes[-1]))
        raise DataError(f"{source}: images of {len(sizes)} sizes ({shown}, …); bring them to one, e.g. {source}@64px")
    check_side(side, f"{source}@{side}px")
    made = torch.empty(len(images), images[0].shape[2], side, side, dtype=torch.uint8)
    for place, image in zip(made, images, strict=True):
        stacked = torch.from_numpy(np.array(np.moveaxis(image, -1, 0)))[None]
        place.copy_((resize(as_float(stacked), side)[0] * 255.0).round())
    return made


def _as_images(source: str, images: np.ndarray) -> Tensor:
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        raise DataError(
            f"{source}: images have shape {images.shape}; expected (n, h, w) or "
            "(n, h, w, c) with 1, 3 or 4 channels (in idx: the images come first)"
        )
    if images.dtype != np.uint8:
        raise DataError(f"{source}: images are {images.dtype}; expected uint8, 0 to 255 (scale and .astype('uint8'))")
    if len(images) == 0 or 0 in images.shape:
        raise DataError(f"{source}: no images, shape {images.shape}; expected at least two samples")
    stacked = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return torch.from_numpy(np.array(stacked, order="C"))
