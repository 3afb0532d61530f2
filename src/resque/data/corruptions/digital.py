"""Changes of values and of their coding: contrast, compression, resolution, bits, color, inversion, tone."""

import io

import numpy as np
import torch
from torch import Tensor

from resque.data.corruptions.draws import Stream, uniform_draws
from resque.data.corruptions.resampling import resample
from resque.data.corruptions.severities import at_level
from resque.data.preprocessing import convert_channels
from resque.errors import DataError

__all__ = ["DIGITAL"]


def _contrast(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Reduce the contrast by 7 % × level, around the mean of each image."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1.0 - 0.07 * level)


def _low_contrast(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Reduce the contrast to 75 to 15 %, around the mean of each channel."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean + (images - mean) * at_level((1.0, 0.75, 0.5, 0.4, 0.3, 0.15), level)


def _jpeg(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Compress as JPEG of quality 100 - 9 × level."""
    return _compress(images, 100 - 9 * level, "jpeg")


def _jpeg_compression(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Compress as JPEG of quality 80 to 40."""
    return _compress(images, round(at_level((100.0, 80.0, 65.0, 58.0, 50.0, 40.0), level)), "jpeg_compression")


def _compress(images: Tensor, quality: int, name: str) -> Tensor:
    """Code images as JPEG, and decode them."""
    from PIL import Image

    if images.shape[1] not in (1, 3):
        raise DataError(f"{name} knows no alpha channel: make the images @rgb or @gray first")
    pixels = (images * 255.0).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    encoded = []
    for image in pixels:
        stream = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(stream, "JPEG", quality=quality)
        encoded.append(np.array(Image.open(stream)).reshape(image.shape))
    return torch.from_numpy(np.stack(encoded)).to(images.device).permute(0, 3, 1, 2).float() / 255.0


def _pixelate(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Average over blocks: the resolution falls to 95 to 65 %.

    Blocks lie around the center, and a pixel at an edge counts in both by its area. The paper rounds to whole pixels.
    """
    side = 1.0 / at_level((1.0, 0.95, 0.9, 0.85, 0.75, 0.65), level)
    rows, columns = (_blocks(size, side, images) for size in images.shape[-2:])
    means = resample(images, *(weights / weights.sum(1, keepdim=True) for weights in (rows, columns)))
    return resample(means, rows.T, columns.T)


def _blocks(size: int, side: float, images: Tensor) -> Tensor:
    """Return how much of each pixel lies in each block of ``side`` pixels along an axis, ``(blocks, size)``."""
    pixel = torch.arange(size, device=images.device, dtype=torch.float64)
    start = size / 2.0 + side * (pixel[:, None] - size / 2.0)
    shares = (torch.minimum(pixel + 1.0, start + side) - torch.maximum(pixel, start)).clamp(min=0.0)
    return shares[shares.sum(1) > 0.0]


def _saturate(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Raise the saturation (in HSV), to 2.5 times plus 0.2 at level 10; gray pixels stay gray.

    From level 6 these are the published severities. Severities 1 and 2 of the paper take color away, as ``desaturate``
    does; here levels 1 to 5 lead evenly to level 6.
    """
    if images.shape[1] not in (3, 4):
        raise DataError("saturate needs color, and these images are gray: make them @rgb, or use low_contrast")
    factor = at_level((1.0, 7 / 6, 4 / 3, 1.5, 2.0, 2.5), level)
    added = at_level((0.0, 0.0, 0.0, 0.0, 0.1, 0.2), level)
    color = images[:, :3]
    value, darkest = color.amax(1, keepdim=True), color.amin(1, keepdim=True)
    chroma = (value - darkest).clamp(min=1e-9)
    saturation = (chroma / value.clamp(min=1e-9) * factor + added).clamp(max=1.0)
    saturated = value - (value - color) * (value * saturation / chroma)
    return torch.cat([torch.where(value > darkest, saturated, color), images[:, 3:]], dim=1)


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


def _inversion(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Invert a tenth × level of the images, drawn at random."""
    drawn = uniform_draws(indices.to(images.device), seed, Stream.INVERSION) < level / 10.0
    return torch.where(drawn[:, :, None, None], 1.0 - images, images)


def _gamma(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Darken the middle tones: values to the power of 1 + 0.2 × level."""
    return images.clamp(min=0.0) ** (1.0 + 0.2 * level)


def _solarize(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Invert the values above 1 - 0.08 × level."""
    return torch.where(images > 1.0 - 0.08 * level, 1.0 - images, images)


DIGITAL = {
    "contrast": _contrast,
    "jpeg": _jpeg,
    "bit_depth": _bit_depth,
    "desaturate": _desaturate,
    "low_contrast": _low_contrast,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
    "saturate": _saturate,
    "inversion": _inversion,
    "gamma": _gamma,
    "solarize": _solarize,
}
