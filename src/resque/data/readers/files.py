"""Readers of files and folders: NumPy archives, MNIST's idx format, folders of images."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from resque.data.readers.images import IMAGE_SUFFIXES, open_image, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError

__all__ = ["read_folder", "read_idx", "read_npz"]

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_LARGEST_RANK = 4


def read_npz(path: str, options: ReadOptions) -> RawSamples:
    """Read the arrays x (images) and y (labels, optional) of a NumPy archive."""
    _check_exists(Path(path))
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive.files:
                raise DataError(f"{path} holds {sorted(archive.files)}: expected arrays x (images) and y (labels)")
            return RawSamples(archive["x"], archive["y"] if "y" in archive.files else None)
    except DataError:
        raise
    except Exception as error:  # numpy raises errors of many types on a file that is no archive
        raise DataError(
            f"{path} is no .npz archive of plain arrays ({type(error).__name__}); write it with numpy.savez(x=…, y=…)"
        ) from error


def read_idx(paths: str, options: ReadOptions) -> RawSamples:
    """Read ``IMAGES,LABELS`` in MNIST's idx format, gzipped or not; or ``IMAGES`` without labels."""
    images, comma, labels = paths.partition(",")
    return RawSamples(_read_idx_file(Path(images)), _read_idx_file(Path(labels)) if comma else None)


def read_folder(path: str, options: ReadOptions) -> RawSamples:
    """Read a folder with one folder of images for each class; the classes are sorted by name."""
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"no such folder: {path}; expected one folder a class in it, with images inside")
    names = sorted(place.name for place in root.iterdir() if place.is_dir() and not place.name.startswith("."))
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((root / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise DataError(f"{path} holds no images in folders of their classes ({', '.join(IMAGE_SUFFIXES)})")
    images = [open_image(file) for file, _ in options.track(files, len(files))]
    return RawSamples(stack_images(images), np.array([label for _, label in files]), tuple(names), True)


def _read_idx_file(path: Path) -> np.ndarray:
    raw = _read_bytes(path)
    if len(raw) < 4 or raw[:2] != b"\x00\x00" or raw[2] not in _IDX_TYPES:
        raise DataError(f"{path} is not in MNIST's idx format (integers): its first bytes are {raw[:4].hex()!r}")
    dtype, rank = np.dtype(_IDX_TYPES[raw[2]]), raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4) if len(raw) >= 4 + 4 * rank else np.zeros(1)
    expected = 4 + 4 * rank + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if rank == 0 or rank > _LARGEST_RANK or len(raw) != expected:
        promise = f"{expected} bytes in {rank} dimensions"
        raise DataError(f"{path} has {len(raw)} bytes where its header promises {promise}: is it complete?")
    return np.frombuffer(raw, dtype, offset=4 + 4 * rank).reshape(shape)


def _read_bytes(path: Path) -> bytes:
    """Read a file, decompressed if it is gzipped."""
    _check_exists(path)
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); is the file complete?") from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"no such file: {path}; check the path (relative paths start at the current folder)")
