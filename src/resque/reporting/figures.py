"""Figures of the report, as SVG that takes its text color from the page."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from resque._format import COST_NAMES, printable, scale_and_unit
from resque.forecasting.evaluation.settlement import is_covered, relative_error
from resque.ledger.records import COSTS, Estimate, Forecast, Update

__all__ = [
    "FEWEST_SETTLED", "MAX_REVISED", "MAX_SHIFT_TYPES", "STYLE", "draw_forecast_against_measured",
    "draw_index_against_costs", "draw_learning_curves", "draw_revisions", "draw_running_accuracy", "group_updates",
    "to_svg",
]  # fmt: skip

MAX_REVISED = 9
MAX_SHIFT_TYPES = 12
FEWEST_SETTLED = 3
STYLE = {
    "font.size": 9.0,
    "font.sans-serif": ["DejaVu Sans"],  # every text of an SVG names the whole list
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "none",
    "svg.hashsalt": "resque",
    "legend.frameon": False,
}
_COLORS = ("#2f86c9", "#d1495b", "#2e9b5f", "#9168c9", "#c9820a", "#808890", "#0f9b9d", "#c05299")
_INK = "#000000"
_PAGE_COLORS = {_INK: "currentColor", "#e6e6e6": "var(--line)"}
_COLUMNS = 3
_WIDE = 300.0  # range of an axis that has room for powers of ten alone
_UNKNOWN = "unknown shift type"


def to_svg(figure: Figure) -> str:
    """Return a figure as inline SVG: transparent, in the colors of the page, with coordinates to 0.01 points."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r' (?:d|x|y|transform)="[^"]*"', _round_numbers, drawing[drawing.index("<svg") :])
    for color, of_page in _PAGE_COLORS.items():
        drawing = drawing.replace(color, of_page)
    return re.sub(r"\n +", "\n", drawing)


def _round_numbers(attribute: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", attribute[0])


def group_updates(updates: Sequence[Update], names: Mapping[str, str]) -> dict[str, str]:
    """Return the id of each update with its group, which has a color: its shift type; its way if all share one type.

    Args:
        updates: Updates.
        names: Id of each update → name of its way.
    """
    types = {update.id: update.shift_type or _UNKNOWN for update in updates}
    ways = {update.id: names[update.id] for update in updates}
    return ways if len({*types.values()}) == 1 < len({*ways.values()}) else types


def draw_index_against_costs(shown: Sequence[Update], groups: Mapping[str, str]) -> Figure:
    """Draw RESQUE_dist against each measured cost, of updates with an index."""
    costs = [cost for cost in COSTS if any(getattr(update.cost, cost) for update in shown)] or ["steps"]
    figure, axes = _panels(len(costs))
    colors = _colors_of(groups[update.id] for update in shown)
    for axis, cost in zip(axes, costs, strict=True):
        label, scale = _label_and_scale(cost, [getattr(update.cost, cost) for update in shown])
        for marker, forecast in (("o", False), ("D", True)):
            points = [
                (update.features.index_rad, value / scale, color, color if update.reached else "none")
                for update in shown
                if (value := getattr(update.cost, cost)) and (update.forecast_id is not None) == forecast
                for color in [colors[groups[update.id]]]
            ]
            if points:
                indices, values, edges, faces = zip(*points, strict=True)
                axis.scatter(indices, values, s=25, marker=marker, edgecolors=edges, facecolors=faces, linewidths=1)
        axis.set(xlabel="RESQUE_dist [rad]", ylabel=label)
        _make_logarithmic(axis, "y")
    _add_legend(figure, colors)
    return figure


def draw_learning_curves(updates: Sequence[Update], groups: Mapping[str, str]) -> Figure:
    """Draw the learning curves, one panel for each of the largest groups."""
    counts = Counter(groups[update.id] for update in updates)
    types = sorted(name for name, _ in counts.most_common(MAX_SHIFT_TYPES))
    colors = _colors_of(counts)
    figure, axes = _panels(len(types))
    for axis, name in zip(axes, types, strict=True):
        members = [update for update in updates if groups[update.id] == name]
        for update in members:
            axis.plot(update.curve.steps, update.curve.accuracy, color=colors[name], lw=1, alpha=0.8)
        for target in {update.target_accuracy for update in members}:
            axis.axhline(target, color=_INK, lw=0.8, ls="--")
        axis.set(title=_literal(name), xlabel="optimizer steps", ylabel="test accuracy", ylim=(0, 1.02))
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def draw_forecast_against_measured(settled: Sequence[tuple[Forecast, Update]], groups: Mapping[str, str]) -> Figure:
    """Draw forecasts with their intervals against the measured costs."""
    costs = [cost for cost in COSTS if any(_pair(forecast, update, cost) for forecast, update in settled)] or ["steps"]
    figure, axes = _panels(len(costs))
    colors = _colors_of(groups[update.id] for _, update in settled)
    for axis, cost in zip(axes, costs, strict=True):
        pairs = [(forecast, update, *both) for forecast, update in settled if (both := _pair(forecast, update, cost))]
        label, scale = _label_and_scale(cost, [measured for *_, measured in pairs])
        for forecast, update, value, measured in pairs:
            color, at = colors[groups[update.id]], measured / scale
            low, high = _drawable_bounds(forecast.estimates[cost])
            axis.plot([at] * 2, [low / scale, high / scale], color=color, lw=2, alpha=0.4)
            axis.plot([at], [value / scale], "o", ms=5, mec=color, mfc=color if update.reached else "none")
        values = [each / scale for *_, value, measured in pairs for each in (value, measured)]
        if values:
            diagonal = [min(values) / 2, max(values) * 2]
            axis.plot(diagonal, diagonal, color=_INK, lw=0.8, ls="--")
        axis.set(xlabel=f"measured {label}", ylabel=f"forecast {label}")
        _make_logarithmic(axis, "x", "y")
    _add_legend(figure, colors)
    return figure


def draw_revisions(settled: Sequence[tuple[Forecast, Update]], labels: Mapping[str, str]) -> Figure:
    """Draw how forecasts of the total steps changed during their updates; a label may have two lines."""
    figure, axes = _panels(len(settled))
    for axis, (forecast, update) in zip(axes, settled, strict=True):
        steps = [(1, forecast.estimates["steps"]), *((revision.step, revision.steps) for revision in update.revisions)]
        rows = [(at, each.value, *_drawable_bounds(each)) for at, each in steps]
        at, center, low, high = zip(*rows, strict=True)
        axis.vlines(at[:2], low[:2], high[:2], color=_COLORS[0], lw=2, alpha=0.4)
        axis.fill_between(at[1:], low[1:], high[1:], color=_COLORS[0], lw=0, alpha=0.2)
        axis.plot(at[:1], center[:1], "o", ms=4, color=_COLORS[0])
        axis.plot(at[1:], center[1:], ".-", ms=4, lw=0.8, color=_COLORS[0])
        axis.axhline(update.cost.steps, color=_INK, lw=0.8, ls="--" if update.reached else ":")
        title = "\n".join(map(_literal, labels[update.id].split("\n")))
        axis.set(title=title, xlabel="optimizer steps taken", ylabel="forecast total steps")
        _make_logarithmic(axis, "x", "y")
    return figure


def draw_running_accuracy(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    """Draw coverage and error of each cost over all forecasts settled so far, in the order of the updates."""
    figure, (coverage, error) = _panels(2)
    pairs = sorted((pair for pair in settled if pair[0].alternatives), key=lambda pair: pair[1].created_utc)
    shown = {}
    for cost, color in zip(COSTS, _COLORS, strict=False):
        covered = [(n, is_covered(*pair, cost)) for n, pair in enumerate(pairs, start=1)]
        known = [(n, float(each)) for n, each in covered if each is not None]
        if not known:
            continue
        shown[COST_NAMES[cost]] = color
        errors = [(n, relative_error(*pair, cost)) for n, pair in enumerate(pairs, start=1)]
        _plot_running(coverage, known, np.mean, color)
        _plot_running(error, [(n, abs(each)) for n, each in errors if each is not None], np.median, color)
    for level in {forecast.level for forecast, _ in pairs}:
        coverage.axhline(level, color=_INK, lw=0.8, ls="--")
    coverage.set(xlabel="settled forecasts", ylabel="coverage of the intervals", ylim=(-0.02, 1.05))
    error.set(xlabel="settled forecasts", ylabel="median relative error", ylim=(0, None))
    for axis in (coverage, error):
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _add_legend(figure, shown)
    return figure


def _plot_running(axis: Axes, known: Sequence[tuple[int, float]], statistic: Callable[[Any], Any], color: str) -> None:
    """Plot a statistic of all values up to each forecast."""
    values = [statistic([value for _, value in known[: n + 1]]) for n in range(len(known))]
    axis.plot([n for n, _ in known], values, ".-", lw=1.2, alpha=0.6, color=color)


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with a grid of panels."""
    columns = min(_COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


def _colors_of(groups: Iterable[str]) -> dict[str, str]:
    return {name: _COLORS[i % len(_COLORS)] for i, name in enumerate(sorted({*groups}))}


def _pair(forecast: Forecast, update: Update, cost: str) -> tuple[float, float] | None:
    """Return a forecast cost and its measured value; None unless both are positive."""
    estimate, measured = forecast.estimates.get(cost), getattr(update.cost, cost)
    return (estimate.value, measured) if estimate and estimate.value and measured else None


def _drawable_bounds(estimate: Estimate) -> tuple[float, float]:
    """Return the interval of an estimate on a logarithmic axis, where no bound is zero or missing."""
    interval = estimate.interval
    high = estimate.value * 100 if interval.high is None else interval.high
    return max(interval.low, estimate.value / 100), high


def _label_and_scale(cost: str, values: Sequence[float | None]) -> tuple[str, float]:
    """Return the axis label of a cost, and the size of the unit that suits the median value."""
    scale, unit = scale_and_unit(cost, float(np.median([value for value in values if value] or [1.0])))
    return f"{COST_NAMES[cost]} [{unit}]" if unit else COST_NAMES[cost], scale


def _add_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    handles = [Line2D([], [], marker="o", ls="", color=color, label=_literal(name)) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=int(figure.get_figwidth() / 1.5))


def _make_logarithmic(axes: Axes, *names: str) -> None:
    """Make axes logarithmic, with few ticks (0.3, 1, 3, or powers of ten alone) that never overlap."""
    for name in names:
        axis = getattr(axes, f"{name}axis")
        low, high = axis.get_data_interval()
        if 0.0 < low == high:  # matplotlib rounds one value to an empty range if it is nearly a power of ten
            axes.set(**{f"{name}lim": (low / 10.0, high * 10.0)})
        axes.set(**{f"{name}scale": "log"})
        is_wide = low > 0.0 and high > _WIDE * low
        axis.set_major_locator(LogLocator(base=10, subs=(1.0,) if is_wide else (1.0, 3.0), numticks=5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _literal(text: str) -> str:
    """Return a name for matplotlib, in which a dollar sign would begin a formula."""
    return printable(text).replace("$", r"\$")
