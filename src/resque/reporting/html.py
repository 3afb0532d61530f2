"""Records → one self-contained HTML file: pictures as inline SVG, no script, nothing fetched."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import matplotlib

from resque import __version__, _format
from resque._files import write_atomically
from resque.errors import DataError
from resque.forecasting.evaluation.settlement import Settlement
from resque.ledger.records import Forecast, Update
from resque.reporting import sentences
from resque.reporting.figures import (
    FEWEST_RUNNING,
    SHOWN_REVISED,
    STYLE,
    draw_forecast_against_measured,
    draw_index_against_costs,
    draw_learning_curves,
    draw_revisions,
    draw_running_accuracy,
    to_svg,
)


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
    renewed = [(said, update) for said, update in settled if update.revisions][-SHOWN_REVISED:]
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figures = {
            "costs": to_svg(draw_index_against_costs(updates)),
            "curves": to_svg(draw_learning_curves(updates)),
            "settled": to_svg(draw_forecast_against_measured(settled)) if settled else "",
            "renewed": to_svg(draw_revisions(renewed)) if renewed else "",
            "running": to_svg(draw_running_accuracy(settled)) if summary.n >= FEWEST_RUNNING else "",
        }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("resque.reporting", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.j2").render(
        title=title,
        version=__version__,
        figures=figures,
        updates=updates,
        settled=settled,
        summary=summary,
        words={**vars(_format), **vars(sentences)},
        sources=_sources(updates),
    )
    with write_atomically(path, may_replace=_is_page) as scratch:
        scratch.write_text(page, encoding="utf-8")


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"


def _sources(updates: Sequence[Update]) -> list[str]:
    """Meter, grid and machine of every figure, each told once."""
    meters = {f"Energy: {update.energy.meter}" for update in updates}
    grids = {f"Carbon: {sentences.grid_sentence(update.grid)}" for update in updates}
    hosts = {"Machine: " + ", ".join(f"{key} {value}" for key, value in update.host.items()) for update in updates}
    return sorted(meters) + sorted(grids) + sorted(hosts)
