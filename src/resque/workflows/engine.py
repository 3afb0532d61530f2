"""Experiment sweeps: many runs as resumable tasks, each done once, by an engine.

The result of a task is a row. One process, the driver, appends rows to a file of JSON Lines, each at the moment its
task ends. After an interruption, tasks with a row are skipped and all others are run. A task that fails leaves a row
with its error. An engine says where tasks run: in processes of this machine, or on a cluster
(:mod:`resque.workflows.ray_engine`).
"""

import concurrent.futures
import json
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from resque._threads import limit_threads, threads_per_task
from resque.errors import DataError, SettingError

__all__ = ["Engine", "ExperimentTask", "LocalEngine", "Row", "read_rows", "run_tasks"]

Row = dict[str, Any]


@dataclass(frozen=True)
class ExperimentTask:
    """One run of a sweep.

    Attributes:
        key: Name of the task, unique in the sweep.
        work: Function of a module that returns the row; called in a process of its own.
        arguments: Keyword arguments of the function; plain values.
        is_metered: Whether it measures energy, so that no other one may run beside it.
    """

    key: str
    work: Callable[..., Row]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_metered: bool = False


class Engine(Protocol):
    """Interface of what runs tasks."""

    def run(self, tasks: Iterable[ExperimentTask]) -> Iterator[tuple[str, Row]]:
        """Yield ``(key, row)`` of tasks as they end; a task is taken when it can start, and its error is raised.

        A task that ends its process has a row with ``error`` alone, if the engine outlives that.
        """


@dataclass(frozen=True)
class LocalEngine:
    """Runs tasks in processes of this machine.

    Attributes:
        workers: Number of processes at once; 0 works in this process.

    Example:
        >>> list(LocalEngine(0).run([ExperimentTask("a", dict, {"x": 1})]))
        [('a', {'x': 1})]
    """

    workers: int = 1

    def run(self, tasks: Iterable[ExperimentTask]) -> Iterator[tuple[str, Row]]:
        """Yield ``(key, row)`` of tasks as they end.

        Raises:
            SettingError: A task measures energy, and more than one would run at once.
        """
        queue = map(self._checked, tasks)
        if self.workers == 0:
            yield from ((task.key, task.work(**task.arguments)) for task in queue)
            return
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        with concurrent.futures.ProcessPoolExecutor(self.workers, context, initializer=_start_worker) as pool:
            running: dict[concurrent.futures.Future[Row], str] = {}
            while True:
                while len(running) < self.workers and (task := next(queue, None)) is not None:
                    running[pool.submit(task.work, **task.arguments)] = task.key
                if not running:
                    return
                for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)[0]:
                    yield running.pop(future), future.result()

    def _checked(self, task: ExperimentTask) -> ExperimentTask:
        if task.is_metered and self.workers > 1:
            raise SettingError(
                f"{self.workers} runs at once on one machine, and each would measure the others' energy: use 1 worker, "
                "or a Ray cluster (--engine ray --address ADDRESS)"
            )
        return task


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
    engine: Engine | None = None,
    retry_failed: bool = False,
    on_progress: Callable[[int, int, str], None] = lambda done, total, key: None,
    max_s: float = math.inf,
) -> dict[str, Row]:
    """Run every task that has no row yet.

    Args:
        tasks: All tasks of the sweep, in the order in which they start.
        path: File of the rows.
        engine: Where tasks run; None takes one process of this machine.
        retry_failed: Whether failed tasks are run again.
        on_progress: Callback with ``(done, total, key)`` as tasks end.
        max_s: Seconds within which all tasks should end. None starts if the longest so far, in the file or of these,
            would not fit any more; the tasks that are left have no row.

    Returns:
        Key → row of these tasks, in their order. A row holds the task's ``key``, its seconds (``task_s``) and processor
        seconds (``cpu_s``), and the result of the work, or ``error``; ``error`` alone if its process was lost.

    Raises:
        DataError: Two tasks have the same key.
        SettingError: A task measures energy, and the engine would run another beside it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = run_tasks([ExperimentTask("a", dict, {"x": 1})], Path(folder) / "rows.jsonl", LocalEngine(0))
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
            for key, row in (engine or LocalEngine()).run(_in_time(left, done, max_s)):
                done[key] = {"key": key, **row}
                file.write(json.dumps(done[key]) + "\n")
                file.flush()
                os.fsync(file.fileno())
                on_progress(len(planned) - sum(task.key not in done for task in planned), len(planned), key)
    return {task.key: done[task.key] for task in planned if task.key in done}


def _in_time(tasks: Iterable[ExperimentTask], done: Mapping[str, Row], max_s: float) -> Iterator[ExperimentTask]:
    """Yield tasks, timed and with their errors in their rows, as long as the next one may end in time."""
    start = time.perf_counter()
    for task in tasks:
        longest = max((row.get("task_s", 0.0) for row in done.values()), default=0.0)
        if time.perf_counter() - start + longest >= max_s:
            return
        yield replace(task, work=_timed, arguments={"work": task.work, "arguments": task.arguments})


def _timed(work: Callable[..., Row], arguments: Mapping[str, Any]) -> Row:
    """Return the row of a task with its seconds; it holds any error that the task raises."""
    start, cpu = time.perf_counter(), time.process_time()
    try:
        row = dict(work(**arguments))
    except Exception as error:  # the other tasks go on; the row stays and is counted
        row = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**row, "task_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def _remove_incomplete_line(path: Path) -> None:
    """Cut off a last line that an interruption left incomplete, and create the folder of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        text = path.read_bytes()
        if text and not text.endswith(b"\n"):
            with path.open("rb+") as file:
                file.truncate(text.rfind(b"\n") + 1)


def _start_worker() -> None:
    """Limit the threads of a worker; make it exit when its parent has been killed, because nobody collects its rows."""
    limit_threads(threads_per_task())

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
