"""Image corruptions at ten levels, with counter-based random numbers.

Images are floats in [0, 1], ``(n, channels, height, width)``. Each random number is a splitmix64 hash of the seed, the
index of the sample and the position, so a sample's noise does not depend on its batch, its order or the device.
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

__all__ = ["IMAGE_CORRUPTIONS", "uniform_draws"]

_REFERENCE_WIDTH = 32  # the blur is defined at this width and scales with the width
_MIX_1, _MIX_2 = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # splitmix64's multipliers, as signed int64
_GOLDEN = -0x61C8864680B583EB


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
    key = torch.tensor(seed * 1000003 + stream, dtype=torch.int64, device=device)
    sample = _scramble(_scramble((key + 1) * _GOLDEN) + indices.to(torch.int64) * _GOLDEN)
    position = torch.arange(n, device=device, dtype=torch.int64)
    bits = _scramble(sample[:, None] + (position[None, :] + 1) * _GOLDEN)
    return (((bits >> 11) & 0x1FFFFFFFFFFFFF).double() + 0.5) / 2**53


def _scramble(x: Tensor) -> Tensor:
    """Apply splitmix64's finalizer to int64 (shifts made logical by a mask)."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


def _uniform(images: Tensor, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Draw one uniform number per pixel and channel, float32."""
    draws = uniform_draws(indices.to(images.device), seed, stream, images[0].numel())
    return draws.float().reshape(images.shape)


def _gaussian(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Add Gaussian noise of standard deviation 0.026 × level (Box and Muller's transform)."""
    radius = torch.sqrt(-2.0 * torch.log(_uniform(images, indices, seed, 0)))
    angle = 2.0 * math.pi * _uniform(images, indices, seed, 1)
    return images + 0.026 * level * radius * torch.cos(angle)


def _salt_pepper(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Set a fraction of 0.017 × level of the values to 1 or 0, half each."""
    fraction, draws = 0.017 * level, _uniform(images, indices, seed, 2)
    salted = torch.where(draws < fraction / 2, 1.0, images)
    return torch.where(draws > 1.0 - fraction / 2, 0.0, salted)


def _blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Apply a Gaussian blur of 0.2 × level pixels at width 32."""
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
    """Rotate by 6° × level."""
    angle, aspect = math.radians(6.0 * level), images.shape[-2] / images.shape[-1]
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = [[cosine, -sine * aspect, 0.0], [sine / aspect, cosine, 0.0]]
    theta = torch.tensor(matrix, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _contrast(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Reduce the contrast by 7 % × level, around the mean of each image."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1.0 - 0.07 * level)


def _jpeg(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Compress as JPEG of quality 100 - 9 × level."""
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
    """Reduce the bit depth from 8 to 8 - 0.7 × level bits."""
    steps = round(2 ** (8 - 0.7 * level)) - 1
    return (images * steps).round() / steps


def _desaturate(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Remove a tenth × level of the color."""
    if images.shape[1] == 1:
        raise DataError("desaturate needs color, and these images are gray")
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
"""Name → function of ``(images, level, indices, seed)``; results may leave [0, 1] and are not yet clamped."""
