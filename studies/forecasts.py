"""Cross-validate forecasts on the rows of the studies, before and during an update.

* ``forecasts``: shift types, conditions or seeds left out (as ``resque ledger validate`` does), at three targets, with
  the rows of the other networks and datasets as bundled updates: the forecast beside each predictor alone, a constant,
  the step budget, and the seed-to-seed variability; the effect of a revision after one epoch; the error of forecast
  learning curves.
* ``new-tasks``: forecasts of new tasks, with whole tasks, then whole original models, left out.
* ``early``: forecasts of steps from few own updates, drawn at random, with and without bundled updates.

    python studies/forecasts.py --preset quick
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from analysis import TARGET_NAMES, Run, markdown, successful_runs
from bundled_history import shift_update, task_update, thinned
from presets import PRESETS, ShiftStudy, TaskStudy
from publish import Rows, publish
from resque.forecasting.evaluation.cross_validation import BY, CrossValidation, cross_validate
from resque.forecasting.evaluation.folds import TrainingFolds, fold_predictions
from resque.forecasting.evaluation.metrics import FEWEST_GROUPS, PredictorReport, ScoredForecast, evaluate_predictor
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.ledger.records import Update
from resque.reporting.sentences import format_correlation

LEVEL = 0.8
DRAWS, MOST_QUERIES = 12, 12
SIZES = (0, 3, 5, 10, 15, 30)
HEAD = ("forecast by", "n", "median error", "within 2×", "ρ [95 %]", "Brier", "80 % covered [90 %]", "width", "score")
NOTE = """n: updates that reached the target / all that began below it; errors are of those that reached it. A shift
type is left out with all mixtures that contain it. Covered: coverage of nominal 80 % intervals, with a 90 % interval
from a bootstrap of whole shift types. Width: upper over lower end, median. The forecast uses bundled updates;
predictors alone, and the row below it, do not. Score: mean interval score of log steps, smaller is better. Brier: Brier
score of the probability of reaching the target."""
TASKS_NOTE = """Here whole tasks are left out (their runs; models trained on them before stay), or whole original models
(all their seeds; runs of other models on the same task stay). Curves of other tasks are read at the cutoff of the task
in the query. There are no bundled updates."""
LEFT_OUT: Mapping[str, Callable[[Run], object]] = {
    "tasks": lambda run: run.row["target"],
    "original models": lambda run: run.row["source"],
}


def histories(preset: str, rows: Rows) -> Iterator[tuple[ShiftStudy, list[Update], list[Update]]]:
    """Yield each study with original models of its own, its updates, and those of the other studies as bundled."""
    studies = [study for study in PRESETS[preset].shifts if not study.originals]
    updates = {study.name: [shift_update(run) for run in successful_runs(rows[study.name])] for study in studies}
    for study in studies:
        others = [update for name in updates if name != study.name for update in updates[name] if update.cost.steps]
        yield study, updates[study.name], [thinned(update) for update in others]


def cells(report: PredictorReport) -> tuple[str, ...]:
    """Return the cells of :data:`HEAD` for one predictor."""
    coverage = report.coverage_interval
    return (
        report.predictor,
        f"{report.reached}/{report.n}",
        f"{report.median_error:.0%}",
        f"{report.within_factor_2:.0%}",
        format_correlation(report),
        "–" if report.brier is None else f"{report.brier:.3f}",
        "–" if coverage is None else f"{report.coverage:.0%} [{coverage.low:.0%}, {coverage.high:.0%}]",
        "–" if report.log_width is None else f"×{math.exp(report.log_width):.3g}",
        "–" if report.interval_score is None else f"{report.interval_score:.2f}",
    )


def format_validation(result: CrossValidation, target_name: str) -> str:
    """Format one cross-validation as title, sentence and table."""
    error = result.seed_to_seed_error
    error_text = "unknown" if error is None else f"{error:.0%} (n = {result.replicate_pairs})"
    curves = "" if result.curve_error is None else f"; forecast curves are {100 * result.curve_error:.1f} points off"
    title = f"### {target_name} target {result.target_accuracy:g}, {result.by}s left out"
    summary = f"{result.updates} updates, {result.folds} {result.by}s; seed-to-seed error {error_text}{curves}."
    return f"{title}\n\n{summary}\n\n{markdown(HEAD, map(cells, (*result.reports, *result.revised)))}"


def validations(study: ShiftStudy, own: Sequence[Update], bundled: Sequence[Update]) -> Iterator[str]:
    """Yield a title, then a cross-validation by shift type at each target, and by condition and seed at the middle one.

    Validations with too few groups to leave out are omitted.
    """
    yield f"## {study.name}"
    for name, target in zip(TARGET_NAMES, study.targets, strict=True):
        for by in ("shift-type", "condition", "seed") if name == "middle" else ("shift-type",):
            below = [update for update in own if not starts_at_target(update.features, target)]
            if len({BY[by](update) for update in below}) >= FEWEST_GROUPS:
                yield format_validation(cross_validate(own, target, by, LEVEL, bundled), name)


def task_rows(study: TaskStudy, runs: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Yield a table row per predictor for forecasts of new tasks, with tasks or original models left out."""
    learned = [(run, task_update(study, run)) for run in runs]
    max_steps = max((update.cost.steps for _, update in learned), default=1)
    for (title, group_of), (place, name) in itertools.product(LEFT_OUT.items(), enumerate(TARGET_NAMES)):
        scored: dict[str, list[ScoredForecast]] = {}
        for fold in dict.fromkeys(group_of(run) for run in runs):
            rest = TrainingFolds([update for run, update in learned if group_of(run) != fold], (), LEVEL)
            for run, update in learned:
                target = study.cutoffs[run.row["target"]][place]
                if group_of(run) != fold or starts_at_target(update.features, target):
                    continue
                for predictor, forecast in fold_predictions(
                    rest, update, ForecastQuery.of_update(update, target, max_steps)
                ):
                    scored.setdefault(predictor, []).append(dataclasses.replace(forecast, shift_type=group_of(run)))
        for predictor, forecasts in scored.items():
            yield f"{title}, {name} cutoff", *cells(evaluate_predictor(predictor, forecasts, LEVEL))


def new_tasks_page(preset: str, rows: Rows) -> str:
    """Make the page of new tasks."""
    parts = [f"# Forecasts of new tasks\n\n{NOTE}\n\n{TASKS_NOTE}"]
    for study in PRESETS[preset].tasks:
        runs = successful_runs(rows[study.name])
        parts.append(f"## {study.name}, {len(runs)} runs\n\n{markdown(('left out', *HEAD), task_rows(study, runs))}")
    return "\n\n".join(parts) + "\n"


def early_rows(study: ShiftStudy, own: Sequence[Update], others: Sequence[Update]) -> Iterator[tuple[str, ...]]:
    """Yield a table row per target and number of own updates, with and without bundled updates."""
    for name, target in list(zip(TARGET_NAMES, study.targets, strict=True))[1:]:
        noise = seed_deviation(own, target)
        for size in SIZES:
            for bundled in ((), others):
                scored = [each for draw in range(DRAWS) for each in forecasts_of_draw(own, bundled, target, size, draw)]
                if not scored:
                    continue
                title = f"{size} own updates{', and bundled' if bundled else ''}"
                report = evaluate_predictor(title, scored, LEVEL)
                ratio = "–"
                if noise and report.log_width is not None:
                    ratio = f"{report.log_width / (2 * 1.2816 * noise):.2f}"
                yield (study.name, f"{name}, {target:g}", *cells(report), ratio)


def forecasts_of_draw(
    own: Sequence[Update], bundled: Sequence[Update], target: float, size: int, draw: int
) -> list[ScoredForecast]:
    """Draw updates of one seed at random, and forecast other updates of that seed from them."""
    random = np.random.default_rng(draw)
    seeds = sorted({update.seed for update in own})
    pool = [
        update
        for update in own
        if update.seed == seeds[draw % len(seeds)]
        and update.cost.steps
        and not starts_at_target(update.features, target)
    ]
    order = random.permutation(len(pool))
    history, queries = [pool[i] for i in order[:size]], [pool[i] for i in order[size : size + MOST_QUERIES]]
    fold = TrainingFolds(history, bundled, LEVEL)
    max_steps = max((update.cost.steps for update in pool), default=1)
    scored = (fold.score(update, ForecastQuery.of_update(update, target, max_steps)) for update in queries)
    return [forecast for forecast in scored if forecast is not None]


def seed_deviation(own: Sequence[Update], target: float) -> float | None:
    """Compute the pooled standard deviation of log steps between seeds of one condition."""
    groups: dict[str, list[float]] = {}
    for update in own:
        cost = update.cost_at(target)
        if cost is not None and cost.steps:
            groups.setdefault(update.train_data, []).append(math.log(cost.steps))
    parts = [(len(logs) - 1, statistics.variance(logs)) for logs in groups.values() if len(logs) > 1]
    degrees_of_freedom = sum(n for n, _ in parts)
    return math.sqrt(sum(n * variance for n, variance in parts) / degrees_of_freedom) if degrees_of_freedom else None


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the three pages."""
    tables, lines = [], []
    for study, own, others in histories(preset, rows):
        tables += list(validations(study, own, others))
        lines += list(early_rows(study, own, others))
    head = ("study", "target", *HEAD, "width / seed-to-seed noise")
    early = (
        f"# Forecasts from few updates\n\n{DRAWS} draws of own updates of one original model, each with up to "
        f"{MOST_QUERIES} others of the same model to forecast; bundled: the updates of the other studies, of other "
        "networks and data. The same runs are forecast in several draws, so the intervals of ρ are too narrow. "
        f"{NOTE} Last: the median log width over that of an 80 % interval of the noise between seeds alone.\n\n"
        + markdown(head, lines)
    )
    worth = f"# What forecasts are worth\n\n{NOTE}\n\n" + "\n\n".join(tables) + "\n"
    return {"forecasts": worth, "new-tasks": new_tasks_page(preset, rows), "early": early}


if __name__ == "__main__":
    publish(__doc__, make)
