"""Synthetic distribution shifts: the paper's three noises at ten levels, and a rotation.

Images are floats in [0, 1], shape ``(n, channels, height, width)``; the result is clamped to [0, 1].
Random corruptions are seeded per sample by a counter-based generator, so that a sample's noise depends
on the seed and on its own index alone: not on the batch it comes in, its order, or the device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from resque.errors import DataError

LEVELS = range(1, 11)
_REFERENCE_WIDTH = 32  # METHOD: blur is defined at width 32 and scales with the width
_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's multipliers, as signed int64
_GOLDEN = -0x61C8864680B583EB


@dataclass(frozen=True)
class Corruption:
    """One shift: what is done to an image, and how strongly.

    Attributes:
        kind: One of ``KINDS``.
        level: 1 (least) to 10; level 10 answers to severity 4 of Hendrycks and Dietterich (2019).

    Example:
        >>> import torch
        >>> image = torch.full((1, 1, 8, 8), 0.5)
        >>> noisy = Corruption("gaussian", 5)(image, indices=torch.tensor([0]), seed=0)
        >>> bool((noisy != image).any()), float(noisy.min()) >= 0.0
        (True, True)
    """

    kind: str
    level: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DataError(f"unknown corruption {self.kind!r}: use one of {', '.join(KINDS)}")
        if self.level not in LEVELS:
            raise DataError(f"corruption level {self.level} is outside 1 to 10: write e.g. {self.kind}:5")

    def __call__(self, images: Tensor, *, indices: Tensor, seed: int) -> Tensor:
        """Corrupt a batch.

        Args:
            images: ``(n, channels, height, width)`` in [0, 1].
            indices: ``(n,)`` the samples' own indices, which seed their noise.
            seed: Seed of the whole data set.

        Returns:
            Corrupted images, same shape, in [0, 1].
        """
        return _KINDS[self.kind](images, self.level, indices, seed).clamp(0.0, 1.0)

    def __str__(self) -> str:
        return f"{self.kind}:{self.level}"


def _scramble(x: Tensor) -> Tensor:
    """splitmix64's finalizer on int64 (shifts made logical by a mask)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _uniform(images: Tensor, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Uniform numbers in (0, 1), a function of (seed, stream, sample index, position) alone."""
    key = torch.tensor(seed * 1000003 + stream, dtype=torch.int64, device=images.device)
    sample = _scramble(_scramble((key + 1) * _GOLDEN) + indices.to(images.device, torch.int64) * _GOLDEN)
    position = torch.arange(images[0].numel(), device=images.device, dtype=torch.int64)
    bits = _scramble(sample[:, None] + (position[None, :] + 1) * _GOLDEN)
    return ((((bits >> 11) & 0x1FFFFFFFFFFFFF).double() + 0.5) / 2**53).float().reshape(images.shape)


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


_KINDS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "gaussian": _gaussian,
    "blur": _blur,
    "salt_pepper": _salt_pepper,
    "rotation": _rotation,
}
KINDS = tuple(_KINDS)
