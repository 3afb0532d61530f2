"""Reasons why a forecast is not reliable enough for a decision, and notes on its history."""

import math
from collections.abc import Iterable, Iterator, Sequence

from scipy import special

from resque._format import format_cost, format_count
from resque.errors import TooFewUpdatesError
from resque.forecasting.history import ForecastQuery, HistoryRow, history_rows
from resque.forecasting.predictors import HARDNESS
from resque.ledger.decision import EXTRAPOLATION
from resque.ledger.records import Estimate, Features, Pilot, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict

__all__ = [
    "FEWEST_REACHED", "FEWEST_UPDATES", "beyond_earlier_runs", "check_enough", "harder_after_pilot", "history_notes",
    "pilot_option", "small_test_notes", "unlike_all_own", "unreliability_reasons",
]  # fmt: skip

FEWEST_UPDATES = 5
"""Fewest own updates for a reliable forecast."""
FEWEST_REACHED = 3
"""Fewest own updates that reached the target, for a reliable forecast."""
_TOLERANCE, _SMALLEST, _LARGEST = 0.25, 0.01, 0.1  # of the range, and its limits
_FAR = math.log(2.0)
_LONGER = 5.0  # times the longest earlier run; up to there, see studies/horizon.py
_NEARLY = 0.9  # of the way to the target
_PILOT_STEPS = 100
_EVEN = 0.5  # chance from which success is forecast


def check_enough(own_rows: Sequence[HistoryRow], bundled_rows: Sequence[HistoryRow], query: ForecastQuery) -> None:
    """Raise TooFewUpdatesError if there are no bundled updates, and own ones alone do not suffice."""
    n, reached = len(own_rows), sum(not row.example.censored for row in own_rows)
    accuracy = f"accuracy {query.target_accuracy:g}"
    if bundled_rows:
        return
    if n and reached < FEWEST_REACHED:
        reason = f"{reached} of {n} updates in the ledger reached {accuracy}; a forecast needs {FEWEST_REACHED}"
        advice = "lower the target, or allow more steps"
    elif n < FEWEST_UPDATES and query.features.task_index is not None:
        reason = f"{n} new tasks in the ledger started below {accuracy}; a forecast needs {FEWEST_UPDATES}"
        advice = "do more of them with `resque retrain --new-head` (or --extend)"
    elif n < FEWEST_UPDATES:
        reason = f"{n} updates in the ledger started below {accuracy}; a forecast needs {FEWEST_UPDATES}"
        advice = "run `resque calibrate`, or `resque retrain` with --original"
    elif len({row.example.condition for row in own_rows}) == 1:
        reason = f"all {n} updates in the ledger repeat one condition"
        advice = "do updates for other shifts"
    else:
        return
    raise TooFewUpdatesError(f"{reason}: {advice}")


def unreliability_reasons(
    own_rows: Sequence[HistoryRow], history: Sequence[Update], query: ForecastQuery, pilot: str
) -> tuple[str, ...]:
    """Return reasons why the forecast is not reliable enough for a decision; empty if there are none.

    Bundled updates may shape a forecast, but only the user's own updates of this model and recipe make it reliable. An
    update that is easier than all of them is no reason.

    Args:
        own_rows: Training rows of the user's own updates.
        history: The user's own finished updates.
        query: Update that was forecast.
        pilot: Option of a pilot, see :func:`pilot_option`.
    """
    unlike = [f"{reason}: try {pilot}" for reason in unlike_all_own(history, str(query.group[-1]), query.is_new_task)]
    if not own_rows:
        task = query.features.task_index is not None
        advice = "do a few updates for new tasks" if task else "run `resque calibrate`, or do a few updates"
        return f"the forecast rests on bundled updates only: try {pilot}, or {advice} with this model", *unlike
    rows = [row for row in own_rows if row.example.group == query.group]
    reasons = [*_too_few(rows)]
    beyond = _beyond_own_range(history, query) if rows else None
    if beyond is not None:
        reasons.append(f"{_harder(beyond)}: try {pilot}, or do similar ones first")
    return *reasons, *unlike


def harder_after_pilot(
    history: Sequence[Update], query: ForecastQuery, pilot: Pilot, trains: str, probability: float, level: float
) -> Iterator[str]:
    """Yield a reason not to rely on the forecast of an update that is unlike all that is known.

    Easy updates tell little of how high a hard one gets, updates of all layers little of a head or adapters, and
    bundled tasks little of another one. So its pilot must come nearly to the target: nine tenths of the way from the
    accuracy before the update. Forecasts of failure are doubted for a new part or task alone, where they are not sure.

    Args:
        history: The user's own finished updates.
        query: Update that was forecast.
        pilot: Its first steps.
        trains: Trained part, as in the recipe.
        probability: Probability of reaching the target.
        level: Confidence; at or below its rest, failure is sure.
    """
    start, best = pilot.curve.accuracy[0], max(pilot.curve.accuracy)
    way = (best - start) / (query.target_accuracy - start)
    if way >= _NEARLY:
        return
    came = f"its pilot came {max(way, 0.0):.0%} of the way: try a longer one, or do similar updates first"
    if probability >= _EVEN and (beyond := _beyond_own_range(history, query)) is not None:
        yield f"{_harder(beyond)}, and {came}"
    if probability > 1.0 - level:
        yield from (f"{reason}, and {came}" for reason in unlike_all_own(history, trains, query.is_new_task))


def unlike_all_own(history: Iterable[Update], trains: str, new_task: bool = False) -> Iterator[str]:
    """Yield a reason not to rely on the forecast of a kind of update that is new to the user.

    How far a head or adapters get differs more between models than how far all layers do. New tasks differ more than
    shifts, and the bundled ones are easy. So bundled updates do not tell.

    Args:
        history: The user's own finished updates: of new tasks for a new task, of shifts for a shift.
        trains: Trained part, as in the recipe.
        new_task: Whether it is a new task.

    Example:
        >>> list(unlike_all_own([], "head")), list(unlike_all_own([], "all"))
        (['extrapolation: no own update trains=head'], [])
        >>> list(unlike_all_own([], "all", new_task=True))
        ['extrapolation: no own update of a new task']
    """
    own = list(history)
    if new_task and not own:
        yield f"{EXTRAPOLATION}: no own update of a new task"
    if trains != "all" and all(update.recipe.get("trains") != trains for update in own):
        yield f"{EXTRAPOLATION}: no own update trains={trains}"


def _harder(measure: str) -> str:
    return f"{EXTRAPOLATION}: by {measure} it is harder than all own updates"


def _beyond_own_range(history: Sequence[Update], query: ForecastQuery) -> str | None:
    """Return the first measure of hardness that is above those of the own updates; None if there is none.

    The best known measure may exceed them by a tolerance. The others, logs of a gap to the target, tell less: their
    gap may be twice as large.
    """
    first = True
    for name in HARDNESS:
        asked, values = query.values([name]), _own_values(history, query, name)
        if asked is None or not values:
            continue
        if asked[0] > max(values) + (_tolerance(values) if first else _FAR):
            return name
        first = False
    return None


def _too_few(rows: Sequence[HistoryRow]) -> Iterator[str]:
    """Yield at most one reason: too few updates, successes or conditions of this model and recipe."""
    reached = sum(not row.example.censored for row in rows)
    if len(rows) < FEWEST_UPDATES:
        count = f"{format_count(len(rows), 'own update')} with this model and recipe"
        yield f"{count}, and {FEWEST_UPDATES} are needed: do more updates"
    elif reached < FEWEST_REACHED:
        yield (
            f"{reached} of {len(rows)} own updates reached the target, and {FEWEST_REACHED} are needed: "
            "lower the target or allow more steps"
        )
    elif len({row.example.condition for row in rows}) == 1:
        yield f"all {len(rows)} own updates repeat one condition: do updates for other shifts"


def _own_values(history: Sequence[Update], query: ForecastQuery, name: str) -> list[float]:
    """Return the values of a predictor in the own updates of the query's model and recipe."""
    rows = history_rows(history, query, [name])
    return [row.example.features[0] for row in rows if row.example.group == query.group]


def _tolerance(values: Sequence[float]) -> float:
    """Return 25 % of the range, but at least 0.01 and at most 0.1. For a log, 0.1 is about 10 % of its argument.

    On 34 shift types that the history did not have, no tolerance, however large, let one more unaffordable update go.
    """
    return min(_LARGEST, max(_TOLERANCE * (max(values) - min(values)), _SMALLEST))


def beyond_earlier_runs(
    steps: Estimate, probability: float, earlier: Iterable[Update], steps_per_epoch: int
) -> Iterator[str]:
    """Yield a reason not to rely on a forecast if the update may reach its target far beyond all earlier runs.

    Far is five times the steps of the longest. No run has shown how an accuracy grows so late: the shape of the
    learning curve alone is extrapolated. A forecast that the target will not be reached is no less reliable.

    Args:
        steps: Forecast of the steps.
        probability: Probability of reaching the target.
        earlier: Updates that the forecast was learned from.
        steps_per_epoch: Steps in an epoch.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> from resque.types import Interval
        >>> steps = Estimate(3000.0, Interval(1000.0, 9999.0, 0.8, ""))
        >>> [*beyond_earlier_runs(steps, 0.9, bundled_updates()[:100], 10)][0].rpartition(": ")[2]
        'set `--max-epochs 630` or fewer, or do a longer update first'
    """
    longest = max((update.cost.steps for update in earlier), default=0)
    high = steps.interval.high
    if probability >= _EVEN and longest and high is not None and high > _LONGER * longest:
        epochs = max(1, int(_LONGER * longest) // steps_per_epoch)
        yield (
            f"{EXTRAPOLATION}: it may take {high:,.0f} steps, and the longest earlier run of its like had {longest:,}: "
            f"set `--max-epochs {epochs}` or fewer, or do a longer update first"
        )


def pilot_option(max_steps: int, step_s: float, missing_labels: int = 0) -> str:
    """Return the option of a pilot, and how long its steps take.

    Args:
        max_steps: Step budget of the update.
        step_s: Seconds per step.
        missing_labels: Number of samples without labels, which a pilot needs.

    Example:
        >>> pilot_option(max_steps=5000, step_s=0.03)
        '`--pilot 100` (about 3 s of training)'
    """
    steps = min(_PILOT_STEPS, max_steps)
    first = "once the data have labels, " if missing_labels else ""
    return f"{first}`--pilot {steps}` (about {format_cost('wall_s', steps * step_s)} of training)"


def small_test_notes(features: Features, job: RetrainingJob, level: float) -> Iterator[str]:
    """Yield a note if a measured accuracy is so uncertain that the model may be on the target's other side.

    The interval is Wilson's, of a share of independent samples.

    Args:
        features: Features of the update.
        job: Retraining job that was forecast.
        level: Coverage of the interval.
    """
    if features.is_estimated or features.accuracy is None:
        return
    n, share, z = len(job.test), features.accuracy, float(special.ndtri((1.0 + level) / 2.0))
    center, half = share + z**2 / (2 * n), z * math.sqrt(share * (1.0 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((center + sign * half) / (1.0 + z**2 / n) for sign in (-1, 1))
    if low <= job.target_accuracy <= high:
        yield (
            f"the accuracy before the update, {share:.3f} of {n:,} test samples, is known to {low:.3f}–{high:.3f} "
            f"({level:.0%}), which holds the target {job.target_accuracy:g}: test more samples"
        )


def history_notes(
    history: Sequence[Update], own_rows: Sequence[HistoryRow], job: RetrainingJob, parent: str
) -> tuple[str, ...]:
    """Return notes on censored updates, and on updates of other models or recipes.

    Args:
        history: The user's own finished updates.
        own_rows: Training rows from them.
        job: Retraining job that was forecast.
        parent: Fingerprint of its model.
    """
    names = ("optimizer", "learning_rate", "batch_size")
    settings = [recipe_to_dict(job.recipe)[name] for name in names]
    censored = sum(row.example.censored for row in own_rows)
    counts = {
        "started from other weights": sum(row.example.parent != parent for row in own_rows),
        "used another optimizer, learning rate or batch size": sum(
            [update.recipe.get(name) for name in names] != settings for update in history
        ),
        "trained other parameters": sum(update.recipe.get("trains", "all") != job.recipe.trains for update in history),
        "are not used: they began at the target or from scratch, lack a predictor, or are of another type": len(history)
        - len(own_rows),
    }
    notes = [f"{n} of {len(history)} updates in the ledger {what}" for what, n in counts.items() if n]
    if censored:
        ended = f"{censored} of {len(own_rows)} updates ended below the target"
        notes.insert(0, f"{ended}: their costs are lower bounds (right-censored)")
    return tuple(notes)
