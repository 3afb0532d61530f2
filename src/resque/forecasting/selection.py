"""Choose the updates that a forecast learns from."""

from collections.abc import Sequence

from resque.ledger.records import Update
from resque.ledger.store import Ledger

__all__ = ["MOST_UPDATES", "starts_at_chance", "updates_to_learn_from"]

MOST_UPDATES = 1000
"""Most updates that a forecast learns from."""
_ABOUT_CHANCE = 0.1  # of the way from chance level to 1


def updates_to_learn_from(ledger: Ledger, parent: str, new_tasks: bool) -> list[Update]:
    """Read the updates that a forecast learns from, at most :data:`MOST_UPDATES`: those of this model, then the newest.

    Original trainings are left out: random weights learn more, and for longer, than an update of a trained model.

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
    if len(newest) == MOST_UPDATES:
        ids = {update.id for update in own}
        others = [update for update in newest if update.id not in ids]
        newest = others[len(others) - (MOST_UPDATES - len(own)) :] + own
    return _without_original_trainings(newest, parent)


def _without_original_trainings(updates: Sequence[Update], parent: str) -> list[Update]:
    """Return the updates of models that were trained before.

    These are the model of the forecast, models that came out of an update, and models that once started above chance.
    """
    trained = {parent, *(update.child for update in updates)}
    trained |= {update.parent for update in updates if not starts_at_chance(update)}
    return [update for update in updates if update.parent in trained or update.features.task_index is not None]


def starts_at_chance(update: Update) -> bool:
    """Return whether a model is about as accurate as guessing before its update, as one of new weights is.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> starts_at_chance(bundled_updates()[0])
        False
    """
    classes = update.features.classes
    return classes is not None and update.curve.accuracy[0] * classes - 1.0 <= _ABOUT_CHANCE * (classes - 1.0)
