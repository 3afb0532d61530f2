"""Cut color photographs of Debian's packages into patches: "which picture is this patch from?", offline.

A picture is reduced to 640 pixels on its shorter side and laid out in cells of 64 × 64. Patches of the training and of
the test data come from different cells, so that none overlaps one of the other.

    python studies/photographs.py --out studies/cache/photographs
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

FOLDER = Path("/usr/share/backgrounds")
PACKAGES = "lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 mate-backgrounds"
PICTURES = """Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Fossa_by_Jasper_Roks Infinite-Sea_by_Aury88
Kleiber_by_Lukas_Baubkus Picture_0B_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi
greentock_by_Peter_Nerlich friends_by_Aitzol_Berasategi life_by_Aitzol_Berasategi picosdeeuropa_by_Aitzol_Berasategi
seeding_by_Clements_Engelhardt sunset_by_Aitzol_Berasategi umang_by_Abhishek_Mudgal mate/nature/Aqua mate/nature/Dune
mate/nature/Garden mate/nature/LadyBird mate/nature/Storm mate/nature/TwoWings mate/nature/Wood"""
SHORTER_SIDE, CELL, SIDE = 640, 64, 32
SAMPLES = {"train": 200, "test": 60}
"""Patches of each picture."""


def patches(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut the ``(n, 32, 32, 3)`` uint8 patches and ``(n,)`` labels of a part; every third cell is for tests."""
    cut, labels = [], []
    for label, name in enumerate(track(PICTURES.split(), f"photographs, {part}")):
        random = np.random.default_rng([label, len(part)])
        picture = _picture(FOLDER / f"{name}.jpg")
        rows, columns = (length // CELL for length in picture.shape[:2])
        cells = [cell for cell in range(rows * columns) if (cell % 3 == 2) == (part == "test")]
        for cell in random.choice(cells, SAMPLES[part]):
            down, across = CELL * np.array(divmod(cell, columns)) + random.integers(0, CELL - SIDE + 1, 2)
            cut.append(picture[down : down + SIDE, across : across + SIDE])
            labels.append(label)
    order = np.random.default_rng(0).permutation(len(cut))
    return np.stack(cut)[order], np.array(labels)[order]


def _picture(path: Path) -> np.ndarray:
    if not path.is_file():
        raise SystemExit(f"no picture {path}; on Debian: apt-get install {PACKAGES}")
    with Image.open(path) as image:
        scale = SHORTER_SIDE / min(image.size)
        size = round(image.width * scale), round(image.height * scale)
        return np.asarray(image.convert("RGB").resize(size, Image.Resampling.BOX))


def cut(folder: Path) -> None:
    """Write the patches of both parts to a folder, unless they are there."""
    for part in SAMPLES:
        if not (folder / f"{part}.npz").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            images, labels = patches(part)
            np.savez_compressed(folder / f"{part}.npz", x=images, y=labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("studies/cache/photographs"))
    cut(parser.parse_args().out)
