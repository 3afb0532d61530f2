"""Streams: files of samples that are read once and in order, so that memory does not grow with their number.

``stream:parquet:FILES`` and ``stream:tar:FILES`` name them. A tar file holds samples as WebDataset writes them:
``name.png`` and ``name.cls`` beside each other. ``FILES`` is a path or a pattern, or several with commas.
"""

import dataclasses
import glob
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from resque._optional import import_optional
from resque.data.class_names import number_as
from resque.data.dataset import BATCH, CHANNELS, LabeledDataset
from resque.data.loading import apply_step, checked_steps
from resque.data.preprocessing import NO_PREPROCESSING, Preprocessing
from resque.data.readers.hugging_face import (
    check_parquet,
    decode,
    find_columns,
    join_values,
    library_errors,
    network,
)
from resque.data.samples import RawSamples, to_dataset
from resque.data.shifts import parse_shift
from resque.data.spec import mixture_parts
from resque.errors import DataError, SettingError

__all__ = ["DataStream", "Passable", "is_stream", "open_stream"]

_BUILDERS = {"parquet": "parquet", "tar": "webdataset"}
_TAR_END = 1024  # two blocks of zeros


@dataclass(frozen=True, eq=False, repr=False)
class DataStream:
    """Samples that are read when they are passed, batch by batch; each pass reads the files again.

    Attributes:
        name: Specification of the data.
        source: Rows of the files, as Hugging Face datasets streams them.
        content: Column of images or texts.
        label: Column of labels; None without labels.
        names: Names of the labels 0, 1, …, if the source has them.
        named: Whether the labels are names, or numbers that have them.
        steps: Steps of the specification, applied to each batch.
        transform: Preprocessing of the model, applied to each batch.
        samples: Number of samples; None if the files do not tell it.
        model_names: Names of the labels 0, 1, … of a model that numbers the classes; empty leaves their own numbers.
        is_part: Whether it is one of several parts of a stream, which may be empty.

    Example:
        >>> import tempfile
        >>> from pyarrow import parquet, table
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = table({"image": 600 * [[[0, 255]]], "label": 300 * [0, 1]})
        ...     parquet.write_table(rows, f"{folder}/new-1.parquet")
        ...     stream = open_stream(f"stream:parquet:{folder}/new-*.parquet")
        ...     stream.samples, [len(labels) for _, labels in stream]
        (600, [256, 256, 88])
    """

    name: str
    source: Any
    content: str
    label: str | None = None
    names: tuple[str, ...] = ()
    named: bool = False
    steps: tuple[str, ...] = ()
    transform: Preprocessing = NO_PREPROCESSING
    samples: int | None = None
    model_names: tuple[str, ...] = ()
    is_part: bool = False

    def __repr__(self) -> str:
        return f"DataStream({self.name!r})"

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        """Yield batches, as a loader does."""
        return self.batches()

    @property
    def labeled(self) -> bool:
        """Whether the source has labels; if not, they are all 0 and have no meaning."""
        return self.label is not None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels 0, 1, …, if the model or the source has them."""
        return self.model_names or self.names

    @property
    def classes(self) -> list[int] | None:
        """Labels that may occur; None if the classes have no names."""
        return list(range(len(self.class_names))) or None

    @property
    def outputs(self) -> int:
        """Number of outputs that a model needs.

        Raises:
            DataError: The classes have no names.
        """
        if not self.class_names:
            raise DataError(f"{self.name} does not tell its number of classes before it is read: give --classes")
        return len(self.class_names)

    @property
    def preprocessing(self) -> str:
        """Description of the preprocessing; two profiles are comparable only if it is equal."""
        return str(self.transform)

    def numbered(self, names: tuple[str, ...]) -> "DataStream":
        """Return the stream with its classes numbered by the names of a model's, if both have names."""
        return dataclasses.replace(self, model_names=names) if self.named else self

    def unlabeled(self) -> "DataStream":
        """Return the stream without its labels."""
        return dataclasses.replace(self, label=None, names=(), named=False, model_names=())

    def shard(self, number: int, of: int) -> "DataStream":
        """Return one of several parts of the stream, each sample in one of them.

        They are whole files where these can be dealt out evenly, else every ``of``-th sample. The profiles of all parts
        add up to that of the stream.

        Args:
            number: Number of the part, from 1.
            of: Number of parts.

        Raises:
            DataError: The stream has a shift.
            SettingError: There is no such part.
        """
        if not 1 <= number <= of:
            raise SettingError(f"shard {number}/{of} of {self.name}: expected i/n with i from 1 to n, as 1/8")
        self._check_order("a shard of it")
        split = import_optional("datasets.distributed", "data").split_dataset_by_node
        part = split(self.source, rank=number - 1, world_size=of)
        return dataclasses.replace(self, source=part, samples=None, is_part=True)

    def batches(
        self, batch_size: int = BATCH, device: torch.device | str = "cpu", buffer: int = 0, seed: int = 0
    ) -> Iterator[tuple[Any, Tensor]]:
        """Yield batches ``(preprocessed inputs, labels)``.

        Args:
            batch_size: Number of samples per batch; the last batch may have fewer.
            device: Device of the batches.
            buffer: Samples in memory that the next one is drawn from, in files in random order; 0 keeps the order.
            seed: Seed of the random order; an epoch needs one of its own.

        Raises:
            DataError: The samples cannot be used, or a stream with a shift is shuffled.
            SettingError: A number is too small, or no whole one.
        """
        self._check_number("batch_size", batch_size, 1)
        self._check_number("buffer", buffer, 0)
        if buffer:
            self._check_order("a random order of it")
        return self._batches(batch_size, device, buffer, seed)

    def _batches(
        self, batch_size: int, device: torch.device | str, buffer: int, seed: int
    ) -> Iterator[tuple[Any, Tensor]]:
        source = self.source
        if buffer:
            source = source.shuffle(seed=seed, buffer_size=buffer, max_buffer_input_shards=1)
        for chunk in self._chunks(source, batch_size):
            yield from chunk.batches(batch_size, device)

    def _check_number(self, name: str, value: Any, least: int) -> None:
        if type(value) is bool or not isinstance(value, Integral) or int(value) < least:
            raise SettingError(f"{name}={value!r} of {self.name}: expected a whole number from {least} on")

    def _check_order(self, what: str) -> None:
        if shifts := [step for step in self.steps if step.startswith("+")]:
            raise DataError(
                f"{self.name}: noise depends on the number of a sample, which {what} does not tell: leave {shifts[0]} "
                "out, or pass the whole in its order, in one process"
            )

    def _chunks(self, source: Any, size: int) -> Iterator[LabeledDataset]:
        """Yield the samples as small datasets, with their steps applied and their classes numbered."""
        side = next((int(step[1:-2]) for step in self.steps if step.endswith("px")), None)
        done = 0
        for rows in self._rows(source, size):
            values = [decode(row, f"{self.name}: row {done + i}", False) for i, row in enumerate(rows[self.content])]
            labels = None if self.label is None else rows[self.label]
            raw = RawSamples(join_values(values, self.name, self.content), labels, self.names)
            data = to_dataset(self.name, raw, self.transform, side)
            data = dataclasses.replace(data, indices=data.indices + done)
            for step in self.steps:
                data = apply_step(data, step, 0)
            data = number_as(data, self.model_names) if self.model_names else data
            if data.numbered_by_name:
                raise DataError(
                    f"{self.name}: labels are names, and their order is not known before all are read: use a model "
                    "with id2label, write them as a ClassLabel, or pass without labels (pseudo)"
                )
            yield data
            done += len(data)

    def _rows(self, source: Any, size: int) -> Iterator[dict[str, list[Any]]]:
        """Yield columns of so many rows; the library is watched while it reads, and at no other time."""
        iterator = source.iter(batch_size=size)
        while True:
            with library_errors(self.name), network(False):
                rows = next(iterator, None)
            if rows is None:
                return
            yield rows


Passable = LabeledDataset | DataStream
"""Data for one pass in their order."""


def is_stream(data: Any) -> bool:
    """Return whether data are named as a stream, which is not mixed with others.

    Example:
        >>> is_stream("stream:tar:new-*.tar"), is_stream("parquet:new.parquet"), is_stream("stream:tar:a.tar~digits")
        (True, False, False)
    """
    return isinstance(data, str) and data.startswith("stream:") and len(mixture_parts(data)) == 1


def open_stream(spec: str, limit: int | None = None, preprocessing: Preprocessing | None = None) -> DataStream:
    """Open a stream of samples that are read when they are passed, in constant memory.

    Args:
        spec: ``stream:parquet:FILES`` or ``stream:tar:FILES``, then steps that change samples one by one.
        limit: Must be None: no random samples are drawn from a stream.
        preprocessing: Preprocessing of the model, see :func:`resque.models.registry.preprocessing_for`.

    Raises:
        DataError: A file is missing or cannot be read, or a step would choose samples or change labels.

    Example:
        >>> open_stream("stream:parquet:missing-*.parquet")
        Traceback (most recent call last):
        resque.errors.DataError: no such file: missing-*.parquet; expected the files of a stream, or a pattern
    """
    whole, steps = checked_steps(spec)
    form, _, names = whole.removeprefix("stream:").partition(":")
    if form not in _BUILDERS or not names or not is_stream(spec):
        raise DataError(f"{spec}: expected stream:parquet:FILES or stream:tar:FILES, with commas between several")
    if refused := [step for step in steps if _chooses(step)] + ([] if limit is None else [f"--limit {limit}"]):
        raise DataError(f"{spec}: {refused[0]} needs samples in any order, and a stream has one: name other files")
    files = [file for pattern in names.split(",") for file in _matching(pattern)]
    files = list(dict.fromkeys(files))
    datasets = import_optional("datasets", "data")
    with library_errors(whole), network(False):
        if form == "tar":
            files = [file for file in files if _has_samples(file)]
        if not files:
            raise DataError(f"{whole} holds no rows")
        samples = sum(map(check_parquet, files)) if form == "parquet" else None
        rows = datasets.load_dataset(_BUILDERS[form], data_files=files, split="train", streaming=True)
        rows, columns = find_columns(rows, whole)
    found = columns.content, columns.label, columns.class_names, columns.named
    return DataStream(spec, rows, *found, tuple(steps), preprocessing or NO_PREPROCESSING, samples)


def _chooses(step: str) -> bool:
    """Return whether a step chooses or relabels samples, instead of changing them one by one."""
    if step.startswith("+"):
        return parse_shift(step[1:]).changes_labels
    return step not in CHANNELS and not step.endswith("px")


def _matching(pattern: str) -> list[str]:
    """Return the file of this name, or those that a pattern matches, in the order of their names."""
    found = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.iglob(pattern)))
    if not found:
        raise DataError(f"no such file: {pattern}; expected the files of a stream, or a pattern")
    return found


def _has_samples(path: str) -> bool:
    """Return whether a tar file holds anything; the reader cannot take one that does not."""
    _check_end(path)
    with tarfile.open(path) as tar:
        return tar.next() is not None


def _check_end(path: str) -> None:
    """Refuse a tar file that was cut off: readers take the end of the file for that of the samples."""
    if not path.endswith(".tar"):  # a compressed file has an end of its own
        return
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _TAR_END))
        if file.read() != bytes(_TAR_END):
            raise DataError(f"{path} has no end: it was cut off while it was written or copied; copy it again")
