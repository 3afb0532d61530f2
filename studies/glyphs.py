"""Render letters and digits from the free fonts of Debian's packages: small tasks in five alphabets, offline.

Each sample is one character in one font, slightly rotated, slanted, scaled and moved, white on black, 28 × 28 pixels.
Sample i of every style of an alphabet is the same character under the same distortion. So two styles are one dataset in
two renderings. The test data use other font families than the training data.

    python studies/glyphs.py --out studies/cache/glyphs
"""

import argparse
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

FONTS = Path("/usr/share/fonts")
ALPHABETS = {
    "upper": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "lower": "abcdefghijklmnopqrstuvwxyz",
    "numerals": "0123456789",
    "greek": "αβγδεζηθικλμνξοπρστυφχψω",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюя",
}
SAMPLES = {"train": 4000, "test": 1500}
STYLES: dict[str, dict[str, tuple[str, ...]]] = {
    "sans": {
        "train": (
            "truetype/dejavu/DejaVuSans.ttf",
            "truetype/liberation/LiberationSans-Regular.ttf",
            "truetype/open-sans/OpenSans-Regular.ttf",
            "truetype/crosextra/Carlito-Regular.ttf",
            "opentype/cantarell/Cantarell-Regular.otf",
            "opentype/inter/Inter-Regular.otf",
        ),
        "test": (
            "truetype/noto/NotoSans-Regular.ttf",
            "truetype/freefont/FreeSans.ttf",
            "opentype/jura/Jura-Medium.otf",
        ),
    },
    "bold": {
        "train": (
            "truetype/dejavu/DejaVuSans-Bold.ttf",
            "truetype/liberation/LiberationSans-Bold.ttf",
            "truetype/open-sans/OpenSans-ExtraBold.ttf",
            "truetype/crosextra/Carlito-Bold.ttf",
            "opentype/cantarell/Cantarell-ExtraBold.otf",
            "opentype/inter/Inter-Black.otf",
        ),
        "test": (
            "truetype/noto/NotoSans-Bold.ttf",
            "truetype/freefont/FreeSansBold.ttf",
            "opentype/jura/Jura-Bold.otf",
        ),
    },
    "mono": {
        "train": (
            "truetype/dejavu/DejaVuSansMono.ttf",
            "truetype/liberation/LiberationMono-Regular.ttf",
            "truetype/jetbrains-mono/JetBrainsMono-Regular.ttf",
            "truetype/croscore/Cousine-Regular.ttf",
        ),
        "test": ("truetype/hack/Hack-Regular.ttf", "truetype/freefont/FreeMono.ttf"),
    },
    "serif": {
        "train": (
            "truetype/dejavu/DejaVuSerif.ttf",
            "truetype/liberation/LiberationSerif-Regular.ttf",
            "truetype/fonts-oldstandard/OldStandard-Regular.ttf",
            "opentype/linux-libertine/LinLibertine_R.otf",
            "opentype/ebgaramond/EBGaramond12-Regular.otf",
        ),
        "test": ("truetype/noto/NotoSerif-Regular.ttf", "truetype/freefont/FreeSerif.ttf"),
    },
    "italic": {
        "train": (
            "truetype/dejavu/DejaVuSerif-Italic.ttf",
            "truetype/liberation/LiberationSerif-Italic.ttf",
            "truetype/fonts-oldstandard/OldStandard-Italic.ttf",
            "opentype/linux-libertine/LinLibertine_RI.otf",
            "opentype/ebgaramond/EBGaramond12-Italic.otf",
        ),
        "test": ("truetype/noto/NotoSerif-Italic.ttf", "truetype/freefont/FreeSerifItalic.ttf"),
    },
}
PACKAGES = """fonts-cantarell fonts-croscore fonts-crosextra-carlito fonts-dejavu fonts-ebgaramond fonts-freefont-ttf
fonts-hack fonts-inter fonts-jetbrains-mono fonts-jura fonts-liberation fonts-linuxlibertine fonts-noto-core
fonts-oldstandard fonts-open-sans"""
SIDE, FINE = 28, 4
EM = 20


def alphabet(name: str, style: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Render the ``(n, 28, 28)`` uint8 glyphs and ``(n,)`` labels of an alphabet; style ``"any"`` uses every font."""
    styles = list(STYLES) if style == "any" else [style]
    fonts = [_font(path) for each in styles for path in STYLES[each][part]]
    characters, n = ALPHABETS[name], SAMPLES[part]
    random = np.random.default_rng([ord(character) for character in name + part])
    drawn = random.random((n, 6))
    labels = np.arange(n) % len(characters)
    images = [
        _glyph(characters[label], fonts[int(row[0] * len(fonts))], row[1:])
        for label, row in zip(labels, drawn, strict=True)
    ]
    return np.stack(images), labels


def _font(path: str) -> ImageFont.FreeTypeFont:
    place = FONTS / path
    if not place.is_file():
        raise SystemExit(f"no font {place}; on Debian: apt-get install {' '.join(PACKAGES.split())}")
    return ImageFont.truetype(str(place), EM * FINE)


def _glyph(character: str, font: ImageFont.FreeTypeFont, drawn: Sequence[float]) -> np.ndarray:
    """Render one character, distorted by five numbers in (0, 1): angle, slant, size, place across and down."""
    side = SIDE * FINE
    image = Image.new("L", (side, side))
    ImageDraw.Draw(image).text((side / 2, side / 2 + EM * FINE / 3), character, fill=255, font=font, anchor="ms")
    angle, slant = math.radians(30.0 * (drawn[0] - 0.5)), 0.5 * (drawn[1] - 0.5)
    scale = 1.0 / (0.75 + 0.5 * drawn[2])
    a, b = scale * math.cos(angle), scale * (math.sin(angle) + slant)
    c, d = -scale * math.sin(angle), scale * math.cos(angle)
    x, y = ((0.5 + 0.2 * (place - 0.5)) * side for place in drawn[3:5])
    matrix = (a, b, side / 2 - a * x - b * y, c, d, side / 2 - c * x - d * y)
    moved = image.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.array(moved.resize((SIDE, SIDE), Image.Resampling.BOX))


def render(specs: Iterable[str]) -> None:
    """Render the glyphs that data specifications name and that do not exist yet."""
    matches = (re.match(r"npz:(.+/(\w+)-(\w+)-(train|test)\.npz)", spec) for spec in specs)
    missing = {match[1]: match for match in matches if match and not Path(match[1]).is_file()}
    for place, match in track(missing.items(), "glyphs", disable=not missing):
        images, labels = alphabet(match[2], match[3], match[4])
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(place, x=images, y=labels)


def main() -> None:
    """Render every alphabet in every style."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("studies/cache/glyphs"))
    options = parser.parse_args()
    names = itertools.product(ALPHABETS, (*STYLES, "any"), SAMPLES)
    render(f"npz:{options.out}/{name}-{style}-{part}.npz" for name, style, part in names)


if __name__ == "__main__":
    main()
