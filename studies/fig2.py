"""Figure 2: RESQUE_dist against each measured cost, one row of panels a network and target.

Each dot is a condition, averaged over seeds; its colour is the kind of shift.

    python studies/fig2.py --preset quick
"""

from collections.abc import Mapping

from matplotlib import colormaps
from matplotlib.figure import Figure

from agreement import DRAWN, EARLY_TO_LATE, INDEX, at, conditions, predicting, runs
from presets import PRESETS, ShiftStudy
from publish import Made, Rows, publish
from table1 import of_index


def figure(study: ShiftStudy, rows: Rows) -> Figure:
    """All targets and costs of one study."""
    drawn = Figure(figsize=(3 * len(DRAWN), 8), layout="constrained")
    grid = drawn.subplots(len(study.targets), len(DRAWN), sharex=True)
    found = runs(rows[study.name])
    kinds = list(dict.fromkeys(c.group[1] for c in conditions(found, at(study.targets[-1]), of_index)))
    palette = colormaps["tab20"]
    for row, target, name in zip(grid, study.targets, EARLY_TO_LATE, strict=True):
        known = conditions(found, at(target), of_index)
        for axes, cost in zip(row, DRAWN, strict=True):
            for number, kind in enumerate(kinds):
                own = [(c.predictors[INDEX], c.costs[cost]) for c in known if c.group[1] == kind]
                own = [(x, y) for x, y in own if y]
                axes.plot(
                    [x for x, _ in own], [y for _, y in own], "o", color=palette(number), label=kind, markersize=4
                )
            axes.set(yscale="log")
            axes.set_title(f"{cost}, {name} {target:g}\nρ {predicting(known, INDEX, cost)}", fontsize=9)
    for axes in grid[-1]:
        axes.set_xlabel("RESQUE_dist [rad]")
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside right upper")
    drawn.suptitle(f"{study.name}: {study.model}")
    return drawn


def make(preset: str, rows: Rows) -> Mapping[str, Made]:
    """One figure a study."""
    studies = (study for study in PRESETS[preset].shifts if not study.originals)
    return {f"fig2-{study.name}": figure(study, rows) for study in studies}


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
