"""Random changes of training images, many at once on the model's device, each sample its own.

The paper's: a flip in half of the cases, a rotation by 25° to 45°, a turn by up to 20°, colours by a tenth, in the
forms of torchvision: the nearest pixel, colours by factors. Images are floats in [0, 1], before the model's own
normalisation. Random numbers are torch's, so a seed repeats them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from resque._optional import import_optional
from resque.errors import SettingError

AUGMENTATIONS = ("flip", "rotation", "affine", "jitter", "crop")
PAPER = ("flip", "rotation", "affine", "jitter")
Augment = Callable[[Tensor], Tensor]
_PADDING = 8


def check_augmentation(names: Sequence[str]) -> None:
    """Refuse a name that there is not."""
    unknown = [name for name in names if name not in AUGMENTATIONS]
    if unknown:
        raise SettingError(f"augmentation {unknown[0]!r}: use paper, or some of {', '.join(AUGMENTATIONS)}")


def build_augmentation(names: Sequence[str]) -> Augment | None:
    """A function of a batch ``(n, channels, height, width)`` in [0, 1]; None for no names.

    Example:
        >>> import torch
        >>> build_augmentation(("flip", "jitter"))(torch.rand(4, 3, 8, 8)).shape
        torch.Size([4, 3, 8, 8])
    """
    if not names:
        return None
    kornia = import_optional("kornia.augmentation", "augment")
    made: dict[tuple[int, ...], nn.Module] = {}

    def augment(images: Tensor) -> Tensor:
        shape = tuple(images.shape[1:])
        if shape not in made:
            made[shape] = nn.Sequential(*(_made(kornia, name, images) for name in names))
        changed: Tensor = made[shape](images)
        return changed

    return augment


def _made(kornia: Any, name: str, images: Tensor) -> nn.Module:
    channels, side = images.shape[1], images.shape[-1]
    colour = 0.1 if channels == 3 else 0.0  # gray has neither saturation nor hue
    made: nn.Module = {
        "flip": lambda: kornia.RandomHorizontalFlip(p=0.5),
        "rotation": lambda: kornia.RandomRotation((25.0, 45.0), resample="nearest", p=1.0),
        "affine": lambda: kornia.RandomAffine(20.0, resample="nearest", p=1.0),
        "jitter": lambda: kornia.ColorJitter(0.1, 0.1, colour, colour, p=1.0),
        "crop": lambda: kornia.RandomCrop(tuple(images.shape[-2:]), padding=max(1, side // _PADDING)),
    }[name]()
    return made
