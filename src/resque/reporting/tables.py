"""What a terminal shows: tables, sentences, progress. Numbers come in ready; nothing is computed here."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resque._format import (
    COST_NAMES,
    NOT_MEASURED,
    format_cost,
    format_interval,
    format_price,
    format_probability,
    format_share,
)
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.hardware import EmbodiedEmissions
from resque.indices.results import DistributionIndex, TaskIndex
from resque.ledger.records import COSTS, Estimate, Forecast, Update
from resque.reporting.carbon_intensity import SoftwareCarbonIntensity
from resque.reporting.console import out, table, warn
from resque.reporting.sentences import (
    carbon_sentence,
    covered_mark,
    energy_sentence,
    format_accuracies,
    format_correlation,
    format_error,
    format_forgetting,
    format_index,
    format_median,
    format_shift,
    grid_sentence,
    outcome_sentence,
    probability_sentence,
    revision_lines,
)

if TYPE_CHECKING:
    from resque.forecasting.budget import Decision
    from resque.forecasting.evaluation.cross_validation import CrossValidation
    from resque.forecasting.evaluation.settlement import Settlement
    from resque.training.from_scratch import ScratchComparison

_JUDGED = "<forecast by", "n", "median error", "within 2×", "ρ [95 %]", "Brier"


def show_index(index: DistributionIndex) -> None:
    """RESQUE_dist with everything it must not be told without."""
    out.print(f"RESQUE_dist {index.value:.4f} {index.unit}, layer {index.layer}, {index.reduction}")
    floor = NOT_MEASURED if index.floor is None else f"{index.floor:.4f} {index.unit}"
    sides = f"n {index.n_original:,} original ({index.labels_original} labels)"
    out.print(f"{sides}, {index.n_shifted:,} shifted ({index.labels} labels); floor {floor}")
    if index.skipped:
        there = f"{len(index.per_class) - index.skipped} of {len(index.per_class)} classes"
        out.print(f"mean of {there}: the others have no angle and are left out")
    within = index.interval
    if within is None:
        out.print("interval: not known, a class has too few samples to tell")
    else:
        out.print(f"{within.level:.0%} interval {within.low:.4f} to {within.high:.4f}: {within.guarantee}")
    if index.debiased:
        out.print(f"debiased from {index.sub_sums} sub-sums per class, classes drawn towards their mean")
    rows = table("class", f"angle [{index.unit}]")
    for label, angle in index.per_class.items():
        rows.add_row(str(label), NOT_MEASURED if angle is None else f"{angle:.4f}")
    out.print(rows)


def show_task(index: TaskIndex, grid: Grid | None) -> None:
    """RESQUE_task with everything it must not be told without, and the price of having asked."""
    form = "Lloyd to convergence" if index.lloyd else "each sample to its nearest class mean"
    out.print(
        f"RESQUE_task {index.value:.4f} ({index.unit}: 0 is best, 1 is chance), layer {index.layer}, {index.reduction}"
    )
    out.print(f"n {index.n:,}, {index.classes} classes; from {index.init}, {form}")
    if index.by_init:
        rows = table("<start", "RESQUE_task")
        for init, value in index.by_init.items():
            rows.add_row(init + (f" (least entropy of {index.keep})" if init == "random" else ""), f"{value:.4f}")
        out.print(rows)
        rows = table("<two starts", "agreement (ARI)")
        for pair, value in index.agreement.items():
            rows.add_row(pair, f"{value:.4f}")
        out.print(rows)
    asked = index.overhead
    if asked is None:
        return
    out.print(
        f"warm-up: {asked.head} head of {asked.outputs} outputs, {asked.steps} steps ({asked.epochs:.2g} epochs), "
        f"accuracy {asked.accuracy:.3f} on the same data afterwards"
    )
    parts = {"warm-up": asked.warm_up_s, "pass": asked.pass_s, "clustering": asked.clustering_s}
    spent = ", ".join(f"{name} {format_cost('wall_s', seconds)}" for name, seconds in parts.items())
    out.print(f"asking took {format_cost('wall_s', asked.energy.wall_s)} ({spent}), {energy_sentence(asked.energy)}")
    carbon = "" if asked.carbon_kg is None else f"{format_cost('carbon_kg', asked.carbon_kg)}; "
    out.print(f"carbon: {carbon}{grid_sentence(grid)}")


def show_forecast(
    made: Forecast, hardware: EmbodiedEmissions | None = None, paid: Estimate | None = None, currency: str = ""
) -> None:
    """A forecast: every cost with its interval, and what they rest on; the share of making the hardware beside it."""
    level = made.estimates["steps"].interval
    rows = table("<cost", "forecast", f"{level.level:.0%} interval")
    for cost, estimate in made.estimates.items():
        rows.add_row(
            COST_NAMES[cost],
            format_cost(cost, estimate.value),
            format_interval(cost, estimate.value, estimate.interval),
        )
    if paid is not None:
        rows.add_row("price", format_price(paid.value, currency), format_interval("", paid.value, paid.interval))
    out.print(f"Forecast {made.id}: {made.train_data} to accuracy {made.target_accuracy:g}")
    out.print(rows)
    now = made.features
    index = "not computed"
    if now.index_rad is not None:
        floor = NOT_MEASURED if now.floor_rad is None else f"{now.floor_rad:.4f}"
        index = f"{now.index_rad:.4f} rad (floor {floor}, layer {now.layer}, {now.reduction}, {now.labels} labels)"
    if now.task_index is None:
        out.print(f"index {index}, accuracy now {now.accuracy:.3f}, loss now {now.loss:.3f}")
    else:
        warm = now.scores.get("warm-up accuracy")
        after = "" if warm is None else f", test accuracy {warm:.3f} after the warm-up"
        out.print(f"RESQUE_task {now.task_index:.4f} (0 is best, 1 is chance){after}")
    out.print(
        f"chance of reaching the target within {made.max_steps:,} steps: {format_probability(made.probability_reached)}"
    )
    kinds = ", ".join(made.shift_types_history) or "none"
    shipped = f" and {made.n_bundled} of resque's own studies" if made.n_bundled else ""
    fixed = made.recipe.get("fixed_epochs") is not None or not made.alternatives
    runs = "" if fixed else "; the forecast is of runs that get there, the interval of all"
    out.print(f"of training alone, evaluation comes on top{runs}")
    if made.alternatives:
        learned = f"{made.n_history} update{'s' * (made.n_history != 1)} (kinds: {kinds}){shipped}"
        out.print(f"learned from {learned} by {made.predictor}; {level.guarantee}")
        out.print(f"time and energy: {made.estimates['wall_s'].interval.guarantee}")
    if "index" in made.alternatives:
        out.print(f"by the index alone: {format_cost('steps', made.alternatives['index'])} steps")
    out.print(
        f"asking took {format_cost('wall_s', made.overhead.wall_s)}, {energy_sentence(made.overhead)}; "
        f"{grid_sentence(made.grid)}"
    )
    if hardware is not None:
        low, high = (format_cost("carbon_kg", g / 1000.0) for g in hardware.during(made.estimates["wall_s"].value))
        out.print(f"making the hardware, its share of this time: {low} to {high} CO2e more ({hardware.source})")
    for note in made.notes:
        warn(note)
    for doubt in made.reliability_issues:
        warn(f"not reliable enough to decide: {doubt}")


def show_decision(decision: "Decision") -> None:
    """What the gate says, and why."""
    out.print(f"gate: {decision.verdict}", style="bold")
    for reason in decision.reasons:
        out.print(f"  {reason}")


def show_update(update: Update, carbon: SoftwareCarbonIntensity | None = None) -> None:
    """What an update took, and its Software Carbon SoftwareCarbonIntensity where it is known."""
    verdict = "reached" if update.reached else f"not reached, ended by {update.stopped_by}"
    said = f"accuracy {update.accuracy:.4f}, target {update.target_accuracy:g} {verdict}"
    out.print(f"Update {update.id}: {shorten_data(update.train_data)}: {said}")
    rows = table("<cost", "measured")
    for cost in COSTS:
        rows.add_row(COST_NAMES[cost], format_cost(cost, getattr(update.cost, cost)))
    rows.add_row(COST_NAMES["flops"], format_cost("flops", update.cost.flops))
    if update.tariff is not None:
        rows.add_row("price (whole run)", format_price(update.price, update.tariff.currency))
    apart = "evaluation, revisions (apart)" if update.revisions else "evaluation (apart)"
    rows.add_row(apart, format_cost("wall_s", update.evaluation_s))
    rows.add_row("forgotten", format_forgetting(update))
    out.print(rows)
    out.print(f"whole run with evaluation: {energy_sentence(update.energy)}; {grid_sentence(update.grid)}")
    if carbon is not None:
        out.print(carbon_sentence(carbon))
    if update.angle_to_parent_rad is not None:
        origin = (
            "" if update.angle_to_root_rad is None else f", {update.angle_to_root_rad:.4f} rad from the line's first"
        )
        out.print(f"its profile lies {update.angle_to_parent_rad:.4f} rad from its parent's{origin}")
    if update.peak_accuracy > update.accuracy:
        out.print(f"best accuracy on the way: {update.peak_accuracy:.4f}")
    if update.trainable_share is not None and update.trainable_share < 1.0:
        out.print(f"{100 * update.trainable_share:.3g} % of the parameters were trained")
    if update.resumed:
        out.print(f"interrupted and gone on: {update.resumed} time{'s' * (update.resumed > 1)}")
    if update.energy.note:
        warn(update.energy.note)


def show_comparison(found: "ScratchComparison") -> None:
    """Retraining beside training from scratch: medians over the seeds, and the ratio with its range."""
    n, (mine, theirs) = len(found.retrained), (found.retrained, found.scratch)
    data, target = shorten_data(mine[0].train_data), mine[0].target_accuracy
    out.print(f"Retraining beside training from scratch: {data} to accuracy {target:g}")
    rows = table("<cost (median)", "retrained", "from scratch", "ratio", "range")
    for cost, ratio in found.ratios.items():
        medians = [format_median(cost, side) for side in (mine, theirs)]
        shown = NOT_MEASURED if ratio is None else f"{ratio.bound} {ratio.median:.3g}".strip()
        span = NOT_MEASURED if ratio is None else f"{ratio.low:.3g}–{ratio.high:.3g}, n = {ratio.n}"
        rows.add_row(COST_NAMES[cost], *medians, shown, span)
    out.print(rows)
    for name, side in (("retrained", mine), ("from scratch", theirs)):
        reached = sum(update.reached for update in side)
        best = ", ".join(f"{update.peak_accuracy:.4f}" for update in side)
        others = ", ".join(sorted({update.stopped_by for update in side if not update.reached}))
        never = f", {'never' if not reached else 'others'} ended by {others}" if others else ""
        out.print(f"{name}: target reached in {format_share(reached, n)} runs{never}; best accuracy {best}")
    if not any(found.ratios.values()):
        out.print("no ratios: on both sides a run missed the target, so neither cost is known")


def show_settled(settled: Sequence[tuple[Forecast, Update]]) -> None:
    """Forecast, interval, measured and error, per update and cost."""
    out.print("Forecast beside measured", style="bold")
    for said, update in settled:
        out.print(f"\n{format_shift(update)}  index {format_index(update)}, forgot {format_forgetting(update)}")
        rows = table("<", "forecast", "interval", "measured", "error", "<held")
        for column, width in zip(rows.columns, (16, 10, 17, 10, 6, 4), strict=True):
            column.min_width = width
        for cost, estimate in said.estimates.items():
            measured = getattr(update.cost, cost)
            rows.add_row(
                COST_NAMES[cost],
                format_cost(cost, estimate.value),
                format_interval(cost, estimate.value, estimate.interval),
                format_cost(cost, measured) + ("" if update.reached else "+"),
                format_error(said, update, cost),
                covered_mark(said, update, cost),
            )
        out.print(rows)
        out.print(f"  {outcome_sentence(said, update)}")
        for line in revision_lines(update):
            out.print(f"  {line}")
    out.print("  forgot: accuracy on the original data, before and after")
    if any(not update.reached for _, update in settled):
        out.print("  + the target was not reached, so the cost of reaching it is larger than this")


def show_settlement(summary: "Settlement") -> None:
    """How many intervals held, per cost, and which predictor came closest."""
    rows = table("<cost", "intervals held", "median error", title="Per cost")
    for cost, (kept, judged) in summary.covered.items():
        error = summary.median_error.get(cost)
        rows.add_row(COST_NAMES[cost], format_share(kept, judged), NOT_MEASURED if error is None else f"{error:.0%}")
    out.print(rows)
    if summary.probability_score is not None:
        out.print(probability_sentence(summary))
    rows = table(
        "<forecast by", "n", "typically off by", "median error", "within factor 2", title="Steps, by predictor"
    )
    for score in summary.scores:
        off = f"factor {score.median_factor:.2f}"
        rows.add_row(score.predictor, str(score.n), off, f"{score.median_error:.0%}", f"{score.within_factor_2:.0%}")
    out.print(rows)


def show_validation(found: "CrossValidation") -> None:
    """Each predictor's word on updates that were left out."""
    replicate = (
        "no condition was run by two seeds"
        if found.seed_to_seed_error is None
        else f"another seed of the same condition is off by {found.seed_to_seed_error:.0%} "
        f"(n = {found.replicate_pairs})"
    )
    out.print(
        f"{found.updates} updates began below accuracy {found.target_accuracy:g}; {found.folds} {found.by}s, each left "
        f"out in turn; {replicate}"
    )
    rows = table(*_JUDGED, f"{found.level:.0%} held", "width", "score")
    for each in found.reports:
        held = each.coverage_interval
        rows.add_row(
            each.predictor,
            f"{each.reached}/{each.n}",
            f"{each.median_error:.0%}" if each.reached else NOT_MEASURED,
            f"{each.within_factor_2:.0%}" if each.reached else NOT_MEASURED,
            format_correlation(each),
            NOT_MEASURED if each.brier is None else f"{each.brier:.3f}",
            NOT_MEASURED if held is None else f"{each.coverage:.0%} [{held.low:.0%}, {held.high:.0%}]",
            NOT_MEASURED if each.log_width is None else f"×{math.exp(each.log_width):.3g}",
            NOT_MEASURED if each.interval_score is None else f"{each.interval_score:.2f}",
        )
    out.print(rows)
    out.print(
        "n: reached/all; errors of those that reached; Brier: of the chance of reaching; held: [clustered by kind]"
    )
    out.print("width: upper over lower end, median; score: mean interval score in log steps, smaller is better")
    if found.excluded:
        out.print(f"{found.excluded} updates of another change (new tasks beside shifts) are not judged here")
    for name, each in zip(("before", "renewed"), found.revised, strict=False):
        if not each.reached:
            continue
        intervals = "" if each.coverage is None else f", held {each.coverage:.0%}, score {each.interval_score:.2f}"
        out.print(
            f"{each.n} runs were not over after an epoch; {name}: median error {each.median_error:.0%}, "
            f"within 2× {each.within_factor_2:.0%}{intervals}"
        )
    if found.curve_error is not None:
        out.print(f"forecast learning curves are typically {100 * found.curve_error:.1f} points of accuracy off")
    for sentence in found.advice:
        out.print(sentence)


def show_ledger(
    updates: Sequence[Update], forecasts: Sequence[Forecast], settled: Sequence[tuple[Forecast, Update]]
) -> None:
    """The history, a line each, and the forecasts that still wait."""
    rows = table("<update", "<data", "index", "accuracy", "steps", "time", "energy", "CO2e")
    for column in rows.columns:
        column.no_wrap, column.overflow = column.header != "data", "fold"
    for update in updates:
        costs = (
            format_cost(name, getattr(update.cost, name)) for name in ("steps", "wall_s", "energy_kwh", "carbon_kg")
        )
        index = update.features.index_rad
        rows.add_row(
            update.id[:6],
            shorten_data(update.train_data),
            NOT_MEASURED if index is None else f"{index:.3f}",
            f"{format_accuracies(update, 2, '→')}{'' if update.reached else '*'}",
            *costs,
        )
    out.print(rows)
    out.print("index in rad; accuracy before → after, * where the target was not reached; full names: --json")
    done = {said.id for said, _ in settled}
    waiting = [made for made in forecasts if made.id not in done]
    counts = f"{len(updates)} updates; forecasts: {len(forecasts)}"
    out.print(f"{counts}, of them {len(settled)} settled and {len(waiting)} waiting")
    for made in waiting:
        steps = made.estimates["steps"]
        out.print(
            f"  {made.id}  {made.train_data}: {format_cost('steps', steps.value)} steps "
            f"({format_interval('steps', steps.value, steps.interval)})"
        )


def show_facts(facts: dict[str, Any]) -> None:
    """Names and values, one a line."""
    rows = table("<", "<")
    rows.show_header = False
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        rows.add_row(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    out.print(rows)
