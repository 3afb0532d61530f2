"""Records → one self-contained HTML file: pictures as inline SVG, no script, nothing fetched."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from resque import __version__, wording
from resque.errors import DataError
from resque.files import replacing
from resque.records import COSTS, Estimate, Forecast, Update
from resque.settling import Settlement, held, relative_error
from resque.wording import NAMES

_COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8a5fbf", "#c9820a", "#5b5b5b", "#0f8b8d", "#a23b72")
_SHOWN_RENEWED = 8
_FEWEST_RUNNING = 3
_STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "svg.fonttype": "none",
    "svg.hashsalt": "resque",
    "legend.frameon": False,
}


def write_report(
    path: Path,
    updates: Sequence[Update],
    settled: Sequence[tuple[Forecast, Update]],
    summary: Settlement,
    title: str = "What updating this model costs",
) -> None:
    """Write the report, whole or not at all.

    Args:
        path: The HTML file.
        updates: Every update, oldest first.
        settled: Forecasts with the updates that settled them.
        summary: The same, summed up.
        title: Heading.
    """
    if not updates:
        raise DataError("the ledger is empty: run `resque retrain` or `resque demo` before a report")
    renewed = [(said, update) for said, update in settled if update.renewals][-_SHOWN_RENEWED:]
    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]
        figures = {
            "costs": _svg(_index_against_costs(updates)),
            "curves": _svg(_learning_curves(updates)),
            "settled": _svg(_forecast_against_measured(settled)) if settled else "",
            "renewed": _svg(_renewals(renewed)) if renewed else "",
            "running": _svg(_running(settled)) if summary.n >= _FEWEST_RUNNING else "",
        }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resque", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        version=__version__,
        figures=figures,
        updates=updates,
        settled=settled,
        summary=summary,
        wording=wording,
        sources=_sources(updates),
    )
    with replacing(path, own=_is_page) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"


def _sources(updates: Sequence[Update]) -> list[str]:
    """Meter, grid and machine of every figure, each told once."""
    meters = {f"Energy: {update.energy.meter}" for update in updates}
    grids = {f"Carbon: {wording.grid_line(update.grid)}" for update in updates}
    hosts = {"Machine: " + ", ".join(f"{key} {value}" for key, value in update.host.items()) for update in updates}
    return sorted(meters) + sorted(grids) + sorted(hosts)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    drawing = buffer.getvalue()
    return drawing[drawing.index("<svg") :]


def _colours(updates: Sequence[Update]) -> dict[str, str]:
    kinds = sorted({update.kind or "unnamed" for update in updates})
    return {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds)}


def _grid(panels: int, columns: int = 4) -> tuple[Figure, list[Axes]]:
    rows = -(-panels // columns)
    figure = Figure(figsize=(3.1 * min(columns, panels), 2.6 * rows), layout="constrained")
    axes = [figure.add_subplot(rows, min(columns, panels), i + 1) for i in range(panels)]
    return figure, axes


def _index_against_costs(updates: Sequence[Update]) -> Figure:
    shown = [update for update in updates if update.features.index_rad is not None]
    costs = [cost for cost in COSTS if any(getattr(update.cost, cost) for update in shown)] or ["steps"]
    figure, axes = _grid(len(costs))
    colours = _colours(updates)
    for axis, cost in zip(axes, costs, strict=True):
        for update in shown:
            value, colour, index = (
                getattr(update.cost, cost),
                colours[update.kind or "unnamed"],
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


def _learning_curves(updates: Sequence[Update]) -> Figure:
    colours = _colours(updates)
    figure, axes = _grid(len(colours))
    for axis, (kind, colour) in zip(axes, colours.items(), strict=True):
        members = [update for update in updates if (update.kind or "unnamed") == kind]
        for update in members:
            axis.plot(update.curve.steps, update.curve.accuracy, color=colour, lw=1, alpha=0.8)
        for target in {update.target_accuracy for update in members}:
            axis.axhline(target, color="#444444", lw=0.8, ls="--")
        axis.set(title=_literal(kind), xlabel="optimizer steps", ylabel="test accuracy", ylim=(0, 1.02))
        axis.set_xlim(left=0)
    return figure


def _forecast_against_measured(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
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
            bounds, colour = said.estimates[cost].interval, colours[update.kind or "unnamed"]
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


def _renewals(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    figure, axes = _grid(len(settled))
    for axis, (said, update) in zip(axes, settled, strict=True):
        steps = [(1, said.estimates["steps"]), *((renewal.step, renewal.steps) for renewal in update.renewals)]
        at, middle, low, high = zip(*((at, each.value, *_ends(each)) for at, each in steps), strict=True)
        axis.vlines(at[:2], low[:2], high[:2], color=_COLOURS[0], lw=2, alpha=0.4)
        axis.fill_between(at[1:], low[1:], high[1:], color=_COLOURS[0], lw=0, alpha=0.2)
        axis.plot(at[:1], middle[:1], "o", ms=4, color=_COLOURS[0])
        axis.plot(at[1:], middle[1:], ".-", ms=4, lw=0.8, color=_COLOURS[0])
        axis.axhline(update.cost.steps, color="#444444", lw=0.8, ls="--" if update.reached else ":")
        axis.set(title=_literal(wording.shift_of(update)), xlabel="optimizer steps taken", ylabel="steps in all")
        _logarithmic(axis, "x", "y")
    return figure


def _ends(steps: Estimate) -> tuple[float, float]:
    """Of its interval, where one can be drawn."""
    within = steps.interval
    return max(within.low, 1.0), steps.value * 100 if within.high is None else within.high


def _running(settled: Sequence[tuple[Forecast, Update]]) -> Figure:
    """Coverage and error of each cost, over all that was settled by then, in the order of the updates."""
    figure, (coverage, error) = _grid(2)
    pairs = sorted((pair for pair in settled if pair[0].alternatives), key=lambda pair: pair[1].created_utc)
    shown = {}
    for cost, colour in zip(COSTS, _COLOURS, strict=False):
        verdicts = [held(said, update, cost) for said, update in pairs]
        known = [(n, verdict) for n, verdict in enumerate(verdicts, start=1) if verdict is not None]
        if not known:
            continue
        shown[NAMES[cost]] = colour
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
    name, unit = NAMES[cost], COSTS[cost]
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
