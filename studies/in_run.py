"""Evaluate forecasts that follow the learning curve: before an update, and after its first 50 to 400 steps.

Shift types are left out in turn, with their mixtures. Each run that is not over at a landmark is forecast from its
curve until then, from two histories: bundled updates alone (those of other studies), and these with 12 updates of the
same original model under other shift types, drawn at random, as after ``resque calibrate``.

    python studies/in_run.py --preset kinds --existing
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from analysis import TARGET_NAMES, markdown, successful_runs
from bundled_history import shift_update
from presets import PRESETS
from publish import Rows, publish
from resque.data.shifts import UNCHANGED
from resque.forecasting.evaluation.folds import TrainingFolds, score_forecast
from resque.forecasting.evaluation.metrics import PredictorReport, ScoredForecast, error_reduction, evaluate_predictor
from resque.forecasting.history import ForecastQuery
from resque.forecasting.landmarking import CurveHistory, known_evaluations, revise_forecast
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
HISTORIES = {"bundled updates alone": False, f"with {OWN_UPDATES} own updates": True}
HEAD = (
    "after", "forecast by", "n", "median factor", "within 2×", "Brier (base rate)", "80 % covered [90 %]", "width",
    "smaller log error [90 %]",
)  # fmt: skip
NOTE = """n: runs that reached the target / all that were not over by then, over three targets. Median factor and share
within 2× are of those that reached it. Brier: Brier score of the probability of reaching the target; base rate: that of
the share that reached it, known only afterwards. Covered: coverage of nominal 80 % intervals, with a 90 % interval from
a bootstrap of whole shift types. Width: upper over lower end, median. Smaller log error: mean reduction of the absolute
log error by the learning-curve model, over runs that reached the target; 90 % interval clustered by shift type."""


def kinds_of(update: Update) -> set[str]:
    """Return the shift types of an update; several for a mixture."""
    return set(str(update.shift_type).split("/")) - {UNCHANGED}


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
    kinds = set(held_out.split("/")) - {UNCHANGED}
    bundled = [update for update in others if not kinds_of(update) & kinds]
    runs = [update for update in study_updates if update.shift_type == held_out]
    for parent in dict.fromkeys(run.parent for run in runs):
        pool = [u for u in study_updates if u.parent == parent and not kinds_of(u) & kinds and u.cost.steps]
        drawn = np.random.default_rng(sum(map(ord, held_out))).permutation(len(pool))[: OWN_UPDATES if with_own else 0]
        yield [run for run in runs if run.parent == parent], [pool[place] for place in drawn], bundled


def scored_runs(
    runs: Sequence[Update], targets: Sequence[float], own: list[Update], bundled: list[Update]
) -> Iterator[tuple[int, str, ScoredForecast]]:
    """Yield landmark, name and score of every forecast of some runs; landmark 0 is before the update."""
    folds, curves = TrainingFolds(own, bundled, LEVEL), None
    for run in runs:
        for target in targets:
            if run.curve.accuracy[0] >= target or not run.cost.steps:
                continue
            query = ForecastQuery.of_update(run, target, run.cost.steps)
            curves = curves or CurveHistory.of(own, query, bundled)
            name = f"{run.id} {target:.3f}"
            yield from scored_run(dataclasses.replace(run, id=name), query, folds, curves)


def scored_run(
    run: Update, query: ForecastQuery, folds: TrainingFolds, curves: CurveHistory
) -> Iterator[tuple[int, str, ScoredForecast]]:
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
        revision = revise_forecast(curves, query, curve, LEVEL, evaluations)
        if revision is None or before is None:
            continue
        low, high = revision.steps.interval.low, revision.steps.interval.high
        interval = math.log(low), math.inf if high is None else math.log(high)
        steps = math.log(revision.steps.value)
        yield landmark, OURS, score_forecast(run, query, steps, interval, revision.probability_reached)
        log_steps, probability = line_forecast(curve, query.target_accuracy, query.max_steps)
        yield landmark, LINE, score_forecast(run, query, log_steps, None, probability)
        floor = max(before.forecast, math.log(1.25 * now))
        yield landmark, FLOOR, score_forecast(run, query, floor, None, before.probability_reached)


def table(scores: Mapping[tuple[int, str], list[ScoredForecast]]) -> str:
    """Return the table of one history."""
    lines = []
    for (landmark, name), scored in sorted(scores.items(), key=lambda item: item[0][0]):
        report = evaluate_predictor(name, scored, LEVEL)
        reduction = error_reduction(scores[landmark, OURS], scored) if name in (LINE, FLOOR) else None
        by_interval = "" if reduction is None else f"[{reduction.low:.2f}, {reduction.high:.2f}]"
        lines.append((f"{landmark} steps" if landmark else "–", name, *cells(report), by_interval))
    return markdown(HEAD, lines)


def cells(report: PredictorReport) -> tuple[str, ...]:
    """Return the cells of one report."""
    share, coverage = report.reached / report.n, report.coverage_interval
    return (
        f"{report.reached}/{report.n}",
        f"{report.median_factor:.2f}",
        f"{report.within_factor_2:.0%}",
        "–" if report.brier is None else f"{report.brier:.3f} ({share * (1.0 - share):.3f})",
        "–" if coverage is None else f"{report.coverage:.0%} [{coverage.low:.0%}, {coverage.high:.0%}]",
        "–" if report.log_width is None else f"×{math.exp(report.log_width):.3g}",
    )


def make(preset: str, rows: Rows) -> Mapping[str, str]:
    """Make the page."""
    studies = {study.name: study for study in PRESETS[preset].shifts if not study.originals and rows.get(study.name)}
    updates = {name: [shift_update(run) for run in successful_runs(rows[name])] for name in studies}
    parts = [f"# Forecasts that follow the learning curve\n\n{NOTE}"]
    for name, study in studies.items():
        shipped = bundled_updates() if preset != "cpu" else [u for n, us in updates.items() if n != name for u in us]
        others = [update for update in shipped if update.cost.steps and update.features.task_index is None]
        parts.append(
            f"## {name}, {len(updates[name])} runs of {len({u.shift_type for u in updates[name]})} shift types"
        )
        for title, with_own in HISTORIES.items():
            scores: dict[tuple[int, str], list[ScoredForecast]] = {}
            for kind in dict.fromkeys(str(update.shift_type) for update in updates[name]):
                for runs, own, bundled in histories(updates[name], others, kind, with_own):
                    for landmark, by, score in scored_runs(runs, targets_of(study.targets, runs), own, bundled):
                        scores.setdefault((landmark, by), []).append(score)
            parts.append(f"### {title}\n\n{table(scores)}")
    return {"in-run": "\n\n".join(parts) + "\n"}


def targets_of(targets: Sequence[float], runs: Sequence[Update]) -> list[float]:
    """Return the target accuracies; relative ones are below the last, which the runs of an original model have."""
    last = runs[0].target_accuracy
    return [last + target - targets[-1] if targets[-1] < 0.0 else target for target in targets[: len(TARGET_NAMES)]]


if __name__ == "__main__":
    publish(__doc__, make, "shifts")
