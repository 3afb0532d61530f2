"""Read the samples of a source, such as ``npz:FILE`` or ``FILE.py:CALLABLE``."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from resque.data.readers.files import read_folder, read_idx, read_npz
from resque.data.readers.hugging_face import read_hugging_face, read_parquet
from resque.data.readers.options import ReadOptions
from resque.data.readers.pairs import read_callable, read_torchvision
from resque.data.samples import RawSamples
from resque.errors import DataError

__all__ = ["SOURCES", "read_source"]

SOURCES = (
    "digits, npz:FILE, idx:IMAGES,LABELS, folder:PATH, parquet:FILE, hf:NAME, torchvision:NAME, FILE.py:CALLABLE or "
    "stream:parquet:FILES"
)
"""Forms of a source, for error messages."""


def _refuse_stream(spec: str, options: ReadOptions) -> RawSamples:
    options.refuse_stream(f"stream:{spec}")
    raise DataError(
        f"stream:{spec} is read once, in its order: only `resque profile`, `resque dist` and --original take it, not "
        "mixed; read what fits into memory with parquet:FILE or hf:FOLDER, or train in your own loop (resque.record)"
    )


_READERS: dict[str, Callable[[str, ReadOptions], RawSamples]] = {
    "npz": read_npz,
    "idx": read_idx,
    "folder": read_folder,
    "parquet": read_parquet,
    "hf": read_hugging_face,
    "torchvision": read_torchvision,
    "stream": _refuse_stream,
}


def read_source(source: str, options: ReadOptions | None = None) -> RawSamples:
    """Read a source; nothing is downloaded unless the options allow it.

    Args:
        source: A data specification without its steps.
        options: Settings of the reader.

    Raises:
        DataError: If the source is unknown, missing, or malformed.

    Example:
        >>> read_source("digits").inputs.shape
        (1797, 8, 8)
    """
    options = options or ReadOptions()
    if source == "digits":
        images, labels = _digits()
        return RawSamples(images.copy(), labels.copy())
    scheme, _, rest = source.partition(":")
    if rest and scheme in _READERS:
        return _READERS[scheme](rest, options)
    if source.rpartition(":")[0].endswith(".py"):
        return read_callable(source, options)
    suffix = Path(source).suffix.lstrip(".")
    hint = f"; did you mean {suffix}:{source}?" if suffix in ("npz", "parquet") else ""
    raise DataError(f"cannot read data {source!r}{hint}: expected {SOURCES}, then e.g. @test or +gaussian:5")


@functools.cache  # scikit-learn reads them from text, which takes longer than most of what is done with them
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's digits as images uint8 and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target
