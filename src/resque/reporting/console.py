"""Terminal output: progress bars, warnings, descriptions of results, JSON."""

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from resque._display import Display
from resque._format import printable
from resque._plain import finite
from resque.ledger.serialization import to_dict
from resque.reporting.progress import PlainProgress, current

__all__ = ["err", "note", "only_json", "out", "print_json", "progress", "show", "to_json", "warn"]

_WIDTH_WITHOUT_TERMINAL = 120
_RESULTS: ContextVar[TextIO | None] = ContextVar("results", default=None)


class _PlainConsole(Console):
    """A console on which a text is one line: control characters in it are escaped."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def _console(stderr: bool) -> Console:
    """Open a console for plain text, as wide as the terminal, as COLUMNS says, or 120 characters in a pipe."""
    console = _PlainConsole(stderr=stderr, highlight=False, markup=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


out, err = _console(stderr=False), _console(stderr=True)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar on stderr with elapsed and remaining time; plain lines where stderr is no terminal.

    The block gets a function ``report(done, total, detail)`` that moves the bar.
    """
    if not err.is_terminal:
        lines = PlainProgress(printable(description), time.monotonic())
        with current(lines):
            yield lines.report
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn()
    times = TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("remaining"), TimeRemainingColumn()
    detail = TextColumn("{task.fields[detail]}", markup=False)
    with Progress(*columns, *times, detail, console=err, transient=True) as bar, current(None):
        task = bar.add_task(printable(description), total=None, detail="")

        def report(done: int, total: int, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=printable(detail))

        yield report


def warn(message: str) -> None:
    """Print a warning on stderr, one line."""
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)


def note(message: str) -> None:
    """Print a remark that changes nothing on stderr, one line."""
    err.print(f"note: {message}", soft_wrap=True)


def show(display: Display) -> None:
    """Print the description of a result as wide as the terminal: title in bold, table, sentences, a blank line."""
    if display.title:
        out.print(display.title, style="bold")
    text = dataclasses.replace(display, title="").to_text(out.width)
    out.print(Text(f"{text}\n" if text else ""), soft_wrap=True)


def to_json(value: Any) -> Any:
    """Return a record, a list of records, or None as plain values, ready for JSON."""
    return [to_json(item) for item in value] if isinstance(value, list) else value and to_dict(value)


@contextmanager
def only_json() -> Iterator[None]:
    """Keep stdout for :func:`print_json`: whatever else is written to it goes to stderr.

    That holds for the file descriptor, too, to which C code and subprocesses write. Where the stream is the process's
    own, it stays so until the process ends: buffers of C code are written, and functions at exit called, after the
    block.
    """
    stream, is_own, copy = sys.stdout, False, -1
    with contextlib.suppress(AttributeError, OSError):  # a stream that is none, has no descriptor, or is closed
        stream.flush()
        copy = os.dup(1)
        os.dup2(sys.__stderr__.fileno(), 1)  # type: ignore[union-attr]
        is_own = stream.fileno() == 1
    if is_own:
        _RESULTS.set(os.fdopen(copy, "w", encoding="ascii"))
        sys.stdout = sys.stderr
        yield
        return
    kept = _RESULTS.set(stream)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _RESULTS.reset(kept)
        if copy >= 0:
            os.dup2(copy, 1)
            os.close(copy)


def print_json(facts: dict[str, Any]) -> None:
    """Print one JSON object to stdout; a number that is not finite is null."""
    line = json.dumps(finite(facts), allow_nan=False).replace("\x7f", "\\u007f")
    print(line, file=_RESULTS.get(), flush=True)
