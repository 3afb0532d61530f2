"""Data specifications → labelled samples in memory, and the paper's overlapping split.

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

Splits and noise depend on the specification alone, so that two commands that name the same data see the
same samples. This module knows nothing of models but what they want of their inputs.
"""

import dataclasses
import functools
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.corruptions import Shift, parse_shift
from resque.errors import DataError
from resque.preparation import AS_IT_IS, Preparation, Tokenisation, resized, with_channels
from resque.sources import Samples, Watch, read

_PART = r"(?:[a-z_]+:-?\d+|none)"
_STEP = re.compile(
    rf"^(?P<head>.+?)(?P<step>@(?:train|test|original|shifted|gray|rgb|\d+px|\d+)|\+{_PART}(?:/{_PART})*)$"
)
_DOUBTFUL = re.compile(r"\+[a-z_]+:[^:/+@]*$")
_PARTS = {"train": (0.0, 0.7), "test": (0.7, 1.0), "original": (0.0, 0.7), "shifted": (0.5, 1.0)}
_CHANNELS = {"@gray": 1, "@rgb": 3}
BATCH = 256
_CHUNK = 256
_BLOCK_VALUES = 2**20
_MOST_BATCHES = 16
_LARGEST_SIDE = 4096
Inputs = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Samples with their classes, resident in memory.

    Attributes:
        name: The specification it came from.
        inputs: Images ``(n, channels, height, width)``, uint8 or float32 in [0, 1]; or other tensors ``(n, …)`` that
            are ready for a model, by name where it takes several, as a text classifier does.
        labels: ``(n,)`` int64.
        indices: ``(n,)`` int64, each sample's own number in its source; seeds its noise.
        shifts: The shifts already applied, in order.
        preparation: What the model wants of the inputs; done batch by batch.
        class_names: What the labels 0, 1, … are called, where the source says so.
        labelled: Whether the source has labels; without, they are all 0 and mean nothing.

    Example:
        >>> data = load_data("digits@test+gaussian:3")
        >>> len(data), tuple(data.inputs.shape[1:]), data.kind
        (539, (1, 8, 8), 'gaussian')
    """

    name: str
    inputs: Inputs
    labels: Tensor
    indices: Tensor
    shifts: tuple[Shift, ...] = ()
    preparation: Preparation | Tokenisation = AS_IT_IS
    class_names: tuple[str, ...] = ()
    labelled: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[int]:
        """The labels that occur, sorted."""
        return [int(label) for label in torch.unique(self.labels)]

    @property
    def outputs(self) -> int:
        """How many outputs a model for this data needs: the classes that its source knows, or the largest label + 1."""
        return max(len(self.class_names), int(self.labels.max()) + 1)

    @property
    def kind(self) -> str | None:
        """Which kinds of shift were applied, e.g. ``"blur+gaussian"``; None if none was."""
        return "+".join(sorted({shift.kind for shift in self.shifts})) or None

    @property
    def preprocessing(self) -> str:
        """What is done to the inputs before the model, in words; two profiles must agree in it."""
        return str(self.preparation)

    @property
    def images(self) -> Tensor:
        """The inputs, which are images.

        Raises:
            DataError: They are something else.
        """
        if isinstance(self.inputs, Tensor) and self.inputs.ndim == 4:
            return self.inputs
        raise DataError(f"{self.name} holds no images: leave out what is done to images (+KIND:LEVEL, @32px, @gray)")

    def take(self, rows: Tensor) -> "LabelledData":
        """The same data, these rows alone."""
        inputs = _each(self.inputs, lambda values: values[rows])
        return dataclasses.replace(self, inputs=inputs, labels=self.labels[rows], indices=self.indices[rows])

    def part(self, name: str, seed: int = 0) -> "LabelledData":
        """A class-balanced share: ``train``/``test``, or the paper's ``original``/``shifted``."""
        low, high = _PARTS[name]
        generator = np.random.default_rng(seed)
        rows = []
        for label in self.classes:
            members = generator.permutation(np.flatnonzero(self.labels.numpy() == label))
            rows.append(members[round(low * len(members)) : round(high * len(members))])
        part = self.take(torch.from_numpy(np.sort(np.concatenate(rows))))
        return dataclasses.replace(part, name=f"{self.name}@{name}")

    def limited(self, limit: int, seed: int = 0) -> "LabelledData":
        """At most this many samples, drawn without order."""
        if limit < 1:
            raise DataError(f"{self.name}: a limit of {limit} leaves nothing; expected at least 1 sample")
        if limit >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:limit])
        return dataclasses.replace(self.take(torch.from_numpy(rows)), name=f"{self.name}@{limit}")

    def resized(self, side: int) -> "LabelledData":
        """Every image resized to ``side`` × ``side`` pixels (bilinear, antialiased)."""
        _check_side(side, f"{self.name}@{side}px")
        images = torch.cat([resized(as_float(chunk), side) for _, chunk in self._chunks()])
        return dataclasses.replace(self, name=f"{self.name}@{side}px", inputs=images)

    def with_channels(self, channels: int) -> "LabelledData":
        """Every image gray (1) or in colour (3)."""
        images = torch.cat([with_channels(as_float(chunk), channels) for _, chunk in self._chunks()])
        name = next(step for step, own in _CHANNELS.items() if own == channels)
        return dataclasses.replace(self, name=f"{self.name}{name}", inputs=images)

    def shifted(self, shift: Shift, seed: int = 0) -> "LabelledData":
        """The same samples under one more shift, which depends on seed, sample and position in the stack."""
        seed = seed * 101 + len(self.shifts)
        made: dict[str, Any] = {"name": f"{self.name}+{shift}", "shifts": (*self.shifts, shift)}
        if shift.of_labels:
            made["labels"] = shift.relabelled(self.labels, indices=self.indices, seed=seed)
        else:
            chunks = [shift(as_float(chunk), indices=own, seed=seed) for own, chunk in self._chunks()]
            made["inputs"] = torch.cat(chunks)
        return dataclasses.replace(self, **made)

    def batches(
        self,
        batch_size: int = BATCH,
        device: torch.device | str = "cpu",
        order: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Any, Tensor]]:
        """``(inputs as the model wants them, labels)`` batch by batch, every sample once.

        Args:
            batch_size: Samples each, the last batch perhaps fewer.
            device: Where they shall be.
            order: ``(n,)`` rows in the order in which they come; None is that of the source.
            augment: What is done to images before they are normalised.
        """
        order = None if order is None else order.to(self.labels.device)
        block = batch_size * (1 if augment is None else self.batches_per_block(batch_size))
        for start in range(0, len(self), block):
            rows = slice(start, start + block) if order is None else order[start : start + block]
            inputs = _each(self.inputs, functools.partial(_placed, rows=rows, device=device))
            if isinstance(inputs, Tensor) and isinstance(self.preparation, Preparation):
                inputs = self.preparation(as_float(inputs), augment)
            labels = self.labels[rows].to(device)
            for first in range(0, len(labels), batch_size):
                part = slice(first, first + batch_size)
                yield _each(inputs, operator.itemgetter(part)), labels[part]

    def batches_per_block(self, batch_size: int) -> int:
        """How many batches are augmented at once: that costs a fraction of one at a time, and memory for a block."""
        shape = tuple(self.inputs.shape[1:]) if isinstance(self.inputs, Tensor) else (_BLOCK_VALUES,)
        if isinstance(self.preparation, Preparation) and self.preparation.fixed and self.preparation.side:
            shape = (shape[0], self.preparation.side, self.preparation.side)
        return min(_MOST_BATCHES, max(1, _BLOCK_VALUES // (batch_size * math.prod(shape))))

    def resident(self, device: torch.device) -> "LabelledData":
        """The same data on a GPU, where they take at most a quarter of its free memory; else as they are."""
        if device.type != "cuda":
            return self
        values = self.inputs.values() if isinstance(self.inputs, Mapping) else [self.inputs]
        if 4 * sum(v.numel() * v.element_size() for v in values) > torch.cuda.mem_get_info(device)[0]:
            return self
        inputs = _each(self.inputs, lambda values: values.to(device))
        return dataclasses.replace(self, inputs=inputs, labels=self.labels.to(device))

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield self.indices[rows], self.images[rows]


def as_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; anything else is left as it is."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def load_data(
    spec: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    preparation: Preparation | Tokenisation | None = None,
    root: str | Path = "data",
    for_training: bool = True,
    watch: Watch = lambda done, total: None,
) -> LabelledData:
    """Read a data set from its specification.

    Args:
        spec: A source, then steps such as ``@test`` or ``+blur:5``; see :mod:`resque.data`.
        limit: The same as ``@LIMIT`` right after the source.
        seed: Seed of splits and noise; the command line always uses 0.
        preparation: What the model wants, see :func:`resque.families.preparation_of`; texts need one.
        root: Where torchvision's data sets lie.
        for_training: False takes a single class, too, and samples without labels, which are then all 0.
        watch: Called with ``(samples read, samples in all or None)`` now and then.

    Returns:
        The data in memory.

    Raises:
        DataError: The source is missing, or what it holds cannot be used; the message says what was expected.

    Example:
        >>> load_data("digits").classes
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> load_data("digits+fog:3")
        Traceback (most recent call last):
        resque.errors.DataError: unknown shift 'fog': use one of gaussian, blur, salt_pepper, rotation, jpeg, bit_depth,
        desaturate, relabel
    """
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
    wanted = preparation or AS_IT_IS
    sides = [int(step[1:-2]) for step in steps if step.endswith("px")]
    samples = read(source, Path(root), limit, watch)
    if for_training and not samples.labelled:
        raise DataError(f"{source} has no labels; only an index of pseudo-labels needs none (--labels pseudo)")
    data = _checked(source, samples, wanted, sides[0] if sides else None)
    if limit is not None:
        data = data.limited(limit, seed)
    for step in steps:
        data = _apply(data, step, seed)
    if for_training and len(data.classes) < 2:
        raise DataError(f"{spec}: only class {data.classes} is left; a classifier needs at least two classes")
    return data


def _apply(data: LabelledData, step: str, seed: int) -> LabelledData:
    if step.startswith("+"):
        return data.shifted(parse_shift(step[1:]), seed)
    if step in _CHANNELS:
        return data.with_channels(_CHANNELS[step])
    if step.endswith("px"):
        return data.resized(int(step[1:-2]))
    if step[1:].isdigit():
        return data.limited(int(step[1:]), seed)
    return data.part(step[1:], seed)


def _checked(source: str, samples: Samples, preparation: Preparation | Tokenisation, side: int | None) -> LabelledData:
    """Labels and inputs of one form each, images with their channels first; anything else is refused."""
    labels = _checked_labels(source, samples.labels)
    inputs = _as_inputs(source, samples.inputs, preparation, side)
    n = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
    if labels.shape != (n,):
        raise DataError(
            f"{source}: labels have shape {tuple(labels.shape)}; expected ({n},), one a sample "
            "(one-hot: argmax(1); a column: ravel())"
        )
    if n == 0:
        raise DataError(f"{source}: no samples; expected at least two")
    return LabelledData(
        source,
        inputs,
        labels,
        torch.arange(n),
        preparation=preparation,
        class_names=samples.class_names,
        labelled=samples.labelled,
    )


def _checked_labels(source: str, labels: np.ndarray) -> Tensor:
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.dtype == np.uint64 and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {labels.max()} exceeds 2**63 - 1, the largest one that can be kept")
    return torch.from_numpy(labels.astype(np.int64))


def _as_inputs(source: str, inputs: Any, preparation: Preparation | Tokenisation, side: int | None) -> Inputs:
    if isinstance(inputs, Mapping | Tensor):
        return inputs
    if isinstance(inputs, list) and isinstance(inputs[0], str):
        if not isinstance(preparation, Tokenisation):
            raise DataError(f"{source} holds texts, which a text classifier reads: --model hf:PATH_OR_ID")
        return preparation.encode(inputs)
    if isinstance(preparation, Tokenisation):
        raise DataError(f"{source} holds images, and the model reads texts: name a data set with a column of texts")
    if isinstance(inputs, list):
        return _of_one_size(source, inputs, side or preparation.side)
    return _as_images(source, inputs)


def _of_one_size(source: str, images: list[np.ndarray], side: int | None) -> Tensor:
    sizes = sorted({image.shape[:2] for image in images})
    if side is None:
        shown = ", ".join(f"{h}×{w}" for h, w in (sizes[0], sizes[-1]))
        raise DataError(f"{source}: images of {len(sizes)} sizes ({shown}, …); bring them to one, e.g. {source}@64px")
    _check_side(side, f"{source}@{side}px")
    made = torch.empty(len(images), images[0].shape[2], side, side, dtype=torch.uint8)
    for place, image in zip(made, images, strict=True):
        stacked = torch.from_numpy(np.array(np.moveaxis(image, -1, 0)))[None]
        place.copy_((resized(as_float(stacked), side)[0] * 255.0).round())
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


def _check_side(side: int, spec: str) -> None:
    if not 1 <= side <= _LARGEST_SIDE:
        raise DataError(f"{spec}: expected 1 to {_LARGEST_SIDE} pixels a side, e.g. @32px")


def _placed(values: Tensor, rows: slice | Tensor, device: torch.device | str) -> Tensor:
    return values[rows].to(device)


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {name: change(v) for name, v in inputs.items()} if isinstance(inputs, Mapping) else change(inputs)
