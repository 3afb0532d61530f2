"""Average rows over seeds, correlate predictors with costs, and print tables.

A condition is a shift at one level, or a pair of tasks. Runs that began at the target hold no information about it and
are left out. Runs that never reached it have no cost there; they are counted, and rank last in one column of the
tables.
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
from resque.forecasting.evaluation.metrics import correlation_interval
from resque.forecasting.evaluation.replicates import seed_variability
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
"""Name of each measured cost → function that reads it. Carbon is proportional to energy, so it correlates alike."""
PLOTTED_COSTS = ("steps", "gradient norm", "parameter change", "energy")
INDEX = "paper layer, flatten, true labels"
TASK_INDEX = "paper layer, flatten, Lloyd"
CORRELATION_COLUMNS = ("n", "never reached", "r [95 %]", "p", "ρ [95 %]", "p", "ρ, never reached last")
TARGET_NAMES = ("early", "middle", "late")
_FEWEST_PAIRS, _MOST_EXACT_PAIRS = 5, 8


@dataclass(frozen=True)
class Run:
    """One row that did not fail.

    Attributes:
        group: What is averaged over seeds: ``(study, shift type, level)``, or ``(study, source, target)``.
        seed: Seed of the run.
        row: The whole row.
        update: The update in the row.
    """

    group: tuple[Any, ...]
    seed: int
    row: Row
    update: Update


@dataclass(frozen=True)
class Condition:
    """One condition at one target, averaged over its runs.

    Attributes:
        group: Group of its runs.
        predictors: Name → mean over its runs; a larger value predicts a larger cost.
        costs: Name → mean over its runs; None if one of them never reached the target.
        runs: Number of runs.
    """

    group: tuple[Any, ...]
    predictors: dict[str, float]
    costs: dict[str, float | None]
    runs: int


TargetOf = Callable[[Run], float]
PredictorsOf = Callable[[Run], dict[str, float]]


def successful_runs(rows: Iterable[Row]) -> list[Run]:
    """Return the rows that did not fail as runs."""
    selected = []
    for row in rows:
        if "error" not in row:
            group = (row.get("source"), row["target"]) if "target" in row else (row["shift_type"], row["level"])
            update = from_dict(Update, modernize(row["update"]))
            selected.append(Run((row["study"], *group), row["seed"], row, update))
    return selected


def conditions(
    runs: Sequence[Run], target: TargetOf, predictors: PredictorsOf, by_seed: bool = False
) -> list[Condition]:
    """Average runs over seeds, condition by condition.

    Args:
        runs: Runs of any conditions.
        target: Target accuracy of each run, at which its cost is read.
        predictors: Predictors of each run, known before it.
        by_seed: Whether each run is a condition of its own.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        if run.update.curve.accuracy[0] < target(run):
            groups.setdefault((*run.group, run.seed) if by_seed else run.group, []).append(run)
    return [_average(group, members, target, predictors) for group, members in groups.items()]


def _average(group: tuple[Any, ...], runs: Sequence[Run], target: TargetOf, predictors: PredictorsOf) -> Condition:
    values = [predictors(run) for run in runs]
    names = [name for name in values[0] if all(each.get(name) is not None for each in values)]
    costs = [run.update.cost_at(target(run)) for run in runs]
    reached = [cost for cost in costs if cost is not None]
    return Condition(
        group,
        {name: statistics.fmean(each[name] for each in values) for name in names},
        {
            name: _mean([read(cost) for cost in reached]) if len(reached) == len(costs) else None
            for name, read in COSTS.items()
        },
        len(runs),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class SeedVariation:
    """Variation over seeds within one condition.

    Attributes:
        conditions: Number of conditions with at least two runs that reached the target.
        index: Pooled standard deviation of the index, radians.
        steps_factor: exp of the pooled standard deviation of log steps.
        steps_error: Median relative difference between the steps of one run and those of another seed.
    """

    conditions: int
    index: float | None
    steps_factor: float | None
    steps_error: float | None


def seed_variation(runs: Sequence[Run], target: float) -> SeedVariation:
    """Compute the variation over seeds, which is a lower bound of the error of any forecast."""
    groups: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    target_of = fixed_target(target)
    for run in runs:
        cost = run.update.cost_at(target_of(run))
        if cost is not None and cost.steps:
            groups.setdefault(run.group, []).append((run.row["indices"][INDEX], math.log(cost.steps)))
    repeated = [np.array(pairs) for pairs in groups.values() if len(pairs) > 1]
    if not repeated:
        return SeedVariation(0, None, None, None)
    degrees_of_freedom = sum(len(pairs) - 1 for pairs in repeated)
    index, steps = np.sqrt(sum(((pairs - pairs.mean(0)) ** 2).sum(0) for pairs in repeated) / degrees_of_freedom)
    error = seed_variability([run.update for run in runs], target).replicate_error if target >= 0.0 else None
    return SeedVariation(len(repeated), float(index), math.exp(float(steps)), error)


@dataclass(frozen=True)
class Correlation:
    """Correlation coefficient with its interval.

    Attributes:
        value: Pearson's r or Spearman's ρ; None below five pairs, or if one side is constant.
        low: Lower end of the 95 % interval (Fisher's z; for ρ with Bonett and Wright's variance); NaN at ±1.
        high: Upper end.
        p: p-value of no correlation; for ranks of up to eight pairs exact, over all permutations.
        n: Number of pairs.
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


def correlate(x: Sequence[float], y: Sequence[float], ranks: bool = True) -> Correlation:
    """Compute Spearman's ρ, or Pearson's r, with its interval.

    Example:
        >>> str(correlate([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 6]))
        '0.94 [0.38, 1.00]'
        >>> perfect = correlate([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
        >>> str(perfect), round(perfect.p, 4)  # two of 120 permutations
        ('1.00 [–]', 0.0167)
    """
    n = len(x)
    if n < _FEWEST_PAIRS or len(set(x)) == 1 or len(set(y)) == 1:
        return Correlation(None, math.nan, math.nan, math.nan, n)
    result = (stats.spearmanr if ranks else stats.pearsonr)(x, y)
    value = float(result.statistic)
    interval = correlation_interval(value, n, ranks)
    low, high = (math.nan, math.nan) if interval is None else (interval.low, interval.high)
    p = _exact_p(x, y) if ranks and n <= _MOST_EXACT_PAIRS else float(result.pvalue)
    return Correlation(value, low, math.nan if high is None else high, p, n)


def _exact_p(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the share of permutations whose rank correlation is at least as strong."""
    a, b = (stats.rankdata(side) - (len(side) + 1) / 2.0 for side in (x, y))
    products = np.abs(b[_permutations(len(b))] @ a)
    return float(np.mean(products >= abs(a @ b) - 1e-9))


@functools.cache
def _permutations(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n))))


def correlate_with_cost(
    known: Sequence[Condition], predictor: str, cost: str, ranks: bool = True, never_last: bool = False
) -> Correlation:
    """Correlate a predictor with a cost.

    Args:
        known: Conditions at one target.
        predictor: Name of one of their predictors.
        cost: Name in :data:`COSTS`.
        ranks: Whether to compute Spearman's ρ instead of Pearson's r.
        never_last: Whether conditions that never reached the target rank last together, instead of being left out.
    """
    pairs = [(c.predictors[predictor], c.costs[cost]) for c in known if predictor in c.predictors]
    beyond = 1.0 + max((y for _, y in pairs if y is not None), default=0.0)
    used = [(x, beyond if y is None else y) for x, y in pairs if never_last or y is not None]
    return correlate([x for x, _ in used], [y for _, y in used], ranks)


def correlation_cells(known: Sequence[Condition], predictor: str, cost: str) -> tuple[str, ...]:
    """Return the cells of :data:`CORRELATION_COLUMNS` for a predictor and a cost."""
    r, rho = (correlate_with_cost(known, predictor, cost, ranks) for ranks in (False, True))
    last = correlate_with_cost(known, predictor, cost, never_last=True)
    most = max((condition.runs for condition in known), default=0)
    fewer = sum(condition.runs < most for condition in known if condition.costs[cost] is not None)
    pairs = f"{rho.n} ({fewer} of fewer seeds)" if fewer else str(rho.n)
    return pairs, str(len(known) - rho.n), str(r), number(r.p, 1), str(rho), number(rho.p, 1), str(last)


@dataclass(frozen=True)
class Totals:
    """Total cost of retraining and of training from scratch, over the runs in which both reached the target.

    Attributes:
        pairs: ``(retraining, from scratch)`` of each run.
        planned: Number of runs in all.
    """

    pairs: tuple[tuple[float, float], ...]
    planned: int

    def cells(self, cost: str) -> tuple[str, ...]:
        """Return the cells of a table row: runs, cost, both totals, their ratio, and its range over runs."""
        retraining, scratch = (sum(pair[side] for pair in self.pairs) for side in (0, 1))
        ratio = retraining / scratch if scratch else None
        ratios = [a / b for a, b in self.pairs if b]
        values = (retraining, scratch, ratio, min(ratios, default=None), max(ratios, default=None))
        return (f"{len(self.pairs)} of {self.planned}", cost, *map(number, values))


def totals(retrained: Sequence[Run], scratch: Sequence[Run], target: TargetOf) -> dict[str, Totals]:
    """Total each cost of retraining, and of training from scratch on the same data with the same seed."""
    scratch_by_data = {_data_and_seed(run): run for run in scratch}
    both = [(run, scratch_by_data[key]) for run in retrained if (key := _data_and_seed(run)) in scratch_by_data]
    costs = [tuple(run.update.cost_at(target(run)) for run in pair) for pair in both]
    reached = [(retraining, fresh) for retraining, fresh in costs if retraining is not None and fresh is not None]
    result = {}
    for name, read in COSTS.items():
        values = [(read(retraining), read(fresh)) for retraining, fresh in reached]
        result[name] = Totals(tuple((a, b) for a, b in values if a is not None and b is not None), len(both))
    return result


def _data_and_seed(run: Run) -> tuple[Any, ...]:
    """Return what a retraining and its run from scratch share: seed, and shift or target task."""
    return (run.group[2], run.seed) if "target" in run.row else (*run.group[1:], run.seed)


def shift_predictors(run: Run) -> dict[str, float]:
    """Return the index in every form and the baselines, signed so that a larger value predicts a larger cost."""
    values: dict[str, float] = dict(run.row["indices"])
    for name, (score, grows) in run.row["baselines"].items():
        values[name] = score if grows else -score
    for name, score in run.row.get("scores", {}).items():
        values[name] = score if name.endswith("loss") else -score
    values["accuracy"] = -(run.update.features.accuracy or 0.0)
    values["parameters × samples"] = float(run.row["parameters"] * run.row["n"])
    return {name: value for name, value in values.items() if value is not None and not math.isnan(value)}


def task_predictors(run: Run) -> dict[str, float]:
    """Return RESQUE_task in every form and the baselines before and after the epoch, signed alike."""
    forms = {name: value for name, value in run.row["indices"].items() if isinstance(value, float)}
    values = forms | {"accuracy after one epoch": -run.row["accuracy_after_one_epoch"]}
    for when in ("before", "after"):
        for name, (score, grows) in run.row[f"baselines_{when}"].items():
            values[f"{name}, {when} the epoch"] = score if grows else -score
    return values | {"parameters × samples": float(run.row["parameters"] * run.row["n"])}


def fixed_target(target: float) -> TargetOf:
    """Return one target for all runs; a negative one is a difference from the original model's accuracy."""
    if target >= 0.0:
        return lambda run: target
    return lambda run: (run.update.original_accuracy_before or 0.0) + target


def task_target(study: TaskStudy, place: int) -> TargetOf:
    """Return the early (0), middle (1) or late (2) cutoff of a run's task."""
    return lambda run: study.cutoffs[run.group[2]][place]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def number(value: float | None, digits: int = 3) -> str:
    """Format a number for a table; a dash for None and for what is not finite."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}g}"
