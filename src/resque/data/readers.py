"""Where labeled samples come from: arrays, files, folders, libraries and a user's own code, read into memory.

Images come as uint8, channels last, of one size or of several; texts as strings; a user's own data set may give tensors
that are ready. Nothing is downloaded, except what ``hf:NAME`` names on the hub.
"""

import functools
import gzip
import inspect
import itertools
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resque._callables import load_callable
from resque._optional import import_optional
from resque.data.samples import RawSamples
from resque.errors import DataError, ModelError

_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4"}
_LARGEST_RANK = 4
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_LABELS = ("label", "labels", "fine_label", "target", "y", "class")
_IMAGES = ("image", "img", "images", "x")
_TEXTS = ("text", "sentence", "content", "review")
_ROWS = 4096
Watch = Callable[[int, int | None], None]
SOURCES = (
    "digits, npz:FILE, idx:IMAGES,LABELS, folder:PATH, parquet:FILE, hf:NAME, torchvision:NAME or FILE.py:CALLABLE"
)


def read_source(
    source: str, root: Path = Path("data"), limit: int | None = None, on_progress: Watch = lambda done, total: None
) -> RawSamples:
    """Read a source.

    Args:
        source: A specification without its steps.
        root: Where torchvision's data sets lie.
        limit: Stop after this many samples where the source is a stream; such sources cannot be drawn from at random.
        on_progress: Called with ``(samples read, samples in all or None)`` now and then.

    Raises:
        DataError: Missing, or not in the form that it should have.
    """
    kind, _, rest = source.partition(":")
    if source == "digits":
        return _digits()
    if kind == "npz" and rest:
        return _npz(Path(rest))
    if kind == "idx" and rest.count(",") == 1:
        images, labels = rest.split(",")
        return RawSamples(_idx(Path(images)), _idx(Path(labels)))
    if kind == "idx" and rest:
        return RawSamples(_idx(Path(rest)), None)
    if kind == "folder" and rest:
        return _folder(Path(rest), on_progress)
    if kind == "parquet" and rest:
        return _parquet(Path(rest), limit, on_progress)
    if kind == "hf" and rest:
        return _hugging_face(rest, limit, on_progress)
    if kind == "torchvision" and rest:
        return _torchvision(rest, root, on_progress)
    if source.rpartition(":")[0].endswith(".py"):
        return _own(source, limit, on_progress)
    suffix = Path(source).suffix.lstrip(".")
    hint = f"; did you mean {suffix}:{source}?" if suffix in ("npz", "parquet") else ""
    raise DataError(f"cannot read data {source!r}{hint}: expected {SOURCES}, then e.g. @test or +gaussian:5")


def _digits() -> RawSamples:
    x, y = _scans()
    return RawSamples(x.copy(), y.copy())


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn reads them from text, which takes longer than most of what is done with them."""
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


def _npz(path: Path) -> RawSamples:
    _bytes(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "x" not in archive.files:
                raise DataError(f"{path} holds {sorted(archive.files)}: expected arrays x (images) and y (labels)")
            return RawSamples(archive["x"], archive["y"] if "y" in archive.files else None)
    except DataError:
        raise
    except Exception as error:  # numpy's reader raises many kinds on a file that is none
        raise DataError(
            f"{path} is no .npz archive of plain arrays ({type(error).__name__}); write it with numpy.savez(x=…, y=…)"
        ) from error


def _idx(path: Path) -> np.ndarray:
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


def _folder(path: Path, on_progress: Watch) -> RawSamples:
    """One folder a class, the classes in the order of their names."""
    if not path.is_dir():
        raise DataError(f"no such folder: {path}; expected one folder a class in it, with images inside")
    names = sorted(place.name for place in path.iterdir() if place.is_dir() and not place.name.startswith("."))
    files = [
        (file, label)
        for label, name in enumerate(names)
        for file in sorted((path / name).rglob("*"))
        if file.suffix.lower() in _PICTURES
    ]
    if not files:
        raise DataError(f"{path} holds no images in folders of their classes ({', '.join(_PICTURES)})")
    images = [_opened(file) for file in _shown((file for file, _ in files), len(files), on_progress)]
    return RawSamples(_alike(images), np.array([label for _, label in files]), tuple(names))


def _opened(file: Any) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return _pixels(image)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read: {error}") from error


def _pixels(image: Any) -> np.ndarray:
    """A Pillow image as gray ``(h, w, 1)`` or colour ``(h, w, 3)``."""
    mode = "L" if image.mode in ("1", "L", "I;16", "I", "F") else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[:, :, None] if array.ndim == 2 else array


def _alike(images: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """One array where all have one size; gray becomes colour where some are."""
    if len({image.shape[2] for image in images}) > 1:
        images = [image.repeat(3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images) if len({image.shape for image in images}) == 1 else images


def _parquet(path: Path, limit: int | None, on_progress: Watch) -> RawSamples:
    if not path.is_file():
        raise DataError(f"no such file: {path}; expected a Parquet file with an image or a text and a label a row")
    data = import_optional("datasets", "data")
    with _reading(path):
        return _rows(
            data.load_dataset("parquet", data_files=str(path), split="train", streaming=True), path, limit, on_progress
        )


def _hugging_face(rest: str, limit: int | None, on_progress: Watch) -> RawSamples:
    """``NAME`` or ``NAME:SPLIT``, NAME a folder or a data set on the hub; streamed, so that no copy is cached."""
    name, _, split = rest.partition(":")
    data = import_optional("datasets", "data")
    with _reading(f"hf:{name}"):
        if (Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file():
            found = data.load_from_disk(name)
        else:
            found = data.load_dataset(name, streaming=True)
        if isinstance(found, Mapping):
            split = split or ("train" if "train" in found else next(iter(found)))
            if split not in found:
                raise DataError(f"hf:{name} has no part {split!r}: use one of {', '.join(found)}, e.g. hf:{name}:test")
            found = found[split]
        return _rows(found, f"hf:{rest}", limit, on_progress)


@contextmanager
def _reading(name: Any) -> Iterator[None]:
    """Whatever the library raises, also at the first row it is asked for, as an error of ours."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {reason}") from error


def _rows(rows: Any, name: Any, limit: int | None, on_progress: Watch) -> RawSamples:
    """RawSamples of a Hugging Face data set: an image or a text, and a label, found by their columns' names.

    Labels that are words are numbered in their order.
    """
    total = rows.num_rows if hasattr(rows, "num_rows") else None
    first = next(iter(rows), None)
    if first is None:
        raise DataError(f"{name} holds no rows")
    if total is None and limit is not None:
        rows = rows.shuffle(seed=0, buffer_size=max(_ROWS, 4 * limit))  # as drawn as a stream can be
    label = next((column for column in _LABELS if column in first), None)
    content = next((column for column in (*_IMAGES, *_TEXTS) if column in first), None)
    if content is None:
        raise DataError(
            f"{name} has the columns {', '.join(first)}; expected a label ({', '.join(_LABELS)}) and an image "
            f"({', '.join(_IMAGES)}) or a text ({', '.join(_TEXTS)})"
        )
    taken = itertools.islice(_shown(rows, total, on_progress), limit if total is None else None)
    values, labels = zip(*((row[content], row[label] if label else 0) for row in taken), strict=True)
    feature = (getattr(rows, "features", None) or {}).get(label) if label else None
    names = tuple(getattr(feature, "names", None) or ())
    if isinstance(labels[0], str):
        words, numbers = np.unique(np.array(labels), return_inverse=True)
        names, labels = tuple(map(str, words)), tuple(numbers.tolist())
    inputs: Any = list(values) if isinstance(values[0], str) else _alike([_decoded(value, name) for value in values])
    return RawSamples(inputs, np.array(labels) if label else None, names)


def _decoded(value: Any, name: Any) -> np.ndarray:
    import io

    if isinstance(value, Mapping) and value.get("bytes"):
        return _opened(io.BytesIO(value["bytes"]))
    if isinstance(value, bytes):
        return _opened(io.BytesIO(value))
    if hasattr(value, "convert"):
        return _pixels(value)
    array = np.asarray(value)
    if array.ndim in (2, 3) and np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)[:, :, None] if array.ndim == 2 else array.astype(np.uint8)
    raise DataError(f"{name}: an image is a {type(value).__name__}; expected encoded bytes, or pixels from 0 to 255")


def _torchvision(rest: str, root: Path, on_progress: Watch) -> RawSamples:
    """``NAME`` or ``NAME:SPLIT`` of torchvision.datasets, train by default; nothing is downloaded."""
    name, _, split = rest.partition(":")
    split = split or "train"
    form: Any = getattr(import_optional("torchvision.datasets", "models"), name, None)
    if not isinstance(form, type):
        raise DataError(f"torchvision has no data set {name!r}: e.g. CIFAR10, SVHN, GTSRB, FashionMNIST (case counts)")
    takes = inspect.signature(form).parameters
    options: dict[str, Any] = {"train": split == "train"} if "train" in takes else {"split": split}
    if name == "EMNIST":
        options = {"split": "balanced", "train": split == "train"}
    if "train" in options and split not in ("train", "test"):
        raise DataError(f"torchvision:{name} has no part {split!r}: use train or test")
    try:
        make: Any = form
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision's own reading, e.g. numpy's deprecations
            found = make(str(root), **options)
    except (RuntimeError, ValueError, OSError, TypeError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(
            f"torchvision:{name} cannot be read under {str(root)!r} ({reason}); name the folder with --data-root, "
            f"or fetch it there: torchvision.datasets.{name}({str(root)!r}, …, download=True)"
        ) from error
    names = tuple(map(str, getattr(found, "classes", ()) or ()))
    return _of_pairs(_shown((found[i] for i in range(len(found))), len(found), on_progress), rest, names)


def _own(source: str, limit: int | None, on_progress: Watch) -> RawSamples:
    """A user's function that returns a data set of pairs (x, y), by index or one after the other."""
    try:
        found: Any = load_callable(source)()
    except ModelError as error:
        raise DataError(str(error)) from error
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise DataError(f"{source} failed: {type(error).__name__}: {error}; it must run without arguments") from error
    total = len(found) if hasattr(found, "__len__") else None
    if total is not None and hasattr(found, "__getitem__"):
        pairs: Iterator[Any] = (found[i] for i in range(total))
    elif hasattr(found, "__iter__"):
        pairs = itertools.islice(iter(found), limit)
    else:
        raise DataError(f"{source} returned a {type(found).__name__}; expected a data set of pairs (x, y)")
    return _of_pairs(_shown(pairs, total, on_progress), source, ())


def _of_pairs(pairs: Iterable[Any], name: str, class_names: tuple[str, ...]) -> RawSamples:
    values, labels = [], []
    for pair in pairs:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise DataError(f"{name}: a sample is a {type(pair).__name__}; expected a pair (x, y)")
        values.append(_pixels(pair[0]) if hasattr(pair[0], "convert") else pair[0])
        labels.append(int(pair[1]))
    if not values:
        raise DataError(f"{name} holds no samples")
    return RawSamples(_joined(values, name), np.array(labels), class_names)


def _joined(values: list[Any], name: str) -> Any:
    """Images, texts, tensors or mappings of tensors, as one of each."""
    first = values[0]
    if isinstance(first, str):
        return values
    if isinstance(first, Mapping):
        return {key: _joined([value[key] for value in values], name) for key in first}
    if isinstance(first, np.ndarray) and first.dtype == np.uint8 and first.ndim in (2, 3):
        return _alike([value[:, :, None] if value.ndim == 2 else value for value in values])
    try:
        return torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{name}: samples cannot be put together ({reason}); expected one shape") from error


def _shown(values: Iterable[Any], total: int | None, on_progress: Watch) -> Iterator[Any]:
    for done, value in enumerate(values, start=1):
        yield value
        if done % _ROWS == 0 or done == total:
            on_progress(done, total)
