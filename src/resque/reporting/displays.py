"""Tables that the terminal and the report share, described once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resque._display import Display
from resque._format import COST_NAMES, NOT_MEASURED, format_cost, format_estimate
from resque.data.spec import shorten_data
from resque.forecasting.evaluation.settlement import is_covered
from resque.ledger.records import Forecast, Update
from resque.reporting.sentences import (
    covered_mark,
    format_accuracies,
    format_carbon,
    format_error,
    format_forgetting,
    format_index,
    format_methods,
    format_shift,
    outcome_sentence,
    revision_rows,
)

if TYPE_CHECKING:
    from resque.forecasting.evaluation.settlement import Settlement

__all__ = [
    "energy_display", "overview_display", "predictors_display", "revisions_display", "settled_display",
    "updates_display",
]  # fmt: skip

_OVERVIEW = "steps", "wall_s", "energy_kwh", "carbon_kg"


def overview_display(settled: Sequence[tuple[Forecast, Update]]) -> Display:
    """Describe forecast and measured costs of several updates, one row per update."""

    def cells(forecast: Forecast, update: Update, cost: str) -> tuple[str, str]:
        estimate = forecast.estimates.get(cost)
        outside = "*" if is_covered(forecast, update, cost) is False else ""
        measured = format_cost(cost, getattr(update.cost, cost))
        return (
            format_cost(cost, None if estimate is None else estimate.value),
            measured if measured == NOT_MEASURED else f"{measured}{'' if update.reached else '+'}{outside}",
        )

    rows = [
        (format_shift(update), *(cell for cost in _OVERVIEW for cell in cells(forecast, update, cost)))
        for forecast, update in settled
    ]
    columns = [f"{COST_NAMES[cost]}, {which}" for cost in _OVERVIEW for which in ("forecast", "measured")]
    lines = ["* outside the prediction interval; + target not reached, so the cost of reaching it is higher"]
    return Display("Forecast and measured", ("update", *columns), rows, lines)


def settled_display(forecast: Forecast, update: Update) -> Display:
    """Describe forecast, interval, measured cost and error of every cost of one update."""
    rows = [
        (
            COST_NAMES[cost],
            *format_estimate(cost, estimate.value, estimate.interval, None)[:2],
            format_cost(cost, getattr(update.cost, cost)) + ("" if update.reached else "+"),
            format_error(forecast, update, cost),
            covered_mark(forecast, update, cost),
        )
        for cost, estimate in forecast.estimates.items()
    ]
    lines = [
        outcome_sentence(forecast, update),
        f"RESQUE_dist {format_index(update)}; accuracy on the original data {format_forgetting(update)}",
    ]
    if not update.reached:
        lines.append("+ target not reached: the cost of reaching it is higher")
    level = f"{next(iter(forecast.estimates.values())).interval.level:.0%} interval"
    columns = "cost", "forecast", level, "measured", "error", "covered"
    return Display(f"Forecast and measured: {format_shift(update)}", columns, rows, lines)


def revisions_display(update: Update) -> Display:
    """Describe how the forecast of the total steps changed during an update."""
    columns = "after step", "accuracy", "total steps", "interval", "reaches the target"
    return Display("In-run forecast updates", columns, revision_rows(update), text_columns=0)


def predictors_display(summary: "Settlement") -> Display:
    """Describe the error in training steps of the forecast and of each predictor alone."""
    rows = [
        (
            score.predictor,
            str(score.n),
            f"{score.median_factor:.2f}",
            f"{score.median_error:.0%}",
            f"{score.within_factor_2:.0%}",
        )
        for score in summary.scores
    ]
    columns = "forecast by", "n", "median factor", "median error", "within a factor of 2"
    return Display("Error in training steps, by predictor", columns, rows)


def updates_display(updates: Sequence[Update]) -> Display:
    """Describe every update: data, index, steps, accuracies and time."""
    rows = [
        (
            shorten_data(update.train_data),
            update.stopped_by,
            format_index(update),
            format_cost("steps", update.cost.steps),
            format_accuracies(update),
            format_forgetting(update),
            format_cost("wall_s", update.cost.wall_s),
            format_cost("wall_s", update.evaluation_s),
        )
        for update in updates
    ]
    accuracies = "test accuracy", "accuracy on the original data"
    columns = "data", "stopped by", "RESQUE_dist", "steps", *accuracies, "time", "evaluation"
    lines = ["Costs are of the training steps alone. Accuracies are those before and after the update."]
    return Display("Every update", columns, rows, lines, text_columns=2)


def energy_display(updates: Sequence[Update]) -> Display:
    """Describe energy and emissions of every update with region, carbon intensity and method."""
    rows = []
    for update in updates:
        grid = update.grid
        pue = "" if grid is None or grid.pue == 1.0 else f" × PUE {grid.pue:g}"
        rows.append(
            (
                shorten_data(update.train_data),
                "none" if grid is None else grid.region,
                "; ".join(filter(None, (format_methods(update.energy), update.energy.note))),
                NOT_MEASURED if grid is None else f"{grid.intensity_g_per_kwh:.0f}{pue}",
                format_cost("energy_kwh", update.cost.energy_kwh),
                format_cost("carbon_kg", update.cost.carbon_kg),
                format_carbon(update),
            )
        )
    columns = "data", "region", "method", "g CO2e/kWh", "energy", "CO2e", "SCI per update"
    lines = [
        "Energy and CO2e are of the training steps. SCI per update is of the whole run with embodied emissions.",
        "Measured: by a hardware counter. Modeled: from the load and a table. Assumed: a constant. "
        "Unknown: missing in the imported file.",
    ]
    return Display("Energy, region and method", columns, rows, lines, text_columns=3)
