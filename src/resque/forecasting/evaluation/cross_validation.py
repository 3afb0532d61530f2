"""Cross-validate forecasts: leave out each shift type, condition, seed or model in turn.

Every predictor is evaluated by the same method on the updates that have it, with the bundled updates that shape the
forecast. Baselines are: the forecast from own updates only, a model without predictors (random intercepts alone),
a constant median, and the step budget. Steps, coverage and probabilities are evaluated. Time and energy are not: the
steps of an update times its own seconds per step would be its time. Settled forecasts show those
(:mod:`resque.forecasting.evaluation.settlement`).
"""

import dataclasses
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED
from resque.data.shifts import SHIFT_TYPES, UNCHANGED
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.evaluation.folds import (
    NO_PREDICTOR,
    OWN_ONLY,
    TrainingFolds,
    fold_predictions,
    score_estimate,
)
from resque.forecasting.evaluation.metrics import (
    FEWEST_GROUPS,
    PredictorReport,
    ScoredForecast,
    error_reduction,
    evaluate_predictor,
)
from resque.forecasting.evaluation.replicates import SeedVariability, seed_variability
from resque.forecasting.evaluation.settlement import FORECAST
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.forecasting.intervals import LEVEL, check_level
from resque.forecasting.landmarking import known_evaluations, revise_forecast
from resque.ledger.records import Update
from resque.training.job import RetrainingJob
from resque.types import Interval

__all__ = ["BEFORE", "BY", "REVISED", "CrossValidation", "cross_validate"]

BY: dict[str, Callable[[Update], Hashable]] = {
    "shift-type": lambda update: (update.features.task_index is None and update.shift_type) or update.train_data,
    "condition": lambda update: update.train_data,
    "seed": lambda update: update.seed,
    "model": lambda update: update.parent or update.model,
}
"""Fold of an update for each kind of cross-validation; a new task or unnamed shift is a shift type of its own."""
BEFORE, REVISED = "before, same runs", "revised after one epoch"
"""Names of the forecasts before and after one epoch."""
_CURVE_POINTS = 4


@dataclass(frozen=True)
class CrossValidation(Displayable):
    """Cross-validated accuracy of forecasts from a history.

    Attributes:
        by: Kind of fold, a key of :data:`BY`.
        target_accuracy: Target accuracy at which costs were read.
        level: Nominal coverage of the intervals.
        folds: Number of folds.
        updates: Number of updates that started below the target.
        excluded: Number of updates not evaluated: new tasks if most are shifts, or shifts if most are new tasks.
        seeds: Variability of the steps between seeds of one condition, which no forecast can avoid.
        index_gain: 90 % interval, clustered by shift type, of the mean reduction of log errors by the index against no
            predictor. None without an index, and for fewer than three shift types.
        reports: Accuracy of the forecast, the forecast from own updates only, each predictor alone, and baselines.
        revised: Accuracy before and after a revision at one epoch, for runs that last longer; empty if too few.
        curve_error: Median over updates of the mean distance between forecast and measured learning curve, in accuracy.
            None if no curve could be forecast.
    """

    by: str
    target_accuracy: float
    level: float
    folds: int
    updates: int
    excluded: int
    seeds: SeedVariability
    index_gain: Interval | None
    reports: tuple[PredictorReport, ...]
    revised: tuple[PredictorReport, ...] = ()
    curve_error: float | None = None

    @property
    def seed_to_seed_error(self) -> float | None:
        """Replicate error, under its former name."""
        return self.seeds.replicate_error

    @property
    def replicate_pairs(self) -> int:
        """Number of pairs of runs of one condition, under its former name."""
        return self.seeds.pairs

    @property
    def index_helps(self) -> bool | None:
        """Whether the index significantly improves forecasts; None if it could not be evaluated."""
        return None if self.index_gain is None else self.index_gain.low > 0.0

    @property
    def bundled_helps(self) -> bool | None:
        """Whether bundled updates keep median error or interval score as good; None if updates differ."""
        reports = {each.predictor: each for each in self.reports}
        forecast, own = reports.get(FORECAST), reports.get(OWN_ONLY)
        if forecast is None or own is None or forecast.n != own.n or not forecast.reached:
            return None
        if forecast.interval_score is None or own.interval_score is None:
            return None
        return forecast.median_error <= own.median_error or forecast.interval_score <= own.interval_score

    @property
    def advice(self) -> tuple[str, ...]:
        """What forecasts could do without, one sentence each."""
        sentences = []
        if self.index_helps is False:
            sentences.append("The RESQUE index does not significantly improve forecasts from this history.")
        if self.bundled_helps is False:
            sentences.append("Bundled updates make these forecasts worse: use --no-bundled-history.")
        return tuple(sentences)

    def _display(self) -> Display:
        columns = "predictor", "n", "factor", "error", "≤2×", "Brier", "base rate", "coverage", "score"
        return Display(
            f"Leave-one-{self.by}-out cross-validation of {self.updates} updates to accuracy {self.target_accuracy:g}",
            columns,
            [_report_row(report) for report in self.reports],
            [
                "n: updates that reached the target, of all; factor, error and ≤2× are theirs",
                "factor: median of the larger over the smaller of forecast and measured steps; ≤2×: share below 2",
                "error: median of |forecast - steps| / steps",
                "base rate: Brier score of the share of updates that reached the target, known in hindsight",
                f"coverage of the {self.level:.0%} intervals; score: interval score, smaller is better",
                *self.advice,
            ],
        )


def _report_row(report: PredictorReport) -> list[str]:
    """Return one predictor's cells of the printed table."""
    cells = (
        (report.median_factor, "{:.3g}"),
        (report.median_error, "{:.0%}"),
        (report.within_factor_2, "{:.0%}"),
        (report.brier, "{:.3f}"),
        (report.base_rate_brier, "{:.3f}"),
        (report.coverage, "{:.0%}"),
        (report.interval_score, "{:.2f}"),
    )
    texts = (NOT_MEASURED if value is None or math.isnan(value) else form.format(value) for value, form in cells)
    return [report.predictor, f"{report.reached}/{report.n}", *texts]


def cross_validate(
    history: Sequence[Update],
    target_accuracy: float,
    by: str = "shift-type",
    level: float = LEVEL,
    bundled: Sequence[Update] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CrossValidation:
    """Leave out each fold of a history in turn, and forecast its updates from the others.

    Runs that a budget ended below the target are learned from, and not judged by: whether they would have reached it
    is unknown.

    Args:
        history: The user's own finished updates.
        target_accuracy: Target accuracy at which steps are read off every curve.
        by: Kind of fold, a key of :data:`BY`.
        level: Nominal coverage of the intervals.
        bundled: Updates from other models, for the forecast only. With folds by shift type, those of the held-out type
            and its mixtures are left out, too.
        on_progress: Callback, called with the number of finished folds and of all folds.

    Raises:
        SettingError: Unknown kind of fold, level outside (0, 1), or target accuracy outside (0, 1].
        TooFewUpdatesError: Fewer than three folds with updates that started below the target.
    """
    check_level(level)
    RetrainingJob.check_target(target_accuracy)
    if by not in BY:
        raise SettingError(f"cannot cross-validate by {by!r}: use one of {', '.join(BY)}")
    usable, excluded = _usable(history, target_accuracy)
    keys = list(dict.fromkeys(BY[by](update) for update in usable))
    if len(keys) < FEWEST_GROUPS:
        raise TooFewUpdatesError(
            f"{len(keys)} different {by}{'s' * (len(keys) != 1)} in the ledger started below accuracy "
            f"{target_accuracy:g}; cross-validation needs {FEWEST_GROUPS}: do more updates"
        )
    max_steps = max(update.cost.steps for update in usable)
    forecasts: dict[str, list[ScoredForecast]] = defaultdict(list)
    revisions: dict[str, list[ScoredForecast]] = defaultdict(list)
    distances: list[float] = []
    for done, key in enumerate(keys):
        on_progress(done, len(keys))
        rest = [update for update in usable if not _overlaps(update, key, by)]
        others = [update for update in bundled if by != "shift-type" or not _overlaps(update, key, by)]
        folds = TrainingFolds(rest, others, level)
        known = [u for u in usable if BY[by](u) == key and (u.cost_at(target_accuracy) or not u.ended_by_budget)]
        held_out = [(update, ForecastQuery.of_update(update, target_accuracy, max_steps)) for update in known]
        for update, query in held_out:
            for name, scored in fold_predictions(folds, update, query):
                forecasts[name].append(scored)
            for name, scored in _revisions(folds, update, query):
                revisions[name].append(scored)
        distances += _curve_errors(folds, held_out)
    on_progress(len(keys), len(keys))
    index = "index" if usable[0].features.task_index is None else "task index"
    return CrossValidation(
        by=by,
        target_accuracy=target_accuracy,
        level=level,
        folds=len(keys),
        updates=len(usable),
        excluded=excluded,
        seeds=seed_variability(usable, target_accuracy),
        index_gain=error_reduction(forecasts.get(index, ()), forecasts.get(NO_PREDICTOR, ())),
        reports=tuple(evaluate_predictor(name, scored, level) for name, scored in forecasts.items()),
        revised=tuple(evaluate_predictor(name, scored, level) for name, scored in revisions.items()),
        curve_error=statistics.median(distances) if distances else None,
    )


def _usable(history: Sequence[Update], target_accuracy: float) -> tuple[list[Update], int]:
    """Return the updates that started below the target, of the more frequent change; and how many are of the other."""
    shifts: list[Update] = []
    tasks: list[Update] = []
    for update in history:
        if not update.from_scratch and not starts_at_target(update.features, target_accuracy) and update.cost.steps:
            (shifts if update.features.task_index is None else tasks).append(update)
    return (tasks, len(shifts)) if len(tasks) > len(shifts) else (shifts, len(tasks))


def _overlaps(update: Update, key: Hashable, by: str) -> bool:
    """Return whether an update is in a fold, or shares a shift type of a mixture with it."""
    own = BY[by](update)
    return own == key or (by == "shift-type" and bool(_shift_types(own) & _shift_types(key)))


def _shift_types(name: Hashable) -> set[str]:
    """Return the shift types of a mixture such as ``gaussian/none``; empty for a user's own name, even with a slash."""
    parts = set(str(name).split("/"))
    return parts - {UNCHANGED} if parts <= {*SHIFT_TYPES, UNCHANGED} else set()


def _revisions(folds: TrainingFolds, update: Update, query: ForecastQuery) -> Iterator[tuple[str, ScoredForecast]]:
    """Yield the scored forecast before and after one epoch, of a run that lasts longer."""
    epoch, reached = update.curve.steps_per_epoch, update.cost_at(query.target_accuracy)
    if epoch is None or (reached or update.cost).steps <= epoch:
        return
    before = folds.score(update, query)
    landmark = max(step for step in update.curve.steps if step <= epoch)
    if before is None or not landmark:
        return
    curve, evaluations = update.curve.until(landmark), known_evaluations(update, query.max_steps)
    after = revise_forecast(folds.curve(query), query, curve, folds.level, evaluations)
    if after is not None:
        yield BEFORE, before
        yield REVISED, score_estimate(update, query, after.steps, after.probability_reached)


def _curve_errors(folds: TrainingFolds, held_out: Sequence[tuple[Update, ForecastQuery]]) -> Iterator[float]:
    """Yield the distance between each forecast and measured learning curve, in accuracy.

    A forecast curve joins the median forecasts for several accuracies up to the target. It is linear in log steps, and
    constant after the last one.
    """
    starts = [u.features.accuracy for u, _ in held_out if u.features.accuracy is not None]
    if not starts:
        return
    targets = np.linspace(min(starts), held_out[0][1].target_accuracy, _CURVE_POINTS + 1)[1:]
    for update, query in held_out:
        points = [(0.0, update.curve.accuracy[0])]
        for target in map(float, targets):
            at_target = dataclasses.replace(query, target_accuracy=target)
            scored = None if starts_at_target(update.features, target) else folds.score(update, at_target)
            if scored is not None:
                points.append((max(points[-1][0] + 1e-6, scored.forecast), target))
        if len(points) > 1 and update.curve.steps[0] == 0:
            yield _curve_distance(update, points)


def _curve_distance(update: Update, points: Sequence[tuple[float, float]]) -> float:
    """Return the mean absolute distance of a curve through ``(log steps, accuracy)`` points, over log steps."""
    log_steps, accuracies = zip(*points, strict=True)
    steps = np.log1p(update.curve.steps)
    distance = np.abs(np.interp(steps, log_steps, accuracies) - np.array(update.curve.accuracy))
    return float(np.average((distance[1:] + distance[:-1]) / 2.0, weights=np.diff(steps)))
