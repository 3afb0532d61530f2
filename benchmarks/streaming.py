"""Measure peak memory and processor time of passes over streams of 10,000 to 1,000,000 synthetic samples.

The samples are 32×32 color images of noise as PNG, 10,000 in a file; larger streams have more such files, links to one.
The model is nearly free: one linear layer. Each run is a process of its own, whose peak and times the system counts.
It is the page ``streaming``.
"""

import io
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from PIL import Image

from benchmarks.table import machine

PER_FILE = 10_000
POLL_S = 0.02
SIZES = 10_000, 100_000, 1_000_000
NET = """
import torch
from torch import nn


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 10))
"""
TRAIN = """
import sys
import resque
import torch
from net import build

model, stream = build(), resque.open_stream(sys.argv[1])
optimizer = torch.optim.SGD(model.parameters(), 0.01)
for inputs, labels in stream.batches(32, buffer=10_000):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
"""
RESQUE = "-m", "resque"
PROFILE = *RESQUE, "profile", "--model", "net.py:build", "--out", "p.safetensors", "--data"
DIST = *RESQUE, "dist", "--model", "net.py:build", "--original", "clean.safetensors"
PSEUDO = *DIST, "--labels", "pseudo", "--undefined", "skip", "--shifted"
JOBS = {
    "profile, Parquet": (*PROFILE, "{parquet}"),
    "profile, tar": (*PROFILE, "{tar}"),
    "dist, pseudo-labels, Parquet": (*PSEUDO, "{parquet}"),
    "training, buffer of 10,000, Parquet": ("train.py", "{parquet}"),
    "profile, all in memory": (*PROFILE, "{hf}"),
}


class Usage(NamedTuple):
    """What one run took."""

    peak_mb: float
    cpu_s: float
    wall_s: float


def write_files(folder: Path, most: int) -> None:
    """Write one file of each form, and names for as many as the largest stream needs."""
    generator = np.random.default_rng(0)
    images, labels = [], [i % 10 for i in range(PER_FILE)]
    for _ in labels:
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(stream, "PNG", compress_level=1)
        images.append(stream.getvalue())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    rows = {"image": [{"bytes": image, "path": None} for image in images], "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "one.parquet", batch_size=1000)
    with tarfile.open(folder / "one.tar", "w") as tar:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            for suffix, content in (("png", image), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for size in (size for size in SIZES if size <= most):
        (folder / f"{size}").mkdir()
        for number in range(size // PER_FILE):
            for form in ("parquet", "tar"):
                place = folder / f"{size}" / form
                place.mkdir(exist_ok=True)
                os.link(folder / f"one.{form}", place / f"train-{number:03}.{form}")
    (folder / "net.py").write_text(NET)
    (folder / "train.py").write_text(TRAIN)


def run(command: tuple[str, ...], size: int, folder: Path) -> Usage:
    """Run a command in a process of its own; return what it took."""
    names = {form: f"stream:{form}:{size}/{form}/*.{form}" for form in ("parquet", "tar")}
    names["hf"] = f"hf:{size}/parquet"
    arguments = [sys.executable, *(part.format(**names) for part in command)]
    start = os.times().elapsed
    process = subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    peak_kb, ended = 0, 0
    while not ended:  # the system's own peak of a process begins at that of its parent
        peak_kb = max(peak_kb, high_water_kb(process.pid))
        time.sleep(POLL_S)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    if status:
        raise SystemExit(f"{' '.join(arguments)} ended with status {status}")
    return Usage(peak_kb / 1024, usage.ru_utime + usage.ru_stime, os.times().elapsed - start)


def high_water_kb(pid: int) -> int:
    """Return the peak resident memory of a process so far; 0 once it has ended.

    Example:
        >>> high_water_kb(os.getpid()) > 1000
        True
    """
    found = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) if found else 0


def cells(found: list[Usage], first: list[Usage], size: int) -> list[str]:
    """Return medians with their ranges, and ratios to the smallest stream."""
    peaks = [usage.peak_mb for usage in found]
    cpu, wall = (statistics.median(getattr(usage, name) for usage in found) for name in ("cpu_s", "wall_s"))
    return [
        f"{size:,}",
        f"{len(found)}",
        f"{statistics.median(peaks):,.0f} ({min(peaks):,.0f} to {max(peaks):,.0f})",
        f"{statistics.median(peaks) / statistics.median(usage.peak_mb for usage in first):.2f}",
        f"{cpu:.0f}",
        f"{wall:.0f}",
        f"{cpu / size / (statistics.median(usage.cpu_s for usage in first) / SIZES[0]):.2f}",
    ]


def page(rounds: int | None, scale: float) -> Iterator[str]:
    """Yield the lines of the page; a scale below 1 leaves out the sizes above that share of the largest."""
    runs, most = rounds or 3, max(SIZES[0], int(scale * SIZES[-1]))
    head = "job", "samples", "runs", "peak memory, MB", "÷ 10,000's", "CPU s", "wall s", "CPU a sample ÷ 10,000's"
    yield (
        "Peak resident memory of one process, median and range over the runs, and its ratio to that for 10,000 "
        "samples; times are medians. Start-up with all imports is part of each run. Images are 32×32 PNG of noise; "
        "larger streams have more files of 10,000, which are links to one and are each read once."
    )
    yield ""
    yield f"Machine: {machine()}; one thread a run."
    yield ""
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_files(folder, most)
        run((*PROFILE[:-2], "clean.safetensors", "--data", "{hf}"), SIZES[0], folder)
        for name, command in JOBS.items():
            first: list[Usage] = []
            sizes = [size for size in SIZES if size <= most and (size < SIZES[-1] or "in memory" not in name)]
            for size in sizes:
                found = [run(command, size, folder) for _ in range(1 if size == SIZES[-1] else runs)]
                first = first or found
                yield f"| {' | '.join([name, *cells(found, first, size)])} |"
