"""Images as arrays ``(height, width, channels)`` uint8, with one channel or three."""

from typing import Any

import numpy as np

from resque.errors import DataError

__all__ = ["IMAGE_SUFFIXES", "image_to_array", "open_image", "stack_images"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def open_image(file: Any) -> np.ndarray:
    """Read an image from a path or a binary stream.

    Raises:
        DataError: If it is no image that Pillow can read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return image_to_array(image)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read: {error}") from error


def image_to_array(image: Any) -> np.ndarray:
    """Convert a Pillow image to a gray ``(h, w, 1)`` or color ``(h, w, 3)`` array.

    Example:
        >>> from PIL import Image
        >>> image_to_array(Image.new("P", (5, 4))).shape, image_to_array(Image.new("1", (5, 4))).shape
        ((4, 5, 3), (4, 5, 1))
    """
    mode = "L" if image.mode in ("1", "L", "I;16", "I", "F") else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[:, :, None] if array.ndim == 2 else array


def stack_images(images: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Stack images of one size, or return a list of images of several; gray becomes color if only some are gray.

    Example:
        >>> stack_images([np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5, 3), np.uint8)]).shape
        (2, 4, 5, 3)
    """
    if len({image.shape[2] for image in images}) > 1:
        images = [image.repeat(3, axis=2) if image.shape[2] == 1 else image for image in images]
    return np.stack(images) if len({image.shape for image in images}) == 1 else images
