"""The command line: parse → one call → print.

Only typer is imported here at the top; a command imports what it needs, so that ``--help`` is quick.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from resque.errors import ResqueError, SettingError
from resque.inputs import (
    LEDGER,
    Country,
    Device,
    EvaluateEvery,
    Intensity,
    Json,
    Kind,
    Labels,
    Layer,
    LedgerFile,
    Limit,
    MaxEpochs,
    Model,
    RecipeName,
    Reduction,
    Seed,
    Target,
    Weights,
    existing_ledger,
    job_from,
    model_from,
    original_from,
    profile_of,
    warn_of_exposed,
)

app = typer.Typer(
    name="resque",
    help="What updating a deep learning classifier will cost: forecast before, measured after.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ledger_app = typer.Typer(help="The history of updates and forecasts.", no_args_is_help=True)
app.add_typer(ledger_app, name="ledger")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="A new folder for model, profile and ledger.")] = Path("demo-run"),
    report: Annotated[Path, typer.Option(help="The HTML report.")] = Path("report.html"),
    country: Country = None,
    intensity: Intensity = None,
    seed: Annotated[int, typer.Option(help="Of the original model.")] = 0,
    as_json: Json = False,
) -> None:
    """The main job on embedded real data: history, forecasts, updates, settlement.

    Example: resque demo --country FRA
    """
    from resque import console, wording
    from resque import demo as main_job
    from resque.energy import named_grid, open_meter
    from resque.report import write_report
    from resque.settling import settlement

    grid = named_grid(country, intensity)
    with console.progress("resque demo") as show:
        outcome = main_job.run(
            out,
            open_meter(),
            grid,
            seed=seed,
            watch=lambda stage: show(stage.done, stage.total, f"{stage.name} {stage.detail}"),
        )
    updates, settled = outcome.ledger.updates(), outcome.ledger.settled()
    summary = settlement(settled)
    write_report(report, updates, settled, summary, "What updating a digit classifier costs")
    if as_json:
        facts = {"clean_accuracy": outcome.clean_accuracy, "verdict": wording.verdict(summary), "report": str(report)}
        _print_json({**facts, "ledger": str(outcome.ledger.path), "settlement": _plain(summary)})
        return
    console.show_settled(settled)
    console.show_settlement(summary)
    console.out.print(f"energy: {wording.energy_line(updates[-1].energy)}; {wording.grid_line(grid)}")
    console.out.print(f"original model: accuracy {outcome.clean_accuracy:.3f}, in {out}; report: {report}")
    console.out.print(f"\n[bold]{wording.verdict(summary)}[/]")


@app.command()
def doctor(country: Country = None, intensity: Intensity = None, as_json: Json = False) -> None:
    """What meter, region, device and extras this machine offers.

    Example: resque doctor --country FRA
    """
    import importlib.util
    import platform

    import torch

    from resque import __version__, console, wording
    from resque.energy import named_grid, open_meter

    meter, grid = open_meter(), named_grid(country, intensity)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    methods = getattr(meter, "methods", {})
    facts: dict[str, Any] = {
        "resque": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "devices": ["cpu", *gpus],
        "threads": torch.get_num_threads(),
        "meter": meter.name,
        "energy": methods or "not measured: install resque[energy]",
        "region": _plain(grid),
        "extras": {name: importlib.util.find_spec(name) is not None for name in ("codecarbon",)},
    }
    if as_json:
        _print_json(facts)
        return
    console.show_facts({**facts, "region": wording.grid_line(grid)})
    if methods and "measured" not in methods.values():
        console.warn("no hardware counter is readable: energy is modelled or assumed, not measured")


@app.command()
def profile(
    model: Model,
    data: Annotated[str, typer.Option(help="The original data: digits, npz:FILE, idx:IMAGES,LABELS.")],
    out: Annotated[Path, typer.Option(help="The profile, .safetensors.")],
    weights: Weights = None,
    layer: Layer = None,
    reduction: Reduction = "flatten",
    labels: Labels = "true",
    limit: Limit = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """One pass over the original data; the profile travels with the model from then on.

    Example: resque profile --model net.py:build --weights net.safetensors --data digits@train --out net.profile
    """
    from resque import console
    from resque.data import load_data

    network = model_from(model, weights, device)
    made = profile_of(network, load_data(data, limit=limit), layer, reduction, labels)
    made.save(out)
    warn_of_exposed(made)
    facts = {"profile": str(out), "n": made.n, "classes": sorted(made.counts), "width": made.width, **vars(made.origin)}
    _print_json(facts) if as_json else console.show_facts(facts)


@app.command()
def dist(
    model: Model,
    original: Annotated[str, typer.Option(help="Profile (.safetensors) or data the model was trained on.")],
    shifted: Annotated[str, typer.Option(help="The new data.")],
    weights: Weights = None,
    layer: Layer = None,
    reduction: Annotated[str | None, typer.Option(help="flatten, mean or token-mean.")] = None,
    labels: Labels = "true",
    unit: Annotated[str, typer.Option(help="rad, or pi for fractions of pi.")] = "rad",
    debias: Annotated[bool, typer.Option(help="Correct for the angle that sampling noise adds.")] = False,
    undefined: Annotated[str, typer.Option(help="A class missing on one side: error or skip.")] = "error",
    limit: Limit = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """RESQUE_dist: the mean angle by which a shift turns each class.

    Example: resque dist --model net.py:build --original net.profile --shifted digits@test+gaussian:5
    """
    from resque import console
    from resque.data import load_data
    from resque.indices import resque_dist

    network = model_from(model, weights, device)
    before = original_from(network, original, layer, reduction, limit)
    origin = before.origin
    after = profile_of(
        network, load_data(shifted, limit=limit), layer or origin.layer, reduction or origin.reduction, labels
    )
    index = resque_dist(before, after, unit=unit, debias=debias, undefined=undefined)
    _print_json(_plain(index)) if as_json else console.show_index(index)


@app.command()
def forecast(
    model: Model,
    original: Annotated[str, typer.Option(help="Profile (.safetensors) or data the model was trained on.")],
    shifted: Annotated[str, typer.Option(help="The new training data.")],
    test: Annotated[str, typer.Option(help="New data held out.")],
    target_accuracy: Target,
    weights: Weights = None,
    layer: Layer = None,
    labels: Labels = "true",
    kind: Kind = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    confidence: Annotated[float, typer.Option(help="Nominal coverage of the intervals.")] = 0.8,
    country: Country = None,
    intensity: Intensity = None,
    limit: Limit = None,
    device: Device = "cpu",
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """Every cost of an update with its interval, before anything is trained.

    Example: resque forecast --model net.py:build --original net.profile --shifted npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9
    """
    from resque import console
    from resque import forecast as make_forecast
    from resque.asking import check_fits, known_before, price_of_asking, probe
    from resque.energy import named_grid, open_meter
    from resque.ledger import Ledger
    from resque.models import fingerprint

    history, grid = Ledger(ledger), named_grid(country, intensity)
    history.check_writable()
    network = model_from(model, weights, device)
    job = job_from(shifted, test, target_accuracy, recipe, evaluate_every, max_epochs, limit=limit, kind=kind)
    check_fits(network, job.train)
    check_fits(network, job.test)
    before = original_from(network, original, layer, None, limit)
    features, _, passes_s = known_before(network, job, before, labels)
    step_cost = probe(network, job.train, job.recipe, open_meter())
    made = make_forecast(
        history.updates(),
        job,
        features,
        step_cost=step_cost,
        asking=price_of_asking(passes_s, step_cost),
        parent=fingerprint(network),
        grid=grid,
        model_name=model,
        level=confidence,
    )
    history.add(made)
    _print_json(_plain(made)) if as_json else console.show_forecast(made)


@app.command()
def retrain(
    model: Model,
    train: Annotated[str, typer.Option(help="The new training data.")],
    test: Annotated[str, typer.Option(help="New data held out.")],
    target_accuracy: Target,
    weights: Weights = None,
    original: Annotated[str | None, typer.Option(help="Profile or data before the shift, for the index.")] = None,
    original_test: Annotated[str | None, typer.Option(help="Original data held out: what is forgotten?")] = None,
    forecast: Annotated[str | None, typer.Option(help="Id of the forecast that this update settles.")] = None,
    out: Annotated[Path | None, typer.Option(help="A new folder for the updated model and its profile.")] = None,
    layer: Layer = None,
    kind: Kind = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    country: Country = None,
    intensity: Intensity = None,
    limit: Limit = None,
    device: Device = "cpu",
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """Retrain to a target accuracy, measure every cost, write model, profile and ledger entry.

    Example: resque retrain --model net.py:build --weights net.safetensors --train npz:new.npz
    --test npz:new-test.npz --target-accuracy 0.9 --country FRA
    """
    from resque import console
    from resque.asking import check_fits, known_before
    from resque.data import load_data
    from resque.energy import named_grid, open_meter
    from resque.ledger import Ledger
    from resque.models import save_weights
    from resque.retraining import retrain as run
    from resque.settling import check_settles

    history, grid = Ledger(ledger), named_grid(country, intensity)
    history.check_writable()
    if out is not None and out.exists():
        raise SettingError(f"{out} exists already: name a new folder with --out, so that no model is overwritten")
    network = model_from(model, weights, device, seed)
    kept = None if original_test is None else load_data(original_test, limit=limit)
    job = job_from(
        train,
        test,
        target_accuracy,
        recipe,
        evaluate_every,
        max_epochs,
        limit=limit,
        kind=kind,
        seed=seed,
        original_test=kept,
    )
    for part in (job.train, job.test, *([] if kept is None else [kept])):
        check_fits(network, part)
    said = None if forecast is None else history.forecast(forecast)
    if said is not None:
        check_settles(network, job, said)
    before = None if original is None else original_from(network, original, layer, None, limit)
    features = said.features if said is not None else known_before(network, job, before)[0]
    with console.progress("retraining") as show:
        update = run(
            network,
            job,
            meter=open_meter(),
            grid=grid,
            features=features,
            model_name=model,
            forecast_id=None if said is None else said.id,
            watch=lambda at: show(at.step, at.max_steps, f"accuracy {at.accuracy:.4f}"),
        )
    folder = out or Path("updates") / update.id
    made = profile_of(network, job.train, layer, "flatten", "true")
    save_weights(network, folder / "model.safetensors")
    made.save(folder / "profile.safetensors")
    history.add(update)
    if as_json:
        _print_json({**_plain(update), "folder": str(folder)})
        return
    console.show_update(update)
    console.out.print(f"model and profile: {folder}; ledger: {ledger}")
    if said is not None:
        console.show_settled([(said, update)])


@ledger_app.command("list")
def ledger_list(ledger: LedgerFile = LEDGER, as_json: Json = False) -> None:
    """Every update, and the forecasts that still wait for theirs.

    Example: resque ledger list --ledger demo-run/resque.db
    """
    from resque import console

    history = existing_ledger(ledger)
    updates, forecasts, settled = history.updates(), history.forecasts(), history.settled()
    if as_json:
        pairs = [{"forecast": said.id, "update": update.id} for said, update in settled]
        _print_json({"updates": _plain(updates), "forecasts": _plain(forecasts), "settled": pairs})
        return
    console.show_ledger(updates, forecasts, settled)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """The ledger as one self-contained HTML file.

    Example: resque report --ledger demo-run/resque.db --out report.html
    """
    from resque import console, wording
    from resque.report import write_report
    from resque.settling import settlement

    history = existing_ledger(ledger)
    updates, settled = history.updates(), history.settled()
    summary = settlement(settled)
    write_report(out, updates, settled, summary)
    facts = {"report": str(out), "updates": len(updates), "settled": len(settled), "verdict": wording.verdict(summary)}
    _print_json(facts) if as_json else console.show_facts(facts)


def main() -> None:
    """Entry point: one line on stderr and an exit code for whatever this package refuses."""
    try:
        app()
    except ResqueError as error:
        print(f"resque: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("resque: interrupted; nothing was written", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _plain(value: Any) -> Any:
    from resque.records import to_plain

    return [_plain(item) for item in value] if isinstance(value, list) else None if value is None else to_plain(value)


def _print_json(facts: dict[str, Any]) -> None:
    print(json.dumps(facts, allow_nan=False))  # noqa: T201
