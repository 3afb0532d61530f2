"""Table 2: how well RESQUE_task orders the cost of learning a new task, beside the paper's figures.

Each target task is learned by the models of all other tasks, and by one with random weights, trained alike. The index
is computed after one epoch, which is part of the cost. The table holds r and ρ with each cost at an early, a middle and
a late cutoff, means over seeds, with n, 95 % interval and p. Its last rows take all pairs of tasks together, where
numbers of classes and samples differ.

    python studies/table2.py --preset quick
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from analysis import (
    CORRELATION_COLUMNS,
    COSTS,
    PLOTTED_COSTS,
    TARGET_NAMES,
    TASK_INDEX,
    Run,
    conditions,
    correlate_with_cost,
    correlation_cells,
    markdown,
    successful_runs,
    task_predictors,
    task_target,
)
from presets import PRESETS, TaskStudy
from publish import Rows, publish

PUBLISHED = """The paper's r / ρ with epochs, gradient norm and parameter change, n = 7 or 8 (7 of the 24 p-values are
above .05): ResNet18 → CIFAR10 .86 .82 .65 / .96 .92 .75; → CIFAR100 .75 .74 .71 / .89 .85 .78; → GTSRB .93 .83 .93 /
.75 .75 .64; ViT-B/16 → CIFAR10 .93 .93 .92 / .83 .85 .71."""
RESAMPLES = 1000
HEAD = ("task", "cutoff", "cost", *CORRELATION_COLUMNS)


def correlation_rows(study: TaskStudy, runs: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a table row for each target task, cutoff and cost."""
    for task in (*study.cutoffs, "all"):
        members = [run for run in runs if task in ("all", run.group[2])]
        for place, name in enumerate(TARGET_NAMES):
            known = conditions(members, task_target(study, place), task_predictors)
            title = name if task == "all" else f"{name}, {study.cutoffs[task][place]:g}"
            for cost in COSTS:
                yield task, title, cost, *correlation_cells(known, TASK_INDEX, cost)


def bootstrap_rows(study: TaskStudy, runs: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Yield ρ over all pairs, never reached last, with an interval from a bootstrap of whole target tasks."""
    random = np.random.default_rng(0)
    for place, name in enumerate(TARGET_NAMES):
        known = conditions(runs, task_target(study, place), task_predictors)
        by_task = {task: [each for each in known if each.group[2] == task] for task in study.cutoffs}
        for cost in PLOTTED_COSTS:
            whole = correlate_with_cost(known, TASK_INDEX, cost, never_last=True)
            resampled = [
                correlate_with_cost([c for task in tasks for c in by_task[task]], TASK_INDEX, cost, never_last=True)
                for tasks in random.choice(list(by_task), (RESAMPLES, len(by_task)))
            ]
            values = [correlation.value for correlation in resampled if correlation.value is not None]
            if whole.value is not None and values:
                low, high = np.quantile(values, (0.025, 0.975))
                yield name, cost, str(whole.n), f"{whole.value:.2f} [{low:.2f}, {high:.2f}]"


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the table of a preset."""
    parts = [f"# Table 2, preset {preset}", f"RESQUE_task ({TASK_INDEX}) and the cost of learning a task.", PUBLISHED]
    for study in PRESETS[preset].tasks:
        parts.append(
            f"**{study.name}**: `{study.model}`, sources trained by `{study.clean_recipe}`, then `{study.recipe}`."
        )
        runs = successful_runs(rows[study.name])
        parts.append(markdown(HEAD, correlation_rows(study, runs)))
        parts.append(
            "Pairs share their tasks, so the intervals of *all* above are too narrow. Here whole target tasks were "
            f"drawn again, {RESAMPLES} times:"
        )
        parts.append(markdown(("cutoff", "cost", "n", "ρ, never reached last [95 %]"), bootstrap_rows(study, runs)))
    return {"table2": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
