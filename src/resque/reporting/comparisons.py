"""A comparison of the ways to a target: in the terminal, as JSON, as Markdown."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from resque._display import Display, describe
from resque._format import (
    NOT_MEASURED,
    format_column,
    format_cost,
    format_interval,
    format_price,
    format_probability,
    printable,
)
from resque.forecasting.budget import Decision
from resque.forecasting.comparison import Comparison, Option
from resque.forecasting.scored_models import ScoredModel
from resque.reporting import console, tables

__all__ = ["show", "to_json", "to_markdown"]


def show(comparison: Comparison, decision: Decision | None = None, details: bool = False, command: str = "") -> None:
    """Print the recommendation, the ways beside each other, and how to carry the best one out.

    Args:
        comparison: The comparison.
        decision: Decision about its best way; None without a budget.
        details: Whether to print intervals, and what each way keeps and needs.
        command: Command that carries the best way out; empty where there is none.
    """
    console.show(describe(comparison))
    if comparison.has_several_models:
        console.show(_first_round(comparison))
    if details:
        for display in (*_intervals(comparison), _needs(comparison)):
            console.show(display)
    if command:
        console.out.print(f"`{command}` does it")
    if decision is not None:
        tables.show_decision(decision)


def to_json(comparison: Comparison, decision: Decision | None = None) -> dict[str, Any]:
    """Return a comparison as plain values, with its recommendation in words and the decision of the gate."""
    record = console.to_json(comparison)
    gate = None if decision is None else dataclasses.asdict(decision)
    return {"recommendation": comparison.recommendation, **record, "gate": gate}


def to_markdown(comparison: Comparison, decision: Decision | None = None) -> str:
    """Return the recommendation and the table as Markdown."""
    display = describe(comparison)
    table = _markdown_table(display)
    lines = "".join(f"* {line}\n" for line in display.lines)
    first = f"{_markdown_table(_first_round(comparison))}\n" if comparison.has_several_models else ""
    gate = "" if decision is None else f"\nBudget: {decision.verdict}\n"
    gate += "" if decision is None else "".join(f"* {printable(reason)}\n" for reason in decision.reasons)
    heading = f"### Ways to accuracy {comparison.target_accuracy:g}\n\n{display.title}"
    return f"{heading}\n\n{table}\n{first}{lines}{gate}\n"


def _markdown_table(display: Display) -> str:
    rows = [display.columns, ["---"] * len(display.columns), *display.rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in rows)


def _first_round(comparison: Comparison) -> Display:
    """Describe what forward passes told of each model, those first that were compared."""
    columns = ("model", "LogME", "k-NN", "shrunk H-score", "index", "size", "license", "price")
    rows = sorted(comparison.first_round, key=lambda each: (not each.is_kept, -each.scores.get("LogME", -math.inf)))
    lines = [
        f"{comparison.short_names[each.model]}: stated limitations: {each.limitations}"
        for each in rows
        if each.limitations
    ]
    lines.append("scores are of features as they are, the larger the better; the index does not decide")
    title = f"First round: {sum(each.is_kept for each in rows)} of {len(rows)} models were compared (+)"
    return Display(title, columns, [_scored_cells(each, comparison) for each in rows], lines)


def _scored_cells(scored: ScoredModel, comparison: Comparison) -> tuple[str, ...]:
    shown = [scored.scores.get(name) for name in ("LogME", "k-NN accuracy", "shrunk H-score")]
    size = NOT_MEASURED if scored.parameters is None else f"{scored.parameters / 1e6:.3g} M"
    price = format_price(scored.license_price, comparison.currency) if scored.license_price else NOT_MEASURED
    numbers = [NOT_MEASURED if value is None else f"{value:.3f}" for value in (*shown, scored.index)]
    return (
        f"{'+ ' if scored.is_kept else ''}{comparison.short_names[scored.model]}",
        *numbers,
        size,
        scored.license or NOT_MEASURED,
        price,
    )


def _intervals(comparison: Comparison) -> Iterator[Display]:
    """Yield the intervals in two tables, since one has no room in 80 columns."""
    priced = any("price" in option.estimates for option in comparison.options)
    rows = [
        (
            comparison.name_of(option),
            _accuracy_interval(option),
            *_interval_cells(comparison, option, ("steps", "wall_s")),
        )
        for option in comparison.options
    ]
    yield Display(f"{comparison.level:.0%} intervals", ("way", "accuracy", "steps", "time"), rows)
    costs = ("energy_kwh", "carbon_kg", *(["price"] if priced else []))
    columns = ("way", "energy", "CO2e", *(["price"] if priced else []))
    rows = [(comparison.name_of(option), *_interval_cells(comparison, option, costs)) for option in comparison.options]
    yield Display("", columns, rows)


def _accuracy_interval(option: Option) -> str:
    if option.accuracy is None:
        return NOT_MEASURED
    interval = option.accuracy.interval
    return f"{interval.low:.2f}–{interval.high or 1.0:.2f}"


def _interval_cells(comparison: Comparison, option: Option, costs: Sequence[str]) -> Iterator[str]:
    """Yield the interval of each cost; of a measured one its value."""
    for cost in costs:
        estimate = option.estimates.get(cost)
        unit = f" {comparison.currency}" if cost == "price" else ""
        if estimate is None:
            yield NOT_MEASURED
        elif estimate.interval.low == estimate.interval.high:
            yield format_price(estimate.value, comparison.currency) if unit else format_cost(cost, estimate.value)
        else:
            yield f"{format_interval(cost, estimate.value, estimate.interval)}{unit}"


def _needs(comparison: Comparison) -> Display:
    """Describe what each way keeps of the original accuracy, what it needs, and its forecast."""
    carbon = format_column("carbon_kg", [option.cost("carbon_kg") for option in comparison.options])
    rows = [
        (
            comparison.name_of(option),
            option.kept(digits=3),
            NOT_MEASURED if (share := option.trainable_share) is None else format_probability(share, is_measured=True),
            f"{option.labels:,}",
            format_price(option.cost("price"), comparison.currency),
            carbon_kg,
            option.id,
        )
        for option, carbon_kg in zip(comparison.options, carbon, strict=True)
    ]
    columns = ("way", "on old data", "trained", "labels", "price", "CO2e", "forecast")
    return Display("What each keeps and needs", columns, rows)
