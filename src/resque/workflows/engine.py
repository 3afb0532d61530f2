"""Engine for experiment sweeps: many runs as resumable tasks, each done once, in parallel processes.

The result of a task is a row. One process appends rows to a file of JSON Lines, each at the moment its task ends. After
an interruption, tasks with a row are skipped and all others are run. A task that fails leaves a row with its error.
"""

import collections
import concurrent.futures
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resque.errors import DataError

__all__ = ["ExperimentTask", "Row", "read_rows", "run_tasks"]

Row = dict[str, Any]


@dataclass(frozen=True)
class ExperimentTask:
    """One run of a sweep.

    Attributes:
        key: Name of the task, unique in the sweep.
        work: Function of a module that returns the row; called in a process of its own.
        arguments: Keyword arguments of the function; plain values.
    """

    key: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_rows(path: Path) -> dict[str, Row]:
    """Return key → row of all tasks done so far; an incomplete last line is ignored.

    Raises:
        DataError: Another line is not JSON.
    """
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line else None
        except ValueError as error:
            if number == len(lines):
                continue  # an interruption cut it short
            raise DataError(f"{path}, line {number}: not JSON; repair the line or remove it") from error
        if row is not None:
            rows[row["key"]] = row
    return rows


def run_tasks(
    tasks: Iterable[ExperimentTask],
    path: Path,
    workers: int = 1,
    retry_failed: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, key: None,
    max_s: float = math.inf,
) -> dict[str, Row]:
    """Run every task that has no row yet.

    Args:
        tasks: All tasks of the sweep, in the order in which they start.
        path: File of the rows.
        workers: Number of parallel processes, each of which should use one thread; 0 runs in this process.
        retry_failed: Whether failed tasks are run again.
        on_progress: Callback with ``(done, total, key)`` as tasks end.
        max_s: Seconds within which all tasks should end. None starts if the longest so far, in the file or of these,
            would not fit any more; the tasks that are left have no row.

    Returns:
        Key → row of these tasks, in their order. A row holds the task's ``key``, its seconds (``task_s``) and processor
        seconds (``cpu_s``), and the result of the work, or ``error``.

    Raises:
        DataError: Two tasks have the same key.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = run_tasks([ExperimentTask("a", dict, {"x": 1})], Path(folder) / "rows.jsonl", workers=0)
        >>> rows["a"]["x"]
        1
    """
    planned = list(tasks)
    if len({task.key for task in planned}) < len(planned):
        raise DataError("two tasks of the sweep have the same key: give each one of its own")
    done = {key: row for key, row in read_rows(path).items() if not (retry_failed and "error" in row)}
    left = [task for task in planned if task.key not in done]
    _remove_incomplete_line(path)
    if left:
        with path.open("a", encoding="utf-8") as file:
            longest = max((row["task_s"] for row in done.values()), default=0.0)
            for row in _run(left, workers, max_s, longest):
                done[row["key"]] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
                on_progress(len(planned) - sum(task.key not in done for task in planned), len(planned), row["key"])
    return {task.key: done[task.key] for task in planned if task.key in done}


def _run(tasks: Sequence[ExperimentTask], workers: int, max_s: float, longest: float) -> Iterator[Row]:
    """Yield the rows of tasks as they end; start none that may not end in time."""
    start, queue = time.perf_counter(), collections.deque(tasks)

    def has_time() -> bool:
        return time.perf_counter() - start + longest < max_s

    if workers == 0:
        while queue and has_time():
            row = _run_task(queue.popleft())
            longest = max(longest, row["task_s"])
            yield row
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_exit_with_parent) as pool:
        running: set[concurrent.futures.Future[Row]] = set()
        while running or (queue and has_time()):
            while queue and len(running) < workers and has_time():
                running.add(pool.submit(_run_task, queue.popleft()))
            ended, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                longest = max(longest, future.result()["task_s"])
                yield future.result()


def _run_task(task: ExperimentTask) -> Row:
    """Run a task; its row holds any error it raises."""
    start, cpu = time.perf_counter(), time.process_time()
    try:
        row = dict(task.work(**task.arguments))
    except Exception as error:  # the other tasks go on; the row stays and is counted
        row = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {"key": task.key, **row, "task_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def _remove_incomplete_line(path: Path) -> None:
    """Cut off a last line that an interruption left incomplete, and create the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            with path.open("rb+") as file:
                file.truncate(text.rfind(b"\n") + 1)


def _exit_with_parent() -> None:
    """Make a worker exit when its parent process has been killed, because nobody collects its rows."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
