"""How well a predictor orders costs: conditions averaged over seeds, correlations with intervals, tables.

A condition is a shift, or a pair of tasks. Runs that began at the target say nothing about it and are left out; runs
that never reached it have no cost there, are counted, and rank last in what the tables call ρ of all.
"""

import functools
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from presets import TaskStudy
from resque.forecasting.evaluation.cross_validation import seed_to_seed_error
from resque.forecasting.evaluation.metrics import correlation_interval
from resque.ledger.migration import modernize
from resque.ledger.records import Cost, Update
from resque.ledger.serialization import from_dict
from resque.workflows.engine import Row

COSTS: dict[str, Callable[[Cost], float | None]] = {
    "steps": lambda cost: cost.steps,
    "whole epochs": lambda cost: None if cost.epochs is None else math.ceil(cost.epochs),
    "gradient norm": lambda cost: cost.gradient_norm,
    "parameter change": lambda cost: cost.parameter_change,
    "time": lambda cost: cost.wall_s,
    "energy": lambda cost: cost.energy_kwh,
}
"""What a run took. Carbon is energy times one figure a grid, so it correlates as energy does."""
DRAWN = ("steps", "gradient norm", "parameter change", "energy")
INDEX = "paper layer, flatten, true labels"
TASK_INDEX = "paper layer, flatten, Lloyd"
CORRELATIONS = ("n", "never reached", "r [95 %]", "p", "ρ [95 %]", "p", "ρ, never reached last")
EARLY_TO_LATE = ("early", "middle", "late")
_FEWEST, _EXACT = 5, 8


@dataclass(frozen=True)
class Run:
    """One row, as the tables need it.

    Attributes:
        group: What is averaged over seeds: ``(study, kind, level)``, or ``(study, source, target)``.
        seed: Of the run.
        row: All of it.
        update: Its update.
    """

    group: tuple[Any, ...]
    seed: int
    row: Row
    update: Update


@dataclass(frozen=True)
class Condition:
    """One condition at one target.

    Attributes:
        group: As of its runs.
        predictors: Name → mean over its runs; larger foretells a larger cost.
        costs: Name → mean over its runs; None where one of them never reached the target.
        runs: How many.
    """

    group: tuple[Any, ...]
    predictors: dict[str, float]
    costs: dict[str, float | None]
    runs: int


def runs(rows: Iterable[Row]) -> list[Run]:
    """The rows that did not fail."""
    found = []
    for row in rows:
        if "error" not in row:
            group = (row.get("source"), row["target"]) if "target" in row else (row["shift_type"], row["level"])
            found.append(Run((row["study"], *group), row["seed"], row, from_dict(Update, modernize(row["update"]))))
    return found


def conditions(
    of: Sequence[Run],
    target: Callable[[Run], float],
    predictors: Callable[[Run], dict[str, float]],
    by_seed: bool = False,
) -> list[Condition]:
    """What is known of each condition at a target.

    Args:
        of: Runs.
        target: Accuracy at which the cost is read, for each run.
        predictors: What was known before it.
        by_seed: Every run by itself, instead of means over seeds.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in of:
        if run.update.curve.accuracy[0] < target(run):
            groups.setdefault((*run.group, run.seed) if by_seed else run.group, []).append(run)
    return [_condition(group, found, target, predictors) for group, found in groups.items()]


def _condition(
    group: tuple[Any, ...],
    found: Sequence[Run],
    target: Callable[[Run], float],
    predictors: Callable[[Run], dict[str, float]],
) -> Condition:
    known = [predictors(run) for run in found]
    names = [name for name in known[0] if all(each.get(name) is not None for each in known)]
    costs = [run.update.cost_at(target(run)) for run in found]
    reached = [cost for cost in costs if cost is not None]
    return Condition(
        group,
        {name: statistics.fmean(each[name] for each in known) for name in names},
        {
            name: _mean([of(cost) for cost in reached]) if len(reached) == len(costs) else None
            for name, of in COSTS.items()
        },
        len(found),
    )


@dataclass(frozen=True)
class Replicates:
    """How far runs of the very same condition, other seeds, lie apart.

    Attributes:
        conditions: With two runs or more that reached the target.
        index: Pooled standard deviation of the index, radians.
        steps_factor: exp of the pooled standard deviation of log steps: typically off by this factor.
        steps_error: Median of how far the steps of one run are off another's, as a share of its own.
    """

    conditions: int
    index: float | None
    steps_factor: float | None
    steps_error: float | None


def replicates(of: Sequence[Run], target: float) -> Replicates:
    """The spread over seeds within conditions, which no forecast can do without."""
    groups: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for run in of:
        cost = run.update.cost_at(target)
        if cost is not None and cost.steps:
            groups.setdefault(run.group, []).append((run.row["indices"][INDEX], math.log(cost.steps)))
    several = [np.array(found) for found in groups.values() if len(found) > 1]
    if not several:
        return Replicates(0, None, None, None)
    freedom = sum(len(found) - 1 for found in several)
    index, steps = np.sqrt(sum(((found - found.mean(0)) ** 2).sum(0) for found in several) / freedom)
    error, _ = seed_to_seed_error([run.update for run in of], target)
    return Replicates(len(several), float(index), math.exp(float(steps)), error)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Agreement:
    """A correlation.

    Attributes:
        value: Pearson's r or Spearman's ρ; None below five pairs, or where one side is constant.
        low: Lower end of its 95 % interval: Fisher's z, for ρ with Bonett and Wright's variance; NaN where it is ±1.
        high: Upper end.
        p: Of no correlation at all; of ranks up to eight pairs exact, over all their orders.
        n: Pairs.
    """

    value: float | None
    low: float
    high: float
    p: float
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return f"– (n = {self.n})"
        ends = "–" if math.isnan(self.low) else f"{self.low:.2f}, {self.high:.2f}"
        return f"{self.value:.2f} [{ends}]"


def agreement(x: Sequence[float], y: Sequence[float], ranks: bool = True) -> Agreement:
    """Spearman's ρ, or Pearson's r, with its interval.

    Example:
        >>> str(agreement([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 6]))
        '0.94 [0.38, 1.00]'
        >>> perfect = agreement([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
        >>> str(perfect), round(perfect.p, 4)  # two of 120 orders
        ('1.00 [–]', 0.0167)
    """
    n = len(x)
    if n < _FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return Agreement(None, math.nan, math.nan, math.nan, n)
    found = (stats.spearmanr if ranks else stats.pearsonr)(x, y)
    value = float(found.statistic)
    ends = correlation_interval(value, n, ranks)
    low, high = (math.nan, math.nan) if ends is None else (ends.low, ends.high)
    p = _of_all_orders(x, y) if ranks and n <= _EXACT else float(found.pvalue)
    return Agreement(value, low, math.nan if high is None else high, p, n)


def _of_all_orders(x: Sequence[float], y: Sequence[float]) -> float:
    """The share of orders in which ranks agree, or disagree, as well as these."""
    a, b = (stats.rankdata(side) - (len(side) + 1) / 2.0 for side in (x, y))
    agree = np.abs(b[_orders(len(b))] @ a)
    return float(np.mean(agree >= abs(a @ b) - 1e-9))


@functools.cache
def _orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))))


def predicting(of: Sequence[Condition], predictor: str, cost: str, ranks: bool = True, all_: bool = False) -> Agreement:
    """How well a predictor orders a cost.

    Args:
        of: Conditions.
        predictor: One of theirs.
        cost: One of :data:`COSTS`.
        ranks: Spearman's ρ instead of Pearson's r.
        all_: Conditions that never reached the target rank last together, instead of being left out.
    """
    pairs = [(c.predictors[predictor], c.costs[cost]) for c in of if predictor in c.predictors]
    beyond = 1.0 + max((y for _, y in pairs if y is not None), default=0.0)
    known = [(x, beyond if y is None else y) for x, y in pairs if all_ or y is not None]
    return agreement([x for x, _ in known], [y for _, y in known], ranks)


def at(target: float) -> Callable[[Run], float]:
    """One target for all runs."""
    return lambda run: target


def correlations(of: Sequence[Condition], predictor: str, cost: str) -> tuple[str, ...]:
    """:data:`CORRELATIONS` of a predictor and a cost, as a table's cells."""
    r, rho = (predicting(of, predictor, cost, ranks) for ranks in (False, True))
    last = predicting(of, predictor, cost, all_=True)
    most = max((condition.runs for condition in of), default=0)
    fewer = sum(condition.runs < most for condition in of if condition.costs[cost] is not None)
    pairs = f"{rho.n} ({fewer} of fewer seeds)" if fewer else str(rho.n)
    return pairs, str(len(of) - rho.n), str(r), number(r.p, 1), str(rho), number(rho.p, 1), str(last)


@dataclass(frozen=True)
class Totals:
    """What retraining and training from scratch took together, over the runs in which both reached the target.

    Attributes:
        pairs: ``(retraining, from scratch)`` of each run.
        planned: Runs in all.
    """

    pairs: tuple[tuple[float, float], ...]
    planned: int

    def cells(self, cost: str) -> tuple[str, ...]:
        """A line of a table: runs, cost, both totals, their ratio, and its range over runs."""
        ours, theirs = (sum(pair[side] for pair in self.pairs) for side in (0, 1))
        ratios = [a / b for a, b in self.pairs if b]
        shown = (ours, theirs, ours / theirs if theirs else None, min(ratios, default=None), max(ratios, default=None))
        return (f"{len(self.pairs)} of {self.planned}", cost, *map(number, shown))


def totals(retrained: Sequence[Run], scratch: Sequence[Run], target: Callable[[Run], float]) -> dict[str, Totals]:
    """Each cost of retraining beside that of training from scratch on the same data, by the same seed."""
    by_data = {_of_data(run): run for run in scratch}
    both = [(run, by_data[_of_data(run)]) for run in retrained if _of_data(run) in by_data]
    costs = [tuple(run.update.cost_at(target(run)) for run in pair) for pair in both]
    reached = [(ours, theirs) for ours, theirs in costs if ours is not None and theirs is not None]
    found = {}
    for name, of in COSTS.items():
        values = [(of(ours), of(theirs)) for ours, theirs in reached]
        found[name] = Totals(tuple((a, b) for a, b in values if a is not None and b is not None), len(both))
    return found


def _of_data(run: Run) -> tuple[Any, ...]:
    """What the sides have in common: a shift, or the target task."""
    return (run.group[2], run.seed) if "target" in run.row else (*run.group[1:], run.seed)


def shift_predictors(run: Run) -> dict[str, float]:
    """Index in every form and rivals, each turned so that larger foretells a larger cost."""
    found: dict[str, float] = dict(run.row["indices"])
    for name, (score, grows) in run.row["rivals"].items():
        found[name] = score if grows else -score
    for name, score in run.row.get("scores", {}).items():
        found[name] = score if name.endswith("loss") else -score
    found["accuracy"] = -(run.update.features.accuracy or 0.0)
    found["parameters × samples"] = float(run.row["parameters"] * run.row["n"])
    return {name: value for name, value in found.items() if value is not None and not math.isnan(value)}


def task_predictors(run: Run) -> dict[str, float]:
    """RESQUE_task in every form and rivals before and after the epoch, turned as in :func:`shift_predictors`."""
    forms = {name: value for name, value in run.row["indices"].items() if isinstance(value, float)}
    found = forms | {"accuracy after one epoch": -run.row["accuracy_after_one_epoch"]}
    for when in ("before", "after"):
        for name, (score, grows) in run.row[f"rivals_{when}"].items():
            found[f"{name}, {when} the epoch"] = score if grows else -score
    return found | {"parameters × samples": float(run.row["parameters"] * run.row["n"])}


def cutoff(study: TaskStudy, number: int) -> Callable[[Run], float]:
    """The early (0), middle or late cutoff of a run's task."""
    return lambda run: study.cutoffs[run.group[2]][number]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def number(value: float | None, digits: int = 3) -> str:
    """A number as tables show it."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}g}"
