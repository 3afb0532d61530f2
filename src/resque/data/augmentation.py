"""Random augmentation of training images, in batches on the model's device.

The paper's augmentation is a flip with probability 0.5, a rotation by 25° to 45°, another by up to 20°, and a color
jitter of 0.1. As in torchvision, rotations take the nearest pixel and colors change by factors. Images are floats in
[0, 1], before the model's own normalization. Random numbers are PyTorch's, so a seed repeats them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from resque._optional import import_optional
from resque.errors import SettingError

__all__ = ["AUGMENTATIONS", "PAPER", "Augment", "build_augmentation", "check_augmentation"]

AUGMENTATIONS = ("flip", "rotation", "affine", "jitter", "crop")
PAPER = ("flip", "rotation", "affine", "jitter")
Augment = Callable[[Tensor], Tensor]


def check_augmentation(names: Sequence[str]) -> None:
    """Raise SettingError if a name is not in ``AUGMENTATIONS``.

    Example:
        >>> check_augmentation(("flip", "fog"))
        Traceback (most recent call last):
        resque.errors.SettingError: augmentation 'fog': use paper, or some of flip, rotation, affine, jitter, crop
    """
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise SettingError(f"augmentation {unknown[0]!r}: use paper, or some of {', '.join(AUGMENTATIONS)}")


def build_augmentation(names: Sequence[str]) -> Augment | None:
    """Return a function that augments images ``(n, channels, height, width)`` in [0, 1]; None for no names.

    Example:
        >>> import torch
        >>> build_augmentation(("flip", "jitter"))(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """
    if not names:
        return None
    kornia = import_optional("kornia.augmentation", "augment")
    modules: dict[tuple[int, ...], nn.Module] = {}

    def augment(images: Tensor) -> Tensor:
        shape = tuple(images.shape[1:])
        if shape not in modules:
            modules[shape] = nn.Sequential(*(_build_module(kornia, name, images) for name in names))
        augmented: Tensor = modules[shape](images)
        return augmented

    return augment


def _build_module(kornia: Any, name: str, images: Tensor) -> nn.Module:
    color = 0.1 if images.shape[1] == 3 else 0.0  # gray has neither saturation nor hue
    module: nn.Module = {
        "flip": lambda: kornia.RandomHorizontalFlip(p=0.5),
        "rotation": lambda: kornia.RandomRotation((25.0, 45.0), resample="nearest", p=1.0),
        "affine": lambda: kornia.RandomAffine(20.0, resample="nearest", p=1.0),
        "jitter": lambda: kornia.ColorJitter(0.1, 0.1, color, color, p=1.0),
        "crop": lambda: kornia.RandomCrop(tuple(images.shape[-2:]), padding=max(1, images.shape[-1] // 8)),
    }[name]()
    return module
