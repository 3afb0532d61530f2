"""Names of ways from their stored recipes: the words of a comparison, with the settings that tell ways apart."""

from collections.abc import Iterable, Mapping, Sequence

from resque.ledger.decision import action, trained_part
from resque.ledger.records import Forecast, Update
from resque.reporting.sentences import format_shift

__all__ = ["label_updates", "name_ways"]

_RATE = "learning_rate"


def name_ways(records: Iterable[Forecast | Update], is_short: bool = False) -> dict[str, str]:
    """Return the id of each forecast or update with the name of its way.

    The learning rate tells apart what trains the same part of the same model, and other settings what does so on the
    same data.

    Args:
        records: All records that are shown together.
        is_short: Whether there is room for a few letters alone, as in ``ledger list``.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> list(name_ways(bundled_updates()[:1]).values()), list(name_ways(bundled_updates()[:1], True).values())
        (['Retrain all layers'], ['all'])
    """
    name = trained_part if is_short else action
    entries = {id(each): each for each in records}
    base = {key: name(each.recipe, each.from_scratch) for key, each in entries.items()}
    of_part: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    of_data: dict[tuple[str, ...], list[Mapping[str, object]]] = {}
    for key, each in entries.items():
        of_part.setdefault((each.model, base[key]), []).append(each.recipe)
        of_data.setdefault((each.model, base[key], each.train_data), []).append(each.recipe)
    rates = {part: _differing(recipes) & {_RATE} for part, recipes in of_part.items()}
    others = {data: _differing(recipes) - {_RATE} for data, recipes in of_data.items()}
    named = {}
    for key, each in entries.items():
        settings = [*rates[each.model, base[key]], *sorted(others[each.model, base[key], each.train_data])]
        shown = (_setting(name, each.recipe[name], is_short) for name in settings if each.recipe.get(name) is not None)
        named[each.id] = "".join([base[key], *shown])
    return named


def label_updates(updates: Sequence[Update], names: Mapping[str, str], separator: str = ", ") -> dict[str, str]:
    """Return the id of each update with its shift, and its way where several are shown.

    Args:
        updates: Updates.
        names: Result of :func:`name_ways`.
        separator: Text between shift and way.
    """
    shown = {names[update.id] for update in updates}
    return {
        update.id: f"{format_shift(update)}{f'{separator}{names[update.id]}' if len(shown) > 1 else ''}"
        for update in updates
    }


def _differing(recipes: Sequence[Mapping[str, object]]) -> set[str]:
    """Return the settings in which those of the recipes differ that have them: earlier versions had fewer."""
    settings = {name for recipe in recipes for name in recipe}
    return {name for name in settings if len({str(recipe[name]) for recipe in recipes if name in recipe}) > 1}


def _setting(name: str, value: object, is_short: bool) -> str:
    """Return a setting as a part of a name: ``, rate 1e-3``, or `` 1e-3`` where there is little room."""
    if name != _RATE or not isinstance(value, float):
        return f", {name} {f'{value:g}' if isinstance(value, float) else value}"
    digits, exponent = f"{value:e}".split("e")
    rate = f"{float(digits):g}e{int(exponent)}"
    return f" {rate}" if is_short else f", rate {rate}"
