"""Measure every case, and write the table of ratios, the figure of growth, and the pages that hold more.

A case that was measured is not measured again when a run that was interrupted is started once more. Rounds and sizes
can be reduced to try it out; what is committed has the default ones.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import commands, epoch, passes, representations, shares
from benchmarks.curves import write_curves
from benchmarks.measuring import Case, Row, measure
from benchmarks.table import table
from resque.workflows.engine import ExperimentTask, LocalEngine, run_tasks

__all__ = ["CASES", "PAGES", "main"]

CASES = {
    case.name: case for module in (passes, representations, epoch, shares, commands) for case in module.CASES
}  # fmt: skip
PAGES = ("memory", "epoch", "intervals", "sampling", "streaming")
"""Modules with a page of their own, which is written on request only."""
HERE = Path(__file__).parent
ROWS = "rows.jsonl.part"
Page = Callable[[int | None, float], Iterator[str]]


def measured(name: str, rounds: int | None, scale: float) -> Row:
    """Measure a case; return its row, with the load of the machine, or with the reason why it is left out."""
    case = CASES[name]
    for noisy in ("lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            variants = case.prepare(scale)
        except ImportError as error:
            return {"left_out": str(error)}
        return {**measure(variants, rounds or case.rounds, case.most_s), "load": os.getloadavg()[0]}


def measure_all(cases: Iterable[Case], path: Path, rounds: int | None, scale: float) -> dict[str, Row]:
    """Return name → row of every case; those that the file holds are not measured again."""
    tasks = [
        ExperimentTask(
            f"{case.name} ({rounds or case.rounds} rounds, scale {scale:g})",
            measured,
            {"name": case.name, "rounds": rounds, "scale": scale},
        )
        for case in cases
    ]
    found = run_tasks(tasks, path, LocalEngine(0), retry_failed=True, on_progress=Progress())
    return {task.arguments["name"]: found[task.key] for task in tasks}


class Progress:
    """Line for each case that ended, with the time that the others may take."""

    def __init__(self) -> None:
        self._start, self._measured = time.perf_counter(), 0

    def __call__(self, done: int, total: int, key: str) -> None:
        """Print the line."""
        self._measured += 1
        left_s = (time.perf_counter() - self._start) / self._measured * (total - done)
        print(f"{done} of {total}, about {left_s / 60.0:.0f} min left: {key}", file=sys.stderr, flush=True)


def chosen(words: Sequence[str] | None, names: Iterable[str]) -> list[str]:
    """Return the names that hold one of the words."""
    return [name for name in names if any(word.lower() in name.lower() for word in words or ())]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table as Markdown, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        metavar="WORD",
        help="print the cases with this word in their name, and write nothing; repeatable",
    )
    parser.add_argument("--page", choices=PAGES, help="write this page instead, which takes minutes")
    parser.add_argument("--rounds", type=int, help="rounds, or repetitions of a page; each has a default")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the sizes; below 1 to try it out")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.md, growth.svg and the pages")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.page:
        page: Page = importlib.import_module(f"benchmarks.{options.page}").page
        write(options.out / f"{options.page}.md", page(options.rounds, options.scale))
        return
    names = chosen(options.only, CASES) if options.only else [*CASES]
    if not names:
        parser.error(f"--only {options.only[0]}: no case has it in its name; expected a word of {'; '.join(CASES)}")
    cases = [CASES[name] for name in names]
    if options.only:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure_all(cases, Path(folder) / ROWS, options.rounds, options.scale)
        print("\n".join(table(cases, rows, options.scale)))
        return
    rows = measure_all(cases, options.out / ROWS, options.rounds, options.scale)
    write(options.out / "results.md", table(cases, rows, options.scale))
    write_curves(cases, rows, options.out / "growth.svg")
    (options.out / ROWS).unlink()


def write(path: Path, lines: Iterable[str]) -> None:
    """Print lines as they come, and write them to a file."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line)
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
