"""Command line of the scripts that make tables and figures, and the files that they write."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from presets import PRESETS
from resque.workflows.engine import Row
from runs import PARTS, RESULTS, add_engine_options, engine_of, existing_rows, make_rows

Rows = Mapping[str, list[Row]]
Content = str | Figure


def publish(description: str | None, make: Callable[[str, Rows], Mapping[str, Content]], *parts: str) -> None:
    """Run a script from the command line: make the rows that are missing, then its tables and figures.

    Args:
        description: Docstring of the script.
        make: Function of preset and rows that returns file name without suffix → Markdown or figure.
        parts: Parts of the preset that are needed, ``"shifts"`` or ``"tasks"``; none stands for both.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    add_engine_options(parser)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with a folder of rows per preset")
    parser.add_argument("--existing", action="store_true", help="use the rows that exist, and make none")
    options = parser.parse_args()
    needed = parts or PARTS
    if options.existing:
        rows = existing_rows(options.preset, options.results, needed)
    else:
        with engine_of(options) as engine:
            rows = make_rows(options.preset, engine, options.results, parts=needed)
    for name, content in make(options.preset, rows).items():
        print(write(content, options.results / options.preset / name))


def write(content: Content, path: Path) -> str:
    """Write a table as Markdown or a figure as SVG; return what to show in the terminal.

    The same rows give the same file: the SVG has a fixed salt and no date.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        path.with_suffix(".md").write_text(content, encoding="utf-8")
        return content
    with matplotlib.rc_context({"svg.hashsalt": "resque", "svg.fonttype": "none"}):
        content.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return str(path.with_suffix(".svg"))
