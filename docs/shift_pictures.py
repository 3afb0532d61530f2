"""Make the picture of the image corruptions: a digit and a photograph under each of them, from scikit-learn's data.

make pictures
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image
from torch import Tensor

from resque import load_data
from resque.data.corruptions import IMAGE_CORRUPTIONS
from resque.data.shifts import parse_shift
from resque.errors import DataError

PICTURE = Path(__file__).parent / "images" / "shift-types.png"
LEVEL, COLUMNS, ENLARGED = 6, 6, 2
SIDE, GAP, CAPTION = 32, 10, 14
DIGIT, INDEX = 4, 0  # the digit that is shown; the index that seeds the noise
MAX_COLORS = 256


def photograph() -> Tensor:
    """Return a small square photograph."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)[None].float() / 255.0
    return F.interpolate(pixels[..., 40:400, 120:480], size=(SIDE, SIDE), mode="area")


def corrupted(image: Tensor, shift_type: str) -> Image.Image | None:
    """Return an image under a shift, enlarged; None if the shift does not apply to it."""
    try:
        values = parse_shift(f"{shift_type}:{LEVEL}")(image, indices=torch.tensor([INDEX]), seed=0)
    except DataError:
        return None
    return enlarged(values)


def enlarged(image: Tensor) -> Image.Image:
    """Return an image of a batch of one as a picture."""
    pixels = (image[0].expand(3, -1, -1) * 255.0).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.repeat(ENLARGED, 0).repeat(ENLARGED, 1))


def contact_sheet(images: list[Tensor]) -> Image.Image:
    """Return all images under all shift types, with their names."""
    rows = -(-(len(IMAGE_CORRUPTIONS) + 1) // COLUMNS)
    side = SIDE * ENLARGED
    width, height = len(images) * side + GAP, side + CAPTION + GAP
    sheet = Image.fromarray(np.full((rows * height + GAP, COLUMNS * width + GAP, 3), 255, dtype=np.uint8))
    draw = ImageDraw.Draw(sheet)
    for number, name in enumerate(["original", *IMAGE_CORRUPTIONS]):
        left, top = GAP + number % COLUMNS * width, GAP + number // COLUMNS * height
        draw.text((left, top), name, fill=(0, 0, 0))
        for place, image in enumerate(images):
            tile = enlarged(image) if number == 0 else corrupted(image, name)
            if tile is not None:
                sheet.paste(tile, (left + place * side, top + CAPTION))
    return sheet


def main() -> None:
    """Write the picture."""
    sheet = contact_sheet([load_data("digits@32px").images[DIGIT : DIGIT + 1], photograph()])
    sheet.quantize(MAX_COLORS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
