"""Compare the CPU time of transfer scores and of the Fréchet distance with that of other tools.

Both sides start from the features, in batches where they can, and run once per round in a new order. Ratios are taken
within a round. A tool that is not installed is left out. Run it by hand, after installing transformer-ranker and
torchmetrics: ``OMP_NUM_THREADS=1 python benchmarks/scores.py``.
"""

import argparse
import importlib
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resque.indices.baselines import Moments, frechet_distance, logme, shrunk_h_score

N, WIDTH, CLASSES, BATCH = 20_000, 512, 100, 1024
Pair = tuple[Callable[[], Any], Callable[[], Any]]


def moments_of(rows: Tensor, labels: Tensor, classes: int) -> Moments:
    """Sum the features batch by batch."""
    moments = Moments(range(classes))
    for part, numbers in zip(torch.split(rows, BATCH), torch.split(labels, BATCH), strict=True):
        moments.update(part, numbers)
    return moments


def transfer_scores() -> Pair:
    """Return LogME and shrunk H-score, ours and transformer-ranker's."""
    tool = importlib.import_module("transformer_ranker.estimators")
    labels = torch.randint(0, CLASSES, (N,))
    rows = torch.randn(N, WIDTH) + torch.randn(CLASSES, WIDTH)[labels]

    def ours() -> list[float]:
        moments = moments_of(rows, labels, CLASSES)
        return [logme(moments), shrunk_h_score(moments)]

    return ours, lambda: [tool.LogME().fit(rows, labels), tool.HScore().fit(rows, labels)]


def frechet(width: int) -> Pair:
    """Return the Fréchet distance of two sets, ours and torchmetrics'."""
    tool = importlib.import_module("torchmetrics.image.fid")
    sets, labels = [torch.randn(4 * width, width) * scale for scale in (1.0, 1.3)], torch.zeros(4 * width).long()

    def sums(rows: Tensor) -> tuple[Tensor, Tensor]:  # as in the tool's ``update`` and ``compute``, without its network
        parts = [part.double() for part in torch.split(rows, BATCH)]
        mean = torch.stack([part.sum(0) for part in parts]).sum(0)[None] / len(rows)
        products = torch.stack([part.T @ part for part in parts]).sum(0)
        return mean[0], (products - len(rows) * mean.T @ mean) / (len(rows) - 1)

    def theirs() -> Any:
        (mean, covariance), (other_mean, other_covariance) = map(sums, sets)
        return tool._compute_fid(mean, covariance, other_mean, other_covariance)

    return lambda: frechet_distance(*(moments_of(rows, labels, 1) for rows in sets)), theirs


CASES: dict[str, Callable[[], Pair]] = {
    f"LogME and H-score, {N:,} × {WIDTH}, {CLASSES} classes; transformer-ranker": transfer_scores,
    "Fréchet distance, 2 × 256 × 64; torchmetrics": lambda: frechet(64),
    "Fréchet distance, 2 × 2,048 × 512; torchmetrics": lambda: frechet(512),
}


def measure(pair: Pair, rounds: int) -> list[list[float]]:
    """Return the seconds of each side, round by round; the first round is not measured."""
    seconds: list[list[float]] = [[], []]
    for number in range(rounds + 1):
        for side in random.sample((0, 1), 2):
            start = time.process_time()
            pair[side]()
            if number:
                seconds[side].append(time.process_time() - start)
    return seconds


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [f"CPU time on one thread, median of {options.rounds} interleaved rounds [least, most]", ""]
    lines += ["| scores, features; tool | resque | tool | ratio |", "|---|---|---|---|"]
    for name, prepare in CASES.items():
        try:
            ours, theirs = measure(prepare(), options.rounds)
        except ImportError as error:
            print(f"{name} is left out: {error}")
            continue
        ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
        spread = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        lines.append(
            f"| {name} | {1e3 * statistics.median(ours):.1f} ms | {1e3 * statistics.median(theirs):.1f} ms | {spread} |"
        )
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
