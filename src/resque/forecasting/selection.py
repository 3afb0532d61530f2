"""Choose the updates that a forecast learns from."""

from resque.ledger.records import Update
from resque.ledger.store import Ledger

__all__ = ["MOST_UPDATES", "updates_to_learn_from"]

MOST_UPDATES = 1000
"""Most updates that a forecast learns from."""


def updates_to_learn_from(ledger: Ledger, parent: str, new_tasks: bool) -> list[Update]:
    """Read the updates that a forecast learns from, at most :data:`MOST_UPDATES`: those of this model, then the newest.

    Args:
        ledger: Ledger with the user's own updates.
        parent: Fingerprint of the model.
        new_tasks: Whether the forecast is for a new task; it learns from new tasks alone, and a shift from shifts.

    Returns:
        The updates, oldest first.

    Example:
        >>> import tempfile
        >>> from resque.ledger.bundled import bundled_updates
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ledger = Ledger(folder + "/resque.db")
        ...     _ = ledger.extend(bundled_updates()[:20])
        ...     len(updates_to_learn_from(ledger, parent="", new_tasks=False))
        20
    """
    own = ledger.updates(parent=parent, new_tasks=new_tasks, last=MOST_UPDATES)
    newest = ledger.updates(new_tasks=new_tasks, last=MOST_UPDATES)
    if len(newest) < MOST_UPDATES:
        return newest
    ids = {update.id for update in own}
    others = [update for update in newest if update.id not in ids]
    return others[len(others) - (MOST_UPDATES - len(own)) :] + own
