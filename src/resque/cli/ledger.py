"""``resque ledger``: list, show, life, void, settle, validate, export, import."""

import random
import sys
from pathlib import Path
from typing import Annotated

import typer

from resque._format import printable
from resque.cli import options as opt
from resque.cli.loading import open_existing_ledger, with_former_names
from resque.cli.values import CheckedCommand
from resque.errors import SettingError

app = typer.Typer(help="Show and exchange the history of updates and forecasts.", no_args_is_help=True)
SHOWN = 100
MLFLOW = "MLflow runs"
CODECARBON = "Codecarbon runs"


@app.command("list", cls=CheckedCommand)
def ledger_list(
    last: Annotated[
        int | None, opt.option(opt.OUTPUT, "Only so many of the newest; default: 100, with --json all.")
    ] = None,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """List the updates, the forecasts that are pending, what was asked without one, and the void entries.

    Of a question that was asked again, the newest forecast is pending.

    Example: resque ledger list --ledger demo-run/resque.db
    """
    from resque.ledger.questions import waiting_forecasts
    from resque.reporting import console, tables

    if last is not None and last < 1:
        raise SettingError(f"--last {last}: expected 1 or more")
    history = open_existing_ledger(ledger)
    if not as_json:
        last = last or SHOWN
        recent, counts = 2 * last, history.count()  # a question is asked again soon, and a ledger may be long
        pending = history.forecasts(pending=True, last=recent)
        waiting = waiting_forecasts(pending, history.settled(last=recent))
        counts["pending"] = counts["forecasts"] - counts["settled"] - (len(pending) - len(waiting))
        more = history.voids(), counts, history.questions()
        tables.show_ledger(history.updates(last=last), waiting[-last:], *more)
        return
    records = {
        "updates": [with_former_names(console.to_json(update)) for update in history.updates(last=last)],
        "forecasts": [with_former_names(console.to_json(forecast)) for forecast in history.forecasts(last=last)],
    }
    pairs = [{"forecast": forecast_id, "update": update_id} for forecast_id, update_id in history.settled_ids()]
    questions, voids = ([console.to_json(each) for each in found] for found in (history.questions(), history.voids()))
    console.print_json({**records, "settled": pairs, "questions": questions, "void": voids})


@app.command("show", cls=CheckedCommand)
def ledger_show(
    entry: Annotated[str, typer.Argument(help="Id of an update or a forecast, or the beginning of it.")],
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Show one update or forecast; where it is settled, forecast and measured side by side.

    Example: resque ledger show 3f2a --ledger demo-run/resque.db
    """
    from resque.ledger.records import Update
    from resque.reporting import console, tables
    from resque.reporting.carbon_intensity import software_carbon_intensity

    history = open_existing_ledger(ledger)
    found = history.entry(entry)
    void = next((tombstone for tombstone in history.voids() if tombstone.id == found.id), None)
    pair = None if void else history.pair_of(found)
    if as_json:
        forecast, update = pair or ((None, found) if isinstance(found, Update) else (found, None))
        records = {"update": update, "forecast": forecast}
        shown = {name: record and with_former_names(console.to_json(record)) for name, record in records.items()}
        console.print_json({**shown, "void": void and console.to_json(void)})
        return
    if void:
        console.warn(f"{void.entry} {void.id} is void since {void.created_utc[:10]} and counts nowhere: {void.why}")
    if isinstance(found, Update):
        tables.show_update(found.asked_by(pair[0] if pair else None), software_carbon_intensity(found))
    else:
        tables.show_forecast(found, details=True)
    if pair:
        tables.show_settled([pair])


@app.command("void", cls=CheckedCommand)
def ledger_void(
    entry: Annotated[str, typer.Argument(help="Id of an update or a forecast, or the beginning of it.")],
    why: Annotated[str, opt.option(opt.OUTPUT, "Reason, which is stored.")],
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Withdraw an update or forecast that was wrong: it stays in the ledger with the reason, and counts nowhere.

    A forecast that a void update settled is open again.

    Example: resque ledger void 3f2a --why "wrong test data"
    """
    from resque.ledger.records import Update
    from resque.reporting import console, tables

    history = open_existing_ledger(ledger)
    found = history.entry(entry)
    tombstone = history.void(found.id, why)
    heirs = history.descendants(found) if isinstance(found, Update) else []
    opened = found.forecast_id if isinstance(found, Update) else None
    reopened = opened if opened and any(f.id == opened for f in history.forecasts(pending=True)) else None
    if as_json:
        print_void = {"reopened": reopened, "descendants": [heir.id for heir in heirs]}
        console.print_json({**console.to_json(tombstone), **print_void})
        return
    tables.show_facts({"void": f"{tombstone.entry} {tombstone.id}", "why": why, "open again": reopened or "none"})
    for heir in heirs:
        console.warn(f"update {heir.id} ({heir.model}) descends from the model of the void update")


@app.command("settle", cls=CheckedCommand)
def ledger_settle(ledger: opt.LedgerFile = opt.LEDGER, project: opt.Project = None, as_json: opt.Json = False) -> None:
    """Compare every settled forecast with its update, and summarize how good the forecasts were.

    `resque retrain --forecast ID` settles a forecast, or `resque.record(forecast=ID)` in a custom training loop.

    Example: resque ledger settle --ledger demo-run/resque.db
    """
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.reporting import console, sentences, tables

    settled = open_existing_ledger(ledger).settled()
    summary = summarize_settlements(settled)
    verdict = sentences.settlement_sentence(summary)
    if as_json:
        pairs = [{"forecast": forecast.id, "update": update.id} for forecast, update in settled]
        console.print_json({**console.to_json(summary), "verdict": verdict, "settled": pairs})
        return
    if settled:
        tables.show_settled(settled)
        tables.show_settlement(summary)
    console.out.print(verdict, style="bold")


@app.command("life", cls=CheckedCommand)
def ledger_life(
    yearly_kwh: Annotated[
        float | None, opt.option(opt.BUDGET, "Energy budget of a year, for all model lines together.", min=0.0)
    ] = None,
    price_per_kwh: opt.PricePerKwh = 0.0,
    price_per_hour: opt.PricePerHour = 0.0,
    currency: opt.Currency = "EUR",
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Sum up the life of each model line: original training, updates, questions, and what is left of a year's budget.

    A line is a root model and all its descendants. The budget is one for all lines. Prices are for entries that have
    none of their own.

    Example: resque ledger life --yearly-kwh 2 --ledger demo-run/resque.db
    """
    from resque._display import describe
    from resque.energy.price import Tariff
    from resque.forecasting.life import lives
    from resque.ledger.identifiers import utc_now
    from resque.reporting import console

    history, tariff = open_existing_ledger(ledger), Tariff(price_per_kwh, price_per_hour, currency)
    found = lives(
        history.updates(),
        history.forecasts(),
        history.questions(),
        yearly_kwh=yearly_kwh,
        tariff=tariff if tariff.is_given else None,
        today_utc=utc_now(),
    )
    if as_json:
        derived = "sentence", "left_kwh"
        lines = [{**console.to_json(life), **{name: getattr(life, name) for name in derived}} for life in found]
        console.print_json({"lives": lines})
        return
    for life in found:
        console.show(describe(life))


@app.command("validate", cls=CheckedCommand)
def ledger_validate(
    target_accuracy: opt.Target,
    by: Annotated[
        str, opt.option(opt.MODEL, "Leave out in turn: shift-type, condition (data, shift and level), seed or model.")
    ] = "shift-type",
    no_bundled: opt.NoBundled = False,
    confidence: Annotated[float, opt.option(opt.BUDGET, "Nominal coverage of the intervals.")] = 0.8,
    sample: Annotated[int, opt.option(opt.MODEL, "Number of updates drawn at random from a longer history.")] = 2000,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Cross-validate forecasts on the ledger's updates, beside each predictor alone and simple rules.

    Settled forecasts are summarized as well: by them alone, time and energy can be judged.

    Example: resque ledger validate --target-accuracy 0.94 --ledger demo-run/resque.db
    """
    from resque.forecasting.evaluation.cross_validation import cross_validate
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.ledger.bundled import bundled_updates
    from resque.reporting import console, tables

    history = open_existing_ledger(ledger)
    updates, by = history.updates(), "shift-type" if by == "kind" else by
    if len(updates) > (drawn := max(sample, 1)):
        console.note(f"{drawn:,} of {len(updates):,} updates, drawn at random with seed 0: --sample takes more")
        places = sorted(random.Random(0).sample(range(len(updates)), drawn))
        updates = [updates[place] for place in places]
    with console.progress("cross-validating") as show:
        found = cross_validate(
            updates,
            target_accuracy,
            by,
            confidence,
            () if no_bundled else bundled_updates(),
            on_progress=lambda done, total: show(done, total, by),
        )
    settled = summarize_settlements(history.settled())
    if as_json:
        derived = "index_helps", "bundled_helps", "seed_to_seed_error", "replicate_pairs"
        more = {**{name: getattr(found, name) for name in derived}, "settled": console.to_json(settled)}
        console.print_json({**console.to_json(found), **more})
        return
    tables.show_validation(found)
    if settled.n:
        tables.show_settlement(settled)


@app.command("export", cls=CheckedCommand)
def ledger_export(
    form: Annotated[
        str, opt.option(opt.OUTPUT, "jsonl (everything), or csv (one row per update).", "--format")
    ] = "jsonl",
    out: Annotated[Path | None, opt.option(opt.OUTPUT, "File to write; default: stdout.")] = None,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
) -> None:
    """Export the whole ledger as JSON Lines, or its updates as CSV.

    Example: resque ledger export --format csv --out updates.csv
    """
    from resque.ledger.export import export

    lines = export(open_existing_ledger(ledger), form, out)
    if sys.stdout.isatty():
        lines = (printable(line.removesuffix("\n")) + "\n" for line in lines)
    sys.stdout.writelines(lines)


@app.command("import", cls=CheckedCommand)
def ledger_import(
    source: Annotated[Path, typer.Argument(help="JSON Lines, mlruns, mlflow.db or emissions.csv.")],
    form: Annotated[str, opt.option(opt.MODEL, "auto, jsonl, codecarbon or mlflow.", "--format")] = "auto",
    run: Annotated[str | None, opt.option(opt.MODEL, "Only this run: its name, or the beginning of its id.")] = None,
    target_accuracy: Annotated[
        float | None, opt.option(opt.MODEL, "Accuracy that was to be reached; default: the last one.")
    ] = None,
    shift_type: Annotated[str | None, opt.option(opt.MODEL, "Name of the shift type of these runs.")] = None,
    experiment: Annotated[str | None, opt.option(MLFLOW, "Experiment; default: all.")] = None,
    accuracy_metric: Annotated[str | None, opt.option(MLFLOW, "Metric of accuracy; default: val_accuracy etc.")] = None,
    loss_metric: Annotated[str | None, opt.option(MLFLOW, "Metric of loss; default: the accuracy's companion.")] = None,
    percent: Annotated[bool, opt.option(MLFLOW, "Accuracies were logged in percent.", "--percent")] = False,
    step_unit: Annotated[
        str | None, opt.option(MLFLOW, "Unit of a logged step: steps, epochs, epochs-from-0 (logged after epoch 0).")
    ] = None,
    steps_per_epoch: Annotated[int | None, opt.option(MLFLOW, "Optimizer steps of an epoch.")] = None,
    energy: Annotated[Path | None, opt.option(MLFLOW, "emissions.csv of codecarbon for these runs.")] = None,
    steps: Annotated[int | None, opt.option(CODECARBON, "Optimizer steps of the run.")] = None,
    accuracy: Annotated[float | None, opt.option(CODECARBON, "Accuracy after the run.")] = None,
    accuracy_before: Annotated[float | None, opt.option(CODECARBON, "Accuracy before its first step.")] = None,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Import another ledger, or runs of MLflow or codecarbon: all entries, or none.

    Example: resque ledger import mlruns --experiment "new scans" --energy emissions.csv
    """
    from resque.ledger.importers.conversion import ImportOptions
    from resque.ledger.importers.importer import import_updates
    from resque.ledger.store import Ledger
    from resque.reporting import console, tables

    options = ImportOptions(
        accuracy_metric=accuracy_metric, loss_metric=loss_metric, percent=percent, step_unit=step_unit,
        steps_per_epoch=steps_per_epoch, experiment=experiment, energy=energy, run=run, steps=steps,
        target_accuracy=target_accuracy, shift_type=shift_type, accuracy=accuracy, accuracy_before=accuracy_before,
    )  # fmt: skip
    found = import_updates(Ledger(ledger), source, form, options)
    if as_json:
        console.print_json({**console.to_json(found), "ledger": str(ledger)})
        return
    counts = {"new updates": len(found.updates), "new forecasts": len(found.forecasts), "known already": found.held}
    counts |= {"new questions": len(found.questions)} if found.questions else {}
    counts |= {"void now": len(found.voids)} if found.voids else {}
    tables.show_facts({"format": found.source, "ledger": str(ledger), **counts})
    for name, reason in found.skipped.items():
        console.warn(f"run {name} left out: {reason}")
    for note in found.notes:
        console.warn(note)
