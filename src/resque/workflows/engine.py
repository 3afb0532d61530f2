"""Many runs as resumable tasks: each done once, in processes side by side, its row kept the moment it ends.

The rows are a file of JSON Lines that one process writes, a line at a time. Kill it whenever you like: what was under
way is done again, what has a row is not. A task that fails leaves a row that says so.
"""

import concurrent.futures
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resque.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class ExperimentTask:
    """One run.

    Attributes:
        key: Its name, which no other task of the campaign has.
        work: A function of a module, called in a process of its own.
        arguments: What it is called with, by name; plain values.
    """

    key: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_rows(path: Path) -> dict[str, Row]:
    """Key → row of all that has been done; a last line that a kill cut short is passed over.

    Raises:
        DataError: A line that is none of a campaign's, anywhere else.
    """
    found: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line else None
        except ValueError as error:
            if number == len(lines):
                continue
            raise DataError(f"{path}, line {number}: no JSON; mend the line or remove it") from error
        if row is not None:
            found[row["key"]] = row
    return found


def run_tasks(
    tasks: Iterable[ExperimentTask],
    path: Path,
    workers: int = 1,
    again: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, key: None,
) -> dict[str, Row]:
    """Do every task that has no row yet.

    Args:
        tasks: All of the campaign, in the order in which they shall begin.
        path: The rows.
        workers: Processes side by side, each of which should use one thread; 0 works in this process.
        again: Whether what failed is done again.
        on_progress: Called with ``(done, all, key)`` as tasks end.

    Returns:
        Key → row of these tasks, in their order. A row has the task's ``key``, its seconds (``task_s``) and processor
        seconds (``cpu_s``), and what the work gave, or ``error``.

    Raises:
        DataError: Two tasks of one key.
    """
    planned = list(tasks)
    if len({task.key for task in planned}) < len(planned):
        raise DataError("two tasks of the campaign have the same key: give each one of its own")
    done = {key: row for key, row in read_rows(path).items() if not (again and "error" in row)}
    left = [task for task in planned if task.key not in done]
    _mend(path)
    if left:
        with path.open("a", encoding="utf-8") as file:
            for row in _worked(left, workers):
                done[row["key"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
                on_progress(len(planned) - sum(task.key not in done for task in planned), len(planned), row["key"])
    return {task.key: done[task.key] for task in planned}


def _worked(tasks: Sequence[ExperimentTask], workers: int) -> Iterator[Row]:
    """Rows as their tasks end."""
    if workers == 0:
        yield from map(_done, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_end_with_the_campaign) as pool:
        running = [pool.submit(_done, task) for task in tasks]
        for future in concurrent.futures.as_completed(running):
            yield future.result()


def _mend(path: Path) -> None:
    """Cut off a line that a kill left unfinished, so that the next one begins on its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            with path.open("rb+") as file:
                file.truncate(text.rfind(b"\n") + 1)


def _end_with_the_campaign() -> None:
    """A worker whose campaign was killed has nobody to give its row to."""

    def on_progress() -> None:
        campaign = multiprocessing.parent_process()
        if campaign is not None:
            campaign.join()
            os._exit(1)

    threading.Thread(target=on_progress, daemon=True).start()


def _done(task: ExperimentTask) -> Row:
    """The row of a task; whatever it raises is in it."""
    start, cpu = time.perf_counter(), time.process_time()
    try:
        row = dict(task.work(**task.arguments))
    except Exception as error:  # a campaign goes on; the row stays and is counted
        row = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"key": task.key, **row, "task_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}
