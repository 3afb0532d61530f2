"""Counter-based random numbers: each is a splitmix64 hash of seed, stream, index of the sample and position.

A sample's numbers therefore do not depend on its batch, its order or the device.
"""

import enum
import math

import torch
from torch import Tensor

__all__ = ["Stream", "normal_values", "uniform_draws", "uniform_values"]

_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's multipliers, as signed int64
_GOLDEN = -0x61C8864680B583EB


@enum.unique
class Stream(enum.IntEnum):
    """Number of each stream of random numbers; a number is never given to another stream."""

    GAUSSIAN_RADIUS = 0
    GAUSSIAN_ANGLE = 1
    SALT_PEPPER = 2
    SELECTION = 8
    NEW_LABEL = 9
    GAUSSIAN_NOISE = 10
    SHOT_NOISE = 11
    IMPULSE_NOISE = 12
    SPECKLE_NOISE = 13
    GLASS_BLUR = 14
    MOTION_BLUR = 15
    SNOW_FLAKES = 16
    SNOW_ANGLE = 17
    FROST = 18
    FOG = 19
    WATER = 20
    MUD = 21
    ELASTIC_RIGHT = 22
    ELASTIC_DOWN = 23
    ELASTIC_CORNERS = 24
    TRANSLATION = 25
    PERSPECTIVE = 26
    OCCLUSION = 27
    INVERSION = 28
    PAIR_FLIP = 29
    STEP_IMBALANCE = 30


def uniform_draws(indices: Tensor, seed: int, stream: int, n: int = 1) -> Tensor:
    """Draw uniform random numbers in (0, 1) for each sample.

    Args:
        indices: Indices of the samples, ``(samples,)``.
        seed: Seed of the dataset.
        stream: Number of the stream; different streams are independent.
        n: Numbers per sample.

    Returns:
        Float64 tensor ``(samples, n)``, a function of seed, stream and index alone.

    Example:
        >>> draws = uniform_draws(torch.tensor([5, 6]), seed=0, stream=1, n=3)
        >>> draws.shape, bool((draws[1] == uniform_draws(torch.tensor([6]), seed=0, stream=1, n=3)).all())
        (torch.Size([2, 3]), True)
    """
    device = indices.device
    key = torch.tensor(seed * 1000003 + int(stream), dtype=torch.int64, device=device)
    sample = _scramble(_scramble((key + 1) * _GOLDEN) + indices.to(torch.int64) * _GOLDEN)
    position = torch.arange(n, device=device, dtype=torch.int64)
    bits = _scramble(sample[:, None] + (position[None, :] + 1) * _GOLDEN)
    return (((bits >> 11) & 0x1FFFFFFFFFFFFF).double() + 0.5) / 2**53


def _scramble(x: Tensor) -> Tensor:
    """Apply splitmix64's finalizer to int64 (shifts made logical by a mask)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def uniform_values(images: Tensor, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Draw one uniform number in (0, 1) for each value of the images, float64.

    Example:
        >>> uniform_values(torch.zeros(2, 3, 4, 5), torch.arange(2), seed=0, stream=1).shape
        torch.Size([2, 3, 4, 5])
    """
    return uniform_draws(indices.to(images.device), seed, stream, images[0].numel()).reshape(images.shape)


def normal_values(images: Tensor, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Draw one standard normal number for each value of the images, float64.

    Example:
        >>> bool(normal_values(torch.zeros(2, 3, 4, 5), torch.arange(2), seed=0, stream=1).abs().max() < 9.0)
        True
    """
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform_values(images, indices, seed, stream) - 1.0)
