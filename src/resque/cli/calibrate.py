"""The command that makes a history of the user's own model and data, and says beforehand what that costs."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli.loading import InputLoader, profile_with_progress
from resque.cli.options import (
    CHECKPOINTS,
    DATA_ROOT,
    LEDGER,
    Classes,
    Country,
    DataRoot,
    Device,
    EvaluateEvery,
    Intensity,
    Json,
    Layer,
    LedgerFile,
    Limit,
    Model,
    OwnReduction,
    Pue,
    RecipeName,
    Seed,
    Weights,
)
from resque.errors import DataError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from resque.data.dataset import LabeledDataset
    from resque.energy.grid import Grid
    from resque.indices.profile import Profile
    from resque.ledger.records import Update
    from resque.workflows.calibration import CalibrationCost, CalibrationPlan


def calibrate(
    model: Model,
    data: Annotated[str, typer.Option(help="Images that the model was trained on, or images like them.")],
    weights: Weights = None,
    original: Annotated[
        str | None, typer.Option(help="Profile or data the model was trained on; default: a part of --data.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(help="Such images held out; default: 30 % of --data, fair if not trained on.")
    ] = None,
    target_accuracy: Annotated[
        float | None, typer.Option(help="Accuracy to reach on the shifted test data; default: 3 % below the clean one.")
    ] = None,
    updates: Annotated[int, typer.Option(help="How many retrainings.")] = 12,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: Annotated[
        int | None, typer.Option(help="The longest run; default: the recipe's own, or 20 (or 1,000 steps).")
    ] = None,
    seed: Seed = 0,
    layer: Layer = None,
    reduction: OwnReduction = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would do and cost; train nothing.")] = False,
    max_hours: Annotated[float | None, typer.Option(help="Budget: refuse if it may take longer.", min=0.0)] = None,
    max_kwh: Annotated[float | None, typer.Option(help="Budget: refuse if it may take more.", min=0.0)] = None,
    country: Country = None,
    intensity: Intensity = None,
    pue: Pue = 1.0,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    classes: Classes = None,
    device: Device = "cpu",
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """A history for forecasts: short retrainings on synthetic shifts of your own data, into the ledger.

    Every kind and level of shift is looked at by passes alone; those that begin below the target and span the index are
    retrained for. It says beforehand what that costs at most. Killed and run again it goes on. Exit code 3: the most it
    may take is beyond a budget; nothing was trained.

    Example: resque calibrate --model net.py:build --weights net.safetensors --data npz:clean.npz --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.forecasting.budget import BEYOND
    from resque.ledger.store import Ledger
    from resque.reporting import console
    from resque.training.checkpoint import Checkpoint
    from resque.training.evaluation import check_data_fits_model, evaluate_dataset
    from resque.training.recipe import named_recipe
    from resque.workflows.calibration import (
        CalibrationRequest,
        default_target,
        plan_calibration,
        run_calibration,
        shorten_recipe,
    )

    history, grid = Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    meter = open_meter()
    if max_kwh is not None and not meter.methods:
        raise SettingError(
            "a budget in kWh needs a meter that knows energy: install resque[energy], or use --max-hours"
        )
    reader = InputLoader(model, weights, device, classes, limit, data_root)
    named_recipe(recipe, evaluate_every, max_epochs)  # refused before anything is read
    parts = _parts(reader, data, test)
    network = reader.network(parts[1], seed)
    for part in parts[1:]:
        check_data_fits_model(network, part)
    clean, _ = evaluate_dataset(network, parts[2])
    request = CalibrationRequest(
        train=parts[1],
        test=parts[2],
        original=_profile(reader, network, original, parts[0], layer, reduction),
        target_accuracy=default_target(clean) if target_accuracy is None else target_accuracy,
        recipe=shorten_recipe(named_recipe(recipe, evaluate_every), len(parts[1]), max_epochs),
        updates=updates,
        seed=seed,
        model_name=model,
    )
    with console.progress("planning") as show:
        planned = plan_calibration(
            network, request, meter=meter, grid=grid, history=history.updates(), on_progress=show
        )
    reasons = _beyond(planned.at_most, max_hours, max_kwh)
    if not as_json:
        _show_plan(planned, grid, "3 % below the " if target_accuracy is None else "")
    if request.target_accuracy > clean:
        console.warn(f"the target lies above the clean accuracy {clean:.3f}: many runs may never reach it")
    done: Sequence[Update] = ()
    if not dry_run and not reasons:
        checkpoint = Checkpoint(CHECKPOINTS, resume=True)
        with console.progress("calibrating") as show:
            done = run_calibration(
                network, planned, history, meter=meter, grid=grid, checkpoint=checkpoint, on_progress=show
            )
    if as_json:
        console.print_json(_plain(planned, done, reasons, ledger))
    elif done:
        _show_updates(done)
        new = {"original": original or parts[0].name, "shifted": "NEW", "test": "NEW-HELD-OUT"}
        options = {"model": model, "weights": weights, **new, "target-accuracy": request.target_accuracy}
        longest = "" if max_epochs is None else f",max_epochs={max_epochs}"  # --max-epochs would make it a gate
        more: dict[str, Any] = {
            "recipe": f"{recipe}{longest}",
            "evaluate-every": evaluate_every,
            "layer": layer,
        }
        more |= {"reduction": reduction, "classes": classes, "country": country, "intensity": intensity}
        more["pue"] = pue if pue != 1.0 else None
        _show_next(done, {**options, **more, "ledger": ledger})
    for reason in reasons:
        console.warn(f"beyond budget, nothing was trained: {reason}")
    if reasons:
        raise typer.Exit(BEYOND)


def _parts(reader: InputLoader, data: str, test: str | None) -> "tuple[LabeledDataset, LabeledDataset, LabeledDataset]":
    """Where class sums come from, what is trained on, what is tested on."""
    from resque.data.spec import mixture_parts
    from resque.workflows.calibration import split_for_calibration

    if len(mixture_parts(data)) > 1:
        raise DataError(
            f"{data}: synthetic shifts are made of one source; name one of these, or put them in one archive"
        )
    return split_for_calibration(reader.data(data), None if test is None else reader.data(test))


def _profile(
    reader: InputLoader,
    network: "nn.Module",
    original: str | None,
    part: "LabeledDataset",
    layer: str | None,
    reduction: str | None,
) -> "Profile":
    if original is not None:
        return reader.original(network, original, layer, reduction)
    return profile_with_progress(network, part, layer, reduction or "flatten", "true")


def _beyond(at_most: "CalibrationCost", max_hours: float | None, max_kwh: float | None) -> list[str]:
    """Which budgets the most that it may take does not keep to."""
    held = [("h", at_most.wall_s / 3600.0, max_hours), ("kWh", at_most.energy_kwh, max_kwh)]
    return [
        f"up to {value:.3g} {unit}, and the budget is {budget:g}; ask for fewer --updates or --max-epochs"
        for unit, value, budget in held
        if value is not None and budget is not None and value > budget
    ]


def _show_plan(planned: "CalibrationPlan", grid: "Grid | None", default: str) -> None:
    from resque import _format
    from resque.data.spec import shorten_data
    from resque.reporting import console, sentences

    request, rows = planned.request, console.table("<shift", "index", "accuracy", "at most", "typically", "<done")
    for run in planned.runs:
        rows.add_row(
            run.shift,
            f"{run.features.index_rad:.3f}",
            f"{run.features.accuracy:.3f}",
            f"{run.max_steps:,} steps",
            _format.format_cost("steps", run.expected_steps),
            run.done or "",
        )
    console.out.print(
        f"Calibration to accuracy {request.target_accuracy:g} ({default}clean accuracy {planned.clean_accuracy:.3f}): "
        f"{len(planned.candidates)} of {planned.shifts} synthetic shifts begin below it, {len(planned.runs)} are chosen"
    )
    console.out.print(rows)
    console.out.print(
        f"training: {shorten_data(request.train.name)}, at most {request.recipe.max_epochs} epochs; "
        f"test: {shorten_data(request.test.name)}; index in rad"
    )
    for name, bill in (("at most", planned.at_most), ("typically, by the ledger", planned.typical)):
        if bill is not None and bill.runs:
            console.out.print(f"{name}: {_bill_line(bill)}")
    if not planned.at_most.runs:
        console.out.print("nothing is left to be done: the ledger holds them all")
    console.out.print(
        f"planning took {_format.format_cost('wall_s', planned.overhead.wall_s)}; a step takes "
        f"{_format.format_cost('wall_s', planned.step_cost.wall_s)} and "
        f"{_format.format_cost('energy_kwh', planned.step_cost.energy_kwh)}, "
        f"measured over {planned.step_cost.steps} steps "
        f"({sentences.format_methods(planned.step_cost.reading)}); {sentences.grid_sentence(grid)}"
    )


def _bill_line(bill: "CalibrationCost") -> str:
    from resque import _format

    parts = {"wall_s": bill.wall_s, "energy_kwh": bill.energy_kwh, "carbon_kg": bill.carbon_kg}
    shown = ", ".join(_format.format_cost(name, value) for name, value in parts.items() if value is not None)
    looks = _format.format_cost("wall_s", bill.evaluation_s)
    return f"{shown} ({bill.runs} retrainings, {bill.steps:,} steps; {looks} of it evaluation)"


def _show_updates(updates: "Sequence[Update]") -> None:
    from resque import _format
    from resque.reporting import console, sentences

    costs = "steps", "wall_s", "energy_kwh", "carbon_kg"
    rows = console.table("<update", "<shift", "index", "accuracy", *(_format.COST_NAMES[cost] for cost in costs))
    for update in updates:
        known = (_format.format_cost(cost, getattr(update.cost, cost)) for cost in costs)
        reached = sentences.format_accuracies(update) + ("" if update.reached else "*")
        rows.add_row(update.id[:6], sentences.format_shift(update), sentences.format_index(update), reached, *known)
    console.out.print(rows)
    if not all(update.reached for update in updates):
        console.out.print("* the target was not reached: a forecast counts it as longer than this")


def _show_next(updates: "Sequence[Update]", options: dict[str, Any]) -> None:
    """What can be asked now, or why nothing can."""
    from resque.forecasting.reliability import FEWEST_REACHED
    from resque.reporting import console

    reached = sum(update.reached for update in updates)
    if reached < FEWEST_REACHED:
        console.warn(
            f"{reached} of {len(updates)} runs reached the target; a forecast needs {FEWEST_REACHED}: run it again "
            "with a lower --target-accuracy, or more --max-epochs"
        )
        return
    given = (part for name, value in options.items() if value is not None for part in (f"--{name}", str(value)))
    console.out.print(f"{reached} of {len(updates)} runs reached the target. A forecast can be asked for now:")
    console.out.print(f"resque forecast {shlex.join(given)}", soft_wrap=True)


def _plain(planned: "CalibrationPlan", updates: "Sequence[Update]", reasons: list[str], ledger: Path) -> dict[str, Any]:
    from resque.reporting import console

    request = planned.request
    said = {name: console.to_json(getattr(planned, name)) for name in ("step_cost", "at_most", "typical", "overhead")}
    return {
        "target_accuracy": request.target_accuracy,
        "clean_accuracy": planned.clean_accuracy,
        "train_data": request.train.name,
        "test_data": request.test.name,
        "shifts": planned.shifts,
        "candidates": console.to_json(list(planned.candidates)),
        "runs": console.to_json(list(planned.runs)),
        **said,
        "beyond_budget": reasons,
        "updates": console.to_json(list(updates)),
        "ledger": str(ledger),
    }
