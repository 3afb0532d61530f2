"""The report: one self-contained HTML file with figures as inline SVG, without scripts or external resources."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from resque import __version__
from resque._display import describe
from resque._files import write_atomically
from resque._format import printable
from resque.errors import DataError
from resque.forecasting.evaluation.settlement import Settlement
from resque.forecasting.life import Life
from resque.ledger.records import Forecast, Update
from resque.reporting import decisions, displays, figures, sentences
from resque.reporting.pictures import PictureStrip
from resque.reporting.ways import label_updates, name_ways

__all__ = ["MOST_SHOWN", "Opening", "write_report"]

_MAX_OVERVIEW = 12
_MAX_QUESTIONS = 4
MOST_SHOWN = 500
"""Most updates and settled forecasts in tables and figures."""


@dataclass(frozen=True)
class Opening:
    """What a report opens with, before how good past forecasts were.

    Attributes:
        title: Heading.
        pending: Forecasts that no update has settled, oldest first, each asked last; those of one question are a
            comparison. They are shown until an update has reached their target in another way.
        lives: Life of each model line, the newest last.
        strip: Inputs before and after the latest shift; None without any.
        carry_out: Function from the id of a forecast to the command that carries it out.
    """

    title: str = "What updating this model costs"
    pending: Sequence[Forecast] = ()
    lives: Sequence[Life] = ()
    strip: PictureStrip | None = None
    carry_out: Callable[[str], str] = "resque retrain --forecast {}".format


def write_report(
    path: Path,
    updates: Sequence[Update],
    settled: Sequence[tuple[Forecast, Update]],
    summary: Settlement,
    opening: Opening | None = None,
    n_updates: int | None = None,
    on_progress: Callable[[int, int, str], None] = lambda done, total, figure: None,
) -> None:
    """Write the report; an interruption leaves no partial file.

    Args:
        path: The HTML file; an existing file is replaced only if it is an HTML page.
        updates: Updates, oldest first; the newest :data:`MOST_SHOWN` are shown.
        settled: Forecasts with the updates that settled them.
        summary: Summary of ``settled``.
        opening: First section of the report.
        n_updates: Number of all updates, if ``updates`` are only the newest of them.
        on_progress: Callback with ``(done, total, figure)``.

    Raises:
        DataError: There is no update and no open forecast to report on.
    """
    opening = opening or Opening()
    if not (updates or opening.pending):
        raise DataError("the ledger is empty: run `resque forecast` or `resque demo` before a report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resque.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # a drawing is markup
    )
    environment.filters["commands"] = _with_commands
    pending = decisions.still_open(opening.pending, updates)
    shown, known = updates[-MOST_SHOWN:], settled[-MOST_SHOWN:]
    every = [*updates, *(update for _, update in settled)]
    names = name_ways([*every, *(forecast for forecast, _ in settled), *opening.pending])
    labels = label_updates(every, names)
    questions = list(decisions.open_questions(pending, settled, names, opening.carry_out))
    page = environment.get_template("report.html.j2").render(
        title=opening.title,
        questions=questions[:_MAX_QUESTIONS],
        n_questions=len(questions),
        decided=decisions.decided_last(opening.pending, settled, names),
        lives=[describe(life) for life in reversed(opening.lives)],
        strip=opening.strip,
        strip_data=None if opening.strip is None else base64.b64encode(opening.strip.content).decode(),
        version=__version__,
        verdict=" ".join(filter(None, (sentences.verdict_sentence(summary), sentences.missed_sentence(summary)))),
        sentences=list(filter(None, (sentences.predictor_sentence(summary), sentences.overhead_sentence(summary)))),
        has_updates=bool(updates),
        overview=displays.overview_display(settled[-_MAX_OVERVIEW:], labels),
        figures=_draw_figures(shown, known, summary, names, on_progress),
        accuracy=[
            *([describe(summary)] if any(each.n or each.intervals for each in summary.accuracy) else []),
            *([displays.predictors_display(summary)] if summary.scores else []),
        ],
        details=[displays.settled_display(*pair, labels[pair[1].id]) for pair in known],
        every=[draw(shown, names) for draw in (displays.updates_display, displays.energy_display) if updates],
        sources=_limits(n_updates or len(updates), len(settled)) + _sources(updates),
    )
    with write_atomically(path, may_replace=_is_html) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _scatter(points: Sequence[Any]) -> Sequence[Any]:
    """Return points of a scatter plot; none where they are too few to show more than a table does."""
    return points if len(points) >= figures.FEWEST_SETTLED else ()


def _draw_figures(
    updates: Sequence[Update],
    settled: Sequence[tuple[Forecast, Update]],
    summary: Settlement,
    names: Mapping[str, str],
    on_progress: Callable[[int, int, str], None],
) -> dict[str, str]:
    """Draw the figures for which there are data."""
    groups = figures.group_updates([*updates, *(update for _, update in settled)], names)
    labels = label_updates([update for _, update in settled], names, "\n")
    indexed = [update for update in updates if update.features.index_rad is not None]
    revised = [(forecast, update) for forecast, update in settled if update.revisions][-figures.MAX_REVISED :]
    planned: dict[str, tuple[Callable[[Any], Figure], Sequence[Any]]] = {
        "settled": (partial(figures.draw_forecast_against_measured, groups=groups), _scatter(settled)),
        "revised": (partial(figures.draw_revisions, labels=labels), revised),
        "running": (figures.draw_running_accuracy, settled if summary.n >= figures.FEWEST_SETTLED else ()),
        "costs": (partial(figures.draw_index_against_costs, groups=groups), _scatter(indexed)),
        "curves": (partial(figures.draw_learning_curves, groups=groups), updates),
    }
    drawings = {}
    with matplotlib.rc_context(figures.STYLE):  # type: ignore[arg-type]
        for done, (name, (draw, data)) in enumerate(planned.items()):
            on_progress(done, len(planned), name)
            if data:
                drawings[name] = figures.to_svg(draw(data))
    return drawings


def _with_commands(text: str) -> Markup:
    """Return a sentence as markup, what is between backticks as code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(printable(text)))))


def _is_html(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"


def _limits(n_updates: int, n_settled: int) -> list[str]:
    """Return what the tables and figures leave out; the summary counts everything."""
    counts = {"updates": n_updates, "settled forecasts": n_settled}
    return [
        f"Tables and figures show the newest {MOST_SHOWN:,} of {n:,} {name}; the summary counts all."
        for name, n in counts.items()
        if n > MOST_SHOWN
    ]


def _sources(updates: Sequence[Update]) -> list[str]:
    """Return every meter, grid and machine behind the numbers, once each."""
    meters = {f"Energy: {update.energy.meter}" for update in updates}
    grids = {f"Carbon: {sentences.grid_sentence(update.grid)}" for update in updates}
    hosts = {"Machine: " + ", ".join(f"{key} {value}" for key, value in update.host.items()) for update in updates}
    return sorted(meters) + sorted(grids) + sorted(hosts)
