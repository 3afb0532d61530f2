"""Do the intervals of RESQUE_dist cover what they say, and how much bias does ``debias`` take out? By simulation.

Classes are directions in space; the shifted ones are turned by known angles; samples lie around them with noise that
differs between features and between classes. The plain interval is of the index over other samples of the same sizes,
so it is judged by the mean over all repetitions; the debiased one is of the index without noise, so it is judged by the
truth. Run it with ``make bench``.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

import resque
from resque.indices.results import DistributionIndex

LEVEL = 0.9


@dataclass(frozen=True)
class Case:
    """One setting of the simulation.

    Attributes:
        classes: Directions.
        width: Features.
        turn: Mean angle of the shift, rad; each class has 0.3 to 1.7 times that.
        noise: Standard deviation of a sample around its class, in units of the class's own features.
        n_original: Samples on the original side.
        n_shifted: Samples on the shifted side.
    """

    classes: int
    width: int
    turn: float
    noise: float
    n_original: int
    n_shifted: int


CASES = [
    Case(classes, width, turn, noise, *sizes)
    for classes, width, sizes in ((10, 64, (1000, 300)), (2, 64, (600, 200)), (100, 256, (5000, 2000)))
    for turn in (0.0, 0.1, 0.4, 1.0)
    for noise in (1.0, 3.0)
]


class World:
    """Class directions before and after, and how noisy each feature and each class is."""

    def __init__(self, case: Case, generator: np.random.Generator) -> None:
        shape = (case.classes, case.width)
        self.case, self.original = case, generator.normal(size=shape) + 0.5
        other = generator.normal(size=shape)
        other -= self.original * ((other * self.original).sum(1) / (self.original**2).sum(1))[:, None]
        other *= (np.linalg.norm(self.original, axis=1) / np.linalg.norm(other, axis=1))[:, None]
        self.angles = case.turn * generator.uniform(0.3, 1.7, case.classes)
        self.shifted = np.cos(self.angles)[:, None] * self.original + np.sin(self.angles)[:, None] * other
        spread = np.exp(generator.normal(size=case.width))
        self.spread = case.noise * spread / np.sqrt((spread**2).mean())
        self.own = np.exp(0.4 * generator.normal(size=case.classes))

    def indices(self, generator: np.random.Generator) -> tuple[DistributionIndex, DistributionIndex]:
        """The plain and the debiased index of freshly drawn samples."""
        sides = (self.original, self.case.n_original), (self.shifted, self.case.n_shifted)
        one, other = (self._profile(directions, n, generator) for directions, n in sides)
        return tuple(resque.resque_dist(one, other, debias=debias, level=LEVEL) for debias in (False, True))

    def _profile(self, directions: np.ndarray, n: int, generator: np.random.Generator) -> resque.Profile:
        labels = np.arange(n) % self.case.classes
        noise = generator.normal(size=(n, self.case.width)) * self.spread * self.own[labels][:, None]
        return resque.Profile.from_arrays(directions[labels] + noise, labels)


def row(case: Case, runs: int) -> str:
    """One line of the table."""
    generator = np.random.default_rng(20261121)
    world = World(case, generator)
    plain, debiased = zip(*(world.indices(generator) for _ in range(runs)), strict=True)
    truth, expected = float(world.angles.mean()), float(np.mean([index.value for index in plain]))
    cells = [
        f"{case.classes} × {case.width}",
        f"{case.n_original:,} / {case.n_shifted:,}",
        f"{case.noise:g}",
        f"{truth:.3f}",
    ]
    for found, aim in ((plain, expected), (debiased, truth)):
        known = [index.interval for index in found if index.interval is not None]
        held = sum(interval.low <= aim <= interval.high for interval in known)
        width = np.mean([interval.high - interval.low for interval in known])
        cells += [f"{np.mean([index.value for index in found]):.3f}", f"{held / len(known):.2f}", f"{width:.3f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, help="also write the table there")
    options = parser.parse_args()
    error = math.sqrt(LEVEL * (1 - LEVEL) / options.runs)
    lines = [
        f"Nominal coverage {LEVEL:g}, {options.runs} repetitions a row (standard error of a coverage {error:.3f}); rad",
        "",
        "| classes × width | n | noise | truth | plain | covered | width | debiased | covered | width |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in track(CASES, "intervals", console=Console(stderr=True), transient=True):
        lines.append(row(case, options.runs))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
