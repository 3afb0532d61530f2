"""Tables that the terminal and the report share, described once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from resque._display import Display
from resque._format import (
    COST_NAMES,
    NOT_MEASURED,
    format_column,
    format_cost,
    format_estimate,
    format_like,
    format_probability,
)
from resque.data.spec import shorten_data
from resque.forecasting.evaluation.settlement import (
    PRICE,
    comparable_cost,
    comparable_estimate,
    is_covered,
    settled_tariff,
)
from resque.ledger.records import Forecast, ForecastRevision, Update
from resque.reporting import sentences

if TYPE_CHECKING:
    from resque.forecasting.evaluation.replicates import SeedVariability
    from resque.forecasting.evaluation.settlement import Settlement

__all__ = [
    "MAIN_COSTS", "energy_display", "overview_display", "predictors_display", "revisions_display", "seeds_display",
    "settled_display", "updates_display",
]  # fmt: skip

MAIN_COSTS = "steps", "wall_s", "energy_kwh", "carbon_kg"


def overview_display(settled: Sequence[tuple[Forecast, Update]], labels: Mapping[str, str]) -> Display:
    """Describe forecast and measured costs of several updates, one row per update.

    Args:
        settled: Forecasts with the updates that settled them.
        labels: Result of :func:`resque.reporting.ways.label_updates`.
    """
    cells = [[labels[update.id]] for _, update in settled]
    for cost in MAIN_COSTS:
        forecasts = [e.value if (e := forecast.estimates.get(cost)) else None for forecast, _ in settled]
        measured = [getattr(update.cost, cost) for _, update in settled]
        texts = format_column(cost, [*forecasts, *measured])
        for row, (forecast, update), value, text, found in zip(
            cells, settled, measured, texts, texts[len(settled) :], strict=False
        ):
            marks = f"{'' if update.reached else '+'}{'*' if is_covered(forecast, update, cost) is False else ''}"
            row += [text, found + ("" if value is None else marks)]
    columns = [f"{COST_NAMES[cost]}, {which}" for cost in MAIN_COSTS for which in ("forecast", "measured")]
    lines = ["* outside the prediction interval; + target not reached, so the cost of reaching it is higher"]
    lines += [sentences.caveat_sentence([forecast for forecast, _ in settled])] if settled else []
    return Display("Forecast and measured", ("update", *columns), cells, lines)


def settled_display(forecast: Forecast, update: Update, label: str = "") -> Display:
    """Describe forecast, interval, measured cost and error of every cost of one update; it may have a label."""
    rows = []
    for cost in (*forecast.estimates, PRICE):
        estimate = comparable_estimate(forecast, update, cost)
        if estimate is None:
            continue
        value, interval, _ = format_estimate(cost, estimate.value, estimate.interval, None)
        known = comparable_cost(forecast, update, cost) if cost == PRICE else getattr(update.cost, cost)
        measured = format_like(cost, known, estimate.value) + ("" if update.reached else "+")
        error, covered = (each(forecast, update, cost) for each in (sentences.format_error, sentences.covered_mark))
        rows.append((COST_NAMES[cost], value, interval, measured, error, covered))
    index, forgetting = sentences.format_index(update), sentences.format_forgetting(update)
    lines = [
        sentences.outcome_sentence(forecast, update),
        f"RESQUE_dist {index}; accuracy on the original data {forgetting}",
    ]
    asking = f"the forecast took {format_cost('wall_s', forecast.overhead.wall_s)}"
    lines.append(f"{asking} and {sentences.energy_sentence(forecast.overhead)}")
    if forecast.pilot is not None:
        lines.insert(
            1, f"{forecast.pilot.summary}; the update {'continued it' if update.pilot_steps else 'began anew'}"
        )
    lines += filter(None, [update.saving, update.forgetting])
    if update.processes > 1:
        lines.append(
            f"the forecast was for one process, the update ran in {update.processes}: time, energy, carbon and price "
            "are not comparable"
        )
    if tariff := settled_tariff(forecast, update):
        lines.append(f"price in {tariff.currency}: training, evaluation and the forecast itself")
    if not update.reached:
        lines.append("+ target not reached: the cost of reaching it is higher")
    lines.append(f"coverage: {forecast.estimates['steps'].interval.guarantee}")
    lines += ["not reliable enough for a decision:"] if forecast.reliability_issues else []
    lines += [f"- {issue}" for issue in forecast.reliability_issues]
    columns = "cost", "forecast", f"{forecast.level:.0%} interval", "measured", "error", "covered"
    title = f"Forecast and measured: {label or sentences.format_shift(update)}"
    return Display(title, columns, rows, lines)


def revisions_display(update: Update) -> Display:
    """Describe how the forecast of the total steps changed: at doubling step counts, and last."""
    shown: list[ForecastRevision] = []
    for revision in update.revisions:
        if not shown or revision.step >= 2 * shown[-1].step or revision is update.revisions[-1]:
            shown.append(revision)
    rows = []
    for revision in shown:
        steps, interval, _ = format_estimate("steps", revision.steps.value, revision.steps.interval, None)
        probability = format_probability(revision.probability_reached)
        rows.append((f"{revision.step:,}", f"{revision.accuracy:.3f}", steps, interval, probability))
    columns = "after step", "accuracy", "total steps", "interval", "reaches the target"
    return Display("In-run forecast updates", columns, rows, text_columns=0)


def predictors_display(summary: "Settlement") -> Display:
    """Describe the error in training steps of the forecast and of each predictor alone."""
    rows = []
    for score in summary.scores:
        errors = f"{score.median_factor:.2f}", f"{score.median_error:.0%}", f"{score.within_factor_2:.0%}"
        rows.append((score.predictor, str(score.n), *errors))
    columns = "forecast by", "n", "median factor", "median error", "within a factor of 2"
    return Display("Error in training steps, by predictor", columns, rows)


def seeds_display(seeds: "SeedVariability") -> Display:
    """Describe the replicate error and the noise about a condition's mean, side by side."""
    rows = [
        ("another run of the condition (replicate error)", seeds.pairs, seeds.replicate_factor, seeds.replicate_error),
        ("the mean of the condition (noise)", seeds.runs, seeds.noise_factor, seeds.noise_error),
    ]
    cells = [(name, f"{n:,}", f"{factor:.2f}", f"{error:.0%}") for name, n, factor, error in rows if factor and error]
    lines = ["a condition: same data, model and recipe; its runs differ in the seed. No forecast avoids the noise."]
    if not cells:
        lines = ["Seed-to-seed variability is unknown: no condition has two seeds that reached the target."]
    return Display("Steps forecast by the condition alone", ("forecast by", "n", "factor", "error"), cells, lines)


def updates_display(updates: Sequence[Update], names: Mapping[str, str]) -> Display:
    """Describe every update: data, way, index, steps, accuracies and time."""
    rows = []
    n, seconds = len(updates), [update.cost.wall_s for update in updates]
    times = format_column("wall_s", [*seconds, *(update.evaluation_s for update in updates)])
    for update, *took in zip(updates, times, times[n:], strict=False):
        steps = sentences.format_index(update), format_cost("steps", update.cost.steps)
        accuracies = sentences.format_accuracies(update), sentences.format_forgetting(update)
        rows.append((shorten_data(update.train_data), names[update.id], update.stopped_by, *steps, *accuracies, *took))
    accuracies = "test accuracy", "accuracy on the original data"
    columns = "data", "way", "stopped by", "RESQUE_dist", "steps", *accuracies, "time", "evaluation"
    lines = ["Costs are of the training steps alone. Accuracies are those before and after the update."]
    return Display("Every update", columns, rows, lines, text_columns=3)


def energy_display(updates: Sequence[Update], names: Mapping[str, str]) -> Display:
    """Describe energy and emissions of every update with region, carbon intensity and method."""
    rows = []
    costs = [format_column(c, [getattr(update.cost, c) for update in updates]) for c in ("energy_kwh", "carbon_kg")]
    for update, *took in zip(updates, *costs, strict=True):
        region, intensity = "none", NOT_MEASURED
        if (grid := update.grid) is not None:
            pue = "" if grid.pue == 1.0 else f" × PUE {grid.pue:g}"
            region, intensity = grid.region, f"{grid.intensity_g_per_kwh:.0f}{pue}"
        method = "; ".join(filter(None, (sentences.format_methods(update.energy), update.energy.note)))
        data = shorten_data(update.train_data), names[update.id]
        rows.append((*data, region, method, intensity, *took, sentences.format_carbon(update)))
    columns = "data", "way", "region", "method", "g CO2e/kWh", "energy", "CO2e", "SCI per update"
    lines = [
        "Energy and CO2e are of the training steps. SCI per update is of the whole run with embodied emissions.",
        "Measured: by a hardware counter. Modeled: from the load and a table. Assumed: a constant. "
        "Unknown: missing in the imported file.",
    ]
    return Display("Energy, region and method", columns, rows, lines, text_columns=4)
