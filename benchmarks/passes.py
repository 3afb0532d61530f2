"""Measure the overhead of the indices over a bare forward pass: CPU time as ratios, memory as peaks.

Each variant runs once per round, in a new order each round, so that disturbances of the machine affect all variants.
Ratios are taken within a round; the tables show the median over rounds and the range. The C library is told to keep
freed memory: otherwise page faults, which depend on what was freed before, outweigh everything measured here. Memory is
the growth of the resident set of a fresh process in the pass, minus that of the bare pass. Run it with ``make bench``.
"""

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import resque
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.models.feature_extraction import capture_features
from resque.models.networks import resnet18

BATCH, SIDE = 128, 32
KEEPING = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
RETURNING = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
WIDTH = 512 * 4 * 4
Loader = Iterable[tuple[Tensor, Tensor]]


def minimal_network(classes: int) -> nn.Module:
    """Build one strided convolution with ResNet18's last output, 512 × 4 × 4, then pooling and a head."""
    stem = nn.Conv2d(3, 512, SIDE // 4, stride=SIDE // 4)
    return nn.Sequential(stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


MODELS = {"ResNet18": resnet18, "minimal network": minimal_network}


class Stream:
    """Random batches, generated on demand, so that the data take no memory."""

    def __init__(self, n: int, classes: int) -> None:
        self.n, self.classes = n, classes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.n, BATCH):
            images = torch.rand(min(BATCH, self.n - start), 3, SIDE, SIDE, generator=generator)
            yield images, (start + torch.arange(len(images))) % self.classes


def bare(model: nn.Module, loader: Loader, classes: int) -> None:
    """Run the forward pass alone."""
    with torch.no_grad():
        for images, _ in loader:
            model(images)


def dist(model: nn.Module, loader: Loader, classes: int) -> None:
    """Sum the classes for RESQUE_dist, with classes declared."""
    resque.profile(model, loader, layer=_layer(model), classes=classes)


def dist_unknown_classes(model: nn.Module, loader: Loader, classes: int) -> None:
    """Sum the classes for RESQUE_dist, with classes found on the way."""
    resque.profile(model, loader, layer=_layer(model))


def dist_pseudo_labels(model: nn.Module, loader: Loader, classes: int) -> None:
    """Sum the classes for RESQUE_dist, with the model's own predictions as labels."""
    resque.profile(model, loader, layer=_layer(model), labels="pseudo")


def dist_penultimate(model: nn.Module, loader: Loader, classes: int) -> None:
    """Sum the classes for RESQUE_dist after pooling."""
    resque.profile(model, loader, layer="penultimate", classes=classes)


def task_nearest_means(model: nn.Module, loader: Loader, classes: int) -> None:
    """Compute RESQUE_task by nearest class means, in two passes; compare with two bare passes."""
    assignment = NearestMeanAssignment.to_profile(resque.profile(model, loader, layer=_layer(model), classes=classes))
    with capture_features(model, _layer(model)) as extract:
        for images, labels in loader:
            assignment.add(extract(images)[0], labels)
    assert 0.0 <= assignment.one_minus_ari < 2.0


VARIANTS: dict[str, Callable[[nn.Module, Loader, int], None]] = {
    "RESQUE_dist": dist,
    "RESQUE_dist, classes unknown": dist_unknown_classes,
    "RESQUE_dist, pseudo-labels": dist_pseudo_labels,
    "RESQUE_dist, penultimate": dist_penultimate,
    "RESQUE_task, nearest means (2 passes)": task_nearest_means,
}
SHORT = ("RESQUE_dist", "RESQUE_task, nearest means (2 passes)")


def _layer(model: nn.Module) -> str:
    return "layer4.1.conv2" if hasattr(model, "layer4") else "0"


def ratios(name: str, classes: int, n: int, rounds: int) -> dict[str, list[float]]:
    """Measure the CPU time of each variant over that of the bare pass of its round."""
    torch.manual_seed(0)
    model = MODELS[name](classes).eval()
    labels = torch.arange(n) % classes
    loader = DataLoader(TensorDataset(torch.rand(n, 3, SIDE, SIDE), labels), batch_size=BATCH)
    variants = {key: run for key, run in VARIANTS.items() if name != "ResNet18" or key in SHORT}
    order, run = ["bare", *variants], {"bare": bare, **variants}
    result: dict[str, list[float]] = {variant: [] for variant in variants}
    for variant in order:
        run[variant](model, loader, classes)  # once without measuring: imports, threads, memory
    for _ in track(range(rounds), f"{name}, {classes} classes", console=Console(stderr=True), transient=True):
        random.shuffle(order)
        spent = {}
        for variant in order:
            start = time.process_time()
            run[variant](model, loader, classes)
            spent[variant] = time.process_time() - start
        for variant in variants:
            result[variant].append(spent[variant] / spent["bare"])
    return result


def peak_mb(name: str, variant: str, classes: int, n: int) -> float:
    """Measure the growth of the resident set of a fresh process while it runs one variant."""
    command = [sys.executable, __file__, "--peak", name, variant, str(classes), str(n)]
    environment = {**os.environ, **RETURNING, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _peak(name: str, variant: str, classes: int, n: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name](classes).eval()
    run = bare if variant == "bare" else VARIANTS[variant]
    run(model, Stream(2 * BATCH, classes), classes)  # memory that is loaded once does not belong to the pass
    start = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: reset the peak
    run(model, Stream(n, classes), classes)
    print(_resident_mb("VmHWM") - start)


def _resident_mb(field: str) -> float:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="also write the tables there")
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        name, variant, classes, n = options.peak
        return _peak(name, variant, int(classes), int(n))
    if not KEEPING.items() <= os.environ.items():  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEPING})
    torch.set_num_threads(options.threads)
    lines = [
        f"torch {torch.__version__}, {options.threads} thread(s), batch {BATCH}: CPU time over that of a bare pass, "
        f"median of {options.rounds} interleaved rounds [least, most]",
        "",
        "| model, images | variant | 10 classes | 100 classes |",
        "|---|---|---|---|",
    ]
    for name, n in (("ResNet18", 256), ("minimal network", 4096)):
        columns = [ratios(name, classes, n, options.rounds) for classes in (10, 100)]
        for variant in columns[0]:
            cells = (
                f"{statistics.median(c[variant]):.3f} [{min(c[variant]):.3f}, {max(c[variant]):.3f}]" for c in columns
            )
            lines.append(f"| {name}, {n:,} | {variant} | {' | '.join(cells)} |")
    lines += ["", *memory()]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)
    return None


def memory() -> list[str]:
    """Compare extra peak memory with its documented bound, at two sizes of the data; return the table."""
    batch_mb = BATCH * WIDTH * 4 / 2**20
    lines = [
        f"Extra peak memory over the bare pass, MB (least of 3 processes each); one batch's outputs: {batch_mb:.1f} MB",
        "",
        "| variant, classes | n = 2,048 | n = 16,384 | bound: (1 + G) tables + 2 batches |",
        "|---|---|---|---|",
    ]
    for variant in ("RESQUE_dist", "RESQUE_task, nearest means (2 passes)"):
        for classes in (10, 100):
            cells = []
            for n in (2048, 16384):
                peak, bare_peak = (
                    min(peak_mb("minimal network", name, classes, n) for _ in range(3)) for name in (variant, "bare")
                )
                cells.append(f"{peak - bare_peak:.1f}")
            bound_mb = 3 * classes * WIDTH * 8 / 2**20 + 2 * batch_mb
            lines.append(f"| {variant}, {classes} | {' | '.join(cells)} | {bound_mb:.1f} |")
    return lines


if __name__ == "__main__":
    main()
