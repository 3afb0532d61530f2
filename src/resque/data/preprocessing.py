"""How samples become what a model takes: images to its size, channels and scale, texts to its tokens.

Applied batch by batch on the model's device, so that what stays in memory is small. Two profiles are comparable only
when their data were prepared alike, so each preprocessing says in words what it does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from resque.errors import DataError

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_TEXTS = 1024


@dataclass(frozen=True)
class ImagePreprocessing:
    """What a model wants of an image.

    Attributes:
        side: Pixels a side; None takes images as they are.
        fixed: Whether the model takes no other size; else ``side`` is used only for images that differ in size.
        channels: 1 or 3; None takes images as they are.
        mean: Per channel, subtracted from values in [0, 1]; empty for none.
        std: Per channel, divided by.

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
        """Prepare a batch ``(n, channels, height, width)`` in [0, 1]; anything that is no image stays as it is.

        Args:
            images: The batch.
            augment: Done to images of the model's size, before they are normalised.
        """
        if images.ndim != 4:
            return images
        images = convert_channels(images, self.channels) if self.channels else images
        if self.fixed and self.side and images.shape[-2:] != (self.side, self.side):
            images = resize(images, self.side)
        images = augment(images) if augment else images
        if not self.mean:
            return images
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def __str__(self) -> str:
        said = ["values in [0, 1], channels first"]
        if self.fixed and self.side:
            said.append(f"resized to {self.side} × {self.side}")
        if self.channels:
            said.append(f"{self.channels} channel{'s' * (self.channels > 1)}")
        if self.mean:
            said.append(f"minus {self.mean} over {self.std}")
        return ", ".join(said)


NO_PREPROCESSING = ImagePreprocessing()


@dataclass(frozen=True)
class Tokenization:
    """What a text classifier wants of a text.

    Attributes:
        tokenizer: Of transformers.
        name: Where it comes from.
        max_length: Tokens at most; longer texts are cut.
    """

    tokenizer: Any
    name: str
    max_length: int

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids and what else the tokenizer gives, each ``(n, tokens)``, padded to the longest text."""
        parts: list[dict[str, list[Any]]] = []
        for start in range(0, len(texts), _TEXTS):
            batch = list(texts[start : start + _TEXTS])
            parts.append(self.tokenizer(batch, truncation=True, max_length=self.max_length).data)
        joined = {key: [row for part in parts for row in part[key]] for key in parts[0]}
        padded = self.tokenizer.pad(joined, padding="longest", return_tensors="pt")
        return {key: padded[key] for key in joined}

    def __str__(self) -> str:
        return f"tokens of {self.name}, at most {self.max_length}"


def resize(images: Tensor, side: int) -> Tensor:
    """Every image ``side`` × ``side`` pixels (bilinear, antialiased), values still in [0, 1]."""
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True).clamp(0.0, 1.0)


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Gray as three equal channels, or colour as its luma; an alpha channel is dropped.

    Example:
        >>> convert_channels(torch.ones(1, 4, 2, 2), 1).shape, convert_channels(torch.ones(1, 1, 2, 2), 3).shape
        (torch.Size([1, 1, 2, 2]), torch.Size([1, 3, 2, 2]))
    """
    own = images.shape[1]
    if channels not in (1, 3) or own not in (1, 3, 4):
        raise DataError(f"cannot make {channels} channels of {own}; expected 1 or 3 of 1, 3 or 4")
    if own == channels:
        return images
    if own == 1:
        return images.expand(-1, channels, -1, -1)
    weights = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return images[:, :3] if channels == 3 else (images[:, :3] * weights).sum(1, keepdim=True)
