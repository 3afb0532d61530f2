"""Synthetic distribution shifts: corruptions of images, mixtures of them, and label shifts.

* ``gaussian:LEVEL`` and the others of :data:`resque.data.corruptions.IMAGE_CORRUPTIONS` change images. ``gaussian``,
  ``blur`` and ``salt_pepper`` are those of the RESQUE paper.
* ``relabel:LEVEL`` changes 5 % × LEVEL of the labels to another class.
* ``pair_flip:LEVEL`` changes 4.5 % × LEVEL of the labels of each class to the next class (Han et al., Co-teaching,
  NeurIPS 2018).
* ``exchange:LEVEL`` relabels a tenth × LEVEL of the classes cyclically, two at least: new concepts, same inputs.
* ``imbalance:LEVEL`` thins the classes geometrically from first to last; the last keeps a tenth at level 5, a hundredth
  at level 10.
* ``step_imbalance:LEVEL`` thins the second half of the classes to the share at which imbalance keeps the last.
* ``gaussian:5/blur:3/none`` applies one of these to each sample, drawn at random with equal probability.
"""

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from resque.data.corruptions import IMAGE_CORRUPTIONS, Stream, uniform_draws
from resque.errors import DataError

__all__ = ["LABEL_SHIFTS", "LEVELS", "SHIFT_TYPES", "UNCHANGED", "Shift", "parse_shift"]

LEVELS = range(1, 11)
UNCHANGED = "none"  # the part of a mixture that stays as it is
_NEAREST = 3  # names that the error for an unknown one shows


@dataclass(frozen=True)
class Shift:
    """A distribution shift: a shift type with its level, or a mixture of several by sample.

    Attributes:
        parts: Pairs ``(shift type, level)``, of which each sample takes one; None leaves a sample unchanged. Level 10
            of ``gaussian``, ``blur`` and ``salt_pepper`` corresponds to severity 4 of Hendrycks and Dietterich (2019);
            of the corruptions that have their names, it is severity 5.

    Example:
        >>> image = torch.full((1, 1, 8, 8), 0.5)
        >>> noisy = parse_shift("gaussian:5")(image, indices=torch.tensor([0]), seed=0)
        >>> bool((noisy != image).any()), float(noisy.min()) >= 0.0
        (True, True)
    """

    parts: tuple[tuple[str, int] | None, ...]

    @property
    def shift_type(self) -> str:
        """Shift type, e.g. ``"gaussian"``, or ``"gaussian/none"`` for a mixture."""
        return "/".join(UNCHANGED if part is None else part[0] for part in self.parts)

    @property
    def changes_labels(self) -> bool:
        """Whether it is a label shift, which changes labels or class frequencies and no inputs."""
        return any(part is not None and part[0] in LABEL_SHIFTS for part in self.parts)

    def __call__(self, images: Tensor, *, indices: Tensor, seed: int) -> Tensor:
        """Shift a batch of images.

        Args:
            images: Images in [0, 1], ``(n, channels, height, width)``.
            indices: Indices of the samples, ``(n,)``; they seed the noise.
            seed: Seed of the dataset.

        Returns:
            Shifted images in [0, 1], of the same shape.
        """
        if len(self.parts) == 1:
            return _corrupt(images, self.parts[0], indices, seed)
        drawn = (uniform_draws(indices, seed, Stream.SELECTION)[:, 0] * len(self.parts)).long()
        shifted = images.clone()
        for number, part in enumerate(self.parts):
            rows = (drawn == number).nonzero()[:, 0]
            if len(rows):
                shifted[rows] = _corrupt(images[rows], part, indices[rows.to(indices.device)], seed)
        return shifted

    def apply_to_labels(self, labels: Tensor, *, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Apply a label shift.

        Args:
            labels: Class numbers, ``(n,)``.
            indices: Indices of the samples, ``(n,)``.
            seed: Seed of the dataset.

        Returns:
            Rows that remain, and their labels.
        """
        ((shift_type, level),) = (part for part in self.parts if part is not None)
        return LABEL_SHIFTS[shift_type](labels, level, indices, seed)

    def __str__(self) -> str:
        return "/".join(UNCHANGED if part is None else f"{part[0]}:{part[1]}" for part in self.parts)


def parse_shift(text: str) -> Shift:
    """Parse a shift such as ``gaussian:5``, or a mixture such as ``gaussian:5/none``.

    Raises:
        DataError: If the shift type is unknown, or the level is not in 1 to 10.

    Example:
        >>> parse_shift("gaussian:5/none").shift_type
        'gaussian/none'
    """
    parts = tuple(None if part == UNCHANGED else _parse_part(part) for part in text.split("/"))
    label_shift = next((part[0] for part in parts if part and part[0] in LABEL_SHIFTS), None)
    if len(parts) > 1 and label_shift:
        raise DataError(f"{text}: a label shift cannot be part of a mixture; write +{label_shift}:LEVEL by itself")
    return Shift(parts)


def _parse_part(text: str) -> tuple[str, int]:
    shift_type, _, level = text.partition(":")
    if shift_type not in SHIFT_TYPES:
        nearest = difflib.get_close_matches(shift_type, SHIFT_TYPES, n=_NEAREST, cutoff=0.0)
        raise DataError(f"unknown shift {shift_type!r}: nearest are {', '.join(nearest)}")
    if not level.isdecimal() or len(level) > 9 or int(level) not in LEVELS:
        raise DataError(f"shift level {level or 'missing'} is outside 1 to 10: write e.g. {shift_type}:5")
    return shift_type, int(level)


def _corrupt(images: Tensor, part: tuple[str, int] | None, indices: Tensor, seed: int) -> Tensor:
    return images if part is None else IMAGE_CORRUPTIONS[part[0]](images, part[1], indices, seed).clamp(0.0, 1.0)


def _relabel(labels: Tensor, level: int, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Replace a share of the labels by another class that occurs, each with equal probability."""
    classes, position = torch.unique(labels, return_inverse=True)
    step = 1 + (uniform_draws(indices, seed, Stream.NEW_LABEL)[:, 0] * (len(classes) - 1)).long()
    chosen = uniform_draws(indices, seed, Stream.SELECTION)[:, 0] < 0.05 * level
    return torch.arange(len(labels)), torch.where(chosen, classes[(position + step) % len(classes)], labels)


def _pair_flip(labels: Tensor, level: int, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Replace a share of the labels of each class by the next class that occurs."""
    classes, position = torch.unique(labels, return_inverse=True)
    chosen = uniform_draws(indices, seed, Stream.PAIR_FLIP)[:, 0] < 0.045 * level
    return torch.arange(len(labels)), torch.where(chosen, classes[(position + 1) % len(classes)], labels)


def _exchange(labels: Tensor, level: int, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Relabel the first classes cyclically: each takes the name of the next."""
    classes, position = torch.unique(labels, return_inverse=True)
    n = min(len(classes), max(2, round(0.1 * level * len(classes))))
    names = classes.clone()
    names[:n] = classes[:n].roll(-1)
    return torch.arange(len(labels)), names[position]


def _imbalance(labels: Tensor, level: int, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Keep a geometrically decreasing share of the classes, of each at least one sample."""
    classes = torch.unique(labels)
    shares = [10.0 ** (-0.2 * level * rank / max(1, len(classes) - 1)) for rank in range(len(classes))]
    return _thin(labels, shares, uniform_draws(indices, seed, Stream.SELECTION)[:, 0])


def _step_imbalance(labels: Tensor, level: int, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Keep a share of the second half of the classes, of each at least one sample."""
    n = len(torch.unique(labels))
    shares = [1.0 if rank < (n + 1) // 2 else 10.0 ** (-0.2 * level) for rank in range(n)]
    return _thin(labels, shares, uniform_draws(indices, seed, Stream.STEP_IMBALANCE)[:, 0])


def _thin(labels: Tensor, shares: list[float], draws: Tensor) -> tuple[Tensor, Tensor]:
    """Keep a share of each class: the samples with the smallest draws, at least one."""
    kept = []
    for label, share in zip(torch.unique(labels), shares, strict=True):
        members = (labels == label).nonzero()[:, 0]
        kept.append(members[draws[members].argsort()][: math.ceil(share * len(members))])
    rows = torch.cat(kept).sort().values
    return rows, labels[rows]


LABEL_SHIFTS: dict[str, Callable[[Tensor, int, Tensor, int], tuple[Tensor, Tensor]]] = {
    "relabel": _relabel,
    "pair_flip": _pair_flip,
    "exchange": _exchange,
    "imbalance": _imbalance,
    "step_imbalance": _step_imbalance,
}
"""Name → function of ``(labels, level, indices, seed)`` that returns the rows that remain and their labels."""
SHIFT_TYPES = (*IMAGE_CORRUPTIONS, *LABEL_SHIFTS)
"""Names of all shift types."""
