"""What the indices cost beside a bare forward pass over the same loader: CPU time as ratios, memory as peaks.

Every variant runs once per round, in a new order each round, so that what disturbs the machine disturbs all of them.
A ratio is taken within its round; shown are the median over rounds and the range. The C library is told to keep freed
memory: otherwise page faults, which depend on what was freed before, outweigh everything measured here. Memory is how
far the resident set of a fresh process grows in the pass, less the same of the bare pass. Run it with ``make bench``.
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

BATCH, SIDE = 128, 32
KEEPING = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
RETURNING = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
WIDTH = 512 * 4 * 4
Loader = Iterable[tuple[Tensor, Tensor]]


def resnet18(classes: int) -> nn.Module:
    """The paper's network for 32×32: a 3×3 stem without pooling; its last convolution gives 512×4×4."""
    from torchvision.models import resnet18 as build

    model = build(num_classes=classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model.eval()


def nearly_free(classes: int) -> nn.Module:
    """One strided convolution with the same 512×4×4 output, pooling and a head: hardly a model at all."""
    stem = nn.Conv2d(3, 512, SIDE // 4, stride=SIDE // 4)
    return nn.Sequential(stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes)).eval()


MODELS = {"ResNet18": resnet18, "nearly free": nearly_free}


class Stream:
    """Random batches made when asked for, so that the data itself takes no memory."""

    def __init__(self, n: int, classes: int) -> None:
        self.n, self.classes = n, classes

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for start in range(0, self.n, BATCH):
            images = torch.rand(min(BATCH, self.n - start), 3, SIDE, SIDE, generator=generator)
            yield images, (start + torch.arange(len(images))) % self.classes


def bare(model: nn.Module, loader: Loader, classes: int) -> None:
    """What any pass has to do."""
    with torch.no_grad():
        for images, _ in loader:
            model(images)


def dist(model: nn.Module, loader: Loader, classes: int) -> None:
    """The class sums of RESQUE_dist, classes declared."""
    resque.profile(model, loader, layer=_layer(model), classes=classes)


def discovering(model: nn.Module, loader: Loader, classes: int) -> None:
    """The same with the classes taken as they come."""
    resque.profile(model, loader, layer=_layer(model))


def pseudo(model: nn.Module, loader: Loader, classes: int) -> None:
    """The same with the model's own predictions as labels."""
    resque.profile(model, loader, layer=_layer(model), labels="pseudo")


def pooled(model: nn.Module, loader: Loader, classes: int) -> None:
    """The same after pooling."""
    resque.profile(model, loader, layer="penultimate", classes=classes)


def nearest(model: nn.Module, loader: Loader, classes: int) -> None:
    """RESQUE_task by nearest class means: two passes, to be compared with two."""
    assignment = NearestMeanAssignment.to_profile(resque.profile(model, loader, layer=_layer(model), classes=classes))
    with capture_features(model, _layer(model)) as observe:
        for images, labels in loader:
            assignment.add(observe(images)[0], labels)
    assert 0.0 <= assignment.one_minus_ari < 2.0


VARIANTS: dict[str, Callable[[nn.Module, Loader, int], None]] = {
    "RESQUE_dist": dist,
    "RESQUE_dist, classes unknown": discovering,
    "RESQUE_dist, pseudo-labels": pseudo,
    "RESQUE_dist, penultimate": pooled,
    "RESQUE_task, nearest means (2 passes)": nearest,
}
SHORT = ("RESQUE_dist", "RESQUE_task, nearest means (2 passes)")


def _layer(model: nn.Module) -> str:
    return "layer4.1.conv2" if hasattr(model, "layer4") else "0"


def ratios(name: str, classes: int, n: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each variant over those of the bare pass of its round."""
    torch.manual_seed(0)
    model = MODELS[name](classes)
    labels = torch.arange(n) % classes
    loader = DataLoader(TensorDataset(torch.rand(n, 3, SIDE, SIDE), labels), batch_size=BATCH)
    variants = {key: run for key, run in VARIANTS.items() if name != "ResNet18" or key in SHORT}
    order, run = ["bare", *variants], {"bare": bare, **variants}
    found: dict[str, list[float]] = {variant: [] for variant in variants}
    for variant in order:
        run[variant](model, loader, classes)  # once unmeasured: imports, threads, memory
    for _ in track(range(rounds), f"{name}, {classes} classes", console=Console(stderr=True), transient=True):
        random.shuffle(order)
        spent = {}
        for variant in order:
            start = time.process_time()
            run[variant](model, loader, classes)
            spent[variant] = time.process_time() - start
        for variant in variants:
            found[variant].append(spent[variant] / spent["bare"])
    return found


def peak_mb(name: str, variant: str, classes: int, n: int) -> float:
    """How far the resident set of a fresh process grows while it does one thing."""
    command = [sys.executable, __file__, "--peak", name, variant, str(classes), str(n)]
    environment = {**os.environ, **RETURNING, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _peak(name: str, variant: str, classes: int, n: int) -> None:
    torch.manual_seed(0)
    model = MODELS[name](classes)
    run = bare if variant == "bare" else VARIANTS[variant]
    run(model, Stream(2 * BATCH, classes), classes)  # what is only loaded once is no memory of the pass
    start = _resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    run(model, Stream(n, classes), classes)
    print(_resident_mb("VmHWM") - start)


def _resident_mb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


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
    for name, n in (("ResNet18", 256), ("nearly free", 4096)):
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
    """Extra peak memory against the promise, at two sizes of the data."""
    batch_mb = BATCH * WIDTH * 4 / 2**20
    lines = [
        f"Extra peak memory over the bare pass, MB (least of 3 processes each); one batch's outputs: {batch_mb:.1f} MB",
        "",
        "| variant, classes | n = 2,048 | n = 16,384 | promised: (1 + G) tables + 2 batches |",
        "|---|---|---|---|",
    ]
    for variant in ("RESQUE_dist", "RESQUE_task, nearest means (2 passes)"):
        for classes in (10, 100):
            cells = []
            for n in (2048, 16384):
                extra = [min(peak_mb("nearly free", what, classes, n) for _ in range(3)) for what in (variant, "bare")]
                cells.append(f"{extra[0] - extra[1]:.1f}")
            promised = 3 * classes * WIDTH * 8 / 2**20 + 2 * batch_mb
            lines.append(f"| {variant}, {classes} | {' | '.join(cells)} | {promised:.1f} |")
    return lines


if __name__ == "__main__":
    main()
