"""``resque plan``: when to update a model, from dated batches."""

from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options as opt
from resque.cli.loading import model_options, retrain_command
from resque.errors import SettingError


def plan(
    context: typer.Context,
    model: opt.Model,
    target_accuracy: Annotated[float, opt.option(opt.RECIPE, "Accuracy that each update is to reach, e.g. 0.94.")],
    batch: Annotated[
        list[str] | None,
        opt.option(opt.MODEL, "DATE=DATA, once for each window, the oldest first: 2026-01=npz:jan.npz."),
    ] = None,
    batches: Annotated[
        Path | None, opt.option(opt.MODEL, "Or a folder: 2026-01.npz, 2026-02.npz, or folders of images.")
    ] = None,
    original: Annotated[
        str | None, opt.option(opt.MODEL, "Profile (.safetensors) or data before the shift, for the index.")
    ] = None,
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    device: opt.Device = "cpu",
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    recipe: opt.RecipeName = "retrain-adam",
    evaluate_every: opt.EvaluateEvery = None,
    max_epochs: opt.MaxEpochs = None,
    seed: opt.Seed = 0,
    pilot: Annotated[
        str | None, opt.option(opt.RECIPE, "Train the first steps of an update now: 100, or 5% of the longest run.")
    ] = None,
    no_bundled: opt.NoBundled = False,
    floor: Annotated[float | None, opt.option(opt.BUDGET, "Lowest accuracy that you accept.")] = None,
    price_per_error: Annotated[float | None, opt.option(opt.BUDGET, "Price of a wrong prediction.")] = None,
    samples_per_window: Annotated[int | None, opt.option(opt.BUDGET, "Predictions from one batch to the next.")] = None,
    yearly_kwh: Annotated[float | None, opt.option(opt.BUDGET, "Limit of a year's energy.", min=0.0)] = None,
    yearly_kg: Annotated[
        float | None, opt.option(opt.BUDGET, "Limit of a year's operational emissions, kg CO2e.", min=0.0)
    ] = None,
    yearly_price: Annotated[
        float | None, opt.option(opt.BUDGET, "Limit of the price of a year's updates.", min=0.0)
    ] = None,
    confidence: Annotated[float, opt.option(opt.BUDGET, "Coverage of the intervals, confidence of a budget.")] = 0.8,
    price_per_kwh: opt.PricePerKwh = 0.0,
    price_per_hour: opt.PricePerHour = 0.0,
    price_per_label: Annotated[
        float | None, opt.option(opt.BUDGET, "Price of labeling a sample of an unlabeled batch.", min=0.0)
    ] = None,
    currency: opt.Currency = "EUR",
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Plan when to update: now, later or never; a year at several cadences.

    Each batch gives the index and the accuracy of its window, estimated where it has no labels. An update on the newest
    batch is forecast; `resque retrain --forecast ID` carries it out. Exit codes with a budget (--yearly-…): 0 within
    it, 3 beyond it, 4 not reliable enough to decide.

    Example: resque plan --model net.py:build --weights net.safetensors --original npz:clean.npz
    --batches months --target-accuracy 0.8 --floor 0.75
    """
    from resque.energy.price import Tariff
    from resque.forecasting.budget import Budget
    from resque.reporting import console, plans
    from resque.workflows import plan as workflow

    if (batches is None) == (batch is None):
        raise SettingError("name the batches: --batch DATE=DATA once for each window, or --batches FOLDER")
    tariff = Tariff(price_per_kwh, price_per_hour, currency, price_per_label)
    result = workflow.plan(
        model, workflow.parse_batches(batch) if batch else str(batches), target_accuracy,
        original=original, floor=floor, price_per_error=price_per_error, samples_per_window=samples_per_window,
        yearly=Budget(yearly_kwh, yearly_kg, None, None, yearly_price, tariff), tariff=tariff, ledger=ledger,
        recipe=recipe, evaluate_every=evaluate_every, max_epochs=max_epochs, layer=layer, reduction=reduction,
        seed=seed, pilot=0 if pilot is None else pilot, level=confidence, bundled_history=not no_bundled,
        country=country, intensity=intensity, pue=pue,
        options=model_options(weights, classes, device, limit, data_root, download),
    )  # fmt: skip
    if as_json:
        console.print_json(console.to_json(result))
    else:
        plans.show(result, retrain_command(context, result.now.forecast_id))
    raise typer.Exit(0 if result.budget is None else result.budget.code)
