"""The command that says what an update will cost, before anything is trained; with a budget, a gate."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from resque.errors import SettingError
from resque.inputs import (
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
    Kind,
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
    Reader,
    RecipeName,
    Seed,
    Target,
    Weights,
    warmed_up,
)


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
    kind: Kind = None,
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
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="Let the history that ships with resque shape the forecast.")
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
    from resque import console
    from resque import forecast as make_forecast
    from resque.asking import check_fits, known_before, price_of_asking, probe
    from resque.energy import joined, named_grid, open_meter
    from resque.errors import TooFewUpdatesError
    from resque.estimates import price_of
    from resque.forecasting import check_level
    from resque.gate import Budget, code_of, decide, undecided
    from resque.gate import summary as in_markdown
    from resque.ledger import Ledger
    from resque.models import fingerprint
    from resque.prior import shipped
    from resque.readings import Tariff
    from resque.representations import device_of
    from resque.retraining import host
    from resque.sci import embodied_of
    from resque.tasks import for_task

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
    reader = Reader(model, weights, device, classes, limit, data_root)
    job = reader.job(
        task or shifted or "", test, target_accuracy, recipe, evaluate_every, max_epochs, kind=kind, seed=seed
    )
    network = reader.network(None if task else job.train, seed)
    if task:
        features, warm_up = warmed_up(network, job, extend, layer, reduction)
        network, job = for_task(network, job, extend)
        step_cost = probe(network, job.train, job.recipe, open_meter())
        asking = joined([warm_up, step_cost.reading])
    else:
        check_fits(network, job.train)
        check_fits(network, job.test)
        before = reader.original(network, original or "", layer, reduction)
        features, _, passes_s = known_before(network, job, before, labels)
        step_cost = probe(network, job.train, job.recipe, open_meter())
        asking = price_of_asking(passes_s, step_cost)
    try:
        made = make_forecast(
            history.updates(),
            job,
            features,
            step_cost=step_cost,
            asking=asking,
            parent=job.parent or fingerprint(network),
            grid=grid,
            model_name=model,
            level=confidence,
            prior=shipped() if prior else (),
        )
    except TooFewUpdatesError as error:
        _append(page, undecided(str(error)))
        raise
    history.add(made)
    decision = decide(made, budget) if budget.is_given else None
    hardware = embodied_of(host(device_of(network)), embodied_kg, life_years)
    paid = price_of(made.estimates, tariff)
    if as_json:
        low, high = (grams / 1000.0 for grams in hardware.during(made.estimates["wall_s"].value))
        share = {"low_kg": low, "high_kg": high, "source": hardware.source}
        gate = decision and dataclasses.asdict(decision)
        money = paid and {**console.plain(paid), "currency": currency}
        console.print_json({**console.plain(made), "embodied": share, "price": money, "gate": gate})
    else:
        console.show_forecast(made, hardware, paid, currency)
        if decision is not None:
            console.show_decision(decision)
    if decision is not None:
        _append(page, in_markdown(made, decision, paid, currency))
    raise typer.Exit(code_of(made, decision))


def _append(page: Path | None, text: str) -> None:
    if page is None:
        return
    try:
        with page.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(f"cannot write {str(page)!r}: {error.strerror}; name another with --summary") from error
