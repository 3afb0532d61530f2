"""Levels 1 to 10 between the published severities: severity s of Hendrycks and Dietterich (2019) is level 2·s."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["at_level", "to_width"]

_REFERENCE_WIDTH = 32  # lengths are defined at this width, that of CIFAR-10-C, and scale with the width


def at_level(published: Sequence[float], level: int) -> float:
    """Interpolate a parameter linearly between severities.

    Args:
        published: The parameter without any effect (severity 0), then at severities 1 to 5.
        level: Level, 1 to 10.

    Example:
        >>> [at_level((0.0, 0.1, 0.2, 0.3, 0.4, 0.8), level) for level in (1, 2, 9, 10)]
        [0.05, 0.1, 0.6000000000000001, 0.8]
    """
    below, odd = divmod(level, 2)
    return published[below] if not odd else (published[below] + published[below + 1]) / 2.0


def to_width(length: float, images: Tensor) -> float:
    """Scale a length that is defined at width 32 to the width of the images, in pixels.

    Example:
        >>> import torch
        >>> to_width(2.0, torch.zeros(1, 3, 16, 16))
        1.0
    """
    return length * images.shape[-1] / _REFERENCE_WIDTH
