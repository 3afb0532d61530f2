"""Figure 5: RESQUE_task against the peak test accuracy of a fixed number of epochs.

One panel per source: each dot is a target task, averaged over seeds, as in the paper. The table also has each target
over its sources.

    python studies/fig5.py --preset quick
"""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from analysis import TASK_INDEX, Run, correlate, markdown, successful_runs
from presets import PRESETS, TaskStudy
from publish import Content, Rows, publish

Points = dict[tuple[str, str], tuple[float, float]]


def mean_points(runs: Sequence[Run]) -> Points:
    """Return ``(source, target)`` → mean index and mean peak accuracy."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.group[1], run.group[2]), []).append(run)
    return {
        pair: (
            statistics.fmean(run.row["indices"][TASK_INDEX] for run in members),
            statistics.fmean(run.update.peak_accuracy for run in members),
        )
        for pair, members in groups.items()
    }


def figure(study: TaskStudy, points: Points) -> Figure:
    """Draw one panel per source."""
    canvas = Figure(figsize=(12, 6), layout="constrained")
    panels = canvas.subplots(2, -(-len(study.sources) // 2), sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[len(study.sources) :]:
        axes.remove()
    for axes, source in zip(panels, study.sources, strict=False):
        for place, task in enumerate(study.cutoffs):
            if (source, task) in points:
                axes.plot(*points[source, task], "o", color=f"C{place}", label=task)
        axes.set(title=f"from {source or 'random weights'}", xlabel="RESQUE_task", ylabel="peak accuracy")
    shown = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    canvas.legend(shown.values(), shown.keys(), loc="outside right upper")
    return canvas


def correlation_rows(study: TaskStudy, points: Points) -> list[tuple[str, ...]]:
    """Return r and ρ of index and peak accuracy, over the targets of each source and the sources of each target."""
    groups = {f"from {name or 'random weights'}": (0, name) for name in study.sources}
    groups |= {f"to {name}": (1, name) for name in study.cutoffs}
    rows = []
    for title, (side, name) in groups.items():
        rows.append((title, *cells([value for pair, value in points.items() if pair[side] == name])))
    return [*rows, ("all pairs", *cells(list(points.values())))]


def cells(values: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """Return n, r and ρ of pairs of values."""
    x, y = [value[0] for value in values], [value[1] for value in values]
    return (str(len(values)), *(str(correlate(x, y, ranks)) for ranks in (False, True)))


def make(preset: str, rows: Rows) -> Mapping[str, Content]:
    """Make figure and table of every study of tasks."""
    contents: dict[str, Content] = {}
    parts = [f"# Figure 5, preset {preset}: RESQUE_task and peak accuracy"]
    for study in PRESETS[preset].tasks:
        points = mean_points(successful_runs(rows[study.name]))
        contents[f"fig5-{study.name}"] = figure(study, points)
        parts.append(markdown(("", "n", "r [95 %]", "ρ [95 %]"), correlation_rows(study, points)))
    return contents | {"fig5": "\n\n".join(parts) + "\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
