"""Figure 4: RESQUE_task against each cost of learning a task, at early and late cutoffs.

Each dot is a pair of tasks, averaged over seeds; its color is the target task. A triangle at the upper edge is a pair
that did not reach the cutoff in every seed. The table tests whether the index weighs more at later cutoffs: log cost =
task + cutoff + index + index × (cutoff number), least squares over the pairs that reached it, with an interval of the
interaction from a bootstrap of whole pairs.

    python studies/fig4.py --preset quick
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis import (
    COSTS,
    PLOTTED_COSTS,
    TARGET_NAMES,
    TASK_INDEX,
    Condition,
    conditions,
    markdown,
    number,
    successful_runs,
    task_predictors,
    task_target,
)
from presets import PRESETS, TaskStudy
from publish import Content, Rows, publish

RESAMPLES = 1000
ByCutoff = Sequence[Sequence[Condition]]


def figure(study: TaskStudy, by_cutoff: ByCutoff) -> Figure:
    """Draw a row of panels per cutoff."""
    canvas = Figure(figsize=(3 * len(PLOTTED_COSTS), 8), layout="constrained")
    grid = canvas.subplots(len(by_cutoff), len(PLOTTED_COSTS), sharex=True)
    for row, known, name in zip(grid, by_cutoff, TARGET_NAMES, strict=True):
        for axes, cost in zip(row, PLOTTED_COSTS, strict=True):
            for place, task in enumerate(study.cutoffs):
                pairs = [(c.predictors[TASK_INDEX], c.costs[cost]) for c in known if c.group[2] == task]
                reached = [(x, y) for x, y in pairs if y]
                columns = zip(*reached, strict=True) if reached else ([], [])
                axes.plot(*columns, "o", color=f"C{place}", label=task, markersize=4)
                never = [x for x, y in pairs if y is None]
                axes.plot(never, [1.0] * len(never), "v", color=f"C{place}", transform=axes.get_xaxis_transform())
            axes.set(yscale="log")
            axes.set_title(f"{cost}, {name} cutoff", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("RESQUE_task")
    canvas.legend(*grid[0][0].get_legend_handles_labels(), loc="outside right upper")
    return canvas


def slopes(rows: np.ndarray, tasks: int) -> np.ndarray:
    """Fit the slope of log cost at the early cutoff, and its change per cutoff.

    Args:
        rows: ``(n, 5)`` columns pair, task, cutoff, index and log cost.
        tasks: Number of tasks, each of which has its own intercept.
    """
    _, task, late, x, y = rows.T
    design = np.column_stack([np.eye(tasks)[task.astype(int)], late, x, x * late])
    return np.linalg.lstsq(design, y, rcond=None)[0][-2:]


def interaction(study: TaskStudy, by_cutoff: ByCutoff, cost: str) -> tuple[str, ...]:
    """Return slope and interaction of one cost as table cells, each with its interval."""
    tasks, pairs = list(study.cutoffs), list({c.group: None for known in by_cutoff for c in known})
    rows = np.array(
        [
            (pairs.index(c.group), tasks.index(c.group[2]), late, c.predictors[TASK_INDEX], math.log(y))
            for late, known in enumerate(by_cutoff)
            for c in known
            if (y := c.costs[cost])
        ]
    )
    if len(rows) < len(tasks) + 5:
        return (cost, str(len(rows)), "–", "–")
    random, estimate = np.random.default_rng(0), slopes(rows, len(tasks))
    by_pair = [rows[rows[:, 0] == pair] for pair in np.unique(rows[:, 0])]
    resampled = [
        slopes(np.concatenate([by_pair[i] for i in random.integers(len(by_pair), size=len(by_pair))]), len(tasks))
        for _ in range(RESAMPLES)
    ]
    ends = np.quantile(resampled, [0.025, 0.975], axis=0)
    cells = (f"{number(v)} [{number(low)}, {number(high)}]" for v, low, high in zip(estimate, *ends, strict=True))
    return (cost, str(len(rows)), *cells)


def make(preset: str, rows: Rows) -> Mapping[str, Content]:
    """Make figure and interaction of every study of tasks."""
    contents: dict[str, Content] = {}
    parts = [f"# Figure 4, preset {preset}: index × cutoff"]
    for study in PRESETS[preset].tasks:
        runs = successful_runs(rows[study.name])
        by_cutoff = [conditions(runs, task_target(study, k), task_predictors) for k in range(len(TARGET_NAMES))]
        contents[f"fig4-{study.name}"] = figure(study, by_cutoff)
        head = ("cost", "points", "slope of log cost at the early cutoff", "its change a cutoff later")
        parts.append(markdown(head, (interaction(study, by_cutoff, cost) for cost in COSTS)))
    return contents | {"fig4": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
