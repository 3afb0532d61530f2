"""The rows of every study of a distribution shift: one retraining for each network, seed, kind of shift and level.

For each seed an original model is trained on clean data until it reaches its accuracy. Then, for each shift, one pass
gives every form of the index and every rival, and a retraining with many evaluations gives the learning curve, from
which the cost of any target can be read. Rows go to JSON Lines, one a run, as soon as it has ended; kill it whenever
you like, and start it again to go on. Runs that never reach their target, and runs that fail, are rows like any other.

    python studies/shift.py --preset quick --workers 2
"""

import argparse
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from resque.asking import known_before, probe
from resque.campaign import Row, Task, run_all
from resque.data import load_data
from resque.energy import EnergyMeter, open_meter
from resque.errors import ResqueError
from resque.indices import resque_dist
from resque.labelled import LabelledData
from resque.models import load_model, save_weights
from resque.plain import to_plain
from resque.profiles import profile
from resque.recipes import Retraining, named_recipe
from resque.retraining import retrain
from resque.rivals import rivals, view

RESULTS, CACHE = Path("studies/results"), Path("studies/cache")
NOISES = ("gaussian", "blur", "salt_pepper")
KINDS = (*NOISES, "rotation", "jpeg", "bit_depth", "relabel")


@dataclass(frozen=True)
class Study:
    """What one study runs.

    Attributes:
        name: Of its rows.
        train: Data of the original training (``@original``) and of the retrainings (``@shifted``).
        test: Held out.
        model: With random weights.
        clean_recipe: Of the original training.
        clean_accuracy: Where that ends.
        recipe: Of the retrainings.
        target_accuracy: The latest target; earlier ones are read off the curve.
        kinds: Of shift.
        levels: Of each.
        seeds: Of the original model and of its retrainings.
    """

    name: str
    train: str
    test: str
    model: str
    clean_recipe: str
    clean_accuracy: float
    recipe: str
    target_accuracy: float
    kinds: tuple[str, ...]
    levels: tuple[int, ...]
    seeds: tuple[int, ...]


PRESETS = {
    "quick": (
        Study(
            name="digits",
            train="digits@16px@train",
            test="digits@16px@test",
            model="resque.networks:small_cnn",
            clean_recipe="train-adam,max_epochs=40",
            clean_accuracy=0.98,
            recipe="retrain-adam,evaluate_every=5,max_epochs=40",
            target_accuracy=0.95,
            kinds=NOISES,
            levels=(2, 4, 6, 8, 10),
            seeds=(0, 1),
        ),
    ),
}


def original(study: Study, seed: int, weights: str) -> Row:
    """Train the original model of a seed."""
    torch.set_num_threads(1)
    model = load_model(study.model, seed=seed)
    clean, test = load_data(f"{study.train}@original"), load_data(study.test)
    job = Retraining(clean, test, study.clean_accuracy, named_recipe(study.clean_recipe), seed)
    update = retrain(model, job, meter=_meter(), model_name=study.model)
    save_weights(model, Path(weights))
    return {"study": study.name, "seed": seed, "accuracy": update.accuracy, "update": to_plain(update)}


def retrained(study: Study, seed: int, kind: str, level: int, weights: str) -> Row:
    """What one pass says of a shift, and what retraining for it takes."""
    torch.set_num_threads(1)
    model = load_model(study.model, Path(weights))
    shift = f"+{kind}:{level}"
    train, test = (
        load_data(f"{study.train}@shifted{shift}"),
        load_data(f"{study.test}{shift if kind != 'relabel' else ''}"),
    )
    clean, held_out = load_data(f"{study.train}@original"), load_data(study.test)
    recipe = named_recipe(study.recipe)
    job = Retraining(train, test, study.target_accuracy, recipe, seed, original_test=held_out, kind=kind)
    found = dict(_indices(model, clean, train))
    features, _, passes_s = known_before(model, job, profile(model, clean.batches(), preprocessing=clean.preprocessing))
    others = {name: to_plain(score) for name, score in rivals(view(model, train), view(model, held_out)).items()}
    cost = probe(model, train, recipe, _meter())
    update = retrain(model, job, meter=_meter(), features=features, step_cost=cost, model_name=study.model)
    said = {"study": study.name, "seed": seed, "kind": kind, "level": level, "n": len(train), "passes_s": passes_s}
    return {**said, "indices": found, "rivals": others, "step_s": cost.wall_s, "update": to_plain(update)}


def _indices(model: nn.Module, clean: LabelledData, train: LabelledData) -> Iterator[tuple[str, float | None]]:
    """Every form of the index: by layer and reduction, with true labels and the model's own, plain and debiased."""
    for layer, reduction in ((None, "flatten"), (None, "mean"), ("penultimate", "flatten")):
        make = functools.partial(profile, model, layer=layer, reduction=reduction)
        before = make(clean.batches(), preprocessing=clean.preprocessing)
        for labels in ("true", "pseudo"):
            after = make(train.batches(), labels=labels, preprocessing=train.preprocessing)
            for debias in (False, True):
                name = f"{layer or 'paper layer'}, {reduction}, {labels} labels{', debiased' if debias else ''}"
                try:
                    yield name, resque_dist(before, after, debias=debias, undefined="skip").value
                except ResqueError:  # too few samples of a class for the halves
                    yield name, None


@functools.lru_cache(maxsize=1)
def _meter() -> EnergyMeter:
    return open_meter()


def campaign(preset: str, workers: int, results: Path = RESULTS, cache: Path = CACHE) -> dict[str, Row]:
    """All rows of a preset, those that are missing made now."""
    studies, errors = PRESETS[preset], Console(stderr=True)
    weights = {(s.name, seed): cache / f"{preset}-{s.name}-{seed}.safetensors" for s in studies for seed in s.seeds}
    trainings = [
        Task(f"{s.name} {seed}", original, {"study": s, "seed": seed, "weights": str(weights[s.name, seed])})
        for s in studies
        for seed in s.seeds
    ]
    retrainings = [
        Task(
            f"{s.name} {seed} {kind}:{level}",
            retrained,
            {"study": s, "seed": seed, "kind": kind, "level": level, "weights": str(weights[s.name, seed])},
        )
        for s in studies
        for seed in s.seeds
        for kind in s.kinds
        for level in s.levels
    ]
    with Progress(console=errors) as progress:
        for name, tasks in (("originals", trainings), ("shift", retrainings)):
            bar = progress.add_task(f"{preset}: {name}", total=len(tasks))

            def watch(done: int, total: int, key: str, bar: Any = bar) -> None:
                progress.update(bar, completed=done, description=key)

            place = (cache if name == "originals" else results) / f"{preset}-{name}.jsonl"
            rows = run_all(tasks, place, workers, watch=watch)
            progress.update(bar, completed=len(tasks), description=f"{preset}: {name}")
    return rows


def main() -> None:
    """Make the rows, and say how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = campaign(options.preset, options.workers)
    failed = sum("error" in row for row in rows.values())
    print(f"{len(rows)} rows, {failed} failed: {RESULTS / (options.preset + '-shift.jsonl')}")


if __name__ == "__main__":
    main()
