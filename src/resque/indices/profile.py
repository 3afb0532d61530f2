"""Profile a dataset in a model's representation space: its class sums, streamed, merged with ``+`` and saved.

A profile is the sufficient statistic of RESQUE_dist and holds no sample. It keeps the sums in two halves, because the
noise floor and the bias correction need two independent sums. A hash of a sample's index decides its half.

The profile of a network without batch normalization also keeps sums over the channels of its convolutions.
"""

import dataclasses
import functools
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resque._arrays import all_finite, as_labels, as_tensor
from resque.data.shards import Shard
from resque.errors import ProfileMismatchError, RepresentationError, ResqueWarning
from resque.indices.angles import SplitHalves
from resque.indices.class_sums import ClassSums, ScratchBuffer, declared_labels
from resque.indices.half_assignment import HalfAssigner, assign_half
from resque.indices.profile_file import channel_tensors, read_profile_file, take_channels, write_profile_file
from resque.models.channel_matching import Channels, add_channels
from resque.models.feature_extraction import reduce_features

__all__ = ["Origin", "Profile", "check_comparable", "check_finite", "check_same_space", "check_whole"]

_FEWEST_PRIVATE = 5


@dataclass(frozen=True)
class Origin:
    """Description of where representations come from; two profiles are comparable if all of it agrees.

    Attributes:
        model: Fingerprint of the model's state; empty for plain arrays.
        layer: Name of the layer; empty for plain arrays.
        preprocessing: Preprocessing of the inputs before the model.
        reduction: Reduction of a representation to a vector, see
            :func:`resque.models.feature_extraction.reduce_features`.
    """

    model: str = ""
    layer: str = ""
    preprocessing: str = ""
    reduction: str = "flatten"


class Profile:
    """Class sums ``V_l = sum of flatten(z_j) over the samples j of class l`` (eq. 1), in float64.

    The order and the cut of the stream change a sum by its rounding error at most; float64 rows are summed to about
    twice their precision. Order and cut also decide which half a sample belongs to, unless its index is given. So they
    slightly change noise floor, interval and bias correction.

    Args:
        origin: Where the representations come from; None for plain arrays.
        classes: Labels that may occur, or their number; None takes those that do.
        labels_from: ``"true"`` labels, or ``"pseudo"`` for the model's own predictions.
        shard: Part of a dataset that is profiled; None for the whole.

    Attributes:
        channels: Convolution → sums over the channels of its output, to adapt the model to other data; None if they
            are unknown, or if the model has batch normalization to adapt.
        class_names: Names of the labels 0, 1, …; empty if they are unknown. Profiles whose names differ do not fit.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 1.

    Example:
        >>> profile = Profile.from_arrays([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], [0, 1, 0])
        >>> profile.counts, profile.width, profile.sums[0].tolist()
        ({0: 2, 1: 1}, 2, [4.0, 0.0])
    """

    def __init__(
        self,
        origin: Origin | None = None,
        classes: Sequence[int] | int | None = None,
        labels_from: str = "true",
        shard: Shard | None = None,
    ) -> None:
        self.origin = origin or Origin()
        self.labels_from = labels_from
        self.shard = shard
        self.channels: Channels | None = None
        self.class_names: tuple[str, ...] = ()
        self._declared = None if classes is None else declared_labels(classes)
        none = torch.empty(0, dtype=torch.int64)
        self._table = ClassSums.zeros(none if self._declared is None else self._declared, width=0)
        self._known: set[int] = set()  # labels of the table, to compare with a batch's without waiting for a device
        self._scratch = ScratchBuffer()
        self._assigner = HalfAssigner() if shard is None else HalfAssigner(shard.start, swaps=False)

    @classmethod
    def from_sums(cls, table: ClassSums, origin: Origin | None = None, labels_from: str = "true") -> "Profile":
        """Create a profile from existing sums, which are shared, not copied."""
        profile = cls(origin, labels_from=labels_from)
        profile._table, profile._assigner = table, HalfAssigner(int(table.counts.sum()))
        return profile

    @classmethod
    def from_arrays(
        cls,
        representations: Any,
        labels: Any,
        classes: Sequence[int] | int | None = None,
        reduction: str = "flatten",
    ) -> "Profile":
        """Create a profile from representations in memory.

        Args:
            representations: ``(n, …)`` array or tensor.
            labels: ``(n,)`` integers.
            classes: Labels that may occur, or their number; None takes those that do.
            reduction: See :func:`resque.models.feature_extraction.reduce_features`.

        Raises:
            RepresentationError: See :meth:`update`.
        """
        profile = cls(Origin(reduction=reduction), classes)
        profile.update(representations, labels)
        return profile

    def update(self, representations: Any, labels: Any, indices: Any = None) -> None:
        """Add a batch of representations; the sums over channels, which would lack it, become unknown.

        On the CPU an invalid batch is refused and leaves the profile unchanged. On another device nothing waits for
        the batch. With ``classes`` declared it costs no synchronization, and reading the profile reports what is wrong.

        Args:
            representations: ``(n, …)``, reduced as :attr:`origin` says and summed in float64.
            labels: ``(n,)`` integers.
            indices: ``(n,)`` indices of the samples, so that the halves do not depend on the order; None counts the
                samples as they come.

        Raises:
            RepresentationError: NaN, infinity, labels that are not integers or not declared, or sizes that differ.
        """
        rows = reduce_features(as_tensor(representations), self.origin.reduction)
        if rows.device.type == "cpu":
            check_finite(all_finite(rows))
            target = as_labels(labels, len(rows))
            if self._declared is not None:
                _check_labels((~torch.isin(target, self._declared.to(target.device))).sum(), self._declared)
        self.add_rows(rows, labels, indices)
        self.channels = None

    def add_rows(self, rows: Tensor, labels: Any, indices: Any = None) -> None:
        """Add rows ``(n, width)`` that are reduced already, without checking their values."""
        target = as_labels(labels, len(rows))
        if not len(rows):
            return
        table = self._table_for(target, rows)
        if indices is None:
            half = self._assigner.assign(rows)
        else:
            half = assign_half(as_labels(indices, len(rows)))
            self._assigner.count += len(rows)
        table.add(rows, target, half, self._scratch)

    def declare(self, classes: Sequence[int] | int) -> None:
        """Declare the labels that may occur, unless some are declared already."""
        if self._declared is None:
            self._declared = declared_labels(classes)

    def finish(self) -> None:
        """Check the sums and free the memory that only further batches would need."""
        self.check()
        self._scratch = ScratchBuffer()
        if self.shard is not None and self.shard.start == 0:
            self.shard = dataclasses.replace(self.shard, swap=self._assigner.offset)

    def swap_halves(self) -> None:
        """Exchange the two halves of every class; nothing else depends on which is the first."""
        table = self._table
        rounding = None if table.rounding is None else table.rounding.flip(0)
        self._table = dataclasses.replace(
            table, sums=table.sums.flip(0), counts=table.counts.flip(0), rounding=rounding
        )

    def _table_for(self, labels: Tensor, rows: Tensor) -> ClassSums:
        """Return the table with room for a batch; with declared classes it never grows."""
        if self.empty:
            initial = labels[:0] if self._declared is None else self._declared
            self._table = ClassSums.zeros(initial, rows.shape[1], rows.device)
        elif self.width != rows.shape[1]:
            raise RepresentationError(
                f"representations of width {rows.shape[1]} after width {self.width}: "
                "for inputs of several sizes choose a reduction over space or tokens (mean, token-mean)"
            )
        if self._declared is None:
            occurring = set(torch.unique(labels).tolist())
            if not occurring <= self._known:
                self._known |= occurring
                self._table = self._table.with_labels(labels)
        return self._table

    def check(self) -> None:
        """Raise an error if a batch has spoiled the sums; reading them does this by itself.

        Raises:
            RepresentationError: A representation was NaN or infinite, or a label was not declared.
        """
        _check_labels(self._table.unknown, self._table.labels)
        check_finite(self._table.finite)

    def __add__(self, other: "Profile") -> "Profile":
        """Return the profile of both sets of samples together."""
        if not isinstance(other, Profile):
            return NotImplemented
        check_comparable(self, other)
        parts = [part for part in (self, other) if not part.empty]
        sources = {part.labels_from for part in parts} or {self.labels_from}
        merged = Profile(self.origin, None, sources.pop() if len(sources) == 1 else "mixed")
        declared = [part._declared for part in (self, other) if not part.empty or part._declared is not None]
        known = [labels for labels in declared if labels is not None]
        if known and len(known) == len(declared):  # an empty profile without declared classes changes nothing
            merged._declared = torch.unique(torch.cat(known))
        if parts:
            merged._table = parts[0]._table.with_labels(torch.cat([parts[-1]._table.labels.cpu(), *known]))
            for part in parts[1:]:
                merged._table.merge(part._table)
            merged.channels = functools.reduce(add_channels, [part.channels for part in parts])
        merged.class_names = max(self.class_names, other.class_names, key=len)
        merged._assigner = HalfAssigner(self._assigner.count + other._assigner.count)
        return merged

    def __radd__(self, other: int) -> "Profile":
        """Return a copy for the 0 that ``sum(profiles)`` begins with."""
        return self + Profile(self.origin, labels_from=self.labels_from) if other == 0 else NotImplemented

    def __repr__(self) -> str:
        return f"Profile(n={self.n}, classes={len(self.counts)}, width={self.width}, {self.origin})"

    @property
    def empty(self) -> bool:
        """Whether no sample has been added yet."""
        return self.width == 0

    @property
    def width(self) -> int:
        """Length of a representation; 0 before the first batch."""
        return self._table.width

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self._table.counts.sum())

    @property
    def counts(self) -> dict[int, int]:
        """Number of samples by label, for the labels that occurred."""
        totals = zip(self._table.labels.tolist(), self._table.counts.sum(0).tolist(), strict=True)
        return {int(label): int(total) for label, total in totals if total}

    @property
    def split_halves(self) -> dict[int, SplitHalves]:
        """Sums and counts of both halves by label, for the labels that occurred."""
        self.check()
        sums, totals = self._table.half_sums.cpu().numpy(), self._table.totals.cpu().numpy()
        counts = self._table.counts.cpu().numpy()
        return {
            label: SplitHalves(sums[:, i], (int(counts[0, i]), int(counts[1, i])), totals[i])
            for i, label in enumerate(self._table.labels.tolist())
            if counts[:, i].any()
        }

    @property
    def sums(self) -> dict[int, np.ndarray]:
        """``V_l`` by label, ``(width,)`` float64, for the labels that occurred."""
        return {label: halves.total for label, halves in self.split_halves.items()}

    def class_means(self) -> tuple[Tensor, Tensor]:
        """Return the labels that occurred ``(classes,)`` and their means ``(classes, width)`` in float64."""
        self.check()
        return self._table.means()

    @property
    def exposed_classes(self) -> list[int]:
        """Labels with 1 to 4 samples, whose sums reveal something about single samples."""
        return [label for label, count in self.counts.items() if count < _FEWEST_PRIVATE]

    def save(self, path: str | Path) -> None:
        """Write sums, counts and origin atomically as safetensors; no sample is stored.

        Raises:
            RepresentationError: The profile is empty or spoiled.
            DataError: The file cannot be written, or holds something else.

        Warns:
            ResqueWarning: Some classes are exposed, see :attr:`exposed_classes`.
        """
        if self.empty and not (self.shard is not None and len(self.shard) == 0):
            raise RepresentationError("the profile is empty: update it with at least one batch before saving")
        self.check()
        table = {"labels": self._table.labels, "sums": self._table.half_sums, "counts": self._table.counts}
        table |= channel_tensors(self.channels)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in table.items()}
        metadata = {"labels_from": self.labels_from, "origin": json.dumps(vars(self.origin))}
        metadata["classes"] = "open" if self._declared is None else "declared"
        metadata |= {"class_names": json.dumps(self.class_names)} if self.class_names else {}
        metadata |= {} if self.shard is None else {"shard": self.shard.to_json()}
        write_profile_file(path, tensors, metadata)
        if self.exposed_classes:
            few = f"classes of fewer than {_FEWEST_PRIVATE} samples: {', '.join(map(str, self.exposed_classes))}"
            warnings.warn(f"{few}; their sums reveal something about single samples", ResqueWarning, stacklevel=2)

    @classmethod
    def load(cls, path: str | Path) -> "Profile":
        """Read a profile that :meth:`save` wrote.

        Raises:
            DataError: The file does not exist, is damaged, or is not a valid profile.
        """
        tensors, metadata = read_profile_file(Path(path))
        channels = take_channels(tensors)
        table = ClassSums(**tensors, unknown=torch.zeros((), dtype=torch.int64))
        origin = Origin(**json.loads(metadata["origin"]))
        profile = cls.from_sums(table, origin, metadata["labels_from"])
        profile._declared = table.labels if metadata.get("classes") == "declared" else None
        profile.channels = channels
        profile.class_names = tuple(json.loads(metadata.get("class_names", "[]")))
        profile.shard = Shard.from_json(metadata["shard"]) if "shard" in metadata else None
        return profile


def check_whole(profile: Profile, name: str = "a profile") -> None:
    """Check that a profile is that of a whole dataset.

    Raises:
        ProfileMismatchError: It is that of a shard.
    """
    if profile.shard is not None:
        raise ProfileMismatchError(
            f"{name} is shard {profile.shard} of a profile; expected the whole: put the files of all "
            f"{profile.shard.of} shards together with `resque merge FILES --out WHOLE`"
        )


def check_comparable(first: Profile, second: Profile) -> None:
    """Check that two profiles are whole, and come from the same representation space.

    Raises:
        ProfileMismatchError: One is a shard, or see :func:`check_same_space`.
    """
    check_whole(first)
    check_whole(second)
    check_same_space(first, second)


def check_same_space(first: Profile, second: Profile) -> None:
    """Check that two profiles come from the same representation space.

    Raises:
        ProfileMismatchError: They differ in model, layer, preprocessing, reduction, width or names of classes; the
            message has the first one.
    """
    for field, mine in vars(first.origin).items():
        theirs = getattr(second.origin, field)
        if mine != theirs:
            raise ProfileMismatchError(
                f"the profiles differ in {field}: {mine or 'none'!r} and {theirs or 'none'!r}; "
                "compute both with the same model, weights, layer and options (in Python also preprocessing=)"
            )
    if first.width and second.width and first.width != second.width:
        raise ProfileMismatchError(
            f"the profiles differ in width: {first.width} and {second.width}; for texts or images of several sizes "
            "compute both with --reduction token-mean or mean"
        )
    for label, names in enumerate(zip(first.class_names, second.class_names, strict=False)):
        if len(set(names)) > 1:
            raise ProfileMismatchError(
                f"the profiles number the classes differently: {label} is {names[0]!r} and {names[1]!r}; "
                "name the same classes in both, in the same order"
            )


def check_finite(finite: Tensor | bool) -> None:
    """Raise RepresentationError unless all representations were finite."""
    if not bool(finite):
        raise RepresentationError(
            "representations hold NaN or infinity, or are too large for their sum in float64; "
            "check the model's weights and the data's range"
        )


def _check_labels(unknown: Tensor, labels: Tensor) -> None:
    """Raise RepresentationError if the number of samples with unknown labels is not zero."""
    if count := int(unknown):
        raise RepresentationError(
            f"{count} sample(s) have labels that are not among the declared classes {labels.tolist()}"
        )
