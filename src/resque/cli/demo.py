"""``resque demo``: the main job on embedded data."""

from pathlib import Path
from typing import Annotated

from resque.cli import options as opt


def demo(
    out: Annotated[Path, opt.option(opt.OUTPUT, "New folder for model, profile and ledger.")] = Path("demo-run"),
    report: Annotated[Path, opt.option(opt.OUTPUT, "HTML report to write.")] = Path("report.html"),
    country: opt.Country = None,
    intensity: opt.Intensity = None,
    pue: opt.Pue = 1.0,
    seed: Annotated[int, opt.option(opt.RECIPE, "Seed of the original model.")] = 0,
    as_json: opt.Json = False,
) -> None:
    """Run the main job on embedded real data: history, forecasts, updates, forecast beside measured.

    Example: resque demo --country FRA
    """
    import torch

    from resque.energy.grid import named_grid
    from resque.energy.meters import open_meter
    from resque.forecasting.evaluation.settlement import summarize_settlements
    from resque.forecasting.life import lives
    from resque.reporting import console, sentences, tables
    from resque.reporting.html import Opening, write_report
    from resque.workflows.demo import run_demo

    grid = named_grid(country, intensity, pue)
    with console.progress("resque demo") as show:
        outcome = run_demo(
            out, open_meter(torch.device("cpu")), grid, seed=seed,
            on_progress=lambda stage: show(stage.done, stage.total, f"{stage.name} {stage.detail}"),
        )  # fmt: skip
    updates, settled = outcome.ledger.updates(), outcome.ledger.settled()
    summary = summarize_settlements(settled)
    verdict = sentences.settlement_sentence(summary)
    opening = Opening("What updating a digit classifier costs", lives=lives(updates, [pair[0] for pair in settled]))
    write_report(report, updates, settled, summary, opening)
    if as_json:
        facts = {"clean_accuracy": outcome.clean_accuracy, "verdict": verdict, "report": str(report)}
        console.print_json({**facts, "ledger": str(outcome.ledger.path), "settlement": console.to_json(summary)})
        return
    tables.show_settled(settled)
    tables.show_settlement(summary)
    console.out.print(f"energy: {sentences.energy_sentence(updates[-1].energy)}; {sentences.grid_sentence(grid)}")
    console.out.print(f"original model: accuracy {outcome.clean_accuracy:.3f}, in {out}; report: {report}")
    console.out.print()
    console.out.print(verdict, style="bold")
