"""Draw how times grow: with samples, classes, width and entries of the ledger."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.measuring import Case, Row, Spread

__all__ = ["curve_points", "write_curves"]

INCHES = 3.4, 2.8
Points = dict[str, list[tuple[float, Spread]]]


def curve_points(row: Row) -> Points:
    """Return line → its points ``(x, seconds of processor time)``, ascending.

    Example:
        >>> points = curve_points({"processor": {"ours|20": [2.0], "ours|3": [1.0]}})
        >>> [(x, spread.median) for x, spread in points["ours"]]
        [(3.0, 1.0), (20.0, 2.0)]
    """
    found: Points = {}
    for name, seconds in row["processor"].items():
        line, _, x = name.rpartition("|")
        found.setdefault(line, []).append((float(x), Spread(seconds)))
    return {line: sorted(points, key=lambda point: point[0]) for line, points in found.items()}


def write_curves(cases: Iterable[Case], rows: Mapping[str, Row], path: Path) -> None:
    """Write the figure as SVG, one panel for each case with a curve."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panels = [(case.curve, rows[case.name]) for case in cases if case.curve and "processor" in rows.get(case.name, {})]
    if not panels:
        return
    figure = Figure(figsize=(INCHES[0] * 2, INCHES[1] * -(-len(panels) // 2)), layout="constrained")
    for number, (curve, row) in enumerate(panels, start=1):
        axes = figure.add_subplot(-(-len(panels) // 2), 2, number)
        for line, points in curve_points(row).items():
            x, spreads = zip(*points, strict=True)
            milliseconds = [1e3 * spread.median for spread in spreads]
            below, above = ([1e3 * end(spread.values) for spread in spreads] for end in (min, max))
            axes.plot(x, milliseconds, marker="o", markersize=3, label=line)
            axes.fill_between(x, below, above, alpha=0.2)
        axes.set(xscale="log", yscale="log", xlabel=curve.axis, ylabel="processor time, ms")
        axes.set_xticks(x, [f"{value:,.0f}" for value in x], fontsize=7)
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        for axis in axes.xaxis, axes.yaxis:
            axis.set_minor_locator(NullLocator())
        axes.tick_params(labelsize=7)
        axes.set_title(curve.title, fontsize=9)
        axes.legend(fontsize=7, frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "resque", "svg.fonttype": "none"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
