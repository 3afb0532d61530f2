"""Terminal output of calibration runs: the plan with its cost, the runs that were done, what to do next."""

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from resque._display import Display
from resque._format import COST_NAMES, NOT_MEASURED, format_beside, format_cost
from resque.data.spec import shorten_data
from resque.ledger.records import Update
from resque.reporting.console import out, show, to_json, warn
from resque.reporting.displays import MAIN_COSTS
from resque.reporting.sentences import format_index, format_methods, format_shift, grid_sentence

if TYPE_CHECKING:
    from resque.energy.grid import Grid
    from resque.workflows.calibration_defaults import Targets
    from resque.workflows.calibration_outcome import CalibrationResult, Readiness, RunOutcome
    from resque.workflows.calibration_plan import CalibrationCost, CalibrationPlan

__all__ = ["plan_as_json", "show_plan", "show_result"]


def show_plan(plan: "CalibrationPlan", grid: "Grid | None", is_default_target: bool) -> None:
    """Show the candidates for calibration runs and an upper bound on the cost.

    Args:
        plan: Result of :func:`resque.workflows.calibration_plan.plan_calibration`.
        grid: Electricity grid that the cost is computed with.
        is_default_target: Whether the target is 3 % below the clean accuracy because none was named.
    """
    request, below = plan.request, "3 % below the clean" if is_default_target else "clean"
    title = (
        f"Calibration to accuracy {_format_targets(request.targets)} ({below} accuracy {plan.clean_accuracy:.3f}): "
        f"{plan.below} of {plan.evaluated} synthetic shifts start below {request.below:.3f}, {len(plan.shifts)} are "
        f"candidates for {request.updates} runs"
    )
    rows = []
    for each in plan.shifts:
        index, accuracy = each.features.index_rad or 0.0, each.features.accuracy or 0.0
        rows.append(
            (each.shift, f"{index:.3f}", f"{accuracy:.3f}", plan.done[each.shift].id if each.shift in plan.done else "")
        )
    lines = [
        f"training data: {shorten_data(request.train.name)}, at most {request.recipe.max_epochs} epochs; "
        f"test data: {shorten_data(request.test.name)}, whose noise is {request.target_accuracy - request.below:.3f}; "
        "index in rad"
    ]
    if plan.like is not None:
        lines.append(f"chosen around {shorten_data(plan.like_name)}, {_describe_like(plan)}")
    if plan.at_most.runs:
        lines.append(f"at most: {_format_cost(plan.at_most)}")
    else:
        lines.append("All runs are in the ledger: nothing is left to do.")
    step = plan.step_cost
    step_cost = f"{format_cost('wall_s', step.wall_s)} and {format_cost('energy_kwh', step.energy_kwh)}"
    lines += [
        f"planning took {format_cost('wall_s', plan.overhead.wall_s)}; one step takes {step_cost}, measured over "
        f"{step.steps} steps ({format_methods(step.reading)})",
        f"carbon: {grid_sentence(grid)}",
    ]
    show(Display(title, ("shift", "index", "accuracy", "done"), rows, lines))


def show_result(plan: "CalibrationPlan", result: "CalibrationResult", options: Mapping[str, Any]) -> None:
    """Show each calibration run with its costs and what it tells of the targets, and what to do next.

    Args:
        plan: Plan of the calibration.
        result: Its runs.
        options: Options of the command that makes a forecast; None is left out.
    """
    runs, outcomes, targets = result.runs, result.outcomes, plan.request.targets
    rows = []
    for update, outcome in zip(runs.updates, outcomes, strict=True):
        costs = (format_cost(cost, getattr(update.cost, cost)) for cost in MAIN_COSTS)
        known = format_shift(update), format_index(update), _accuracies(update, targets)
        rows.append((update.id[:6], *known, _describe_outcome(update, outcome, targets), *costs))
    columns = "update", "shift", "index", "accuracy", "outcome", *(COST_NAMES[cost] for cost in MAIN_COSTS)
    informative = sum(outcome.is_informative for outcome in outcomes)
    reached = sum(outcome.reached is not None for outcome in outcomes)
    lines = [
        f"{informative} of {len(rows)} runs are informative: {reached} started below a target of "
        f"{_format_targets(targets)} and reached it, {informative - reached} ended below all of them (a lower bound of "
        f"the cost)",
        f"no further run: {runs.ended}",
    ]
    show(Display("Calibration runs", columns, rows, lines, text_columns=2))
    if result.readiness is not None:
        labels = None if plan.like is None or plan.like.labels != "pseudo" else "pseudo"
        command = {**options, "target-accuracy": plan.request.target_accuracy, "labels": labels}
        _show_next_command(result.readiness, command)


def _show_next_command(readiness: "Readiness", options: Mapping[str, Any]) -> None:
    """Show the command that makes a forecast now, or what is missing and the command that does without."""
    for reason in readiness.missing:
        warn(f"not reliable yet {reason}")
    given = dict(options)
    if readiness.targets:
        given["target-accuracy"] = readiness.targets[-1]
        targets = _format_targets((readiness.targets[0], readiness.targets[-1]))
        out.print(f"A forecast can be asked for now, at accuracy {targets}, of updates like {readiness.asked}:")
    else:
        given["pilot"] = 100
        out.print("Without more runs, the first steps of the update itself may decide:")
    words = (part for name, value in given.items() if value is not None for part in (f"--{name}", str(value)))
    out.print(f"resque forecast {shlex.join(words)}", soft_wrap=True)


def plan_as_json(plan: "CalibrationPlan", result: "CalibrationResult | None") -> dict[str, Any]:
    """Return a plan and the runs that were done, ready for JSON.

    Args:
        plan: The plan.
        result: Its runs; None after a dry run.
    """
    runs = None if result is None else result.runs
    return {
        "target_accuracy": plan.request.target_accuracy,
        "targets": list(plan.request.targets),
        "clean_accuracy": plan.clean_accuracy,
        "train_data": plan.request.train.name,
        "test_data": plan.request.test.name,
        "evaluated": plan.evaluated,
        "below": plan.below,
        "candidates": to_json(list(plan.shifts)),
        "like": to_json(plan.like),
        "done": {shift: update.id for shift, update in plan.done.items()},
        **{name: to_json(getattr(plan, name)) for name in ("step_cost", "at_most", "overhead")},
        "updates": [] if runs is None else to_json(list(runs.updates)),
        "outcomes": [] if result is None else to_json(list(result.outcomes)),
        "ended": None if runs is None else runs.ended,
        "beyond_budget": [runs.ended] if runs is not None and runs.is_refused else [],
        "readiness": None if result is None else to_json(result.readiness),
    }


def _accuracies(update: Update, targets: "Targets") -> str:
    """Return the accuracy before a run, and the best of it, which decides."""
    before = update.features.accuracy
    start = NOT_MEASURED if before is None else format_beside(before, *targets)
    return f"{start}→{format_beside(update.peak_accuracy, *targets)}"


def _describe_outcome(update: Update, outcome: "RunOutcome", targets: "Targets") -> str:
    if outcome.gave_up:
        return "given up"
    if outcome.reached is not None:
        return f"reached {format_beside(outcome.reached, *targets)}"
    return f"below, {update.stopped_by}" if outcome.is_informative else "within noise"


def _describe_like(plan: "CalibrationPlan") -> str:
    assert plan.like is not None
    estimated = "" if plan.like.labels != "pseudo" else " (estimated, no labels)"
    accuracy = "unknown" if plan.like.accuracy is None else f"{plan.like.accuracy:.3f}{estimated}"
    return f"accuracy {accuracy}, index {plan.like.index_rad or 0.0:.3f}"


def _format_targets(targets: "Targets") -> str:
    low, high = targets
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"


def _format_cost(cost: "CalibrationCost") -> str:
    parts = {"wall_s": cost.wall_s, "energy_kwh": cost.energy_kwh, "carbon_kg": cost.carbon_kg}
    shown = ", ".join(format_cost(name, value) for name, value in parts.items() if value is not None)
    evaluation = format_cost("wall_s", cost.evaluation_s)
    return f"{shown} ({cost.runs} calibration runs, {cost.steps:,} steps; {evaluation} of it evaluation)"
