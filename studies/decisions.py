"""Judge the recommendations of ``resque compare``: what each decision cost beside the cheapest way that sufficed.

For each shift the ways are compared on the first day: with an empty ledger, and with bundled updates of other networks
and other shift types. Then every way is run to its end. Costs are processor seconds, which do not depend on what else
the machine does.

    python studies/decisions.py
    python studies/decisions.py --again
    python studies/decisions.py --existing
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.progress import track

from analysis import markdown
from in_run import kinds, kinds_of
from presets import PRESETS, WRONG_LABELS, Shifted, ShiftStudy
from publish import write
from resque.data.loading import load_data
from resque.energy.meters import ClockMeter
from resque.ledger.bundled import bundled_updates
from resque.ledger.store import Ledger
from resque.models.loading import fresh_model, load_model
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.workflows.compare import compare
from resque.workflows.engine import ExperimentTask, Row, read_rows, run_tasks
from resque.workflows.inputs import ModelOptions
from resque.workflows.ways import SCRATCH, Way, ways_to_update
from runs import CACHE, RESULTS

STUDIES = {"small_resnet": "kinds", "plain_cnn": "kinds", "photographs": "photographs"}
RECIPE = "retrain-adam,evaluate_every=20,max_epochs=12"
PER_STUDY, SEED, DRAWN_WITH = 14, 1, 20
PRETRAINED = "pre-trained networks"
HEAD = ("network", "n", "chosen way sufficed", "cheapest chosen", "cost of the way", "with asking", "all layers always")
NOTE = """One decision per shift, drawn at random, without wrong labels: levels 6 and 9, and a target 10, 5 or 2 points
below the original model's accuracy, above that before the update. Cost of the way: processor seconds of the chosen way
over those of the cheapest way that sufficed, median [quartiles]; where it did not suffice, those of the cheapest are
added. With asking: with what the comparison took besides the pilot that the update goes on from. All layers always: the
same for the default recipe, without asking. Pre-trained networks: new tasks, see pretrained_decisions.py."""


def decide(study: ShiftStudy, preset: str, shift: Shifted, below: float, truth: Row | None = None) -> Row:
    """Compare the ways for one shift, then run each to its end, unless it is known what each takes."""
    torch.set_num_threads(1)
    weights = CACHE / preset / f"{study.name}-{SEED}.safetensors"
    model = load_model(study.model, weights, classes=None)
    target = evaluate_dataset(model, load_data(study.test))[0] + below
    left_out = kinds(shift.shift_type)
    bundled = [u for u in bundled_updates() if not kinds_of(u) & left_out and u.model != study.model]
    original = f"{study.train}@original"
    with TemporaryDirectory() as folder, patch("resque.workflows.compare.bundled_updates", lambda: bundled):
        answer = ask(
            f"{folder}/resque.db", study.model, shift.train, shift.test, target, original=original,
            original_test=study.test, recipe=RECIPE, shift_type=shift.shift_type, options=ModelOptions(weights=weights),
        )  # fmt: skip
    job = RetrainingJob(
        load_data(shift.train), load_data(shift.test), target, named_recipe(RECIPE), SEED, replayed=load_data(original)
    )
    return {
        "study": study.name, "shift_type": shift.shift_type, "level": shift.level, "below": below, "target": target,
        **answer,
        "truth": truth or {
            way.name: outcome(study, model, way, job) for way in ways_to_update(model, job.recipe, with_original=True)
        },
    }  # fmt: skip


def ask(ledger: str, *arguments: Any, **options: Any) -> Row:
    """Compare the ways; return what the comparison said, and what it took."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    found = compare(*arguments, ledger=ledger, meter=ClockMeter(), **options)
    wall_s, cpu_s, pilots_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s, pilot_seconds(ledger)
    return {
        "best": found.best and found.option(found.best).name,
        "ties": [found.option(tie).name for tie in found.ties],
        "options": {
            option.name: {
                "chance": option.chance, "steps": option.cost("steps"), "how_known": option.how_known,
                "pilot_share": pilots_s.get(option.id, 0.0) / wall_s,
            }
            for option in found.options
        },
        "asking_cpu_s": cpu_s,
    }  # fmt: skip


def pilot_seconds(ledger: str) -> dict[str, float]:
    """Return the seconds of the pilot of each forecast that has one."""
    return {each.id: each.pilot.reading.wall_s for each in Ledger(ledger).forecasts() if each.pilot is not None}


def outcome(study: ShiftStudy, model: torch.nn.Module, way: Way, job: RetrainingJob) -> dict[str, Any]:
    """Run a way to its end, and return what it cost."""
    network = fresh_model(study.model, model, SEED) if way.rung == SCRATCH else load_copy(study, model)
    began_cpu_s = time.process_time()
    update = retrain(network, dataclasses.replace(job, recipe=way.recipe), meter=ClockMeter())
    cpu_s = time.process_time() - began_cpu_s
    best = max(update.curve.accuracy)
    return {"reached": update.reached, "steps": update.cost.steps, "cpu_s": cpu_s, "accuracy": best}


def load_copy(study: ShiftStudy, model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a model that training may change."""
    copy = load_model(study.model)
    copy.load_state_dict(model.state_dict())
    return copy


def tasks() -> Iterator[ExperimentTask]:
    """Yield the decisions, the networks in turn."""
    drawn = []
    for name, preset in STUDIES.items():
        study = next(each for each in PRESETS[preset].shifts if each.name == name)
        starts = accuracies_before(study, preset)
        asked = [
            (study, preset, shift, below)
            for shift in study.shifts
            for below in study.targets
            if starts.get((shift.shift_type, shift.level), 1.0) < below and shift.shift_type not in WRONG_LABELS
        ]
        order = np.random.default_rng([DRAWN_WITH, *map(ord, name)]).permutation(len(asked))
        of_shift = {(asked[place][2].shift_type, asked[place][2].level): asked[place] for place in order}
        drawn.append([*of_shift.values()][:PER_STUDY])
    for decisions in zip(*drawn, strict=True):
        for study, preset, shift, below in decisions:
            name = f"{study.name} {shift.shift_type}:{shift.level} {below:g}"
            yield ExperimentTask(name, decide, {"study": study, "preset": preset, "shift": shift, "below": below})


def accuracies_before(study: ShiftStudy, preset: str) -> dict[tuple[str, int], float]:
    """Return by shift type and level the accuracy before an update, less that of the original model; from the rows."""
    rows = [row for row in read_rows(RESULTS / preset / f"{study.name}.jsonl").values() if "error" not in row]
    return {
        (row["shift_type"], row["level"]): row["update"]["curve"]["accuracy"][0]
        - (row["update"]["target_accuracy"] - study.targets[-1])
        for row in rows
        if row["seed"] == SEED and row["level"] in (6, 9)
    }


def cost_of(row: Row, chosen: str | None) -> float | None:
    """Return processor seconds of a way over the cheapest that sufficed; None if none did."""
    enough = [each["cpu_s"] for each in row["truth"].values() if each["reached"]]
    if not enough:
        return None
    if chosen is None:
        return 1.0  # the user goes on by hand, and takes the cheapest at best
    way = row["truth"][chosen]
    return float((way["cpu_s"] + (0.0 if way["reached"] else min(enough))) / min(enough))


def asking(row: Row) -> float:
    """Return processor seconds of asking over the cheapest way that sufficed."""
    cheapest = min(each["cpu_s"] for each in row["truth"].values() if each["reached"])
    used = row["options"][row["best"]]["pilot_share"] if row["best"] else 0.0
    return float(row["asking_cpu_s"] * (1.0 - used) / cheapest)


def quartiles(values: list[float]) -> str:
    """Return the median and the quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the line of one network; decisions for which nothing was to be done are left out."""
    some = [row for row in rows if any(each["reached"] for each in row["truth"].values())]
    named = [row for row in some if row["best"]]
    sufficed = sum(row["truth"][row["best"]]["reached"] for row in named)
    cheapest = sum(cost_of(row, row["best"]) == 1.0 for row in named)
    costs = [cost_of(row, row["best"]) or 0.0 for row in some]
    return (
        name, f"{len(some)}", f"{sufficed}/{len(named)}", f"{cheapest}/{len(named)}", quartiles(costs),
        quartiles([cost + asking(row) for cost, row in zip(costs, some, strict=True)]),
        quartiles([cost_of(row, "Retrain all layers") or 0.0 for row in some]),
    )  # fmt: skip


def page(rows: Sequence[Row]) -> str:
    """Return the page."""
    judged = [row for row in rows if row["best"] != "Do nothing"]
    known = dict.fromkeys(row["study"] for row in judged)
    lines = [line(name, [row for row in judged if row["study"] == name]) for name in known]
    hopeless = [row for row in judged if not any(each["reached"] for each in row["truth"].values())]
    said = sum(row["best"] is None for row in hopeless)
    missed = sum(row["best"] is None for row in judged) - said
    return (
        f"# What recommendations were worth\n\n{NOTE}\n\n{markdown(HEAD, [*lines, line('all', judged)])}\n\n"
        f"Where no way sufficed ({len(hopeless)} decisions) it said so in {said}. Where one did it said so wrongly in "
        f"{missed}. Not counted: {len(rows) - len(judged)} without anything to do.\n"
    )


def asked_again(planned: Sequence[ExperimentTask], rows: Path) -> list[ExperimentTask]:
    """Return the decisions with what each way takes, as it is known, to be asked again."""
    truths = {key: row["truth"] for key, row in read_rows(rows).items() if "error" not in row}
    return [dataclasses.replace(task, arguments={**task.arguments, "truth": truths.get(task.key)}) for task in planned]


def sentence_of_again(before: Mapping[str, Row], again: Sequence[Row]) -> str:
    """Return how the choices of another version of the program differ; times of another day are not compared."""
    rows = [row for row in again if row["key"] in before and "error" not in row]
    if not rows:
        return ""
    same = sum(row["best"] == before[row["key"]]["best"] for row in rows)
    possible = [row for row in rows if any(way["reached"] for way in row["truth"].values())]
    sufficed = [row for row in possible if row["best"] in row["truth"] and row["truth"][row["best"]]["reached"]]
    cheapest = sum(cost_of(row, row["best"]) == 1.0 for row in sufficed)
    hopeless = [row for row in rows if row not in possible]
    said = sum(row["best"] is None for row in hopeless)
    return (
        f"\nAsked again by a later version ({len(rows)} of the decisions): the same way in {same}. The chosen way "
        f"sufficed in {len(sufficed)}/{len(possible)}, and was the cheapest in {cheapest}. Where no way sufficed "
        f"({len(hopeless)}) it said so in {said}.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--existing", action="store_true", help="use the rows that exist, and make none")
    parser.add_argument("--again", action="store_true", help="ask again; what each way takes is known")
    folder, planned, arguments = RESULTS / "decisions", [*tasks()], parser.parse_args()
    if arguments.again:
        run_tasks(asked_again(planned, folder / "decisions.jsonl"), folder / "again.jsonl")
    if arguments.existing or arguments.again:
        found = [*read_rows(folder / "decisions.jsonl").values()]
    else:
        folder.mkdir(parents=True, exist_ok=True)
        show = track(range(len(planned)), "decisions")
        found = [*run_tasks(planned, folder / "decisions.jsonl", on_progress=lambda *_: next(show, None)).values()]
    found += read_rows(folder / "pretrained.jsonl").values()
    known = {row["key"]: row for row in found if "error" not in row}
    text = page([*known.values()]) + sentence_of_again(known, [*read_rows(folder / "again.jsonl").values()])
    print(write(text, Path(folder) / "decisions"))
