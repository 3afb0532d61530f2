"""Figure 2: RESQUE_dist against each measured cost, one row of panels per network and target.

Each dot is a condition, averaged over seeds; its color is the shift type.

    python studies/fig2.py --preset quick
"""

from collections.abc import Mapping

from matplotlib import colormaps
from matplotlib.figure import Figure

from analysis import (
    INDEX,
    PLOTTED_COSTS,
    TARGET_NAMES,
    conditions,
    correlate_with_cost,
    fixed_target,
    successful_runs,
)
from presets import PRESETS, ShiftStudy
from publish import Content, Rows, publish
from table1 import index_alone


def figure(study: ShiftStudy, rows: Rows) -> Figure:
    """Draw all targets and costs of one study."""
    canvas = Figure(figsize=(3 * len(PLOTTED_COSTS), 8), layout="constrained")
    grid = canvas.subplots(len(study.targets), len(PLOTTED_COSTS), sharex=True)
    runs = successful_runs(rows[study.name])
    at_late_target = conditions(runs, fixed_target(study.targets[-1]), index_alone)
    shift_types = list(dict.fromkeys(condition.group[1] for condition in at_late_target))
    palette = colormaps["tab20"]
    for row, target, name in zip(grid, study.targets, TARGET_NAMES, strict=True):
        known = conditions(runs, fixed_target(target), index_alone)
        for axes, cost in zip(row, PLOTTED_COSTS, strict=True):
            for place, shift_type in enumerate(shift_types):
                pairs = [(c.predictors[INDEX], c.costs[cost]) for c in known if c.group[1] == shift_type]
                reached = [(x, y) for x, y in pairs if y]
                x, y = [x for x, _ in reached], [y for _, y in reached]
                axes.plot(x, y, "o", color=palette(place), label=shift_type, markersize=4)
            axes.set(yscale="log")
            axes.set_title(f"{cost}, {name} {target:g}\nρ {correlate_with_cost(known, INDEX, cost)}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("RESQUE_dist [rad]")
    handles, labels = grid[0][0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside right upper")
    canvas.suptitle(f"{study.name}: {study.model}")
    return canvas


def make(preset: str, rows: Rows) -> Mapping[str, Content]:
    """Make one figure per study with original models of its own."""
    studies = (study for study in PRESETS[preset].shifts if not study.originals)
    return {f"fig2-{study.name}": figure(study, rows) for study in studies}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
