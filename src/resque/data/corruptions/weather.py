"""Weather: snow, frost, fog, brightness and spatter, over the image. Textures are generated from random numbers."""

import math

import torch
from torch import Tensor

from resque.data.corruptions.blur import streak
from resque.data.corruptions.draws import Stream, normal_values, uniform_draws
from resque.data.corruptions.resampling import gaussian_filter, magnification, resample
from resque.data.corruptions.severities import at_level, to_width

__all__ = ["WEATHER"]

_OCTAVES = 5  # lattices of 2 to 17 points a side; finer ones weigh less than 1 % at every level
_ICE, _WATER, _MUD = (0.80, 0.92, 1.0), (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
_SNOW = (
    (0.1, 0.1, 0.1, 0.15, 0.25, 0.3),  # mean of the noise
    (0.6, 0.6, 0.5, 0.55, 0.6, 0.65),  # threshold of a flake
    (1.0, 1.0, 1.0, 1.75, 2.25, 1.25),  # magnification
    (3.0, 3.0, 4.0, 4.0, 6.0, 12.0),  # standard deviation of the smear
    (17.0, 17.0, 21.0, 21.0, 25.0, 29.0),  # its length
    (1.0, 0.95, 0.9, 0.9, 0.85, 0.8),  # share of the image that is not whitened
)
_LUMA = (0.299, 0.587, 0.114)


def _tinted(layer: Tensor, color: tuple[float, float, float], channels: int) -> Tensor:
    """Color a layer ``(n, height, width)``; images that are not RGB get its luma in each channel."""
    gray = sum(weight * value for weight, value in zip(_LUMA, color, strict=True))
    values = color if channels == 3 else (gray,) * channels
    return layer[:, None] * torch.tensor(values, device=layer.device, dtype=layer.dtype)[:, None, None]


def _fractal(images: Tensor, indices: Tensor, seed: int, stream: int, decay: float) -> Tensor:
    """Return clouds in [0, 1], ``(n, height, width)``: octaves of interpolated noise, each ``decay`` times weaker."""
    height, width = images.shape[-2:]
    sides = [2**octave + 1 for octave in range(_OCTAVES)]
    draws = uniform_draws(indices.to(images.device), seed, stream, sum(side**2 for side in sides))
    clouds = torch.zeros(len(images), height, width, device=images.device, dtype=torch.float64)
    for octave, lattice in enumerate(torch.split(draws, [side**2 for side in sides], dim=1)):
        side = sides[octave]
        rows, columns = (
            magnification(side, size, max(1, size - 1) / (side - 1), images.device) for size in (height, width)
        )
        clouds += decay**-octave * resample(lattice.reshape(-1, side, side), rows, columns)
    low, high = clouds.amin((1, 2), keepdim=True), clouds.amax((1, 2), keepdim=True)
    return ((clouds - low) / (high - low).clamp(min=1e-9)).to(images)


def _snow(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Whiten the image, and let flakes fall: bright spots of noise, smeared downwards.

    Magnified noise keeps its standard deviation here. In the paper it falls from 0.3 to 0.2, and 0.2 is used.
    """
    mean, threshold, size, length, taps, kept = (at_level(published, level) for published in _SNOW)
    noise = normal_values(images[:, :1], indices, seed, Stream.SNOW_FLAKES)
    factor = max(1.0, to_width(size, images))
    rows, columns = (magnification(side, side, factor, images.device) for side in images.shape[-2:])
    noise = resample(noise, *(weights / weights.norm(dim=1, keepdim=True) for weights in (rows, columns)))
    flakes = mean + 0.2 * noise
    flakes = torch.where(flakes < threshold, 0.0, flakes.clamp(max=1.0)).to(images)
    angle = (0.25 + 0.5 * uniform_draws(indices.to(images.device), seed, Stream.SNOW_ANGLE)[:, 0]) * math.pi
    sigma, n = to_width(length, images), max(2, round(to_width(taps, images)))
    fallen = streak(flakes, angle, sigma, n) * min(1.0, level / 2.0)
    luma = _luma(images)
    whitened = kept * images + (1.0 - kept) * torch.maximum(images, 1.5 * luma + 0.5)
    return whitened + fallen + fallen.rot90(2, (-2, -1))


def _luma(images: Tensor) -> Tensor:
    """Return the luma of RGB, else the mean of the channels."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    return (images * torch.tensor(_LUMA, device=images.device, dtype=images.dtype)[:, None, None]).sum(1, keepdim=True)


def _frost(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Darken the image under crystals of ice; their texture is generated, where the paper has photographs."""
    kept = at_level((1.0, 1.0, 1.0, 0.9, 0.85, 0.75), level)
    ice = at_level((0.0, 0.2, 0.3, 0.4, 0.4, 0.45), level)
    clouds = _fractal(images, indices, seed, Stream.FROST, 1.1)
    crystals = (1.0 - (2.0 * clouds - 1.0).abs()) ** 3
    return kept * images + ice * _tinted(0.2 + 0.8 * crystals, _ICE, images.shape[1])


def _fog(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Add clouds, and dim the sum to the brightest value of the image."""
    density = at_level((0.0, 0.2, 0.5, 0.75, 1.0, 1.5), level)
    decay = at_level((3.0, 3.0, 3.0, 2.5, 2.0, 1.75), level) ** 2
    brightest = images.amax((1, 2, 3), keepdim=True)
    clouds = _fractal(images, indices, seed, Stream.FOG, decay)[:, None]
    return (images + density * clouds) * brightest / (brightest + density)


def _brightness(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Raise the brightness (value in HSV) by 0.05 to 0.3; hue and saturation stay."""
    added = at_level((0.0, 0.05, 0.1, 0.15, 0.2, 0.3), level)
    value = images[:, :3].amax(1, keepdim=True)
    brighter = (value + added).clamp(max=1.0)
    return torch.where(value > 0.0, images * (brighter / value.clamp(min=1e-9)), brighter)


def _spatter(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Splash drops of water over the image, and mud above level 6.

    The covered shares are the published ones, 2 to 32 % with water and up to 30 % with mud. Mud comes on top of the
    water, where the paper has either.
    """
    water = _drops(images, at_level((0.0, 0.023, 0.078, 0.32, 0.32, 0.32), level), indices, seed, Stream.WATER)
    wet = images + 0.5 * _tinted(water, _WATER, images.shape[1])
    mud = _drops(images, at_level((0.0, 0.0, 0.0, 0.0, 0.16, 0.30), level), indices, seed, Stream.MUD)
    return wet.clamp(max=1.0) * (1.0 - mud[:, None]) + _tinted(mud, _MUD, images.shape[1])


def _drops(images: Tensor, share: float, indices: Tensor, seed: int, stream: int) -> Tensor:
    """Return drops that cover a share of the image, ``(n, height, width)``: smooth noise above its quantile."""
    if share == 0.0:
        return torch.zeros_like(images[:, 0])
    sigma = to_width(1.0, images)
    smooth = gaussian_filter(normal_values(images[:, :1], indices, seed, stream), sigma)[:, 0]
    spread = smooth.std((1, 2), correction=0, keepdim=True).clamp(min=1e-9)
    quantile = math.sqrt(2.0) * float(torch.erfinv(torch.tensor(1.0 - 2.0 * share, dtype=torch.float64)))
    return (3.0 * (smooth / spread - quantile)).clamp(0.0, 1.0).to(images)


WEATHER = {
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "spatter": _spatter,
}
