"""``resque forecast``: what an update will cost, before anything is trained; with a budget, a gate."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resque.cli import options as opt
from resque.cli.loading import model_options, new_data, retrain_command, with_former_names
from resque.cli.output import append
from resque.errors import SettingError

if TYPE_CHECKING:
    from resque.energy.hardware import EmbodiedEmissions
    from resque.energy.price import Tariff
    from resque.forecasting.budget import Decision
    from resque.ledger.records import Forecast


def forecast(
    context: typer.Context,
    model: opt.Model,
    test: opt.Test,
    target_accuracy: opt.Target,
    original: Annotated[
        str | None,
        opt.option(opt.MODEL, "With --shifted, for the index: profile (.safetensors) or data before the shift."),
    ] = None,
    shifted: Annotated[str | None, opt.option(opt.MODEL, "New training data, of the same classes.")] = None,
    task: Annotated[
        str | None, opt.option(opt.MODEL, "Or: training data of a new task; takes one epoch to evaluate.")
    ] = None,
    extend: opt.Extend = False,
    shift_type: opt.ShiftType = None,
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    device: opt.Device = "cpu",
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    precision: opt.Precision = None,
    labels: opt.Labels = "true",
    recipe: opt.RecipeName = "retrain-adam",
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: opt.MaxEpochs = None,
    seed: opt.Seed = 0,
    pilot: Annotated[
        str | None,
        opt.option(
            opt.RECIPE,
            "Train the first steps: 100, or 5% of the longest run; `resque retrain --forecast` goes on from there.",
        ),
    ] = None,
    no_bundled: opt.NoBundled = False,
    confidence: Annotated[
        float,
        opt.option(
            opt.BUDGET, "Coverage of the intervals; probability to stay within the budget and reach the target."
        ),
    ] = 0.8,
    max_kwh: opt.MaxKwh = None,
    max_kg: opt.MaxKg = None,
    max_hours: opt.MaxHours = None,
    max_price: opt.MaxPrice = None,
    price_per_kwh: opt.PricePerKwh = 0.0,
    price_per_hour: opt.PricePerHour = 0.0,
    price_per_label: Annotated[
        float | None,
        opt.option(opt.BUDGET, "Price of labeling a sample; --max-price then includes the missing labels.", min=0.0),
    ] = None,
    currency: opt.Currency = "EUR",
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    embodied_kg: opt.EmbodiedKg = None,
    life_years: opt.LifeYears = None,
    ledger: opt.LedgerFile = opt.LEDGER,
    summary: Annotated[
        Path | None,
        opt.option(opt.OUTPUT, "Append the decision to this file, as Markdown.", envvar="GITHUB_STEP_SUMMARY"),
    ] = None,
    details: Annotated[
        bool, opt.option(opt.OUTPUT, "Show every cost, what the forecast rests on, and all notes.", "--details")
    ] = False,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Forecast every cost of an update with its interval, before anything is trained; with a budget, decide.

    Exit codes with a budget (--max-…): 0 within it, 3 beyond it, 4 not reliable enough to decide. Without one: 4 where
    fewer than five of your own updates are known, and no pilot makes the forecast reliable. --max-epochs also limits
    the run.

    Example: resque forecast --model net.py:build --original net.profile --shifted npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9
    """
    from resque.energy.hardware import embodied_emissions
    from resque.energy.price import Tariff
    from resque.errors import TooFewUpdatesError
    from resque.forecasting.budget import Budget, decide, exit_code
    from resque.reporting import markdown
    from resque.workflows import forecast as workflow

    if task is not None and opt.is_from_project(context, "original"):
        original = None
    train = new_data(shifted, task, extend)
    if task is not None and original is not None and not extend:
        raise SettingError("--task and --original conflict, because a new task has no original data: leave --original "
                           "out, add --extend, or name the new data by --shifted")  # fmt: skip
    tariff = Tariff(price_per_kwh, price_per_hour, currency, price_per_label)
    budget = Budget(max_kwh, max_kg, max_hours, max_epochs, max_price, tariff)
    page = summary if budget.is_given else None
    append(page, "")  # refused before anything costly is done
    hardware = embodied_emissions({"device": device}, embodied_kg, life_years)
    try:
        result = workflow.forecast(
            model, train, test, target_accuracy,
            original=original, new_task=task is not None and not extend, extend=extend, ledger=ledger,
            recipe=recipe, evaluate_every=evaluate_every, max_epochs=max_epochs, labels=labels,
            layer=layer, reduction=reduction, precision=precision, shift_type=shift_type, seed=seed,
            pilot=0 if pilot is None else pilot, level=confidence, budget=budget,
            bundled_history=not no_bundled, country=country, intensity=intensity, pue=pue,
            options=model_options(weights, classes, device, limit, data_root, download),
        )  # fmt: skip
    except TooFewUpdatesError as error:
        append(page, markdown.undecided_markdown(str(error)))
        raise
    decision = decide(result, budget) if budget.is_given else None
    _show(result, decision, hardware, tariff, as_json, details, page, retrain_command(context, result.id))
    raise typer.Exit(exit_code(result, decision))


def _show(
    result: "Forecast",
    decision: "Decision | None",
    hardware: "EmbodiedEmissions",
    tariff: "Tariff",
    as_json: bool,
    details: bool,
    page: Path | None,
    command: str,
) -> None:
    """Print a forecast and its decision, and append the decision to a Markdown page."""
    from resque.forecasting.price import price_with_labels
    from resque.reporting import console, markdown, tables

    price, missing = result.price, result.missing_labels
    of_labels = tariff.price_of_labels(missing.total)
    paid = price or price_with_labels(result, tariff)  # where labels alone have a price, theirs
    if as_json:
        low, high = (grams / 1000.0 for grams in hardware.during(result.estimates["wall_s"].value))
        more: dict[str, Any] = {"embodied": {"low_kg": low, "high_kg": high, "source": hardware.source}}
        more["decision"] = result.decision
        more["price"] = paid and {**console.to_json(paid), "currency": tariff.currency}
        more["labels"] = {"missing": missing.total, "price": of_labels, "currency": tariff.currency}
        more["gate"] = decision and dataclasses.asdict(decision)
        console.print_json({**with_former_names(console.to_json(result)), **more})
    else:
        tables.show_forecast(result, hardware, details)
        if result.pilot is not None:
            then = "goes on from the pilot" if result.pilot.stopped_by is None else "keeps its result"
            console.out.print(f"`{command}` {then}")
        if decision is not None:
            more_reasons = tuple(each for each in decision.reasons if each not in result.reliability_issues)
            tables.show_decision(dataclasses.replace(decision, reasons=more_reasons))
    if decision is not None:
        append(page, markdown.decision_markdown(result, decision, price, tariff.currency, of_labels))
