"""Class sums of representations: streamed, merged with ``+``, saved without any sample.

A profile is the sufficient statistic of RESQUE_dist. It keeps the sums in two halves, told apart by a
hash of each sample's index, because the noise floor and the bias correction need two independent sums.
"""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from resque._arrays import as_labels, as_tensor
from resque._files import write_atomically
from resque.errors import DataError, ProfileMismatchError, RepresentationError, ResqueWarning
from resque.indices.angles import Side
from resque.indices.class_sums import (
    ClassSums,
    ScratchBuffers,
    assign_half,
    assign_halves_from,
    declared_labels,
    random_half_offset,
)
from resque.models.feature_extraction import reduce_features

_FORMAT = "resque profile 1"
_SAVED = ("labels", "sums", "counts")
_PRIVATE = 5


@dataclass(frozen=True)
class Origin:
    """Where representations came from; two profiles are comparable when all of it agrees.

    Attributes:
        model: Fingerprint of the model's state, empty for plain arrays.
        layer: Name of the layer, empty for plain arrays.
        preprocessing: What was done to the inputs before the model.
        reduction: How a representation was made flat.
    """

    model: str = ""
    layer: str = ""
    preprocessing: str = ""
    reduction: str = "flatten"


class Profile:
    """Class-wise sums ``V_l`` of representations (eq. 1), in float64.

    Order and cut of the stream change a sum by its rounding at most, of float64 rows by that of twice the precision.
    They do change which half a sample belongs to, unless its own number is given, and so by a little the floor,
    interval and correction.

    Attributes:
        origin: Where the representations came from.
        labels_from: ``"true"`` or ``"pseudo"``.

    References:
        Sangarya and Kim, RESQUE, AAAI 2025, eq. 1.

    Example:
        >>> whole = Profile.from_arrays([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], [0, 1, 0])
        >>> whole.counts, whole.width, whole.sums[0].tolist()
        ({0: 2, 1: 1}, 2, [4.0, 0.0])
    """

    def __init__(
        self,
        origin: Origin | None = None,
        classes: Sequence[int] | int | None = None,
        labels_from: str = "true",
    ) -> None:
        self.origin = origin or Origin()
        self.labels_from = labels_from
        self._declared = None if classes is None else declared_labels(classes)
        self._table: ClassSums | None = None
        self._known: set[int] = set()
        self._scratch = ScratchBuffers()
        self._seen = 0
        self._flip: Tensor | None = None

    @classmethod
    def of_sums(cls, table: ClassSums, origin: Origin | None = None, labels_from: str = "true") -> "Profile":
        """A profile of sums that are there already; they are shared, not copied."""
        made = cls(origin, labels_from=labels_from)
        made._table, made._known, made._seen = table, set(table.labels.tolist()), int(table.counts.sum())
        return made

    @classmethod
    def from_arrays(
        cls,
        representations: Any,
        labels: Any,
        classes: Sequence[int] | int | None = None,
        reduction: str = "flatten",
    ) -> "Profile":
        """A profile of representations that are at hand as an array.

        Args:
            representations: ``(n, …)`` array or tensor.
            labels: ``(n,)`` integers.
            classes: The labels that may occur, or their number; None takes those that do.
            reduction: See :func:`resque.models.feature_extraction.reduce_features`.

        Raises:
            RepresentationError: As :meth:`update`.
        """
        profile = cls(Origin(reduction=reduction), classes)
        profile.update(representations, labels)
        return profile

    def update(self, representations: Any, labels: Any, indices: Any = None) -> None:
        """Add a batch.

        On the CPU a batch that cannot be summed is refused and leaves the profile as it was. On another device
        nothing waits for the batch: with ``classes`` declared it costs no synchronisation, and what is wrong with it is
        told when the profile is read.

        Args:
            representations: ``(n, …)``; reduced as the profile's origin says, summed in float64.
            labels: ``(n,)`` integers.
            indices: ``(n,)`` each sample's own number, so that the halves do not depend on the order;
                None counts the samples as they come.

        Raises:
            RepresentationError: NaN, infinity, labels that are no integers or undeclared, sizes that differ.
        """
        rows = reduce_features(as_tensor(representations), self.origin.reduction)
        if rows.device.type == "cpu":
            check_finite(torch.isfinite(rows).all())
            self._check_declared(as_labels(labels, len(rows)))
        self._add(rows, labels, indices)

    def _add(self, rows: Tensor, labels: Any, indices: Any = None) -> None:
        """Add rows ``(n, width)`` that are reduced already, without looking at their values."""
        n = rows.shape[0]
        target = as_labels(labels, n)
        if n == 0:
            return
        if indices is None:
            self._flip = random_half_offset(rows) if self._flip is None else self._flip
            half = assign_halves_from(self._seen, n, rows.device) ^ self._flip.to(rows.device)
        else:
            half = assign_half(as_labels(indices, n))
        self._table_for(target, rows).add(rows, target, half, self._scratch)
        self._seen += n

    def _table_for(self, target: Tensor, rows: Tensor) -> ClassSums:
        """The table with room for a batch; declared classes never grow."""
        if self._table is None:
            labels = torch.unique(target) if self._declared is None else self._declared
            self._table = ClassSums.zeros(labels, rows.shape[1], rows.device)
            self._known = set(labels.tolist())
        elif self._table.width != rows.shape[1]:
            raise RepresentationError(
                f"representations of width {rows.shape[1]} after width {self._table.width}: "
                "for inputs of several sizes choose a reduction over space or tokens (mean, token-mean)"
            )
        if self._declared is None:
            found = set(torch.unique(target).tolist())
            if not found <= self._known:
                self._known |= found
                self._table = self._table.with_labels(target)
        return self._table

    def _check_declared(self, target: Tensor) -> None:
        if self._declared is not None and not bool(torch.isin(target, self._declared.to(target.device)).all()):
            raise RepresentationError(f"a label is not among the declared classes {self._declared.tolist()}")

    def check(self) -> None:
        """Refuse sums that some batch has spoiled; reading them does this by itself.

        Raises:
            RepresentationError: A representation was NaN or infinite, or a label was none of the declared classes.
        """
        if self._table is not None:
            if int(self._table.strangers):
                raise RepresentationError(
                    f"{int(self._table.strangers)} sample(s) have labels that are not among the declared classes "
                    f"{self._table.labels.tolist()}"
                )
            check_finite(self._table.finite)

    def __add__(self, other: "Profile") -> "Profile":
        """The profile of both sets of samples together."""
        if not isinstance(other, Profile):
            return NotImplemented
        check_comparable(self, other)
        parts = [part for part in (self, other) if not part.empty]
        sources = {part.labels_from for part in parts} or {self.labels_from}
        merged = Profile(self.origin, None, sources.pop() if len(sources) == 1 else "mixed")
        declared = [part._declared for part in (self, other) if not part.empty or part._declared is not None]
        known = [labels for labels in declared if labels is not None]
        if known and len(known) == len(declared):  # what is empty and declares nothing changes nothing
            merged._declared = torch.unique(torch.cat(known))
        if parts:
            labels = torch.cat([parts[-1]._filled.labels.cpu(), *known])
            merged._table = parts[0]._filled.with_labels(labels)
            merged._known = set(merged._table.labels.tolist())
            for part in parts[1:]:
                merged._table.merge(part._filled)
        merged._seen = self._seen + other._seen
        return merged

    def __radd__(self, other: int) -> "Profile":
        """What ``sum(profiles)`` begins with."""
        return self + Profile(self.origin, labels_from=self.labels_from) if other == 0 else NotImplemented

    def __repr__(self) -> str:
        return f"Profile(n={self.n}, classes={len(self.counts)}, width={self.width}, {self.origin})"

    @property
    def _filled(self) -> ClassSums:
        assert self._table is not None
        return self._table

    @property
    def empty(self) -> bool:
        """Whether nothing has been summed yet."""
        return self._table is None

    @property
    def width(self) -> int:
        """Length of a representation; 0 before the first batch."""
        return 0 if self._table is None else self._table.width

    @property
    def n(self) -> int:
        """Samples summed."""
        return 0 if self._table is None else int(self._table.counts.sum())

    @property
    def counts(self) -> dict[int, int]:
        """Label → samples summed, for the labels that were seen."""
        if self._table is None:
            return {}
        totals = zip(self._table.labels.tolist(), self._table.counts.sum(0).tolist(), strict=True)
        return {int(label): int(total) for label, total in totals if total}

    @property
    def sides(self) -> dict[int, Side]:
        """Label → the two half sums of a class and how many samples each has, for the labels that were seen."""
        if self._table is None:
            return {}
        self.check()
        sums, whole = self._table.rounded.cpu().numpy(), self._table.whole.cpu().numpy()
        counts = self._table.counts.cpu().numpy()
        return {
            label: Side(sums[:, i], (int(counts[0, i]), int(counts[1, i])), whole[i])
            for i, label in enumerate(self._table.labels.tolist())
            if counts[:, i].any()
        }

    @property
    def sums(self) -> dict[int, np.ndarray]:
        """Label → ``V_l``, ``(width,)`` float64, for the labels that were seen."""
        return {label: side.whole for label, side in self.sides.items()}

    def class_means(self) -> tuple[Tensor, Tensor]:
        """The labels that were seen ``(classes,)``, and their mean representations ``(classes, width)`` in float64."""
        self.check()
        return self._filled.means()

    @property
    def exposed_classes(self) -> list[int]:
        """Classes of so few samples (1 to 4) that their sum says something about each one of them."""
        return [label for label, count in self.counts.items() if count < _PRIVATE]

    def save(self, path: str | Path) -> None:
        """Write sums, counts and origin as safetensors, whole or not at all; no sample is kept.

        Warns of :attr:`exposed_classes`.
        """
        if self._table is None:
            raise RepresentationError("the profile is empty: update it with at least one batch before saving")
        self.check()
        found = {"labels": self._table.labels, "sums": self._table.rounded, "counts": self._table.counts}
        tensors = {name: tensor.cpu().contiguous() for name, tensor in found.items()}
        about = {"format": _FORMAT, "labels_from": self.labels_from, "origin": json.dumps(vars(self.origin))}
        about["classes"] = "open" if self._declared is None else "declared"
        with write_atomically(path, may_replace=_is_profile) as scratch:
            save_file(tensors, scratch, about)
        if self.exposed_classes:
            few = f"classes of fewer than {_PRIVATE} samples: {', '.join(map(str, self.exposed_classes))}"
            warnings.warn(f"{few}; their sums tell something of single samples", ResqueWarning, stacklevel=2)

    @classmethod
    def load(cls, path: str | Path) -> "Profile":
        """Read a profile that :meth:`save` wrote."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"no such profile: {path}; make one with `resque profile`")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise DataError(f"{path} holds tensors, but no profile; make one with `resque profile`")
                labels, sums, counts = map(file.get_tensor, _SAVED)
            table = ClassSums(labels, sums, counts, torch.zeros((), dtype=torch.int64))
            origin = Origin(**json.loads(about["origin"]))
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(
                f"{path} is no profile that can be read: {error}; make one with `resque profile`"
            ) from error
        if not table.sound:
            raise DataError(f"{path} holds sums or counts that no profile can have; make it anew")
        loaded = cls.of_sums(table, origin, about["labels_from"])
        loaded._declared = labels if about.get("classes") == "declared" else None
        return loaded


def check_comparable(one: Profile, other: Profile) -> None:
    """Refuse two profiles of different representation spaces; ProfileMismatchError names the first difference."""
    for field, mine in vars(one.origin).items():
        theirs = getattr(other.origin, field)
        if mine != theirs:
            raise ProfileMismatchError(
                f"the profiles differ in {field}: {mine or 'none'!r} and {theirs or 'none'!r}; "
                "make both with the same model, weights, layer and options (in Python also preprocessing=)"
            )
    if one.width and other.width and one.width != other.width:
        raise ProfileMismatchError(f"the profiles differ in width: {one.width} and {other.width}")


def _is_profile(path: Path) -> bool:
    try:
        Profile.load(path)
    except DataError:
        return False
    return True


def check_finite(finite: Tensor | bool) -> None:
    """Raise RepresentationError unless all representations were finite."""
    if not bool(finite):
        raise RepresentationError(
            "representations hold NaN or infinity, or are too large for their sum in float64; "
            "check the model's weights and the data's range"
        )
