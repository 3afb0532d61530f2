"""Samples with their classes, resident in memory: taken in part, changed, cut into batches as a model wants them."""

import dataclasses
import functools
import hashlib
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing, Tokenization, convert_channels, resize
from resque.data.shifts import Shift
from resque.errors import DataError

CHANNELS = {"@gray": 1, "@rgb": 3}
BATCH = 256
Inputs = Tensor | Mapping[str, Tensor]
_PARTS = {"train": (0.0, 0.7), "test": (0.7, 1.0), "original": (0.0, 0.7), "shifted": (0.5, 1.0)}
_CHUNK = 256
_BLOCK_VALUES = 2**20
_MOST_BATCHES = 16
_LARGEST_SIDE = 4096


@dataclass(frozen=True, eq=False)
class LabeledDataset:
    """Samples with their classes, resident in memory.

    Attributes:
        name: The specification it came from.
        inputs: Images ``(n, channels, height, width)``, uint8 or float32 in [0, 1]; or other tensors ``(n, …)`` that
            are ready for a model, by name where it takes several, as a text classifier does.
        labels: ``(n,)`` int64.
        indices: ``(n,)`` int64, each sample's own number in its source; seeds its noise.
        shifts: The shifts already applied, in order.
        transform: What the model wants of the inputs; done batch by batch.
        class_names: What the labels 0, 1, … are called, where the source says so.
        labeled: Whether the source has labels; without, they are all 0 and mean nothing.
        mixed: Of data that come from several sources, the kind of shift of each.

    Example:
        >>> from resque.data.loading import load_data
        >>> data = load_data("digits@test+gaussian:3")
        >>> len(data), tuple(data.inputs.shape[1:]), data.shift_type
        (539, (1, 8, 8), 'gaussian')
    """

    name: str
    inputs: Inputs
    labels: Tensor
    indices: Tensor
    shifts: tuple[Shift, ...] = ()
    transform: ImagePreprocessing | Tokenization = NO_PREPROCESSING
    class_names: tuple[str, ...] = ()
    labeled: bool = True
    mixed: tuple[str | None, ...] = ()

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
    def shift_type(self) -> str | None:
        """Which kinds of shift were applied, e.g. ``"blur+gaussian"``, of a mixture ``"blur~none"``; None if none."""
        if any(self.mixed):
            return "~".join(kind or "none" for kind in self.mixed)
        return "+".join(sorted({shift.shift_type for shift in self.shifts})) or None

    @property
    def preprocessing(self) -> str:
        """What is done to the inputs before the model, in words; two profiles must agree in it."""
        return str(self.transform)

    @property
    def images(self) -> Tensor:
        """The inputs, which are images.

        Raises:
            DataError: They are something else.
        """
        if isinstance(self.inputs, Tensor) and self.inputs.ndim == 4:
            return self.inputs
        raise DataError(f"{self.name} holds no images: leave out what is done to images (+KIND:LEVEL, @32px, @gray)")

    @functools.cached_property
    def digest(self) -> str:
        """Which data these are, whatever their name: a hash of inputs and labels, 16 hex digits."""
        found, inputs = hashlib.blake2b(digest_size=8), self.inputs
        for values in (self.labels, *(inputs.values() if isinstance(inputs, Mapping) else [inputs])):
            found.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    def take(self, rows: Tensor) -> "LabeledDataset":
        """The same data, these rows alone."""
        inputs = _each(self.inputs, lambda values: values[rows])
        return dataclasses.replace(self, inputs=inputs, labels=self.labels[rows], indices=self.indices[rows])

    def part(self, name: str, seed: int = 0) -> "LabeledDataset":
        """A class-balanced share: ``train``/``test``, or the paper's ``original``/``shifted``."""
        low, high = _PARTS[name]
        generator = np.random.default_rng(seed)
        rows = []
        for label in self.classes:
            members = generator.permutation(np.flatnonzero(self.labels.numpy() == label))
            rows.append(members[round(low * len(members)) : round(high * len(members))])
        part = self.take(torch.from_numpy(np.sort(np.concatenate(rows))))
        return dataclasses.replace(part, name=f"{self.name}@{name}")

    def limited(self, limit: int, seed: int = 0) -> "LabeledDataset":
        """At most this many samples, drawn without order."""
        if limit < 1:
            raise DataError(f"{self.name}: a limit of {limit} leaves nothing; expected at least 1 sample")
        if limit >= len(self):
            return self
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:limit])
        return dataclasses.replace(self.take(torch.from_numpy(rows)), name=f"{self.name}@{limit}")

    def resized(self, side: int) -> "LabeledDataset":
        """Every image resized to ``side`` × ``side`` pixels (bilinear, antialiased)."""
        check_side(side, f"{self.name}@{side}px")
        images = torch.cat([resize(as_float(chunk), side) for _, chunk in self._chunks()])
        return dataclasses.replace(self, name=f"{self.name}@{side}px", inputs=images)

    def with_channels(self, channels: int) -> "LabeledDataset":
        """Every image gray (1) or in colour (3)."""
        images = torch.cat([convert_channels(as_float(chunk), channels) for _, chunk in self._chunks()])
        name = next(step for step, own in CHANNELS.items() if own == channels)
        return dataclasses.replace(self, name=f"{self.name}{name}", inputs=images)

    def shifted(self, shift: Shift, seed: int = 0) -> "LabeledDataset":
        """The same samples under one more shift, which depends on seed, sample and position in the stack."""
        seed = seed * 101 + len(self.shifts)
        made: dict[str, Any] = {"name": f"{self.name}+{shift}", "shifts": (*self.shifts, shift)}
        if shift.changes_labels:
            rows, labels = shift.apply_to_labels(self.labels, indices=self.indices, seed=seed)
            return dataclasses.replace(self.take(rows), labels=labels, **made)
        chunks = [shift(as_float(chunk), indices=own, seed=seed) for own, chunk in self._chunks()]
        return dataclasses.replace(self, inputs=torch.cat(chunks), **made)

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
            if isinstance(inputs, Tensor) and isinstance(self.transform, ImagePreprocessing):
                inputs = self.transform(as_float(inputs), augment)
            labels = self.labels[rows].to(device)
            for first in range(0, len(labels), batch_size):
                part = slice(first, first + batch_size)
                yield _each(inputs, operator.itemgetter(part)), labels[part]

    def batches_per_block(self, batch_size: int) -> int:
        """How many batches are augmented at once: that costs a fraction of one at a time, and memory for a block."""
        shape = tuple(self.inputs.shape[1:]) if isinstance(self.inputs, Tensor) else (_BLOCK_VALUES,)
        if isinstance(self.transform, ImagePreprocessing) and self.transform.fixed and self.transform.side:
            shape = (shape[0], self.transform.side, self.transform.side)
        return min(_MOST_BATCHES, max(1, _BLOCK_VALUES // (batch_size * math.prod(shape))))

    def resident(self, device: torch.device) -> "LabeledDataset":
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


def check_side(side: int, spec: str) -> None:
    """Refuse a size that no image should have."""
    if not 1 <= side <= _LARGEST_SIDE:
        raise DataError(f"{spec}: expected 1 to {_LARGEST_SIDE} pixels a side, e.g. @32px")


def _placed(values: Tensor, rows: slice | Tensor, device: torch.device | str) -> Tensor:
    return values[rows].to(device)


def _each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    return {name: change(v) for name, v in inputs.items()} if isinstance(inputs, Mapping) else change(inputs)
