"""The file of a profile: safetensors with a checksum, every field validated when it is read.

A file of an earlier version has no checksum, and is read all the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import safe_open
from torch import Tensor

from resque._files import write_atomically
from resque.data.shards import Shard
from resque.errors import DataError
from resque.indices.class_sums import HALVES
from resque.models.channel_matching import Channels, ChannelSums
from resque.models.feature_extraction import REDUCTIONS
from resque.models.weights import write_tensors

__all__ = ["channel_tensors", "read_profile_file", "take_channels", "write_profile_file"]

_FORMAT = "resque profile 1"
_TENSORS = {"labels": torch.int64, "sums": torch.float64, "counts": torch.int64}
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "labels_from": ("true", "pseudo", "mixed"),
    "classes": ("open", "declared", None),  # an early version wrote none
}
_METADATA = {"format", "origin", "checksum", "class_names", "shard", *_CHOICES}
_ORIGIN = {"model", "layer", "preprocessing", "reduction"}
_MOST_SAMPLES = 2**53
_CHANNEL_SUMS, _CHANNEL_COUNT = "channel_sums:", "channel_count:"
_ROUNDING = 1e-9


def write_profile_file(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata of a profile atomically; another profile is replaced, any other file is kept.

    Raises:
        DataError: The file cannot be written or holds something else, or the metadata could not be read again.

    Example:
        >>> import tempfile
        >>> origin = dict(model="", layer="", preprocessing="", reduction="flatten")
        >>> metadata = {"labels_from": "true", "classes": "open", "origin": json.dumps(origin)}
        >>> counts, sums = torch.tensor([[1], [0]]), torch.tensor([[[2.0]], [[0.0]]]).double()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "p.safetensors"
        ...     write_profile_file(file, {"labels": torch.tensor([3]), "sums": sums, "counts": counts}, metadata)
        ...     read_profile_file(file)[0]["labels"].tolist()
        [3]
    """
    metadata = {"format": _FORMAT, **metadata}
    if (problem := next(_problems_of_metadata(metadata), None)) is not None:
        raise DataError(f"{path}: nothing was written: {problem}")
    with write_atomically(path, may_replace=_is_profile) as scratch:
        write_tensors(dict(tensors), scratch, {**metadata, "checksum": _checksum(tensors, metadata)})


def read_profile_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors ``labels``, ``sums`` and ``counts`` of a profile, those of channels, and its metadata.

    Raises:
        DataError: The file does not exist, is no profile, is damaged, or has a field that no profile can have.
    """
    try:
        if not path.is_file():
            raise DataError(f"no such profile: {path}; make one with `resque profile`")
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != _FORMAT:
                raise DataError(f"{path} holds tensors, but no profile; make one with `resque profile`")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{path} is no readable profile: {error}; make one with `resque profile`") from error
    if (problem := next(_problems(tensors, metadata), None)) is not None:
        raise DataError(f"{path} has what no profile can have: {problem}; make it again with `resque profile`")
    checksum = metadata.pop("checksum", None)
    if checksum not in (None, _checksum(tensors, metadata)):
        raise DataError(f"{path} is damaged: its checksum differs; make it again with `resque profile`")
    return tensors, metadata


def channel_tensors(channels: Channels | None) -> dict[str, Tensor]:
    """Return the tensors that keep the sums over channels in a file.

    Example:
        >>> channels = {"stem.0": ChannelSums(6, torch.ones(2, 4).double())}
        >>> list(channel_tensors(channels))
        ['channel_sums:stem.0', 'channel_count:stem.0']
    """
    return {
        f"{prefix}{name}": values
        for name, own in (channels or {}).items()
        for prefix, values in ((_CHANNEL_SUMS, own.sums), (_CHANNEL_COUNT, torch.tensor(own.count)))
    }


def take_channels(tensors: dict[str, Tensor]) -> Channels | None:
    """Take the tensors of :func:`channel_tensors` out of a file's; return the sums, None if there are none.

    Example:
        >>> tensors = channel_tensors({"stem.0": ChannelSums(6, torch.ones(2, 4).double())})
        >>> take_channels(tensors)["stem.0"].count, tensors
        (6, {})
    """
    names = [key.removeprefix(_CHANNEL_SUMS) for key in tensors if key.startswith(_CHANNEL_SUMS)]
    taken = {
        name: ChannelSums(int(tensors.pop(_CHANNEL_COUNT + name)), tensors.pop(_CHANNEL_SUMS + name)) for name in names
    }
    return taken or None


def _is_profile(path: Path) -> bool:
    """Return whether a file is a profile, damaged or not."""
    try:
        with safe_open(path, framework="pt") as file:
            return bool((file.metadata() or {}).get("format") == _FORMAT)
    except (safetensors.SafetensorError, OSError):
        return False


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Hash everything that a profile holds."""
    about = {name: (str(tensor.dtype), list(tensor.shape)) for name, tensor in sorted(tensors.items())}
    digest = hashlib.blake2b(json.dumps([about, sorted(metadata.items())]).encode(), digest_size=16)
    for name in about:
        digest.update(tensors[name].contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _problems(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[str]:
    """Yield what is wrong with the fields, one after the other; later ones rely on those before."""
    of_channels = {name for name in tensors if name.startswith((_CHANNEL_SUMS, _CHANNEL_COUNT))}
    for kind, given, known in (("tensor", tensors, {*_TENSORS, *of_channels}), ("metadata", metadata, _METADATA)):
        for name in sorted(set(given) - known):
            yield f"the {kind} {name!r:.40} is unknown to this version"
    yield from _problems_of_metadata(metadata)
    for name, dtype in _TENSORS.items():
        if name not in tensors or tensors[name].dtype != dtype:
            yield f"{name} is {tensors[name].dtype if name in tensors else 'missing'}, expected {dtype}"
    labels, sums, counts = (tensors[name] for name in _TENSORS)
    shard = Shard.from_json(metadata["shard"]) if "shard" in metadata else None
    empty = shard is not None and len(shard) == 0
    if labels.ndim != 1 or not (len(labels) or empty) or not bool((labels[1:] > labels[:-1]).all()):
        yield "labels are not a list in ascending order"
    if sums.ndim != 3 or sums.shape[:2] != (HALVES, len(labels)) or bool(sums.shape[2]) == empty:
        yield f"sums have the shape {tuple(sums.shape)}, expected ({HALVES}, {len(labels)}, width)"
    if counts.shape != (HALVES, len(labels)):
        yield f"counts have the shape {tuple(counts.shape)}, expected ({HALVES}, {len(labels)})"
    if not bool((counts >= 0).all()) or not (empty or 1 <= float(counts.double().sum()) <= _MOST_SAMPLES):
        yield "counts are not numbers of samples, 0 or more and together at least 1"
    if shard is not None and int(counts.sum()) != len(shard):
        yield f"counts of {int(counts.sum())} samples, expected the {len(shard)} of shard {shard}"
    if not bool(torch.isfinite(sums).all()):
        yield "sums hold NaN or infinity"
    if bool(sums[counts == 0].any()):
        yield "sums of classes without samples are not zero"
    for name in sorted({name.partition(":")[2] for name in of_channels}):
        yield from _problems_of_channels(name, tensors.get(_CHANNEL_SUMS + name), tensors.get(_CHANNEL_COUNT + name))


def _problems_of_channels(name: str, sums: Tensor | None, count: Tensor | None) -> Iterator[str]:
    if count is None or (count.dtype, count.ndim) != (torch.int64, 0) or not 1 <= int(count) <= _MOST_SAMPLES:
        yield f"channel_count:{name!s:.40} is {'missing' if count is None else 'no number of values, 1 or more'}"
    if sums is None or (sums.dtype, sums.ndim) != (torch.float64, 2) or len(sums) != 2 or not sums.shape[1]:
        yield f"channel_sums:{name!s:.40} are {'missing' if sums is None else 'not two rows in float64'}"
    elif count is not None:
        variances = sums[1] / count - (sums[0] / count) ** 2
        if not bool(torch.isfinite(sums).all()) or bool((variances < -_ROUNDING * (sums[1] / count).abs()).any()):
            yield f"channel_sums:{name!s:.40} hold NaN, infinity or squares too small for their sums"


def _problems_of_metadata(metadata: Mapping[str, str]) -> Iterator[str]:
    for name, choices in _CHOICES.items():
        if metadata.get(name) not in choices:
            yield f"{name} is {metadata.get(name)!r:.40}, expected one of {', '.join(filter(None, choices))}"
    if "shard" in metadata and (problem := _problem_of_shard(metadata["shard"])):
        yield f"shard is {metadata['shard']!r:.40}, {problem}"
    origin, names = (_from_json(metadata.get(name, empty)) for name, empty in (("origin", ""), ("class_names", "[]")))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        yield f"class_names is {metadata.get('class_names')!r:.40}, expected a list of texts"
    if not isinstance(origin, dict) or set(origin) != _ORIGIN or not all(isinstance(v, str) for v in origin.values()):
        yield f"origin is {metadata.get('origin')!r:.40}, expected the texts {', '.join(sorted(_ORIGIN))}"
    elif origin["reduction"] not in REDUCTIONS:
        yield f"the reduction of origin is {origin['reduction']!r:.40}, expected one of {', '.join(REDUCTIONS)}"


def _problem_of_shard(text: str) -> str:
    try:
        Shard.from_json(text)
    except ValueError as error:
        return str(error)
    return ""


def _from_json(text: str) -> Any:
    """Return what a text in JSON holds; None if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
