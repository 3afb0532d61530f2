"""The lines of models in a ledger: a root, and all that descends from it, with what was asked and compared."""

from collections import Counter
from collections.abc import Mapping, Sequence

from resque.forecasting.selection import starts_at_chance
from resque.ledger.records import Forecast, Update

__all__ = ["began_untrained", "model_lines"]


def began_untrained(updates: Sequence[Update], forecasts: Sequence[Forecast]) -> frozenset[str]:
    """Return the ids of the updates that trained new weights, as far as can be told.

    Some are flagged as from scratch. Another one is the only update of its parent, which no update made. Its parent is
    known as new weights from a forecast or update from scratch, or is as accurate as guessing. Such a parent has no
    index, shift or new task.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> began_untrained(bundled_updates()[:1], [])
        frozenset()
    """
    made = {update.child for update in updates if not update.from_scratch}
    of_parent = Counter(update.parent for update in updates if not update.from_scratch)
    every: list[Update | Forecast] = [*updates, *forecasts]
    random = {each.parent for each in every if each.from_scratch}

    def is_first(update: Update) -> bool:
        is_root = bool(update.parent and update.child) and update.parent not in made and of_parent[update.parent] == 1
        return is_root and (update.parent in random or _guesses(update))

    return frozenset(update.id for update in updates if update.from_scratch or is_first(update))


def model_lines(
    updates: Sequence[Update], forecasts: Sequence[Forecast], untrained: frozenset[str]
) -> dict[str, list[Update | Forecast]]:
    """Return root → its entries, oldest first; the line of the newest entry comes last.

    A training from new weights belongs to the model that it made, if that is in use. Else it is a comparison, as is a
    forecast of one: it belongs to the line of the same model name and target, whose data it was compared on. A forecast
    that such a training settled goes with it.

    Args:
        updates: All updates.
        forecasts: All forecasts.
        untrained: Ids of the updates that trained new weights.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> [len(line) for line in model_lines(bundled_updates()[:1], [], frozenset()).values()]
        [1]
    """
    parents = {u.child: u.parent for u in updates if u.child and u.parent and u.id not in untrained}
    made = {u.forecast_id: u.child for u in updates if u.id in untrained and u.forecast_id is not None}
    trained = {u.parent: u.child for u in updates if u.id in untrained and not u.from_scratch}
    every: list[Update | Forecast] = [*updates, *forecasts]
    own = [each for each in every if not each.from_scratch and each.id not in untrained]
    counts = Counter(trained.get(each.parent, each.parent) for each in own)
    in_use = {*counts, *parents}
    lines: dict[str, list[Update | Forecast]] = {}
    asked: dict[tuple[str, str, float], str] = {}
    strays: list[tuple[str, Update | Forecast]] = []
    for entry in sorted(every, key=lambda each: each.created_utc):
        child = made.get(entry.id) if isinstance(entry, Forecast) else entry.child if entry.id in untrained else None
        start = trained.get(entry.parent, entry.parent) if child is None else child
        if child is not None:
            is_stray = start not in in_use
        else:
            others = counts[start] - (not entry.from_scratch)
            is_stray = isinstance(entry, Forecast) and start not in parents and not others
        if is_stray:
            strays.append((start, entry))
            continue
        root = _root(start, parents)
        lines.setdefault(root, []).append(entry)
        asked[_asked(entry)] = root
    for start, entry in strays:
        lines.setdefault(asked.get(_asked(entry), start), []).append(entry)
        asked.setdefault(_asked(entry), start)
    for entries in lines.values():
        entries.sort(key=lambda each: each.created_utc)
    return dict(sorted(lines.items(), key=lambda line: line[1][-1].created_utc))


def _guesses(update: Update) -> bool:
    """Return whether the model before an update was as accurate as guessing, on data that are no known shift."""
    features = update.features
    is_change = features.index_rad is not None or features.task_index is not None or update.shift_type is not None
    return not is_change and starts_at_chance(update)


def _asked(entry: Update | Forecast) -> tuple[str, str, float]:
    return entry.model, entry.train_data, entry.target_accuracy


def _root(start: str, parents: Mapping[str, str]) -> str:
    """Return the root of a model; a line that leads back to itself ends where it is entered."""
    seen = {start}
    while start in parents and parents[start] not in seen:
        start = parents[start]
        seen.add(start)
    return start
