"""Time one epoch of a measured update and of a plain loop, with the same network, data, augmentation and optimizer.

The plain loop follows the authors' code: a ``DataLoader`` of PIL images that are augmented one by one, float32, the
optimizer with PyTorch's defaults, a copy of the whole model after each epoch and the parameter change between two
copies. It is timed with the loader in the same process (PyTorch's default) and with two worker processes. The other
loop is ``resque.training.trainer.Trainer``, on which updates run, with its measurements.

Each variant runs once per round, in a new order each round. Ratios are taken within a round; the table shows the median
over rounds and the range. Time outside forward and backward passes, and time of the measurements (gradient norm,
parameter change), are reported separately. Then both loops train for a few epochs, over several seeds, to compare their
accuracy. Run it with ``make bench``.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.data.preprocessing import ImagePreprocessing
from resque.energy.clock import now
from resque.training.cost_tracking import parameter_change
from resque.training.evaluation import evaluate
from resque.training.recipe import Recipe, named_recipe
from resque.training.trainer import Trainer

FASHION = "/usr/share/datasets/fashion-mnist"
RECIPE = "train-adam,augmentation=paper"
BATCH = 32
VARIANTS = ("resque", "plain", "plain, 2 workers")


def quarter_side_resnet() -> nn.Module:
    """Build timm's small ResNet, whose stem leaves a quarter of the side; 0.3 million parameters."""
    return ResNet(
        BasicBlock, (1, 1, 1, 1), num_classes=10, in_chans=1, channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    )


def full_side_resnet() -> nn.Module:
    """Build the same ResNet with a 3 × 3 stem that keeps the side: eight times the operations."""
    model = quarter_side_resnet()
    model.conv1, model.bn1, model.maxpool = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Identity()
    return model


NETWORKS = {"stem to a quarter": quarter_side_resnet, "stem at full side": full_side_resnet}


Timing = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Wrapper of the functions to be timed: a :class:`Stopwatch`, or :func:`untimed`."""


class Stopwatch:
    """Total time of the functions that it wraps."""

    def __init__(self, device: torch.device) -> None:
        self.seconds, self.device = 0.0, device

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function so that its time is added."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now(self.device)
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += now(self.device) - start

        return timed


def untimed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function unchanged: a stopwatch's waits would slow a GPU down where only whole epochs are timed."""
    return function


class PilImages(Dataset[tuple[Tensor, int]]):
    """PIL images, augmented one by one."""

    def __init__(self, data: LabeledDataset) -> None:
        self._images, self._labels = data.images, data.labels
        self._augment = transforms.Compose(
            [
                transforms.ToPILImage(),
                transforms.RandomHorizontalFlip(0.5),
                transforms.RandomRotation((25, 45)),
                transforms.RandomAffine(20),
                transforms.ColorJitter(0.1, 0.1, 0.1, 0.1),
                transforms.ToTensor(),
                transforms.Normalize((0.5,), (0.5,)),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self._augment(self._images[row]), int(self._labels[row])


class PlainLoop:
    """Training loop as most people write it.

    Args:
        model: Model to train, in place.
        data: Training images, in the memory of the host.
        seed: Seed of the data order.
        workers: Number of processes that load and augment the images; 0 does it in this process.
        stopwatch: Stopwatch of forward and backward passes, or ``untimed``.
        persistent: Whether the workers live on between epochs.
    """

    def __init__(
        self,
        model: nn.Module,
        data: LabeledDataset,
        seed: int,
        workers: int,
        stopwatch: Timing,
        persistent: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            PilImages(data),
            BATCH,
            shuffle=True,
            num_workers=workers,
            drop_last=True,
            generator=generator,
            persistent_workers=persistent and workers > 0,
        )
        self._model, self._optimizer = model, torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        self._device, self._before = next(model.parameters()).device, copy.deepcopy(model)
        self.gradient_norms: list[float] = []
        self._pass = stopwatch(self._forward_and_backward)

    def start(self) -> None:
        """Start persistent workers, and wait for their first batch."""
        next(iter(self._loader))

    def stop(self) -> None:
        """Stop persistent workers; left to the garbage collector, each of them would be waited for five seconds."""
        del self._loader

    def epoch(self) -> None:
        """Train for one epoch, then compute the costs as the authors' code does."""
        self._model.train()
        for inputs, labels in self._loader:
            inputs, labels = inputs.to(self._device), labels.to(self._device)
            self._optimizer.zero_grad()
            self._pass(inputs, labels)
            self._optimizer.step()
        self.gradient_norms.append(sum(float(p.grad.norm()) ** 2 for p in self._model.parameters()) ** 0.5)
        after = copy.deepcopy(self._model)
        parameter_change(self._before, after)
        self._before = after

    def _forward_and_backward(self, inputs: Tensor, labels: Tensor) -> None:
        F.cross_entropy(self._model(inputs), labels).backward()


class MeasuredLoop:
    """Training loop of a measured update."""

    def __init__(self, model: nn.Module, data: LabeledDataset, seed: int, recipe: Recipe, stopwatch: Timing) -> None:
        self._trainer = Trainer(model, data, recipe, seed)
        self._trainer.forward_and_backward = stopwatch(self._trainer.forward_and_backward)

    def epoch(self) -> None:
        """Train for one epoch, with all costs measured."""
        self._trainer.step()
        while self._trainer.within_epoch:
            self._trainer.step()
        self._trainer.cost_tracker.totals(within_epoch=False)


def build_loop(
    variant: str, build: Callable[[], nn.Module], data: LabeledDataset, seed: int, stopwatch: Stopwatch
) -> Any:
    """Build a network with random weights of a seed, and the loop that trains it; return loop and network."""
    torch.manual_seed(seed)
    model = build().to(stopwatch.device)
    torch.manual_seed(seed)
    if variant == "resque":
        return MeasuredLoop(model, data, seed, named_recipe(RECIPE), stopwatch), model
    return PlainLoop(model, data, seed, 2 if "workers" in variant else 0, stopwatch), model


def timed_epoch(
    variant: str, build: Callable[[], nn.Module], data: LabeledDataset, device: torch.device
) -> list[float]:
    """Return the seconds of an epoch, those outside forward and backward, and the CPU seconds of this process."""
    stopwatch = Stopwatch(device)
    loop, _ = build_loop(variant, build, data.take(torch.arange(4 * BATCH)), 0, stopwatch)
    loop.epoch()  # the first epoch in a process includes start-up costs
    stopwatch.seconds = 0.0
    loop, _ = build_loop(variant, build, data, 0, stopwatch)
    start, cpu = now(device), time.process_time()
    loop.epoch()
    whole, cpu = now(device) - start, time.process_time() - cpu
    return [whole, whole - stopwatch.seconds, cpu]


def measurement_share(build: Callable[[], nn.Module], data: LabeledDataset, device: torch.device) -> float:
    """Return the share of an epoch that gradient norm and parameter change take."""
    loop, _ = build_loop("resque", build, data, 0, Stopwatch(device))
    stopwatch, tracker = Stopwatch(device), loop._trainer.cost_tracker
    for name in ("after_backward", "end_epoch", "totals"):
        setattr(tracker, name, stopwatch(getattr(tracker, name)))
    start = now(device)
    loop.epoch()
    return stopwatch.seconds / (now(device) - start)


def augmented(data: LabeledDataset) -> tuple[Tensor, Tensor]:
    """Augment test images as training images are, with one seed for all loops; return images and labels."""
    torch.manual_seed(0)
    images = PilImages(data)
    return torch.stack([images[row][0] for row in range(len(data))]), data.labels


def accuracies(
    variant: str, build: Callable[[], nn.Module], data: Any, seeds: int, epochs: int
) -> list[tuple[float, float]]:
    """Return accuracy on test images and on augmented ones, after some epochs, for each seed."""
    train, test, device = data
    hard, labels = (tensor.to(device) for tensor in augmented(test))
    result = []
    for seed in range(seeds):
        loop, model = build_loop(variant, build, train, seed, Stopwatch(device))
        for _ in range(epochs):
            loop.epoch()
        result.append((evaluate(model, test.batches(1024, device))[0], evaluate(model, [(hard, labels)])[0]))
    return result


def spread(values: list[float], digits: int = 2) -> str:
    """Format median and range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def mean(values: Sequence[float]) -> str:
    """Format mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def load_fashion_mnist(folder: str, part: str, limit: int, steps: str = "") -> LabeledDataset:
    """Load some images of ``train`` or ``t10k``, normalized to [-1, 1], after steps such as ``@rgb@32px``."""
    files = f"idx:{folder}/{part}-images-idx3-ubyte.gz,{folder}/{part}-labels-idx1-ubyte.gz"
    preprocessing = ImagePreprocessing(mean=(0.5,), std=(0.5,))
    return load_data(f"{files}@{limit}{steps}", preprocessing=preprocessing)


def timing_rows(name: str, data: LabeledDataset, device: torch.device, rounds: int, orders: random.Random) -> list[str]:
    """Time each variant on one network, and format the table rows."""
    build, timings = NETWORKS[name], []
    for _ in track(range(rounds), f"{name}: {rounds} rounds", console=Console(stderr=True)):
        order = orders.sample(VARIANTS, len(VARIANTS))
        timings.append({variant: timed_epoch(variant, build, data, device) for variant in order})
    rows = []
    for variant in VARIANTS:
        ratios = ["1"] * 3
        if variant != "resque":
            ratios = [spread([timing[variant][i] / timing["resque"][i] for timing in timings]) for i in range(3)]
        if "workers" in variant:
            ratios[2] = "–"  # the workers' CPU time is not in it
        seconds = spread([timing[variant][0] for timing in timings])
        rows.append(f"| {name} | {variant} | {seconds} | {' | '.join(ratios)} |")
    shares = [measurement_share(build, data, device) for _ in range(3)]
    return [*rows, f"| {name} | share of gradient norm and parameter change | | {spread(shares, 4)} | | |"]


def main() -> None:
    """Run the benchmark, and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    parser.add_argument("--folder", default=FASHION, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--samples", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="epochs of the comparison of accuracies")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device, orders = torch.device(options.device), random.Random(0)
    train = load_fashion_mnist(options.folder, "train", options.samples)
    test = load_fashion_mnist(options.folder, "t10k", 2000)
    timings = [row for name in NETWORKS for row in timing_rows(name, train, device, options.rounds, orders)]
    build, half = NETWORKS["stem to a quarter"], train.take(torch.arange(options.samples // 2))
    reached = {
        variant: accuracies(variant, build, (half, test, device), options.seeds, options.epochs)
        for variant in track(VARIANTS[:2], "accuracies", console=Console(stderr=True))
    }
    host = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    lines = [
        f"torch {torch.__version__}, {host}, Fashion-MNIST, {options.samples:,} images of 28 × 28, batch {BATCH}, "
        f"`{RECIPE}`; median of {options.rounds} interleaved rounds [least, most]",
        "",
        "| network | loop | seconds an epoch | × ours, whole epoch | × ours, outside forward and backward | "
        "× ours, processor time |",
        "|---|---|---|---|---|---|",
        *timings,
        "",
        f"Accuracy after {options.epochs} epochs of {len(half):,} images, {options.seeds} seeds, mean ± one deviation",
        "",
        "| loop | test images | test images changed as in training |",
        "|---|---|---|",
        *(f"| {name} | {' | '.join(map(mean, zip(*pairs, strict=True)))} |" for name, pairs in reached.items()),
        "",
    ]
    table = "\n".join(lines)
    print(table)
    if options.out:
        options.out.write_text(table)


if __name__ == "__main__":
    main()
