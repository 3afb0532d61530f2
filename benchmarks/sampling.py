"""Count what share of the data a sampled index reads, and how often its interval holds the index of all data.

Two tables. In the simulation classes are directions in space, rotated by known angles, with noise around them. On
Fashion-MNIST a small network is trained on the 10,000 test images, whose profile is the original data. The 60,000
training images under a shift are the new data. The truth is always the plain index of a full pass, and each repetition
has an order of its own. It is the page ``sampling``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import resque
from benchmarks.measuring import fashion_mnist, processor_s
from resque.models.feature_extraction import capture_features
from resque.models.inference import eval_mode
from resque.models.layers import representation_layer

LEVEL = 0.9
SHIFTS = "gaussian:1", "gaussian:2", "gaussian:4", "blur:2", "blur:4", "rotation:2", "contrast:3"
COLUMNS = "early", "share read", "least to most", "covered", "error", "largest error"


@dataclass(frozen=True)
class Case:
    """One setting of the simulation: classes, width, mean angle, noise and samples of each class."""

    classes: int
    width: int
    angle: float
    noise: float
    n: int
    precision: str = "0.03"


CASES = [
    *(Case(10, 64, angle, noise, 2000) for angle in (0.1, 0.4, 1.0) for noise in (1.0, 3.0)),
    *(Case(2, 64, angle, 3.0, 8000) for angle in (0.2, 0.4, 1.0)),
    *(Case(50, 128, angle, 3.0, 800) for angle in (0.1, 0.4, 1.0)),
    Case(10, 64, 0.0, 1.0, 2000, "0.03,0.05rad"),
    Case(10, 64, 0.02, 3.0, 2000, "0.03,0.1rad"),
]


def simulated(case: Case, generator: np.random.Generator) -> tuple[resque.Profile, resque.LabeledDataset]:
    """Draw original and shifted representations of one setting."""
    shape = case.classes, case.width
    before, other = generator.normal(size=shape) + 0.5, generator.normal(size=shape)
    other -= before * ((other * before).sum(1) / (before**2).sum(1))[:, None]
    other *= (np.linalg.norm(before, axis=1) / np.linalg.norm(other, axis=1))[:, None]
    angles = case.angle * generator.uniform(0.3, 1.7, case.classes)
    after = np.cos(angles)[:, None] * before + np.sin(angles)[:, None] * other
    spread = np.exp(generator.normal(size=case.width))
    spread *= case.noise / np.sqrt((spread**2).mean())
    of_class = np.exp(0.4 * generator.normal(size=case.classes))

    def draw(means: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        y = np.arange(case.n * case.classes) % case.classes
        noise = generator.normal(size=(len(y), case.width)) * spread * of_class[y][:, None]
        return torch.from_numpy((means[y] + noise).astype(np.float32)), torch.from_numpy(y)

    profile = resque.profile(identity(case.width, case.classes), [draw(before)], layer="0")
    return profile, resque.load_data(draw(after), name="simulated")


def identity(width: int, classes: int) -> nn.Module:
    """Return a model whose representations are its inputs."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Identity(), nn.Linear(width, classes))


def repeated(
    model: nn.Module, original: resque.Profile, data: resque.LabeledDataset, precision: str, seeds: range
) -> tuple[float, list[resque.DistributionIndex]]:
    """Return the plain index of all data, and the sampled index in many orders."""
    whole = resque.profile(model, data, layer=original.origin.layer)
    options = {"level": LEVEL, "undefined": "error"}
    found = [resque.sampled_dist(model, original, data, precision, seed=seed, **options) for seed in seeds]
    return resque.resque_dist(original, whole).value, found


def cells(truth: float, found: list[resque.DistributionIndex]) -> list[str]:
    """Summarize repetitions: coverage counts those that ended before all was read."""
    shares = [index.sampling.n_read / index.sampling.n_full for index in found]
    early = [index for index, share in zip(found, shares, strict=True) if share < 1.0]
    covered = [index.interval.low <= truth <= index.interval.high for index in early]
    errors = [abs(index.value - truth) for index in early] or [0.0]
    return [
        f"{len(early)} of {len(found)}",
        f"{np.mean(shares):.1%}",
        f"{min(shares):.1%} to {max(shares):.1%}",
        f"{np.mean(covered):.2f}" if covered else "–",
        f"{np.mean(errors):.4f}",
        f"{max(errors):.4f}",
    ]


def simulation(runs: int) -> Iterator[str]:
    """Yield the lines of the simulation's table; every tenth of the repetitions has data of its own."""
    yield table_head("classes × width, n a class", "noise", "precision", "truth")
    for case in CASES:
        model, all_found, truths = identity(case.width, case.classes), [], []
        generator = np.random.default_rng(20261127)
        for first in range(0, runs, 10):
            original, data = simulated(case, generator)
            truth, found = repeated(model, original, data, case.precision, range(first, first + 10))
            truths.append(truth)
            all_found += [moved(index, truth) for index in found]
        setting = f"{case.classes} × {case.width}, {case.n:,}", f"{case.noise:g}", case.precision
        yield row(*setting, f"{np.mean(truths):.3f}", *cells(0.0, all_found))


def moved(index: resque.DistributionIndex, truth: float) -> resque.DistributionIndex:
    """Return an index as its difference from the truth, so that repetitions on several data can be counted together."""
    low, high = index.interval.low - truth, index.interval.high - truth
    interval = resque.Interval(low, high, index.interval.level, index.interval.guarantee)
    return resque.DistributionIndex(**{**vars(index), "value": index.value - truth, "interval": interval})


def fashion_shifts(folder: str, runs: int) -> Iterator[str]:
    """Yield the lines of Fashion-MNIST's table, and of that of the processor times."""
    parts = [
        f"idx:{folder}/{part}-images-idx3-ubyte.gz,{folder}/{part}-labels-idx1-ubyte.gz" for part in ("t10k", "train")
    ]
    original, model = resque.load_data(parts[0]), trained(resque.load_data(parts[0]))
    layer, times = representation_layer(model), []
    before, plain_model = resque.profile(model, original), identity(3136, 10)
    same_space = resque.profile(plain_model, representations(model, original, layer)[0], layer="0")
    yield table_head("shift", "precision", "accuracy", "truth")
    for shift in SHIFTS:
        data = resque.load_data(f"{parts[1]}+{shift}")
        times.append(processor_times(model, before, data, shift))
        rows, accuracy = representations(model, data, layer)
        del data
        for precision in ("0.03", "0.03,0.01rad"):
            truth, found = repeated(plain_model, same_space, rows, precision, range(runs))
            yield row(shift, precision, f"{accuracy:.3f}", f"{truth:.4f}", *cells(truth, found))
    yield ""
    yield "| shift | bare pass, CPU s | index, full | index, ±3 % |\n|---|---|---|---|"
    yield from times


def trained(data: resque.LabeledDataset) -> nn.Module:
    """Train a small network for six epochs."""
    model = resque.load_model("resque.networks:small_cnn", seed=0)
    optimizer, generator = torch.optim.Adam(model.parameters(), 1e-3), torch.Generator().manual_seed(0)
    model.train()
    for _ in range(6):
        for inputs, labels in data.batches(128, order=torch.randperm(len(data), generator=generator)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    return model.eval()


def representations(model: nn.Module, data: resque.LabeledDataset, layer: str) -> tuple[resque.LabeledDataset, float]:
    """Return the representations as data, so that one pass serves many orders, and the accuracy."""
    right, rows = 0, []
    with capture_features(model, layer) as observe:
        for inputs, labels in data:
            found, logits = observe(inputs)
            rows.append(found.clone())
            right += int((logits.argmax(1) == labels).sum())
    return resque.load_data((torch.cat(rows), data.labels), name="representations"), right / len(data)


def processor_times(model: nn.Module, original: resque.Profile, data: resque.LabeledDataset, shift: str) -> str:
    """Return the processor time of a bare pass, and of a full and a sampled index as ratios to it."""

    def bare() -> None:
        with eval_mode(model):
            for inputs, _ in data:
                model(inputs)

    def seconds(work: Callable[[], object]) -> float:
        start = processor_s()
        work()
        return processor_s() - start

    works = (
        bare,
        lambda: resque.resque_dist(original, resque.profile(model, data)),
        lambda: resque.sampled_dist(model, original, data, "0.03"),
    )
    base, full, sampled = map(seconds, works)
    return row(shift, f"{base:.1f}", f"{full / base:.2f}", f"{sampled / base:.2f}")


def table_head(*names: str) -> str:
    """Return the head of a table."""
    columns = *names, *COLUMNS
    return f"{row(*columns)}\n|{'---|' * len(columns)}"


def row(*texts: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(texts)} |"


def page(rounds: int | None, scale: float) -> Iterator[str]:
    """Yield the lines of the page; the sizes are those of the settings at any scale."""
    runs = rounds or 50
    error = np.sqrt(LEVEL * (1 - LEVEL) / runs)
    yield (
        f"Nominal coverage {LEVEL:g} over all looks, {runs} orders per row (standard error of a coverage {error:.3f}); "
        "rad. Coverage and errors are of the repetitions that ended early; the truth is a full pass."
    )
    yield ""
    yield from simulation(runs)
    yield from ("", "Fashion-MNIST: 60,000 new images, small CNN", "")
    yield from fashion_shifts(str(fashion_mnist()), runs)
