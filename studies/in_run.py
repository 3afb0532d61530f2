"""Evaluate forecasts that follow the learning curve: before an update, after its first steps, and to end it by.

Shift types are left out in turn, with their mixtures and those that they nearly repeat. Each run that is not over at a
landmark is forecast from its curve until then, from two histories: bundled updates alone (those of other networks), and
these with 12 updates of the same original model under other shift types, drawn at random, as after ``resque
calibrate``. A second page replays what a generous budget would have ended: runs whose in-run forecast says that they
will not reach their target.

    python studies/in_run.py --preset kinds --existing
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from analysis import TARGET_NAMES, markdown, successful_runs
from bundled_history import shift_update
from presets import PRESETS, TWINS
from publish import Rows, publish
from resque.data.shifts import UNCHANGED
from resque.forecasting.evaluation.folds import TrainingFolds, score_estimate, score_forecast
from resque.forecasting.evaluation.metrics import ScoredForecast, error_reduction, evaluate_predictor
from resque.forecasting.history import ForecastQuery
from resque.forecasting.landmarking import FIRST_LANDMARK, known_evaluations, revise_forecast
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import LearningCurve, Update

LEVEL = 0.8
LANDMARKS = (50, 100, 200, 400)
OWN_UPDATES = 12
OURS, LINE, FLOOR, BEFORE = (
    "learning-curve model",
    "line over log steps",
    "max(forecast, 1.25 × step)",
    "before the update",
)
CONFIDENCES = (0.8, 0.9, 0.95, 0.99)
STOPS_HEAD = ("confidence", "good runs ended", "their steps lost", "hopeless runs ended", "of their steps saved")
STOPS_NOTE = """A run is ended as soon as its in-run forecast gives the target a probability below 1 − confidence. Good
runs reached their target; hopeless ones did not within the step budget, over three targets. Steps lost: of good runs,
until they were ended. A step of a run costs the same energy, so the shares of steps are shares of kWh."""
HISTORIES = {"bundled updates alone": False, f"with {OWN_UPDATES} own updates": True}
HEAD = (
    "after", "forecast by", "n", "median factor", "within 2×", "Brier (base rate)", "80 % covered [90 %]", "width",
    "covered, all", "smaller log error [90 %]",
)  # fmt: skip
NOTE = """n: runs that reached the target / all that were not over by then, over three targets. Median factor, share
within 2×, covered and width are of those that reached it. Brier: Brier score of the probability of reaching the target;
base rate: that of the share that reached it, known only afterwards. Covered: coverage of nominal 80 % intervals, with
a 90 % interval from a bootstrap of whole shift types. Width: upper over lower end, median. Covered, all: also of runs
that did not reach the target, whose steps are a lower bound. Smaller log error: mean reduction of the absolute log
error by the learning-curve model, over runs that reached the target; 90 % interval clustered by shift type."""


def kinds_of(update: Update) -> set[str]:
    """Return the shift types of an update; several for a mixture, and for one that nearly repeats another."""
    return kinds(str(update.shift_type))


def kinds(name: str) -> set[str]:
    """Return the shift types of a mixture, and those that they nearly repeat."""
    parts = set(name.split("/")) - {UNCHANGED}
    return parts | {TWINS[part] for part in parts if part in TWINS}


def line_forecast(curve: LearningCurve, target: float, max_steps: int) -> tuple[float, float]:
    """Return log steps and probability (0 or 1) from a straight line through the accuracies over log steps."""
    log_steps = np.log1p(curve.steps)
    slope, intercept = np.polyfit(log_steps, curve.accuracy, 1)
    to_target = (target - intercept) / slope if slope > 1e-9 else math.inf
    steps = math.expm1(to_target) if to_target < math.log1p(max_steps) else math.inf
    return math.log(min(max(steps, curve.steps[-1] + 1), max_steps)), float(steps <= max_steps)


def histories(
    study_updates: Sequence[Update], others: Sequence[Update], held_out: str, with_own: bool
) -> Iterator[tuple[list[Update], list[Update], list[Update]]]:
    """Yield runs of a held-out shift type with their own and their bundled history: one for each original model."""
    left_out = kinds(held_out)
    bundled = [update for update in others if not kinds_of(update) & left_out]
    runs = [update for update in study_updates if update.shift_type == held_out]
    for parent in dict.fromkeys(run.parent for run in runs):
        pool = [u for u in study_updates if u.parent == parent and not kinds_of(u) & left_out and u.cost.steps]
        drawn = np.random.default_rng(sum(map(ord, held_out))).permutation(len(pool))[: OWN_UPDATES if with_own else 0]
        yield [run for run in runs if run.parent == parent], [pool[place] for place in drawn], bundled


def scored_runs(
    runs: Sequence[Update], targets: Sequence[float], own: list[Update], bundled: list[Update]
) -> Iterator[tuple[int, str, ScoredForecast]]:
    """Yield landmark, name and score of every forecast of some runs; landmark 0 is before the update."""
    folds = TrainingFolds(own, bundled, LEVEL)
    for run in runs:
        for target in targets:
            if run.curve.accuracy[0] >= target or not run.cost.steps:
                continue
            query = ForecastQuery.of_update(run, target, run.cost.steps)
            yield from scored_run(dataclasses.replace(run, id=f"{run.id} {target:.3f}"), query, folds)


def scored_run(run: Update, query: ForecastQuery, folds: TrainingFolds) -> Iterator[tuple[int, str, ScoredForecast]]:
    """Yield landmark, name and score of every forecast of one run to one target."""
    before = folds.score(run, query)
    if before is not None:
        yield 0, BEFORE, before
    end = (run.cost_at(query.target_accuracy) or run.cost).steps
    for landmark in LANDMARKS:
        curve = run.curve.until(landmark)
        if end <= landmark or len(curve.steps) < 2:
            continue
        now, evaluations = curve.steps[-1], known_evaluations(run, query.max_steps)
        revision = revise_forecast(folds.curve(query), query, curve, LEVEL, evaluations)
        if revision is None or before is None:
            continue
        yield landmark, OURS, score_estimate(run, query, revision.steps, revision.probability_reached)
        log_steps, probability = line_forecast(curve, query.target_accuracy, query.max_steps)
        yield landmark, LINE, score_forecast(run, query, log_steps, None, probability)
        floor = max(before.forecast, math.log(1.25 * now))
        yield landmark, FLOOR, score_forecast(run, query, floor, None, before.probability_reached)


def replay(
    runs: Sequence[Update], targets: Sequence[float], own: list[Update], bundled: list[Update]
) -> Iterator[tuple[bool, int, dict[float, int | None]]]:
    """Yield of each run and target whether it was reached, its steps, and the step at which each confidence ends it."""
    folds = TrainingFolds(own, bundled, LEVEL)
    for run in runs:
        for target in targets:
            reached = run.cost_at(target)
            whole = (reached or run.cost).steps
            if run.curve.accuracy[0] >= target or whole < FIRST_LANDMARK:
                continue
            query = ForecastQuery.of_update(run, target, run.cost.steps)
            evaluations = known_evaluations(run, query.max_steps)
            ends: dict[float, int | None] = dict.fromkeys(CONFIDENCES)
            for step in (step for step in run.curve.steps if FIRST_LANDMARK <= step < whole):
                revision = revise_forecast(folds.curve(query), query, run.curve.until(step), LEVEL, evaluations)
                for confidence in (c for c in CONFIDENCES if ends[c] is None):
                    if revision is not None and revision.probability_reached < 1.0 - confidence:
                        ends[confidence] = step
                if None not in ends.values():
                    break
            yield reached is not None, whole, ends


def stops_table(replays: Sequence[tuple[bool, int, dict[float, int | None]]]) -> str:
    """Return the table of the runs that each confidence ends."""
    lines = []
    for confidence in CONFIDENCES:
        good, bad = ([each for each in replays if each[0] is reached] for reached in (True, False))
        killed, ended = (sum(each[2][confidence] is not None for each in group) for group in (good, bad))
        saved = sum(whole - (ends[confidence] or whole) for _, whole, ends in bad)
        lost = sum(ends[confidence] or 0 for _, _, ends in good)
        share = saved / max(1, sum(whole for _, whole, _ in bad))
        lines.append((f"{confidence:.0%}", f"{killed}/{len(good)}", f"{lost:,}", f"{ended}/{len(bad)}", f"{share:.0%}"))
    return markdown(STOPS_HEAD, lines)


def table(scores: Mapping[tuple[int, str], list[ScoredForecast]]) -> str:
    """Return the table of one history."""
    lines = []
    for (landmark, name), scored in sorted(scores.items(), key=lambda item: item[0][0]):
        reduction = error_reduction(scores[landmark, OURS], scored) if name in (LINE, FLOOR) else None
        by_interval = "" if reduction is None else f"[{reduction.low:.2f}, {reduction.high:.2f}]"
        lines.append((f"{landmark} steps" if landmark else "–", name, *cells(name, scored), by_interval))
    return markdown(HEAD, lines)


def cells(name: str, scored: Sequence[ScoredForecast]) -> tuple[str, ...]:
    """Return the cells of the forecasts by one name."""
    report = evaluate_predictor(name, scored, LEVEL)
    arrived = evaluate_predictor(name, [score for score in scored if score.reached], LEVEL)
    share, coverage = report.reached / report.n, arrived.coverage_interval
    return (
        f"{report.reached}/{report.n}",
        f"{report.median_factor:.2f}",
        f"{report.within_factor_2:.0%}",
        "–" if report.brier is None else f"{report.brier:.3f} ({share * (1.0 - share):.3f})",
        "–" if coverage is None else f"{arrived.coverage:.0%} [{coverage.low:.0%}, {coverage.high:.0%}]",
        "–" if arrived.log_width is None else f"×{math.exp(arrived.log_width):.3g}",
        "–" if report.coverage is None else f"{report.coverage:.0%}",
    )


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the two pages."""
    studies = {study.name: study for study in PRESETS[preset].shifts if not study.originals and rows.get(study.name)}
    updates = {name: [shift_update(run) for run in successful_runs(rows[name])] for name in studies}
    parts = [f"# Forecasts that follow the learning curve\n\n{NOTE}"]
    stops = [f"# What a budget would have ended\n\n{STOPS_NOTE}"]
    for name, study in studies.items():
        shipped = bundled_updates() if preset != "cpu" else [u for n, us in updates.items() if n != name for u in us]
        others = [u for u in shipped if u.cost.steps and u.features.task_index is None and u.model != study.model]
        parts.append(
            f"## {name}, {len(updates[name])} runs of {len({u.shift_type for u in updates[name]})} shift types"
        )
        for title, with_own in HISTORIES.items():
            scores: dict[tuple[int, str], list[ScoredForecast]] = {}
            replays: list[tuple[bool, int, dict[float, int | None]]] = []
            for kind in dict.fromkeys(str(update.shift_type) for update in updates[name]):
                for runs, own, bundled in histories(updates[name], others, kind, with_own):
                    targets = targets_of(study.targets, runs)
                    replays += replay(runs, targets, own, bundled)
                    for landmark, by, score in scored_runs(runs, targets, own, bundled):
                        scores.setdefault((landmark, by), []).append(score)
            parts.append(f"### {title}\n\n{table(scores)}")
            stops.append(f"## {name}, {title}\n\n{stops_table(replays)}")
    return {"in-run": "\n\n".join(parts) + "\n", "budget-stops": "\n\n".join(stops) + "\n"}


def targets_of(targets: Sequence[float], runs: Sequence[Update]) -> list[float]:
    """Return the target accuracies; relative ones are below the last, which the runs of an original model have."""
    last = runs[0].target_accuracy
    return [last + target - targets[-1] if targets[-1] < 0.0 else target for target in targets[: len(TARGET_NAMES)]]


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
