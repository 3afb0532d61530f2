"""Experiment sweeps: every task runs once, across interruptions."""

import dataclasses
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from resque.errors import DataError, SettingError
from resque.workflows.engine import ExperimentTask, LocalEngine, read_rows, run_tasks


def squared(number, log):
    with open(log, "a") as file:
        file.write(f"{number}\n")
    if number == 3:
        raise ValueError("three is too many")
    return {"square": number**2}


def endless(log):
    with open(log, "w") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        pass


def tasks(log, numbers=range(5)):
    return [ExperimentTask(f"n{number}", squared, {"number": number, "log": str(log)}) for number in numbers]


def test_every_task_runs_once_in_order_and_failures_are_kept(tmp_path):
    path, log, seen = tmp_path / "deep" / "rows.jsonl", tmp_path / "log", []
    first = run_tasks(tasks(log, range(2)), path, LocalEngine(2))
    assert [row["square"] for row in first.values()] == [0, 1]
    rows = run_tasks(tasks(log), path, LocalEngine(2), on_progress=lambda done, total, key: seen.append((done, total)))
    assert list(rows) == [f"n{number}" for number in range(5)]
    assert seen == [(3, 5), (4, 5), (5, 5)]
    assert rows["n3"]["error"] == "ValueError: three is too many"
    assert rows["n4"]["square"] == 16
    assert all(row["cpu_s"] >= 0 and row["task_s"] > 0 for row in rows.values())
    assert run_tasks(tasks(log), path) == rows == read_rows(path)
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "4"]
    run_tasks(tasks(log), path, LocalEngine(0), retry_failed=True)
    assert sorted(log.read_text().split()) == ["0", "1", "2", "3", "3", "4"]


@pytest.mark.parametrize("workers", [0, 2])
def test_no_task_starts_that_may_not_end_in_time(tmp_path, workers):
    log = tmp_path / "log"
    assert run_tasks(tasks(log), tmp_path / "none.jsonl", LocalEngine(workers), max_s=0.0) == {}
    assert not log.exists()
    assert list(run_tasks(tasks(log), tmp_path / "all.jsonl", LocalEngine(workers), max_s=600.0)) == [
        f"n{i}" for i in range(5)
    ]


def test_time_of_the_longest_task_is_kept_free_at_the_end(tmp_path, monkeypatch):
    clock = itertools.count()  # each look at the clock is a second later: a task takes one, and so does each check
    monkeypatch.setattr("resque.workflows.engine.time.perf_counter", lambda: float(next(clock)))
    path, log, here = tmp_path / "rows.jsonl", tmp_path / "log", LocalEngine(0)
    assert list(run_tasks(tasks(log), path, here, max_s=5.5)) == ["n0", "n1"]
    assert list(run_tasks(tasks(log), path, here, max_s=2.5)) == ["n0", "n1", "n2"]
    assert list(run_tasks(tasks(log), path, here, max_s=1.5)) == [
        "n0",
        "n1",
        "n2",
    ]  # one lasted a second before


def test_task_with_an_incomplete_line_runs_again(tmp_path):
    path, log = tmp_path / "rows.jsonl", tmp_path / "log"
    run_tasks(tasks(log, range(3)), path)
    whole = path.read_text()
    path.write_text(whole[:-20])
    rows = run_tasks(tasks(log, range(3)), path)
    assert [row["square"] for row in rows.values()] == [0, 1, 4]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["n0", "n1", "n2"]
    assert log.read_text().split() == ["0", "1", "2", "2"]


def test_invalid_rows_and_duplicate_keys_are_refused(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"key": "a"}\nnonsense\n{"key": "b"}\n')
    with pytest.raises(DataError, match="line 2: not JSON"):
        read_rows(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="the same key"):
        run_tasks([ExperimentTask("a", squared), ExperimentTask("a", squared)], tmp_path / "r.jsonl")


@pytest.mark.parametrize("workers", range(5))
@pytest.mark.parametrize("metered", [(), (0,), (2,), (0, 1, 2)])
def test_only_one_measured_run_at_once_on_a_machine(tmp_path, workers, metered):
    log, path = tmp_path / "log", tmp_path / "rows.jsonl"
    some = [dataclasses.replace(task, is_metered=n in metered) for n, task in enumerate(tasks(log, range(3)))]
    if workers > 1 and metered:
        with pytest.raises(SettingError, match="measure the others' energy: use 1 worker") as stop:
            run_tasks(some, path, LocalEngine(workers))
        assert "\n" not in str(stop.value)
    elif workers == 0:
        assert len(run_tasks(some, path, LocalEngine(workers))) == 3


def start(tmp_path, work):
    """Start a sweep in a process of its own; ``work`` is code that makes the tasks."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from resque.workflows.engine import ExperimentTask, run_tasks\n"
        "from test_engine import endless, tasks\n"
        "if __name__ == '__main__':\n"
        f"    run_tasks({work}, Path(sys.argv[3]))\n"
    )
    script, log, path = tmp_path / "sweep.py", tmp_path / "log", tmp_path / "rows.jsonl"
    script.write_text(code)
    command = [sys.executable, str(script), os.path.dirname(__file__), str(log), str(path)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True), log, path


def test_killed_sweep_resumes(tmp_path):
    process, log, path = start(tmp_path, "tasks(sys.argv[2], range(40))")
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") >= 3):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = [row["square"] for row in read_rows(path).values() if "square" in row]
    rows = run_tasks(tasks(log, range(40)), path)
    assert len(rows) == len(path.read_text().splitlines()) == 40
    assert len(before) >= 2
    times = Counter(log.read_text().split())
    assert set(times) == {str(number) for number in range(40)}
    assert all(times[str(round(square**0.5))] == 1 for square in before)


def test_no_worker_outlives_a_killed_sweep(tmp_path):
    process, log, _ = start(tmp_path, "[ExperimentTask('a', endless, {'log': sys.argv[2]})]")
    while process.poll() is None and not (log.exists() and log.read_text().endswith("\n")):
        pass
    worker = int(log.read_text())
    process.kill()
    process.wait()
    state, deadline = pathlib.Path(f"/proc/{worker}/stat"), time.monotonic() + 60

    def alive():
        return state.exists() and state.read_text().split()[2] != "Z"

    while alive() and time.monotonic() < deadline:
        pass
    assert not alive()
