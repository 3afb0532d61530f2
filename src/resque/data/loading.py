"""Load datasets from specifications (see :mod:`resque.data.spec`) or from objects in memory."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resque.data.class_names import warn_of_numbering
from resque.data.dataset import CHANNELS, LabeledDataset
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing, Preprocessing, as_float
from resque.data.readers.options import Progress, ReadOptions
from resque.data.readers.source import read_source
from resque.data.samples import samples_from_arrays, to_dataset
from resque.data.shifts import parse_shift
from resque.data.spec import mixture_parts, split_steps
from resque.errors import DataError

__all__ = [
    "DataLike",
    "apply_step",
    "check_classes",
    "checked_steps",
    "dataset_of",
    "limit_samples",
    "load_data",
    "load_source",
    "mix",
]

DataLike = str | LabeledDataset | tuple[Any, Any]
"""Data that :func:`load_data` accepts: a specification, a dataset, or a pair ``(x, y)``."""


def load_data(
    data: DataLike,
    *,
    name: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    root: str | Path = "data",
    for_training: bool = True,
    on_progress: Progress = lambda done, total: None,
    number: Callable[[LabeledDataset], LabeledDataset] = warn_of_numbering,
    download: bool = False,
) -> LabeledDataset:
    """Load a dataset from a specification, or from objects in memory.

    Args:
        data: A specification: a source, then steps such as ``@test`` or ``+blur:5``, see :mod:`resque.data.spec`.
            Or a pair ``(x, y)``: an array of images ``(n, h, w)`` or ``(n, h, w, c)``, uint8 or floats in [0, 1]; a
            tensor of images ``(n, c, h, w)`` or of other inputs; or a list of texts; with integers or names as labels
            ``(n,)``, or None without labels. Or a dataset, which keeps its own preprocessing if it has one.
        name: Name of the dataset made from a pair; None makes one from its content. Data are told apart by name.
        limit: Largest number of samples, drawn at random; same as ``@LIMIT`` right after the source.
        seed: Seed of splits and noise; the command line always uses 0.
        preprocessing: Preprocessing of the model, see :func:`resque.models.registry.preprocessing_for`; texts need it.
        root: Folder of torchvision's datasets.
        for_training: Whether labels of at least two classes are required; if not, missing labels are all 0.
        on_progress: Called with ``(samples read, samples in all or None)`` from time to time.
        number: Numbers the classes of each source, as a model does; the default keeps the sorted order of names.
        download: Whether names on a hub are fetched; if not, they must be here.

    Returns:
        The dataset, in memory.

    Raises:
        DataError: If the source is missing, or its samples cannot be used.

    Example:
        >>> load_data("digits").classes
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> tuple(load_data((torch.zeros(4, 1, 8, 8), [0, 1, 0, 1])).images.shape)
        (4, 1, 8, 8)
        >>> load_data("digits+frog:3")
        Traceback (most recent call last):
        resque.errors.DataError: unknown shift 'frog': nearest are fog, frost, rotation
    """
    if isinstance(data, str):
        options = ReadOptions(Path(root), limit, on_progress, download, seed)
        parts = [load_source(part, options, preprocessing or NO_PREPROCESSING) for part in mixture_parts(data)]
    else:
        whole = dataset_of(data, name, preprocessing)
        parts = [whole if limit is None else whole.limited(limit, seed)]
    if for_training and (unlabeled := [part.name for part in parts if not part.labeled]):
        raise DataError(
            f"{unlabeled[0]} has no labels, and nothing can be trained or tested without: label them, and name the "
            "labeled data; what needs no labels is `resque dist` or `resque forecast`, each with --labels pseudo"
        )
    parts = [number(part) for part in parts]
    dataset = parts[0] if len(parts) == 1 else mix(parts)
    if for_training:
        check_classes(dataset)
    return dataset


def check_classes(data: LabeledDataset) -> None:
    """Raise DataError if labeled data have a single class; a classifier needs two.

    Example:
        >>> check_classes(load_data("digits"))
    """
    if data.labeled and len(classes := data.classes) < 2:
        raise DataError(f"{data.name}: only class {classes} is left; a classifier needs at least two classes")


def dataset_of(data: Any, name: str | None, preprocessing: Preprocessing | None) -> LabeledDataset:
    """Return a dataset itself, or the dataset of a pair ``(x, y)``."""
    if isinstance(data, LabeledDataset):
        if isinstance(preprocessing, ImagePreprocessing) and data.transform == NO_PREPROCESSING:
            return dataclasses.replace(data, transform=preprocessing)
        return data
    if isinstance(data, tuple | list) and len(data) == 2:
        dataset = to_dataset(
            name or "array", samples_from_arrays(name or "array", *data), preprocessing or NO_PREPROCESSING
        )
        return dataset if name else dataclasses.replace(dataset, name=f"array:{dataset.digest[:8]}")
    raise DataError(
        f"data is a {type(data).__name__}; expected a specification such as 'digits@test', a LabeledDataset, or a "
        "pair (x, y) of arrays"
    )


def load_source(spec: str, options: ReadOptions, preprocessing: Preprocessing) -> LabeledDataset:
    """Load one source and apply its steps."""
    source, steps = checked_steps(spec)
    side = next((int(step[1:-2]) for step in steps if step.endswith("px")), None)
    data = to_dataset(source, read_source(source, options), preprocessing, side)
    data = limit_samples(data, options)
    for step in steps:
        data = apply_step(data, step, options.seed)
    return data


def limit_samples(data: LabeledDataset, options: ReadOptions) -> LabeledDataset:
    """Return at most as many samples of a source as the options allow."""
    name = data.name
    if options.limit is not None:
        data = data.limited(options.limit, options.seed)
    if options.limit == len(data) and data.name == name:  # no more were read
        data = dataclasses.replace(data, name=f"{name}@{options.limit}")
    return data


def checked_steps(spec: str) -> tuple[str, list[str]]:
    """Return the source and the steps of a specification; refuse unknown shifts before the data are read."""
    source, steps = split_steps(spec)
    for step in steps:
        if step.startswith("+"):
            parse_shift(step[1:])
    return source, steps


def apply_step(data: LabeledDataset, step: str, seed: int) -> LabeledDataset:
    """Apply one step of a specification."""
    if step.startswith("+"):
        return data.shifted(parse_shift(step[1:]), seed)
    if step in CHANNELS:
        return data.with_channels(CHANNELS[step])
    if step.endswith("px"):
        return data.resized(int(step[1:-2]))
    if step[1:].isdigit():
        return data.limited(int(step[1:]), seed)
    return data.part(step[1:], seed)


def mix(parts: list[LabeledDataset]) -> LabeledDataset:
    """Concatenate datasets of one shape and one set of classes.

    Raises:
        DataError: They differ in one of these.

    Example:
        >>> digits = load_data("digits@100")
        >>> len(mix([digits, digits])), mix([digits, digits]).name
        (200, 'digits@100~digits@100')
    """
    first, name = parts[0], "~".join(part.name for part in parts)
    if not all(part.class_names == first.class_names and part.labeled == first.labeled for part in parts):
        raise DataError(f"{name}: not all of these number the same classes alike, so they cannot be mixed")
    shapes = [tuple(part.inputs.shape[1:]) if isinstance(part.inputs, Tensor) else None for part in parts]
    if None in shapes or len(set(shapes)) > 1:
        shown = ", ".join("texts" if shape is None else "×".join(map(str, shape)) for shape in shapes)
        raise DataError(f"{name}: samples of different forms ({shown}) cannot be mixed; images: @32px, @gray or @rgb")
    images = [part.inputs for part in parts if isinstance(part.inputs, Tensor)]
    one_dtype = len({values.dtype for values in images}) == 1
    starts = [0, *itertools.accumulate(int(part.indices.max()) + 1 for part in parts)]
    return dataclasses.replace(
        first,
        name=name,
        inputs=torch.cat(images if one_dtype else [as_float(values) for values in images]),
        labels=torch.cat([part.labels for part in parts]),
        indices=torch.cat([part.indices + start for part, start in zip(parts, starts, strict=False)]),
        shifts=(),
        mixture=tuple(part.shift_type for part in parts),
    )
