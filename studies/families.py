"""Measure one update for each model family and each data source, through the command line.

All image sources hold the same photographs, Fashion-MNIST's: as idx files, in an archive, in folders of PNG files, in
Parquet, in a Hugging Face dataset on disk, in torchvision's layout, and behind a user's own callable. A text classifier
gets synthetic texts. Each update has two epochs of a few hundred samples, enough to measure every cost. A dash marks a
cost that was not measured.

    python studies/families.py --out studies/results/families.md
"""

import argparse
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from PIL import Image

FASHION = Path("/usr/share/datasets/fashion-mnist")
SAMPLES = 240
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
GOOD, BAD = ["bright", "great", "fine", "warm", "clear"], ["dull", "poor", "grim", "cold", "murky"]
USER_CODE = """
import numpy as np
import torch

class Pairs(torch.utils.data.Dataset):
    def __init__(self):
        arrays = np.load("d.npz")
        self.x, self.y = arrays["x"], arrays["y"]
    def __len__(self):
        return len(self.y)
    def __getitem__(self, row):
        return self.x[row], int(self.y[row])
"""
UPDATES = [
    # model, training data, test data, recipe
    ("resque.networks:small_cnn", "idx:{idx}@train", "idx:{idx}@test", "train-adam"),
    ("resque.networks:resnet18", "npz:d.npz@rgb@32px@train", "npz:d.npz@rgb@32px@test", "retrain-adam"),
    ("resque.networks:vgg16", "mine.py:Pairs@rgb@32px@train", "mine.py:Pairs@rgb@32px@test", "retrain-adam"),
    ("resque.networks:vit", "npz:d.npz@rgb@32px@train", "npz:d.npz@rgb@32px@test", "retrain-sgd,trains=lora"),
    ("timm:resnet10t", "folder:pictures@64px@train", "folder:pictures@64px@test", "retrain-adam,augmentation=paper"),
    ("timm:vit_tiny_patch16_224", "parquet:d.parquet@train", "parquet:d.parquet@test", "retrain-adam,trains=head"),
    ("torchvision:resnet18", "torchvision:FashionMNIST", "torchvision:FashionMNIST:test", "retrain-sgd"),
    ("torchvision:mobilenet_v3_small", "hf:hub:train", "hf:hub:test", "retrain-adam,optimizer=adamw"),
    ("hf:vit", "hf:hub:train", "hf:hub:test", "train-adam,schedule=cosine"),
    ("hf:bert", "parquet:texts.parquet@train", "parquet:texts.parquet@test", "train-adam,trains=lora"),
]
COSTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "epochs": lambda u: u["cost"]["epochs"],
    "steps": lambda u: u["cost"]["steps"],
    "samples": lambda u: u["cost"]["samples"],
    "gradient norm": lambda u: u["cost"]["gradient_norm"],
    "of last batches": lambda u: u["cost"]["gradient_norm_last_batch"],
    "parameter change": lambda u: u["cost"]["parameter_change"],
    "training [s]": lambda u: u["cost"]["wall_s"],
    "evaluation [s]": lambda u: u["evaluation_s"],
    "GFLOP": lambda u: u["cost"]["flops"] and u["cost"]["flops"] / 1e9,
    "energy [Wh]": lambda u: u["cost"]["energy_kwh"] and u["cost"]["energy_kwh"] * 1e3,
    "of which": lambda u: ", ".join(f"{name} {how}" for name, how in u["energy"]["methods"].items()),
    "CO2e [g]": lambda u: u["cost"]["carbon_kg"] and u["cost"]["carbon_kg"] * 1e3,
    "SCI [g an update]": lambda u: u["sci"] and "{per_update_low_g:.2g}–{per_update_high_g:.2g}".format(**u["sci"]),
    "price [EUR]": lambda u: u["price"],
    "trained": lambda u: f"{100 * u['trainable_share']:.3g} %",
    "accuracy": lambda u: f"{u['curve']['accuracy'][0]:.2f} → {u['curve']['accuracy'][-1]:.2f}",
}


def fashion(source: Path, part: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Read the first images and labels of ``train`` or ``t10k``."""
    files = (source / f"{part}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    x, y = (gzip.decompress(file.read_bytes()) for file in files)
    images = np.frombuffer(x, np.uint8, offset=16).reshape(-1, 28, 28)
    return images[:n], np.frombuffer(y, np.uint8, offset=8)[:n].astype(np.int64)


def make_data(place: Path, source: Path) -> None:
    """Write every data source into a folder."""
    x, y = fashion(source, "train", SAMPLES)
    np.savez(place / "d.npz", x=x, y=y)
    (place / "mine.py").write_text(USER_CODE)
    pictures = [Image.fromarray(image) for image in x]
    for number, (picture, label) in enumerate(zip(pictures, y, strict=True)):
        folder = place / "pictures" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{number}.png")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[str(k) for k in range(10)])}
    )
    rows = datasets.Dataset.from_dict({"image": pictures, "label": y.tolist()}, features=features)
    rows.to_parquet(place / "d.parquet")
    (place / "hub").mkdir()
    for part, chosen in (("train", range(160)), ("test", range(160, SAMPLES))):
        rows.select(chosen).to_parquet(place / "hub" / f"{part}-00000-of-00001.parquet")
    raw = place / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{name}-ubyte").write_bytes(
                gzip.decompress((source / f"{part}-{name}-ubyte.gz").read_bytes())
            )
    generator, labels = random.Random(0), [0] * 100 + [1] * 100
    texts = [" ".join(generator.choices((BAD, GOOD)[label], k=6)) for label in labels]
    datasets.Dataset.from_dict({"text": texts, "label": labels}).to_parquet(place / "texts.parquet")


def make_models(place: Path) -> None:
    """Save a small image classifier and a small text classifier of transformers, each in a folder."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(**TINY, image_size=32, patch_size=8, num_labels=10)
    transformers.ViTForImageClassification(config).save_pretrained(place / "vit")
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (place / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    (place / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD]))
    text_config = transformers.BertConfig(**TINY, vocab_size=15, num_labels=2, max_position_embeddings=16)
    transformers.BertForSequenceClassification(text_config).save_pretrained(place / "bert")
    transformers.BertTokenizerFast(str(place / "vocab.txt")).save_pretrained(place / "bert")


def update(place: Path, model: str, train: str, test: str, recipe: str, idx: str) -> dict[str, Any]:
    """Run one update through the command line, and return its JSON."""
    command = [
        *(sys.executable, "-c", "from resque.cli import main; main()", "retrain", "--model", model),
        *("--train", train.format(idx=idx), "--test", test.format(idx=idx), "--target-accuracy", "1"),
        *("--recipe", f"{recipe},fixed_epochs=2", "--limit", str(SAMPLES), "--country", "FRA"),
        *("--price-per-kwh", "0.3", "--price-per-hour", "0.5", "--json"),
    ]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{model} on {train}: {done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def cell(value: Any) -> str:
    """Format a value for the table."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Make data and models, run the updates, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FASHION, help="folder of Fashion-MNIST's four idx files")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args()
    idx = ",".join(str(options.folder / f"train-{name}-ubyte.gz") for name in ("images-idx3", "labels-idx1"))
    lines = [
        f"| model | data | recipe | {' | '.join(COSTS)} |",
        f"|{'---|' * (3 + len(COSTS))}",
    ]
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make_data(place, options.folder)
        make_models(place)
        for model, train, test, recipe in UPDATES:
            if options.only in model:
                result = update(place, model, train, test, recipe, idx)
                cells = [cell(read(result)) for read in COSTS.values()]
                source = train.format(idx="…").partition("@")[0]
                lines.append(f"| `{model}` | `{source}` | `{recipe}` | {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        note = (
            f"{SAMPLES} samples of Fashion-MNIST or synthetic texts, 2 epochs each, torch {torch.__version__}, "
            f"{os.environ['OMP_NUM_THREADS']} thread(s); – where not measured"
        )
        options.out.write_text(note + "\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
