"""Labeled samples in memory: subsets, shifts, and batches as a model needs them."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._sizes import check_memory
from resque.data.preprocessing import (
    NO_PREPROCESSING,
    ImagePreprocessing,
    Preprocessing,
    as_float,
    check_side,
    convert_channels,
    resize,
)
from resque.data.shifts import Shift
from resque.errors import DataError

__all__ = ["BATCH", "CHANNELS", "Inputs", "LabeledDataset", "draw_rows"]

CHANNELS = {"@gray": 1, "@rgb": 3}
BATCH = 256
Inputs = Tensor | Mapping[str, Tensor]
_PARTS = {"train": (0.0, 0.7), "test": (0.7, 1.0), "original": (0.0, 0.7), "shifted": (0.5, 1.0)}
_CHUNK = 256
_BLOCK_VALUES = {"cpu": 2**20, "cuda": 2**24}
_MOST_BATCHES = 16


@dataclass(frozen=True, eq=False, repr=False)
class LabeledDataset:
    """Samples with their class labels, in memory.

    Attributes:
        name: Specification of the data.
        inputs: Images ``(n, channels, height, width)``, uint8 or float32 in [0, 1]; or other tensors ``(n, …)`` that
            are ready for the model, by name if it takes several, as a text classifier does.
        labels: Class numbers, ``(n,)`` int64.
        indices: Numbers of the samples in their source, ``(n,)`` int64; they seed the noise.
        shifts: Shifts already applied, in order.
        transform: Preprocessing of the model, applied to each batch.
        class_names: Names of the labels 0, 1, …, if the source has them.
        labeled: Whether the source has labels; if not, they are all 0 and have no meaning.
        mixture: Shift type of each source of a mixture; empty for a single source.
        numbered_by_name: Whether the labels were names, and stand for their places in sorted order.

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
    transform: Preprocessing = NO_PREPROCESSING
    class_names: tuple[str, ...] = ()
    labeled: bool = True
    mixture: tuple[str | None, ...] = ()
    numbered_by_name: bool = False

    def __repr__(self) -> str:
        return f"LabeledDataset({self.name!r}, {len(self)} samples, {len(self.classes)} classes)"

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        """Yield batches, as a loader does."""
        return self.batches()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[int]:
        """Labels that occur, sorted."""
        labels: list[int] = torch.unique(self.labels).tolist()
        return labels

    @property
    def outputs(self) -> int:
        """Number of outputs that a model needs: number of named classes, or the largest label + 1 if it is larger."""
        return max(len(self.class_names), int(self.labels.max()) + 1)

    @property
    def shift_type(self) -> str | None:
        """Types of the shifts applied, e.g. ``"blur+gaussian"``, or ``"blur~none"`` for a mixture; None without any."""
        if any(self.mixture):
            return "~".join(shift_type or "none" for shift_type in self.mixture)
        return "+".join(sorted({shift.shift_type for shift in self.shifts})) or None

    @property
    def preprocessing(self) -> str:
        """Description of the preprocessing; two profiles are comparable only if it is equal."""
        return str(self.transform)

    @property
    def images(self) -> Tensor:
        """Inputs, if they are images.

        Raises:
            DataError: If they are no images.
        """
        if isinstance(self.inputs, Tensor) and self.inputs.ndim == 4:
            return self.inputs
        raise DataError(f"{self.name} holds no images: leave out what is done to images (+TYPE:LEVEL, @32px, @gray)")

    @functools.cached_property
    def digest(self) -> str:
        """Hash of inputs and labels, 16 hex digits; it identifies the data whatever their name."""
        digest, inputs = hashlib.blake2b(digest_size=8), self.inputs
        for values in (self.labels, *(inputs.values() if isinstance(inputs, Mapping) else [inputs])):
            digest.update(values.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def take(self, rows: Tensor) -> "LabeledDataset":
        """Return the samples in these rows."""
        inputs, labels, indices = _select(self.inputs, rows), self.labels[rows], self.indices[rows]
        return dataclasses.replace(self, inputs=inputs, labels=labels, indices=indices)

    def part(self, name: str, seed: int = 0) -> "LabeledDataset":
        """Return a random, class-balanced part: ``train`` or ``test``, or the paper's ``original`` or ``shifted``."""
        low, high = _PARTS[name]
        generator = np.random.default_rng(seed)
        rows = []
        for label in self.classes:
            members = generator.permutation(np.flatnonzero(self.labels.numpy() == label))
            rows.append(members[round(low * len(members)) : round(high * len(members))])
        part = self.take(torch.from_numpy(np.sort(np.concatenate(rows))))
        return dataclasses.replace(part, name=f"{self.name}@{name}")

    def limited(self, limit: int, seed: int = 0) -> "LabeledDataset":
        """Return at most ``limit`` samples, drawn at random without replacement."""
        if limit < 1:
            raise DataError(f"{self.name}: a limit of {limit} leaves nothing; expected at least 1 sample")
        if limit >= len(self):
            return self
        rows = torch.from_numpy(draw_rows(len(self), limit, seed))
        return dataclasses.replace(self.take(rows), name=f"{self.name}@{limit}")

    def resized(self, side: int) -> "LabeledDataset":
        """Return the data with images of ``side`` × ``side`` pixels (bilinear, antialiased)."""
        check_side(side, f"{self.name}@{side}px")
        check_memory(f"{self.name}@{side}px", 4 * len(self) * self.images.shape[1] * side**2)
        images = torch.cat([resize(as_float(chunk), side) for _, chunk in self._chunks()])
        return dataclasses.replace(self, name=f"{self.name}@{side}px", inputs=images)

    def with_channels(self, channels: int) -> "LabeledDataset":
        """Return the data with gray images (1 channel) or color images (3 channels)."""
        images = torch.cat([convert_channels(as_float(chunk), channels) for _, chunk in self._chunks()])
        step = next(step for step, number in CHANNELS.items() if number == channels)
        return dataclasses.replace(self, name=f"{self.name}{step}", inputs=images)

    def shifted(self, shift: Shift, seed: int = 0) -> "LabeledDataset":
        """Return the data under one more shift; its noise depends on seed, sample and number of earlier shifts."""
        seed = seed * 101 + len(self.shifts)
        changes: dict[str, Any] = {"name": f"{self.name}+{shift}", "shifts": (*self.shifts, shift)}
        if shift.changes_labels:
            rows, labels = shift.apply_to_labels(self.labels, indices=self.indices, seed=seed)
            return dataclasses.replace(self.take(rows), labels=labels, **changes)
        chunks = [shift(as_float(chunk), indices=indices, seed=seed) for indices, chunk in self._chunks()]
        return dataclasses.replace(self, inputs=torch.cat(chunks), **changes)

    def batches(
        self,
        batch_size: int = BATCH,
        device: torch.device | str = "cpu",
        order: Tensor | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[tuple[Any, Tensor]]:
        """Yield batches ``(preprocessed inputs, labels)``.

        Args:
            batch_size: Number of samples per batch; the last batch may have fewer.
            device: Device of the batches.
            order: Rows in the order in which they are yielded, not necessarily all; None yields them as in the source.
            augment: Augmentation of images, before normalization.
        """
        order = None if order is None else order.to(self.labels.device)
        block = batch_size * (1 if augment is None else self.batches_per_block(batch_size))
        for start in range(0, len(self) if order is None else len(order), block):
            rows = slice(start, start + block) if order is None else order[start : start + block]
            inputs = _select(self.inputs, rows, device)
            if isinstance(inputs, Tensor) and isinstance(self.transform, ImagePreprocessing):
                inputs = self.transform(as_float(inputs), augment)
            labels = self.labels[rows].to(device)
            for first in range(0, len(labels), batch_size):
                batch = slice(first, first + batch_size)
                yield _select(inputs, batch), labels[batch]

    def batches_per_block(self, batch_size: int) -> int:
        """Return how many batches are augmented at once: faster than one at a time, but limited by memory."""
        most = _BLOCK_VALUES.get(self.labels.device.type, _BLOCK_VALUES["cpu"])
        shape = tuple(self.inputs.shape[1:]) if isinstance(self.inputs, Tensor) else (most,)
        if isinstance(self.transform, ImagePreprocessing) and self.transform.fixed and self.transform.side:
            shape = (shape[0], self.transform.side, self.transform.side)
        return min(_MOST_BATCHES, max(1, most // (batch_size * math.prod(shape))))

    def resident(self, device: torch.device) -> "LabeledDataset":
        """Return the data on a GPU if they fit into a quarter of its free memory; otherwise unchanged."""
        if device.type != "cuda":
            return self
        values = self.inputs.values() if isinstance(self.inputs, Mapping) else [self.inputs]
        if 4 * sum(v.numel() * v.element_size() for v in values) > torch.cuda.mem_get_info(device)[0]:
            return self
        try:
            inputs = _select(self.inputs, slice(None), device)
        except torch.OutOfMemoryError:  # others took what was free
            return self
        return dataclasses.replace(self, inputs=inputs, labels=self.labels.to(device))

    def _chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices and images in small chunks, to bound the memory of float copies."""
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            images = self.images[rows]
            if images.is_floating_point() and not (images.min() >= 0.0 and images.max() <= 1.0):
                low, high = float(images.min()), float(images.max())
                raise DataError(
                    f"{self.name}: images hold values from {low:g} to {high:g}; what changes them (@32px, +TYPE:LEVEL) "
                    "expects [0, 1]: leave their normalization to the model"
                )
            yield self.indices[rows], images


def draw_rows(n: int, limit: int, seed: int) -> np.ndarray:
    """Draw ``limit`` of ``n`` rows at random without replacement, in their order.

    Example:
        >>> draw_rows(5, 3, seed=0).tolist()
        [2, 3, 4]
    """
    return np.sort(np.random.default_rng(seed).permutation(n)[:limit])


def _select(inputs: Inputs, rows: slice | Tensor, device: torch.device | str | None = None) -> Inputs:
    """Return some rows of the inputs, on a device."""
    if isinstance(inputs, Mapping):
        return {name: values[rows].to(device=device) for name, values in inputs.items()}
    return inputs[rows].to(device=device)
