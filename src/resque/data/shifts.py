"""Parse and apply distribution shifts: corruptions of images, mixtures of them, and shifts of labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from resque.data.corruptions import IMAGE_CORRUPTIONS, uniform_draws
from resque.errors import DataError

LEVELS = range(1, 11)
UNCHANGED = "none"  # the part of a mixture that stays as it is
_RELABELLED = 0.05
_RARER = 0.2
_WHICH, _OTHER = 8, 9  # streams of random numbers besides those of the noises, 0 to 2


@dataclass(frozen=True)
class Shift:
    """One shift: what is done to a sample, and how strongly.

    Attributes:
        parts: ``(kind, level)`` each; a sample takes one of them, and None leaves it as it is. Level 10 of a noise
            answers to severity 4 of Hendrycks and Dietterich (2019).

    Example:
        >>> import torch
        >>> image = torch.full((1, 1, 8, 8), 0.5)
        >>> noisy = parse_shift("gaussian:5")(image, indices=torch.tensor([0]), seed=0)
        >>> bool((noisy != image).any()), float(noisy.min()) >= 0.0
        (True, True)
    """

    parts: tuple[tuple[str, int] | None, ...]

    @property
    def shift_type(self) -> str:
        """``"gaussian"``, or ``"gaussian/none"`` for a mixture."""
        return "/".join(UNCHANGED if part is None else part[0] for part in self.parts)

    @property
    def of_labels(self) -> bool:
        """Whether it changes labels, or how many samples have which, and not inputs."""
        return any(part is not None and part[0] in LABEL_SHIFTS for part in self.parts)

    def __call__(self, images: Tensor, *, indices: Tensor, seed: int) -> Tensor:
        """Shift a batch.

        Args:
            images: ``(n, channels, height, width)`` in [0, 1].
            indices: ``(n,)`` the samples' own indices, which seed their noise.
            seed: Seed of the whole data set.

        Returns:
            Shifted images, same shape, in [0, 1].
        """
        if len(self.parts) == 1:
            return _changed(images, self.parts[0], indices, seed)
        drawn = (uniform_draws(indices, seed, _WHICH) * len(self.parts)).long()
        shifted = images.clone()
        for number, part in enumerate(self.parts):
            own = (drawn == number).nonzero()[:, 0]
            if len(own):
                shifted[own] = _changed(images[own], part, indices[own.to(indices.device)], seed)
        return shifted

    def of_these(self, labels: Tensor, *, indices: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """A shift of labels.

        Args:
            labels: ``(n,)`` integers.
            indices: ``(n,)`` the samples' own indices.
            seed: Seed of the whole data set.

        Returns:
            ``(rows, labels)``: which samples are left, and what they are called now.
        """
        ((kind, level),) = (part for part in self.parts if part is not None)
        if kind == IMBALANCE:
            rows = _thinned(labels, level, uniform_draws(indices, seed, _WHICH))
            return rows, labels[rows]
        if kind == EXCHANGE:
            return torch.arange(len(labels)), _exchanged(labels, level)
        return torch.arange(len(labels)), _relabelled(labels, level, indices, seed)

    def __str__(self) -> str:
        return "/".join(UNCHANGED if part is None else f"{part[0]}:{part[1]}" for part in self.parts)


def parse_shift(text: str) -> Shift:
    """``gaussian:5``, or several with slashes between them.

    Raises:
        DataError: Unknown kind, or a level that there is not.

    Example:
        >>> parse_shift("gaussian:5/none").shift_type
        'gaussian/none'
    """
    parts = tuple(None if part == UNCHANGED else _part(*part.split(":")) for part in text.split("/"))
    alone = next((part[0] for part in parts if part and part[0] in LABEL_SHIFTS), None)
    if len(parts) > 1 and alone:
        raise DataError(f"{text}: labels cannot be mixed with what is done to images; write +{alone}:LEVEL by itself")
    return Shift(parts)


def _part(kind: str, level: str) -> tuple[str, int]:
    if kind not in SHIFT_TYPES:
        raise DataError(f"unknown shift {kind!r}: use one of {', '.join(SHIFT_TYPES)}")
    if int(level) not in LEVELS:
        raise DataError(f"shift level {level} is outside 1 to 10: write e.g. {kind}:5")
    return kind, int(level)


def _changed(images: Tensor, part: tuple[str, int] | None, indices: Tensor, seed: int) -> Tensor:
    return images if part is None else IMAGE_CORRUPTIONS[part[0]](images, part[1], indices, seed).clamp(0.0, 1.0)


def _relabelled(labels: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Some of the labels exchanged for another class that occurs, each as likely as the other."""
    classes, own = torch.unique(labels, return_inverse=True)
    step = 1 + (uniform_draws(indices, seed, _OTHER) * (len(classes) - 1)).long()
    chosen = uniform_draws(indices, seed, _WHICH) < _RELABELLED * level
    return torch.where(chosen, classes[(own + step) % len(classes)], labels)


def _exchanged(labels: Tensor, level: int) -> Tensor:
    """The first classes called as the next of them, the last of these as the first."""
    classes, own = torch.unique(labels, return_inverse=True)
    some = min(len(classes), max(2, round(0.1 * level * len(classes))))
    names = classes.clone()
    names[:some] = classes[:some].roll(-1)
    exchanged: Tensor = names[own]
    return exchanged


def _thinned(labels: Tensor, level: int, draws: Tensor) -> Tensor:
    """Rows that are left of each class, at least one."""
    classes = torch.unique(labels)
    left = []
    for rank, label in enumerate(classes):
        own = (labels == label).nonzero()[:, 0]
        share = 10.0 ** (-_RARER * level * rank / max(1, len(classes) - 1))
        left.append(own[draws[own].argsort()][: math.ceil(share * len(own))])
    return torch.cat(left).sort().values


RELABEL, EXCHANGE, IMBALANCE = LABEL_SHIFTS = "relabel", "exchange", "imbalance"
SHIFT_TYPES = (*IMAGE_CORRUPTIONS, *LABEL_SHIFTS)
