"""Run everything that needs a GPU within a time limit: correctness, energy, speed, and the paper's networks.

Each part appends rows to files of JSON Lines in the folder of the results, and skips what has a row already. So a cut
loses nothing, and the next visit goes on. The paper's networks follow one another in the order of the preset, one seed
after the other. A visit trains its own original models, whose weights stay in the cache; a later visit takes other
seeds.

    python studies/gpu_visit.py --seconds 480
    DEVICE=cpu python studies/gpu_visit.py --seconds 120 --preset gpu-tiny --results /tmp/results
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from gpu_energy import energy_table, energy_tasks
from gpu_speed import speed_table, speed_tasks
from presets import PILOT_SEEDS, PRESETS, ShiftStudy
from resque.energy.meters import open_meter
from resque.training.environment import describe_host
from resque.workflows.diagnostics import machine_facts, machine_warnings
from resque.workflows.engine import ExperimentTask, LocalEngine, Row, read_rows, run_tasks
from runs import CACHE, ORIGINALS, RESULTS, plan_shift_study
from shift_rows import device

PARTS = ("correctness", "energy", "speed", "evidence", "tables")
PILOT_SHIFTS = 2
TESTS = Path(__file__).parents[1] / "tests" / "gpu"


class Visit:
    """A visit to a machine: what is left of its time, and where its rows go.

    Args:
        seconds: Time limit.
        results: Folder of the rows.
        tiny: Whether everything is as short as possible.

    Attributes:
        failed: Number of tasks that failed.
    """

    def __init__(self, seconds: float, results: Path, tiny: bool) -> None:
        self._end = time.perf_counter() + seconds
        self._longest = 0.0
        self.results, self.tiny, self.failed = results, tiny, 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit."""
        return self._end - time.perf_counter()

    def run(self, tasks: list[ExperimentTask], file: Path) -> list[Row]:
        """Run tasks one after the other in this process, as long as there is time, and say how each ended.

        The first task of a file needs as much time as the longest of this visit so far.
        """
        started, left = time.perf_counter(), self.seconds_left

        def show(done: int, total: int, key: str) -> None:
            print(f"{self.seconds_left:6.0f} s left  {done}/{total}  {key}", flush=True)

        max_s = left if left > self._longest else 0.0
        rows = run_tasks(tasks, file, LocalEngine(0), retry_failed=True, on_progress=show, max_s=max_s)
        for row in rows.values():
            self._longest = max(self._longest, row["task_s"])
            if "error" in row:
                self.failed += 1
                print(f"  failed: {row['key']}: {row['error']}")
        print(f"{file.name}: {len(rows)} of {len(tasks)} rows, {time.perf_counter() - started:.0f} s", flush=True)
        return list(rows.values())


def run_device_tests(seconds: float) -> Row:
    """Run the tests of the device in a process of their own; return how many passed, failed and were skipped.

    Raises:
        RuntimeError: Tests failed, or did not end in time.
    """
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--durations=5", f"--junitxml={report}"]
        done = subprocess.run([*command, str(TESTS)], timeout=seconds, check=False)
        if not report.is_file():
            raise RuntimeError(f"pytest ended with {done.returncode} and no report")
        suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    bad = [case.attrib["name"] for case in suite.iter("testcase") if {"failure", "error"} & {e.tag for e in case}]
    if bad or not counts["tests"]:
        raise RuntimeError(f"{len(bad)} of {counts['tests']} failed, {counts['skipped']} skipped: {', '.join(bad)}")
    return {"tests": counts["tests"], "skipped": counts["skipped"], "host": describe_host(device())}


def check_correctness(visit: Visit) -> None:
    """Run the tests of the device."""
    task = ExperimentTask("device tests", run_device_tests, {"seconds": max(1.0, visit.seconds_left)})
    visit.run([task], visit.results / "correctness.jsonl")


def write_tables(results: Path) -> None:
    """Write the tables of the rows that exist."""
    for name, table in (("energy", energy_table), ("speed", speed_table)):
        rows = read_rows(results / f"{name}.jsonl")
        if rows:
            (results / f"{name}.md").write_text(table(rows.values()), encoding="utf-8")


def gather_evidence(visit: Visit, studies: tuple[ShiftStudy, ...], cache: Path) -> None:
    """Make the rows of the studies: one network after the other, one seed after the other, then more data.

    A seed whose original model is not here is left as it is: its rows must have one original model.
    """
    for study in by_seed(studies):
        (seed,) = study.seeds
        weights, originals = cache / f"{study.name}-{seed}.safetensors", cache / f"{ORIGINALS}-{study.name}.jsonl"
        begun = any(row.get("seed") == seed for row in read_rows(visit.results / f"{study.name}.jsonl").values())
        if not weights.is_file():
            if begun:
                print(f"{study.name}, seed {seed}: begun with an original model that is not here, so left as it is")
                continue
            originals.unlink(missing_ok=True)  # its model is gone
        for file, tasks in plan_shift_study(study, cache):
            is_original = file.startswith(ORIGINALS)
            path = (cache if is_original else visit.results) / f"{file}.jsonl"
            if tasks and not all_done(tasks, path):
                rows = visit.run(tasks, path)
                if len(rows) < len(tasks) or (is_original and any("error" in row for row in rows)):
                    return


def all_done(tasks: list[ExperimentTask], file: Path) -> bool:
    """Return whether each task has a row that did not fail."""
    rows = read_rows(file)
    return all(task.key in rows and "error" not in rows[task.key] for task in tasks)


def by_seed(studies: tuple[ShiftStudy, ...]) -> Iterator[ShiftStudy]:
    """Yield each study with one of its seeds: studies of the same data with the first seed, then with the second."""
    for _, group in itertools.groupby(studies, key=lambda study: study.train):
        alike = list(group)
        for seed in dict.fromkeys(seed for study in alike for seed in study.seeds):
            yield from (dataclasses.replace(study, seeds=(seed,)) for study in alike if seed in study.seeds)


def pilot(studies: tuple[ShiftStudy, ...]) -> tuple[ShiftStudy, ...]:
    """Return one study per network, with a seed that is not published and few shifts, to choose targets by."""
    first_of_network = {study.model: study for study in reversed(studies)}
    return tuple(
        dataclasses.replace(study, seeds=PILOT_SEEDS, shifts=study.shifts[:PILOT_SHIFTS])
        for study in reversed(first_of_network.values())
    )


def show_curves(path: Path) -> None:
    """Print the learning curve of each row of a file."""
    for row in read_rows(path).values():
        if "error" not in row:
            curve = row["update"]["curve"]
            points = zip(curve["steps"], curve["accuracy"], strict=True)
            shown = " ".join(f"{step}:{accuracy:.3f}" for step, accuracy in points)
            print(f"{row['key']}: {row['task_s']:.1f} s; {shown}")


def describe_machine(results: Path) -> None:
    """Write what this machine is and offers, beside the others that made rows in this folder.

    Raises:
        SystemExit: The rows in the folder are of another kind of device.
    """
    place, path = device(), results / "machine.json"
    meter = open_meter(place)
    host = describe_host(place)
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if any(name.split(":")[0] != place.type for name in known):
        raise SystemExit(f"{results} has rows of {', '.join(known)}, not of a {place.type}: name another --results")
    known[host["device"]] = machine_facts(meter) | host | {"cores": os.cpu_count()} | card_facts(place)
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(known[host["device"]]))
    for warning in machine_warnings(meter):
        print(f"warning: {warning}")


def card_facts(place: torch.device) -> dict[str, Any]:
    """Return the version of the driver and the power limit of a GPU; nothing for the CPU."""
    if place.type != "cuda":
        return {}
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(place).uuid}")
        limit_w = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000.0
        return {"driver": pynvml.nvmlSystemGetDriverVersion(), "power_limit_w": limit_w}
    except pynvml.NVMLError as error:
        return {"driver": f"unknown: {error}"}


def main() -> int:
    """Run the parts in order; return 1 if a task failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name.startswith("gpu")], default="gpu")
    parser.add_argument("--results", type=Path, help="folder of the rows; default: studies/results/PRESET")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the original models")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="some of the parts, in their order")
    parser.add_argument("--networks", nargs="+", metavar="NAME", help="some of the networks of the preset")
    parser.add_argument("--pilot", action="store_true", help="another seed and few shifts, to choose targets by")
    options = parser.parse_args()
    results = options.results or RESULTS / options.preset
    visit = Visit(options.seconds, results / "pilot" if options.pilot else results, options.preset.endswith("tiny"))
    studies, cache = PRESETS[options.preset].shifts, options.cache / options.preset
    if options.networks:
        studies = tuple(study for study in studies if study.model.split(":")[-1] in options.networks)
    if options.pilot:
        studies, cache = pilot(studies), cache / "pilot"
    visit.results.mkdir(parents=True, exist_ok=True)
    if options.parts != ["tables"]:
        describe_machine(visit.results)
    name, tiny = str(device()), visit.tiny
    work: dict[str, Callable[[], Any]] = {
        "correctness": lambda: check_correctness(visit),
        "energy": lambda: visit.run(energy_tasks(name, tiny), visit.results / "energy.jsonl"),
        "speed": lambda: visit.run(speed_tasks(name, tiny), visit.results / "speed.jsonl"),
        "evidence": lambda: gather_evidence(visit, studies, cache),
        "tables": lambda: write_tables(visit.results),
    }
    for part in options.parts:
        print(f"== {part}, {visit.seconds_left:.0f} s left", flush=True)
        work[part]()
    for path in sorted(visit.results.glob("*-fashion*.jsonl")) if options.pilot else ():
        show_curves(path)
    return int(visit.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
