"""Pictures as arrays ``(height, width, channels)`` with one channel or three, as a viewer shows them.

Eight bits stay uint8; deeper pictures become float32 in [0, 1]. What has no single meaning is refused: several frames,
transparent pixels without a background, and numbers without a white level.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from resque.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "image_to_array", "open_image", "stack_images"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MOST_PIXELS = 2**26  # a phone's largest picture has 5 · 10^7 pixels
_GRAY = ("1", "L", "LA", "La")
_BITS, _PHOTOMETRIC, _ORIENTATION, _FORMAT = 258, 262, 274, 339  # tags of TIFF
_SIGNED = 2
_BYTES = {"1": 1, "L": 1, "F": 4}  # of a pixel in the array; 3 of a color
_LEVELS = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}  # from a PNG's own numbers to 8 bits


def open_image(file: Any, check: Callable[[int], None] = lambda size: None) -> np.ndarray:
    """Read an image from a path or a binary stream.

    Args:
        file: Path or stream.
        check: Called with the bytes that its values will take, before they are decoded; may raise an error.

    Raises:
        DataError: If it is no image that Pillow can read, or does not show one picture.
    """
    from PIL import Image

    name = file if isinstance(file, str | os.PathLike) else "an encoded image"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about sizes and metadata that are checked here
        with _refusals(name):
            image = Image.open(file)
        with image:
            with _refusals(name):
                _check_pixels(image)
            check(image.width * image.height * _BYTES.get(image.mode, 4 if image.mode.startswith("I") else 3))
            with _refusals(name):
                return image_to_array(image)


@contextmanager
def _refusals(name: Any) -> Iterator[None]:
    """Begin errors with the name of a picture."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name} {error}") from error
    except Exception as error:  # Pillow raises errors of many types on damaged files
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name} is no image that can be read: {type(error).__name__}: {reason}") from error


def image_to_array(image: Any) -> np.ndarray:
    """Convert a Pillow image to a gray ``(h, w, 1)`` or color ``(h, w, 3)`` array, uint8 or float32 in [0, 1].

    Raises:
        DataError: If it is too large, has several frames, transparent pixels, or no white level.

    Example:
        >>> from PIL import Image
        >>> image_to_array(Image.new("P", (5, 4))).shape, image_to_array(Image.new("1", (5, 4))).shape
        ((4, 5, 3), (4, 5, 1))
    """
    from PIL import ImageOps

    _check_pixels(image)
    kind = getattr(image, "format", None)
    if getattr(image, "is_animated", False) and kind != "MPO":  # a camera's picture and its preview
        raise DataError("has several frames; expected one picture: save each frame as a file")
    white, tags, key = _white_level(image, kind), getattr(image, "tag_v2", {}), _transparent_color(image)
    if _SIGNED in tags.get(_FORMAT, ()):
        raise DataError("has signed integers without a white level; expected unsigned ones, or floats in [0, 1]")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)  # else a copy
    if white is not None:
        return _deep_values(image, white, key, zero_is_white=tags.get(_PHOTOMETRIC) == 0)
    if image.mode.endswith(("A", "a")) or (key is None and "transparency" in image.info):
        _check_opaque(image.convert("RGBA").getchannel("A").getextrema()[0] == 255)
    mode = "L" if image.mode in _GRAY else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    array = array[:, :, None] if array.ndim == 2 else array
    _check_opaque(key is None or not (array == key).all(axis=2).any())
    return array


def _check_pixels(image: Any) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise DataError(f"has {image.width}×{image.height} pixels; expected at most {MOST_PIXELS:,}: make it smaller")


def _transparent_color(image: Any) -> np.ndarray | None:
    """Return the color that is transparent in a gray or color picture, in the numbers of its pixels; None without one.

    A PNG has it in numbers of its own depth. Of 16 bits Pillow keeps 8, so what looks like that color is taken for it.
    """
    color = image.info.get("transparency")
    if not isinstance(color, int | tuple) or not (image.mode in ("1", "L", "RGB") or image.mode.startswith("I")):
        return None
    raw = next((tile[3] for tile in getattr(image, "tile", ()) if isinstance(tile[3], str)), "")
    return np.atleast_1d(np.floor(np.multiply(color, _LEVELS.get(raw, 1.0))))


def _white_level(image: Any, kind: str | None) -> float | None:
    """Return the number that stands for white in a picture of more than eight bits; None for others."""
    if image.mode == "F":
        return 1.0
    if image.mode == "I" and kind not in ("PNG", "PPM"):  # of these Pillow may read 16 bits into mode I
        raise DataError("has 32-bit integers without a white level; expected 8 or 16 bits, or floats in [0, 1]")
    if image.mode.startswith("I"):
        (bits, *_) = getattr(image, "tag_v2", {}).get(_BITS, (16,))
        return float(2**bits - 1)
    return None


def _deep_values(image: Any, white: float, key: np.ndarray | None, zero_is_white: bool) -> np.ndarray:
    """Return the pixels as shares of white, float32 ``(h, w, 1)``."""
    pixels = np.asarray(image)
    _check_opaque(key is None or not (pixels == key).any())
    values = pixels.astype(np.float32) / np.float32(white)
    if not (values.min() >= 0.0 and values.max() <= 1.0):  # refuses NaN, too
        raise DataError(f"holds floats from {values.min():g} to {values.max():g}; expected [0, 1], or 8 or 16 bits")
    return (1.0 - values if zero_is_white else values)[:, :, None]


def _check_opaque(opaque: bool) -> None:
    if not opaque:
        raise DataError("has transparent pixels without a background; expected opaque ones: put a background behind")


def stack_images(images: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Stack images of one size, or return a list of images of several; all get the channels and type of the richest.

    Raises:
        DataError: Some have an alpha channel, and some have none.

    Example:
        >>> stack_images([np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5, 3), np.uint8)]).shape
        (2, 4, 5, 3)
    """
    if len({image.shape[2] for image in images}) > 1:
        images = [image.repeat(3, axis=2) if image.shape[2] == 1 else image for image in images]
    if len(channels := sorted({image.shape[2] for image in images})) > 1:
        raise DataError(f"images of {channels[0]} and {channels[-1]} channels cannot be put together; make them alike")
    if len({image.dtype for image in images}) > 1:
        images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
    return np.stack(images) if len({image.shape for image in images}) == 1 else images
