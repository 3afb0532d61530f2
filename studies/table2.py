"""Table 2: how well RESQUE_task orders the cost of learning a new task, beside the paper's figures.

For each target task, the models of all other tasks (and one with random weights, trained alike) learn it. The index
comes after one epoch, which is part of the cost. r and ρ with each cost at an early, a middle and a late cutoff, means
over seeds, with n, 95 % interval and p; last, over all pairs of tasks together, where classes and sizes differ.

    python studies/table2.py --preset quick
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from agreement import (
    CORRELATIONS,
    COSTS,
    DRAWN,
    EARLY_TO_LATE,
    TASK_INDEX,
    Run,
    conditions,
    correlations,
    cutoff,
    markdown,
    predicting,
    runs,
    task_predictors,
)
from presets import PRESETS, TaskStudy
from publish import Rows, publish

PUBLISHED = """The paper's r / ρ with epochs, gradient norm and parameter change, n = 7 or 8 (7 of the 24 p-values are
above .05): ResNet18 → CIFAR10 .86 .82 .65 / .96 .92 .75; → CIFAR100 .75 .74 .71 / .89 .85 .78; → GTSRB .93 .83 .93 /
.75 .75 .64; ViT-B/16 → CIFAR10 .93 .93 .92 / .83 .85 .71."""
RESAMPLES = 1000
HEAD = ("task", "cutoff", "cost", *CORRELATIONS)


def lines(study: TaskStudy, found: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """One line for each target task, cutoff and cost."""
    for task in (*study.cutoffs, "all"):
        own = [run for run in found if task in ("all", run.group[2])]
        for number_, name in enumerate(EARLY_TO_LATE):
            known = conditions(own, cutoff(study, number_), task_predictors)
            for cost in COSTS:
                yield (
                    task,
                    name if task == "all" else f"{name}, {study.cutoffs[task][number_]:g}",
                    cost,
                    *correlations(known, TASK_INDEX, cost),
                )


def over_tasks(study: TaskStudy, found: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """ρ over all pairs, those that never reached it last, with an interval that knows that they share their tasks."""
    random = np.random.default_rng(0)
    for number_, name in enumerate(EARLY_TO_LATE):
        known = conditions(found, cutoff(study, number_), task_predictors)
        of = {task: [each for each in known if each.group[2] == task] for task in study.cutoffs}
        for cost in DRAWN:
            whole = predicting(known, TASK_INDEX, cost, all_=True)
            drawn = [
                predicting([each for task in tasks for each in of[task]], TASK_INDEX, cost, all_=True).value
                for tasks in random.choice(list(of), (RESAMPLES, len(of)))
            ]
            values = [value for value in drawn if value is not None]
            if whole.value is not None and values:
                low, high = np.quantile(values, (0.025, 0.975))
                yield name, cost, str(whole.n), f"{whole.value:.2f} [{low:.2f}, {high:.2f}]"


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """The table of a preset."""
    parts = [f"# Table 2, preset {preset}", f"RESQUE_task ({TASK_INDEX}) and the cost of learning a task.", PUBLISHED]
    for study in PRESETS[preset].tasks:
        parts.append(
            f"**{study.name}**: `{study.model}`, sources trained by `{study.clean_recipe}`, then `{study.recipe}`."
        )
        found = runs(rows[study.name])
        parts.append(markdown(HEAD, lines(study, found)))
        parts.append(
            "Pairs share their tasks, so the intervals of *all* above are too narrow. Here whole target tasks were "
            f"drawn again, {RESAMPLES} times:"
        )
        parts.append(markdown(("cutoff", "cost", "n", "ρ, never reached last [95 %]"), over_tasks(study, found)))
    return {"table2": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
