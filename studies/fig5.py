"""Figure 5: RESQUE_task against the peak test accuracy of a fixed number of epochs.

One panel a source: each dot is a target task, averaged over seeds, as in the paper; the table also has each target over
its sources.

    python studies/fig5.py --preset quick
"""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from agreement import TASK_INDEX, Run, agreement, markdown, runs
from presets import PRESETS, TaskStudy
from publish import Made, Rows, publish

Points = dict[tuple[str, str], tuple[float, float]]


def points(found: Sequence[Run]) -> Points:
    """``(source, target)`` → mean index and mean peak accuracy."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in found:
        groups.setdefault((run.group[1], run.group[2]), []).append(run)
    return {
        pair: (
            statistics.fmean(run.row["indices"][TASK_INDEX] for run in own),
            statistics.fmean(run.update.peak_accuracy for run in own),
        )
        for pair, own in groups.items()
    }


def figure(study: TaskStudy, known: Points) -> Figure:
    """One panel a source."""
    drawn = Figure(figsize=(12, 6), layout="constrained")
    panels = drawn.subplots(2, -(-len(study.sources) // 2), sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(study.sources) :]:
        axes.remove()
    for axes, source in zip(panels, study.sources, strict=False):
        for place, task in enumerate(study.cutoffs):
            if (source, task) in known:
                axes.plot(*known[source, task], "o", color=f"C{place}", label=task)
        axes.set(title=f"from {source or 'random weights'}", xlabel="RESQUE_task", ylabel="peak accuracy")
    shown = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    drawn.legend(shown.values(), shown.keys(), loc="outside right upper")
    return drawn


def lines(study: TaskStudy, known: Points) -> list[tuple[str, ...]]:
    """R and ρ of index and peak accuracy, over the targets of each source and over the sources of each target."""
    groups = {f"from {name or 'random weights'}": (0, name) for name in study.sources}
    groups |= {f"to {name}": (1, name) for name in study.cutoffs}
    found = []
    for title, (side, name) in groups.items():
        found.append((title, *cells([value for pair, value in known.items() if pair[side] == name])))
    return [*found, ("all pairs", *cells(list(known.values())))]


def cells(values: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """N, r and ρ."""
    x, y = [value[0] for value in values], [value[1] for value in values]
    return (str(len(values)), *(str(agreement(x, y, ranks)) for ranks in (False, True)))


def make(preset: str, rows: Rows) -> Mapping[str, Made]:
    """Figure and table of every study of tasks."""
    made: dict[str, Made] = {}
    parts = [f"# Figure 5, preset {preset}: RESQUE_task and peak accuracy"]
    for study in PRESETS[preset].tasks:
        known = points(runs(rows[study.name]))
        made[f"fig5-{study.name}"] = figure(study, known)
        parts.append(markdown(("", "n", "r [95 %]", "ρ [95 %]"), lines(study, known)))
    return made | {"fig5": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
