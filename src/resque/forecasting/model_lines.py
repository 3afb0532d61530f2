"""The lines of models in a ledger: a root, and all that descends from it, with what was asked and compared."""

from collections import Counter
from collections.abc import Sequence

from resque.forecasting.selection import starts_at_chance
from resque.ledger.records import Forecast, Question, Update

__all__ = ["Entry", "began_untrained", "model_lines"]

Entry = Update | Forecast | Question


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
    updates: Sequence[Update],
    forecasts: Sequence[Forecast],
    untrained: frozenset[str],
    questions: Sequence[Question] = (),
) -> dict[str, list[Entry]]:
    """Return root → its entries, oldest first; the line of the newest entry comes last.

    A training from new weights belongs to the model that it made, if that is in use. Else it is a comparison, as is a
    forecast of one: it belongs to the line of the same model name and target, whose data it was compared on. A forecast
    that such a training settled goes with it.

    Args:
        updates: All updates.
        forecasts: All forecasts.
        untrained: Ids of the updates that trained new weights.
        questions: What was asked without a forecast.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> [len(line) for line in model_lines(bundled_updates()[:1], [], frozenset()).values()]
        [1]
    """
    known = _Descent(updates, forecasts, untrained)
    lines: dict[str, list[Entry]] = {}
    line_of: dict[tuple[str, str, float], str] = {}  # model name, data and target → the newest line that asked for them
    apart: list[Entry] = []
    entries: list[Entry] = [*updates, *forecasts, *questions]
    for entry in sorted(entries, key=lambda each: each.created_utc):
        if known.stands_apart(entry):
            apart.append(entry)
            continue
        root = known.root_of(known.model_of(entry))
        lines.setdefault(root, []).append(entry)
        line_of[_asked(entry)] = root
    for entry in apart:
        lines.setdefault(line_of.setdefault(_asked(entry), known.model_of(entry)), []).append(entry)
    for line in lines.values():
        line.sort(key=lambda each: each.created_utc)
    return dict(sorted(lines.items(), key=lambda item: item[1][-1].created_utc))


class _Descent:
    """Which model came from which, and of which one an entry is.

    Args:
        updates: All updates.
        forecasts: All forecasts.
        untrained: Ids of the updates that trained new weights.
    """

    def __init__(self, updates: Sequence[Update], forecasts: Sequence[Forecast], untrained: frozenset[str]) -> None:
        new = [update for update in updates if update.id in untrained]
        self._parents = {u.child: u.parent for u in updates if u.child and u.parent and u.id not in untrained}
        self._made = {update.id: update.child for update in new}
        self._made |= {update.forecast_id: update.child for update in new if update.forecast_id is not None}
        self._trained = {update.parent: update.child for update in new if not update.from_scratch}
        entries: list[Update | Forecast] = [*updates, *forecasts]
        of_trained = [each for each in entries if not each.from_scratch and each.id not in untrained]
        self._entries = Counter(self._before(each) for each in of_trained)

    def model_of(self, entry: Entry) -> str:
        """Return the model of an entry: that before it, or the one that new weights have become."""
        return self._made.get(entry.id, self._before(entry))

    def _before(self, entry: Entry) -> str:
        return self._trained.get(entry.parent, entry.parent)

    def stands_apart(self, entry: Entry) -> bool:
        """Return whether an entry is of new weights that are not in use, or the only question about its model."""
        model = self.model_of(entry)
        if entry.id in self._made:
            return model not in self._entries and model not in self._parents
        others = self._entries[model] - (not isinstance(entry, Question) and not entry.from_scratch)
        return not isinstance(entry, Update) and model not in self._parents and not others

    def root_of(self, model: str) -> str:
        """Return the root of a model; a line that leads back to itself ends where it is entered."""
        seen = {model}
        while model in self._parents and self._parents[model] not in seen:
            model = self._parents[model]
            seen.add(model)
        return model


def _guesses(update: Update) -> bool:
    """Return whether the model before an update was as accurate as guessing, on data that are no known shift."""
    features = update.features
    is_change = features.index_rad is not None or features.task_index is not None or update.shift_type is not None
    return not is_change and starts_at_chance(update)


def _asked(entry: Entry) -> tuple[str, str, float]:
    return entry.model, entry.train_data, entry.target_accuracy
