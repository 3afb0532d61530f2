"""Readers of files and folders: NumPy archives, MNIST's idx format, folders of images."""

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from resque._sizes import check_expansion, check_memory, stored_bytes
from resque.data.readers.images import IMAGE_SUFFIXES, open_image, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError

__all__ = ["read_folder", "read_idx", "read_npz"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_LARGEST_RANK = 4


class _Array(NamedTuple):
    """An array of a file, or the rows that were drawn from it, and the number of all rows."""

    values: np.ndarray
    rows: np.ndarray | None = None
    total: int = 0


def read_npz(path: str, options: ReadOptions) -> RawSamples:
    """Read the arrays x (images) and y (labels, optional) of a NumPy archive."""
    _check_exists(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if "x" not in names:
                raise DataError(f"{path} holds {sorted(names)}: expected arrays x (images) and y (labels)")
            members = [f"{name}.npy" for name in ("x", "y") if name in names]
            check_expansion(path, sum(archive.getinfo(each).file_size for each in members), stored_bytes(path))
            labels = _read_member(path, archive, "y.npy", ReadOptions()).values if "y" in names else None
            images = _read_member(path, archive, "x.npy", options)
    except DataError:
        raise
    except Exception as error:  # numpy raises errors of many types on a file that is no archive
        raise DataError(
            f"{path} is no .npz archive of plain arrays ({type(error).__name__}); write it with numpy.savez(x=…, y=…)"
        ) from error
    return RawSamples(images.values, labels, rows=images.rows, total=images.total)


def _read_member(path: str, archive: zipfile.ZipFile, member: str, options: ReadOptions) -> _Array:
    """Read an array of an archive, unless it takes too much memory or promises more than it holds."""
    info = archive.getinfo(member)
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, columns_first, dtype = read_header(stream)
        promised = stream.tell() + math.prod(shape) * dtype.itemsize
        if promised != info.file_size and not dtype.hasobject:
            raise DataError(f"{path} has {info.file_size} bytes of {member}, and its header promises {promised}")
        if not (columns_first or dtype.hasobject) and (rows := _draw(path, shape, options)) is not None:
            return _Array(_read_rows(path, stream, shape, dtype, rows), rows, shape[0])
        check_memory(path, info.file_size)
        stream.seek(0)
        return _Array(np.lib.format.read_array(stream, allow_pickle=False))


def _draw(path: str | Path, shape: Sequence[int], options: ReadOptions) -> np.ndarray | None:
    """Return which rows of an array are read; None reads all."""
    if (options.limit is None and options.rows is None) or not math.prod(shape) or not shape:
        return None
    check_memory(path, 8 * shape[0])  # their numbers
    return options.draw(shape[0])


def _read_rows(path: str | Path, stream: Any, shape: Sequence[int], dtype: np.dtype, rows: np.ndarray) -> np.ndarray:
    """Read rows, given in their order, of an array that begins here; what lies between them is not kept."""
    size, start = math.prod(shape[1:]) * dtype.itemsize, stream.tell()
    check_memory(path, len(rows) * size)
    values = np.empty((len(rows), *shape[1:]), dtype)
    for place, row in enumerate(rows.tolist()):
        stream.seek(start + row * size)
        if len(raw := stream.read(size)) < size:
            raise EOFError(f"it ends before row {row} does")
        values[place] = np.frombuffer(raw, dtype).reshape(shape[1:])
    return values


def read_idx(paths: str, options: ReadOptions) -> RawSamples:
    """Read ``IMAGES,LABELS`` in MNIST's idx format, gzipped or not; or ``IMAGES`` without labels."""
    path, comma, labels = paths.partition(",")
    images = _read_idx_file(Path(path), options)
    numbers = _read_idx_file(Path(labels), ReadOptions()).values if comma else None
    return RawSamples(images.values, numbers, rows=images.rows, total=images.total)


def read_folder(path: str, options: ReadOptions) -> RawSamples:
    """Read a folder with one folder of images for each class; the classes are sorted by name."""
    if not os.path.isdir(path):  # pathlib raises on names that are too long
        raise DataError(f"no such folder: {path}; expected one folder a class in it, with images inside")
    try:
        root = Path(path)
        names = sorted(place.name for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
        files = [
            (file, label)
            for label, name in enumerate(names)
            for file in sorted((root / name).rglob("*"))
            if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir()
        ]
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}; check its permissions") from error
    if not files:
        raise DataError(f"{path} holds no images in folders of their classes ({', '.join(IMAGE_SUFFIXES)})")
    labels, rows = np.array([label for _, label in files]), options.draw(len(files))
    taken = [file for file, _ in files] if rows is None else [files[row][0] for row in rows]
    images = list(_open_images(f"folder:{path}", options.track(taken, len(taken))))
    return RawSamples(stack_images(images), labels, tuple(names), True, rows, len(files))


def _open_images(name: str, files: Iterable[Path]) -> Iterator[np.ndarray]:
    """Open images as long as all of them together take a plausible amount of memory."""
    size = stored = 0

    def check(more: int) -> None:
        check_memory(name, size + more, held=size)
        check_expansion(name, size + more, stored)

    for file in files:
        _check_exists(file)
        stored += stored_bytes(file)
        image = open_image(file, check)
        size += image.nbytes
        yield image


def _read_idx_file(path: Path, options: ReadOptions) -> _Array:
    _check_exists(path)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\x00\x00" or head[2] not in _IDX_TYPES:
                raise DataError(f"{path} is not in MNIST's idx format (integers): its first bytes are {head.hex()!r}")
            dtype, rank = np.dtype(_IDX_TYPES[head[2]]), head[3]
            sizes = stream.read(4 * rank)
            shape = struct.unpack(f">{len(sizes) // 4}I", sizes[: len(sizes) // 4 * 4])
            if 0 in shape:
                raise DataError(f"{path} holds nothing: its header says {'×'.join(map(str, shape))}")
            expected = math.prod(shape) * dtype.itemsize
            if not zipped and expected > path.stat().st_size:
                raise _promised(path, path.stat().st_size, expected, rank)
            check_expansion(path, expected, stored_bytes(path))
            if len(shape) == rank <= _LARGEST_RANK and (rows := _draw(path, shape, options)) is not None:
                return _Array(_read_rows(path, stream, shape, dtype, rows), rows, shape[0])
            check_memory(path, expected)
            raw = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); is the file complete?") from error
    if rank == 0 or rank > _LARGEST_RANK or len(shape) != rank or len(raw) != expected:
        raise _promised(path, len(raw), expected, rank)
    return _Array(np.frombuffer(raw, dtype).reshape(shape))


def _promised(path: Path, found: int, expected: int, rank: int) -> DataError:
    more = " or more" if found > expected else ""
    promise = f"{expected} bytes in {rank} dimensions"
    return DataError(f"{path} has {found}{more} bytes where its header promises {promise}: is it complete?")


def _check_exists(path: str | Path) -> None:
    if not os.path.isfile(path):
        raise DataError(f"no such file: {path}; check the path (relative paths start at the current folder)")
