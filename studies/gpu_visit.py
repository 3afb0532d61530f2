"""Run everything that needs a GPU within a time limit: correctness, energy, speed, and the paper's networks.

Each part appends rows to files of JSON Lines in the folder of the results, and skips what has a row already. So a cut
loses nothing, and the next visit goes on. The paper's networks follow one another in the order of the preset, one seed
after the other. A visit trains its own original models, whose weights stay in the cache.

    python studies/gpu_visit.py --seconds 480
    DEVICE=cpu python studies/gpu_visit.py --seconds 120 --preset gpu-tiny --results /tmp/results
"""

import argparse
import dataclasses
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

from gpu_energy import energy_table, energy_tasks
from gpu_speed import speed_table, speed_tasks
from presets import PILOT_SEEDS, PRESETS, ShiftStudy
from resque.energy.meters import open_meter
from resque.training.environment import describe_host
from resque.workflows.diagnostics import machine_facts
from resque.workflows.engine import ExperimentTask, Row, read_rows, run_tasks
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
    """

    def __init__(self, seconds: float, results: Path, tiny: bool) -> None:
        self._end = time.perf_counter() + seconds
        self.results, self.tiny = results, tiny

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit."""
        return self._end - time.perf_counter()

    def run(self, tasks: list[ExperimentTask], file: Path) -> list[Row]:
        """Run tasks one after the other in this process, as long as there is time, and say how each ended."""
        started = time.perf_counter()

        def show(done: int, total: int, key: str) -> None:
            print(f"{self.seconds_left:6.0f} s left  {done}/{total}  {key}", flush=True)

        rows = run_tasks(tasks, file, workers=0, retry_failed=True, on_progress=show, max_s=self.seconds_left)
        for row in rows.values():
            if "error" in row:
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
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "--durations=5",
            f"--junitxml={report}",
            str(TESTS),
        ]
        subprocess.run(command, timeout=seconds, check=False)
        suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = [case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None]
    if counts["failures"] or counts["errors"] or not counts["tests"]:
        raise RuntimeError(f"{counts['failures']} of {counts['tests']} tests failed: {', '.join(failed)}")
    return {"tests": counts["tests"], "skipped": counts["skipped"], "host": describe_host(device())}


def check_correctness(visit: Visit) -> None:
    """Run the tests of the device."""
    task = ExperimentTask("device tests", run_device_tests, {"seconds": max(1.0, visit.seconds_left)})
    visit.run([task], visit.results / "correctness.jsonl")


def measure_energy(visit: Visit) -> None:
    """Measure how well the energy of short windows is known."""
    visit.run(energy_tasks(str(device()), visit.tiny), visit.results / "energy.jsonl")


def measure_speed(visit: Visit) -> None:
    """Measure passes, steps, epochs and waits."""
    visit.run(speed_tasks(str(device()), visit.tiny), visit.results / "speed.jsonl")


def write_tables(results: Path) -> None:
    """Write the tables of the rows that exist."""
    for name, table in (("energy", energy_table), ("speed", speed_table)):
        rows = read_rows(results / f"{name}.jsonl")
        if rows:
            (results / f"{name}.md").write_text(table(rows.values()), encoding="utf-8")


def gather_evidence(visit: Visit, studies: tuple[ShiftStudy, ...], cache: Path) -> None:
    """Make the rows of the studies: one network after the other, and one seed after the other."""
    for study in by_seed(studies):
        for file, tasks in plan_shift_study(study, cache):
            folder = cache if file.startswith(ORIGINALS) else visit.results
            if tasks and not all_done(tasks, folder / f"{file}.jsonl"):
                rows = visit.run(tasks, folder / f"{file}.jsonl")
                if len(rows) < len(tasks):
                    return


def all_done(tasks: list[ExperimentTask], file: Path) -> bool:
    """Return whether each task has a row that did not fail."""
    rows = read_rows(file)
    return all(task.key in rows and "error" not in rows[task.key] for task in tasks)


def by_seed(studies: tuple[ShiftStudy, ...]) -> Iterator[ShiftStudy]:
    """Yield each study with one of its seeds: all studies with the first seed, then all with the second."""
    for seed in dict.fromkeys(seed for study in studies for seed in study.seeds):
        for study in studies:
            if seed in study.seeds:
                yield dataclasses.replace(study, seeds=(seed,))


def pilot(studies: tuple[ShiftStudy, ...]) -> tuple[ShiftStudy, ...]:
    """Return one study per network, with a seed that is not published and few shifts, to choose targets by."""
    first_of_network = {study.model: study for study in reversed(studies)}
    return tuple(
        dataclasses.replace(study, seeds=PILOT_SEEDS, shifts=study.shifts[:PILOT_SHIFTS])
        for study in reversed(first_of_network.values())
    )


def show_curves(path: Path) -> None:
    """Print the learning curve of each row of a file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if "error" not in row:
            curve = row["update"]["curve"]
            points = " ".join(
                f"{step}:{accuracy:.3f}" for step, accuracy in zip(curve["steps"], curve["accuracy"], strict=True)
            )
            print(f"{row['key']}: {row['task_s']:.1f} s; {points}")


def describe_machine(results: Path) -> None:
    """Write what this machine is and offers."""
    place = device()
    facts = machine_facts(open_meter(place)) | describe_host(place) | {"cores": os.cpu_count()}
    (results / "machine.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(facts))


def main() -> None:
    """Run the parts in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit")
    parser.add_argument("--preset", choices=[name for name in PRESETS if name.startswith("gpu")], default="gpu")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu", help="folder of the rows")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the original models")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of the parts, separated by commas")
    parser.add_argument("--pilot", action="store_true", help="another seed and few shifts, to choose targets by")
    options = parser.parse_args()
    visit = Visit(options.seconds, options.results, tiny=options.preset.endswith("tiny"))
    studies, cache = PRESETS[options.preset].shifts, options.cache / options.preset
    if options.pilot:
        studies, cache = pilot(studies), cache / "pilot"
        visit.results = visit.results / "pilot"
    visit.results.mkdir(parents=True, exist_ok=True)
    parts = options.parts.split(",")
    if parts != ["tables"]:
        describe_machine(visit.results)
    work: dict[str, Callable[[], None]] = {
        "correctness": lambda: check_correctness(visit),
        "energy": lambda: measure_energy(visit),
        "speed": lambda: measure_speed(visit),
        "evidence": lambda: gather_evidence(visit, studies, cache),
        "tables": lambda: write_tables(visit.results),
    }
    for part in parts:
        print(f"== {part}, {visit.seconds_left:.0f} s left", flush=True)
        work[part]()
    if options.pilot:
        for path in sorted([*cache.glob("*.jsonl"), *visit.results.glob("*-fashion*.jsonl")]):
            show_curves(path)


if __name__ == "__main__":
    main()
