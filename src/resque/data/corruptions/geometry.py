"""Changes of place: pixels move, or are covered. Beyond the border the nearest pixel counts."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from resque.data.corruptions.draws import Stream, uniform_draws, uniform_values
from resque.data.corruptions.resampling import centered, gaussian_filter, magnification, resample, warp
from resque.data.corruptions.severities import to_width

__all__ = ["GEOMETRY"]


def _rotation(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Rotate by 6° × level."""
    angle, aspect = math.radians(6.0 * level), images.shape[-2] / images.shape[-1]
    cosine, sine = math.cos(angle), math.sin(angle)
    matrix = [[cosine, -sine * aspect, 0.0], [sine / aspect, cosine, 0.0]]
    theta = torch.tensor(matrix, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _direction(images: Tensor, indices: Tensor, seed: int, stream: int) -> tuple[Tensor, Tensor]:
    """Draw a direction for each image, right and down of a unit vector, ``(n, 1, 1)``."""
    angle = 2.0 * math.pi * uniform_draws(indices.to(images.device), seed, stream)[:, :, None]
    return torch.cos(angle), torch.sin(angle)


def _translation(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Move the image by 2.5 % × level of its width, in a random direction."""
    right, down = _direction(images, indices, seed, Stream.TRANSLATION)
    length = 0.025 * level * images.shape[-1]
    return warp(images, -length * right, -length * down)


def _perspective(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Tilt the image away in a random direction; depth changes by 5 % × level from center to border."""
    x, y = centered(images)
    right, down = _direction(images, indices, seed, Stream.PERSPECTIVE)
    height, width = images.shape[-2:]
    depth = 1.0 + 0.05 * level * (right * x * (2.0 / width) + down * y * (2.0 / height))
    return warp(images, x / depth - x, y / depth - y)


def _shear(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Move each row sideways by 6 % × level of its distance to the center."""
    _, y = centered(images)
    return warp(images, 0.06 * level * y, torch.zeros_like(y))


def _zoom_in(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Enlarge the center by 10 % × level."""
    return _magnify(images, 1.0 + 0.1 * level)


def _zoom_out(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Shrink the image to 1 / (1 + 0.1 × level) of its size."""
    return _magnify(images, 1.0 / (1.0 + 0.1 * level))


def _magnify(images: Tensor, factor: float) -> Tensor:
    """Magnify around the center."""
    height, width = images.shape[-2:]
    rows = magnification(height, height, factor, images.device)
    return resample(images, rows, magnification(width, width, factor, images.device))


def _elastic(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Bend the image: smooth random displacements, and a random affine map.

    Level 10 is severity 5 of the paper. Its lower severities trade bending for a larger affine map, and are not
    ordered; here both shrink evenly to level 1.
    """
    amplitude, corner = to_width(0.32 * level, images), to_width(0.096 * level, images)
    sigma = to_width(0.96, images)
    fields = (
        gaussian_filter(2.0 * uniform_values(images[:, :1], indices, seed, stream) - 1.0, sigma)[:, 0]
        for stream in (Stream.ELASTIC_RIGHT, Stream.ELASTIC_DOWN)
    )
    draws = 2.0 * uniform_draws(indices.to(images.device), seed, Stream.ELASTIC_CORNERS, 6) - 1.0
    x, y = centered(images)
    third = max(1, min(images.shape[-2:]) // 3)
    displacements = []
    for field, corners in zip(fields, corner * draws.reshape(-1, 2, 3, 1, 1).transpose(0, 1), strict=True):
        first, second, last = corners.unbind(1)  # of the points (third, third), (third, -third), (-third, -third)
        affine = (first + last) / 2.0 + (x * (second - last) + y * (first - second)) / (2.0 * third)
        displacements.append(amplitude * field + affine)
    return warp(images, *displacements)


def _occlusion(images: Tensor, level: int, indices: Tensor, seed: int) -> Tensor:
    """Cover a square at a random place with gray; its side is 6 % × level of the image's shorter one."""
    height, width = images.shape[-2:]
    side = max(1, round(0.06 * level * min(height, width)))
    draws = uniform_draws(indices.to(images.device), seed, Stream.OCCLUSION, 2)
    top, left = ((draws[:, axis] * (size - side + 1)).long()[:, None] for axis, size in enumerate((height, width)))
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], 0.5, images)


GEOMETRY = {
    "rotation": _rotation,
    "translation": _translation,
    "perspective": _perspective,
    "shear": _shear,
    "zoom_in": _zoom_in,
    "zoom_out": _zoom_out,
    "elastic": _elastic,
    "occlusion": _occlusion,
}
