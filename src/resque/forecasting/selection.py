"""Choose the predictors that a forecast uses."""

from collections.abc import Mapping, Sequence

from resque.forecasting.history import ForecastQuery, history_rows
from resque.forecasting.predictors import CHOSEN, REACHING, TINY
from resque.ledger.records import Update

FEWEST_FOR_SELECTION = 10


def choose_predictors(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> tuple[str, ...]:
    """The predictors that a forecast rests on: of a set, those that enough updates know, and in which they differ.

    Where updates are few it is one of them alone: what most of them know, of those a predictor that leads its set.

    Args:
        history: The user's updates.
        query: What is asked.
        bundled: Updates of others.
    """
    counts: dict[str, int] = {}
    for names in CHOSEN:
        seen = _seen(names, history, query, bundled)
        enough = _enough(seen)
        if enough and (enough[0] == names[0] or names is CHOSEN[-1]):
            return enough
        counts |= {name: len(values) for name, values in seen.items()}
    leading = {names[0] for names in CHOSEN}
    return tuple(sorted(counts, key=lambda name: (-counts[name], name not in leading))[:1])


def predictors_of_success(
    history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update] = ()
) -> tuple[str, ...]:
    """The predictors that the chance of reaching the target rests on; none where too few updates know them."""
    return _enough(_seen(REACHING, history, query, bundled))


def _seen(
    names: Sequence[str], history: Sequence[Update], query: ForecastQuery, bundled: Sequence[Update]
) -> dict[str, list[float]]:
    """Those that are known of the question, each with its values in the updates that know it."""
    return {
        name: [
            row.example.features[0]
            for updates, own in ((history, True), (bundled, False))
            for row in history_rows(updates, "steps", query, [name], own)
        ]
        for name, value in zip(names, query.values(names), strict=True)
        if value is not None
    }


def _enough(seen: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    return tuple(
        name for name, found in seen.items() if len(found) >= FEWEST_FOR_SELECTION and max(found) - min(found) > TINY
    )
