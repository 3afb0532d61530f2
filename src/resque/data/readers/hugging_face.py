"""Readers of Hugging Face datasets: Parquet files, saved folders, and names on the hub."""

import io
import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from resque._optional import import_optional
from resque._sizes import check_expansion, check_memory, stored_bytes
from resque.data.readers.images import image_to_array, open_image, stack_images
from resque.data.readers.options import ReadOptions
from resque.data.samples import RawSamples
from resque.errors import DataError

__all__ = [
    "Columns",
    "check_parquet",
    "decode",
    "find_columns",
    "join_values",
    "library_errors",
    "network",
    "read_hugging_face",
    "read_parquet",
]

_LABELS = ("label", "labels", "fine_label", "target", "y", "class", "cls")
_IMAGES = ("image", "img", "images", "x", "png", "jpg", "jpeg", "webp")
_TEXTS = ("text", "sentence", "content", "review", "txt")
_SHUFFLE_BUFFER = 4096


def read_parquet(path: str, options: ReadOptions) -> RawSamples:
    """Read a Parquet file with a column of images or texts and a column of labels."""
    options.refuse_stream(path)
    if not os.path.isfile(path):  # pathlib raises on names that are too long
        raise DataError(f"no such file: {path}; expected a Parquet file with an image or a text and a label a row")
    datasets = import_optional("datasets", "data")
    with library_errors(path), network(options.download):
        check_parquet(path)
        rows = datasets.load_dataset("parquet", data_files=path, split="train", streaming=True)
        return _read_rows(rows, path, options, stored_bytes(path))


def check_parquet(path: str) -> int:
    """Refuse a Parquet file that unpacks to far more than is stored; return its number of rows."""
    metadata = import_optional("pyarrow.parquet", "data").read_metadata(path)
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    check_expansion(path, sum(group.total_byte_size for group in groups), stored_bytes(path))
    rows: int = metadata.num_rows
    return rows


def read_hugging_face(spec: str, options: ReadOptions) -> RawSamples:
    """Read ``NAME`` or ``NAME:SPLIT``: a folder, or a dataset of the hub.

    Without leave to download, a dataset of the hub is read from the library's cache; with it, it is streamed, so that
    no copy is cached.
    """
    options.refuse_stream(f"hf:{spec}")
    name, _, split = spec.partition(":")
    is_folder = os.path.isdir(name)
    if not (is_folder or options.download or _was_fetched(name)):  # before a library is imported, which takes seconds
        raise DataError(
            f"hf:{name}: no such folder here, nor fetched before; correct the path, or add --download (in Python "
            "download=True) to read a data set of the hub"
        )
    datasets = import_optional("datasets", "data")
    with library_errors(f"hf:{name}"), network(options.download):
        if any(os.path.isfile(os.path.join(name, file)) for file in ("dataset_dict.json", "state.json")):
            rows = datasets.load_from_disk(name)
        else:
            rows = datasets.load_dataset(name, streaming=is_folder or options.download)
        if isinstance(rows, Mapping):
            split = split or ("train" if "train" in rows else next(iter(rows)))
            if split not in rows:
                raise DataError(f"hf:{name} has no part {split!r}: use one of {', '.join(rows)}, e.g. hf:{name}:test")
            rows = rows[split]
        return _read_rows(rows, f"hf:{spec}", options)


def _was_fetched(name: str) -> bool:
    """Return whether the library's cache may hold a dataset of the hub; the library knows, but is slow to import."""
    hub = import_optional("huggingface_hub.constants", "data")
    cache = os.environ.get("HF_DATASETS_CACHE") or os.path.join(hub.HF_HOME, "datasets")
    held = os.listdir(cache) if os.path.isdir(cache) else []
    return name.replace("/", "___").replace("_", "").lower() in {each.replace("_", "").lower() for each in held}


@contextmanager
def network(allowed: bool) -> Iterator[None]:
    """Keep the library from a network that it may not ask; it would also tell of each Parquet file that it reads."""
    modules: list[Any] = [import_optional(name, "data") for name in ("datasets.config", "huggingface_hub.constants")]
    kept = [module.HF_HUB_OFFLINE for module in modules]
    try:
        for module in modules:
            module.HF_HUB_OFFLINE = module.HF_HUB_OFFLINE or not allowed
        yield
    finally:
        for module, value in zip(modules, kept, strict=True):
            module.HF_HUB_OFFLINE = value


@contextmanager
def library_errors(name: str) -> Iterator[None]:
    """Turn every error of the library, which may come as late as the first row, into a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"{name} cannot be read: {type(error).__name__}: {reason}") from error


@dataclass(frozen=True)
class Columns:
    """Columns of a table that hold the samples.

    Attributes:
        content: Column of images or texts.
        label: Column of labels; None without labels.
        class_names: Names of the labels 0, 1, …, if the table has them.
        named: Whether the labels are names, or numbers that have them.
    """

    content: str
    label: str | None
    class_names: tuple[str, ...] = ()
    named: bool = False


def find_columns(rows: Any, name: str) -> tuple[Any, Columns]:
    """Find the columns by their names; return the rows with images as they are stored, and the columns."""
    features = dict(getattr(rows, "features", None) or {})
    for column, feature in features.items():
        if type(feature).__name__ == "Image":
            rows = rows.cast_column(column, type(feature)(decode=False))
    first = next(iter(rows), None)
    if first is None:
        raise DataError(f"{name} holds no rows")
    label = next((column for column in _LABELS if column in first), None)
    content = next((column for column in (*_IMAGES, *_TEXTS) if column in first), None)
    if content is None:
        raise DataError(
            f"{name} has the columns {', '.join(first)}; expected a label ({', '.join(_LABELS)}) and an image "
            f"({', '.join(_IMAGES)}) or a text ({', '.join(_TEXTS)})"
        )
    names = tuple(getattr(features.get(label), "names", None) or ())
    return rows, Columns(content, label, names, bool(names) or isinstance(first.get(label), str))


def _read_rows(rows: Any, name: str, options: ReadOptions, stored: int | None = None) -> RawSamples:
    """Read the content and label columns; images are decoded here, once their size is known."""
    rows, columns = find_columns(rows, name)
    total, limit = getattr(rows, "num_rows", None), options.limit
    if total is None and limit is not None:
        rows = rows.shuffle(seed=0, buffer_size=max(_SHUFFLE_BUFFER, 4 * limit))  # as random as a stream can be
    content, label, names = columns.content, columns.label, columns.class_names
    taken = itertools.islice(options.track(rows, total), limit if total is None else None)
    values: list[Any] = []
    labels, size = [], 0
    for number, row in enumerate(taken):
        values.append(decode(row[content], f"{name}: row {number}", options.download))
        labels.append(row[label] if label else 0)
        held, size = size, size + (values[-1].nbytes if isinstance(values[-1], np.ndarray) else len(values[-1]))
        check_memory(name, size, held)
        if stored is not None:
            check_expansion(name, size, stored)
    if names and set(labels) == {-1}:  # so the hub marks test data without labels
        label = None
    return RawSamples(join_values(values, name, content), labels if label else None, names)


def join_values(values: list[Any], name: str, column: str) -> np.ndarray | list[Any]:
    """Return texts as they are, and images as one array if they are of one size."""
    if len({isinstance(value, str) for value in values}) > 1:
        raise DataError(f"{name}: column {column} holds texts and images; expected one of both")
    return values if isinstance(values[0], str) else stack_images(values)


def decode(value: Any, name: str, download: bool) -> str | np.ndarray:
    """Return a text, or an image from encoded bytes, a file, a Pillow image, or nested lists of pixels."""
    if isinstance(value, str):
        return value
    encoded, path = (value.get("bytes"), value.get("path")) if isinstance(value, Mapping) else (value, None)
    try:
        if isinstance(encoded, bytes):
            return open_image(io.BytesIO(encoded), lambda size: check_expansion("an encoded image", size, len(encoded)))
        if isinstance(path, str):
            return open_image(path) if os.path.isfile(path) else image_to_array(_fetch(value, path, download))
        if hasattr(value, "convert"):
            return image_to_array(value)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    array = np.asarray(value)
    if array.ndim in (2, 3) and np.issubdtype(array.dtype, np.integer) and array.min() >= 0 and array.max() <= 255:
        return array.astype(np.uint8)[:, :, None] if array.ndim == 2 else array.astype(np.uint8)
    raise DataError(f"{name}: an image is a {type(value).__name__}; expected encoded bytes, or pixels from 0 to 255")


def _fetch(value: Mapping[str, Any], path: str, download: bool) -> Any:
    """Return the Pillow image of a row that names a file elsewhere, such as in an archive."""
    if "://" in path.rpartition("::")[2] and not download:
        raise DataError(f"the image {path} is not here: add --download (in Python download=True) to fetch it")
    return import_optional("datasets", "data").Image().decode_example(dict(value))
