"""Noise: each value of an image is changed by a random number of its own."""

import math

import torch
from torch import Tensor

from resque.data.corruptions.draws import Stream, normal_values, uniform_values
from resque.data.corruptions.severities import at_level

__all__ = ["NOISES"]

_EXACT_BELOW = 9.0  # rates below it are drawn by the exact inverse, with at most so many terms
_TERMS = 45


def _gaussian(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Add Gaussian noise of standard deviation 0.026 × level (Box and Muller's transform)."""
    radius = torch.sqrt(-2.0 * torch.log(uniform_values(images, indices, seed, Stream.GAUSSIAN_RADIUS).float()))
    angle = 2.0 * math.pi * uniform_values(images, indices, seed, Stream.GAUSSIAN_ANGLE).float()
    return images + 0.026 * level * radius * torch.cos(angle)


def _salt_pepper(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Set a fraction of 0.017 × level of the values to 1 or 0, half each."""
    return _set_extremes(images, 0.017 * level, uniform_values(images, indices, seed, Stream.SALT_PEPPER).float())


def _set_extremes(images: Tensor, fraction: float, draws: Tensor) -> Tensor:
    """Set the values whose draws lie in the outer ``fraction`` to 1 or 0, half each."""
    salted = torch.where(draws < fraction / 2, 1.0, images)
    return torch.where(draws > 1.0 - fraction / 2, 0.0, salted)


def _gaussian_noise(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Add Gaussian noise of standard deviation 0.04 to 0.10."""
    sigma = at_level((0.0, 0.04, 0.06, 0.08, 0.09, 0.10), level)
    return images + (sigma * normal_values(images, indices, seed, Stream.GAUSSIAN_NOISE)).to(images)


def _shot_noise(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Count photons: Poisson noise at 500 to 50 photons for white (interpolated in photons' inverse)."""
    photons = 1.0 / at_level((0.0, 1 / 500, 1 / 250, 1 / 100, 1 / 75, 1 / 50), level)
    counts = _poisson(images.double() * photons, uniform_values(images, indices, seed, Stream.SHOT_NOISE))
    return (counts / photons).to(images)


def _poisson(rate: Tensor, draws: Tensor) -> Tensor:
    """Return the Poisson quantiles of uniform draws: exact for small rates, by Cornish and Fisher's expansion above."""
    normal = math.sqrt(2.0) * torch.erfinv(2.0 * draws - 1.0)
    skewness = (normal**2 - 1.0) / 6.0
    counts = (rate + rate.sqrt() * normal + skewness + 0.5).floor()
    small = rate < _EXACT_BELOW
    mean, draw = rate[small], draws[small]
    term = torch.exp(-mean)
    cumulative, count = term.clone(), torch.zeros_like(mean)
    for k in range(1, _TERMS):
        count += draw > cumulative
        term *= mean / k
        cumulative += term
    counts[small] = count
    return counts


def _impulse_noise(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Set a fraction of 0.01 to 0.07 of the values to 1 or 0, half each."""
    fraction = at_level((0.0, 0.01, 0.02, 0.03, 0.05, 0.07), level)
    return _set_extremes(images, fraction, uniform_values(images, indices, seed, Stream.IMPULSE_NOISE))


def _speckle_noise(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Multiply by one plus Gaussian noise of standard deviation 0.06 to 0.2."""
    sigma = at_level((0.0, 0.06, 0.1, 0.12, 0.16, 0.2), level)
    return images * (1.0 + sigma * normal_values(images, indices, seed, Stream.SPECKLE_NOISE)).to(images)


NOISES = {
    "gaussian": _gaussian,
    "salt_pepper": _salt_pepper,
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "speckle_noise": _speckle_noise,
}
