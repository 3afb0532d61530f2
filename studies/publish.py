"""What the scripts of the tables and figures share: their command line, and where things are written."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from presets import PRESETS
from resque.workflows.engine import Row
from runs import PARTS, RESULTS, rows

Rows = Mapping[str, list[Row]]
Made = str | Figure


def publish(description: str | None, make: Callable[[str, Rows], Mapping[str, Made]], *parts: str) -> None:
    """The command line of a table or a figure: make the rows that are missing, then what is read off them.

    Args:
        description: The script's docstring.
        make: ``(preset, rows)`` → file name without its ending → Markdown, or a figure.
        parts: Of the preset, that it needs: its shifts, its tasks; all where none are named.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--made", action="store_true", help="of the rows that there are, however many are missing")
    options = parser.parse_args()
    found = rows(options.preset, options.workers, options.results, missing=not options.made, parts=parts or PARTS)
    for name, made in make(options.preset, found).items():
        print(write(made, options.results / options.preset / name))


def write(made: Made, place: Path) -> str:
    """Keep a table as Markdown, or a figure as SVG; what to show in the terminal."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(made, str):
        place.with_suffix(".md").write_text(made, encoding="utf-8")
        return made
    # a fixed salt and no date: the same rows give the same file
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "resque", "svg.fonttype": "none"}):
        made.savefig(place.with_suffix(".svg"), metadata={"Date": None})
    return str(place.with_suffix(".svg"))
