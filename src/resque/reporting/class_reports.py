"""Show which classes carry a shift and its errors: table, JSON, and a picture of the confusions."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque._display import describe
from resque._files import write_atomically
from resque.errors import SettingError
from resque.reporting import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from resque.indices.class_report import ClassReport

__all__ = ["check_picture", "draw", "show", "to_json"]

_FORMATS = (".svg", ".png", ".pdf")
_MOST_NUMBERS = 12  # classes whose shares are written into the cells


def show(report: "ClassReport") -> None:
    """Print the classes, the one with the most remaining errors first, and the findings."""
    console.show(describe(report))


def to_json(report: "ClassReport") -> dict[str, Any]:
    """Return the report as plain values, with what follows from them."""
    derived = "accuracy", "accuracy_adapted", "accuracy_renamed", "findings"
    return report.to_dict() | {name: getattr(report, name) for name in derived}


def check_picture(picture: Path | None) -> None:
    """Raise SettingError for a file that is no picture.

    Example:
        >>> check_picture(Path("confusions.svg"))
    """
    if picture is not None and picture.suffix.lower() not in _FORMATS:
        raise SettingError(f"cannot draw into {str(picture)!r}: expected a name that ends with {', '.join(_FORMATS)}")


def draw(report: "ClassReport", picture: Path) -> None:
    """Draw which class is taken for which, before and after normalization is re-estimated, into a file."""
    import matplotlib as mpl

    from resque.reporting.figures import STYLE

    with mpl.rc_context(STYLE), write_atomically(picture) as scratch:  # type: ignore[arg-type]
        figure = _confusions(report)
        figure.savefig(scratch, format=picture.suffix[1:].lower(), bbox_inches="tight", dpi=150)


def _confusions(report: "ClassReport") -> "Figure":
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = {f"as it is: accuracy {report.accuracy:.3f}": report.confusion}
    if report.confusion_adapted is not None:
        panels[f"normalization re-estimated: {report.accuracy_adapted:.3f}"] = report.confusion_adapted
    names = {each.label: each.name for each in report.classes}
    figure = Figure(figsize=(4.2 * len(panels), 3.9))
    for place, (title, confusion) in enumerate(panels.items()):
        axis = figure.add_subplot(1, len(panels), place + 1)
        shares = [[count / max(1, sum(row)) for count in row] for row in confusion]
        axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        axis.grid(visible=False)
        axis.set(title=title, xlabel="predicted class")
        if not place:
            axis.set_ylabel("true class")
        if len(shares) <= _MOST_NUMBERS and len(shares[0]) <= _MOST_NUMBERS:
            _write_shares(axis, shares)
            columns = range(len(shares[0]))
            rotation = 90 * any(len(name) > 2 for name in names.values())
            axis.set_xticks(columns, [names.get(column, str(column)) for column in columns], rotation=rotation)
            axis.set_yticks(range(len(shares)), [names[label] for label in report.labels] if not place else [])
        else:
            axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    figure.tight_layout()
    return figure


def _write_shares(axis: Any, shares: list[list[float]]) -> None:
    """Write the percentages that are not zero into their cells."""
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share >= 0.005:
                color = "white" if share > 0.5 else "black"
                axis.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=7, color=color)
