"""Extra memory of a pass: the growth of the resident set of a fresh process in the pass, minus that of the bare pass.

The C library is told to return freed memory at once. Linux alone can reset the peak of a process.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.measuring import scaled
from benchmarks.passes import BATCH, SIDE, bare, index, minimal_network, nearest_means

RETURNING = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072", "OMP_NUM_THREADS": "1"}
WIDTH = 512 * 4 * 4
VARIANTS = {"RESQUE_dist": index, "RESQUE_task, nearest means (2 passes)": nearest_means}


class Stream:
    """Random batches, generated on demand, so that the data take no memory."""

    def __init__(self, n: int, classes: int) -> None:
        self.n, self.classes = n, classes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.n, BATCH):
            images = torch.rand(min(BATCH, self.n - start), 3, SIDE, SIDE, generator=generator)
            yield images, (start + torch.arange(len(images))) % self.classes


def peak_mb(variant: str, classes: int, n: int) -> float:
    """Measure the growth of the resident set of a fresh process while it runs one variant."""
    command = [sys.executable, "-m", "benchmarks.memory", variant, str(classes), str(n)]
    done = subprocess.run(
        command, env={**os.environ, **RETURNING}, cwd=Path(__file__).parents[1], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return float(done.stdout)


def print_peak(variant: str, classes: int, n: int) -> None:
    """Run one variant in this process, and print by how much its memory grew."""
    torch.manual_seed(0)
    model = minimal_network(classes).eval()

    def run(stream: Stream) -> None:
        bare(model, stream) if variant == "bare" else VARIANTS[variant](model, stream, classes)

    run(Stream(2 * BATCH, classes))  # memory that is loaded once does not belong to the pass
    start = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    run(Stream(n, classes))
    print(_resident_mb("VmHWM") - start)


def _resident_mb(field: str) -> float:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def page(rounds: int | None, scale: float) -> Iterator[str]:
    """Yield a table of extra peak memory and its documented bound, at two sizes of the data."""
    processes, sizes = rounds or 3, [scaled(n, scale, 4 * BATCH) for n in (2048, 16_384)]
    batch_mb = BATCH * WIDTH * 4 / 2**20
    yield (
        f"Extra peak memory over the bare pass, MB (least of {processes} processes each); "
        f"one batch's outputs: {batch_mb:.1f} MB"
    )
    yield ""
    yield f"| variant, classes | {' | '.join(f'n = {n:,}' for n in sizes)} | bound: (1 + G) tables + 2 batches |"
    yield "|---|---|---|---|"
    for variant in VARIANTS:
        for classes in (10, 100):
            cells = []
            for n in sizes:
                peak, bare_peak = (
                    min(peak_mb(name, classes, n) for _ in range(processes)) for name in (variant, "bare")
                )
                cells.append(f"{peak - bare_peak:.1f}")
            bound_mb = 3 * classes * WIDTH * 8 / 2**20 + 2 * batch_mb
            yield f"| {variant}, {classes} | {' | '.join(cells)} | {bound_mb:.1f} |"


if __name__ == "__main__":
    print_peak(sys.argv[1], *map(int, sys.argv[2:]))
