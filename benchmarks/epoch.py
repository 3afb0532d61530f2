"""Time one epoch of a measured update beside other loops, with the same network, data and optimizer.

The plain loop follows the authors' code: a ``DataLoader``, float32, the optimizer with PyTorch's defaults, a copy of
the whole model after each epoch and the parameter change between two copies. Its images are tensors, or PIL images that
are augmented one by one. Hugging Face's ``Trainer`` and Lightning take the same tensors and measure nothing. Ours is
:class:`resque.training.trainer.Trainer`, on which updates run, with its measurements. Building a loop belongs to it.

The page compares the accuracy that ours and the plain loop reach, and says what the measurements take of an epoch.
"""

import copy
import dataclasses
import importlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms

from benchmarks.measuring import Case, Comparison, Spread, fashion_mnist, scaled
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.data.preprocessing import NO_PREPROCESSING, ImagePreprocessing
from resque.energy.clock import now
from resque.training.cost_tracking import parameter_change
from resque.training.evaluation import evaluate
from resque.training.recipe import Recipe, named_recipe
from resque.training.trainer import Trainer

RECIPE = "train-adam,augmentation=paper"
BATCH = 32
PLAIN = "train-adam,augmentation=none"
OURS = "measured epoch"


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
        augmented: Whether the images are PIL images that are augmented one by one, or tensors as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        data: LabeledDataset,
        seed: int,
        workers: int,
        stopwatch: Timing,
        persistent: bool = False,
        augmented: bool = True,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            PilImages(data) if augmented else TensorDataset(data.images, data.labels),
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
    variant: str, build: Callable[[], nn.Module], data: LabeledDataset, seed: int, stopwatch: Timing = untimed
) -> Any:
    """Build a network with random weights of a seed, and the loop that trains it; return loop and network."""
    torch.manual_seed(seed)
    model = build()
    if variant == "resque":
        return MeasuredLoop(model, data, seed, named_recipe(RECIPE), stopwatch), model
    return PlainLoop(model, data, seed, 0, stopwatch), model


def measurement_share(build: Callable[[], nn.Module], data: LabeledDataset) -> float:
    """Return the share of an epoch that gradient norm and parameter change take."""
    device = torch.device("cpu")
    loop, _ = build_loop("resque", build, data, 0)
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
    train, test = data
    hard, labels = augmented(test)
    result = []
    for seed in range(seeds):
        loop, model = build_loop(variant, build, train, seed)
        for _ in range(epochs):
            loop.epoch()
        result.append((evaluate(model, test.batches(1024))[0], evaluate(model, [(hard, labels)])[0]))
    return result


def mean(values: Sequence[float]) -> str:
    """Format mean and standard deviation."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def load_fashion_mnist(folder: str, part: str, limit: int, steps: str = "") -> LabeledDataset:
    """Load some images of ``train`` or ``t10k``, normalized to [-1, 1], after steps such as ``@rgb@32px``."""
    files = f"idx:{folder}/{part}-images-idx3-ubyte.gz,{folder}/{part}-labels-idx1-ubyte.gz"
    preprocessing = ImagePreprocessing(mean=(0.5,), std=(0.5,))
    return load_data(f"{files}@{limit}{steps}", preprocessing=preprocessing)


class AsDictionaries(Dataset[dict[str, Tensor]]):
    """Samples as Hugging Face's Trainer takes them."""

    def __init__(self, data: LabeledDataset) -> None:
        self._images, self._labels = data.images, data.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"pixels": self._images[row], "labels": self._labels[row]}


class WithLoss(nn.Module):
    """A network that returns its loss, as Hugging Face's Trainer expects."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.network(pixels)
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


def hugging_face(build: Callable[[], nn.Module], data: LabeledDataset) -> Callable[[], object]:
    """Return an epoch of Hugging Face's Trainer."""
    tool, samples = importlib.import_module("transformers"), AsDictionaries(data)
    folder = tempfile.mkdtemp()
    arguments = tool.TrainingArguments(
        folder, num_train_epochs=1, per_device_train_batch_size=BATCH, dataloader_drop_last=True, use_cpu=True,
        learning_rate=1e-3, lr_scheduler_type="constant", report_to="none", save_strategy="no", logging_strategy="no",
        disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    return lambda: tool.Trainer(WithLoss(build()), arguments, train_dataset=samples).train()


def lightning(build: Callable[[], nn.Module], data: LabeledDataset) -> Callable[[], object]:
    """Return an epoch of Lightning."""
    tool = importlib.import_module("lightning")

    class Module(tool.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = build()

        def training_step(self, batch: Any, number: int) -> Tensor:
            return F.cross_entropy(self.network(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3, weight_decay=1e-4)

    def epoch() -> None:
        loader = DataLoader(TensorDataset(data.images, data.labels), BATCH, shuffle=True, drop_last=True)
        trainer = tool.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Module(), loader)

    return epoch


def images(scale: float, samples: int = 1600) -> LabeledDataset:
    """Return training images of Fashion-MNIST, whole batches of them."""
    return load_fashion_mnist(str(fashion_mnist()), "train", scaled(samples, scale, 2 * BATCH) // BATCH * BATCH)


def ours_and(
    recipe: str, others: Callable[[Callable[[], nn.Module], LabeledDataset], dict[str, Any]], scale: float
) -> dict[str, Callable[[], object]]:
    """Return our epoch and others on the same network and images."""
    data, build = images(scale), quarter_side_resnet
    if recipe == PLAIN:  # the same normalized tensors for all
        inputs = torch.cat([inputs for inputs, _ in data.batches(1024)])
        data = dataclasses.replace(data, inputs=inputs, transform=NO_PREPROCESSING)
    ours = lambda: MeasuredLoop(build(), data, 0, named_recipe(recipe), untimed).epoch()  # noqa: E731
    return {OURS: ours, **others(build, data)}


def plain(build: Callable[[], nn.Module], data: LabeledDataset, pil: bool) -> dict[str, Any]:
    """Return an epoch of the plain loop."""
    name = "loop over PIL images" if pil else "plain loop"
    return {name: lambda: PlainLoop(build(), data, 0, 0, untimed, augmented=pil).epoch()}


def head_alone(epochs: int, scale: float) -> dict[str, Callable[[], object]]:
    """Return epochs that train the head alone, from cached features and through the network."""
    data, recipe = images(scale), named_recipe("train-adam,augmentation=none,trains=head")

    def cached() -> None:
        loop = MeasuredLoop(quarter_side_resnet(), data, 0, recipe, untimed)
        for _ in range(epochs):
            loop.epoch()

    def through() -> None:
        model = quarter_side_resnet().eval().requires_grad_(False)
        head = model.get_classifier().requires_grad_(True)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
        for _ in range(epochs):
            for inputs, labels in data.batches(BATCH):
                optimizer.zero_grad()
                F.cross_entropy(model(inputs), labels).backward()
                optimizer.step()

    return {"head on cached features": cached, "head through the network": through}


def page(rounds: int | None, scale: float) -> Iterator[str]:
    """Yield the lines of the page: accuracies of both loops, and the share of the measurements."""
    seeds, epochs = rounds or 10, 3
    train, build = images(scale, 3200), quarter_side_resnet
    test = load_fashion_mnist(str(fashion_mnist()), "t10k", scaled(2000, scale, 100))
    shares = [
        f"{name} {Spread([measurement_share(net, train) for _ in range(3)], 4)}" for name, net in NETWORKS.items()
    ]
    yield f"Share of gradient norm and parameter change in an epoch of ours (n = 3): {'; '.join(shares)}"
    yield ""
    yield f"Accuracy after {epochs} epochs of {len(train):,} images, {seeds} seeds, mean ± one deviation"
    yield ""
    yield "| loop | test images | test images changed as in training |\n|---|---|---|"
    for variant in ("resque", "plain"):
        pairs = accuracies(variant, build, (train, test), seeds, epochs)
        yield f"| {variant} | {' | '.join(map(mean, zip(*pairs, strict=True)))} |"


def case(name: str, prepare: Callable[[float], Any], rows: tuple[Comparison, ...], *neighbors: str) -> Case:
    """Return a case of the table."""
    return Case(name, "1,600 images of 28 × 28, batch 32", prepare, rows, neighbors=neighbors)


CASES = (
    case("epoch, plain loop", partial(ours_and, PLAIN, partial(plain, pil=False)),
         (Comparison(OURS, "plain loop", 1.0),)),
    case("epoch, Hugging Face", partial(ours_and, PLAIN, lambda *of: {"Hugging Face Trainer": hugging_face(*of)}),
         (Comparison(OURS, "Hugging Face Trainer", 0.78),), "transformers", "accelerate"),
    case("epoch, Lightning", partial(ours_and, PLAIN, lambda *of: {"Lightning": lightning(*of)}),
         (Comparison(OURS, "Lightning", 0.85),), "lightning"),
    case("epoch, augmentation", partial(ours_and, RECIPE, partial(plain, pil=True)),
         (Comparison(OURS, "loop over PIL images", 0.33),), "torchvision"),
    case("head alone, 5 epochs", partial(head_alone, 5),
         (Comparison("head on cached features", "head through the network"),)),
)  # fmt: skip
