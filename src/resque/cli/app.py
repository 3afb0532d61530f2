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

from resque import __version__
from resque.cli import calibrate, forecast, indices, ledger, retrain
from resque.cli.loading import open_existing_ledger
from resque.cli.options import LEDGER, Country, Intensity, Json, LedgerFile, Pue
from resque.errors import ResqueError, ResqueWarning

FORMER_OPTIONS = {
    "--kind": "--shift-type",
    "--prior": "--bundled-history",
    "--no-prior": "--no-bundled-history",
}
INTERRUPTED = 130  # what typer makes of SIGINT
app = typer.Typer(
    name="resque",
    help="What updating a deep learning classifier will cost: forecast before, measured after.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(ledger.app, name="ledger")


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
    pue: Pue = 1.0,
    seed: Annotated[int, typer.Option(help="Of the original model.")] = 0,
    as_json: Json = False,
) -> None:
    """The main job on embedded real data: history, forecasts, updates, settlement.

    Example: resque demo --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.reporting import console, sentences, tables
    from resque.reporting.html import write_report
    from resque.workflows import demo

    grid = named_grid(country, intensity, pue)
    with console.progress("resque demo") as show:
        outcome = demo.run_demo(
            out,
            open_meter(),
            grid,
            seed=seed,
            on_progress=lambda stage: show(stage.done, stage.total, f"{stage.name} {stage.detail}"),
        )
    updates, settled = outcome.ledger.updates(), outcome.ledger.settled()
    summary = summarize_settlements(settled)
    write_report(report, updates, settled, summary, "What updating a digit classifier costs")
    if as_json:
        facts = {
            "clean_accuracy": outcome.clean_accuracy,
            "verdict": sentences.settlement_sentence(summary),
            "report": str(report),
        }
        console.print_json({**facts, "ledger": str(outcome.ledger.path), "settlement": console.to_json(summary)})
        return
    tables.show_settled(settled)
    tables.show_settlement(summary)
    console.out.print(f"energy: {sentences.energy_sentence(updates[-1].energy)}; {sentences.grid_sentence(grid)}")
    console.out.print(f"original model: accuracy {outcome.clean_accuracy:.3f}, in {out}; report: {report}")
    console.out.print(f"\n{sentences.settlement_sentence(summary)}", style="bold")


@app.command()
def doctor(country: Country = None, intensity: Intensity = None, pue: Pue = 1.0, as_json: Json = False) -> None:
    """What meter, region, device and extras this machine offers.

    Example: resque doctor --country FRA
    """
    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.reporting import console, sentences, tables
    from resque.workflows import diagnostics

    meter, grid = open_meter(), named_grid(country, intensity, pue)
    facts = diagnostics.machine_facts(meter)
    if as_json:
        console.print_json({**facts, "region": console.to_json(grid)})
        return
    tables.show_facts({**facts, "region": sentences.grid_sentence(grid)})
    for warning in diagnostics.machine_warnings(meter):
        console.warn(warning)


for _command in (
    indices.profile,
    indices.dist,
    indices.task,
    calibrate.calibrate,
    forecast.forecast,
    retrain.retrain,
):
    app.command()(_command)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    ledger: LedgerFile = LEDGER,
    as_json: Json = False,
) -> None:
    """The ledger as one self-contained HTML file.

    Example: resque report --ledger demo-run/resque.db --out report.html
    """
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.reporting import console, sentences, tables
    from resque.reporting.html import write_report

    history = open_existing_ledger(ledger)
    updates, settled = history.updates(), history.settled()
    summary = summarize_settlements(settled)
    write_report(out, updates, settled, summary)
    facts = {
        "report": str(out),
        "updates": len(updates),
        "settled": len(settled),
        "verdict": sentences.settlement_sentence(summary),
    }
    console.print_json(facts) if as_json else tables.show_facts(facts)


def main() -> None:
    """Entry point: one line on stderr and an exit code for whatever goes wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", ResqueWarning)
            warnings.showwarning = functools.partial(_show_warning, set())
            app(args=_with_current_names(sys.argv[1:]))
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


def _with_current_names(arguments: list[str]) -> list[str]:
    """Return the arguments with former option names replaced; they stay valid and are not listed in the help."""
    named = [argument.partition("=") for argument in arguments]
    return [FORMER_OPTIONS.get(option, option) + sign + value for option, sign, value in named]


def _show_warning(shown: set[str], message: Warning | str, kind: type[Warning], *where: Any) -> None:
    """Our own warnings are a line for users; those of others keep their form."""
    if not issubclass(kind, ResqueWarning):
        sys.stderr.write(warnings.formatwarning(message, kind, *where[:2]))
    elif str(message) not in shown:
        from resque.reporting import console

        shown.add(str(message))
        console.warn(str(message))


def _say(message: str) -> None:
    print(f"resque: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
