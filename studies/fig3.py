"""Figure 3: learning a new task from each source, against training from scratch.

Test accuracy over steps, means over seeds, one panel a target task; the table has the totals of each cost to the
cutoffs that both reached.

    python studies/fig3.py --preset quick
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from agreement import EARLY_TO_LATE, Run, cutoff, markdown, runs, totals
from fig1 import HEAD
from presets import PRESETS, TaskStudy
from publish import Made, Rows, publish


def mean_curve(found: Sequence[Run], steps: np.ndarray) -> np.ndarray:
    """Accuracy of several runs at the same steps, averaged."""
    curves = (run.update.curve for run in found)
    return np.mean([np.interp(steps, curve.steps, curve.accuracy) for curve in curves], axis=0)


def figure(study: TaskStudy, learned: Sequence[Run], scratch: Sequence[Run]) -> Figure:
    """One panel a task."""
    drawn = Figure(figsize=(12, 7), layout="constrained")
    panels = drawn.subplots(2, -(-len(study.cutoffs) // 2), squeeze=False).ravel()
    for axes in panels[len(study.cutoffs) :]:
        axes.remove()
    for axes, task in zip(panels, study.cutoffs, strict=False):
        for number, source in enumerate(study.sources):
            own = [run for run in learned if run.group[1:] == (source, task)]
            if own:
                steps = np.array(own[0].update.curve.steps)
                axes.plot(steps, mean_curve(own, steps), color=f"C{number}", label=f"from {source or 'random weights'}")
        own = [run for run in scratch if run.group[2] == task]
        if own:
            steps = np.array(own[0].update.curve.steps)
            axes.plot(steps, mean_curve(own, steps), "k--", label="from scratch, by the recipe of an original training")
        axes.set(title=task, xscale="symlog", xlabel="steps", ylabel="test accuracy")
        for level in study.cutoffs[task]:
            axes.axhline(level, color="0.8", linewidth=0.8)
    handles, labels = panels[0].get_legend_handles_labels()
    others = panels[1].get_legend_handles_labels()
    shown = dict(zip(labels + others[1], handles + others[0], strict=True))
    drawn.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3)
    return drawn


def make(preset: str, rows: Rows) -> Mapping[str, Made]:
    """Figure and totals of every study of tasks."""
    made: dict[str, Made] = {}
    lines = []
    for study in PRESETS[preset].tasks:
        learned, scratch = runs(rows[study.name]), runs(rows[f"{study.name}-scratch"])
        made[f"fig3-{study.name}"] = figure(study, learned, scratch)
        for source in filter(None, study.sources):
            own = [run for run in learned if run.group[1] == source]
            for number, name in enumerate(EARLY_TO_LATE):
                for cost, found in totals(own, scratch, cutoff(study, number)).items():
                    lines.append((f"from {source}", name, *found.cells(cost)))
    return made | {"fig3": f"# Figure 3, preset {preset}: totals over the target tasks\n\n{markdown(HEAD, lines)}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "tasks")
