"""Sampling of images between their pixels: along rows and columns by matrices, or at displaced positions.

Beyond the border the nearest pixel counts, so that a constant image stays constant.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["centered", "gaussian_filter", "magnification", "resample", "warp"]


def resample(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Multiply rows and columns of images by weights ``(new, old)``.

    Example:
        >>> halves = torch.tensor([[0.5, 0.5]])
        >>> resample(torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]]), halves, halves)
        tensor([[[[0.7500]]]])
    """
    return rows.to(images) @ images @ columns.to(images).T


def magnification(size: int, new_size: int, factor: float, device: torch.device) -> Tensor:
    """Return linear interpolation weights ``(new_size, size)`` that magnify around the center.

    Args:
        size: Pixels along the axis.
        new_size: Pixels after it.
        factor: How many new pixels an old one becomes.
        device: Device of the weights.

    Example:
        >>> magnification(3, 3, 2.0, torch.device("cpu"))
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 1.0000, 0.0000],
                [0.0000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    old = torch.arange(size, device=device, dtype=torch.float64)
    positions = (torch.arange(new_size, device=device) - (new_size - 1) / 2.0) / factor + (size - 1) / 2.0
    return (1.0 - (positions.double().clamp(0.0, size - 1.0)[:, None] - old[None, :]).abs()).clamp(min=0.0)


def gaussian_filter(images: Tensor, sigma: float) -> Tensor:
    """Apply a Gaussian filter, cut at four standard deviations.

    Args:
        images: Images, ``(n, channels, height, width)``.
        sigma: Standard deviation in pixels.

    Example:
        >>> gaussian_filter(torch.ones(1, 1, 3, 3), 0.5).allclose(torch.ones(1, 1, 3, 3))
        True
    """
    rows, columns = (_gaussian_weights(size, sigma, images.device) for size in images.shape[-2:])
    return resample(images, rows, columns)


def _gaussian_weights(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return the filter's weights ``(size, size)`` along an axis; what lies beyond a border falls to its pixel."""
    reach = max(1, math.ceil(4 * sigma))
    offsets = torch.arange(-reach, reach + 1, device=device)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    place = (torch.arange(size, device=device)[:, None] + offsets).clamp(0, size - 1)
    weights = torch.zeros(size, size, device=device, dtype=torch.float64)
    return weights.scatter_add_(1, place, (kernel / kernel.sum()).expand(size, -1))


def centered(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' distances to the right of and below the center, ``(1, width)`` and ``(height, 1)``.

    Example:
        >>> centered(torch.zeros(1, 1, 2, 3))
        (tensor([[-1.,  0.,  1.]]), tensor([[-0.5000],
                [ 0.5000]]))
    """
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2.0
    y = torch.arange(height, device=images.device) - (height - 1) / 2.0
    return x[None, :], y[:, None]


def warp(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Take each pixel from a displaced position, bilinear.

    Args:
        images: Images, ``(n, channels, height, width)``.
        right: How many pixels farther to the right to look, broadcast to ``(n, height, width)``.
        down: How many pixels farther down to look.

    Example:
        >>> warp(torch.tensor([[[[1.0, 2.0, 3.0]]]]), torch.tensor(1.0), torch.tensor(0.0))
        tensor([[[[2., 3., 3.]]]])
    """
    x, y = centered(images)
    height, width = images.shape[-2:]
    shape = (len(images), height, width)
    grid = torch.stack([((x + right) * (2.0 / width)).expand(shape), ((y + down) * (2.0 / height)).expand(shape)], -1)
    return F.grid_sample(images, grid.to(images), padding_mode="border", align_corners=False)
