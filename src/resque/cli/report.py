"""``resque report``: the ledger as one HTML file."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from resque.cli import options as opt
from resque.cli.loading import open_existing_ledger, retrain_command


def report(
    context: typer.Context,
    out: Annotated[Path, opt.option(opt.OUTPUT, "HTML file to write.")] = Path("report.html"),
    yearly_kwh: Annotated[
        float | None, opt.option(opt.BUDGET, "Energy budget of a year, for all model lines together.", min=0.0)
    ] = None,
    no_inputs: Annotated[bool, opt.option(opt.OUTPUT, "Leave out the pictures of inputs.", "--no-inputs")] = False,
    ledger: opt.LedgerFile = opt.LEDGER,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Write the ledger as one self-contained HTML file: open decisions, energy and money so far, past forecasts.

    It shows a few inputs before and after the latest shift. Leave them out of a report for others where they are
    private.

    Example: resque report --ledger demo-run/resque.db --out report.html
    """
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.forecasting.life import lives
    from resque.ledger.identifiers import utc_now
    from resque.ledger.questions import waiting_forecasts
    from resque.reporting import console, sentences, tables
    from resque.reporting.html import MOST_SHOWN, Opening, write_report
    from resque.reporting.pictures import kept_strip

    history = open_existing_ledger(ledger)
    updates, settled, n = history.updates(last=MOST_SHOWN), history.settled(), history.count()["updates"]
    summary = summarize_settlements(settled)
    every = history.forecasts()
    pending = waiting_forecasts(every, settled)
    lines = lives(history.updates(), every, history.questions(), yearly_kwh=yearly_kwh, today_utc=utc_now())
    strip, carry_out = None if no_inputs else kept_strip(history, every), partial(retrain_command, context)
    opening = Opening(pending=pending, lives=lines, strip=strip, carry_out=carry_out)
    with console.progress("drawing the report") as show:
        write_report(out, updates, settled, summary, opening, n_updates=n, on_progress=show)
    facts = {"report": str(out), "updates": n, "settled": len(settled), "pending": len(pending)}
    facts |= {"verdict": sentences.settlement_sentence(summary)}
    console.print_json(facts) if as_json else tables.show_facts(facts)
