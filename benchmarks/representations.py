"""From representations in memory: clusters, tests for a shift, distances and transfer scores, beside other tools.

Both sides start from the same float32 features, in batches where they can. Where clusters are computed, they are the
same on both sides: a case that finds a difference is an error.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import resque
from benchmarks.measuring import Case, Comparison, Curve, scaled
from resque.indices.baselines import Moments, frechet_distance, logme, shrunk_h_score
from resque.indices.class_sums import ClassSums
from resque.indices.clustering import cluster_representations
from resque.indices.nearest_mean import NearestPoint

BATCH, WIDTH = 1024, 512
Runs = dict[str, Callable[[], object]]


def blobs(n: int, width: int, classes: int, spread: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw rows around class means that overlap; return rows and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centers = torch.randn(classes, width, generator=torch.Generator().manual_seed(1))
    return spread * torch.randn(n, width, generator=generator) + 0.3 * centers[labels], labels


def check_same(ours: np.ndarray, theirs: np.ndarray, most: float = 0.0) -> None:
    """Raise ValueError if more than a share of the samples is in another cluster."""
    share = float((np.asarray(ours) != np.asarray(theirs)).mean())
    if share > most:
        raise ValueError(f"{share:.2%} of the samples are in another cluster")


def assignment(n: int, width: int, classes: int, scale: float) -> Runs:
    """Return the assignment to class means, ours and scikit-learn's in both precisions."""
    from sklearn.metrics import pairwise_distances_argmin

    rows, labels = blobs(scaled(n, scale, 2 * classes), width, classes)
    means = resque.Profile.from_arrays(rows, labels).class_means()[1]
    search, singles, doubles = NearestPoint(means), rows.numpy(), rows.double()
    centers = means.numpy(), means.float().numpy()

    def ours(rows: Tensor) -> np.ndarray:
        return torch.cat([search.nearest(part) for part in torch.split(rows, BATCH)]).numpy()

    check_same(ours(rows), pairwise_distances_argmin(doubles.numpy(), centers[0]))
    check_same(ours(rows), pairwise_distances_argmin(singles, centers[1]), 0.001)  # float32 may break ties otherwise
    return {
        "nearest class mean of float32": lambda: ours(rows),
        "nearest class mean of float64": lambda: ours(doubles),
        "scikit-learn, float32": lambda: pairwise_distances_argmin(singles, centers[1]),
        "scikit-learn, float64": lambda: pairwise_distances_argmin(doubles.numpy(), centers[0]),
    }


def kmeans(n: int, width: int, classes: int, scale: float) -> Runs:
    """Return KMeans from class means, ours, scikit-learn's, and the whole index."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    rows, labels = blobs(scaled(n, scale, 2 * classes), width, classes)
    target = labels.numpy()
    means = np.stack([rows.double().numpy()[target == label].mean(0) for label in range(classes)])

    def theirs(dtype: type) -> np.ndarray:
        found: np.ndarray = KMeans(classes, init=means.astype(dtype), n_init=1, tol=0.0).fit_predict(
            rows.numpy().astype(dtype)
        )
        return found

    def ours() -> np.ndarray:
        return cluster_representations(rows.double().numpy(), target)

    check_same(ours(), theirs(np.float64))
    return {
        "KMeans from class means": ours,
        "scikit-learn, float32": lambda: theirs(np.float32),
        "scikit-learn, float64": lambda: theirs(np.float64),
        "RESQUE_task": lambda: resque.resque_task(rows, labels),
        "the authors' algorithm": lambda: 1.0 - adjusted_rand_score(target, theirs(np.float32)),
    }


def two_sets(n: int, width: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Draw an original and a shifted set."""
    return blobs(n, width, 10), blobs(n, width, 10, 1.1, 2)


def shift(n: int, scale: float) -> Runs:
    """Return RESQUE_dist from features, a domain classifier and the Fréchet distance."""
    from sklearn.linear_model import LogisticRegression

    (before, labels), (after, others) = two_sets(scaled(n, scale, 50), WIDTH)
    original = resque.Profile.from_arrays(before, labels)

    def domain_classifier() -> float:
        rows = torch.cat([before, after]).numpy()
        target = np.repeat([0, 1], len(before))
        fitted = LogisticRegression(max_iter=100).fit(rows[::2], target[::2])
        return float(fitted.score(rows[1::2], target[1::2]))

    return {
        "RESQUE_dist from features": lambda: resque.resque_dist(original, resque.Profile.from_arrays(after, others)),
        "domain classifier, scikit-learn": domain_classifier,
        "Fréchet distance, torchmetrics": partial(_their_frechet, _frechet_tool(), (before, after)),
    }


def mean_discrepancy(n: int, scale: float) -> Runs:
    """Return RESQUE_dist from features, and alibi-detect's test by maximum mean discrepancy."""
    tool = importlib.import_module("alibi_detect.cd.pytorch.mmd").MMDDriftTorch
    (before, labels), (after, others) = two_sets(scaled(n, scale, 50), WIDTH)
    original = resque.Profile.from_arrays(before, labels)

    def theirs() -> object:
        return tool(before.numpy(), n_permutations=100, device="cpu").score(after.numpy())

    return {
        "RESQUE_dist from features": lambda: resque.resque_dist(original, resque.Profile.from_arrays(after, others)),
        "MMD test, alibi-detect": theirs,
    }


def moments_of(rows: Tensor, labels: Tensor, classes: int) -> Moments:
    """Sum the features batch by batch."""
    moments = Moments(range(classes))
    for part, numbers in zip(torch.split(rows, BATCH), torch.split(labels, BATCH), strict=True):
        moments.update(part, numbers)
    return moments


def transfer_scores(n: int, classes: int, scale: float) -> Runs:
    """Return LogME and shrunk H-score, ours and transformer-ranker's."""
    tool = importlib.import_module("transformer_ranker.estimators")
    rows, labels = blobs(scaled(n, scale, 5 * WIDTH), WIDTH, classes)

    def ours() -> list[float]:
        moments = moments_of(rows, labels, classes)
        return [logme(moments), shrunk_h_score(moments)]

    return {
        "LogME and H-score": ours,
        "transformer-ranker": lambda: [tool.LogME().fit(rows, labels), tool.HScore().fit(rows, labels)],
    }


def frechet(width: int, scale: float) -> Runs:
    """Return the Fréchet distance of two sets, ours and torchmetrics'."""
    tool, n = _frechet_tool(), scaled(4 * width, scale, 8)
    sets, labels = [rows for rows, _ in two_sets(n, width)], torch.zeros(n).long()
    return {
        "Fréchet distance": lambda: frechet_distance(*(moments_of(rows, labels, 1) for rows in sets)),
        "torchmetrics": lambda: _their_frechet(tool, sets),
    }


def _frechet_tool() -> Any:
    return importlib.import_module("torchmetrics.image.fid")


def _their_frechet(tool: Any, sets: Any) -> Any:
    """Compute what the tool's ``update`` and ``compute`` do, without its network."""

    def sums(rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = [part.double() for part in torch.split(rows, BATCH)]
        mean = torch.stack([part.sum(0) for part in parts]).sum(0)[None] / len(rows)
        products = torch.stack([part.T @ part for part in parts]).sum(0)
        return mean[0], (products - len(rows) * mean.T @ mean) / (len(rows) - 1)

    (mean, covariance), (other_mean, other_covariance) = map(sums, sets)
    return tool._compute_fid(mean, covariance, other_mean, other_covariance)


def sums(rows: Tensor, labels: Tensor, classes: int, own: bool) -> None:
    """Sum features by class, batch by batch: with halves in float64, or by ``index_add_`` in float32."""
    table, plain = ClassSums.zeros(torch.arange(classes), rows.shape[1]), torch.zeros(classes, rows.shape[1])
    for part, target in zip(torch.split(rows, BATCH), torch.split(labels, BATCH), strict=True):
        if own:
            table.add(part, target, target % 2)
        else:
            plain.index_add_(0, target, part)


def growth(sizes: tuple[int, ...], n: int, scale: float, by_width: bool) -> Runs:
    """Return class sums of ever more classes, or of an ever larger width."""
    found: Runs = {}
    for size in sizes:
        width, classes = (size, 10) if by_width else (WIDTH, size)
        rows, labels = blobs(scaled(n, scale, classes), width, classes)
        for name, own in (("class sums", True), ("index_add_", False)):
            found[f"{name}|{size}"] = partial(sums, rows, labels, classes, own)
    return found


SKLEARN, METRICS = ("scikit-learn",), ("torchmetrics",)
MEANS = "nearest class mean of float"
NEAREST = (
    Comparison(f"{MEANS}32", "scikit-learn, float32", 1.0),
    Comparison(f"{MEANS}32", "scikit-learn, float64", 1.0),
    Comparison(f"{MEANS}64", "scikit-learn, float64", 1.0),
)
CLUSTERED = (
    Comparison("KMeans from class means", "scikit-learn, float32", 1.0),
    Comparison("KMeans from class means", "scikit-learn, float64", 1.0),
    Comparison("RESQUE_task", "the authors' algorithm", 1.0),
)
CASES = (
    *(
        Case(
            f"assignment, {classes} classes of width {width}",
            f"{n:,} × {width:,}, {classes} classes",
            partial(assignment, n, width, classes),
            NEAREST,
            neighbors=SKLEARN,
        )
        for n, width, classes in ((20_000, 512, 10), (20_000, 512, 100), (2_000, 8192, 100))
    ),
    *(
        Case(
            f"KMeans, {classes} classes",
            f"5,000 × {WIDTH}, {classes} classes",
            partial(kmeans, 5_000, WIDTH, classes),
            CLUSTERED,
            neighbors=SKLEARN,
        )
        for classes in (10, 100)
    ),
    Case(
        "shift",
        f"2 × 2,000 × {WIDTH}",
        partial(shift, 2_000),
        (
            Comparison("RESQUE_dist from features", "domain classifier, scikit-learn", 0.22),
            Comparison("RESQUE_dist from features", "Fréchet distance, torchmetrics", 0.15),
        ),
        neighbors=(*SKLEARN, *METRICS),
    ),
    Case(
        "shift, MMD",
        f"2 × 2,000 × {WIDTH}",
        partial(mean_discrepancy, 2_000),
        (Comparison("RESQUE_dist from features", "MMD test, alibi-detect", 0.02),),
        neighbors=("alibi-detect",),
    ),
    *(
        Case(
            f"Fréchet distance, width {width}",
            f"2 × {4 * width:,} × {width}",
            partial(frechet, width),
            (Comparison("Fréchet distance", "torchmetrics", 1.0),),
            neighbors=METRICS,
        )
        for width in (64, 512)
    ),
    Case(
        "transfer scores",
        f"20,000 × {WIDTH}, 100 classes",
        partial(transfer_scores, 20_000, 100),
        (Comparison("LogME and H-score", "transformer-ranker", 1.0),),
        neighbors=("transformer-ranker",),
    ),
    Case(
        "growth with classes",
        "",
        partial(growth, (10, 30, 100, 300, 1000), 8192, by_width=False),
        curve=Curve(f"8,192 features of width {WIDTH}", "classes"),
        rounds=3,
    ),
    Case(
        "growth with width",
        "",
        partial(growth, (64, 256, 1024, 4096, 16384), 2048, by_width=True),
        curve=Curve("2,048 features, 10 classes", "width"),
        rounds=3,
    ),
)
