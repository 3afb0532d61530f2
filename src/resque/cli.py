"""The command line: parse → one call → print.

Only typer is imported here at the top; a command imports what it needs, so that ``--help`` is quick.
"""

import functools
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from resque import __version__, index_cli
from resque.errors import ResqueError, ResqueWarning, SettingError
from resque.inputs import (
    DATA_ROOT,
    LEDGER,
    Classes,
    Country,
    DataRoot,
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
    OwnReduction,
    Reader,
    RecipeName,
    Seed,
    Target,
    Weights,
    claim_folder,
    existing_ledger,
    profile_of,
)

_CHECKPOINTS = Path("updates") / "checkpoints"
INTERRUPTED = 130  # what typer makes of SIGINT

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


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"resque {__version__}")
        raise typer.Exit


@app.callback()
def start(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say it.")] = False,
) -> None:
    """What updating a deep learning classifier will cost: forecast before, measured after."""


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
        console.print_json({**facts, "ledger": str(outcome.ledger.path), "settlement": console.plain(summary)})
        return
    console.show_settled(settled)
    console.show_settlement(summary)
    console.out.print(f"energy: {wording.energy_line(updates[-1].energy)}; {wording.grid_line(grid)}")
    console.out.print(f"original model: accuracy {outcome.clean_accuracy:.3f}, in {out}; report: {report}")
    console.out.print(f"\n{wording.verdict(summary)}", style="bold")


@app.command()
def doctor(country: Country = None, intensity: Intensity = None, as_json: Json = False) -> None:
    """What meter, region, device and extras this machine offers.

    Example: resque doctor --country FRA
    """
    from resque import console, wording
    from resque import doctor as examination
    from resque.energy import named_grid, open_meter

    meter, grid = open_meter(), named_grid(country, intensity)
    facts = examination.facts(meter)
    if as_json:
        console.print_json({**facts, "region": console.plain(grid)})
        return
    console.show_facts({**facts, "region": wording.grid_line(grid)})
    for warning in examination.warnings(meter):
        console.warn(warning)


for _command in (index_cli.profile, index_cli.dist, index_cli.task):
    app.command()(_command)


@app.command()
def forecast(
    model: Model,
    original: Annotated[str, typer.Option(help="Profile (.safetensors) or data the model was trained on.")],
    shifted: Annotated[str, typer.Option(help="The new training data.")],
    test: Annotated[str, typer.Option(help="New data held out.")],
    target_accuracy: Target,
    weights: Weights = None,
    layer: Layer = None,
    reduction: OwnReduction = None,
    labels: Labels = "true",
    kind: Kind = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    confidence: Annotated[float, typer.Option(help="Nominal coverage of the intervals.")] = 0.8,
    country: Country = None,
    intensity: Intensity = None,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    classes: Classes = None,
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
    reader = Reader(model, weights, device, classes, limit, data_root)
    job = reader.job(shifted, test, target_accuracy, recipe, evaluate_every, max_epochs, kind=kind)
    network = reader.network(job.train)
    check_fits(network, job.train)
    check_fits(network, job.test)
    before = reader.original(network, original, layer, reduction)
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
    console.print_json(console.plain(made)) if as_json else console.show_forecast(made)


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
    reduction: OwnReduction = None,
    labels: Labels = "true",
    kind: Kind = None,
    recipe: RecipeName = "retrain-adam",
    evaluate_every: EvaluateEvery = None,
    max_epochs: MaxEpochs = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this very run was interrupted.")] = False,
    checkpoint_every: Annotated[float, typer.Option(help="Seconds between checkpoints.")] = 30.0,
    price_per_kwh: Annotated[float, typer.Option(help="Price of a kWh.")] = 0.0,
    price_per_hour: Annotated[float, typer.Option(help="Price of an hour of the machine.")] = 0.0,
    currency: Annotated[str, typer.Option(help="Of both prices.")] = "EUR",
    country: Country = None,
    intensity: Intensity = None,
    limit: Limit = None,
    data_root: DataRoot = DATA_ROOT,
    classes: Classes = None,
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
    from resque.checkpoints import Checkpoint
    from resque.energy import named_grid, open_meter
    from resque.layers import representation_layer
    from resque.ledger import Ledger
    from resque.models import fingerprint, save_weights
    from resque.readings import Tariff
    from resque.retraining import is_of
    from resque.retraining import retrain as run
    from resque.sci import software_carbon_intensity
    from resque.settling import check_settles

    history, grid = Ledger(ledger), named_grid(country, intensity)
    history.check_writable()
    if out is not None and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise SettingError(
            f"{out} holds something already: name a new folder with --out, so that no model is overwritten"
        )
    reader = Reader(model, weights, device, classes, limit, data_root)
    job = reader.job(
        train, test, target_accuracy, recipe, evaluate_every, max_epochs, original_test, kind=kind, seed=seed
    )
    network = reader.network(job.train, seed)
    for part in (job.train, job.test, *([] if job.original_test is None else [job.original_test])):
        check_fits(network, part)
    said = None if forecast is None else history.waiting(forecast)
    if said is not None:
        check_settles(network, job, said)
    before = None if original is None else reader.original(network, original, layer, reduction)
    features = said.features if said is not None else known_before(network, job, before, labels)[0]
    checkpoint, parent = Checkpoint(_CHECKPOINTS, checkpoint_every, resume), fingerprint(network)
    interrupted = checkpoint.path(parent, job).is_file()
    ended = (
        next((u.id for u in history.updates() if is_of(u, parent, job)), None) if resume and not interrupted else None
    )
    if ended is not None:
        raise SettingError(f"this very run has ended, as update {ended}: to do it again, leave --resume out")
    if interrupted != resume:
        console.warn(
            "no checkpoint of this very run: it begins anew"
            if resume
            else "this very run was interrupted before: --resume would have gone on; it begins anew"
        )
    chosen = representation_layer(network, layer or (before.origin.layer if before else None))
    claim_folder(out or Path("updates"))
    with console.progress("retraining") as show:
        update = run(
            network,
            job,
            meter=open_meter(),
            grid=grid,
            features=features,
            model_name=model,
            forecast_id=None if said is None else said.id,
            checkpoint=checkpoint,
            tariff=Tariff(price_per_kwh, price_per_hour, currency) if price_per_kwh or price_per_hour else None,
            watch=lambda at: show(at.step, at.max_steps, f"accuracy {at.accuracy:.4f}"),
        )
    history.add(update)  # first of all: the cost has been paid, whatever becomes of the files
    folder = out or Path("updates") / update.id
    save_weights(network, folder / "model.safetensors")
    if update.stopped_by == "diverged":
        console.warn("the run diverged: the updated model has no profile")
    else:
        same = (reduction or "flatten") if before is None else before.origin.reduction
        profile_of(network, job.train, chosen, same, "true").save(folder / "profile.safetensors")
    carbon = software_carbon_intensity(update)
    if as_json:
        more = {"folder": str(folder), "price": update.price, "sci": console.plain(carbon) if carbon else None}
        console.print_json({**console.plain(update), **more})
        return
    console.show_update(update, carbon)
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
        console.print_json({"updates": console.plain(updates), "forecasts": console.plain(forecasts), "settled": pairs})
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
    console.print_json(facts) if as_json else console.show_facts(facts)


def main() -> None:
    """Entry point: one line on stderr and an exit code for whatever goes wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ResqueWarning)
            warnings.showwarning = functools.partial(_show_warning, set())
            app()
    except ResqueError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _say("interrupted; the ledger holds finished updates only")
        raise
    except Exception as error:
        if os.environ.get("RESQUE_DEBUG"):
            raise
        _say(f"unexpected {type(error).__name__}: {error}; this is a bug: RESQUE_DEBUG=1 shows where")
        sys.exit(1)


def _show_warning(shown: set[str], message: Warning | str, kind: type[Warning], *where: Any) -> None:
    """Our own warnings are a line for users; those of others keep their form."""
    if not issubclass(kind, ResqueWarning):
        sys.stderr.write(warnings.formatwarning(message, kind, *where[:2]))
    elif str(message) not in shown:
        from resque import console

        shown.add(str(message))
        console.warn(str(message))


def _say(message: str) -> None:
    print(f"resque: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
