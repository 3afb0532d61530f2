"""``resque compare``: the ways to bring a model to a target beside each other, and which one to take."""

from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options as opt
from resque.cli.loading import candidates, model_options, new_data, retrain_command
from resque.cli.output import append


def compare(
    context: typer.Context,
    test: opt.Test,
    target_accuracy: opt.Target,
    model: Annotated[
        list[str] | None,
        opt.option(opt.MODEL, "Model to start from: NAME or NAME=WEIGHTS; may be repeated."),
    ] = None,
    models: Annotated[
        Path | None, opt.option(opt.MODEL, "TOML file of models to start from, beside those of --model.")
    ] = None,
    shifted: Annotated[str | None, opt.option(opt.MODEL, "New training data, of the same classes.")] = None,
    task: Annotated[str | None, opt.option(opt.MODEL, "Training data of a new task, whose classes are others.")] = None,
    extend: opt.Extend = False,
    original: Annotated[
        str | None,
        opt.option(opt.MODEL, "Original data, to be mixed in, or their profile (.safetensors); no new task has any."),
    ] = None,
    original_test: Annotated[
        str | None, opt.option(opt.MODEL, "Held-out original data: what each way forgets; no new task has any.")
    ] = None,
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
    recipe: opt.RecipeName = "retrain-adam",
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: opt.MaxEpochs = None,
    seed: opt.Seed = 0,
    max_minutes: Annotated[float, opt.option(opt.RECIPE, "Time for pilots.", min=0.0)] = 5.0,
    no_bundled: opt.NoBundled = False,
    confidence: Annotated[
        float, opt.option(opt.BUDGET, "Smallest chance that suffices, and coverage of the intervals.")
    ] = 0.8,
    max_kwh: opt.MaxKwh = None,
    max_kg: opt.MaxKg = None,
    max_hours: opt.MaxHours = None,
    max_price: opt.MaxPrice = None,
    price_per_kwh: opt.PricePerKwh = 0.0,
    price_per_hour: opt.PricePerHour = 0.0,
    price_per_label: Annotated[
        float | None, opt.option(opt.BUDGET, "Price of labeling a sample of the new training data.", min=0.0)
    ] = None,
    license_price: Annotated[
        list[str] | None, opt.option(opt.BUDGET, "Price of a model's license: MODEL=PRICE; may be repeated.")
    ] = None,
    currency: opt.Currency = "EUR",
    engine: opt.Engine = "local",
    address: opt.Address = None,
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    ledger: opt.LedgerFile = opt.LEDGER,
    details: Annotated[
        bool, opt.option(opt.OUTPUT, "Show every interval, and what each way keeps.", "--details")
    ] = False,
    summary: Annotated[
        Path | None,
        opt.option(opt.OUTPUT, "Append the comparison to this file, as Markdown.", envvar="GITHUB_STEP_SUMMARY"),
    ] = None,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Compare the ways to a target accuracy, and name the cheapest that suffices.

    What is nearly free is done on a copy; the others get pilots, the hopeless are dropped. Each way is a stored
    forecast: `resque retrain --forecast ID` carries it out from its pilot on. Of several models, forward passes choose
    a few. Exit codes with a budget (--max-…): 0 within it, 3 beyond it or nothing suffices, 4 not reliable enough.

    Example: resque compare --model net.py:build --weights net.safetensors --original npz:clean.npz
    --shifted npz:new.npz --test npz:new-test.npz --target-accuracy 0.9
    """
    from resque.energy.price import Tariff
    from resque.forecasting.budget import Budget
    from resque.reporting import comparisons, console
    from resque.workflows import compare as workflow
    from resque.workflows.inputs import is_profile

    if task is not None and opt.is_from_project(context, "original") and not (extend and not is_profile(original)):
        original = None
    if task is not None and not extend and opt.is_from_project(context, "original_test"):
        original_test = None
    train = new_data(shifted, task, extend)
    named = [] if models is not None and opt.is_from_project(context, "model") else model or []
    if opt.is_from_project(context, "weights") and (models is not None or len(named) > 1):
        weights = None
    tariff = Tariff(price_per_kwh, price_per_hour, currency, price_per_label)
    budget = Budget(max_kwh, max_kg, max_hours, None, max_price, tariff)
    append(summary, "")  # refused before anything costly is done
    result = workflow.compare(
        candidates(named, models, weights, license_price or []), train, test, target_accuracy,
        original=original, original_test=original_test, new_task=task is not None and not extend, extend=extend,
        ledger=ledger, recipe=recipe, evaluate_every=evaluate_every, max_epochs=max_epochs, max_minutes=max_minutes,
        layer=layer, reduction=reduction, precision=precision, shift_type=shift_type, seed=seed, level=confidence,
        bundled_history=not no_bundled, country=country, intensity=intensity, pue=pue, tariff=tariff,
        options=model_options(None, classes, device, limit, data_root, download), engine=engine, address=address,
    )  # fmt: skip
    decision = workflow.decide_comparison(result, ledger, budget) if budget.is_given else None
    if as_json:
        console.print_json(comparisons.to_json(result, decision))
    else:
        best = None if result.best is None else result.option(result.best)
        is_to_do = best is not None and best.recipe and not best.update_id
        command = retrain_command(context, str(result.best)) if is_to_do else ""
        comparisons.show(result, decision, details, command)
    append(summary, comparisons.to_markdown(result, decision))
    raise typer.Exit(0 if decision is None else decision.code)
