"""Preprocessing that a model needs: size, channels and scale of images, tokens of texts.

It is applied batch by batch on the model's device, so that the data in memory stay small. Two profiles are comparable
only if their data had the same preprocessing, so each preprocessing describes itself in words.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from resque._format import format_count
from resque.errors import DataError

__all__ = [
    "NO_PREPROCESSING", "ImagePreprocessing", "Preprocessing", "Tokenization", "as_float", "check_side",
    "convert_channels", "resize",
]  # fmt: skip

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TEXTS = 1024
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class ImagePreprocessing:
    """Preprocessing of images.

    Attributes:
        side: Side of the images in pixels; None keeps their size.
        fixed: Whether all images are resized to ``side``; otherwise only images that differ in size are.
        channels: Number of channels, 1 or 3; None keeps their number.
        mean: Mean of each channel, subtracted from values in [0, 1]; empty for no normalization.
        std: Standard deviation of each channel, by which the difference is divided.

    Example:
        >>> prepare = ImagePreprocessing(side=4, fixed=True, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
        >>> prepare(torch.ones(2, 1, 8, 8)).shape
        torch.Size([2, 3, 4, 4])
        >>> str(prepare)
        'values in [0, 1], channels first, resized to 4 × 4, 3 channels, minus (0.5, 0.5, 0.5) over (0.5, 0.5, 0.5)'
    """

    side: int | None = None
    fixed: bool = False
    channels: int | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, images: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Preprocess a batch of images; return other inputs unchanged.

        Args:
            images: Images in [0, 1], ``(n, channels, height, width)``.
            augment: Augmentation of the resized images, before normalization.
        """
        if images.ndim != 4:
            return images
        images = convert_channels(images, self.channels) if self.channels else images
        if self.fixed and self.side and images.shape[-2:] != (self.side, self.side):
            images = resize(images, self.side)
        images = augment(images) if augment else images
        if not self.mean:
            return images
        return (images - _by_channel(self.mean, images.device)) / _by_channel(self.std, images.device)

    def __str__(self) -> str:
        words = ["values in [0, 1], channels first"]
        if self.fixed and self.side:
            words.append(f"resized to {self.side} × {self.side}")
        if self.channels:
            words.append(format_count(self.channels, "channel"))
        if self.mean:
            words.append(f"minus {self.mean} over {self.std}")
        return ", ".join(words)


NO_PREPROCESSING = ImagePreprocessing()


@dataclass(frozen=True)
class Tokenization:
    """Preprocessing of texts.

    Attributes:
        tokenizer: Tokenizer of transformers.
        name: Name or path of the tokenizer.
        max_length: Largest number of tokens; longer texts are truncated.
    """

    tokenizer: Any
    name: str
    max_length: int

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the tokenizer's outputs, such as token ids, each ``(n, tokens)``, padded to the longest text."""
        parts: list[dict[str, list[Any]]] = []
        for start in range(0, len(texts), _TEXTS):
            batch = list(texts[start : start + _TEXTS])
            parts.append(self.tokenizer(batch, truncation=True, max_length=self.max_length).data)
        joined = {key: [row for part in parts for row in part[key]] for key in parts[0]}
        padded = self.tokenizer.pad(joined, padding="longest", return_tensors="pt")
        return {key: padded[key] for key in joined}

    def __str__(self) -> str:
        return f"tokens of {self.name}, at most {self.max_length}"


Preprocessing = ImagePreprocessing | Tokenization


def as_float(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [0, 1]; return others unchanged.

    Example:
        >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
        tensor([0.0000, 0.2000, 1.0000])
    """
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def check_side(side: int, spec: str) -> None:
    """Raise DataError unless ``side`` is a possible size of images in pixels."""
    if not 1 <= side <= _LARGEST_SIDE:
        raise DataError(f"{spec}: expected 1 to {_LARGEST_SIDE} pixels a side, e.g. @32px")


def resize(images: Tensor, side: int) -> Tensor:
    """Resize images to ``side`` × ``side`` pixels (bilinear, antialiased), with values in [0, 1].

    Example:
        >>> resize(torch.zeros(2, 3, 9, 7), 4).shape
        torch.Size([2, 3, 4, 4])
    """
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp(0.0, 1.0)


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Convert images to 1 channel (luma, ITU-R BT.601) or 3 channels; an alpha channel is dropped.

    Raises:
        DataError: If the images have not 1, 3 or 4 channels, or ``channels`` is not 1 or 3.

    Example:
        >>> convert_channels(torch.ones(1, 4, 2, 2), 1).shape, convert_channels(torch.ones(1, 1, 2, 2), 3).shape
        (torch.Size([1, 1, 2, 2]), torch.Size([1, 3, 2, 2]))
    """
    given = images.shape[1]
    if channels not in (1, 3) or given not in (1, 3, 4):
        raise DataError(f"cannot make {channels} channels of {given}; expected 1 or 3 of 1, 3 or 4")
    if given == channels:
        return images
    if given == 1:
        return images.expand(-1, channels, -1, -1)
    if channels == 3:
        return images[:, :3]
    return (images[:, :3] * _by_channel(_LUMA, images.device)).sum(1, keepdim=True)


@functools.lru_cache(maxsize=64)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return one value for each channel, shaped for images; kept, because a copy to the device waits for it."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(1, -1, 1, 1)
