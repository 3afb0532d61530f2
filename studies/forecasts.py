"""What forecasts from the rows of the studies are worth, before and during an update.

* ``forecasts``: whole kinds of shift, conditions or seeds left out in turn (``resque ledger validate``), at three
  targets, with the rows of the other networks and data sets as updates of others: the forecast beside each predictor
  alone, a constant, the longest run, and the replicate error; what renewing after an epoch changes; how far forecast
  learning curves are off.
* ``new-tasks``: forecasts of changes of task: whole tasks, then whole original models, left out in turn.
* ``early``: forecasts of steps from no, three, five … own updates, drawn at random, with and without those of others.

    python studies/forecasts.py --preset quick
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from analysis import TARGET_NAMES, Run, markdown, runs
from bundled_history import task_update_of, thinned, update_of
from presets import PRESETS, ShiftStudy, TaskStudy
from publish import Rows, publish
from resque.forecasting.evaluation.cross_validation import BY, CrossValidation, cross_validate
from resque.forecasting.evaluation.folds import TrainingFolds, fold_predictions
from resque.forecasting.evaluation.metrics import FEWEST_GROUPS, PredictorReport, ScoredForecast, evaluate_predictor
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.ledger.records import Update
from resque.reporting.sentences import format_correlation

LEVEL = 0.8
DRAWS, ASKED = 12, 12
SIZES = (0, 3, 5, 10, 15, 30)
HEAD = ("forecast by", "n", "median error", "within 2×", "ρ [95 %]", "Brier", "80 % held [90 %]", "width", "score")
NOTE = """n: updates that reached the target / all that began below it; errors are of those that reached it. A kind is
left out with all mixtures that have it. Held: coverage of nominal 80 % intervals, with a 90 % interval from a bootstrap
of whole kinds. Width: upper over lower end, median. The forecast has the updates of others to shape it; predictors
alone, and the line below it, have not. Score: mean interval score of log steps, smaller is better. Brier: of the chance
of reaching the target."""


OF_TASKS = """Here whole tasks are left out (their runs; models that know them from before stay), or whole original
models (all seeds of them; what others took for the same task stays). Curves of other tasks are read at the cutoff of
the task that is asked about. No updates of others."""


def histories(preset: str, found: Rows) -> Iterator[tuple[ShiftStudy, list[Update], list[Update]]]:
    """Each study with original models of its own: its updates, and those of the others as they are shipped."""
    studies = [study for study in PRESETS[preset].shifts if not study.originals]
    of = {study.name: [update_of(run) for run in runs(found[study.name])] for study in studies}
    for study in studies:
        others = [update for name, own in of.items() if name != study.name for update in own if update.cost.steps]
        yield study, of[study.name], [thinned(update) for update in others]


def cells(each: PredictorReport) -> tuple[str, ...]:
    """A line of the table."""
    held = each.coverage_interval
    return (
        each.predictor,
        f"{each.reached}/{each.n}",
        f"{each.median_error:.0%}",
        f"{each.within_factor_2:.0%}",
        format_correlation(each),
        "–" if each.brier is None else f"{each.brier:.3f}",
        "–" if held is None else f"{each.coverage:.0%} [{held.low:.0%}, {held.high:.0%}]",
        "–" if each.log_width is None else f"×{math.exp(each.log_width):.3g}",
        "–" if each.interval_score is None else f"{each.interval_score:.2f}",
    )


def validated(found: CrossValidation, name: str) -> str:
    """One validation as a table with a sentence above it."""
    error = (
        "unknown"
        if found.seed_to_seed_error is None
        else f"{found.seed_to_seed_error:.0%} (n = {found.replicate_pairs})"
    )
    curves = "" if found.curve_error is None else f"; forecast curves are {100 * found.curve_error:.1f} points off"
    title = f"### {name} target {found.target_accuracy:g}, {found.by}s left out"
    said = f"{found.updates} updates, {found.folds} {found.by}s; replicate error {error}{curves}."
    return f"{title}\n\n{said}\n\n{markdown(HEAD, map(cells, (*found.reports, *found.revised)))}"


def validations(study: ShiftStudy, own: Sequence[Update], others: Sequence[Update]) -> Iterator[str]:
    """Kinds at every target, conditions and seeds at the middle one; what has too few to leave out is not there."""
    yield f"## {study.name}"
    for name, target in zip(TARGET_NAMES, study.targets, strict=True):
        for by in ("shift-type", "condition", "seed") if name == "middle" else ("shift-type",):
            begun = [update for update in own if not starts_at_target(update.features, target)]
            if len({BY[by](update) for update in begun}) >= FEWEST_GROUPS:
                yield validated(cross_validate(own, target, by, LEVEL, others), name)


LEFT_OUT: Mapping[str, Callable[[Run], object]] = {
    "tasks": lambda run: run.row["target"],
    "original models": lambda run: run.row["source"],
}


def of_tasks(study: TaskStudy, found: Sequence[Run]) -> Iterator[tuple[str, ...]]:
    """Forecasts of new tasks at each cutoff, where the task, or what the model knew before, is not in the history."""
    learned = [(run, task_update_of(study, run)) for run in found]
    longest = max((update.cost.steps for _, update in learned), default=1)
    for (what, left_out), (place, name) in itertools.product(LEFT_OUT.items(), enumerate(TARGET_NAMES)):
        said: dict[str, list[ScoredForecast]] = {}
        for fold in dict.fromkeys(left_out(run) for run in found):
            rest = TrainingFolds([update for run, update in learned if left_out(run) != fold], (), LEVEL)
            for run, update in learned:
                target = study.cutoffs[run.row["target"]][place]
                if left_out(run) != fold or starts_at_target(update.features, target):
                    continue
                for predictor, word in fold_predictions(rest, update, ForecastQuery.of_update(update, target, longest)):
                    said.setdefault(predictor, []).append(dataclasses.replace(word, shift_type=left_out(run)))
        for predictor, each in said.items():
            yield f"{what}, {name} cutoff", *cells(evaluate_predictor(predictor, each, LEVEL))


def new_tasks(preset: str, found: Rows) -> str:
    """The page of changes of task."""
    parts = [f"# Forecasts of new tasks\n\n{NOTE}\n\n{OF_TASKS}"]
    for study in PRESETS[preset].tasks:
        tried = runs(found[study.name])
        parts.append(f"## {study.name}, {len(tried)} runs\n\n{markdown(('left out', *HEAD), of_tasks(study, tried))}")
    return "\n\n".join(parts) + "\n"


def early(study: ShiftStudy, own: Sequence[Update], others: Sequence[Update]) -> Iterator[tuple[str, ...]]:
    """Forecasts at the middle and late target from a few updates of one original model, drawn at random."""
    for name, target in list(zip(TARGET_NAMES, study.targets, strict=True))[1:]:
        noise = replicate_deviation(own, target)
        for size in SIZES:
            for bundled in ((), others):
                found = [word for draw in range(DRAWS) for word in drawn(own, bundled, target, size, draw)]
                if not found:
                    continue
                each = evaluate_predictor(f"{size} own updates{', and others' if bundled else ''}", found, LEVEL)
                ratio = "–"
                if noise and each.log_width is not None:
                    ratio = f"{each.log_width / (2 * 1.2816 * noise):.2f}"
                yield (study.name, f"{name}, {target:g}", *cells(each), ratio)


def drawn(
    own: Sequence[Update], bundled: Sequence[Update], target: float, size: int, draw: int
) -> list[ScoredForecast]:
    """What so many updates of one seed, drawn at random, say of others of the same seed."""
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
    known, asked = [pool[i] for i in order[:size]], [pool[i] for i in order[size : size + ASKED]]
    rest = TrainingFolds(known, bundled, LEVEL)
    longest = max((update.cost.steps for update in pool), default=1)
    fold_predictions = (rest.score(update, ForecastQuery.of_update(update, target, longest)) for update in asked)
    return [word for word in fold_predictions if word is not None]


def replicate_deviation(own: Sequence[Update], target: float) -> float | None:
    """Pooled standard deviation of log steps between seeds of one condition."""
    groups: dict[str, list[float]] = {}
    for update in own:
        cost = update.cost_at(target)
        if cost is not None and cost.steps:
            groups.setdefault(update.train_data, []).append(math.log(cost.steps))
    parts = [(len(logs) - 1, statistics.variance(logs)) for logs in groups.values() if len(logs) > 1]
    freedom = sum(n for n, _ in parts)
    return math.sqrt(sum(n * variance for n, variance in parts) / freedom) if freedom else None


def make(preset: str, found: Rows) -> Mapping[str, str]:
    """The three pages."""
    tables, lines = [], []
    for study, own, others in histories(preset, found):
        tables += list(validations(study, own, others))
        lines += list(early(study, own, others))
    head = ("study", "target", *HEAD, "width / replicate noise")
    few = (
        f"# Forecasts from few updates\n\n{DRAWS} draws of own updates of one original model, each asked about up to "
        f"{ASKED} others of the same model; others: the updates of the other studies, of other networks and data. The "
        "same runs are asked about in several draws, so ρ's intervals are too narrow. "
        f"{NOTE} Last: the median log width over that of an 80 % interval of the noise between seeds alone.\n\n"
        + markdown(head, lines)
    )
    worth = f"# What forecasts are worth\n\n{NOTE}\n\n" + "\n\n".join(tables) + "\n"
    return {"forecasts": worth, "new-tasks": new_tasks(preset, found), "early": few}


if __name__ == "__main__":
    publish(__doc__, make)
