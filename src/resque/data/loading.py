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
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resque.data.dataset import CHANNELS, LabeledDataset, as_float
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing, Tokenization
from resque.data.readers import Watch, read_source
from resque.data.samples import samples_from_arrays, to_dataset
from resque.data.shifts import parse_shift
from resque.data.spec import mixture_parts
from resque.errors import DataError

__all__ = ["DataLike", "load_data"]

DataLike = str | LabeledDataset | tuple[Any, Any]
"""What :func:`load_data` accepts: a specification, a dataset, or a pair ``(x, y)``."""

_PART = r"(?:[a-z_]+:-?\d+|none)"
_STEP = re.compile(
    rf"^(?P<head>.+?)(?P<step>@(?:train|test|original|shifted|gray|rgb|\d+px|\d+)|\+{_PART}(?:/{_PART})*)$"
)
_DOUBTFUL = re.compile(r"\+[a-z_]+:[^:/+@]*$")


def load_data(
    data: DataLike,
    *,
    name: str = "array",
    limit: int | None = None,
    seed: int = 0,
    preprocessing: ImagePreprocessing | Tokenization | None = None,
    root: str | Path = "data",
    for_training: bool = True,
    on_progress: Watch = lambda done, total: None,
) -> LabeledDataset:
    """Load a dataset from a specification, or from objects in memory.

    Args:
        data: A specification: a source, then steps such as ``@test`` or ``+blur:5``, see :mod:`resque.data.loading`.
            Or a pair ``(x, y)``: an array of images ``(n, h, w)`` or ``(n, h, w, c)``, uint8 or floats in [0, 1]; a
            tensor of images ``(n, c, h, w)`` or of other inputs; or a list of texts; with integer labels ``(n,)``, or
            None without labels. Or a dataset, which keeps its own preprocessing if it has one.
        name: Name of the dataset made from a pair.
        limit: Largest number of samples, drawn at random; same as ``@LIMIT`` right after the source.
        seed: Seed of splits and noise; the command line always uses 0.
        preprocessing: Preprocessing of the model, see :func:`resque.models.registry.preprocessing_for`; texts need it.
        root: Folder of torchvision's datasets.
        for_training: Whether labels of at least two classes are required; without, missing labels are all 0.
        on_progress: Called with ``(samples read, samples in all or None)`` from time to time.

    Returns:
        The dataset, in memory.

    Raises:
        DataError: If the source is missing, or its samples cannot be used.

    Example:
        >>> load_data("digits").classes
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> tuple(load_data((torch.zeros(4, 1, 8, 8), [0, 1, 0, 1])).images.shape)
        (4, 1, 8, 8)
        >>> load_data("digits+fog:3")
        Traceback (most recent call last):
        resque.errors.DataError: unknown shift 'fog': use one of gaussian, blur, salt_pepper, rotation, contrast, jpeg,
        bit_depth, desaturate, relabel, exchange, imbalance
    """
    if isinstance(data, str):
        wanted = preprocessing or NO_PREPROCESSING
        parts = [_load_source(part, limit, seed, wanted, Path(root), on_progress) for part in mixture_parts(data)]
    else:
        loaded = _from_objects(data, name, preprocessing)
        parts = [loaded if limit is None else loaded.limited(limit, seed)]
    if for_training and (unlabeled := [part.name for part in parts if not part.labeled]):
        raise DataError(
            f"{unlabeled[0]} has no labels, and nothing can be trained or tested without; what needs none is "
            "`resque dist --labels pseudo`"
        )
    dataset = parts[0] if len(parts) == 1 else _joined(parts)
    if for_training and len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name}: only class {dataset.classes} is left; a classifier needs at least two classes"
        )
    return dataset


def _from_objects(data: Any, name: str, preprocessing: ImagePreprocessing | Tokenization | None) -> LabeledDataset:
    """Return a dataset as it is, or the samples of a pair as a dataset."""
    if isinstance(data, LabeledDataset):
        if isinstance(preprocessing, ImagePreprocessing) and data.transform == NO_PREPROCESSING:
            return dataclasses.replace(data, transform=preprocessing)
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        return to_dataset(name, samples_from_arrays(name, *data), preprocessing or NO_PREPROCESSING)
    raise DataError(
        f"data is a {type(data).__name__}; expected a specification such as 'digits@test', a LabeledDataset, or a "
        "pair (x, y) of arrays"
    )


def _load_source(
    spec: str,
    limit: int | None,
    seed: int,
    preprocessing: ImagePreprocessing | Tokenization,
    root: Path,
    on_progress: Watch,
) -> LabeledDataset:
    """Load the data of one source and apply its steps."""
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
    data = to_dataset(source, samples, preprocessing, sides[0] if sides else None)
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
