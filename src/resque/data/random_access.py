"""Datasets whose samples are read when they are asked for, in any order; their labels are known before.

Of ``npz``, ``idx`` and ``folder`` only the chosen samples are read: a compressed file is decompressed up to the last of
them, any other is not. Other sources are in memory, or are streams, which are refused.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resque.data.dataset import CHANNELS, LabeledDataset
from resque.data.loading import apply_step, checked_steps, dataset_of, limit_samples, load_source, mix
from resque.data.preprocessing import NO_PREPROCESSING, Preprocessing
from resque.data.readers.options import ReadOptions
from resque.data.readers.source import read_source
from resque.data.samples import to_dataset
from resque.data.shifts import parse_shift
from resque.data.spec import mixture_parts

__all__ = ["IndexedDataset", "open_data"]

_BY_ROW = "npz", "idx", "folder"


@dataclass(frozen=True, eq=False)
class IndexedDataset:
    """Data whose samples are read by their rows.

    Attributes:
        header: The data without their inputs: labels, indices, names and shifts.
        read_rows: Reads the samples in some rows.

    Example:
        >>> data = open_data("digits@test")
        >>> len(data.header), data.read(torch.tensor([5, 2])).labels.tolist() == data.header.labels[[5, 2]].tolist()
        (539, True)
    """

    header: LabeledDataset
    read_rows: Callable[[Tensor], LabeledDataset]

    @classmethod
    def of(cls, data: LabeledDataset) -> "IndexedDataset":
        """Return data in memory."""
        return cls(data, data.take)

    def numbered(self, number: Callable[[LabeledDataset], LabeledDataset]) -> "IndexedDataset":
        """Return the data with their classes numbered as a model does."""
        return dataclasses.replace(self, header=number(self.header))

    def read(self, rows: Tensor) -> LabeledDataset:
        """Read the samples in these rows ``(n,)``."""
        header = self.header
        return dataclasses.replace(
            self.read_rows(rows), name=header.name, labels=header.labels[rows], class_names=header.class_names
        )


def open_data(
    data: Any,
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    root: str | Path = "data",
    download: bool = False,
) -> IndexedDataset:
    """Open a dataset to read samples in any order; each is the sample that :func:`resque.load_data` gives.

    Args:
        data: Specification, dataset, or pair ``(x, y)``, see :func:`resque.load_data`.
        limit: Largest number of samples, drawn at random.
        preprocessing: Preprocessing of the model.
        root: Folder of torchvision's datasets.
        download: Whether names on a hub are fetched.

    Raises:
        DataError: The source is a stream, is missing, or its samples cannot be used.
    """
    if not isinstance(data, str):
        whole = dataset_of(data, None, preprocessing)
        return IndexedDataset.of(whole if limit is None else whole.limited(limit))
    options = ReadOptions(Path(root), limit, download=download, by_row=True)
    parts, preprocessing = mixture_parts(data), preprocessing or NO_PREPROCESSING
    if len(parts) > 1:
        return IndexedDataset.of(mix([load_source(part, options, preprocessing) for part in parts]))
    if data.partition(":")[0] not in _BY_ROW:
        return IndexedDataset.of(load_source(data, options, preprocessing))
    return _FileReader(data, options, preprocessing).opened()


@dataclass(frozen=True)
class _FileReader:
    """Reads samples of a file or a folder, and applies the steps of its specification to them."""

    spec: str
    options: ReadOptions
    preprocessing: Preprocessing

    def opened(self) -> IndexedDataset:
        """Read the labels and the first sample; choose the samples that parts, limits and label shifts leave."""
        source, steps = checked_steps(self.spec)
        first = torch.zeros(1, dtype=torch.int64).numpy()
        raw = read_source(source, dataclasses.replace(self.options, rows=first))
        no_inputs = torch.zeros(raw.total, 0)
        header = to_dataset(source, dataclasses.replace(raw, inputs=no_inputs, rows=None), self.preprocessing)
        header = limit_samples(header, self.options)
        for step in steps:
            header = _skip_step(header, step) if _changes_inputs(step) else apply_step(header, step, 0)
        return IndexedDataset(header, lambda rows: self.read(header.indices[rows]))

    def read(self, numbers: Tensor) -> LabeledDataset:
        """Read the samples of these numbers in the source, and change them as the steps say."""
        source, steps = checked_steps(self.spec)
        side = next((int(step[1:-2]) for step in steps if step.endswith("px")), None)
        ascending, places = torch.unique(numbers, return_inverse=True)
        raw = read_source(source, dataclasses.replace(self.options, rows=ascending.numpy()))
        data = to_dataset(source, raw, self.preprocessing, side)
        for step in steps:
            data = apply_step(data, step, 0) if _changes_inputs(step) else _skip_step(data, step)
        return data.take(places)


def _changes_inputs(step: str) -> bool:
    """Return whether a step changes samples one by one; the others choose or relabel them."""
    if step.startswith("+"):
        return not parse_shift(step[1:]).changes_labels
    return step in CHANNELS or step.endswith("px")


def _skip_step(data: LabeledDataset, step: str) -> LabeledDataset:
    """Return data under a step that does not concern them; shifts count, because they seed those after them."""
    shifts = (*data.shifts, parse_shift(step[1:])) if step.startswith("+") else data.shifts
    return dataclasses.replace(data, name=f"{data.name}{step}", shifts=shifts)
