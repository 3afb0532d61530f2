"""Blurs: each pixel becomes a mean of pixels around it, with weights that sum to one. Lengths scale with the width."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from resque.data.corruptions.draws import Stream, uniform_draws
from resque.data.corruptions.resampling import gaussian_filter, magnification, resample
from resque.data.corruptions.severities import at_level, to_width

__all__ = ["BLURS", "streak"]

_DIRECTIONS = ((0, 1), (1, 0), (1, 1))  # glass swaps a pixel with the next one to the right, below, or both


def _blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Apply a Gaussian blur of 0.2 × level pixels at width 32."""
    sigma = to_width(0.2 * level, images)
    reach = max(1, math.ceil(4 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    rows, columns = kernel.reshape(1, 1, -1, 1), kernel.reshape(1, 1, 1, -1)
    for weight, pad in ((rows, (0, 0, reach, reach)), (columns, (reach, reach, 0, 0))):
        padded = F.pad(images, pad, mode="replicate")
        images = F.conv2d(padded, weight.expand(channels, 1, -1, -1), groups=channels)
    return images


def _gaussian_blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Apply a Gaussian blur of 0.4 to 1 pixels at width 32."""
    return gaussian_filter(images, to_width(at_level((0.0, 0.4, 0.6, 0.7, 0.8, 1.0), level), images))


def _defocus_blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Average over a disc with soft edges; at width 32 its variance is that of the published kernel."""
    radius = 0.5 + to_width(at_level((0.0, 0.048, 0.186, 0.43, 0.5, 1.08), level), images)
    reach, channels = math.ceil(radius), images.shape[1]
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    disc = (radius + 0.5 - torch.hypot(offsets[:, None], offsets[None, :])).clamp(0.0, 1.0)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(padded, (disc / disc.sum()).expand(channels, 1, -1, -1), groups=channels)


def _glass_blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Blur, swap pixels at random with near ones once or twice, and blur again.

    A pixel swaps with the one to the right, below, or both, or with none, each with equal probability. Pairs that do
    not overlap swap together, where the paper goes from pixel to pixel. Level 10 is severity 5 of the paper. Its lower
    severities trade rounds of swaps for blur, and are not ordered; here both shrink evenly to level 1.
    """
    sigma, rounds = to_width(0.04 * level, images), 0.2 * level
    images = gaussian_filter(images, sigma)
    height, width = images.shape[-2:]
    distances = max(1, round(to_width(1.0, images)))
    draws = uniform_draws(indices.to(images.device), seed, Stream.GLASS_BLUR, 2 * height * width)
    for turn, each in enumerate(draws.reshape(-1, 2, height, width).unbind(1)):
        share = min(1.0, rounds - turn)
        if share > 0.0:
            images = _swap_neighbors(images, (each / share * 4 * distances).long(), distances)
    return gaussian_filter(images, sigma)


def _swap_neighbors(images: Tensor, choice: Tensor, distances: int) -> Tensor:
    """Swap each pixel with the one that its choice names: ``3 · (distance - 1) + direction``, or none beyond."""
    height, width = images.shape[-2:]
    y, x = torch.arange(height, device=images.device)[:, None], torch.arange(width, device=images.device)[None, :]
    images = images.clone()
    for number in range(3 * distances):
        distance, direction = number // 3 + 1, _DIRECTIONS[number % 3]
        down, right = (distance * step for step in direction)
        first, second = images[..., : height - down, : width - right], images[..., down:, right:]
        stripe = ((y if down else x) // distance % 2)[: height - down, : width - right]
        chosen = (choice == number)[:, None, : height - down, : width - right]
        for parity in (0, 1):
            moved = torch.where(chosen & (stripe == parity), second - first, 0.0)
            first += moved
            second -= moved
    return images


def _motion_blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Smear along a line within 45° of the horizontal, a half Gaussian of 1 to 2.5 pixels at width 32.

    Severity 4 of the paper differs from severity 3 only in the length at which the kernel is cut; here it is halfway
    between its neighbors.
    """
    sigma = to_width(at_level((0.0, 1.0, 1.5, 2.0, 2.25, 2.5), level), images)
    turn = uniform_draws(indices.to(images.device), seed, Stream.MOTION_BLUR)[:, 0]
    reach = math.ceil(3.5 * sigma) + 1
    smeared = streak(F.pad(images, (reach,) * 4, mode="replicate"), (turn - 0.5) * (math.pi / 2.0), sigma, reach)
    return smeared[..., reach:-reach, reach:-reach]


def streak(images: Tensor, angle: Tensor, sigma: float, taps: int) -> Tensor:
    """Smear images along a line, each along its own; what leaves at one border enters at the other.

    Args:
        images: Images, ``(n, channels, height, width)``.
        angle: Direction in radians, clockwise from the right, ``(n,)``.
        sigma: Standard deviation of the half Gaussian along the line, in pixels.
        taps: Points on the line, a pixel apart.

    Example:
        >>> streak(torch.eye(4)[None, None], torch.zeros(1), 1.0, 3).sum(-1).round(decimals=4)
        tensor([[[1., 1., 1., 1.]]])
    """
    height, width = images.shape[-2:]
    along = torch.arange(taps, device=images.device, dtype=images.dtype)
    weight = torch.exp(-0.5 * (along / sigma) ** 2)
    weight = (weight / weight.sum()).expand(len(images), taps)
    angle = angle.to(images)[:, None]
    x, y = along * torch.cos(angle), along * torch.sin(angle)
    left, top = x.floor(), y.floor()
    kernel = torch.zeros(len(images), height * width, device=images.device, dtype=images.dtype)
    for right in (0, 1):
        for down in (0, 1):
            share = (x - left if right else 1.0 - x + left) * (y - top if down else 1.0 - y + top)
            place = (top + down).long() % height * width + (left + right).long() % width
            kernel.scatter_add_(1, place, weight * share)
    spectrum = torch.fft.rfft2(images) * torch.fft.rfft2(kernel.reshape(-1, 1, height, width))
    smeared: Tensor = torch.fft.irfft2(spectrum, s=(height, width))
    return smeared


def _zoom_blur(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Average the image with itself magnified by 1.00, 1.01, … up to 1.05 to 1.25."""
    height, width = images.shape[-2:]
    steps = round(100 * at_level((0.0, 0.05, 0.10, 0.15, 0.20, 0.25), level) + 1e-9)
    total = images.clone()
    for step in range(steps + 1):
        factor = 1.0 + 0.01 * step
        rows = magnification(height, height, factor, images.device)
        total += resample(images, rows, magnification(width, width, factor, images.device))
    return total / (steps + 2)


BLURS = {
    "blur": _blur,
    "gaussian_blur": _gaussian_blur,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
}
