"""``resque retrain``: do an update, measure every cost, keep the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque._processes import current_processes
from resque.cli import options as opt
from resque.cli.loading import model_options, with_former_names
from resque.errors import SettingError

if TYPE_CHECKING:
    from resque.energy.hardware import EmbodiedEmissions
    from resque.forecasting.budget import Budget
    from resque.ledger.records import Update
    from resque.training.from_scratch import ScratchComparison
    from resque.workflows.update import UpdateRequest


def retrain(
    context: typer.Context,
    model: Annotated[str | None, opt.option(opt.MODEL, f"{opt.MODELS}; default: the forecast's.")] = None,
    train: Annotated[str | None, opt.option(opt.MODEL, "New training data; default: the forecast's.")] = None,
    test: Annotated[str | None, opt.option(opt.MODEL, "Held-out new data; default: the forecast's.")] = None,
    target_accuracy: Annotated[
        float | None, opt.option(opt.RECIPE, "Accuracy to reach on the test data; default: the forecast's.")
    ] = None,
    weights: opt.Weights = None,
    original: Annotated[str | None, opt.option(opt.MODEL, "Profile or data before the shift, for the index.")] = None,
    original_test: Annotated[
        str | None, opt.option(opt.MODEL, "Held-out original data, to measure forgetting.")
    ] = None,
    new_head: Annotated[bool, opt.option(opt.MODEL, "New task: a new head for its classes.", "--new-head")] = False,
    extend: opt.Extend = False,
    shift_type: opt.ShiftType = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    device: opt.Device = "cpu",
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    labels: opt.Labels = "true",
    recipe: Annotated[
        str | None,
        opt.option(opt.RECIPE, "As of `resque forecast`; default: the forecast's, else retrain-adam."),
    ] = None,
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: opt.MaxEpochs = None,
    seed: Annotated[
        int | None,
        opt.option(
            opt.RECIPE, "Seed of random initial weights and of the data order; default: that of the pilot, else 0."
        ),
    ] = None,
    from_scratch: Annotated[
        bool, opt.option(opt.RECIPE, "Also train from scratch to the same target, and compare.", "--from-scratch")
    ] = False,
    scratch_recipe: Annotated[
        str | None, opt.option(opt.RECIPE, "Recipe from scratch; default: the paper's rates for the same optimizer.")
    ] = None,
    seeds: Annotated[
        int | None, opt.option(opt.RECIPE, "Pairs of retraining and scratch, from --seed on; default: 3.", min=1)
    ] = None,
    confidence: Annotated[
        float,
        opt.option(
            opt.BUDGET, "Confidence with which a limit ends the run: that it will be exceeded, or the target missed."
        ),
    ] = 0.95,
    max_kwh: opt.MaxKwh = None,
    max_kg: opt.MaxKg = None,
    max_hours: opt.MaxHours = None,
    max_price: opt.MaxPrice = None,
    price_per_kwh: opt.PricePerKwh = 0.0,
    price_per_hour: opt.PricePerHour = 0.0,
    currency: opt.Currency = "EUR",
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    embodied_kg: opt.EmbodiedKg = None,
    life_years: opt.LifeYears = None,
    forecast: Annotated[
        str | None,
        opt.option(opt.OUTPUT, "Id of the forecast that this update settles; what is left out is taken from it."),
    ] = None,
    out: Annotated[Path | None, opt.option(opt.OUTPUT, "New folder for the updated model and its profile.")] = None,
    resume: Annotated[bool, opt.option(opt.OUTPUT, "Continue this run where it was interrupted.", "--resume")] = False,
    checkpoint_every: Annotated[float, opt.option(opt.OUTPUT, "Seconds between checkpoints.", min=0.0)] = 30.0,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Retrain to a target accuracy, measure every cost, write model, profile and ledger entry.

    With a limit (--max-kwh, --max-kg, --max-hours, --max-price) the run ends as soon as its revised forecast says that
    it will exceed it or miss the target. That is a complete entry and exit code 0. Without --forecast, one is made.

    Under torchrun all processes train together; the recipe's batch size is that of all.

    Example: resque retrain --model net.py:build --weights net.safetensors --train npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9 --country FRA
    """
    from resque.energy.hardware import embodied_emissions
    from resque.energy.price import Tariff
    from resque.ledger.identifiers import utc_now
    from resque.workflows.update import UpdateRequest

    if not from_scratch and (seeds is not None or scratch_recipe is not None):
        raise SettingError("--seeds and --scratch-recipe belong to --from-scratch: add it, or leave them out")
    if new_head or extend:
        (original,) = _given(context, original=original)
    if new_head:
        (original_test,) = _given(context, original_test=original_test)
    named: dict[str, Any] = {
        "model": model, "train": train, "test": test, "target_accuracy": target_accuracy, "weights": weights,
        "original": original, "original_test": original_test, "layer": layer, "reduction": reduction,
    }  # fmt: skip
    named, defaults = _named(context, forecast, named)
    if forecast is not None:  # which has them
        recipe, evaluate_every = _given(context, recipe=recipe, evaluate_every=evaluate_every)
    limits = {"max_kwh": max_kwh, "max_kg": max_kg, "max_hours": max_hours, "max_price": max_price}
    budget = _budget(context, limits, from_scratch)
    tariff = Tariff(price_per_kwh, price_per_hour, currency) if price_per_kwh or price_per_hour else None
    hardware = embodied_emissions({"device": device}, embodied_kg, life_years)
    request = UpdateRequest(
        forecast=forecast, new_task=new_head, extend=extend, ledger=ledger, out=out, resume=resume,
        checkpoint_every_s=checkpoint_every, recipe=recipe, evaluate_every=evaluate_every, max_epochs=max_epochs,
        labels=labels, shift_type=shift_type, seed=seed, country=country, intensity=intensity, pue=pue, tariff=tariff,
        budget=budget, confidence=confidence, defaults=defaults,
        options=model_options(named.pop("weights"), classes, device, limit, data_root, download), **named,
    )  # fmt: skip
    if from_scratch:
        begun = utc_now()
        result = request.run_beside_scratch(seeds or 3, scratch_recipe)
        folder = request.folder(result.retrained[0]) if result.retrained[0].created_utc >= begun else None
        _show_comparison(result, folder, request, hardware, as_json)
    else:
        _show_update(request.run(), request, hardware, as_json)


def _given(context: typer.Context, **values: Any) -> list[Any]:
    """Return values of options; None for those that come from the project file."""
    return [None if opt.is_from_project(context, name) else value for name, value in values.items()]


def _named(
    context: typer.Context, forecast: str | None, values: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that are typed, and those of the project file, before which a forecast goes.

    Raises:
        BadParameter: There is no forecast, and an update needs what is not named.
    """
    if forecast is not None:
        return dict(zip(values, _given(context, **values), strict=True)), values
    needed = "model", "train", "test", "target_accuracy"
    if lacking := [f"--{name.replace('_', '-')}" for name in needed if values[name] is None]:
        raise typer.BadParameter(f"missing {', '.join(lacking)}; or name a forecast that has them, --forecast ID")
    return values, {}


def _budget(context: typer.Context, limits: dict[str, Any], from_scratch: bool) -> "Budget":
    """Return the budget of the run; one of the project file does not end a comparison with scratch."""
    from resque.forecasting.budget import Budget

    if from_scratch:
        limits = dict(zip(limits, _given(context, **limits), strict=True))
    budget = Budget(**limits)
    source = context.get_parameter_source("confidence")
    if not budget.is_given and source is not None and source.name == "COMMANDLINE":
        raise SettingError("--confidence belongs to a limit: add one, such as --max-kwh, or leave it out")
    return budget


def _show_update(result: "Update", request: "UpdateRequest", hardware: "EmbodiedEmissions", as_json: bool) -> None:
    """Print an update, where its files are, and the forecast that it settles."""
    from resque.reporting import console, tables
    from resque.reporting.carbon_intensity import software_carbon_intensity
    from resque.training.new_task import EXTENSION, NEW_TASK

    folder = request.folder(result)
    if as_json:
        console.print_json({**_update_as_json(result, hardware), "folder": str(folder)})
        return
    tables.show_update(result, software_carbon_intensity(result, hardware))
    console.out.print(f"model and profile: {folder}; ledger: {request.ledger}")
    if result.shift_type in (NEW_TASK, EXTENSION):
        console.out.print("The head is new: name the same --model with these --weights, which tell its outputs.")
    if result.forecast_id is not None and current_processes().rank == 0:
        tables.show_settled([(request.history.forecast(result.forecast_id), result)])


def _show_comparison(
    result: "ScratchComparison",
    folder: Path | None,
    request: "UpdateRequest",
    hardware: "EmbodiedEmissions",
    as_json: bool,
) -> None:
    """Print retraining beside training from scratch; without a folder, the first model was kept before."""
    from resque.reporting import console, tables

    if as_json:
        pairs = {"retrained": result.retrained, "scratch": result.scratch}
        sides: dict[str, Any] = {
            side: [_update_as_json(update, hardware) for update in updates] for side, updates in pairs.items()
        }
        ratios = {cost: console.to_json(ratio) for cost, ratio in result.ratios.items()}
        console.print_json({**sides, "ratios": ratios, "folder": folder and str(folder)})
        return
    tables.show_comparison(result)
    where = f"in {folder}" if folder else f"kept before, as update {result.retrained[0].id}"
    console.out.print(f"model of the first retraining: {where}; ledger: {request.ledger}")


def _update_as_json(result: "Update", hardware: "EmbodiedEmissions") -> dict[str, Any]:
    from resque.reporting import console
    from resque.reporting.carbon_intensity import software_carbon_intensity

    carbon = software_carbon_intensity(result, hardware)
    record = with_former_names(console.to_json(result))
    notes = [] if result.forgetting is None else [result.forgetting]
    return {**record, "notes": notes, "price": result.price, "sci": carbon and console.to_json(carbon)}
