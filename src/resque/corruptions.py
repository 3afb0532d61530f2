"""Synthetic distribution shifts at ten levels: the paper's three noises, and others that are no noise.

* ``gaussian``, ``blur``, ``salt_pepper``: the paper's; ``rotation``: by 6° a level; ``contrast``: 7 % less a level.
* re-encoding: ``jpeg`` (quality 100 - 9 a level), ``bit_depth`` (from 8 bits down to 1), ``desaturate`` (a tenth of the
  colour a level).
* ``relabel``: a twentieth of the labels a level become another class.
* ``exchange``: a tenth of the classes a level (two at least) pass their names around: other concepts, same inputs.
* ``imbalance``: from the first class to the last, geometrically fewer samples: at level 5 a tenth, at 10 a hundredth.
* ``gaussian:5/blur:3/none``: each sample one of these, drawn by its own number; ``/none`` mixes old and new.

Images are floats in [0, 1], shape ``(n, channels, height, width)``; the result is clamped to [0, 1].
Random corruptions are seeded per sample by a counter-based generator, so that a sample's noise depends
on the seed and on its own index alone: not on the batch it comes in, its order, or the device.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resque.errors import DataError
from resque.preparation import with_channels

LEVELS = range(1, 11)
UNTOUCHED = "none"  # the part of a mixture that stays as it is
_RELABELLED = 0.05
_RARER = 0.2
_WHICH, _OTHER = 8, 9  # streams of random numbers besides those of the noises, 0 to 2
_REFERENCE_WIDTH = 32  # METHOD: blur is defined at width 32 and scales with the width
_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's multipliers, as signed int64
_GOLDEN = -0x61C8864680B583EB


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
    def kind(self) -> str:
        """``"gaussian"``, or ``"gaussian/none"`` for a mixture."""
        return "/".join(UNTOUCHED if part is None else part[0] for part in self.parts)

    @property
    def of_labels(self) -> bool:
        """Whether it changes labels, or how many samples have which, and not inputs."""
        return any(part is not None and part[0] in OF_LABELS for part in self.parts)

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
        drawn = (_draws(indices, seed, _WHICH) * len(self.parts)).long()
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
            rows = _thinned(labels, level, _draws(indices, seed, _WHICH))
            return rows, labels[rows]
        if kind == EXCHANGE:
            return torch.arange(len(labels)), _exchanged(labels, level)
        return torch.arange(len(labels)), _relabelled(labels, level, indices, seed)

    def __str__(self) -> str:
        return "/".join(UNTOUCHED if part is None else f"{part[0]}:{part[1]}" for part in self.parts)


def parse_shift(text: str) -> Shift:
    """``gaussian:5``, or several with slashes between them.

    Raises:
        DataError: Unknown kind, or a level that there is not.

    Example:
        >>> parse_shift("gaussian:5/none").kind
        'gaussian/none'
    """
    parts = tuple(None if part == UNTOUCHED else _part(*part.split(":")) for part in text.split("/"))
    alone = next((part[0] for part in parts if part and part[0] in OF_LABELS), None)
    if len(parts) > 1 and alone:
        raise DataError(f"{text}: labels cannot be mixed with what is done to images; write +{alone}:LEVEL by itself")
    return Shift(parts)


def _part(kind: str, level: str) -> tuple[str, int]:
    if kind not in KINDS:
        raise DataError(f"unknown shift {kind!r}: use one of {', '.join(KINDS)}")
    if int(level) not in LEVELS:
        raise DataError(f"shift level {level} is outside 1 to 10: write e.g. {kind}:5")
    return kind, int(level)


def _changed(images: Tensor, part: tuple[str, int] | None, indices: Tensor, seed: int) -> Tensor:
    return images if part is None else _KINDS[part[0]](images, part[1], indices, seed).clamp(0.0, 1.0)


def _relabelled(labels: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Some of the labels exchanged for another class that occurs, each as likely as the other."""
    classes, own = torch.unique(labels, return_inverse=True)
    step = 1 + (_draws(indices, seed, _OTHER) * (len(classes) - 1)).long()
    chosen = _draws(indices, seed, _WHICH) < _RELABELLED * level
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


def _scramble(x: Tensor) -> Tensor:
    """splitmix64's finalizer on int64 (shifts made logical by a mask)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _key(indices: Tensor, seed: int, stream: int) -> Tensor:
    """``(n,)`` bits that belong to a sample, a stream and a seed."""
    key = torch.tensor(seed * 1000003 + stream, dtype=torch.int64, device=indices.device)
    return _scramble(_scramble((key + 1) * _GOLDEN) + indices.to(torch.int64) * _GOLDEN)


def _fraction(bits: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64."""
    return (((bits >> 11) & 0x1FFFFFFFFFFFFF).double() + 0.5) / 2**53


def _draws(indices: Tensor, seed: int, stream: int) -> Tensor:
    """One uniform number a sample."""
    return _fraction(_scramble(_key(indices, seed, stream) + _GOLDEN))


def _uniform(images: Tensor, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Uniform numbers in (0, 1), a function of (seed, stream, sample index, position) alone."""
    sample = _key(indices.to(images.device), seed, stream)
    position = torch.arange(images[0].numel(), device=images.device, dtype=torch.int64)
    bits = _scramble(sample[:, None] + (position[None, :] + 1) * _GOLDEN)
    return _fraction(bits).float().reshape(images.shape)


def _gaussian(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    radius = torch.sqrt(-2.0 * torch.log(_uniform(images, indices, seed, 0)))
    angle = 2.0 * math.pi * _uniform(images, indices, seed, 1)
    return images + 0.026 * level * radius * torch.cos(angle)


def _salt_pepper(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    fraction, chance = 0.017 * level, _uniform(images, indices, seed, 2)
    salted = torch.where(chance < fraction / 2, 1.0, images)
    return torch.where(chance > 1.0 - fraction / 2, 0.0, salted)


def _blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    sigma = 0.2 * level * images.shape[-1] / _REFERENCE_WIDTH
    reach = max(1, math.ceil(4 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    rows, columns = kernel.reshape(1, 1, -1, 1), kernel.reshape(1, 1, 1, -1)
    for weight, pad in ((rows, (0, 0, reach, reach)), (columns, (reach, reach, 0, 0))):
        padded = F.pad(images, pad, mode="replicate")
        images = F.conv2d(padded, weight.expand(channels, 1, -1, -1), groups=channels)
    return images


def _rotation(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    angle, aspect = math.radians(6.0 * level), images.shape[-2] / images.shape[-1]
    cosine, sine = math.cos(angle), math.sin(angle)
    turn = [[cosine, -sine * aspect, 0.0], [sine / aspect, cosine, 0.0]]
    theta = torch.tensor(turn, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _contrast(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1.0 - 0.07 * level)


def _jpeg(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    from PIL import Image

    if images.shape[1] == 4:
        raise DataError("jpeg knows no alpha channel: make the images @rgb or @gray first")
    pixels = (images * 255.0).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    encoded = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "JPEG", quality=100 - 9 * level)
        encoded.append(np.array(Image.open(stream)).reshape(image.shape))
    return torch.from_numpy(np.stack(encoded)).to(images.device).permute(0, 3, 1, 2).float() / 255.0


def _bit_depth(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    steps = round(2 ** (8 - 0.7 * level)) - 1
    return (images * steps).round() / steps


def _desaturate(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    if images.shape[1] == 1:
        raise DataError("desaturate needs colour, and these images are gray")
    gray = with_channels(images, 1)
    mixed = images[:, :3] + (gray - images[:, :3]) * (level / 10.0)
    return torch.cat([mixed, images[:, 3:]], dim=1)


_KINDS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "gaussian": _gaussian,
    "blur": _blur,
    "salt_pepper": _salt_pepper,
    "rotation": _rotation,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "bit_depth": _bit_depth,
    "desaturate": _desaturate,
}
RELABEL, EXCHANGE, IMBALANCE = OF_LABELS = "relabel", "exchange", "imbalance"
KINDS = (*_KINDS, *OF_LABELS)
