"""Reasons why a forecast is not reliable enough for a decision, and notes on its history."""

import math
from collections.abc import Sequence

from resque.forecasting.history import ForecastQuery, HistoryRow, history_rows
from resque.ledger.records import Update
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict

FEWEST_UPDATES = 5
FEWEST_REACHED = 3
INDEX = "index"
_BEYOND = 0.1


def unreliability_reasons(
    mine: Sequence[HistoryRow],
    history: Sequence[Update],
    query: ForecastQuery,
    names: Sequence[str],
    reach: Sequence[str],
    level: float,
) -> list[str]:
    """Why nobody should decide by this forecast: whatever others teach, own updates must bear it out."""
    if not mine:
        task = query.features.task_index is not None
        advice = "learn a few new tasks of your own" if task else "run `resque calibrate`, or a few updates of your own"
        return [f"it rests on updates of others alone: {advice}"]
    kin = [row for row in mine if row.example.group == query.group]
    reached = sum(not row.example.censored for row in kin)
    found = []
    if len(kin) < FEWEST_UPDATES:
        found.append(f"{len(kin)} own updates of this model and recipe; {FEWEST_UPDATES} are needed")
    elif reached < FEWEST_REACHED:
        found.append(f"{reached} of {len(kin)} own updates ever reached the target; {FEWEST_REACHED} are needed")
    elif len(different := {row.example.condition for row in kin}) == 1:
        found.append(f"all {len(kin)} own updates are repeats of one")
    elif len(different) < _needed(level):
        found.append(
            f"to be {100 * level:g}% sure takes {_needed(level)} different own updates, and there are {len(different)}"
        )
    for name in dict.fromkeys((*names, *reach) if kin else ()):
        (given,), seen = query.values([name]), _seen(history, query, name)
        if not seen:
            found.append(f"no own update of this model and recipe has its {name}")
        elif given is None or not min(seen) - _slack(seen) <= given <= max(seen) + _slack(seen):
            found.append(_extrapolated(name, "below" if given is not None and given < min(seen) else "above"))
    (index,), seen = query.values([INDEX]), _seen(history, query, INDEX)
    beside = INDEX not in (*names, *reach) and len(seen) >= FEWEST_UPDATES
    if beside and index is not None and index > max(seen) + _slack(seen):  # it decides nothing; nor was it ever seen
        found.append(_extrapolated(INDEX, "above"))
    return found


def _extrapolated(name: str, side: str) -> str:
    return f"extrapolated: {name} {side} all that this model's own updates by this recipe had"


def _seen(history: Sequence[Update], query: ForecastQuery, name: str) -> list[float]:
    rows = history_rows(history, "steps", query, [name])
    return [row.example.features[0] for row in rows if row.example.group == query.group]


def _slack(seen: Sequence[float]) -> float:
    """A tenth of the range; at most .1, which of a logarithm is a tenth of the number, and at least .01."""
    return min(_BEYOND, max(_BEYOND * (max(seen) - min(seen)), _BEYOND**2))


def _needed(level: float) -> int:
    """Updates that an interval of that level takes, whatever their distribution."""
    return math.ceil(level / (1.0 - level) - 1e-9)


def history_notes(mine: Sequence[HistoryRow]) -> tuple[str, ...]:
    """Return what the reader has to know of the history; empty where there is nothing."""
    censored = sum(row.example.censored for row in mine)
    if not censored:
        return ()
    return (f"{censored} of {len(mine)} updates ended below the target: they count as longer than they ran",)


def foreign_history_notes(
    history: Sequence[Update], mine: Sequence[HistoryRow], job: RetrainingJob, parent: str
) -> tuple[str, ...]:
    """Say what of the history is of another model or recipe, where steps are not quite the same, or of no use."""
    names = ("optimizer", "learning_rate", "batch_size")
    own = [recipe_to_dict(job.recipe)[name] for name in names]
    counted = {
        "are of another model": sum(row.example.parent != parent for row in mine),
        "used another optimizer, learning rate or batch size": sum(
            [update.recipe.get(name) for name in names] != own for update in history
        ),
        "trained another part of the model": sum(
            update.recipe.get("trains", "all") != job.recipe.trains for update in history
        ),
        "were left out: begun at the target or from scratch, another layer's index, or another change": len(history)
        - len(mine),
    }
    return tuple(f"{n} of {len(history)} updates in the ledger {what}" for what, n in counted.items() if n)
