"""The commands of the ledger: list, show, settle, validate, export, import. Each is parse → one call → print."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from resque.cli.loading import open_existing_ledger
from resque.cli.options import LEDGER, Json, LedgerFile, Target

app = typer.Typer(help="The history of updates and forecasts.", no_args_is_help=True)


@app.command("list")
def ledger_list(ledger: LedgerFile = LEDGER, as_json: Json = False) -> None:
    """Every update, and the forecasts that still wait for theirs.

    Example: resque ledger list --ledger demo-run/resque.db
    """
    from resque.reporting import console, tables

    history = open_existing_ledger(ledger)
    updates, forecasts, settled = history.updates(), history.forecasts(), history.settled()
    if as_json:
        pairs = [{"forecast": said.id, "update": update.id} for said, update in settled]
        console.print_json(
            {"updates": console.to_json(updates), "forecasts": console.to_json(forecasts), "settled": pairs}
        )
        return
    tables.show_ledger(updates, forecasts, settled)


@app.command("show")
def ledger_show(
    entry: Annotated[str, typer.Argument(help="Id of an update or a forecast, or the beginning of it.")],
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """One update or forecast, and where it was settled the one beside the other.

    Example: resque ledger show 3f2a --ledger demo-run/resque.db
    """
    from resque.ledger.records import Update
    from resque.reporting import console, tables
    from resque.reporting.carbon_intensity import software_carbon_intensity

    history = open_existing_ledger(ledger)
    found = history.entry(entry)
    pairs = [pair for pair in history.settled() if found in pair]
    if as_json:
        said, done = pairs[0] if pairs else (None, found) if isinstance(found, Update) else (found, None)
        console.print_json({"update": console.to_json(done), "forecast": console.to_json(said)})
        return
    if isinstance(found, Update):
        tables.show_update(found, software_carbon_intensity(found))
    else:
        tables.show_forecast(found)
    if pairs:
        tables.show_settled(pairs)


@app.command("settle")
def ledger_settle(ledger: LedgerFile = LEDGER, as_json: Json = False) -> None:
    """Every forecast whose update is done beside what it came to, and how good forecasts were in all.

    A forecast is settled by `resque retrain --forecast ID`, or by `resque.record(forecast=ID)` in a loop of your own.

    Example: resque ledger settle --ledger demo-run/resque.db
    """
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.reporting import console, sentences, tables

    settled = open_existing_ledger(ledger).settled()
    summary = summarize_settlements(settled)
    if as_json:
        pairs = [{"forecast": said.id, "update": update.id} for said, update in settled]
        console.print_json(
            {**console.to_json(summary), "verdict": sentences.settlement_sentence(summary), "settled": pairs}
        )
        return
    if settled:
        tables.show_settled(settled)
        tables.show_settlement(summary)
    console.out.print(sentences.settlement_sentence(summary), style="bold")


@app.command("validate")
def ledger_validate(
    target_accuracy: Target,
    by: Annotated[
        str, typer.Option(help="Left out: shift-type, condition (a level of one), seed or model.")
    ] = "shift-type",
    confidence: Annotated[float, typer.Option(help="Nominal coverage of the intervals.")] = 0.8,
    bundled: Annotated[
        bool, typer.Option("--bundled-history/--no-bundled-history", help="Shape forecasts as `forecast` does.")
    ] = True,
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """What forecasts from this history would have been worth, beside simple ones.

    Example: resque ledger validate --target-accuracy 0.94 --ledger demo-run/resque.db
    """
    from resque.forecasting.evaluation.cross_validation import cross_validate
    from resque.ledger.bundled import bundled_updates
    from resque.reporting import console, tables

    history = open_existing_ledger(ledger)
    with console.progress("leaving out") as show:
        found = cross_validate(
            history.updates(),
            target_accuracy,
            "shift-type" if by == "kind" else by,
            confidence,
            bundled_updates() if bundled else (),
            on_progress=lambda done, total: show(done, total, by),
        )
    if as_json:
        console.print_json(
            {**console.to_json(found), "index_helps": found.index_helps, "bundled_helps": found.bundled_helps}
        )
        return
    tables.show_validation(found)


@app.command("export")
def ledger_export(
    form: Annotated[str, typer.Option("--format", help="jsonl (all of it), or csv (a row an update).")] = "jsonl",
    out: Annotated[Path | None, typer.Option(help="The file; default: stdout.")] = None,
    ledger: LedgerFile = LEDGER,
) -> None:
    """The whole ledger as JSON Lines, or its updates as CSV.

    Example: resque ledger export --format csv --out updates.csv
    """
    from resque.ledger.export import export

    lines = export(open_existing_ledger(ledger), form, out)
    sys.stdout.writelines(lines)


@app.command("import")
def ledger_import(
    source: Annotated[Path, typer.Argument(help="JSON Lines, mlruns, mlflow.db or emissions.csv.")],
    form: Annotated[str, typer.Option("--format", help="auto, jsonl, codecarbon or mlflow.")] = "auto",
    accuracy_metric: Annotated[str | None, typer.Option(help="MLflow's name of it; default: val_accuracy etc.")] = None,
    loss_metric: Annotated[str | None, typer.Option(help="MLflow's name of it; default: beside the accuracy.")] = None,
    percent: Annotated[bool, typer.Option("--percent", help="Accuracies were logged in percent.")] = False,
    step_unit: Annotated[
        str | None, typer.Option(help="What a logged step is: steps, epochs, epochs-from-0 (logged after epoch 0).")
    ] = None,
    steps_per_epoch: Annotated[int | None, typer.Option(help="Optimizer steps of an epoch.")] = None,
    experiment: Annotated[str | None, typer.Option(help="MLflow's; default: all.")] = None,
    energy: Annotated[Path | None, typer.Option(help="codecarbon's emissions.csv of the MLflow runs.")] = None,
    run: Annotated[str | None, typer.Option(help="Only this run: its name, or the beginning of its id.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps of a codecarbon run.")] = None,
    accuracy: Annotated[float | None, typer.Option(help="At the end of a codecarbon run.")] = None,
    accuracy_before: Annotated[float | None, typer.Option(help="And before its first step.")] = None,
    target_accuracy: Annotated[
        float | None, typer.Option(help="What was to be reached; default: the last one.")
    ] = None,
    shift_type: Annotated[str | None, typer.Option(help="Name of the kind of shift of these runs.")] = None,
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """Entries of another ledger, or runs that MLflow or codecarbon kept; all of them, or none.

    Example: resque ledger import mlruns --experiment "new scans" --energy emissions.csv
    """
    from resque.ledger.importers.conversion import ImportOptions
    from resque.ledger.importers.importer import import_updates
    from resque.ledger.store import Ledger
    from resque.reporting import console, tables

    said = ImportOptions(
        accuracy_metric=accuracy_metric,
        loss_metric=loss_metric,
        percent=percent,
        step_unit=step_unit,
        steps_per_epoch=steps_per_epoch,
        experiment=experiment,
        energy=energy,
        run=run,
        target_accuracy=target_accuracy,
        shift_type=shift_type,
        steps=steps,
        accuracy=accuracy,
        accuracy_before=accuracy_before,
    )
    found = import_updates(Ledger(ledger), source, form, said)
    if as_json:
        console.print_json({**console.to_json(found), "ledger": str(ledger)})
        return
    counts = {"new updates": len(found.updates), "new forecasts": len(found.forecasts), "there already": found.held}
    tables.show_facts({"format": found.source, "ledger": str(ledger), **counts})
    for name, why in found.skipped.items():
        console.warn(f"run {name} left out: {why}")
    for note in found.notes:
        console.warn(note)
