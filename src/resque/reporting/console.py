"""Terminal output: progress bars, warnings, empty tables, JSON."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from resque.ledger.serialization import to_dict

_UNSEEN_WIDTH = 120
Item = TypeVar("Item")


def _console(stderr: bool) -> Console:
    """Plain text; as wide as the terminal, or as COLUMNS says, or wide enough where nobody looks."""
    made = Console(stderr=stderr, highlight=False, markup=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _UNSEEN_WIDTH
    return made


out, err = _console(stderr=False), _console(stderr=True)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr; the block gets ``show(done, total, detail)``."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    detail = TextColumn("{task.fields[detail]}", markup=False)
    with Progress(*columns, detail, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(description, total=None, detail="")

        def show(done: int, total: int, detail: str = "") -> None:
            bar.update(task, completed=done, total=total, detail=detail)

        yield show


def tracked(items: Iterable[Item], total: int, description: str) -> Iterator[Item]:
    """The same items, with a bar on stderr."""
    with progress(description) as show:
        for done, item in enumerate(items):
            show(done, total, "")
            yield item


def warn(message: str) -> None:
    """One line on stderr."""
    err.print(f"warning: {message}", style="yellow", soft_wrap=True)


def table(*columns: str, title: str = "") -> Table:
    """An empty table; a column whose name begins with ``<`` is left-aligned, the others right."""
    made = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column.lstrip("<"), justify="left" if column.startswith("<") else "right")
    return made


def to_json(value: Any) -> Any:
    """A record, a list of them, or None, ready for JSON."""
    return [to_json(item) for item in value] if isinstance(value, list) else value and to_dict(value)


def print_json(facts: dict[str, Any]) -> None:
    """One object, alone on stdout."""
    print(json.dumps(facts, allow_nan=False))  # noqa: T201
