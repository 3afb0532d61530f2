"""Figure 1: retraining for a shift against training from scratch on the same data, level by level.

Steps, seconds and energy to the early, middle and late target, each seed a dot, the mean over seeds a line; a run that
never reached the target is a cross at what it had taken. The table has the totals over the levels that both reached.

    python studies/fig1.py --preset quick
"""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agreement import COSTS, EARLY_TO_LATE, Run, at, markdown, runs, totals
from presets import PRESETS, ShiftStudy
from publish import Made, Rows, publish

SHOWN = {"steps": ("steps", 1.0), "time": ("seconds", 1.0), "energy": ("mWh", 1e6)}  # axis, and factor
SIDES = {"retraining": "tab:blue", "from scratch": "tab:orange"}
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


def draw(axes: Axes, side: str, found: Sequence[Run], target: float, cost: str) -> None:
    """One side of one panel."""
    colour, means = SIDES[side], {}
    for run in found:
        at = run.update.cost_at(target)
        value = COSTS[cost](at or run.update.cost)
        if value is None:
            continue
        value *= SHOWN[cost][1]
        axes.plot(run.group[2], value, "o" if at else "x", color=colour, alpha=0.6, markersize=4)
        means.setdefault(run.group[2], []).append(value)
    axes.plot(list(means), [statistics.fmean(values) for values in means.values()], color=colour, label=side)


def figure(study: ShiftStudy, retrained: Sequence[Run], scratch: Sequence[Run]) -> Figure:
    """A row of panels a target."""
    drawn = Figure(figsize=(9, 8), layout="constrained")
    grid = drawn.subplots(len(study.targets), len(SHOWN), sharex=True, squeeze=False)
    for row, target, name in zip(grid, study.targets, EARLY_TO_LATE, strict=True):
        for axes, cost in zip(row, SHOWN, strict=True):
            draw(axes, "retraining", retrained, target, cost)
            draw(axes, "from scratch", scratch, target, cost)
            axes.set(yscale="symlog", title=f"{cost}, {name} target {target:g}", ylabel=SHOWN[cost][0])
            axes.set_ylim(bottom=-0.3)
    grid[0][0].legend()
    for axes in grid[-1]:
        axes.set_xlabel("level")
    drawn.suptitle(f"{study.name}: retraining against training from scratch (× never reached)")
    return drawn


def make(preset: str, rows: Rows) -> Mapping[str, Made]:
    """Figure and totals of every study that has runs from scratch."""
    made: dict[str, Made] = {}
    lines = []
    for study in PRESETS[preset].shifts:
        if study.scratch:
            scratch = runs(rows[f"{study.name}-scratch"])
            retrained = [run for run in runs(rows[study.name]) if run.group[1:] in study.scratch]
            made[f"fig1-{study.name}"] = figure(study, retrained, scratch)
            for name, target in zip(EARLY_TO_LATE, study.targets, strict=True):
                for cost, found in totals(retrained, scratch, at(target)).items():
                    lines.append((study.name, f"{name}, {target:g}", *found.cells(cost)))
    note = "A retraining that began at the target has cost nothing; from scratch the same target has its cost."
    return made | {"fig1": f"# Figure 1, preset {preset}: totals\n\n{note}\n\n{markdown(HEAD, lines)}\n"}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
