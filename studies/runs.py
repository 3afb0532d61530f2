"""Make the rows that all tables and figures are read off: one retraining per row, each done once.

A study of shifts trains an original model for each seed. Then, for each shift, one forward pass gives every form of the
index and every baseline, and a retraining with many evaluations gives the learning curve, off which the cost of any
target can be read. A study of tasks does the same with a new head, from every other task. Runs that never reach their
target, and runs that fail, are rows like any other. After an interruption the script resumes where it was.

    python studies/runs.py --preset quick
    python studies/runs.py --preset cpu --pilot    # other seeds than the published ones, rows into the cache
    python studies/runs.py --preset cpu --engine ray --address HOST:6379    # on nodes that share this folder
"""

import argparse
import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from glyphs import render
from photographs import cut
from presets import PHOTOGRAPHS, PILOT_SEEDS, PRESETS, Preset, Shifted, ShiftStudy, TaskStudy
from resque.ledger.migration import SCORES, modernize_scores
from resque.workflows.engine import Engine, ExperimentTask, Row, read_rows, run_tasks
from resque.workflows.ray_engine import ENGINES, open_engine
from shift_rows import device, retrain_for_shift, score_adapted_model, train_from_scratch, train_original
from task_rows import learn_from_scratch, learn_task, train_source

RESULTS, CACHE = Path("studies/results"), Path("studies/cache")
ORIGINALS, PASSES = "originals", "-passes"
PARTS = ("shifts", "tasks")
Plan = Iterator[tuple[str, list[ExperimentTask]]]
BASELINES = ("baselines", "baselines_before", "baselines_after")
FORMER_KEYS = {"kind": "shift_type"} | {name.replace("baselines", "rivals"): name for name in BASELINES}
"""Key of a row in the published files → today's."""


def plan_shift_study(study: ShiftStudy, cache: Path) -> Plan:
    """Yield ``(file of rows, tasks)``, in the order in which they must be done."""
    weights = {seed: str(cache / f"{study.originals or study.name}-{seed}.safetensors") for seed in study.seeds}
    conditions = [(seed, shift) for seed in study.seeds for shift in study.shifts]

    def task(work: Callable[..., Row], seed: int, shift: Shifted | None = None, **more: Any) -> ExperimentTask:
        arguments = {"study": study, "seed": seed} | ({"shift": shift} if shift else {}) | more
        name = f"{study.name} {seed}" + (f" {shift.shift_type}:{shift.level}" if shift else "")
        return ExperimentTask(name, work, arguments, is_metered=work is not score_adapted_model)

    if not study.originals:
        yield f"{ORIGINALS}-{study.name}", [task(train_original, seed, weights=weights[seed]) for seed in study.seeds]
    yield study.name, [task(retrain_for_shift, seed, shift, weights=weights[seed]) for seed, shift in conditions]
    if study.separate_scores and not study.originals:
        passes = [task(score_adapted_model, seed, shift, weights=weights[seed]) for seed, shift in conditions]
        yield f"{study.name}{PASSES}", passes
    chosen = [(seed, shift) for seed, shift in conditions if (shift.shift_type, shift.level) in study.scratch]
    yield f"{study.originals or study.name}-scratch", [task(train_from_scratch, seed, shift) for seed, shift in chosen]


def plan_task_study(study: TaskStudy, cache: Path) -> Plan:
    """Yield ``(file of rows, tasks)`` of a study of tasks, in the order in which they must be done."""
    originals = study.originals or study.name
    weights = {
        (source, seed): str(cache / f"{originals}-{source or 'none'}-{seed}.safetensors")
        for source in study.sources
        for seed in study.seeds
    }

    def task(work: Callable[..., Row], seed: int, *names: str, **arguments: Any) -> ExperimentTask:
        title = " > ".join(name or "none" for name in names)
        return ExperimentTask(f"{study.name} {seed} {title}", work, {"study": study, "seed": seed, **arguments}, True)

    if not study.originals:
        trained = [task(train_source, seed, of, source=of, weights=path) for (of, seed), path in weights.items()]
        yield f"{ORIGINALS}-{study.name}", trained
    yield (
        study.name,
        [
            task(learn_task, seed, source, target, source=source, target=target, weights=weights[source, seed])
            for seed, target in itertools.product(study.seeds, study.cutoffs)
            for source in study.sources_of(target)
        ],
    )
    if study.way:
        return
    pairs = itertools.product(study.seeds, study.cutoffs)
    yield f"{study.name}-scratch", [task(learn_from_scratch, seed, target, target=target) for seed, target in pairs]


def plan(preset: Preset, cache: Path) -> Plan:
    """Yield ``(file of rows, tasks)`` of all studies of a preset; files without tasks are left out.

    With blocks, studies of shifts take turns: each has so many tasks at a time, and a file comes several times.
    """
    shifts = [blocks(plan_shift_study(study, cache), preset.block) for study in preset.shifts]
    studies = itertools.chain(
        *(itertools.zip_longest(*shifts, fillvalue=("", [])) if preset.block else shifts),
        *(plan_task_study(study, cache) for study in preset.tasks),
    )
    return ((file, tasks) for file, tasks in studies if tasks)


def blocks(planned: Plan, size: int) -> Plan:
    """Split the tasks of each file into blocks of at most so many; 0 leaves them whole."""
    for file, tasks in planned:
        for start in range(0, len(tasks), size or max(1, len(tasks))):
            yield file, tasks[start : start + size] if size else tasks


def data_specs(preset: Preset) -> Iterator[str]:
    """Yield the specification of each dataset of a preset."""
    for study in preset.shifts:
        yield from (study.train, study.test)
        yield from (spec for shift in study.shifts for spec in (shift.train, shift.test))
    for tasks in preset.tasks:
        yield from itertools.chain(*tasks.tasks.values())


def pilot_preset(preset: Preset) -> Preset:
    """Return half of the conditions, with seeds that are not published."""
    shifts = (dataclasses.replace(study, seeds=PILOT_SEEDS, shifts=study.shifts[1::2]) for study in preset.shifts)
    tasks = (dataclasses.replace(study, seeds=PILOT_SEEDS) for study in preset.tasks)
    return dataclasses.replace(preset, shifts=tuple(shifts), tasks=tuple(tasks))


def select_parts(name: str, parts: Sequence[str]) -> Preset:
    """Return a preset with some of its parts, ``"shifts"`` or ``"tasks"``."""
    return dataclasses.replace(PRESETS[name], **{part: () for part in PARTS if part not in parts})


def existing_rows(name: str, results: Path = RESULTS, parts: Sequence[str] = PARTS) -> dict[str, list[Row]]:
    """Read the rows of a preset that exist, and make none.

    Args:
        name: Name of the preset.
        results: Folder that holds a folder of rows per preset.
        parts: Parts of the preset, ``"shifts"`` or ``"tasks"``.

    Returns:
        File of rows → its rows, in the order in which they are planned.
    """
    preset, rows = select_parts(name, parts), defaultdict[str, list[Row]](list)
    for file, tasks in plan(preset, CACHE / name):
        existing = read_rows(results / name / f"{file}.jsonl")
        rows[file] += [existing[task.key] for task in tasks if task.key in existing]
    return with_adapted_scores(rows, preset)


def make_rows(
    name: str,
    engine: Engine | None = None,
    results: Path = RESULTS,
    cache: Path = CACHE,
    pilot: bool = False,
    only: str = "",
    parts: Sequence[str] = PARTS,
) -> dict[str, list[Row]]:
    """Make the rows of a preset that are missing, and return all of them.

    Args:
        name: Name of the preset.
        engine: Where the runs are; None takes one process of this machine.
        results: Folder that holds a folder of rows per preset.
        cache: Folder of the weights of original models, and of the rows of a pilot.
        pilot: Whether to run other seeds than the published ones.
        only: Beginning of the names of the studies that are run; empty for all.
        parts: Parts of the preset, ``"shifts"`` or ``"tasks"``.

    Returns:
        File of rows → its rows, in the order in which they are planned.
    """
    preset, folder = select_parts(name, parts), results / name
    if pilot:
        preset, folder, cache = pilot_preset(preset), cache / "pilot" / name, cache / "pilot"
    render(data_specs(preset))
    if any(PHOTOGRAPHS in spec for spec in data_specs(preset)):
        cut(Path(PHOTOGRAPHS))
    rows = defaultdict[str, list[Row]](list)
    with Progress(console=Console(stderr=True)) as progress:
        for file, tasks in plan(preset, cache / (preset.originals or name)):
            if not file.removeprefix(f"{ORIGINALS}-").startswith(only):
                continue
            bar = progress.add_task(file, total=len(tasks))

            def on_progress(done: int, total: int, key: str, bar: Any = bar) -> None:
                progress.update(bar, completed=done, description=key)

            path = (cache / name if file.startswith(ORIGINALS) else folder) / f"{file}.jsonl"
            rows[file] += run_tasks(tasks, path, engine, on_progress=on_progress).values()
            progress.update(bar, completed=len(tasks), description=file)
    return with_adapted_scores(rows, preset)


def with_adapted_scores(rows: dict[str, list[Row]], preset: Preset) -> dict[str, list[Row]]:
    """Add to the rows of retrainings the scores of the adapted model, which have files of their own."""
    rows = {file: [modernize_keys(row) for row in members] for file, members in rows.items()}
    for study in preset.shifts:
        passes = rows.get(f"{study.originals or study.name}{PASSES}", ())
        scores = {_run(row): row["scores"] for row in passes if "scores" in row}
        for row in rows.get(study.name, ()):
            if "error" not in row and _run(row) in scores:
                row["scores"] = scores[_run(row)]
    return {file: [modernize_row_scores(row) for row in members] for file, members in rows.items()}


def modernize_row_scores(row: Row) -> Row:
    """Return a row whose scores of the adapted model have today's names, without those of one that adapts nothing."""
    if not {"scores", "update"} <= row.keys():
        return row
    return row | {"scores": modernize_scores(row["update"]["features"] | {"scores": row["scores"]})["scores"]}


def modernize_keys(row: Row) -> Row:
    """Return a row with today's names; published rows keep those that they were written with."""
    row = {FORMER_KEYS.get(name, name): value for name, value in row.items()}
    for part in BASELINES:
        if part in row:
            row[part] = {SCORES.get(name, name): value for name, value in row[part].items()}
    return row


def _run(row: Row) -> tuple[int, str, int] | None:
    """Return seed and shift of a row; None for a run that failed."""
    return (row["seed"], row["shift_type"], row["level"]) if "error" not in row else None


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where runs are."""
    parser.add_argument("--engine", choices=ENGINES, default="local", help="processes of this machine, or Ray")
    parser.add_argument("--address", help="address of a Ray cluster; default: a Ray on this machine")


def engine_of(options: argparse.Namespace) -> AbstractContextManager[Engine]:
    """Return the engine that the options name, open for a block; every run gets a GPU if the studies use one."""
    return open_engine(options.engine, options.address, gpus=int(device().type == "cuda"))


def main() -> None:
    """Make the rows, and print how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    add_engine_options(parser)
    parser.add_argument("--pilot", action="store_true", help="other seeds than the published ones")
    parser.add_argument("--only", default="", help="the beginning of a study's name")
    options = parser.parse_args()
    files = [file.removeprefix(f"{ORIGINALS}-") for file, _ in plan(PRESETS[options.preset], CACHE)]
    if not any(file.startswith(options.only) for file in files):
        parser.error(f"--only {options.only}: expected the beginning of {', '.join(dict.fromkeys(files))}")
    with engine_of(options) as engine:
        made = make_rows(options.preset, engine, pilot=options.pilot, only=options.only)
    for file, rows in made.items():
        errors = [row["error"] for row in rows if "error" in row]
        print(f"{file}: {len(rows)} rows, {len(errors)} failed {errors[:1] or ''}")


if __name__ == "__main__":
    main()
