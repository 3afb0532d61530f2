"""Results that print themselves: one description, shown as text in a terminal and as HTML in a notebook."""

import abc
import dataclasses
import html
import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from resque._format import printable
from resque._plain import Serializable

__all__ = ["Display", "Displayable", "describe"]

WIDTH = 80
MAX_ROWS = 20
_BREAKS = re.compile("(?<=[/=…])")  # behind these signs a long word is broken


@dataclass(frozen=True)
class Display:
    """A title, an aligned table and a few sentences; control characters in them are escaped.

    Attributes:
        title: First line of the text, caption of the HTML table.
        columns: Headers of the table; without any text, the table has no header.
        rows: Cells of the table, as text, one sequence per row.
        lines: Sentences below the table.
        text_columns: Number of leading columns that are left-aligned; the others hold numbers.
    """

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()
    text_columns: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        for name in ("columns", "lines"):
            object.__setattr__(self, name, tuple(printable(text) for text in getattr(self, name)))
        object.__setattr__(self, "rows", [tuple(printable(cell) for cell in row) for row in self.rows])

    def extended(self, rows: Sequence[Sequence[str]] = (), lines: Sequence[str] = ()) -> "Display":
        """Return the description with further rows and sentences."""
        return dataclasses.replace(self, rows=[*self.rows, *rows], lines=[*self.lines, *lines])

    def to_text(self, width: int = WIDTH, max_rows: int | None = None) -> str:
        """Return the description as lines of at most ``width`` characters.

        Args:
            width: Length of the longest line; wide columns and sentences are wrapped.
            max_rows: Number of rows to show; None shows all of them.

        Example:
            >>> print(Display("Two costs", ("cost", "forecast"), [("steps", "180"), ("time", "338 ms")]).to_text())
            Two costs
            cost   forecast
            ───────────────
            steps       180
            time     338 ms
        """
        table = list(self._table_lines(width, max_rows)) if self.rows else []
        lines = [part for line in self.lines for part in _wrap(line, width)]
        gap = [""] if table and lines else []
        return "\n".join([*_wrap(self.title, width), *table, *gap, *lines])

    def to_html(self, max_rows: int | None = None) -> str:
        """Return the description as an HTML table with every text escaped.

        Example:
            >>> print(Display("A <b>", ["cost"], [["1 s"]]).to_html())  # doctest: +ELLIPSIS
            <table><caption>A &lt;b&gt;</caption><thead><tr><th>cost</th></tr></thead>...
        """
        caption = f"<caption>{html.escape(self.title)}</caption>"
        head = _html_row(self.columns, "th")
        body = "".join(_html_row(row, "td") for row in self._shown_rows(max_rows))
        lines = "".join(f"<p>{html.escape(line)}</p>" for line in self.lines)
        return f"<table>{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{lines}"

    def _shown_rows(self, max_rows: int | None) -> list[Sequence[str]]:
        """Return the rows, with a last one that counts those left out."""
        if max_rows is None or len(self.rows) <= max_rows:
            return list(self.rows)
        more = f"… {len(self.rows) - max_rows:,} more"
        return [*self.rows[:max_rows], (more, *[""] * (len(self.columns) - 1))]

    def _table_lines(self, width: int, max_rows: int | None) -> Iterator[str]:
        """Align the cells; in too wide a table, headers and texts are wrapped first, and numbers last."""
        rows = self._shown_rows(max_rows)
        columns = list(zip(self.columns, *rows, strict=True))
        widths = [max(map(len, cells)) for cells in columns]
        is_text = [place < self.text_columns for place in range(len(columns))]
        texts = [" ".join(cells).split() if text else cells for (_, *cells), text in zip(columns, is_text, strict=True)]
        words = [[*header.split(), *cells] for header, cells in zip(self.columns, texts, strict=True)]
        unbroken = [max(map(len, each), default=0) for each in words]
        gaps = 2 * (len(widths) - 1)
        while sum(widths) + gaps > width and max(widths) > 1:
            narrowed = [i for i in range(len(widths)) if widths[i] > unbroken[i]] or range(len(widths))
            widths[max(narrowed, key=widths.__getitem__)] -= 1
        for row in [self.columns, *rows] if any(self.columns) else rows:
            wrapped = [_wrap(cell, at_most) for cell, at_most in zip(row, widths, strict=True)]
            for parts in itertools.zip_longest(*wrapped, fillvalue=""):
                yield "  ".join(map(self._align, range(len(parts)), parts, widths)).rstrip()
            if row is self.columns:
                yield "─" * (sum(widths) + gaps)

    def _align(self, column: int, cell: str, width: int) -> str:
        return cell.ljust(width) if column < self.text_columns else cell.rjust(width)


def _wrap(text: str, width: int) -> list[str]:
    """Split a text into lines; a long word without spaces, such as a file name, is broken, if possible at a sign."""
    width = max(width, 1)  # a column may be empty
    words = (part for word in text.split(" ") for part in ([word] if len(word) <= width else _parts(word, width)))
    return textwrap.wrap(" ".join(words), width, break_on_hyphens=False)


def _parts(word: str, width: int) -> list[str]:
    """Break a long word into parts of which no two fit into a line."""
    parts = [""]
    for piece in _BREAKS.split(word):
        for part in textwrap.wrap(piece, width, break_on_hyphens=False):
            if len(parts[-1]) + len(part) > width:
                parts.append("")
            parts[-1] += part
    return parts


def _html_row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


class Displayable(Serializable, abc.ABC):
    """Mixin of results: ``print(result)``, an HTML table in a notebook, and ``result.to_dict()``."""

    @abc.abstractmethod
    def _display(self) -> Display:
        """Describe this result for people."""

    def __str__(self) -> str:
        return self._display().to_text(max_rows=MAX_ROWS)

    def _repr_html_(self) -> str:
        """Return the table that Jupyter shows."""
        return self._display().to_html(max_rows=MAX_ROWS)


def describe(result: Displayable, **shown: bool) -> Display:
    """Return the description that ``print(result)`` shows, to be extended; what else is shown, results name."""
    return result._display(**shown)
