"""Class sums of representations: streamed, merged with ``+``, saved without any sample.

A profile is the sufficient statistic of RESQUE_dist. It keeps the sums in two halves, told apart by a
hash of each sample's index, because the noise floor and the bias correction need two independent sums.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from resque.errors import DataError, ProfileMismatchError, RepresentationError
from resque.files import replacing
from resque.models import fingerprint, representation_layer
from resque.representations import as_labels, as_tensor, device_of, observing, passed, reduce

HALVES = 2
_GOLDEN = -0x61C8864680B583EB  # 2**64 / golden ratio as a signed int64: Fibonacci hashing
_FORMAT = "resque profile 1"
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


@dataclass
class _Table:
    """Sums and counts by half and class; ``labels`` are sorted."""

    labels: Tensor  # (classes,) int64
    sums: Tensor  # (halves, classes, width) float64
    counts: Tensor  # (halves, classes) int64

    @classmethod
    def zeros(cls, labels: Tensor, width: int) -> "_Table":
        sums = torch.zeros(HALVES, len(labels), width, dtype=torch.float64, device=labels.device)
        return cls(labels, sums, torch.zeros(HALVES, len(labels), dtype=torch.int64, device=labels.device))

    def merged(self, other: "_Table") -> "_Table":
        """Both together, with the labels of both."""
        whole = _Table.zeros(torch.unique(torch.cat([self.labels, other.labels.to(self.labels.device)])), self.width)
        for part in (self, other):
            place = torch.searchsorted(whole.labels, part.labels.to(whole.labels.device))
            whole.sums.index_add_(1, place, part.sums.to(whole.sums.device))
            whole.counts.index_add_(1, place, part.counts.to(whole.counts.device))
        return whole

    def emptied(self) -> "_Table":
        """The same labels and width, nothing summed."""
        return _Table.zeros(self.labels, self.width)

    @property
    def width(self) -> int:
        return self.sums.shape[2]

    @property
    def sound(self) -> bool:
        """Whether shapes, labels, counts and sums are such as a profile has."""
        shapes = self.labels.ndim == 1 and self.sums.ndim == 3 and self.sums.shape[:2] == self.counts.shape
        if not shapes or self.counts.shape != (HALVES, len(self.labels)):
            return False
        rising = bool((self.labels[1:] > self.labels[:-1]).all())
        return rising and bool((self.counts >= 0).all()) and bool(torch.isfinite(self.sums).all())


class Profile:
    """Class-wise sums ``V_l`` of representations (eq. 1), in float64.

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
        self._declared = None if classes is None else _declared(classes)
        self._table: _Table | None = None
        self._seen = 0

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
            reduction: See :func:`resque.representations.reduce`.
        """
        profile = cls(Origin(reduction=reduction), classes)
        profile.update(representations, labels)
        return profile

    def update(self, representations: Any, labels: Any, indices: Any = None) -> None:
        """Add a batch.

        Args:
            representations: ``(n, …)``; reduced as the profile's origin says, summed in float64.
            labels: ``(n,)`` integers.
            indices: ``(n,)`` each sample's own number, so that the halves do not depend on the order;
                None counts the samples as they come.

        Raises:
            RepresentationError: NaN, infinity, labels that are no integers or undeclared, sizes that differ.
        """
        self._add(reduce(as_tensor(representations), self.origin.reduction), labels, indices)

    def _add(self, rows: Tensor, labels: Any, indices: Any = None) -> None:
        """Add rows ``(n, width)`` that are reduced already."""
        if rows.dtype.is_complex:
            raise RepresentationError("representations are complex; expected real numbers")
        rows, target = rows.to(torch.float64), as_labels(labels, len(rows)).to(rows.device)
        if len(rows) == 0:
            return
        if not bool(torch.isfinite(rows).all()):
            raise RepresentationError(
                "representations hold NaN or infinity; check the model's weights and the data's range"
            )
        own = torch.arange(self._seen, self._seen + len(rows)) if indices is None else torch.as_tensor(indices)
        table = self._table_for(target, rows)
        column = torch.searchsorted(table.labels, target).clamp(max=len(table.labels) - 1)
        if not bool((table.labels[column] == target).all()):
            raise RepresentationError(f"a label is not among the declared classes {table.labels.tolist()}")
        half = ((own.to(rows.device, torch.int64) * _GOLDEN) < 0).long()
        cell = half * len(table.labels) + column
        table.sums.view(-1, rows.shape[1]).index_add_(0, cell, rows)
        table.counts += torch.bincount(cell, minlength=table.counts.numel()).reshape(table.counts.shape)
        self._seen += len(rows)

    def _table_for(self, target: Tensor, rows: Tensor) -> _Table:
        """The table with room for a batch; declared classes never grow."""
        labels = torch.unique(target) if self._declared is None else self._declared.to(rows.device)
        if self._table is None:
            self._table = _Table.zeros(labels, rows.shape[1])
        elif self._table.width != rows.shape[1]:
            raise RepresentationError(f"representations of width {rows.shape[1]} after width {self._table.width}")
        elif self._declared is None and not bool(torch.isin(labels, self._table.labels).all()):
            self._table = self._table.merged(_Table.zeros(labels, rows.shape[1]))
        return self._table

    def __add__(self, other: "Profile") -> "Profile":
        """The profile of both sets of samples together."""
        check_comparable(self, other)
        merged = Profile(self.origin, None, self.labels_from if self.labels_from == other.labels_from else "mixed")
        tables = [part._table for part in (self, other) if part._table is not None]
        if tables:
            merged._table = tables[0].merged(tables[-1] if len(tables) > 1 else tables[0].emptied())
        if self._declared is not None and other._declared is not None:
            merged._declared = torch.unique(torch.cat([self._declared, other._declared]))
        merged._seen = self._seen + other._seen
        return merged

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
    def halves(self) -> dict[int, np.ndarray]:
        """Label → the two independent sums of a class, ``(2, width)`` float64, for the labels that were seen."""
        if self._table is None:
            return {}
        sums, counts = self._table.sums.cpu().numpy(), self.counts
        return {label: sums[:, i] for i, label in enumerate(self._table.labels.tolist()) if label in counts}

    @property
    def sums(self) -> dict[int, np.ndarray]:
        """Label → ``V_l``, ``(width,)`` float64, for the labels that were seen."""
        return {label: halves.sum(0) for label, halves in self.halves.items()}

    @property
    def exposed_classes(self) -> list[int]:
        """Classes of so few samples (1 to 4) that their sum says something about each one of them."""
        return [label for label, count in self.counts.items() if count < _PRIVATE]

    def save(self, path: str | Path) -> None:
        """Write sums, counts and origin as safetensors, whole or not at all; no sample is kept."""
        if self._table is None:
            raise RepresentationError("the profile is empty: update it with at least one batch before saving")
        tensors = {name: tensor.cpu().contiguous() for name, tensor in vars(self._table).items()}
        about = {"format": _FORMAT, "labels_from": self.labels_from, "origin": json.dumps(vars(self.origin))}
        with replacing(path, own=_is_profile) as scratch:
            save_file(tensors, scratch, about)

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
                table = _Table(*(file.get_tensor(name) for name in ("labels", "sums", "counts")))
            loaded = cls(Origin(**json.loads(about["origin"])), labels_from=about["labels_from"])
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(
                f"{path} is no profile that can be read: {error}; make one with `resque profile`"
            ) from error
        if not table.sound:
            raise DataError(f"{path} holds sums or counts that no profile can have; make it anew")
        loaded._table, loaded._seen = table, int(table.counts.sum())
        return loaded


def profile(
    model: nn.Module,
    loader: Iterable[Any],
    layer: str | None = None,
    reduction: str = "flatten",
    classes: Sequence[int] | int | None = None,
    labels: str = "true",
    preprocessing: str = "",
) -> Profile:
    """The profile of a data set in a model's representation space, from one forward pass.

    Args:
        model: The classifier; it is left as it was found.
        loader: Yields ``(inputs, labels)``; each sample is passed once.
        layer: A module's name, ``"penultimate"``, or None for the paper's layer.
        reduction: See :func:`resque.representations.reduce`.
        classes: The labels that may occur, or their number; None takes those that do.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions (the loader's labels are ignored).
        preprocessing: What was done to the inputs; two profiles must agree in it.

    Raises:
        RepresentationError: NaN or infinity, or labels that are no integers.
        ModelError: No such layer, or the model does not take the inputs.

    Example:
        >>> import torch
        >>> from resque.models import small_cnn
        >>> batches = [(torch.rand(6, 1, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1]))]
        >>> clean = profile(small_cnn(), batches)
        >>> clean.n, clean.width, clean.origin.layer
        (6, 1024, '7')
    """
    if labels not in ("true", "pseudo"):
        raise RepresentationError(f"labels={labels!r}: use 'true' or 'pseudo'")
    name = representation_layer(model, layer)
    made = Profile(Origin(fingerprint(model), name, preprocessing, reduction), classes, labels)
    with observing(model, name, reduction) as observe:
        for inputs, target in passed(loader, device_of(model)):
            rows, logits = observe(inputs)
            made._add(rows, logits.argmax(1) if labels == "pseudo" else target)
    return made


def check_comparable(one: Profile, other: Profile) -> None:
    """Refuse two profiles that do not live in the same representation space.

    Raises:
        ProfileMismatchError: Naming the first thing in which they differ.
    """
    for field, mine in vars(one.origin).items():
        theirs = getattr(other.origin, field)
        if mine != theirs:
            raise ProfileMismatchError(
                f"the profiles differ in {field}: {mine or 'none'!r} and {theirs or 'none'!r}; "
                "make both with the same model, weights, layer and options"
            )
    if one.width and other.width and one.width != other.width:
        raise ProfileMismatchError(f"the profiles differ in width: {one.width} and {other.width}")


def _is_profile(path: Path) -> bool:
    try:
        Profile.load(path)
    except DataError:
        return False
    return True


def _declared(classes: Sequence[int] | int) -> Tensor:
    labels = torch.tensor(sorted({int(c) for c in (range(classes) if isinstance(classes, int) else classes)}))
    if len(labels) == 0:
        raise RepresentationError("classes is empty: give the labels, or their number")
    return labels
