"""The rows that every table and figure is read off: one retraining a row, each done once, whatever is killed.

A study of shifts trains an original model for each seed. Then, for each shift, one pass gives every form of the index
and every rival, and a retraining with many evaluations gives the learning curve, from which the cost of any target can
be read. A study of tasks does the same with a new head, from every other task. Runs that never reach their target, and
runs that fail, are rows like any other.

    python studies/runs.py --preset quick
    python studies/runs.py --preset cpu --pilot    # other seeds than the published ones, rows into the cache
"""

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from glyphs import render
from presets import PILOT_SEEDS, PRESETS, Preset, ShiftStudy, TaskStudy
from resque.ledger.migration import SCORES
from resque.workflows.engine import ExperimentTask, Row, read_rows, run_tasks
from shift_rows import original, passed, retrained, scratched
from task_rows import from_scratch, learned, source_model

RESULTS, CACHE = Path("studies/results"), Path("studies/cache")
ORIGINALS, PASSES = "originals", "-passes"
PARTS = ("shifts", "tasks")
Planned = Iterator[tuple[str, list[ExperimentTask]]]


def shift_tasks(study: ShiftStudy, cache: Path) -> Planned:
    """``(file of the rows, tasks)``, in the order in which they must be done."""
    weights = {seed: str(cache / f"{study.originals or study.name}-{seed}.safetensors") for seed in study.seeds}
    conditions = [(seed, shift) for seed in study.seeds for shift in study.shifts]

    def task(work: Any, seed: int, shift: Any = None, **more: Any) -> ExperimentTask:
        given = {"study": study, "seed": seed} | ({"shift": shift} if shift else {}) | more
        name = f"{study.name} {seed}" + (f" {shift.shift_type}:{shift.level}" if shift else "")
        return ExperimentTask(name, work, given)

    if not study.originals:
        yield f"{ORIGINALS}-{study.name}", [task(original, seed, weights=weights[seed]) for seed in study.seeds]
    yield study.name, [task(retrained, seed, shift, weights=weights[seed]) for seed, shift in conditions]
    if not study.originals:
        looks = [task(passed, seed, shift, weights=weights[seed]) for seed, shift in conditions]
        yield f"{study.name}{PASSES}", looks
    chosen = [(seed, shift) for seed, shift in conditions if (shift.shift_type, shift.level) in study.scratch]
    yield f"{study.name}-scratch", [task(scratched, seed, shift) for seed, shift in chosen]


def task_tasks(study: TaskStudy, cache: Path) -> Planned:
    """The same for a study of tasks."""
    weights = {
        (source, seed): str(cache / f"{study.name}-{source or 'none'}-{seed}.safetensors")
        for source in study.sources
        for seed in study.seeds
    }

    def task(work: Any, seed: int, *names: str, **given: Any) -> ExperimentTask:
        said = " > ".join(name or "none" for name in names)
        return ExperimentTask(f"{study.name} {seed} {said}", work, {"study": study, "seed": seed, **given})

    yield (
        f"{ORIGINALS}-{study.name}",
        [task(source_model, seed, source, source=source, weights=place) for (source, seed), place in weights.items()],
    )
    yield (
        study.name,
        [
            task(learned, seed, source, target, source=source, target=target, weights=weights[source, seed])
            for seed, target, source in itertools.product(study.seeds, study.cutoffs, study.sources)
            if source != target
        ],
    )
    yield (
        f"{study.name}-scratch",
        [
            task(from_scratch, seed, target, target=target)
            for seed, target in itertools.product(study.seeds, study.cutoffs)
        ],
    )


def planned(preset: Preset, cache: Path) -> Planned:
    """All of a preset; what is left out has no tasks."""
    found = itertools.chain(
        *(shift_tasks(study, cache) for study in preset.shifts), *(task_tasks(study, cache) for study in preset.tasks)
    )
    return ((file, tasks) for file, tasks in found if tasks)


def specs(preset: Preset) -> Iterator[str]:
    """Every data set that a preset names."""
    for study in preset.shifts:
        yield from (study.train, study.test)
        yield from (spec for shift in study.shifts for spec in (shift.train, shift.test))
    for tasks in preset.tasks:
        yield from itertools.chain(*tasks.tasks.values())


def for_pilot(preset: Preset) -> Preset:
    """Half of it, with seeds that are not published."""

    def fewer(study: ShiftStudy) -> ShiftStudy:
        return dataclasses.replace(study, seeds=PILOT_SEEDS, shifts=study.shifts[1::2])

    tasks = (dataclasses.replace(study, seeds=PILOT_SEEDS) for study in preset.tasks)
    return Preset(tuple(map(fewer, preset.shifts)), tuple(tasks))


def rows(
    name: str,
    workers: int = 2,
    results: Path = RESULTS,
    cache: Path = CACHE,
    pilot: bool = False,
    only: str = "",
    missing: bool = True,
    parts: Sequence[str] = PARTS,
) -> dict[str, list[Row]]:
    """Study → its rows, in the order in which they are planned.

    Args:
        name: Of the preset.
        workers: Processes side by side.
        results: Where the rows of each preset have a folder.
        cache: Where the weights of the original models are kept, and the rows of a pilot.
        pilot: Other seeds than the published ones.
        only: Do nothing but these studies: the beginning of their names.
        missing: Make those that are missing; else there are fewer.
        parts: Of the preset: its shifts, its tasks.
    """
    preset, place = PRESETS[name], results / name
    preset = dataclasses.replace(preset, **{part: () for part in PARTS if part not in parts})
    if pilot:
        preset, place, cache = for_pilot(preset), cache / "pilot" / name, cache / "pilot"
    plan = [
        (file, tasks, (cache / name if file.startswith(ORIGINALS) else place) / f"{file}.jsonl")
        for file, tasks in planned(preset, cache / name)
        if file.removeprefix(f"{ORIGINALS}-").startswith(only)
    ]
    if not missing:
        there = {file: read_rows(where) for file, _, where in plan}
        made = {file: [there[file][task.key] for task in tasks if task.key in there[file]] for file, tasks, _ in plan}
        return with_passes(made, preset)
    render(specs(preset))
    made = {}
    with Progress(console=Console(stderr=True)) as progress:
        for file, tasks, where in plan:
            bar = progress.add_task(file, total=len(tasks))

            def on_progress(done: int, total: int, key: str, bar: Any = bar) -> None:
                progress.update(bar, completed=done, description=key)

            made[file] = list(run_tasks(tasks, where, workers, on_progress=on_progress).values())
            progress.update(bar, completed=len(tasks), description=file)
    return with_passes(made, preset)


def with_passes(made: dict[str, list[Row]], preset: Preset) -> dict[str, list[Row]]:
    """Rows of retrainings with what the later passes said of the same shift and original model."""
    made = {file: [modern(row) for row in found] for file, found in made.items()}
    for study in preset.shifts:
        looked = {
            _run(row): row["scores"]
            for row in made.get(f"{study.originals or study.name}{PASSES}", ())
            if "scores" in row
        }
        for row in made.get(study.name, ()):
            if "error" not in row and _run(row) in looked:
                row["scores"] = looked[_run(row)]
    return made


def modern(row: Row) -> Row:
    """Return a row with today's names; published rows keep those that they were written with."""
    row = {{"kind": "shift_type"}.get(name, name): value for name, value in row.items()}
    for part in ("rivals", "scores"):
        if part in row:
            row[part] = {SCORES.get(name, name): value for name, value in row[part].items()}
    return row


def _run(row: Row) -> tuple[int, str, int] | None:
    """A row's seed and shift; a run that failed has none."""
    return (row["seed"], row["shift_type"], row["level"]) if "error" not in row else None


def main() -> None:
    """Make the rows, and say how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pilot", action="store_true", help="other seeds than the published ones")
    parser.add_argument("--only", default="", help="the beginning of a study's name")
    options = parser.parse_args()
    for file, found in rows(options.preset, options.workers, pilot=options.pilot, only=options.only).items():
        failed = [row["error"] for row in found if "error" in row]
        print(f"{file}: {len(found)} rows, {len(failed)} failed {failed[:1] or ''}")


if __name__ == "__main__":
    main()
