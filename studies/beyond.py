"""Beyond the paper: every rival as predictor, forms of the index, sample sizes, recipes, the three starts, similarity.

* ``rivals``: Spearman's ρ with steps of the index and of everything else that one pass tells, over all kinds of shift
  and within each (the median over kinds), at three targets; the same for tasks.
* ``forms``: the index by layer, reduction, labels, sample size and correction of its bias.
* ``recipes``: how well the index orders the costs of other recipes, and how those compare with the first one's.
* ``starts``: the three starts of RESQUE_task beside one another.
* ``similarity``: RESQUE_task and steps for each source × target, as a table and a picture.

    python studies/beyond.py --preset quick
"""

import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from agreement import (
    COSTS,
    EARLY_TO_LATE,
    INDEX,
    TASK_INDEX,
    Agreement,
    Condition,
    Run,
    at,
    conditions,
    cutoff,
    markdown,
    number,
    predicting,
    runs,
    shift_predictors,
    task_predictors,
)
from presets import NOISES, PRESETS, Preset, TaskStudy
from publish import Made, Rows, publish

COST = "steps"


def within(of: Sequence[Condition], predictor: str, place: int, cost: str = COST) -> str:
    """The median over kinds (or targets) of ρ within each, and over how many."""
    groups: dict[object, list[Condition]] = {}
    for condition in of:
        groups.setdefault(condition.group[place], []).append(condition)
    found = [predicting(own, predictor, cost).value for own in groups.values()]
    known = [value for value in found if value is not None]
    return f"{statistics.median(known):.2f} ({len(known)})" if known else "–"


def ranked(known: Sequence[Sequence[Condition]], place: int, of: Callable[[str], bool]) -> list[tuple[str, ...]]:
    """Predictors by how well they order steps at the middle target, each with ρ over all and within groups."""
    names = [name for name in known[1][0].predictors if of(name)] if known[1] else []
    order = sorted(names, key=lambda name: -(predicting(known[1], name, COST, all_=True).value or -2.0))
    return [
        (
            name,
            *(
                cell
                for found in known
                for cell in (
                    str(predicting(found, name, COST)),
                    value_of(predicting(found, name, COST, all_=True)),
                    within(found, name, place),
                )
            ),
        )
        for name in order
    ]


def value_of(found: Agreement) -> str:
    """ρ without its interval."""
    return "–" if found.value is None else f"{found.value:.2f}"


def ranking_head(targets: Sequence[str], known: Sequence[Sequence[Condition]], groups: str) -> tuple[str, ...]:
    """Three columns a target."""
    counts = [sum(c.costs[COST] is not None for c in found) for found in known]
    return (
        "predictor",
        *(
            f"{target}: {what}"
            for target, n, found in zip(targets, counts, known, strict=True)
            for what in (
                f"ρ [95 %], n = {n}",
                f"ρ, never reached last, n = {len(found)}",
                f"median ρ within {groups} (of how many)",
            )
        ),
    )


def ranked_shifts(preset: Preset, rows: Rows, of: Callable[[str], bool]) -> list[str]:
    """A ranking of predictors for each study with original models of its own, over seeds, run by run, by noises."""
    parts = []
    for study in preset.shifts:
        if not study.originals:
            targets = [f"{name} {target:g}" for name, target in zip(EARLY_TO_LATE, study.targets, strict=True)]
            found = runs(rows[study.name])
            noises = [run for run in found if run.group[1] in NOISES]
            scopes = (
                ("means over seeds", found, False),
                ("single runs", found, True),
                ("the paper's noises, means over seeds", noises, False),
            )
            for what, own, by_seed in scopes:
                known = [conditions(own, at(target), shift_predictors, by_seed) for target in study.targets]
                parts.append(f"## {study.name}, {what}")
                parts.append(markdown(ranking_head(targets, known, "kinds"), ranked(known, 1, of)))
    return parts


def rivals_table(preset: Preset, rows: Rows) -> str:
    """Everything that one pass tells, ranked."""
    parts = [
        "# What orders the steps of an update",
        "Larger foretells more steps, after each score was turned that way.",
        *ranked_shifts(preset, rows, lambda name: name == INDEX or "labels" not in name),
    ]
    for task in preset.tasks:
        found = runs(rows[task.name])
        known = [conditions(found, cutoff(task, place), task_predictors) for place in range(3)]
        parts.append(f"## {task.name}, means over seeds")
        parts.append(markdown(ranking_head(EARLY_TO_LATE, known, "targets"), ranked(known, 2, lambda name: True)))
    return "\n\n".join(parts) + "\n"


def forms_table(preset: Preset, rows: Rows) -> str:
    """The index in all its forms."""
    parts = ["# Forms of RESQUE_dist", "Single runs are what one user has; means over seeds are the paper's."]
    return "\n\n".join([*parts, *ranked_shifts(preset, rows, lambda name: "labels" in name)]) + "\n"


def recipes_table(preset: Preset, rows: Rows) -> str:
    """Other recipes on the same models and shifts."""
    parts = ["# Recipes", "The same original models and shifts, retrained otherwise."]
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
    lines = []
    for study in preset.shifts:
        if study.originals and rows[study.name]:
            first = runs(rows[study.originals])
            for target, name in zip(study.targets, EARLY_TO_LATE, strict=True):
                known = conditions(runs(rows[study.name]), at(target), shift_predictors)
                base = conditions(first, at(target), shift_predictors)
                before = {c.group[1:]: c for c in base}
                for cost in COSTS:
                    pairs = [(c.costs[cost], before[c.group[1:]].costs[cost]) for c in known if c.group[1:] in before]
                    ratios = [a / b for a, b in pairs if a is not None and b]
                    rho = predicting(known, INDEX, cost)
                    lines.append(
                        (
                            study.name,
                            study.recipe,
                            f"{name} {target:g}",
                            cost,
                            str(rho.n),
                            str(len(known) - rho.n),
                            str(rho),
                            f"{number(statistics.median(ratios) if ratios else None)} (n = {len(ratios)})",
                        )
                    )
    return "\n\n".join([*parts, markdown(head, lines)]) + "\n"


def starts_table(preset: Preset, rows: Rows) -> str:
    """The three starts of RESQUE_task."""
    parts = ["# The three starts of RESQUE_task", "At most 1,000 samples each; agreement is the adjusted Rand index."]
    for study in preset.tasks:
        found = [run.row["indices"] for run in runs(rows[study.name]) if "agreement" in run.row["indices"]]
        lines = []
        for group, title in (("starts", "index"), ("agreement", "agreement")):
            for name in found[0][group] if found else ():
                values = [indices[group][name] for indices in found]
                low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
                lines.append((title, name, str(len(values)), number(middle), f"{number(low)} to {number(high)}"))
        parts += [f"## {study.name}", markdown(("", "start", "runs", "median", "10 to 90 %"), lines)]
    return "\n\n".join(parts) + "\n"


def similarity(study: TaskStudy, found: Sequence[Run]) -> tuple[str, Figure]:
    """Source × target: RESQUE_task, and steps to the middle cutoff."""
    values: dict[str, dict[tuple[str, str], float]] = {"RESQUE_task": {}, "steps to the middle cutoff": {}}
    for condition in conditions(found, cutoff(study, 1), task_predictors):
        pair = condition.group[1:]
        values["RESQUE_task"][pair] = condition.predictors[TASK_INDEX]
        steps = condition.costs[COST]
        values["steps to the middle cutoff"][pair] = float("nan") if steps is None else steps
    drawn = Figure(figsize=(12, 5.5), layout="constrained")
    parts = [
        f"# Source × target, {study.name}",
        "A row begins from the task it is named after; – never reached it in every seed.",
    ]
    targets = list(study.cutoffs)
    for axes, (title, known) in zip(drawn.subplots(1, 2), values.items(), strict=True):
        table = np.array([[known.get((source, target), np.nan) for target in targets] for source in study.sources])
        names = [source or "random weights" for source in study.sources]
        axes.imshow(np.log(table) if "steps" in title else table, cmap="Blues")
        lightest = np.nanmedian(table) if np.isfinite(table).any() else 0.0
        axes.set(xticks=range(len(targets)), yticks=range(len(names)), title=title, xlabel="target", ylabel="source")
        axes.set_xticklabels(targets, rotation=30)
        axes.set_yticklabels(names)
        for row, column in zip(*np.nonzero(np.isfinite(table)), strict=True):
            value = table[row, column]
            shown = f"{value:,.0f}" if "steps" in title else f"{value:.2f}"
            colour = "w" if value > lightest else "k"
            axes.text(column, row, shown, ha="center", va="center", color=colour, fontsize=8)
        parts += [
            f"## {title}",
            markdown(("from", *targets), ((name, *map(number, row)) for name, row in zip(names, table, strict=True))),
        ]
    return "\n\n".join(parts) + "\n", drawn


def make(name: str, rows: Rows) -> Mapping[str, Made]:
    """Every table and picture."""
    preset = PRESETS[name]
    made: dict[str, Made] = {"rivals": rivals_table(preset, rows), "forms": forms_table(preset, rows)}
    if any(study.originals for study in preset.shifts):
        made["recipes"] = recipes_table(preset, rows)
    if preset.tasks:
        made["starts"] = starts_table(preset, rows)
    for study in preset.tasks:
        made[f"similarity-{study.name}"], made[f"similarity-{study.name}-map"] = similarity(
            study, runs(rows[study.name])
        )
    return made


if __name__ == "__main__":
    publish(__doc__, make)
