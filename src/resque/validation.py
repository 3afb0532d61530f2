"""What forecasts from a history would have been worth: whole kinds, conditions, seeds or models left out in turn.

Every predictor is judged on the same updates by the same method, beside a constant, beside the recipe's longest run,
and beside the replicate error: how far another seed of the very same condition is off, a reference and no bound.
"""

import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from resque.difficulty import Law
from resque.errors import SettingError, TooFewUpdatesError
from resque.evidence import PREDICTORS, Question, at_start, chosen, group_of, pasts
from resque.outlook import Outlook, look
from resque.readings import Interval
from resque.records import Update
from resque.settling import FORECAST

BY: dict[str, Callable[[Update], Hashable]] = {
    "kind": lambda update: update.kind or update.train_data,
    "condition": lambda update: update.train_data,
    "seed": lambda update: update.seed,
    "model": lambda update: update.model,
}
"""What may be left out at a time."""
CONSTANT, LONGEST = "constant", "the longest run"
_RESAMPLES = 1000
_CLUSTERED = 0.9
_FEWEST = 3
_TWO_SIDED = 1.959964


@dataclass(frozen=True)
class Judged:
    """One predictor's word on all updates that could be asked about.

    Attributes:
        predictor: Name.
        n: Updates.
        reached: Those that reached the target; errors are theirs.
        median_error: Median of ``|forecast - steps| / steps``.
        within_factor_2: Share of them.
        spearman: Of forecast and steps, with its 95 % interval.
        brier: Mean squared error of the chance of reaching the target; None for what gives no chance.
        coverage: Share of intervals that held, with a 90 % interval clustered by kind; None for what gives none.
        log_width: Median width of the intervals, in log steps.
        interval_score: Mean, in log steps; smaller is better.
    """

    predictor: str
    n: int
    reached: int
    median_error: float
    within_factor_2: float
    spearman: Interval | None
    spearman_value: float | None
    brier: float | None
    coverage: float | None
    coverage_interval: Interval | None
    log_width: float | None
    interval_score: float | None


@dataclass(frozen=True)
class Validation:
    """How forecasts from this history would have done.

    Attributes:
        by: What was left out at a time.
        target_accuracy: At which costs were read.
        level: Nominal coverage of the intervals.
        folds: How many were left out.
        updates: Updates that began below the target.
        replicate_error: Median of how far one seed's steps are off another's under the same condition, and n.
        index_gain: By how much the index alone is nearer than a constant, mean of log errors over updates that reached
            the target, with a 90 % interval clustered by kind; None without an index.
        judged: The forecast first, then every predictor alone, a constant, the longest run.
    """

    by: str
    target_accuracy: float
    level: float
    folds: int
    updates: int
    replicate_error: float | None
    replicate_pairs: int
    index_gain: Interval | None
    judged: tuple[Judged, ...]

    @property
    def index_adds(self) -> bool | None:
        """Whether the index surely brings forecasts nearer than a constant does; None where it could not be judged."""
        return None if self.index_gain is None else self.index_gain.low > 0.0


@dataclass(frozen=True)
class _Said:
    """One update, what was said of it, and what came."""

    update: Update
    outlook: Outlook | None
    log_forecast: float
    log_steps: float
    reached: bool
    log_longest: float


def validate(
    history: Sequence[Update],
    target_accuracy: float,
    by: str = "kind",
    level: float = 0.8,
    prior: Sequence[Update] = (),
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Validation:
    """Leave each fold of a history out in turn and ask the rest about it.

    Args:
        history: Finished updates.
        target_accuracy: At which steps are read off every curve.
        by: One of :data:`BY`.
        level: Nominal coverage of the intervals.
        prior: Others' updates, see :func:`resque.forecasting.forecast`; of the kinds left out none are used.
        watch: Called with ``(folds done, all)``.

    Raises:
        SettingError: Nothing of that name to leave out.
        TooFewUpdatesError: Fewer than three folds began below the target.
    """
    if by not in BY:
        raise SettingError(f"validate by {by!r}: use one of {', '.join(BY)}")
    usable = [u for u in history if not u.from_scratch and not at_start(u.features, target_accuracy) and u.cost.steps]
    folds = list(dict.fromkeys(BY[by](update) for update in usable))
    if len(folds) < _FEWEST:
        raise TooFewUpdatesError(
            f"{len(folds)} different {by}s in the ledger began below accuracy {target_accuracy:g}; "
            f"leaving one out at a time needs {_FEWEST}"
        )
    longest = max(update.cost.steps for update in usable)
    said: dict[str, list[_Said]] = {}
    for done, fold in enumerate(folds):
        watch(done, len(folds))
        asked = [update for update in usable if BY[by](update) == fold]
        rest = [update for update in usable if BY[by](update) != fold]
        others = [update for update in prior if by != "kind" or update.kind not in {u.kind for u in asked}]
        for name, found in _ask(rest, others, asked, target_accuracy, level, longest).items():
            said.setdefault(name, []).extend(found)
    watch(len(folds), len(folds))
    complete = {name: found for name, found in said.items() if len(found) == len(said[CONSTANT])}
    error, pairs = replicate_error(usable, target_accuracy)
    return Validation(
        by=by,
        target_accuracy=target_accuracy,
        level=level,
        folds=len(folds),
        updates=len(usable),
        replicate_error=error,
        replicate_pairs=pairs,
        index_gain=_gain(complete.get("index", ()), complete[CONSTANT]),
        judged=tuple(_judged(name, found, level) for name, found in complete.items()),
    )


def replicate_error(history: Sequence[Update], target_accuracy: float) -> tuple[float | None, int]:
    """Median of ``|a - b| / b`` over ordered pairs of runs of one condition that reached the target, and the pairs."""
    groups: dict[Hashable, list[int]] = {}
    for update in history:
        cost = update.cost_at(target_accuracy)
        if cost is not None and cost.steps:
            groups.setdefault((group_of(update), update.train_data), []).append(cost.steps)
    errors = [abs(a - b) / b for steps in groups.values() for a, b in itertools.permutations(steps, 2)]
    return (statistics.median(errors) if errors else None), len(errors)


def _ask(
    rest: Sequence[Update],
    prior: Sequence[Update],
    asked: Sequence[Update],
    target: float,
    level: float,
    longest: int,
) -> dict[str, list[_Said]]:
    """What each predictor says of the updates of one fold, from the others."""
    sets: dict[str, tuple[str, ...] | None] = {FORECAST: None, **{name: (name,) for name in PREDICTORS}, CONSTANT: ()}
    found: dict[str, list[_Said]] = {name: [] for name in (*sets, LONGEST)}
    laws: dict[tuple[Hashable, ...], tuple[Law, list[bool], set[Hashable]]] = {}
    for update in asked:
        question = _question(update, target, longest)
        for name, chosen_ones in sets.items():
            names = chosen(rest, question, prior) if chosen_ones is None else chosen_ones
            if None in question.values(names) or (chosen_ones is None and not names):
                continue
            key = (names, question.group)
            if key not in laws:
                mine = pasts(rest, "steps", question, names)
                rows = mine + pasts(prior, "steps", question, names, own=False)
                if len(rows) < _FEWEST:
                    continue
                known = {(row.example.parent, row.example.kind) for row in mine}
                laws[key] = Law([row.example for row in rows]), [row.own for row in rows], set(known)
            law, own, kinds = laws[key]
            is_known = question.kind is not None and (question.parent, question.kind) in kinds
            outlook = look(law, question.example(names), own, is_known, level)
            found[name].append(_told(update, target, question, outlook, outlook.center))
        found[LONGEST].append(_told(update, target, question, None, math.log(question.max_steps)))
    return found


def _question(update: Update, target: float, longest: int) -> Question:
    """What could have been asked before it; a loop of the user's own names no longest run, so the history's counts."""
    per_epoch = update.curve.steps_per_epoch
    epochs = update.recipe.get("fixed_epochs") or update.recipe.get("max_epochs")
    limit = per_epoch * int(epochs) if per_epoch and epochs else longest
    return Question(update.features, target, group_of(update), update.kind, update.parent, update.train_data, limit)


def _told(update: Update, target: float, question: Question, outlook: Outlook | None, center: float) -> _Said:
    at_target = update.cost_at(target)
    longest = math.log(question.max_steps)
    steps = math.log((at_target or update.cost).steps or 1)
    return _Said(update, outlook, min(center, longest), steps, at_target is not None, longest)


def _judged(name: str, found: Sequence[_Said], level: float) -> Judged:
    reached = [each for each in found if each.reached]
    forecast, steps = (np.array([getattr(each, field) for each in reached]) for field in ("log_forecast", "log_steps"))
    spoken = [(each, each.outlook) for each in found if each.outlook is not None]
    holds = np.array([_holds(each, outlook) for each, outlook in spoken])
    kinds = [each.update.kind for each, _ in spoken]
    widths = [_width(each, outlook) for each, outlook in spoken]
    return Judged(
        predictor=name,
        n=len(found),
        reached=len(reached),
        median_error=float(np.median(np.abs(np.expm1(forecast - steps)))) if reached else math.nan,
        within_factor_2=float(np.mean(np.abs(forecast - steps) <= math.log(2.0))) if reached else math.nan,
        spearman=_spearman(forecast, steps)[1],
        spearman_value=_spearman(forecast, steps)[0],
        brier=float(np.mean([(o.chance(e.log_longest) - e.reached) ** 2 for e, o in spoken])) if spoken else None,
        coverage=float(holds.mean()) if spoken else None,
        coverage_interval=_clustered(holds, kinds) if spoken else None,
        log_width=float(np.median(widths)) if spoken else None,
        interval_score=float(np.mean([_score(e, o, level) for e, o in spoken])) if spoken else None,
    )


def _holds(each: _Said, outlook: Outlook) -> bool:
    """As a settlement judges it: of a run that never arrived, whether the interval ends no earlier than the run."""
    high = min(outlook.high, each.log_longest)
    slack = 1e-9
    return (not each.reached or outlook.low <= each.log_steps + slack) and each.log_steps <= high + slack


def _width(each: _Said, outlook: Outlook) -> float:
    return min(outlook.high, each.log_longest) - min(outlook.low, each.log_longest)


def _score(each: _Said, outlook: Outlook, level: float) -> float:
    """The interval score (Gneiting and Raftery, 2007); a run that never arrived cannot lie below."""
    low, high = (min(end, each.log_longest) for end in (outlook.low, outlook.high))
    below = max(low - each.log_steps, 0.0) if each.reached else 0.0
    return high - low + 2.0 / (1.0 - level) * (below + max(each.log_steps - high, 0.0))


def _spearman(x: np.ndarray, y: np.ndarray) -> tuple[float | None, Interval | None]:
    """ρ, and its 95 % interval by Fisher's z with Bonett and Wright's variance."""
    if len(x) < 5 or np.ptp(x) < 1e-12 or np.ptp(y) < 1e-12:
        return None, None
    value = float(stats.spearmanr(x, y).statistic)
    return value, correlation_interval(value, len(x), ranks=True)


def correlation_interval(value: float, n: int, ranks: bool) -> Interval:
    """95 % interval of Pearson's r, or with ``ranks`` of Spearman's ρ, from ``n`` pairs, four at least.

    Example:
        >>> found = correlation_interval(0.86, 7, ranks=False)
        >>> round(found.low, 2), round(found.high, 2)
        (0.3, 0.98)
    """
    spread = _TWO_SIDED * math.sqrt((1.0 + value**2 / 2.0 if ranks else 1.0) / (n - 3))
    middle = math.atanh(max(min(value, 1 - 1e-12), -1 + 1e-12))
    method = "Fisher's z" + (", Bonett and Wright's variance" if ranks else "")
    return Interval(math.tanh(middle - spread), math.tanh(middle + spread), 0.95, f"{method}; approximate")


def _gain(index: Sequence[_Said], constant: Sequence[_Said]) -> Interval | None:
    """How much smaller the index's log errors are than a constant's."""
    pairs = [(a, b) for a, b in zip(index, constant, strict=False) if a.reached]
    if len(pairs) < _FEWEST:
        return None
    nearer = [abs(b.log_forecast - b.log_steps) - abs(a.log_forecast - a.log_steps) for a, b in pairs]
    return _clustered(np.array(nearer), [a.update.kind for a, _ in pairs])


def _clustered(values: np.ndarray, kinds: Sequence[Hashable]) -> Interval:
    """Of their mean, by a bootstrap of whole kinds: what is said of one shift of a kind is no news of the next."""
    random = np.random.default_rng(0)
    groups = [values[[other == kind for other in kinds]] for kind in dict.fromkeys(kinds)]
    means = [
        np.concatenate([groups[i] for i in random.integers(len(groups), size=len(groups))]).mean()
        for _ in range(_RESAMPLES)
    ]
    low, high = np.quantile(means, [(1 - _CLUSTERED) / 2, (1 + _CLUSTERED) / 2])
    return Interval(float(low), float(high), _CLUSTERED, "bootstrap of whole kinds")
