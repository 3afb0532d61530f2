"""Measure variants in turns, and describe what is compared.

Each variant runs once per round, in a new order each round, so that disturbances of the machine affect all of them.
Ratios are taken within a round. Both clocks stand side by side: the wall clock, and the processor time of this process
and of the child processes that it has waited for.
"""

import math
import os
import random
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "FASHION", "Case", "Comparison", "Curve", "Row", "Spread", "fashion_mnist", "interleaved", "measure", "processor_s",
    "ratios", "scaled",
]  # fmt: skip

FASHION = "/usr/share/datasets/fashion-mnist"
SHORTEST_S, CERTAINLY_LONG_S = 0.02, 2.0
FEWEST_ROUNDS = 3
Row = dict[str, Any]
Variants = Mapping[str, Callable[[], object]]


class Comparison(NamedTuple):
    """A row of the table: two variants of a case, ours and theirs, and the ratio that is aimed at.

    Attributes:
        ours: Name of our variant.
        theirs: Name of the variant beside it.
        aim: Ratio that is aimed at; None without an aim.
    """

    ours: str
    theirs: str
    aim: float | None = None


class Curve(NamedTuple):
    """A panel of the figure; its variants are named ``"line|x"``.

    Attributes:
        title: Title of the panel.
        axis: Label of the horizontal axis.
    """

    title: str
    axis: str


@dataclass(frozen=True)
class Case:
    """Variants that are measured together.

    Attributes:
        name: Name of the case, unique.
        size: Data that are passed, in words.
        prepare: Function that builds the variants from the scale of their sizes; 1 is the size of the table. An
            ImportError leaves the case out.
        rows: Rows of the table that come from it.
        curve: Panel of the figure that comes from it; None for a case of the table.
        neighbors: Distributions whose versions stand with the table.
        rounds: Number of rounds.
        most_s: Seconds after which no further round begins.
    """

    name: str
    size: str
    prepare: Callable[[float], Variants]
    rows: tuple[Comparison, ...] = ()
    curve: Curve | None = None
    neighbors: tuple[str, ...] = ()
    rounds: int = 9
    most_s: float = 30.0


@dataclass
class Spread:
    """Median and range of some numbers.

    Attributes:
        values: The numbers, one at least.
        digits: Digits after the point; None takes two, and three if the median is below a tenth.

    Example:
        >>> str(Spread([1.0, 0.5, 0.7])), str(Spread([0.01])), Spread([3.0]).median
        ('0.70 [0.50, 1.00]', '0.010 [0.010, 0.010]', 3.0)
    """

    values: Sequence[float]
    digits: int | None = None
    median: float = field(init=False)

    def __post_init__(self) -> None:
        self.median = statistics.median(self.values)

    def __str__(self) -> str:
        digits = self.digits or (2 if self.median >= 0.1 else 3)
        return f"{self.median:.{digits}f} [{min(self.values):.{digits}f}, {max(self.values):.{digits}f}]"


def processor_s() -> float:
    """Return the processor seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleaved(names: Sequence[str], rounds: int, seed: int = 0) -> Iterator[list[str]]:
    """Yield the names once per round, each time in a new order.

    Example:
        >>> [sorted(order) for order in interleaved("ab", 2)]
        [['a', 'b'], ['a', 'b']]
    """
    orders = random.Random(seed)
    for _ in range(rounds):
        yield orders.sample(names, len(names))


def measure(variants: Variants, rounds: int, most_s: float = math.inf, shortest_s: float = SHORTEST_S) -> Row:
    """Time variants that take turns.

    Each runs first without being measured. One that is quicker than the shortest time runs several times in a block.

    Args:
        variants: Name → function.
        rounds: Number of rounds.
        most_s: Seconds after which no further round begins, if three are done.
        shortest_s: Shortest time of a block.

    Returns:
        ``wall`` and ``processor``, each name → seconds of one call, round by round.

    Example:
        >>> row = measure({"ours": lambda: None, "theirs": lambda: None}, 2, shortest_s=0.0)
        >>> sorted(row), len(row["processor"]["ours"])
        (['processor', 'wall'], 2)
    """
    calls, start = {name: _calls(run, shortest_s) for name, run in variants.items()}, time.perf_counter()
    row: Row = {clock: {name: [] for name in variants} for clock in ("wall", "processor")}
    for done, order in enumerate(interleaved([*variants], rounds)):
        if done >= FEWEST_ROUNDS and time.perf_counter() - start > most_s:
            break
        for name in order:
            wall, cpu = time.perf_counter(), processor_s()
            for _ in range(calls[name]):
                variants[name]()
            cpu, wall = processor_s() - cpu, time.perf_counter() - wall
            row["processor"][name].append(cpu / calls[name])
            row["wall"][name].append(wall / calls[name])
    return row


def _calls(run: Callable[[], object], shortest_s: float) -> int:
    """Return how many calls make a block; the first call, which may import and allocate, does not count."""
    for _ in range(2):
        began = time.perf_counter()
        run()
        if (took := time.perf_counter() - began) > CERTAINLY_LONG_S:
            return 1
    return math.ceil(max(1.0, shortest_s / max(took, 1e-7)))


def ratios(row: Row, clock: str, comparison: Comparison) -> Spread:
    """Return our seconds over theirs, round by round.

    Example:
        >>> row = {"processor": {"a": [1.0, 3.0, 2.0], "b": [2.0, 2.0, 2.0]}}
        >>> str(ratios(row, "processor", Comparison("a", "b")))
        '1.00 [0.50, 1.50]'
    """
    ours, theirs = row[clock][comparison.ours], row[clock][comparison.theirs]
    return Spread([one / other for one, other in zip(ours, theirs, strict=True)])


def scaled(n: int, scale: float, least: int = 1) -> int:
    """Return a size at a scale, and no less than the least that makes sense."""
    return max(least, round(n * scale))


def fashion_mnist() -> Path:
    """Return the folder of Fashion-MNIST's four files; raise ImportError if they are not there."""
    folder = Path(os.environ.get("FASHION_MNIST", FASHION))
    if not folder.is_dir():
        raise ImportError("Fashion-MNIST is not here: name its folder with FASHION_MNIST")
    return folder
