"""Figures of the report, as SVG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from resque._format import COST_NAMES
from resque.forecasting.evaluation.settlement import is_covered, relative_error
from resque.ledger.records import COSTS, Estimate, Forecast, Update
from resque.reporting import sentences

_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c9820a", "#5b5b5b", "#0f8b8d", "#a23b72")
SHOWN_REVISED = 8
FEWEST_RUNNING = 3
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "none",
    "svg.hashsalt": "resque",
    "legend.frameon": False,
}


def to_svg(figure: Figure) -> str:
    """Return a figure as inline SVG."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]


def _colours(updates: Sequence[Update]) -> dict[str, str]:
    kinds = sorted({update.shift_type or "unnamed" for update in updates})
    return {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}


def _grid(panels: int, columns: int = 4) -> tuple[Figure, list[Axes]]:
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.1 * min(columns, panels), 2.6 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, min(columns, panels), i + 1) for i in range(panels)]
    return figure, axes


def draw_index_against_costs(updates: Sequence[Update]) -> Figure:
    """Draw the index against each measured cost."""
    shown = [update for update in updates if update.features.index_rad is not None]
    costs = [cost for cost in COSTS if any(getattr(update.cost, cost) for update in shown)] or ["steps"]
    figure, axes = _grid(len(costs))
    colours = _colours(updates)
    for axis, cost in zip(axes, costs, strict=True):
        for update in shown:
            value, colour, index = (
                getattr(update.cost, cost),
                colours[update.shift_type or "unnamed"],
                update.features.index_rad,
            )
            if value and index is not None:
                face = colour if update.reached else "none"
                marker = "o" if update.forecast_id is None else "D"
                axis.plot(index, value, marker, ms=5, mec=colour, mfc=face)
        axis.set(xlabel="RESQUE_dist [rad]", ylabel=_label(cost))
        _logarithmic(axis, "y")
    _legend(figure, colours)
    return figure


def draw_learning_curves(updates: Sequence[Update]) -> Figure:
    """Draw the learning curves, one panel for each shift type."""
    colours = _colours(updates)
    figure, axes = _grid(len(colours))
    for axis, (kind, colour) in zip(axes, colours.items(), strict=True):
        members = [update for update in updates if (update.shift_type or "unnamed") == kind]
        for update in members:
            axis.plot(update.curve.steps, update.curve.accuracy, color=colour, lw=1, alpha=0.8)
        for target in {update.target_accuracy for update in members}:
            axis.axhline(target, color="#444444", lw=0.8, ls="--")
        axis.set(title=_literal(kind), xlabel="optimizer steps", ylabel="test accuracy", ylim=(0, 1.02))
        axis.set_xlim(left=0)
    return figure


def draw_forecast_against_measured(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    """Draw forecasts with their intervals against the measured costs."""
    costs = [cost for cost in COSTS if any(_pair(said, update, cost) for said, update in settled)] or ["steps"]
    figure, axes = _grid(len(costs))
    colours = _colours([update for _, update in settled])
    for axis, cost in zip(axes, costs, strict=True):
        reach = []
        for said, update in settled:
            pair = _pair(said, update, cost)
            if pair is None:
                continue
            value, measured = pair
            bounds, colour = said.estimates[cost].interval, colours[update.shift_type or "unnamed"]
            top = value * 100 if bounds.high is None else bounds.high
            axis.plot([float(measured)] * 2, [bounds.low, top], color=colour, lw=2, alpha=0.4)
            axis.plot(measured, value, "o", ms=5, mec=colour, mfc=colour if update.reached else "none")
            reach += [measured, value]
        if reach:
            axis.plot(
                [min(reach) / 2, max(reach) * 2], [min(reach) / 2, max(reach) * 2], color="#444444", lw=0.8, ls="--"
            )
        axis.set(xlabel=f"measured {_label(cost)}", ylabel="forecast")
        _logarithmic(axis, "x", "y")
    _legend(figure, colours)
    return figure


def draw_revisions(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    """Draw how forecasts changed during their updates."""
    figure, axes = _grid(len(settled))
    for axis, (said, update) in zip(axes, settled, strict=True):
        steps = [(1, said.estimates["steps"]), *((revision.step, revision.steps) for revision in update.revisions)]
        at, middle, low, high = zip(*((at, each.value, *_ends(each)) for at, each in steps), strict=True)
        axis.vlines(at[:2], low[:2], high[:2], color=_COLOURS[0], lw=2, alpha=0.4)
        axis.fill_between(at[1:], low[1:], high[1:], color=_COLOURS[0], lw=0, alpha=0.2)
        axis.plot(at[:1], middle[:1], "o", ms=4, color=_COLOURS[0])
        axis.plot(at[1:], middle[1:], ".-", ms=4, lw=0.8, color=_COLOURS[0])
        axis.axhline(update.cost.steps, color="#444444", lw=0.8, ls="--" if update.reached else ":")
        axis.set(title=_literal(sentences.format_shift(update)), xlabel="optimizer steps taken", ylabel="steps in all")
        _logarithmic(axis, "x", "y")
    return figure


def _ends(steps: Estimate) -> tuple[float, float]:
    """Of its interval, where one can be drawn."""
    within = steps.interval
    return max(within.low, 1.0), steps.value * 100 if within.high is None else within.high


def draw_running_accuracy(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    """Coverage and error of each cost, over all that was settled by then, in the order of the updates."""
    figure, (coverage, error) = _grid(2)
    pairs = sorted((pair for pair in settled if pair[0].alternatives), key=lambda pair: pair[1].created_utc)
    shown = {}
    for cost, colour in zip(COSTS, _COLOURS, strict=False):
        verdicts = [is_covered(said, update, cost) for said, update in pairs]
        known = [(n, verdict) for n, verdict in enumerate(verdicts, start=1) if verdict is not None]
        if not known:
            continue
        shown[COST_NAMES[cost]] = colour
        kept = np.cumsum([verdict for _, verdict in known]) / np.arange(1, len(known) + 1)
        coverage.plot([n for n, _ in known], kept, ".-", lw=1.2, alpha=0.6, color=colour)
        errors = [relative_error(said, update, cost) for said, update in pairs]
        away = [(n, abs(each)) for n, each in enumerate(errors, start=1) if each is not None]
        medians = [float(np.median([each for _, each in away[: n + 1]])) for n in range(len(away))]
        error.plot([n for n, _ in away], medians, ".-", lw=1.2, alpha=0.6, color=colour)
    for level in {said.level for said, _ in pairs}:
        coverage.axhline(level, color="#444444", lw=0.8, ls="--")
    coverage.set(xlabel="forecasts settled", ylabel="intervals that held", ylim=(-0.02, 1.05))
    error.set(xlabel="forecasts settled", ylabel="median relative error", ylim=(0, None))
    _legend(figure, shown, columns=4)
    return figure


def _pair(said: Forecast, update: Update, cost: str) -> tuple[float, float] | None:
    estimate, measured = said.estimates.get(cost), getattr(update.cost, cost)
    return (estimate.value, measured) if estimate and estimate.value and measured else None


def _label(cost: str) -> str:
    name, unit = COST_NAMES[cost], COSTS[cost]
    return name if cost in ("epochs", "steps", "gradient_norm", "parameter_change") else f"{name} [{unit}]"


def _legend(figure: Figure, colours: dict[str, str], columns: int | None = None) -> None:
    handles = [
        Line2D([], [], marker="o", ls="", color=colour, label=_literal(kind)) for kind, colour in colours.items()
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=columns or len(handles))


def _logarithmic(axes: Axes, *names: str) -> None:
    """Logarithmic axes whose few ticks read 0.3, 1, 3 and so never run into each other."""
    of: dict[str, tuple[Any, ...]] = {
        "x": (axes.xaxis, axes.set_xlim, axes.set_xscale),
        "y": (axes.yaxis, axes.set_ylim, axes.set_yscale),
    }
    for name in names:
        axis, set_limits, set_scale = of[name]
        low, high = axis.get_data_interval()
        if 0.0 < low == high:  # one value, which matplotlib rounds to an empty range where it is nearly a power of ten
            set_limits(low / 10.0, high * 10.0)
        set_scale("log")
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 3.0), numticks=5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _literal(text: str) -> str:
    """A name as it is: a dollar sign would begin a formula."""
    return text.replace("$", r"\$")
