"""Tables that the terminal and the report share, described once."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resque._display import Display
from resque._format import (
    COST_NAMES,
    NOT_MEASURED,
    format_column,
    format_cost,
    format_estimate,
    format_like,
    format_price,
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
from resque.ledger.decision import action, trained_part
from resque.ledger.records import Forecast, ForecastRevision, Update
from resque.reporting import sentences

if TYPE_CHECKING:
    from resque.forecasting.evaluation.replicates import SeedVariability
    from resque.forecasting.evaluation.settlement import Settlement

__all__ = [
    "MAIN_COSTS", "comparison_display", "decision_among", "differing_part", "energy_display", "newest_comparison",
    "overview_display", "predictors_display", "revisions_display", "seeds_display", "settled_display", "still_open",
    "tried_sentences", "updates_display",
]  # fmt: skip

MAIN_COSTS = "steps", "wall_s", "energy_kwh", "carbon_kg"
_Question = tuple[str, str, str, float]
_SHORT = {"learning_rate": "rate"}


def overview_display(settled: Sequence[tuple[Forecast, Update]]) -> Display:
    """Describe forecast and measured costs of several updates, one row per update."""
    cells = [[sentences.format_shift(update)] for _, update in settled]
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


def still_open(pending: Sequence[Forecast], updates: Sequence[Update]) -> list[Forecast]:
    """Return the pending forecasts whose question no update has answered, by another way.

    Args:
        pending: Pending forecasts.
        updates: Updates; one that reached its target answers all questions of its model, data and that target or a
            lower one before it, and later ones where the same model had the same accuracy before: the data have not
            changed.
    """
    reached: dict[tuple[object, ...], list[Update]] = {}
    for update in (update for update in updates if update.reached):
        reached.setdefault(_question(update)[:-1], []).append(update)
    answering = [
        (each, [u for u in reached.get(_question(each)[:-1], ()) if u.target_accuracy >= each.target_accuracy])
        for each in pending
    ]
    again = {
        _question(each)
        for each, enough in answering
        if any((u.parent, u.features.accuracy) == (each.parent, each.features.accuracy) for u in enough)
    }
    return [
        each
        for each, enough in answering
        if _question(each) not in again and all(each.created_utc >= update.created_utc for update in enough)
    ]


def _question(record: Forecast | Update) -> _Question:
    return record.model, record.train_data, record.test_data, record.target_accuracy


def newest_comparison(pending: Sequence[Forecast]) -> list[Forecast]:
    """Return the newest pending forecasts of one question, the likeliest first; empty if no question has two.

    Args:
        pending: Pending forecasts, oldest first. Those of one model name, data and target are of one question.
    """
    questions: dict[_Question, list[Forecast]] = {}
    for each in pending:
        questions[_question(each)] = [*questions.pop(_question(each), []), each]
    ways = next((ways for ways in reversed(questions.values()) if len(ways) > 1), [])
    return sorted(ways, key=lambda each: (-each.probability_reached, each.estimates["steps"].value))


def tried_sentences(pending: Sequence[Forecast], settled: Sequence[tuple[Forecast, Update]]) -> list[str]:
    """Return which ways to an open question were tried and ended below its target, and which one is next.

    Args:
        pending: Open forecasts, oldest first.
        settled: Forecasts with the updates that settled them.
    """
    questions: dict[_Question, list[Forecast]] = {}
    for each in pending:
        questions.setdefault(_question(each), []).append(each)
    found = []
    for question, ways in reversed(questions.items()):
        failed = [pair for pair in settled if _question(pair[0]) == question and pair[1].reaches(question[-1]) is False]
        tried = [
            f"{_action(forecast)} was tried: {update.peak_accuracy:.3f} at best, below {question[-1]:g} "
            f"(forecast {forecast.id} gave it {forecast.chance})."
            for forecast, update in failed
        ]
        done = [dict(forecast.recipe) for forecast, _ in failed]
        found += [" ".join([*tried, _next([way for way in ways if dict(way.recipe) not in done])])] if tried else []
    return [text.rstrip() for text in found]


def _next(ways: Sequence[Forecast]) -> str:
    """Return the cheapest of the ways that is likely enough, by energy, else by time; else the likeliest."""
    enough = [way for way in ways if way.probability_reached >= way.level]
    cost = next((name for name in ("energy_kwh", "wall_s") if all(name in way.estimates for way in enough)), "steps")
    if enough:
        return f"Next-cheapest: {_named(min(enough, key=lambda way: way.estimates[cost].value), ways)}."
    if not ways:
        return ""
    likeliest = max(ways, key=lambda way: way.probability_reached)
    how = f"No other way is at least {likeliest.level:.0%} likely; nearest comes"
    return f"{how}: {_named(likeliest, ways)}, {likeliest.chance}."


def decision_among(way: Forecast, ways: Sequence[Forecast]) -> str:
    """Return the decision of a way, with the settings that tell it from others of the same action."""
    return way.decision.replace(f"{_action(way)}:", f"{_action_among(way, ways)}:", 1)


def _action_among(way: Forecast, ways: Sequence[Forecast]) -> str:
    return f"{_action(way)}{differing_part(way, [each for each in ways if _action(each) == _action(way)])}"


def _named(way: Forecast, ways: Sequence[Forecast]) -> str:
    return f"{_action_among(way, ways)} (forecast {way.id})"


def comparison_display(ways: Sequence[Forecast]) -> Display:
    """Describe pending forecasts of one question beside each other."""
    costs = [
        format_column(cost, [e.value if (e := way.estimates.get(cost)) else None for way in ways])
        for cost in ("steps", "wall_s", "energy_kwh")
    ]
    rows = []
    for way, *took in zip(ways, *costs, strict=True):
        accuracy = NOT_MEASURED if way.best_accuracy is None else f"{way.best_accuracy.value:.3f}"
        price = format_price(way.price.value, way.tariff.currency) if way.price and way.tariff else NOT_MEASURED
        doubt = "" if not way.reliability_issues else " *"
        rows.append((f"{_action_among(way, ways)}{doubt}", accuracy, way.chance, *took, price, way.id))
    first = ways[0]
    title = f"Ways to accuracy {first.target_accuracy:g} on {shorten_data(first.train_data)}"
    columns = "way", "best accuracy", "chance", "steps", "time", "energy", "price", "forecast"
    lines = ["* not reliable enough for a decision"] if any(way.reliability_issues for way in ways) else []
    return Display(title, columns, rows, lines)


def _action(way: Forecast) -> str:
    return action(way.recipe, way.from_scratch)


def differing_part(way: Forecast | Update, alike: Sequence[Forecast | Update]) -> str:
    """Return the settings of a way's recipe in which others differ: ``, rate 0.01``; empty where there are none.

    Args:
        way: The way.
        alike: Ways that have the same name, this one among them.
    """
    settings = {name for each in alike for name in each.recipe}
    values = {name: {str(each.recipe[name]) for each in alike if name in each.recipe} for name in sorted(settings)}
    differing = [name for name, found in values.items() if len(found) > 1]  # an earlier version had fewer settings
    shown = {name: way.recipe[name] for name in differing if name in way.recipe}
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in shown.values())
    return "".join(f", {_SHORT.get(name, name)} {text}" for name, text in zip(shown, texts, strict=True))


def settled_display(forecast: Forecast, update: Update) -> Display:
    """Describe forecast, interval, measured cost and error of every cost of one update."""
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
    return Display(f"Forecast and measured: {sentences.format_shift(update)}", columns, rows, lines)


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


def updates_display(updates: Sequence[Update]) -> Display:
    """Describe every update: data, index, steps, accuracies and time."""
    rows = []
    n, seconds = len(updates), [update.cost.wall_s for update in updates]
    times = format_column("wall_s", [*seconds, *(update.evaluation_s for update in updates)])
    for update, *took in zip(updates, times, times[n:], strict=False):
        steps = sentences.format_index(update), format_cost("steps", update.cost.steps)
        accuracies = sentences.format_accuracies(update), sentences.format_forgetting(update)
        trained = trained_part(update.recipe, update.from_scratch)
        rows.append((shorten_data(update.train_data), trained, update.stopped_by, *steps, *accuracies, *took))
    accuracies = "test accuracy", "accuracy on the original data"
    columns = "data", "trained", "stopped by", "RESQUE_dist", "steps", *accuracies, "time", "evaluation"
    lines = ["Costs are of the training steps alone. Accuracies are those before and after the update."]
    return Display("Every update", columns, rows, lines, text_columns=3)


def energy_display(updates: Sequence[Update]) -> Display:
    """Describe energy and emissions of every update with region, carbon intensity and method."""
    rows = []
    costs = [format_column(c, [getattr(update.cost, c) for update in updates]) for c in ("energy_kwh", "carbon_kg")]
    for update, *took in zip(updates, *costs, strict=True):
        region, intensity = "none", NOT_MEASURED
        if (grid := update.grid) is not None:
            pue = "" if grid.pue == 1.0 else f" × PUE {grid.pue:g}"
            region, intensity = grid.region, f"{grid.intensity_g_per_kwh:.0f}{pue}"
        method = "; ".join(filter(None, (sentences.format_methods(update.energy), update.energy.note)))
        data = shorten_data(update.train_data)
        rows.append((data, region, method, intensity, *took, sentences.format_carbon(update)))
    columns = "data", "region", "method", "g CO2e/kWh", "energy", "CO2e", "SCI per update"
    lines = [
        "Energy and CO2e are of the training steps. SCI per update is of the whole run with embodied emissions.",
        "Measured: by a hardware counter. Modeled: from the load and a table. Assumed: a constant. "
        "Unknown: missing in the imported file.",
    ]
    return Display("Energy, region and method", columns, rows, lines, text_columns=3)
