"""Terminal output: progress bars, warnings, descriptions of results, JSON."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from resque._display import Display
from resque.ledger.serialization import to_dict

__all__ = ["err", "only_json", "out", "print_json", "progress", "show", "to_json", "warn"]

_WIDTH_WITHOUT_TERMINAL = 120
_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)


def _console(stderr: bool) -> Console:
    """Open a console for plain text, as wide as the terminal, as COLUMNS says, or 120 characters in a pipe."""
    console = Console(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


out, err = _console(stderr=False), _console(stderr=True)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on stderr with elapsed and remaining time; nothing where stderr is no terminal.

    The block gets a function ``report(done, total, detail)`` that moves the bar.
    """
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    times = TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn()
    detail = TextColumn("{task.fields[detail]}", markup=False)
    with Progress(*columns, *times, detail, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(description, total=None, detail="")

        def report(done: int, total: int, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield report


def warn(message: str) -> None:
    """Print a warning on stderr, one line."""
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)


def show(display: Display) -> None:
    """Print the description of a result as wide as the terminal: title in bold, table, sentences, a blank line."""
    if display.title:
        out.print(display.title, style="bold")
    text = dataclasses.replace(display, title="").to_text(out.width)
    out.print(f"{text}\n" if text else "", soft_wrap=True)


def to_json(value: Any) -> Any:
    """Return a record, a list of records, or None as plain values, ready for JSON."""
    return [to_json(item) for item in value] if isinstance(value, list) else value and to_dict(value)


@contextmanager
def only_json() -> Iterator[None]:
    """Keep stdout for :func:`print_json`: inside the block everything else that is printed goes to stderr."""
    kept = _RESULTS.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULTS.reset(kept)


def print_json(facts: dict[str, Any]) -> None:
    """Print one JSON object to stdout."""
    print(json.dumps(facts, allow_nan=False), file=_RESULTS.get())
