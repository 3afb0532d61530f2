"""Passes over the data: RESQUE_dist beside a bare forward pass, and beside what one would write by hand.

``index_add_`` is a pass whose layer outputs are summed by class in float32, with nothing checked. The authors'
algorithm is written here from its description: keep every representation, sum by class, normalize, take the angles.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import resque
from benchmarks.measuring import Case, Comparison, Curve, scaled
from resque.indices.nearest_mean import NearestMeanAssignment
from resque.models.feature_extraction import capture_features
from resque.models.networks import resnet18

BATCH, SIDE = 128, 32
BARE, TWO_BARE, INDEX = "bare pass", "two bare passes", "RESQUE_dist"
Batches = Iterable[tuple[Tensor, Tensor]]


def minimal_network(classes: int) -> nn.Module:
    """Build one strided convolution with ResNet18's last output, 512 × 4 × 4, then pooling and a head."""
    stem = nn.Conv2d(3, 512, SIDE // 4, stride=SIDE // 4)
    return nn.Sequential(stem, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def one_layer(classes: int) -> nn.Module:
    """Build one dense layer of 512 × 512 and a head."""
    return nn.Sequential(nn.Linear(512, 512), nn.Linear(512, classes))


def layer_of(model: nn.Module) -> str:
    """Return the layer that is profiled: a network's last convolution, or the first layer."""
    return "layer4.1.conv2" if hasattr(model, "layer4") else "0"


def bare(model: nn.Module, loader: Batches) -> None:
    """Run the forward pass alone."""
    with torch.no_grad():
        for inputs, _ in loader:
            model(inputs)


def index(model: nn.Module, loader: Batches, classes: int | None, layer: str = "", labels: str = "true") -> None:
    """Sum the classes for RESQUE_dist."""
    resque.profile(model, loader, layer=layer or layer_of(model), classes=classes, labels=labels)


def nearest_means(model: nn.Module, loader: Batches, classes: int) -> None:
    """Compute RESQUE_task by nearest class means, in two passes."""
    assignment = NearestMeanAssignment.to_profile(resque.profile(model, loader, layer_of(model), classes=classes))
    with capture_features(model, layer_of(model)) as extract:
        for inputs, labels in loader:
            assignment.add(extract(inputs)[0], labels)
    assert 0.0 <= assignment.one_minus_ari < 2.0


def plain_sums(model: nn.Module, loader: Batches, classes: int) -> None:
    """Sum the layer's outputs by class as a few lines would, in float32."""
    outputs: list[Tensor] = []
    hook = model.get_submodule(layer_of(model)).register_forward_hook(lambda *of: outputs.append(of[2].flatten(1)))
    sums: Tensor | None = None
    with torch.no_grad():
        for inputs, labels in loader:
            model(inputs)
            rows = outputs.pop()
            sums = torch.zeros(classes, rows.shape[1]) if sums is None else sums
            sums.index_add_(0, labels, rows)
    hook.remove()


def authors_directions(model: nn.Module, loader: Batches, classes: int) -> Tensor:
    """Keep all representations, sum those of each class, and normalize the sums (eq. 1 and 2)."""
    outputs: list[Tensor] = []
    hook = model.get_submodule(layer_of(model)).register_forward_hook(lambda *of: outputs.append(of[2].flatten(1)))
    with torch.no_grad():
        targets = [(model(inputs), labels)[1] for inputs, labels in loader]
    hook.remove()
    rows, labels = torch.cat(outputs), torch.cat(targets)
    sums = torch.stack([rows[labels == label].sum(0) for label in range(classes)])
    return sums / sums.norm(dim=1, keepdim=True)


def authors_index(model: nn.Module, loader: Batches, original: Tensor) -> float:
    """Compute the mean angle to the original directions (eq. 3)."""
    directions = authors_directions(model, loader, len(original))
    return float(torch.arccos((directions * original).sum(1).clamp(-1.0, 1.0)).mean())


def own_index(model: nn.Module, loader: Batches, original: resque.Profile) -> float:
    """Compute RESQUE_dist with its floor and interval."""
    return resque.resque_dist(original, resque.profile(model, loader, original.origin.layer)).value


def inputs_of(model: nn.Module, n: int, classes: int) -> Batches:
    """Return a loader of random inputs."""
    torch.manual_seed(0)
    shape = (
        (512,) if isinstance(model[0] if isinstance(model, nn.Sequential) else model, nn.Linear) else (3, SIDE, SIDE)
    )
    return DataLoader(TensorDataset(torch.rand(n, *shape), torch.arange(n) % classes), batch_size=BATCH)


def variants(
    build: Callable[[int], nn.Module], n: int, classes: int, names: Iterable[str], scale: float
) -> dict[str, Callable[[], object]]:
    """Build the network and its inputs, and return the passes that are asked for."""
    torch.manual_seed(0)
    model = build(classes).eval()
    loader = inputs_of(model, scaled(n, scale, 2 * classes), classes)
    original, directions = resque.profile(model, loader, layer_of(model)), authors_directions(model, loader, classes)
    every: dict[str, Callable[[], object]] = {
        BARE: partial(bare, model, loader),
        TWO_BARE: lambda: (bare(model, loader), bare(model, loader)),
        INDEX: partial(index, model, loader, classes),
        "RESQUE_dist, classes unknown": partial(index, model, loader, None),
        "RESQUE_dist, pseudo-labels": partial(index, model, loader, classes, labels="pseudo"),
        "RESQUE_dist, penultimate": partial(index, model, loader, classes, layer="penultimate"),
        "RESQUE_task, nearest means": partial(nearest_means, model, loader, classes),
        "pass with index_add_": partial(plain_sums, model, loader, classes),
        "RESQUE_dist with interval": partial(own_index, model, loader, original),
        "the authors' algorithm": partial(authors_index, model, loader, directions),
    }
    return {name: every[name] for name in names}


SUMS = Comparison(INDEX, "pass with index_add_")
WHOLE = Comparison("RESQUE_dist with interval", "the authors' algorithm", 1.0)
RESNET = Comparison(INDEX, BARE, 1.02), WHOLE
MINIMAL = (
    *(Comparison(f"RESQUE_dist{how}", BARE, 1.1) for how in ("", ", classes unknown", ", pseudo-labels")),
    Comparison("RESQUE_dist, penultimate", BARE, 1.1),
    Comparison("RESQUE_task, nearest means", TWO_BARE),
    SUMS,
    WHOLE,
)
LAYER = Comparison(INDEX, BARE, 1.3), SUMS, Comparison("pass with index_add_", BARE), WHOLE


def case(
    name: str,
    build: Callable[[int], nn.Module],
    n: int,
    classes: int,
    rows: tuple[Comparison, ...],
    most_s: float = 30.0,
) -> Case:
    """Return a case of the table."""
    names = list(dict.fromkeys(variant for row in rows for variant in row[:2]))
    prepare = partial(variants, build, n, classes, names)
    return Case(f"pass, {name}, {classes} classes", f"{n:,} samples", prepare, rows, most_s=most_s)


def growth(scale: float) -> dict[str, Callable[[], object]]:
    """Return bare pass and index of ever more samples through the minimal network."""
    found = {}
    for n in (512, 1024, 2048, 4096, 8192):
        passes = variants(minimal_network, n, 10, (BARE, INDEX), scale)
        found |= {f"{name}|{n}": run for name, run in passes.items()}
    return found


CASES = (
    case("ResNet18", resnet18, 128, 10, RESNET, 60.0),
    case("ResNet18", resnet18, 128, 100, RESNET, 60.0),
    case("minimal network", minimal_network, 4096, 10, MINIMAL),
    case("minimal network", minimal_network, 4096, 100, MINIMAL),
    case("a layer of 512 × 512", one_layer, 16_384, 10, LAYER),
    Case("growth with n", "", growth, curve=Curve("minimal network, 10 classes", "samples"), rounds=3),
)
