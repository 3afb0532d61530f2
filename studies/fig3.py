"""Figure 3: learning a new task from each source, against training from scratch.

Test accuracy over steps, means over seeds, one panel per target task. The table has the totals of each cost to the
cutoffs that both reached.

    python studies/fig3.py --preset quick
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import TARGET_NAMES, Run, markdown, successful_runs, task_target, totals
from fig1 import HEAD
from presets import PRESETS, TaskStudy
from publish import Content, Rows, publish


def draw_mean_curve(axes: Axes, runs: Sequence[Run], style: str, label: str, color: str | None = None) -> None:
    """Draw the accuracy of several runs, averaged at the steps of the first."""
    if runs:
        steps = np.array(runs[0].update.curve.steps)
        curves = (run.update.curve for run in runs)
        mean = np.mean([np.interp(steps, curve.steps, curve.accuracy) for curve in curves], axis=0)
        axes.plot(steps, mean, style, label=label, **({"color": color} if color else {}))


def figure(study: TaskStudy, learned: Sequence[Run], scratch: Sequence[Run]) -> Figure:
    """Draw one panel per target task."""
    canvas = Figure(figsize=(12, 7), layout="constrained")
    panels = canvas.subplots(2, -(-len(study.cutoffs) // 2), squeeze=False).ravel()
    for axes in panels[len(study.cutoffs) :]:
        axes.remove()
    for axes, task in zip(panels, study.cutoffs, strict=False):
        for place, source in enumerate(study.sources):
            members = [run for run in learned if run.group[1:] == (source, task)]
            draw_mean_curve(axes, members, "-", f"from {source or 'random weights'}", f"C{place}")
        members = [run for run in scratch if run.group[2] == task]
        draw_mean_curve(axes, members, "k--", "from scratch, by the recipe of an original training")
        axes.set(title=task, xscale="symlog", xlabel="steps", ylabel="test accuracy")
        for level in study.cutoffs[task]:
            axes.axhline(level, color="0.8", linewidth=0.8)
    # no panel has a curve of its own task as source, so the first two panels together name all sources
    (handles, labels), (more_handles, more_labels) = (panels[k].get_legend_handles_labels() for k in (0, 1))
    shown = dict(zip(labels + more_labels, handles + more_handles, strict=True))
    canvas.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
    return canvas


def make(preset: str, rows: Rows) -> Mapping[str, Content]:
    """Make figure and totals of every study of tasks."""
    contents: dict[str, Content] = {}
    lines = []
    for study in PRESETS[preset].tasks:
        learned, scratch = successful_runs(rows[study.name]), successful_runs(rows[f"{study.name}-scratch"])
        contents[f"fig3-{study.name}"] = figure(study, learned, scratch)
        for source in filter(None, study.sources):
            members = [run for run in learned if run.group[1] == source]
            for place, name in enumerate(TARGET_NAMES):
                for cost, total in totals(members, scratch, task_target(study, place)).items():
                    lines.append((f"from {source}", name, *total.cells(cost)))
    table = markdown(HEAD, lines)
    return contents | {"fig3": f"# Figure 3, preset {preset}: totals over the target tasks\n\n{table}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
