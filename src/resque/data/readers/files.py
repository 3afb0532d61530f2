"""Readers of files and folders: NumPy archives, MNIST's idx format, folders of images."""

import gzip
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from resque._sizes import check_size, stored_bytes
from resque.data.readers.images import IMAGE_SUFFIXES, open_image, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError

__all__ = ["read_folder", "read_idx", "read_npz"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_LARGEST_RANK = 4


def read_npz(path: str, options: ReadOptions) -> RawSamples:
    """Read the arrays x (images) and y (labels, optional) of a NumPy archive."""
    _check_exists(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
            if "x" not in names:
                raise DataError(f"{path} holds {sorted(names)}: expected arrays x (images) and y (labels)")
            _check_arrays(path, archive, [f"{name}.npy" for name in ("x", "y") if name in names])
        with np.load(path, allow_pickle=False) as arrays:
            return RawSamples(arrays["x"], arrays["y"] if "y" in names else None)
    except DataError:
        raise
    except Exception as error:  # numpy raises errors of many types on a file that is no archive
        raise DataError(
            f"{path} is no .npz archive of plain arrays ({type(error).__name__}); write it with numpy.savez(x=…, y=…)"
        ) from error


def _check_arrays(path: str, archive: zipfile.ZipFile, members: list[str]) -> None:
    """Raise an error if arrays of an archive unpack to far more than is stored, or promise more than they hold."""
    infos = [archive.getinfo(member) for member in members]
    check_size(path, sum(info.file_size for info in infos), stored_bytes(path))
    for info in infos:
        with archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
            promised = stream.tell() + math.prod(shape) * dtype.itemsize
            if promised != info.file_size and not dtype.hasobject:
                raise DataError(
                    f"{path} has {info.file_size} bytes of {info.filename}, and its header promises {promised}"
                )


def read_idx(paths: str, options: ReadOptions) -> RawSamples:
    """Read ``IMAGES,LABELS`` in MNIST's idx format, gzipped or not; or ``IMAGES`` without labels."""
    images, comma, labels = paths.partition(",")
    return RawSamples(_read_idx_file(Path(images)), _read_idx_file(Path(labels)) if comma else None)


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
    images = list(_open_images(f"folder:{path}", options.track((file for file, _ in files), len(files))))
    return RawSamples(stack_images(images), np.array([label for _, label in files]), tuple(names), True)


def _open_images(name: str, files: Iterable[Path]) -> Iterator[np.ndarray]:
    """Open images as long as all of them together take a plausible amount of memory."""
    size = stored = 0
    for file in files:
        _check_exists(file)
        image = open_image(file)
        size, stored = size + image.nbytes, stored + stored_bytes(file)
        check_size(name, size, stored)
        yield image


def _read_idx_file(path: Path) -> np.ndarray:
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
            expected = math.prod(shape) * dtype.itemsize
            if not zipped and expected > path.stat().st_size:
                raise _promised(path, path.stat().st_size, expected, rank)
            check_size(path, expected, stored_bytes(path))
            raw = stream.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); is the file complete?") from error
    if rank == 0 or rank > _LARGEST_RANK or len(shape) != rank or len(raw) != expected:
        raise _promised(path, len(raw), expected, rank)
    return np.frombuffer(raw, dtype).reshape(shape)


def _promised(path: Path, found: int, expected: int, rank: int) -> DataError:
    more = " or more" if found > expected else ""
    promise = f"{expected} bytes in {rank} dimensions"
    return DataError(f"{path} has {found}{more} bytes where its header promises {promise}: is it complete?")


def _check_exists(path: str | Path) -> None:
    if not os.path.isfile(path):
        raise DataError(f"no such file: {path}; check the path (relative paths start at the current folder)")
