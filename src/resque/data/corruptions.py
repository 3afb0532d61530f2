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

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from resque.data.preprocessing import convert_channels
from resque.errors import DataError

_REFERENCE_WIDTH = 32  # METHOD: blur is defined at width 32 and scales with the width
_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's multipliers, as signed int64
_GOLDEN = -0x61C8864680B583EB


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


def uniform_draws(indices: Tensor, seed: int, stream: int) -> Tensor:
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
    gray = convert_channels(images, 1)
    mixed = images[:, :3] + (gray - images[:, :3]) * (level / 10.0)
    return torch.cat([mixed, images[:, 3:]], dim=1)


IMAGE_CORRUPTIONS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "gaussian": _gaussian,
    "blur": _blur,
    "salt_pepper": _salt_pepper,
    "rotation": _rotation,
    "contrast": _contrast,
    "jpeg": _jpeg,
    "bit_depth": _bit_depth,
    "desaturate": _desaturate,
}
