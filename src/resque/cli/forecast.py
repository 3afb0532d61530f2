"""The command that says what an update will cost, before anything is trained; with a budget, a gate."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from resque.cli.loading import InputLoader, task_features_with_progress
from resque.cli.options import (
    DATA_ROOT,
    LEDGER,
    Classes,
    Country,
    Currency,
    DataRoot,
    Device,
    EmbodiedKg,
    EvaluateEvery,
    Extend,
    Intensity,
    Json,
    Labels,
    Layer,
    LedgerFile,
    LifeYears,
    Limit,
    MaxEpochs,
    Model,
    OwnReduction,
    PricePerHour,
    PricePerKwh,
    Pue,
    RecipeName,
    Seed,
    ShiftType,
    Target,
    Weights,
)
from resque.errors import SettingError


def forecast(
    model: Model,
    test: Annotated[str, typer.Option(help="New data held out.")],
    target_accuracy: Target,
    original: Annotated[
        str | None, typer.Option(help="Profile (.safetensors) or data the model was trained on, with --shifted.")
    ] = None,
    shifted: Annotated[str | None, typer.Option(help="The new training data, of the same classes.")] = None,
    task: Annotated[str | None, typer.Option(help="Or: training data of a new task; costs an epoch to ask.")] = None,
    extend: Extend = False,
    weights: Weights = None,
    layer: Layer = None,
    reduction: OwnReduction = None,
    labels: Labels = "true",
    shift_type: ShiftType = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    confidence: Annotated[
        float, typer.Option(help="Of the intervals; of a budget: one-sided; of reaching the target.")
    ] = 0.8,
    max_kwh: Annotated[float | None, typer.Option(help="Gate: budget of energy.", min=0.0)] = None,
    max_kg: Annotated[float | None, typer.Option(help="Gate: budget of emissions, kg CO2e.", min=0.0)] = None,
    max_hours: Annotated[float | None, typer.Option(help="Gate: budget of training time.", min=0.0)] = None,
    max_price: Annotated[float | None, typer.Option(help="Gate: budget of money.", min=0.0)] = None,
    price_per_kwh: PricePerKwh = 0.0,
    price_per_hour: PricePerHour = 0.0,
    currency: Currency = "EUR",
    summary: Annotated[
        Path | None, typer.Option(help="Append the decision to this file, as Markdown.", envvar="GITHUB_STEP_SUMMARY")
    ] = None,
    bundled: Annotated[
        bool,
        typer.Option(
            "--bundled-history/--no-bundled-history", help="Let the history that ships with resque shape the forecast."
        ),
    ] = True,
    embodied_kg: EmbodiedKg = None,
    life_years: LifeYears = None,
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
    """Every cost of an update with its interval, before anything is trained; with a budget, a gate.

    Exit codes with a budget (--max-…): 0 within it, 3 beyond it, 4 not reliable enough to decide; without one 4 where
    own updates are too few. --max-epochs is the recipe's longest run, too.

    Example: resque forecast --model net.py:build --original net.profile --shifted npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9
    """
    from resque import forecast_from_features as make_forecast
    from resque.energy.grid import named_grid
    from resque.energy.hardware import embodied_emissions
    from resque.energy.meters import open_meter
    from resque.energy.price import Tariff
    from resque.energy.reading import join_readings
    from resque.errors import TooFewUpdatesError
    from resque.forecasting.budget import Budget, decide, exit_code
    from resque.forecasting.costs import price_estimate
    from resque.forecasting.forecaster import check_level
    from resque.indices.shift_features import shift_features
    from resque.ledger.bundled import bundled_updates
    from resque.ledger.store import Ledger
    from resque.models.inference import device_of
    from resque.models.weights import fingerprint
    from resque.reporting import console, tables
    from resque.reporting.markdown import decision_markdown as in_markdown
    from resque.reporting.markdown import undecided_markdown
    from resque.training.environment import describe_host
    from resque.training.evaluation import check_data_fits_model
    from resque.training.new_task import prepare_new_task
    from resque.training.probe import forecast_overhead, probe

    history, grid = Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    if (task is None) == (original is None) or (original is None) != (shifted is None) or (extend and not task):
        raise SettingError(
            "say what changes: --original and --shifted for new data, or --task (and --extend) for new classes"
        )
    tariff = Tariff(price_per_kwh, price_per_hour, currency)
    budget = Budget(max_kwh, max_kg, max_hours, max_epochs, max_price, tariff)
    page = summary if budget.is_given else None
    check_level(confidence)
    _append(page, "")  # refused before anything costly is done
    if task is not None and labels != "true":
        raise SettingError("a new task needs its labels: leave --labels out")
    reader = InputLoader(model, weights, device, classes, limit, data_root)
    job = reader.job(
        task or shifted or "",
        test,
        target_accuracy,
        recipe,
        evaluate_every,
        max_epochs,
        shift_type=shift_type,
        seed=seed,
    )
    network = reader.network(None if task else job.train, seed)
    if task:
        features, warm_up = task_features_with_progress(network, job, extend, layer, reduction)
        network, job = prepare_new_task(network, job, extend)
        step_cost = probe(network, job.train, job.recipe, open_meter())
        overhead = join_readings([warm_up, step_cost.reading])
    else:
        check_data_fits_model(network, job.train)
        check_data_fits_model(network, job.test)
        before = reader.original(network, original or "", layer, reduction)
        features, _, passes_s = shift_features(network, job, before, labels)
        step_cost = probe(network, job.train, job.recipe, open_meter())
        overhead = forecast_overhead(passes_s, step_cost)
    try:
        made = make_forecast(
            history.updates(),
            job,
            features,
            step_cost=step_cost,
            overhead=overhead,
            parent=job.parent or fingerprint(network),
            grid=grid,
            model_name=model,
            level=confidence,
            bundled=bundled_updates() if bundled else (),
        )
    except TooFewUpdatesError as error:
        _append(page, undecided_markdown(str(error)))
        raise
    history.add(made)
    decision = decide(made, budget) if budget.is_given else None
    hardware = embodied_emissions(describe_host(device_of(network)), embodied_kg, life_years)
    paid = price_estimate(made.estimates, tariff)
    if as_json:
        low, high = (grams / 1000.0 for grams in hardware.during(made.estimates["wall_s"].value))
        share = {"low_kg": low, "high_kg": high, "source": hardware.source}
        gate = decision and dataclasses.asdict(decision)
        money = paid and {**console.to_json(paid), "currency": currency}
        console.print_json({**console.to_json(made), "embodied": share, "price": money, "gate": gate})
    else:
        tables.show_forecast(made, hardware, paid, currency)
        if decision is not None:
            tables.show_decision(decision)
    if decision is not None:
        _append(page, in_markdown(made, decision, paid, currency))
    raise typer.Exit(exit_code(made, decision))


def _append(page: Path | None, text: str) -> None:
    if page is None:
        return
    try:
        with page.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"cannot write {str(page)!r}: {error.strerror}; name another with --summary") from error
