"""Data specifications → labelled images in memory, and the paper's overlapping split.

A specification is a source, then any number of steps that are applied from left to right::

    digits                          scikit-learn's 1,797 real scans, 8×8
    npz:FILE                        x: (n, h, w) or (n, h, w, c) uint8, y: (n,) integers
    idx:IMAGES,LABELS               MNIST's format, gzipped or not
    …@train  …@test                 70 % and the other 30 % of each class
    …@original  …@shifted           the paper's 70 % and 50 % of each class, 20 % in both
    …@32px                          resized to 32×32 (bilinear)
    …@500                           at most 500 samples, drawn without order
    …+gaussian:5  +blur:5  +salt_pepper:5  +rotation:5      a corruption at level 1 to 10; they stack

Splits and noise depend on the specification alone, so that two commands that name the same data see the
same samples. This module knows nothing of models.
"""

import dataclasses
import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resque.corruptions import Corruption
from resque.errors import DataError

PREPROCESSING = "values in [0, 1], channels first"
_STEP = re.compile(r"^(?P<head>.+?)(?P<step>@(?:train|test|original|shifted|\d+px|\d+)|\+[a-z_]+:-?\d+)$")
_DOUBTFUL = re.compile(r"\+[a-z_]+:[^:/+@]*$")
_PARTS = {"train": (0.0, 0.7), "test": (0.7, 1.0), "original": (0.0, 0.7), "shifted": (0.5, 1.0)}
BATCH = 256
_CHUNK = 256
_LARGEST_SIDE = 4096
_LARGEST_RANK = 4
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Images with their classes, resident in memory.

    Attributes:
        name: The specification it came from.
        images: ``(n, channels, height, width)``, uint8 or float32 in [0, 1].
        labels: ``(n,)`` int64.
        indices: ``(n,)`` int64, each sample's own number in its source; seeds its noise.
        shifts: The corruptions already applied, in order.

    Example:
        >>> data = load_data("digits@test+gaussian:3")
        >>> len(data), tuple(data.images.shape[1:]), data.kind
        (539, (1, 8, 8), 'gaussian')
    """

    name: str
    images: Tensor
    labels: Tensor
    indices: Tensor
    shifts: tuple[Corruption, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[int]:
        """The labels that occur, sorted."""
        return [int(label) for label in torch.unique(self.labels)]

    @property
    def kind(self) -> str | None:
        """Which kinds of shift were applied, e.g. ``"blur+gaussian"``; None if none was."""
        return "+".join(sorted({shift.kind for shift in self.shifts})) or None

    def take(self, rows: Tensor) -> "LabelledData":
        """The same data, these rows alone."""
        images, labels, indices = self.images[rows], self.labels[rows], self.indices[rows]
        return dataclasses.replace(self, images=images, labels=labels, indices=indices)

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
        if not 1 <= side <= _LARGEST_SIDE:
            raise DataError(f"{self.name}@{side}px: expected 1 to {_LARGEST_SIDE} pixels a side, e.g. @32px")
        size = (side, side)
        images = [F.interpolate(chunk, size=size, mode="bilinear", antialias=True) for _, chunk in self._floats()]
        return dataclasses.replace(self, name=f"{self.name}@{side}px", images=torch.cat(images).clamp(0, 1))

    def corrupted(self, corruption: Corruption, seed: int = 0) -> "LabelledData":
        """The same samples under one more shift; noise depends on seed, sample and position in the stack."""
        seed = seed * 101 + len(self.shifts)
        images = torch.cat([corruption(c, indices=i, seed=seed) for i, c in self._floats()])
        name, shifts = f"{self.name}+{corruption}", (*self.shifts, corruption)
        return dataclasses.replace(self, name=name, images=images, shifts=shifts)

    def batches(
        self, batch_size: int = BATCH, device: torch.device | str = "cpu", order: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``(images in [0, 1], labels)`` batch by batch, every sample once, in ``order`` if given."""
        for start in range(0, len(self), batch_size):
            rows = slice(start, start + batch_size) if order is None else order[start : start + batch_size]
            yield as_float(self.images[rows].to(device)), self.labels[rows].to(device)

    def _floats(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield self.indices[rows], as_float(self.images[rows])


def as_float(images: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; floats are left as they are."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def load_data(spec: str, *, limit: int | None = None, seed: int = 0) -> LabelledData:
    """Read a data set from its specification.

    Args:
        spec: ``digits``, ``npz:FILE`` or ``idx:IMAGES,LABELS``, then steps such as ``@test`` or ``+blur:5``.
        limit: The same as ``@LIMIT`` right after the source.
        seed: Seed of splits and noise; the command line always uses 0.

    Returns:
        The data in memory, at least two classes.

    Raises:
        DataError: The file is missing, or what it holds cannot be used; the message says what was expected.

    Example:
        >>> load_data("digits").classes
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        >>> load_data("digits+fog:3")
        Traceback (most recent call last):
        resque.errors.DataError: unknown corruption 'fog': use one of gaussian, blur, salt_pepper, rotation
    """
    steps: list[str] = []
    source = spec
    while match := _STEP.match(source):
        source, step = match["head"], match["step"]
        steps.insert(0, step)
    if doubtful := _DOUBTFUL.search(source):
        raise DataError(f"cannot apply {doubtful[0]!r}: a shift is written +KIND:LEVEL with a whole level 1 to 10")
    images, labels = _read(source)
    data = _checked(source, images, labels)
    if limit is not None:
        data = data.limited(limit, seed)
    for step in steps:
        data = _apply(data, step, seed)
    if len(data.classes) < 2:
        raise DataError(f"{spec}: only class {data.classes} is left; a classifier needs at least two classes")
    return data


def _apply(data: LabelledData, step: str, seed: int) -> LabelledData:
    if step.startswith("+"):
        kind, level = step[1:].split(":")
        return data.corrupted(Corruption(kind, int(level)), seed)
    if step.endswith("px"):
        return data.resized(int(step[1:-2]))
    if step[1:].isdigit():
        return data.limited(int(step[1:]), seed)
    return data.part(step[1:], seed)


def _read(source: str) -> tuple[np.ndarray, np.ndarray]:
    kind, _, rest = source.partition(":")
    if source == "digits":
        return _read_digits()
    if kind == "npz" and rest:
        return _read_npz(Path(rest))
    if kind == "idx" and rest.count(",") == 1:
        images, labels = rest.split(",")
        return _read_idx(Path(images)), _read_idx(Path(labels))
    raise DataError(
        f"cannot read data {source!r}: expected digits, npz:FILE or idx:IMAGES,LABELS, then e.g. @test or +gaussian:5"
    )


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    scans = load_digits()
    return np.round(scans.images * (255 / 16)).astype(np.uint8), scans.target


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"no such file: {path}; check the path (relative paths start at the current folder)")
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); is the file complete?") from error


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    _bytes(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not {"x", "y"} <= set(archive.files):
                raise DataError(f"{path} holds {sorted(archive.files)}: expected arrays x (images) and y (labels)")
            return archive["x"], archive["y"]
    except DataError:
        raise
    except Exception as error:  # numpy's reader raises many kinds on a file that is none
        raise DataError(f"{path} is not a plain .npz archive ({error}); write it with numpy.savez") from error


def _read_idx(path: Path) -> np.ndarray:
    raw = _bytes(path)
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in _IDX_TYPES:
        raise DataError(f"{path} is not in MNIST's idx format (integers): its first bytes are {raw[:4].hex()!r}")
    dtype, rank = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4) if len(raw) >= 4 + 4 * rank else np.zeros(1)
    expected = 4 + 4 * rank + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if rank == 0 or rank > _LARGEST_RANK or len(raw) != expected:
        promise = f"{expected} bytes in {rank} dimensions"
        raise DataError(f"{path} has {len(raw)} bytes where its header promises {promise}: is it complete?")
    return np.frombuffer(raw, dtype, offset=4 + 4 * rank).reshape(shape)


def _checked(source: str, images: np.ndarray, labels: np.ndarray) -> LabelledData:
    """Refuse what is not uint8 images with integer labels, else put the channels first."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        raise DataError(
            f"{source}: images have shape {images.shape}; expected (n, h, w) or "
            "(n, h, w, c) with 1, 3 or 4 channels (in idx: the images come first)"
        )
    if images.dtype != np.uint8:
        raise DataError(f"{source}: images are {images.dtype}; expected uint8, 0 to 255 (scale and .astype('uint8'))")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{source}: labels are {labels.dtype}; expected integers, one class number a sample")
    if labels.dtype == np.uint64 and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"{source}: label {labels.max()} exceeds 2**63 - 1, the largest one that can be kept")
    if labels.shape != (len(images),):
        raise DataError(
            f"{source}: labels have shape {labels.shape}; expected ({len(images)},), one a sample "
            "(one-hot: argmax(1); a column: ravel())"
        )
    if len(images) == 0 or 0 in images.shape:
        raise DataError(f"{source}: no images, shape {images.shape}; expected at least two samples")
    stacked = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    tensor = torch.from_numpy(np.array(stacked, order="C"))
    target = torch.from_numpy(labels.astype(np.int64))
    return LabelledData(source, tensor, target, torch.arange(len(target)))
