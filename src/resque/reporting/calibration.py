"""Terminal output of calibration runs: the plan with its cost, the runs that were done, what to do next."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resque._display import Display
from resque._format import COST_NAMES, format_cost
from resque.data.spec import shorten_data
from resque.forecasting.reliability import FEWEST_REACHED
from resque.ledger.records import Update
from resque.reporting.console import out, show, to_json, warn
from resque.reporting.displays import MAIN_COSTS
from resque.reporting.sentences import format_accuracies, format_index, format_methods, format_shift, grid_sentence

if TYPE_CHECKING:
    from resque.energy.grid import Grid
    from resque.workflows.calibration_runs import CalibrationCost, CalibrationPlan

__all__ = ["plan_as_json", "show_calibration_runs", "show_next_command", "show_plan"]


def show_plan(plan: "CalibrationPlan", grid: "Grid | None", is_default_target: bool) -> None:
    """Show the chosen calibration runs and an upper bound on their cost.

    Args:
        plan: What :func:`resque.workflows.calibration_runs.plan_calibration` returned.
        grid: Electricity grid that the cost is computed with.
        is_default_target: Whether the target is 3 % below the clean accuracy because none was named.
    """
    request, below = plan.request, "3 % below the clean" if is_default_target else "clean"
    title = (
        f"Calibration to accuracy {request.target_accuracy:g} ({below} accuracy {plan.clean_accuracy:.3f}): "
        f"{len(plan.candidates)} of {plan.shifts} synthetic shifts start below it, {len(plan.runs)} are chosen"
    )
    rows = []
    for run in plan.runs:
        known = f"{run.features.index_rad:.3f}", f"{run.features.accuracy:.3f}", f"{run.max_steps:,}"
        rows.append((run.shift, *known, format_cost("steps", run.expected_steps), run.done or ""))
    lines = [
        f"training data: {shorten_data(request.train.name)}, at most {request.recipe.max_epochs} epochs; "
        f"test data: {shorten_data(request.test.name)}; index in rad"
    ]
    for name, cost in (("at most", plan.at_most), ("expected from the ledger", plan.typical)):
        if cost is not None and cost.runs:
            lines.append(f"{name}: {_format_cost(cost)}")
    if not plan.at_most.runs:
        lines.append("All runs are in the ledger: nothing is left to do.")
    step = plan.step_cost
    step_cost = f"{format_cost('wall_s', step.wall_s)} and {format_cost('energy_kwh', step.energy_kwh)}"
    lines += [
        f"planning took {format_cost('wall_s', plan.overhead.wall_s)}; one step takes {step_cost}, measured over "
        f"{step.steps} steps ({format_methods(step.reading)})",
        f"carbon: {grid_sentence(grid)}",
    ]
    show(Display(title, ("shift", "index", "accuracy", "max steps", "expected steps", "done"), rows, lines))


def show_calibration_runs(updates: Sequence[Update]) -> None:
    """Show each calibration run with its costs."""
    rows = []
    for update in updates:
        costs = (format_cost(cost, getattr(update.cost, cost)) for cost in MAIN_COSTS)
        accuracy = format_accuracies(update, 2, "→") + ("" if update.reached else "*")
        rows.append((update.id[:6], format_shift(update), format_index(update), accuracy, *costs))
    columns = "update", "shift", "index", "accuracy", *(COST_NAMES[cost] for cost in MAIN_COSTS)
    reached = all(update.reached for update in updates)
    lines = [] if reached else ["* target not reached: a forecast treats the cost as a lower bound"]
    show(Display("Calibration runs", columns, rows, lines, text_columns=2))


def show_next_command(updates: Sequence[Update], options: Mapping[str, Any]) -> None:
    """Show the command that makes a forecast from these runs, or why none can be made.

    Args:
        updates: The calibration runs.
        options: Options of that command; None is left out.
    """
    reached = sum(update.reached for update in updates)
    if reached < FEWEST_REACHED:
        warn(
            f"{reached} of {len(updates)} runs reached the target; a forecast needs {FEWEST_REACHED}: calibrate again "
            "with a lower --target-accuracy, or more --max-epochs"
        )
        return
    given = (part for name, value in options.items() if value is not None for part in (f"--{name}", str(value)))
    out.print(f"{reached} of {len(updates)} runs reached the target. Next, make a forecast:")
    out.print(f"resque forecast {shlex.join(given)}", soft_wrap=True)


def plan_as_json(plan: "CalibrationPlan", updates: Sequence[Update], reasons: Sequence[str]) -> dict[str, Any]:
    """Return a plan and the runs that were done, ready for JSON.

    Args:
        plan: The plan.
        updates: Runs that were done.
        reasons: Budgets that the plan may exceed.
    """
    costs = {name: to_json(getattr(plan, name)) for name in ("step_cost", "at_most", "typical", "overhead")}
    return {
        "target_accuracy": plan.request.target_accuracy,
        "clean_accuracy": plan.clean_accuracy,
        "train_data": plan.request.train.name,
        "test_data": plan.request.test.name,
        "shifts": plan.shifts,
        "candidates": to_json(list(plan.candidates)),
        "runs": to_json(list(plan.runs)),
        **costs,
        "beyond_budget": list(reasons),
        "updates": to_json(list(updates)),
    }


def _format_cost(cost: "CalibrationCost") -> str:
    parts = {"wall_s": cost.wall_s, "energy_kwh": cost.energy_kwh, "carbon_kg": cost.carbon_kg}
    shown = ", ".join(format_cost(name, value) for name, value in parts.items() if value is not None)
    evaluation = format_cost("wall_s", cost.evaluation_s)
    return f"{shown} ({cost.runs} calibration runs, {cost.steps:,} steps; {evaluation} of it evaluation)"
