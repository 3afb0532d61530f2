"""Figure 4: RESQUE_task against each cost of learning a task, at early and late cutoffs.

Each dot is a pair of tasks, averaged over seeds, its colour the target task; a triangle at the upper edge never reached
the cutoff in every seed. The table asks whether the index weighs more at later cutoffs: log cost = task + cutoff +
index + index × (cutoff number), least squares over the pairs that reached, with the interval of the product's
coefficient by a bootstrap of whole pairs.

    python studies/fig4.py --preset quick
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from agreement import (
    COSTS,
    DRAWN,
    EARLY_TO_LATE,
    TASK_INDEX,
    Condition,
    conditions,
    cutoff,
    markdown,
    number,
    runs,
    task_predictors,
)
from presets import PRESETS, TaskStudy
from publish import Made, Rows, publish

RESAMPLES = 1000
Known = Sequence[Sequence[Condition]]


def figure(study: TaskStudy, known: Known) -> Figure:
    """A row of panels a cutoff."""
    drawn = Figure(figsize=(3 * len(DRAWN), 8), layout="constrained")
    grid = drawn.subplots(len(known), len(DRAWN), sharex=True)
    for row, found, name in zip(grid, known, EARLY_TO_LATE, strict=True):
        for axes, cost in zip(row, DRAWN, strict=True):
            for place, task in enumerate(study.cutoffs):
                own = [(c.predictors[TASK_INDEX], c.costs[cost]) for c in found if c.group[2] == task]
                reached = [(x, y) for x, y in own if y]
                axes.plot(
                    *zip(*reached, strict=True) if reached else ([], []),
                    "o",
                    color=f"C{place}",
                    label=task,
                    markersize=4,
                )
                never = [x for x, y in own if y is None]
                axes.plot(never, [1.0] * len(never), "v", color=f"C{place}", transform=axes.get_xaxis_transform())
            axes.set(yscale="log")
            axes.set_title(f"{cost}, {name} cutoff", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("RESQUE_task")
    drawn.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper")
    return drawn


def slopes(rows: np.ndarray, tasks: int) -> np.ndarray:
    """``(slope at the early cutoff, its change a cutoff)`` of log cost; columns pair, task, cutoff, index, log cost."""
    _, task, late, x, y = rows.T
    design = np.column_stack([np.eye(tasks)[task.astype(int)], late, x, x * late])
    return np.linalg.lstsq(design, y, rcond=None)[0][-2:]


def interaction(study: TaskStudy, known: Known, cost: str) -> tuple[str, ...]:
    """Slope and interaction of one cost, each with its interval."""
    tasks, pairs = list(study.cutoffs), list({c.group: None for found in known for c in found})
    rows = np.array(
        [
            (pairs.index(c.group), tasks.index(c.group[2]), late, c.predictors[TASK_INDEX], math.log(y))
            for late, found in enumerate(known)
            for c in found
            if (y := c.costs[cost])
        ]
    )
    if len(rows) < len(tasks) + 5:
        return (cost, str(len(rows)), "–", "–")
    random, found = np.random.default_rng(0), slopes(rows, len(tasks))
    by_pair = [rows[rows[:, 0] == pair] for pair in np.unique(rows[:, 0])]
    again = [
        slopes(np.concatenate([by_pair[i] for i in random.integers(len(by_pair), size=len(by_pair))]), len(tasks))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    return (
        cost,
        str(len(rows)),
        *(f"{number(v)} [{number(a)}, {number(b)}]" for v, a, b in zip(found, low, high, strict=True)),
    )


def make(preset: str, rows: Rows) -> Mapping[str, Made]:
    """Figure and interaction of every study of tasks."""
    made: dict[str, Made] = {}
    parts = [f"# Figure 4, preset {preset}: index × cutoff"]
    for study in PRESETS[preset].tasks:
        found = runs(rows[study.name])
        known = [conditions(found, cutoff(study, place), task_predictors) for place in range(len(EARLY_TO_LATE))]
        made[f"fig4-{study.name}"] = figure(study, known)
        head = ("cost", "points", "slope of log cost at the early cutoff", "its change a cutoff later")
        parts.append(markdown(head, (interaction(study, known, cost) for cost in COSTS)))
    return made | {"fig4": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
