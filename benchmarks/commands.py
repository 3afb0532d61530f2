"""What a command takes from start to end, as users run it: a process of its own, beside ``python -c "import torch"``.

The data are few, so that start-up weighs most. Also here: one process beside two, and a ledger that grows.
"""

import atexit
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.measuring import Case, Comparison, Curve, scaled
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Update
from resque.ledger.store import Ledger

NET = """
import torch
from resque.models.networks import {name}


def build():
    torch.manual_seed(0)
    return {name}()
"""
RUN = sys.executable, "-m", "resque"
NOTHING, TORCH, ALONE = 'python -c "pass"', 'python -c "import torch"', "profile, 1 process"
MODEL = "--model net.py:build"
SHIFT = f"{MODEL} --original p.safetensors --shifted npz:new.npz"
AIMED = "--test npz:new.npz --target-accuracy 0.9 --country FRA"
QUICK = {"--help": "--help", "ledger list": "ledger list --ledger some.db", "report": "report --ledger some.db"}
PASSING = {
    "profile": f"profile {MODEL} --data npz:clean.npz --out out.safetensors",
    "merge": "merge s1.safetensors s2.safetensors --out merged.safetensors",
    "dist": f"dist {SHIFT}",
    "explain": f"explain {SHIFT}",
    "ledger validate": "ledger validate --ledger few.db --target-accuracy 0.9",
    "doctor": "doctor",
}
STEPPING = {
    "task": f"task {MODEL} --data npz:clean.npz",
    "forecast": f"forecast {SHIFT} {AIMED} --ledger some.db",
    "compare": f"compare {SHIFT} {AIMED} --ledger some.db",
    "retrain": f"retrain {MODEL} --train npz:new.npz {AIMED} --recipe retrain-adam,max_epochs=1 --ledger out.db",
}
SAMPLES = 300
MAY_END_WITH = {0, 3, 4}  # a gate's codes are answers, too


def copies(count: int) -> list[Update]:
    """Return updates of the bundled history under new ids."""
    known = bundled_updates()
    return [dataclasses.replace(known[number % len(known)], id=f"e{number:08d}") for number in range(count)]


def workplace() -> Path:
    """Create a temporary folder, which goes with this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(arguments: tuple[str, ...] | list[str], folder: Path) -> None:
    """Run a process to its end; raise ChildProcessError if it fails."""
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in MAY_END_WITH:
        raise ChildProcessError(
            f"{' '.join(arguments[2:5])} ended with {done.returncode}: {done.stderr.strip()[-200:]}"
        )


def write_images(path: Path, n: int, side: int, shift: float, channels: int = 1) -> None:
    """Write images of ten classes, each a pattern of its own under noise."""
    generator = np.random.default_rng(0)
    patterns = np.random.default_rng(1).uniform(0, 120, (10, side, side, channels))
    labels = np.arange(n) % 10
    images = patterns[labels] + generator.uniform(0, 100 + shift, (n, side, side, channels))
    np.savez(path, x=images.clip(0, 255).astype(np.uint8).squeeze(), y=labels)


def prepared(scale: float) -> Path:
    """Create a folder with a model, data, profiles and ledgers."""
    folder = workplace()
    (folder / "net.py").write_text(NET.format(name="small_cnn"))
    n = scaled(SAMPLES, scale, 40)
    write_images(folder / "clean.npz", n, 16, 0.0)
    write_images(folder / "new.npz", n, 16, 60.0)
    Ledger(folder / "some.db").extend(copies(50))
    Ledger(folder / "few.db").extend(copies(12))
    for name in ("p", "s1", "s2"):
        shard = [] if name == "p" else ["--shard", f"{name[1]}/2"]
        run([*RUN, *f"profile {MODEL} --data npz:clean.npz --out {name}.safetensors".split(), *shard], folder)
    return folder


def commands(lines: dict[str, str], scale: float) -> dict[str, Callable[[], object]]:
    """Return each command, and the floors beside them."""
    folder = prepared(scale)
    floors = {NOTHING: "pass", TORCH: "import torch"}
    floor = {name: partial(run, (sys.executable, "-c", code), folder) for name, code in floors.items()}
    return {**floor, **{name: partial(run, [*RUN, *line.split()], folder) for name, line in lines.items()}}


def processes(n: int, scale: float) -> dict[str, Callable[[], object]]:
    """Return a profile by one process and by two under torchrun, each with one thread."""
    folder = workplace()
    (folder / "net.py").write_text(NET.format(name="resnet18"))
    write_images(folder / "images.npz", scaled(n, scale, 20), 32, 0.0, 3)
    line = f"profile {MODEL} --data npz:images.npz --out p.safetensors".split()
    torchrun = sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "resque"
    return {ALONE: partial(run, [*RUN, *line], folder), "2 processes": partial(run, [*torchrun, *line], folder)}


def ledgers(sizes: tuple[int, ...], scale: float) -> dict[str, Callable[[], object]]:
    """Return what is read of ever larger ledgers: all of it, and the rows that a forecast learns from."""
    from resque.forecasting.selection import updates_to_learn_from

    folder, found = workplace(), {}
    parent = bundled_updates()[0].parent
    for size in sizes:
        ledger = Ledger(folder / f"{size}.db")
        ledger.extend(copies(scaled(size, scale, 5)))
        found[f"read every update|{size}"] = ledger.updates
        found[f"rows of a forecast|{size}"] = partial(updates_to_learn_from, ledger, parent, new_tasks=False)
    return found


def rows(lines: dict[str, str], floor: str) -> tuple[Comparison, ...]:
    """Return a row for each command."""
    return tuple(Comparison(name, floor) for name in lines)


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SIZE = f"{SAMPLES} images of 16 × 16"
CASES = (
    Case("commands without a model", "50 updates", partial(commands, QUICK), rows(QUICK, NOTHING), rounds=5),
    Case("commands that pass data", SIZE, partial(commands, PASSING), rows(PASSING, TORCH), rounds=5, most_s=90.0),
    Case("commands that train", SIZE, partial(commands, STEPPING), rows(STEPPING, TORCH), rounds=5, most_s=120.0),
    Case(
        "two processes",
        f"1,000 images of 32 × 32, ResNet18, {CORES} cores",
        partial(processes, 1_000),
        (Comparison("2 processes", ALONE),),
        rounds=3,
        most_s=60.0,
    ),
    Case(
        "growth with the ledger",
        "",
        partial(ledgers, (10, 100, 1_000, 10_000)),
        curve=Curve("bundled updates, copied", "updates in the ledger"),
        rounds=3,
    ),
)
