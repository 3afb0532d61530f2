"""Simulate the coverage of the intervals of RESQUE_dist, and the bias that ``debias`` removes.

Classes are directions in space. The shifted directions are rotated by known angles, and samples lie around them with
noise that differs between features and between classes. The plain interval is for the index of other samples of the
same sizes, so its coverage refers to the mean over all repetitions. The debiased interval is for the index without
noise, so its coverage refers to the true angle. It is the page ``intervals``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

import resque
from resque.indices.results import DistributionIndex

LEVEL = 0.9


@dataclass(frozen=True)
class Case:
    """One setting of the simulation.

    Attributes:
        classes: Number of class directions.
        width: Number of features.
        angle: Mean angle of the shift, radians; each class has 0.3 to 1.7 times that.
        noise: Standard deviation of a sample around its class, in units of the class's own features.
        n_original: Number of original samples.
        n_shifted: Number of shifted samples.
    """

    classes: int
    width: int
    angle: float
    noise: float
    n_original: int
    n_shifted: int


CASES = [
    Case(classes, width, angle, noise, *sizes)
    for classes, width, sizes in ((10, 64, (1000, 300)), (2, 64, (600, 200)), (100, 256, (5000, 2000)))
    for angle in (0.0, 0.1, 0.4, 1.0)
    for noise in (1.0, 3.0)
]


class Simulation:
    """Class directions before and after the shift, and the noise of each feature and each class."""

    def __init__(self, case: Case, generator: np.random.Generator) -> None:
        shape = (case.classes, case.width)
        self.case, self.original = case, generator.normal(size=shape) + 0.5
        other = generator.normal(size=shape)
        other -= self.original * ((other * self.original).sum(1) / (self.original**2).sum(1))[:, None]
        other *= (np.linalg.norm(self.original, axis=1) / np.linalg.norm(other, axis=1))[:, None]
        self.angles = case.angle * generator.uniform(0.3, 1.7, case.classes)
        self.shifted = np.cos(self.angles)[:, None] * self.original + np.sin(self.angles)[:, None] * other
        spread = np.exp(generator.normal(size=case.width))
        self.spread = case.noise * spread / np.sqrt((spread**2).mean())
        self.class_noise = np.exp(0.4 * generator.normal(size=case.classes))

    def indices(self, generator: np.random.Generator) -> tuple[DistributionIndex, DistributionIndex]:
        """Compute the plain and the debiased index of newly drawn samples."""
        original = self._profile(self.original, self.case.n_original, generator)
        shifted = self._profile(self.shifted, self.case.n_shifted, generator)
        plain, debiased = (resque.resque_dist(original, shifted, debias=d, level=LEVEL) for d in (False, True))
        return plain, debiased

    def _profile(self, directions: np.ndarray, n: int, generator: np.random.Generator) -> resque.Profile:
        labels = np.arange(n) % self.case.classes
        noise = generator.normal(size=(n, self.case.width)) * self.spread * self.class_noise[labels][:, None]
        return resque.Profile.from_arrays(directions[labels] + noise, labels)


def row(case: Case, runs: int) -> str:
    """Simulate one case, and format its table row."""
    generator = np.random.default_rng(20261121)
    simulation = Simulation(case, generator)
    plain, debiased = zip(*(simulation.indices(generator) for _ in range(runs)), strict=True)
    truth, expected = float(simulation.angles.mean()), float(np.mean([index.value for index in plain]))
    cells = [
        f"{case.classes} × {case.width}",
        f"{case.n_original:,} / {case.n_shifted:,}",
        f"{case.noise:g}",
        f"{truth:.3f}",
    ]
    for indices, reference in ((plain, expected), (debiased, truth)):
        intervals = [index.interval for index in indices if index.interval is not None]
        covered = sum(interval.low <= reference <= interval.high for interval in intervals)
        width, mean = (np.mean(values) for values in ([i.high - i.low for i in intervals], [i.value for i in indices]))
        cells += [f"{mean:.3f}", f"{covered / len(intervals):.2f}", f"{width:.3f}"]
    return f"| {' | '.join(cells)} |"


def page(rounds: int | None, scale: float) -> Iterator[str]:
    """Yield the lines of the page; the sizes are those of the settings at any scale."""
    runs = rounds or 200
    error = math.sqrt(LEVEL * (1 - LEVEL) / runs)
    yield f"Nominal coverage {LEVEL:g}, {runs} repetitions per row (standard error of a coverage {error:.3f}); rad"
    yield ""
    yield "| classes × width | n | noise | truth | plain | covered | width | debiased | covered | width |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for case in CASES:
        yield row(case, runs)
