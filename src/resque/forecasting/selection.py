"""Choose the updates that a forecast learns from, and the predictors that it uses."""

from collections.abc import Sequence

from resque.forecasting.history import ForecastQuery, history_rows
from resque.forecasting.predictors import CHOSEN, REACHING, TINY
from resque.ledger.records import Update
from resque.ledger.store import Ledger

__all__ = [
    "FEWEST_FOR_SELECTION", "MOST_UPDATES", "choose_predictors", "predictors_of_success", "updates_to_learn_from",
]  # fmt: skip

MOST_UPDATES = 300
"""Most updates that a forecast learns from; the time of its fit grows with their square, to a minute at a thousand.

Forecasts from so many of 1,000 updates differed from those by all of them: median steps by factors from 1.01 to 1.43,
with a median of 1.21 (18 forecasts, ``make torture``).
"""

FEWEST_FOR_SELECTION = 10
"""Fewest updates that must have a predictor."""


def choose_predictors(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> tuple[str, ...]:
    """Return the names of the predictors for a forecast.

    The first set in :data:`resque.forecasting.predictors.CHOSEN` is used whose leading predictor varies over at least
    ten updates; its other predictors are used under the same condition. With fewer updates, the single predictor that
    most updates have is used, and of equals one that leads its set.

    Args:
        history: The user's own finished updates.
        query: Update to forecast.
        bundled: Updates from other models.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> choose_predictors(bundled_updates()[1:60], query)
        ('BN-adapted gap', 'accuracy gap', 'BN-adapted k-NN')
    """
    counts: dict[str, int] = {}
    for names in CHOSEN:
        values = _training_values(names, history, query, bundled)
        usable = _varying(values)
        if usable and (usable[0] == names[0] or names is CHOSEN[-1]):
            return usable
        counts |= {name: len(each) for name, each in values.items()}
    leading = {names[0] for names in CHOSEN}
    return tuple(sorted(counts, key=lambda name: (-counts[name], name not in leading))[:1])


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


def predictors_of_success(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> tuple[str, ...]:
    """Return the names of the predictors for the probability of reaching the target; empty if too few updates have any.

    Args:
        history: The user's own finished updates.
        query: Update to forecast.
        bundled: Updates from other models.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> predictors_of_success(bundled_updates()[1:60], query)
        ('BN-adapted gap', 'k-NN accuracy', 'LogME')
    """
    return _varying(_training_values(REACHING, history, query, bundled))


def _training_values(
    names: Sequence[str], history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update]
) -> dict[str, list[float]]:
    """Return the training values of each predictor that is known for the query."""
    return {
        name: [row.example.features[0] for row in history_rows(history, "steps", query, [name], bundled)]
        for name in names
        if query.values([name]) is not None
    }


def _varying(values: dict[str, list[float]]) -> tuple[str, ...]:
    """Return the predictors that enough updates have and that vary between them."""
    return tuple(
        name for name, each in values.items() if len(each) >= FEWEST_FOR_SELECTION and max(each) - min(each) > TINY
    )
