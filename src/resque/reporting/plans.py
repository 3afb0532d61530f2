"""A plan of updates in the terminal."""

from resque._display import Display, describe
from resque._format import NOT_MEASURED
from resque.forecasting.plan import NOW, Plan
from resque.ledger.components import MEASURED
from resque.reporting import console, tables

__all__ = ["show", "windows_display"]

_NEWEST = 12


def show(plan: Plan, command: str) -> None:
    """Print the decision, a year at several cadences, the windows, the budget, and how to update now.

    Args:
        plan: The plan.
        command: Command that updates now.
    """
    console.show(describe(plan))
    console.show(windows_display(plan))
    if plan.budget is not None:
        tables.show_decision(plan.budget)
    if plan.decision == NOW:
        console.out.print(f"`{command}` does it")


def windows_display(plan: Plan) -> Display:
    """Describe the newest windows: index, and accuracy, measured or estimated.

    Args:
        plan: The plan.
    """
    shown = plan.windows[-_NEWEST:]
    rows = [
        (
            each.date,
            f"{each.samples:,}",
            NOT_MEASURED if each.index_rad is None else f"{each.index_rad:.4f}",
            each.labels or NOT_MEASURED,
            f"{each.accuracy:.3f}",
            "measured" if each.accuracy_method == MEASURED else "estimated",
        )
        for each in shown
    ]
    left = len(plan.windows) - len(shown)
    lines = [f"{left} older windows are in --json"] if left else []
    columns = "window", "samples", "RESQUE_dist [rad]", "its labels", "accuracy", "how known"
    return Display("What the batches show", columns, rows, lines)
