"""Figure 1: retraining for a shift against training from scratch on the same data, level by level.

Steps, seconds and energy to the early, middle and late target. Each seed is a dot, the mean over seeds a line. A run
that never reached the target is a cross at its total cost. The table has the totals over the levels that both reached.

    python studies/fig1.py --preset quick
"""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import COSTS, TARGET_NAMES, Run, fixed_target, markdown, successful_runs, totals
from presets import PRESETS, ShiftStudy
from publish import Content, Rows, publish

SHOWN = {"steps": ("steps", 1.0), "time": ("seconds", 1.0), "energy": ("mWh", 1e6)}  # axis label, factor
COLORS = {"retraining": "tab:blue", "from scratch": "tab:orange"}
HEAD = (
    "study",
    "target",
    "runs both reached",
    "cost",
    "retraining",
    "from scratch",
    "ratio of totals",
    "per level: from",
    "to",
)


def draw(axes: Axes, side: str, runs: Sequence[Run], target: float, cost: str) -> None:
    """Draw retraining, or training from scratch, into one panel."""
    means: dict[int, list[float]] = {}
    for run in runs:
        at_target = run.update.cost_at(target)
        value = COSTS[cost](at_target or run.update.cost)
        if value is None:
            continue
        value *= SHOWN[cost][1]
        axes.plot(run.group[2], value, "o" if at_target else "x", color=COLORS[side], alpha=0.6, markersize=4)
        means.setdefault(run.group[2], []).append(value)
    axes.plot(list(means), [statistics.fmean(values) for values in means.values()], color=COLORS[side], label=side)


def figure(study: ShiftStudy, retrained: Sequence[Run], scratch: Sequence[Run]) -> Figure:
    """Draw a row of panels per target."""
    canvas = Figure(figsize=(9, 8), layout="constrained")
    grid = canvas.subplots(len(study.targets), len(SHOWN), sharex=True, squeeze=False)
    for row, target, name in zip(grid, study.targets, TARGET_NAMES, strict=True):
        for axes, cost in zip(row, SHOWN, strict=True):
            draw(axes, "retraining", retrained, target, cost)
            draw(axes, "from scratch", scratch, target, cost)
            axes.set(yscale="symlog", title=f"{cost}, {name} target {target:g}", ylabel=SHOWN[cost][0])
            axes.set_ylim(bottom=-0.3)
    grid[0][0].legend()
    for axes in grid[-1]:
        axes.set_xlabel("level")
    canvas.suptitle(f"{study.name}: retraining against training from scratch (× never reached)")
    return canvas


def make(preset: str, rows: Rows) -> Mapping[str, Content]:
    """Make figure and totals of every study that has runs from scratch."""
    contents: dict[str, Content] = {}
    lines = []
    for study in PRESETS[preset].shifts:
        if study.scratch:
            scratch = successful_runs(rows[f"{study.name}-scratch"])
            retrained = [run for run in successful_runs(rows[study.name]) if run.group[1:] in study.scratch]
            contents[f"fig1-{study.name}"] = figure(study, retrained, scratch)
            for name, target in zip(TARGET_NAMES, study.targets, strict=True):
                for cost, total in totals(retrained, scratch, fixed_target(target)).items():
                    lines.append((study.name, f"{name}, {target:g}", *total.cells(cost)))
    note = "A retraining that begins at the target costs nothing; training from scratch to that target does."
    return contents | {"fig1": f"# Figure 1, preset {preset}: totals\n\n{note}\n\n{markdown(HEAD, lines)}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
