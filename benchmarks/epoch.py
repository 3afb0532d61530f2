"""One epoch of a measured update beside one of a plain loop: the same network, data, augmentation and optimizer.

The plain loop does what the authors' code does: a ``DataLoader`` of PIL images that are changed one by one, float32,
the optimizer as PyTorch builds it, a copy of the whole model at the end of each epoch and the parameter change from two
such copies. It is timed with the loader in the same process (PyTorch's default) and with two worker processes. Ours is
``resque.training.trainer.Trainer``, which an update runs on, with its measures. Each variant runs once per round, in a
new order
each round; a ratio is taken within its round; shown are the median over rounds and the range. What is neither forward
nor backward pass is timed apart, and so are the measures (gradient norm, parameter change). Both loops then train on
for a few epochs, over several seeds, to see that they reach the same accuracy. Run it with ``make bench``.
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


def quarter() -> nn.Module:
    """A small ResNet as timm makes it: the stem of three convolutions leaves a quarter of the side; 0.3 million."""
    return ResNet(
        BasicBlock, (1, 1, 1, 1), num_classes=10, in_chans=1, channels=(16, 32, 64, 128), stem_type="deep", stem_width=8
    )


def full() -> nn.Module:
    """The same with a stem of 3 × 3 that keeps the side, as for images of 32 × 32: eight times the operations."""
    model = quarter()
    model.conv1, model.bn1, model.maxpool = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Identity()
    return model


NETWORKS = {"stem to a quarter": quarter, "stem at full side": full}


class Clocked:
    """Adds up the seconds that wrapped functions take."""

    def __init__(self, device: torch.device) -> None:
        self.seconds, self._device = 0.0, device

    def __call__(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, clocked."""

        def timed(*given: Any, **named: Any) -> Any:
            start = now(self._device)
            try:
                return work(*given, **named)
            finally:
                self.seconds += now(self._device) - start

        return timed


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images, changed one by one."""

    def __init__(self, data: LabeledDataset) -> None:
        self._images, self._labels = data.images, data.labels
        self._change = transforms.Compose(
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
        return self._change(self._images[row]), int(self._labels[row])


class Plain:
    """The loop that most people write."""

    def __init__(self, model: nn.Module, data: LabeledDataset, seed: int, workers: int, clocked: Clocked) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            Pictures(data), BATCH, shuffle=True, num_workers=workers, drop_last=True, generator=generator
        )
        self._model, self._optimizer = model, torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
        self._device, self._before = next(model.parameters()).device, copy.deepcopy(model)
        self.gradient_norms: list[float] = []
        self._pass = clocked(self._forward_and_backward)

    def epoch(self) -> None:
        """One pass over the data, then the measures of the authors' code."""
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


class Ours:
    """The loop of an update."""

    def __init__(self, model: nn.Module, data: LabeledDataset, seed: int, recipe: Recipe, clocked: Clocked) -> None:
        self._trainer = Trainer(model, data, recipe, seed)
        self._trainer.forward_and_backward = clocked(self._trainer.forward_and_backward)

    def epoch(self) -> None:
        """One pass over the data, with every measure."""
        self._trainer.step()
        while self._trainer.within_epoch:
            self._trainer.step()
        self._trainer.cost_tracker.totals(within_epoch=False)


def made(variant: str, build: Callable[[], nn.Module], data: LabeledDataset, seed: int, clocked: Clocked) -> Any:
    """A network with random weights of that seed, and the loop that trains it."""
    torch.manual_seed(seed)
    model = build().to(clocked._device)
    torch.manual_seed(seed)
    if variant == "resque":
        return Ours(model, data, seed, named_recipe(RECIPE), clocked), model
    return Plain(model, data, seed, 2 if "workers" in variant else 0, clocked), model


def timed_epoch(
    variant: str, build: Callable[[], nn.Module], data: LabeledDataset, device: torch.device
) -> list[float]:
    """``[seconds of an epoch, of them outside forward and backward, processor seconds of this process]``."""
    clocked = Clocked(device)
    loop, _ = made(variant, build, data.take(torch.arange(4 * BATCH)), 0, clocked)
    loop.epoch()  # the first epoch in a process pays for more than itself
    clocked.seconds = 0.0
    loop, _ = made(variant, build, data, 0, clocked)
    start, cpu = now(device), time.process_time()
    loop.epoch()
    whole, cpu = now(device) - start, time.process_time() - cpu
    return [whole, whole - clocked.seconds, cpu]


def measures_share(build: Callable[[], nn.Module], data: LabeledDataset, device: torch.device) -> float:
    """The share of an epoch that gradient norm and parameter change take."""
    loop, _ = made("resque", build, data, 0, Clocked(device))
    clocked, tally = Clocked(device), loop._trainer.cost_tracker
    for name in ("after_backward", "end_epoch", "totals"):
        setattr(tally, name, clocked(getattr(tally, name)))
    start = now(device)
    loop.epoch()
    return clocked.seconds / (now(device) - start)


def changed(data: LabeledDataset) -> tuple[Tensor, Tensor]:
    """Test images changed as training images are, one by one, the same ones for everybody."""
    torch.manual_seed(0)
    pictures = Pictures(data)
    return torch.stack([pictures[row][0] for row in range(len(data))]), data.labels


def accuracies(
    variant: str, build: Callable[[], nn.Module], data: Any, seeds: int, epochs: int
) -> list[tuple[float, float]]:
    """``(accuracy on test images, on changed ones)`` after some epochs, per seed."""
    train, test, device = data
    hard, labels = (tensor.to(device) for tensor in changed(test))
    found = []
    for seed in range(seeds):
        loop, model = made(variant, build, train, seed, Clocked(device))
        for _ in range(epochs):
            loop.epoch()
        found.append((evaluate(model, test.batches(1024, device))[0], evaluate(model, [(hard, labels)])[0]))
    return found


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def mean(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file for the table.")
    parser.add_argument("--folder", default=FASHION, help="Where Fashion-MNIST's four files lie.")
    parser.add_argument("--samples", type=int, default=6400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3, help="Of the comparison of accuracies.")
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    normal = ImagePreprocessing(mean=(0.5,), std=(0.5,))
    train, test = (
        load_data(
            f"idx:{asked.folder}/{part}-images-idx3-ubyte.gz,{asked.folder}/{part}-labels-idx1-ubyte.gz",
            limit=limit,
            preprocessing=normal,
        )
        for part, limit in (("train", asked.samples), ("t10k", 2000))
    )
    errors, lines = Console(stderr=True), []
    orders = random.Random(0)
    for name, build in NETWORKS.items():
        rounds = []
        for _ in track(range(asked.rounds), f"{name}: {asked.rounds} rounds", console=errors):
            order = orders.sample(VARIANTS, len(VARIANTS))
            rounds.append({variant: timed_epoch(variant, build, train, device) for variant in order})
        for variant in VARIANTS:
            own = [r[variant] for r in rounds]
            whole, outside, cpu = (
                spread([r[variant][i] / r["resque"][i] for r in rounds]) if variant != "resque" else "1"
                for i in range(3)
            )
            seconds = spread([v[0] for v in own])
            lines.append(
                f"| {name} | {variant} | {seconds} | {whole} | {outside} | {cpu if '2' not in variant else '–'} |"
            )
        shares = [measures_share(build, train, device) for _ in range(3)]
        lines.append(f"| {name} | share of gradient norm and parameter change | | {spread(shares, 4)} | | |")
    build, half = NETWORKS["stem to a quarter"], train.take(torch.arange(asked.samples // 2))
    reached = {
        variant: accuracies(variant, build, (half, test, device), asked.seeds, asked.epochs)
        for variant in track(VARIANTS[:2], "accuracies", console=errors)
    }
    host = f"{torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    table = "\n".join(
        [
            f"torch {torch.__version__}, {host}, Fashion-MNIST, {asked.samples:,} images of 28 × 28, batch {BATCH}, "
            f"`{RECIPE}`; median of {asked.rounds} interleaved rounds [least, most]",
            "",
            "| network | loop | seconds an epoch | × ours, whole epoch | × ours, outside forward and backward | "
            "× ours, processor time |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            f"Accuracy after {asked.epochs} epochs of {len(half):,} images, {asked.seeds} seeds, mean ± one deviation",
            "",
            "| loop | test images | test images changed as in training |",
            "|---|---|---|",
            *(
                f"| {v} | {' | '.join(mean(column) for column in zip(*both, strict=True))} |"
                for v, both in reached.items()
            ),
            "",
        ]
    )
    print(table)
    if asked.out:
        asked.out.write_text(table)


if __name__ == "__main__":
    main()
