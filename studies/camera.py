"""A new camera: what ``resque compare`` says on the first day beside what each way took, for two small networks.

The camera turns, warps, blurs and darkens Fashion-MNIST; all of it is made with NumPy, by none of resque's own shifts.
A residual network, and a transformer whose adapters can be trained (at 16 × 16 pixels), learned 6,000 clean images. The
target is the accuracy on these less 11 points. Each way is carried out by ``resque.update(forecast=ID)``, on a copy of
the ledger of the first day, so that nothing is learned in between.

Every row is made once; run it again after an interruption. FOLDER holds data, weights and ledgers.

    python studies/camera.py FOLDER FASHION
    python studies/camera.py --existing
"""

import functools
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from rich.progress import track

import resque
from analysis import markdown, number
from publish import write
from resque._format import format_probability
from resque.forecasting.comparison import Option
from resque.ledger.components import MEASURED
from resque.workflows.engine import ExperimentTask, Row, read_rows, run_tasks
from runs import RESULTS

NETWORKS = {"small_resnet": 28, "small_vit": 16}
"""Network of ``networks.py`` → side of its images."""
CLEAN, NEW, TESTS, SEED = 6000, 3000, 1000, 1
BELOW = 0.11
ORIGINAL, RECIPE = "train-adam,max_epochs=10", "retrain-adam,max_epochs=30"
ROWS = RESULTS / "decisions"
HEAD = ("way", "chance", "known by", "steps", "Wh", "truth: reached", "steps", "Wh", "accuracy", "on the old data")
NOTE = """One shift, one seed, two networks: an example, not a study. Left of *truth* stands what was said on the first
day, with an empty ledger: 80 % intervals in brackets, a question mark where the chance is in doubt. Right of it stands
what carrying out the forecast took, its pilot included, on a copy of that ledger. Energy is that of the training, by
resque's default meter ({methods}), by processor time. Accuracies are those at the end of the way."""


def photographed(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return what the new camera makes of ``(n, side, side)`` images in [0, 1]: turned, warped, blurred and darker."""
    n, side, _ = images.shape
    down, across = np.mgrid[:side, :side] - (side - 1) / 2.0
    turn = np.radians(20.0 + 10.0 * random.random(n))[:, None, None]
    y = np.cos(turn) * down - np.sin(turn) * across + 1.5 * np.sin(across / 3.0)
    x = np.sin(turn) * down + np.cos(turn) * across + 1.5 * np.sin(down / 3.0)
    turned = sampled(images, y + (side - 1) / 2.0, x + (side - 1) / 2.0)
    padded = np.pad(turned, ((0, 0), (1, 1), (1, 1)), mode="edge")
    blurred = sum(padded[:, i : i + side, j : j + side] for i in range(3) for j in range(3)) / 9.0
    darker: np.ndarray = (0.35 + 0.3 * random.random(n))[:, None, None] * blurred
    return darker


def sampled(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Read images between their pixels, bilinearly; outside they are black."""
    side, framed = images.shape[1], np.pad(images, ((0, 0), (1, 1), (1, 1)))
    y, x = (np.clip(each + 1.0, 0.0, side + 0.999) for each in (y, x))
    top, left, each = y.astype(int), x.astype(int), np.arange(len(images))[:, None, None]
    below, right = y - top, x - left
    upper = (1.0 - right) * framed[each, top, left] + right * framed[each, top, left + 1]
    lower = (1.0 - right) * framed[each, top + 1, left] + right * framed[each, top + 1, left + 1]
    found: np.ndarray = (1.0 - below) * upper + below * lower
    return found


def prepare(folder: Path, fashion: Path) -> None:
    """Write clean and new images of both sides, unless they are there."""
    if (folder / "new-test-16.npz").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    for part, name, numbers in ("", "train", (CLEAN, NEW)), ("-test", "t10k", (TESTS, TESTS)):
        data = resque.load_data(f"idx:{fashion}/{name}-images-idx3-ubyte.gz,{fashion}/{name}-labels-idx1-ubyte.gz")
        order = random.permutation(len(data))[: sum(numbers)]
        images = next(data.take(torch.from_numpy(order)).batches(len(order)))[0][:, 0].numpy().astype(float)
        labels = data.labels.numpy()[order]
        clean, new = slice(numbers[0]), slice(numbers[0], None)
        for kind, rows, made in (
            ("clean", clean, images[clean]), ("new", new, photographed(images[new], random))
        ):  # fmt: skip
            small = np.pad(made, ((0, 0), (2, 2), (2, 2))).reshape(-1, 16, 2, 16, 2).mean((2, 4))
            for side, pixels in (28, made), (16, small):
                values = np.rint(255.0 * pixels).astype(np.uint8)
                np.savez(folder / f"{kind}{part}-{side}.npz", x=values, y=labels[rows])


def data_of(folder: Path, network: str, kind: str) -> tuple[str, str]:
    """Return the training and test data of a network, ``"clean"`` or ``"new"``."""
    return tuple(f"npz:{folder}/{kind}{part}-{NETWORKS[network]}.npz" for part in ("", "-test"))  # type: ignore[return-value]


@functools.cache
def meter_of_process() -> resque.EnergyMeter:
    """Open the energy meter, once per process."""
    return resque.open_meter()


def ask(folder: Path, network: str) -> Row:
    """Train the original model, then compare the ways on the first day."""
    torch.set_num_threads(1)
    spec, place = f"{Path(__file__).parent}/networks.py:{network}", folder / network
    shutil.rmtree(place, ignore_errors=True)  # of an interrupted question
    clean, new = data_of(folder, network, "clean"), data_of(folder, network, "new")
    original = resque.update(
        spec, *clean, 1.0, recipe=ORIGINAL, ledger=place / "original.db", out=place / "original",
        meter=resque.ClockMeter(), seed=SEED,
    )  # fmt: skip
    target = math.floor(100.0 * (original.accuracy - BELOW)) / 100.0
    options = resque.ModelOptions(weights=place / "original" / "model.safetensors")
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    found = resque.compare(
        spec, *new, target, original=clean[0], original_test=clean[1], recipe=RECIPE,
        ledger=place / "ledger" / "resque.db", meter=meter_of_process(), options=options,
    )  # fmt: skip
    return {
        "is": "asked", "network": network, "target": target, "original": original.accuracy,
        "asking_s": time.perf_counter() - began_s, "asking_cpu_s": time.process_time() - began_cpu_s,
        "asking_kwh": found.asking.energy_kwh, "best": found.best and found.option(found.best).name,
        "said": found.recommendation, "options": [described(option) for option in found.options],
        "methods": dict(meter_of_process().methods),
    }  # fmt: skip


def described(option: Option) -> Row:
    """Return a way as a row holds it."""
    costs = {
        name: None if (known := option.estimates.get(cost)) is None
        else [known.value, known.interval.low, known.interval.high]
        for name, cost in (("steps", "steps"), ("kwh", "energy_kwh"))
    }  # fmt: skip
    return {
        "id": option.id, "way": option.name, "chance": option.chance, "doubt": option.doubt, **costs,
        "how_known": option.how_known, "accuracy": option.accuracy and option.accuracy.value,
        "on_old": option.original_accuracy, "is_trained": bool(option.recipe),
    }  # fmt: skip


def carry_out(folder: Path, network: str, forecast: str, way: str) -> Row:
    """Carry out one way on a copy of the ledger; return what it took."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        shutil.copytree(folder / network / "ledger", f"{place}/ledger")
        began_s = time.process_time()
        done = resque.update(
            forecast=forecast, ledger=f"{place}/ledger/resque.db", out=f"{place}/out", meter=meter_of_process(),
        )  # fmt: skip
    return {
        "is": "run", "network": network, "way": way, "reached": done.reached, "steps": done.cost.steps,
        "kwh": done.cost.energy_kwh, "accuracy": done.accuracy, "on_old": done.original_accuracy_after,
        "processor_s": time.process_time() - began_s, "stopped_by": done.stopped_by,
    }  # fmt: skip


def with_interval(values: Sequence[float] | None, show: Callable[[float | None], str]) -> str:
    """Return a cost with its interval, without one where both ends are the value."""
    if values is None:
        return "–"
    middle, low, high = map(show, values)
    return middle if values[1] == values[2] else f"{middle} [{low}, {high}]"


def whole(steps: float | None) -> str:
    """Return a number of steps."""
    return "–" if steps is None else f"{steps:.0f}"


def lines(asked: Row, runs: dict[str, Row]) -> Iterator[tuple[str, ...]]:
    """Yield a line for each way."""
    for option in asked["options"]:
        run = runs.get(option["way"])
        truth = ("–",) * 3 if run is None else ("yes" if run["reached"] else "no", f"{run['steps']}", wh(run["kwh"]))
        ends = option if run is None else run
        chance = format_probability(option["chance"], option["how_known"] == MEASURED)
        yield (
            f"**{option['way']}**" if option["way"] == asked["best"] else option["way"],
            f"{chance}{'?' if option['doubt'] else ''}", option["how_known"],
            with_interval(option["steps"], whole), with_interval(option["kwh"], wh), *truth,
            f"{ends['accuracy']:.3f}", "–" if ends["on_old"] is None else f"{ends['on_old']:.3f}",
        )  # fmt: skip


def wh(kwh: float | None) -> str:
    """Return an energy in watt-hours."""
    return number(None if kwh is None else 1000.0 * kwh)


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    known, methods = [row for row in rows if "error" not in row], set[str]()
    parts = []
    for asked in (row for row in known if row["is"] == "asked"):
        runs = {row["way"]: row for row in known if row["is"] == "run" and row["network"] == asked["network"]}
        methods.add(", ".join(f"{part} {how}" for part, how in asked["methods"].items()))
        took = (
            f"{asked['asking_s']:.0f} s ({asked['asking_cpu_s']:.0f} processor seconds, {wh(asked['asking_kwh'])} Wh)"
        )
        text = (
            f"{asked['original']:.3f} on clean images; target {asked['target']:g} on those of the new camera. "
            f"Asking took {took}."
        )
        parts += [f"## {asked['network']}", text, markdown(HEAD, lines(asked, runs)), f"> {asked['said']}"]
    failed = [row for row in rows if "error" in row]
    parts += [f"{len(failed)} rows failed."] if failed else []
    return "\n\n".join(["# A new camera", NOTE.format(methods="; ".join(sorted(methods))), *parts]) + "\n"


def main() -> None:
    """Make the rows that are missing, then the page."""
    file = ROWS / "camera.jsonl"
    if "--existing" not in sys.argv:
        folder, fashion = Path(sys.argv[1]), Path(sys.argv[2])
        prepare(folder, fashion)
        for network in NETWORKS:
            common = {"folder": folder, "network": network}
            (asked,) = run_tasks([ExperimentTask(f"{network} asked", ask, common)], file).values()
            trained = {each["way"]: each["id"] for each in asked["options"] if each["is_trained"]}
            planned = [
                ExperimentTask(f"{network} {way}", carry_out, {**common, "forecast": forecast, "way": way})
                for way, forecast in trained.items()
            ]
            show = track(range(len(planned)), network)
            run_tasks(planned, file, on_progress=lambda *_, show=show: next(show, None))
    print(write(page([*read_rows(file).values()]), ROWS / "camera"))


if __name__ == "__main__":
    main()
