"""Beyond the paper: baselines as predictors, forms of the index, recipes, initializations, similarity of tasks.

* ``baselines``: Spearman's ρ with steps, of the index and of each baseline from the same pass, over all shift types
  and within each (the median over shift types), at three targets; the same for tasks.
* ``forms``: the index by layer, reduction, labels, sample size and bias correction.
* ``recipes``: how well the index orders the costs of other recipes, and how these compare with those of the first.
* ``starts``: the three initializations of RESQUE_task beside one another.
* ``similarity``: RESQUE_task and steps for each source × target, as a table and a figure.

    python studies/beyond.py --preset quick
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from analysis import (
    COSTS,
    INDEX,
    TARGET_NAMES,
    TASK_INDEX,
    Condition,
    Run,
    conditions,
    correlate_with_cost,
    fixed_target,
    markdown,
    number,
    shift_predictors,
    successful_runs,
    task_predictors,
    task_target,
)
from presets import NOISES, PRESETS, Preset, ShiftStudy, TaskStudy
from publish import Content, Rows, publish

COST = "steps"
STEPS_TITLE = "steps to the middle cutoff"
ByTarget = Sequence[Sequence[Condition]]


def median_within(known: Sequence[Condition], predictor: str, place: int) -> str:
    """Return the median of ρ within groups, and the number of groups.

    Args:
        known: Conditions at one target.
        predictor: Name of the predictor.
        place: Place in ``Condition.group`` by which conditions are grouped: shift type or target task.
    """
    groups: dict[object, list[Condition]] = {}
    for condition in known:
        groups.setdefault(condition.group[place], []).append(condition)
    values = [correlate_with_cost(members, predictor, COST).value for members in groups.values()]
    defined = [value for value in values if value is not None]
    return f"{statistics.median(defined):.2f} ({len(defined)})" if defined else "–"


def rank_predictors(by_target: ByTarget, place: int, include: Callable[[str], bool]) -> Iterator[tuple[str, ...]]:
    """Yield a table row per predictor, ordered by ρ with steps at the middle target.

    Args:
        by_target: Conditions at the early, middle and late target.
        place: Place of the group within which ρ is also computed, see :func:`median_within`.
        include: Whether a predictor has a row.
    """
    middle = by_target[1]
    names = [name for name in middle[0].predictors if include(name)] if middle else []
    for name in sorted(names, key=lambda name: -(rho_never_last(middle, name) or -2.0)):
        cells = [name]
        for known in by_target:
            rho = rho_never_last(known, name)
            cells.append(str(correlate_with_cost(known, name, COST)))
            cells += ["–" if rho is None else f"{rho:.2f}", median_within(known, name, place)]
        yield tuple(cells)


def rho_never_last(known: Sequence[Condition], predictor: str) -> float | None:
    """Return ρ with steps; conditions that never reached the target rank last."""
    return correlate_with_cost(known, predictor, COST, never_last=True).value


def ranking_head(targets: Sequence[str], by_target: ByTarget, groups: str) -> list[str]:
    """Return the column titles of a ranking, three per target."""
    head = ["predictor"]
    for target, known in zip(targets, by_target, strict=True):
        reached = sum(condition.costs[COST] is not None for condition in known)
        head.append(f"{target}: ρ [95 %], n = {reached}")
        head.append(f"{target}: ρ, never reached last, n = {len(known)}")
        head.append(f"{target}: median ρ within {groups} (of how many)")
    return head


def shift_rankings(preset: Preset, rows: Rows, include: Callable[[str], bool]) -> Iterator[str]:
    """Yield titles and rankings of predictors for each study with original models of its own."""
    for study in preset.shifts:
        if not study.originals:
            targets = [f"{name} {target:g}" for name, target in zip(TARGET_NAMES, study.targets, strict=True)]
            runs = successful_runs(rows[study.name])
            noises = [run for run in runs if run.group[1] in NOISES]
            scopes = (
                ("means over seeds", runs, False),
                ("single runs", runs, True),
                ("the paper's noises, means over seeds", noises, False),
            )
            for scope, members, by_seed in scopes:
                by_target = [
                    conditions(members, fixed_target(target), shift_predictors, by_seed) for target in study.targets
                ]
                yield f"## {study.name}, {scope}"
                yield markdown(ranking_head(targets, by_target, "shift types"), rank_predictors(by_target, 1, include))


def baselines_table(preset: Preset, rows: Rows) -> str:
    """Rank the index and all baselines."""
    parts = [
        "# What orders the steps of an update",
        "Each score is signed so that a larger value predicts more steps.",
        *shift_rankings(preset, rows, lambda name: name == INDEX or "labels" not in name),
    ]
    for study in preset.tasks:
        runs = successful_runs(rows[study.name])
        by_target = [conditions(runs, task_target(study, place), task_predictors) for place in range(3)]
        head = ranking_head(TARGET_NAMES, by_target, "targets")
        parts.append(f"## {study.name}, means over seeds")
        parts.append(markdown(head, rank_predictors(by_target, 2, lambda name: True)))
    return "\n\n".join(parts) + "\n"


def forms_table(preset: Preset, rows: Rows) -> str:
    """Rank the forms of the index."""
    parts = ["# Forms of RESQUE_dist", "A user has single runs; the paper has means over seeds."]
    return "\n\n".join([*parts, *shift_rankings(preset, rows, lambda name: "labels" in name)]) + "\n"


def recipes_table(preset: Preset, rows: Rows) -> str:
    """Compare other recipes on the same models and shifts with the first one."""
    head = (
        "study",
        "recipe",
        "target",
        "cost",
        "n",
        "never reached",
        "ρ of RESQUE_dist [95 %]",
        "median ratio to the first recipe",
    )
    lines = [
        line
        for study in preset.shifts
        if study.originals and rows[study.name]
        for line in recipe_rows(study, successful_runs(rows[study.name]), successful_runs(rows[study.originals]))
    ]
    parts = ["# Recipes", "The same original models and shifts, retrained by other recipes.", markdown(head, lines)]
    return "\n\n".join(parts) + "\n"


def recipe_rows(study: ShiftStudy, runs: Sequence[Run], first_recipe: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a table row per target and cost of one recipe."""
    for target, name in zip(study.targets, TARGET_NAMES, strict=True):
        known = conditions(runs, fixed_target(target), shift_predictors)
        first = {c.group[1:]: c for c in conditions(first_recipe, fixed_target(target), shift_predictors)}
        for cost in COSTS:
            pairs = [(c.costs[cost], first[c.group[1:]].costs[cost]) for c in known if c.group[1:] in first]
            ratios = [a / b for a, b in pairs if a is not None and b]
            rho = correlate_with_cost(known, INDEX, cost)
            ratio = f"{number(statistics.median(ratios) if ratios else None)} (n = {len(ratios)})"
            counts = str(rho.n), str(len(known) - rho.n)
            yield study.name, study.recipe, f"{name} {target:g}", cost, *counts, str(rho), ratio


def initializations_table(preset: Preset, rows: Rows) -> str:
    """Compare the three initializations of RESQUE_task."""
    parts = [
        "# The three initializations of RESQUE_task",
        "At most 1,000 samples each; agreement is the adjusted Rand index.",
    ]
    for study in preset.tasks:
        indices = [run.row["indices"] for run in successful_runs(rows[study.name]) if "agreement" in run.row["indices"]]
        lines = []
        for group, title in (("starts", "index"), ("agreement", "agreement")):
            for name in indices[0][group] if indices else ():
                values = [each[group][name] for each in indices]
                low, median, high = np.quantile(values, [0.1, 0.5, 0.9])
                lines.append((title, name, str(len(values)), number(median), f"{number(low)} to {number(high)}"))
        parts += [f"## {study.name}", markdown(("", "initialization", "runs", "median", "10 to 90 %"), lines)]
    return "\n\n".join(parts) + "\n"


def similarity(study: TaskStudy, runs: Sequence[Run]) -> tuple[str, Figure]:
    """Return a table and a figure of source × target: RESQUE_task, and steps to the middle cutoff."""
    by_pair = {c.group[1:]: c for c in conditions(runs, task_target(study, 1), task_predictors)}
    panels: dict[str, Callable[[Condition], float | None]] = {
        "RESQUE_task": lambda condition: condition.predictors[TASK_INDEX],
        STEPS_TITLE: lambda condition: condition.costs[COST],
    }
    targets, names = list(study.cutoffs), [source or "random weights" for source in study.sources]
    canvas = Figure(figsize=(12, 5.5), layout="constrained")
    parts = [
        f"# Source × target, {study.name}",
        "Each row starts from the task that it is named after; – where not every seed reached the cutoff.",
    ]
    for axes, (title, read) in zip(canvas.subplots(1, 2), panels.items(), strict=True):
        values = {pair: read(condition) for pair, condition in by_pair.items()}
        table = np.array([[values.get((s, t), np.nan) for t in targets] for s in study.sources], dtype=float)
        axes.imshow(np.log(table) if title == STEPS_TITLE else table, cmap="Blues")
        lightest = np.nanmedian(table) if np.isfinite(table).any() else 0.0
        axes.set(xticks=range(len(targets)), yticks=range(len(names)), title=title, xlabel="target", ylabel="source")
        axes.set_xticklabels(targets, rotation=30)
        axes.set_yticklabels(names)
        for row, column in zip(*np.nonzero(np.isfinite(table)), strict=True):
            value = table[row, column]
            text, color = f"{value:,.0f}" if title == STEPS_TITLE else f"{value:.2f}", "w" if value > lightest else "k"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
        lines = ((name, *map(number, row)) for name, row in zip(names, table, strict=True))
        parts += [f"## {title}", markdown(("from", *targets), lines)]
    return "\n\n".join(parts) + "\n", canvas


def make(name: str, rows: Rows) -> Mapping[str, Content]:
    """Make every table and figure of a preset."""
    preset = PRESETS[name]
    contents: dict[str, Content] = {"baselines": baselines_table(preset, rows), "forms": forms_table(preset, rows)}
    if any(study.originals for study in preset.shifts):
        contents["recipes"] = recipes_table(preset, rows)
    if preset.tasks:
        contents["starts"] = initializations_table(preset, rows)
    for study in preset.tasks:
        table, heat_map = similarity(study, successful_runs(rows[study.name]))
        contents |= {f"similarity-{study.name}": table, f"similarity-{study.name}-map": heat_map}
    return contents


if __name__ == "__main__":
    publish(__doc__, make)
