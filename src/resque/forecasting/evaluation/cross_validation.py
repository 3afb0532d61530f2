"""What forecasts from a history would have been worth: whole kinds, conditions, seeds or models left out in turn.

Every predictor is judged by the same method, on the updates that know it and without the updates of others that shape
the forecast; so are the forecast from own updates alone, and one without any predictor, that knows groups, kinds and
models. Beside them a constant median, the recipe's longest run, and the replicate error: how far another seed of the
very same condition is off, a reference and no bound.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED
from resque.data.shifts import SHIFT_TYPES, UNCHANGED
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.evaluation.folds import (
    BARE,
    OWN,
    TrainingFolds,
    fold_predictions,
    query_for_update,
    score_distribution,
    score_forecast,
)
from resque.forecasting.evaluation.metrics import (
    FEWEST_GROUPS,
    PredictorReport,
    ScoredForecast,
    error_reduction,
    evaluate_predictor,
)
from resque.forecasting.evaluation.settlement import FORECAST
from resque.forecasting.forecaster import check_level
from resque.forecasting.history import (
    ForecastQuery,
    starts_at_target,
    update_group,
)
from resque.forecasting.landmarking import revise_forecast
from resque.ledger.records import Update
from resque.training.job import RetrainingJob
from resque.types import Interval

BY: dict[str, Callable[[Update], Hashable]] = {
    "shift-type": lambda update: (update.features.task_index is None and update.shift_type) or update.train_data,
    "condition": lambda update: update.train_data,
    "seed": lambda update: update.seed,
    "model": lambda update: update.parent or update.model,
}
"""What may be left out at a time: a new task, or what has no name, is a kind of its own; a level is a condition."""
BEFORE, RENEWED = "before, the same runs", "renewed after an epoch"
_GOALS = 4  # accuracies at which a learning curve is forecast


@dataclass(frozen=True)
class CrossValidation(Displayable):
    """How forecasts from this history would have done.

    Attributes:
        by: What was left out at a time.
        target_accuracy: At which costs were read.
        level: Nominal coverage of the intervals.
        folds: How many were left out.
        updates: Updates that began below the target.
        other_changes: Of those, left out because the others are shifts and these are new tasks, or the reverse.
        seed_to_seed_error: Median of how far one seed's steps are off another's under the same condition, and n.
        index_gain: By how much the index (of a shift, or of the task) alone is nearer than no predictor, mean of log
            errors over updates that reached the target, with a 90 % interval clustered by kind; None without an index,
            and from fewer than three kinds.
        reports: The forecast first, then what it would be without the updates of others, then every predictor alone, no
            predictor, a constant median, the longest run.
        renewed: Of runs that were not over after an epoch: the forecast before, and as renewed then; empty where they
            are too few.
        curve_error: Median over updates of the mean distance between the forecast learning curve and the one that
            came, in accuracy; None where no curve could be told.
    """

    by: str
    target_accuracy: float
    level: float
    folds: int
    updates: int
    other_changes: int
    seed_to_seed_error: float | None
    replicate_pairs: int
    index_gain: Interval | None
    reports: tuple[PredictorReport, ...]
    renewed: tuple[PredictorReport, ...] = ()
    curve_error: float | None = None

    @property
    def index_adds(self) -> bool | None:
        """Whether the index surely brings forecasts nearer than no predictor; None where it could not be judged."""
        return None if self.index_gain is None else self.index_gain.low > 0.0

    @property
    def others_help(self) -> bool | None:
        """Whether updates of others spoil neither errors nor intervals; None where own ones speak of fewer updates."""
        said = {each.predictor: each for each in self.reports}
        whole, alone = said.get(FORECAST), said.get(OWN)
        if whole is None or alone is None or whole.n != alone.n or not whole.reached:
            return None
        if whole.interval_score is None or alone.interval_score is None:
            return None
        return whole.median_error <= alone.median_error or whole.interval_score <= alone.interval_score

    @property
    def advice(self) -> tuple[str, ...]:
        """What forecasts could do without, a sentence each."""
        index = "The RESQUE index adds nothing here that could be told from chance: a forecast without it does as well."
        others = (
            "Updates of others do not help here: by own updates alone forecasts came nearer; see --no-bundled-history."
        )
        useless = (index, self.index_adds is False), (others, self.others_help is False)
        return tuple(sentence for sentence, holds in useless if holds)

    def _display(self) -> Display:
        columns = "predictor", "n", "median error", "within 2×", "ρ", "Brier", "coverage", "width", "score"
        return Display(
            f"Leave-one-{self.by}-out cross-validation of {self.updates} updates to accuracy {self.target_accuracy:g}",
            columns,
            [_report_row(report) for report in self.reports],
            [
                "n: updates that reached the target, of all; errors and ρ (Spearman) are theirs",
                f"coverage of the {self.level:.0%} intervals; width: upper over lower bound; score: interval score",
                *self.advice,
            ],
        )


def _report_row(report: PredictorReport) -> tuple[str, ...]:
    """Return one predictor's cells of the printed table."""

    def cell(value: float | None, form: str, prefix: str = "") -> str:
        return NOT_MEASURED if value is None or math.isnan(value) else f"{prefix}{value:{form}}"

    return (
        report.predictor,
        f"{report.reached}/{report.n}",
        cell(report.median_error, ".0%"),
        cell(report.within_factor_2, ".0%"),
        cell(report.spearman_value, ".2f"),
        cell(report.brier, ".3f"),
        cell(report.coverage, ".0%"),
        cell(None if report.log_width is None else math.exp(report.log_width), ".3g", "×"),
        cell(report.interval_score, ".2f"),
    )


def cross_validate(
    history: Sequence[Update],
    target_accuracy: float,
    by: str = "shift-type",
    level: float = 0.8,
    bundled: Sequence[Update] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> CrossValidation:
    """Leave each fold of a history out in turn and ask the rest about it.

    Args:
        history: Finished updates.
        target_accuracy: At which steps are read off every curve.
        by: One of :data:`BY`.
        level: Nominal coverage of the intervals.
        bundled: Updates from other models, which shape the forecast and no predictor alone; of a kind left out none
            are used, nor mixtures that have it.
        on_progress: Called with ``(folds done, all)``.

    Raises:
        SettingError: Nothing of that name to leave out, or a level outside (0, 1).
        TooFewUpdatesError: Fewer than three folds began below the target.
    """
    check_level(level)
    RetrainingJob.check_target(target_accuracy)
    if by not in BY:
        raise SettingError(f"validate by {by!r}: use one of {', '.join(BY)}")
    begun = [
        u for u in history if not u.from_scratch and not starts_at_target(u.features, target_accuracy) and u.cost.steps
    ]
    tasks = [update for update in begun if update.features.task_index is not None]
    usable = tasks if 2 * len(tasks) > len(begun) else [u for u in begun if u.features.task_index is None]
    folds = list(dict.fromkeys(BY[by](update) for update in usable))
    if len(folds) < FEWEST_GROUPS:
        several = f"{len(folds)} different {by}{'s' * (len(folds) != 1)}"
        raise TooFewUpdatesError(
            f"{several} in the ledger began below accuracy {target_accuracy:g}; leaving out needs {FEWEST_GROUPS}"
        )
    longest = max(update.cost.steps for update in usable)
    said: dict[str, list[ScoredForecast]] = {}
    renewed: dict[str, list[ScoredForecast]] = {}
    distances: list[float] = []
    for done, left_out in enumerate(folds):
        on_progress(done, len(folds))
        asked = [(u, query_for_update(u, target_accuracy, longest)) for u in usable if BY[by](u) == left_out]
        rest = [update for update in usable if not _akin(update, left_out, by)]
        others = [update for update in bundled if by != "shift-type" or not _akin(update, left_out, by)]
        fold = TrainingFolds(rest, others, level)
        for update, query in asked:
            for name, word in fold_predictions(fold, update, query):
                said.setdefault(name, []).append(word)
            for name, word in _renewals(fold, update, query):
                renewed.setdefault(name, []).append(word)
        distances += _curve_errors(fold, asked)
    on_progress(len(folds), len(folds))
    error, pairs = seed_to_seed_error(usable, target_accuracy)
    return CrossValidation(
        by=by,
        target_accuracy=target_accuracy,
        level=level,
        folds=len(folds),
        updates=len(usable),
        seed_to_seed_error=error,
        replicate_pairs=pairs,
        other_changes=len(begun) - len(usable),
        index_gain=error_reduction(said.get("task index" if tasks == usable else "index", ()), said.get(BARE, ())),
        reports=tuple(evaluate_predictor(name, found, level) for name, found in said.items()),
        renewed=tuple(evaluate_predictor(name, found, level) for name, found in renewed.items()),
        curve_error=statistics.median(distances) if distances else None,
    )


def _akin(update: Update, left_out: Hashable, by: str) -> bool:
    """Whether an update is left out, too: a mixture tells of each of its kinds, and they of the mixture."""
    key = BY[by](update)
    if by != "shift-type":
        return key == left_out
    return key == left_out or bool(_mixed(key) & _mixed(left_out))


def _mixed(kind: Hashable) -> set[str]:
    """The kinds of a mixture of known ones, as specifications of data name it; a name of the user's own is one kind."""
    parts = set(str(kind).split("/"))
    return parts - {UNCHANGED} if parts <= {*SHIFT_TYPES, UNCHANGED} else set()


def seed_to_seed_error(history: Sequence[Update], target_accuracy: float) -> tuple[float | None, int]:
    """Median of ``|a - b| / b`` over ordered pairs of runs of one condition that reached the target, and the pairs.

    Runs of one seed are no pair where they began with the same model: they are the same run.
    """
    groups: dict[Hashable, list[tuple[Hashable, int]]] = {}
    for update in history:
        cost = update.cost_at(target_accuracy)
        if cost is not None and cost.steps:
            run = (update.parent, update.seed), cost.steps
            groups.setdefault((update_group(update), update.train_data), []).append(run)
    pairs = (pair for runs in groups.values() for pair in itertools.permutations(runs, 2))
    errors = [abs(a - b) / b for (one, a), (other, b) in pairs if one != other]
    return (statistics.median(errors) if errors else None), len(errors)


def _renewals(fold: TrainingFolds, update: Update, query: ForecastQuery) -> Iterator[tuple[str, ScoredForecast]]:
    """The forecast before and after an epoch, of a run that was not over by then."""
    epoch, reached = update.curve.steps_per_epoch, update.cost_at(query.target_accuracy)
    if epoch is None or (reached or update.cost).steps <= epoch:
        return
    before = fold.forecast(query)
    reach_distribution = fold.reaching(query) or before
    at = max(step for step in update.curve.steps if step <= epoch)
    if before is None or not at:
        return
    after = revise_forecast(fold.rest, query, update.curve.until(at), fold.bundled, fold.level, reach_distribution)
    if after is None:
        return
    yield BEFORE, score_distribution(before, update, query, fold.level, reach_distribution)
    ends = after.steps.interval
    low, high = math.log(max(ends.low, 1.0)), math.inf if ends.high is None else math.log(ends.high)
    yield RENEWED, score_forecast(update, query, math.log(after.steps.value), low, high, after.probability_reached)


def _curve_errors(fold: TrainingFolds, asked: Sequence[tuple[Update, ForecastQuery]]) -> Iterator[float]:
    """How far each forecast learning curve lies from the one that came, in accuracy.

    A curve is what the forecast says of several accuracies on the way to the target; between them it is straight over
    log steps, after the last it stays. The distance is a mean over the evaluations, each weighed by its share of the
    log steps.
    """
    starts = [u.features.accuracy for u, _ in asked if u.features.accuracy is not None]
    if not starts:
        return
    goals = np.linspace(min(starts), asked[0][1].target_accuracy, _GOALS + 1)[1:]
    for update, query in asked:
        course = [(0.0, update.curve.accuracy[0])]
        for goal in map(float, goals):
            at_goal = dataclasses.replace(query, target_accuracy=goal)
            outlook = None if starts_at_target(update.features, goal) else fold.forecast(at_goal)
            if outlook is not None:
                course.append((max(course[-1][0] + 1e-6, outlook.center), goal))
        if len(course) > 1 and update.curve.steps[0] == 0:
            yield _distance(update, course)


def _distance(update: Update, course: Sequence[tuple[float, float]]) -> float:
    logs, said = zip(*course, strict=True)
    steps = np.log1p(update.curve.steps)
    away = np.abs(np.interp(steps, logs, said) - np.array(update.curve.accuracy))
    return float(np.average((away[1:] + away[:-1]) / 2.0, weights=np.diff(steps)))
