"""Split data specifications into their parts, as text: this module needs no PyTorch and reads no data.

A specification is a source, followed by any number of steps that are applied from left to right::

    digits                          scikit-learn's 1,797 handwritten digits, 8×8
    npz:FILE                        x: (n, h, w) or (n, h, w, c) uint8, y: (n,) integers
    idx:IMAGES,LABELS               MNIST's format, gzipped or not
    folder:PATH                     one folder of images for each class
    parquet:FILE                    a column of images or texts, and one of labels
    hf:NAME or hf:NAME:SPLIT        a Hugging Face dataset, in a folder or on the hub
    stream:parquet:FILES            the same of many files, passed without being held in memory; or stream:tar:FILES
    torchvision:NAME or NAME:SPLIT  a dataset of torchvision, already on this machine
    FILE.py:CALLABLE                a function that returns a dataset of pairs (x, y)
    …@train  …@test                 70 % and the other 30 % of each class
    …@original  …@shifted           the paper's overlapping splits: 70 % and 50 % of each class, 20 % in both
    …@32px  …@gray  …@rgb           resized to 32×32 (bilinear); one channel; three channels
    …@500                           at most 500 samples, drawn at random without replacement
    …+gaussian:5  +jpeg:5 …         a shift at level 1 to 10, see resque.data.shifts; shifts stack
    …+blur:5/gaussian:3/none        one of these shifts, or none, for each sample, drawn with equal probability
    A@700~B@300                     a mixture, e.g. of new and old data; each step belongs to the source before it

Splits and noise depend on the specification alone: commands that name the same data use the same samples.
"""

import os
import re
from pathlib import Path

from resque.errors import DataError

__all__ = ["mixture_parts", "relative_to", "shorten_data", "split_steps"]

_MIXED = re.compile(r" *~ *(?=digits\b|[a-z]+:|[^~]+\.py:)")
_PART = r"(?:[a-z_]+:-?\d{1,18}|none)"
_STEP = re.compile(
    rf"^(?P<head>.+?)(?P<step>@(?:train|test|original|shifted|gray|rgb|\d{{1,18}}px|\d{{1,18}})|\+{_PART}(?:/{_PART})*)$"
)
_MALFORMED = re.compile(r"\+[a-z_]+:[^:/+@]*$")


def mixture_parts(spec: str) -> list[str]:
    """Return the specifications that a mixture consists of, or the specification itself.

    Example:
        >>> mixture_parts("npz:new.npz@700~npz:old.npz@300"), mixture_parts("npz:~/old~.npz")
        (['npz:new.npz@700', 'npz:old.npz@300'], ['npz:~/old~.npz'])
    """
    return _MIXED.split(spec)


def split_steps(spec: str) -> tuple[str, list[str]]:
    """Split a specification without mixtures into its source and its steps.

    Raises:
        DataError: If the last step is a malformed shift.

    Example:
        >>> split_steps("npz:a.npz@test@32px+blur:2/none")
        ('npz:a.npz', ['@test', '@32px', '+blur:2/none'])
    """
    steps: list[str] = []
    while match := _STEP.match(spec):
        spec = match["head"]
        steps.insert(0, match["step"])
    if malformed := _MALFORMED.search(spec):
        raise DataError(f"cannot apply {malformed[0]!r:.60}: a shift is written +TYPE:LEVEL with a whole level 1 to 10")
    return spec, steps


def shorten_data(spec: str) -> str:
    """Return a data specification without the folders of its files.

    Example:
        >>> shorten_data("idx:/data/mnist/t10k-images.gz,/data/mnist/t10k-labels.gz@test+blur:3")
        'idx:t10k-images.gz,t10k-labels.gz@test+blur:3'
        >>> shorten_data("npz:/data/new.npz@700~npz:/data/old.npz")
        'npz:new.npz@700~npz:old.npz'
    """
    if len(parts := mixture_parts(spec)) > 1:
        return "~".join(map(shorten_data, parts))
    source, colon, rest = spec.partition(":")
    if source not in ("npz", "idx"):
        return spec
    return source + colon + ",".join(part.rsplit("/", 1)[-1] for part in rest.split(","))


def relative_to(spec: str, folder: Path) -> str:
    """Return a model or data specification whose files are relative to a folder.

    Args:
        spec: Specification as it stands in a file of that folder.
        folder: Folder that its relative paths start from.

    Example:
        >>> relative_to("npz:new.npz@700~idx:a.gz,b.gz", Path("sub")), relative_to("net.py:build", Path("sub"))
        ('npz:sub/new.npz@700~idx:sub/a.gz,sub/b.gz', 'sub/net.py:build')
        >>> relative_to("stream:tar:a-*.tar,b.tar", Path("sub"))
        'stream:tar:sub/a-*.tar,sub/b.tar'
        >>> relative_to("timm:resnet18", Path("sub")), relative_to("npz:/data/new.npz", Path("sub"))
        ('timm:resnet18', 'npz:/data/new.npz')
    """
    return "~".join(_relative_part(part, folder) for part in mixture_parts(spec))


def _relative_part(spec: str, folder: Path) -> str:
    source, colon, rest = spec.partition(":")
    if source == "stream":
        return f"stream:{_relative_part(rest, folder)}"
    if source in ("npz", "folder", "parquet", "tar", "idx") and colon:
        return source + colon + ",".join(str(folder / file) for file in rest.split(","))
    if source == "hf" and os.path.isdir(folder / rest):
        return f"hf:{folder / rest}"
    return f"{folder / source}:{rest}" if source.endswith(".py") else spec
