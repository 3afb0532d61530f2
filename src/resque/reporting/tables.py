"""Results in the terminal: the description that ``print(result)`` shows, with what only the command line adds."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resque._display import Display, describe
from resque._format import (
    NOT_MEASURED,
    format_column,
    format_cost,
    format_count,
    format_interval,
    format_number,
    shorten_names,
)
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.hardware import EmbodiedEmissions
from resque.indices.results import DistributionIndex, TaskIndex
from resque.ledger.records import Features, Forecast, MissingLabels, Question, Update, Void
from resque.reporting import displays, sentences
from resque.reporting.carbon_intensity import SoftwareCarbonIntensity
from resque.reporting.console import note, out, show, warn
from resque.reporting.ways import label_updates, name_ways

if TYPE_CHECKING:
    from resque.forecasting.budget import Decision
    from resque.forecasting.evaluation.cross_validation import CrossValidation
    from resque.forecasting.evaluation.settlement import Settlement
    from resque.training.from_scratch import ScratchComparison

__all__ = [
    "show_comparison", "show_decision", "show_facts", "show_forecast", "show_index", "show_ledger", "show_settled",
    "show_settlement", "show_task", "show_update", "show_validation",
]  # fmt: skip

_LEDGER_WIDTH = 70  # of every column but the data
_MODEL_WIDTH = 12
_LESSER = re.compile(r"[\d,]+ of [\d,]+ updates |learned from ")
"""Beginning of the notes on a history, which change no decision."""
_NEEDS_CARE = re.compile(r"the training data have none of |the accuracy before |the pilot of .* did not ")
"""Beginning of the notes that are warnings: what will be forgotten, or is not known well enough."""


def show_index(index: DistributionIndex) -> None:
    """Print RESQUE_dist, the angle of every class, and the meaning of the interval."""
    lines = [] if index.interval is None else [f"interval: {index.interval.guarantee}"]
    if index.debiased and index.sampling is not None:
        lines.append(f"the angle that unread samples would add is removed, by {index.sub_sums} sub-sums per class")
    elif index.debiased:
        lines.append(f"debiased from {index.sub_sums} sub-sums per class; the class angles are shrunk to their mean")
    show(describe(index).extended(lines=lines))


def show_task(index: TaskIndex, grid: Grid | None) -> None:
    """Print RESQUE_task, the agreement between clusterings, and the overhead of computing it."""
    lines = []
    if "random" in index.by_init:
        lines.append(f"random: the clustering with the least entropy of {index.keep}")
    if (overhead := index.overhead) is not None:
        parts = {"warm-up": overhead.warm_up_s, "pass": overhead.pass_s, "clustering": overhead.clustering_s}
        spent = ", ".join(f"{name} {format_cost('wall_s', seconds)}" for name, seconds in parts.items())
        energy = sentences.energy_sentence(overhead.energy)
        carbon = "" if overhead.carbon_kg is None else f"{format_cost('carbon_kg', overhead.carbon_kg)}; "
        lines += [
            f"warm-up: {overhead.head} head with {overhead.outputs} outputs, {overhead.steps} steps "
            f"({overhead.epochs:.2g} epochs), training accuracy {overhead.accuracy:.3f}",
            f"overhead: {format_cost('wall_s', overhead.energy.wall_s)} ({spent}), {energy}",
            f"carbon: {carbon}{sentences.grid_sentence(grid)}",
        ]
    show(describe(index).extended(lines=lines))
    if index.agreement:
        rows = [(pair, f"{value:.4f}") for pair, value in index.agreement.items()]
        show(Display("Agreement of the clusterings", ("two starts", "adjusted Rand index"), rows))


def show_forecast(forecast: Forecast, hardware: EmbodiedEmissions | None = None, details: bool = False) -> None:
    """Print the decision line of a forecast, the costs that decide, missing labels, and reasons not to rely on it.

    Args:
        forecast: The forecast.
        hardware: Embodied emissions of the machine; None leaves them out.
        details: Whether to print every cost, what the forecast is based on, and the notes of lesser weight.
    """
    rows, lines = [], []
    labels = None if forecast.tariff is None else forecast.tariff.price_of_labels(forecast.missing_labels.total)
    if labels is not None and forecast.tariff is not None:
        cell = format_number(labels)
        rows.append((f"price of labels, {forecast.tariff.currency}", cell, NOT_MEASURED, cell))
    if forecast.missing_labels.total or labels is not None:
        lines.append(_labels_sentence(forecast.missing_labels))
    if forecast.features.is_estimated and not details:
        lines.append(_features_sentence(forecast.features))
    if details:
        lines += _detail_lines(forecast, hardware)
    show(describe(forecast, details=details).extended(rows, lines))
    lesser = [text for text in forecast.notes if _LESSER.match(text)]
    for text in forecast.notes:
        if details or text not in lesser:
            (warn if _NEEDS_CARE.match(text) else note)(text)


def _detail_lines(forecast: Forecast, hardware: EmbodiedEmissions | None) -> list[str]:
    """Return what was known before the update, what the forecast is based on, and what it took."""
    lines = [_features_sentence(forecast.features), "costs: training steps only; the price includes evaluation and "
             "the forecast itself"]  # fmt: skip
    if forecast.alternatives:
        lines += _basis_lines(forecast)
    took = f"{format_cost('wall_s', forecast.overhead.wall_s)}, {sentences.energy_sentence(forecast.overhead)}"
    besides = "" if forecast.pilot is None else ", besides its pilot"
    lines += [f"the forecast took {took}{besides}", f"carbon: {sentences.grid_sentence(forecast.grid)}"]
    if hardware is not None:
        low, high = (format_cost("carbon_kg", g / 1000.0) for g in hardware.during(forecast.estimates["wall_s"].value))
        lines.append(f"embodied emissions for this time, not included: {low} to {high} CO2e ({hardware.source})")
    return lines


def _features_sentence(features: Features) -> str:
    """Return what was known of the data and the model before the update."""
    if features.task_index is not None:
        warm_up = features.scores.get("warm-up accuracy")
        after = "" if warm_up is None else f"; test accuracy after the warm-up {warm_up:.3f}"
        return f"RESQUE_task {features.task_index:.4f} (0 is best, 1 is chance level){after}"
    index = "not computed"
    how = f"layer {features.layer}, {features.reduction}, {features.labels} labels"
    if (sampled := features.scores.get("sampled index")) is not None:
        index = f"{sampled:.4f} rad from a sample ({how})"
    elif features.index_rad is not None:
        floor = "unknown" if features.floor_rad is None else f"{features.floor_rad:.4f} rad"
        index = f"{features.index_rad:.4f} rad (noise floor {floor}; {how})"
    return f"RESQUE_dist {index}; current test accuracy {_start_sentence(features)}"


def _start_sentence(features: Features) -> str:
    """Return the accuracy before the update with its loss, or how it was estimated."""
    if not features.is_estimated:
        return f"{features.accuracy:.3f}, loss {features.loss:.3f}"
    error = f"± {features.accuracy_error_logit:.2f} on the logit scale"
    return f"{features.accuracy:.3f} ({features.accuracy_method}; {error})"


def _labels_sentence(missing: MissingLabels) -> str:
    """Return how many labels the update needs first."""
    if not missing.total:
        return "labels missing: none"
    return f"labels missing before the update: {missing.train:,} of training data, {missing.test:,} of test data"


def _basis_lines(forecast: Forecast) -> list[str]:
    """Return the updates and predictors that a forecast is based on, and the guarantees of its intervals."""
    updates = format_count(forecast.n_history, "update")
    types = f" ({', '.join(forecast.shift_types_history)})" if forecast.shift_types_history else ""
    bundled = f" and {forecast.n_bundled} bundled updates" if forecast.n_bundled else ""
    lines = [
        f"based on {updates}{types}{bundled}; predictors: {forecast.predictor}",
        f"coverage: {forecast.estimates['steps'].interval.guarantee}",
        f"coverage of time and energy: {forecast.estimates['wall_s'].interval.guarantee}",
    ]
    if forecast.recipe.get("fixed_epochs") is None:
        lines.insert(0, "forecast: median over runs that reach the target; interval: over all runs")
    if "index" in forecast.alternatives:
        lines.append(f"steps forecast by RESQUE_dist alone: {format_cost('steps', forecast.alternatives['index'])}")
    return lines


def show_decision(decision: "Decision") -> None:
    """Print the decision of the budget gate, the bounds it compared, and its reasons."""
    show(describe(decision))


def show_update(update: Update, carbon: SoftwareCarbonIntensity | None = None) -> None:
    """Print an update: measured costs, energy of the whole run, and its Software Carbon Intensity where known."""
    lines = [
        f"energy of the whole run, evaluation included: {sentences.whole_energy_sentence(update)}",
        f"carbon: {sentences.grid_sentence(update.grid)}",
    ]
    if carbon is not None:
        lines.append(sentences.carbon_sentence(carbon))
    if update.angle_to_parent_rad is not None:
        root = update.angle_to_root_rad
        further = "" if root is None else f", from the root model's {root:.4f} rad"
        lines.append(f"angle of its profile from the parent's {update.angle_to_parent_rad:.4f} rad{further}")
    if update.peak_accuracy > update.accuracy:
        lines.append(f"best accuracy during the run: {update.peak_accuracy:.4f}")
    if update.trainable_share is not None and update.trainable_share < 1.0:
        lines.append(f"{100 * update.trainable_share:.3g} % of the parameters were trained")
    if update.pilot_steps:
        lines.append(f"the first {update.pilot_steps:,} steps were the pilot of its forecast")
    if update.processes > 1:
        lines.append(f"trained by {update.processes} processes together; the energy is that of all")
    if update.resumed:
        lines.append(f"interrupted and resumed: {format_count(update.resumed, 'time')}")
    forgetting = "accuracy on the original data", sentences.format_forgetting(update)
    show(describe(update).extended([forgetting], lines))
    if update.energy.note:
        warn(update.energy.note)


def show_comparison(comparison: "ScratchComparison") -> None:
    """Print retraining compared with training from scratch."""
    show(describe(comparison))


def show_settled(settled: Sequence[tuple[Forecast, Update]]) -> None:
    """Print forecast, interval, measured cost and error of every cost; of a single update its in-run forecasts, too."""
    updates = [update for _, update in settled]
    labels = label_updates(updates, name_ways(updates))
    for forecast, update in settled:
        show(displays.settled_display(forecast, update, labels[update.id]))
    if len(settled) == 1 and settled[0][1].revisions:
        show(displays.revisions_display(settled[0][1]))


def show_settlement(summary: "Settlement") -> None:
    """Print coverage and error of every cost, and the error of each predictor alone."""
    show(describe(summary).extended(lines=[*filter(None, [sentences.overhead_sentence(summary)])]))
    show(displays.predictors_display(summary))


def show_validation(validation: "CrossValidation") -> None:
    """Print cross-validated accuracy of every predictor, with confidence intervals and what could be left out."""
    lines = [f"{validation.folds} folds"]
    if validation.excluded:
        lines.append(f"{validation.excluded} updates of the other type (new task or shift) are not evaluated")
    for name, report in zip(("before training", "in-run, after an epoch"), validation.revised, strict=False):
        if report.reached:
            accuracy = f"median factor {report.median_factor:.2f} (error {report.median_error:.0%})"
            accuracy += f", within 2× {report.within_factor_2:.0%}"
            lines.append(f"{report.n} runs of more than an epoch, {name}: {accuracy}")
            if report.coverage is not None:
                lines[-1] += f", coverage {report.coverage:.0%}, interval score {report.interval_score:.2f}"
    if validation.curve_error is not None:
        lines.append(f"forecast learning curves: median error {100 * validation.curve_error:.1f} points of accuracy")
    show(describe(validation).extended(lines=lines))
    rows = []
    for report in validation.reports:
        bounds = report.coverage_interval
        coverage = "" if bounds is None else f"{report.coverage:.0%} [{bounds.low:.0%}, {bounds.high:.0%}]"
        width = NOT_MEASURED if report.log_width is None else f"×{math.exp(report.log_width):.3g}"
        rows.append((report.predictor, sentences.format_correlation(report), coverage or NOT_MEASURED, width))
    columns = "predictor", "ρ [95% interval]", f"coverage of {validation.level:.0%} [90% interval]", "width"
    lines = ["ρ: Spearman; coverage: clustered by shift type; width: median of upper over lower bound"]
    show(Display("Order, and intervals", columns, rows, lines))
    show(displays.seeds_display(validation.seeds))


def show_ledger(
    updates: Sequence[Update],
    pending: Sequence[Forecast],
    voids: Sequence[Void],
    counts: Mapping[str, int],
    questions: Sequence[Question] = (),
) -> None:
    """Print one line per update, the pending forecasts, what was asked without one, and the void entries.

    Args:
        updates: Updates to show, the newest ones.
        pending: Pending forecasts to show, the newest ones.
        voids: Tombstones.
        counts: Number of all ``updates``, ``forecasts`` and ``settled`` forecasts in the ledger; and of ``pending``
            ones, where some of the others were asked again.
        questions: Questions without a forecast.
    """
    ways = name_ways([*pending, *updates], is_short=True)
    tells_apart = any(ways[update.id] != "all" for update in updates)
    width = max(out.width - _LEDGER_WIDTH, 16 - 6 * tells_apart)
    rows = []
    costs, units = [], []
    for cost in displays.MAIN_COSTS:
        cells = format_column(cost, [getattr(each.cost, cost) for each in updates])
        costs.append([cell.split(" ")[0] for cell in cells])
        units.append(next((f" [{unit}]" for cell in cells if (unit := cell.partition(" ")[2])), ""))
    for update, *took in zip(updates, *costs, strict=True):
        index = sentences.format_index(update).removesuffix(" rad")
        accuracies = sentences.format_accuracies(update, 2, "→") + _outcome_mark(update)
        data = _cut_middle(shorten_data(update.train_data), width)
        rows.append((update.id[:6], data, *([ways[update.id]] if tells_apart else []), index, accuracies, *took))
    names = (f"{name}{unit}" for name, unit in zip(("steps", "time", "energy", "CO2e"), units, strict=True))
    columns = "update", "data", *(("trained",) if tells_apart else ()), "index", "accuracy", *names
    budget = "; ! ended by its budget" if any(_outcome_mark(update) == "!" for update in updates) else ""
    trained = "trained: all layers, a part, or from scratch; +old: with old data mixed in; " if tells_apart else ""
    lines = [f"{trained}index in rad; accuracy before → after; * target not reached{budget}; full names: --json"]
    n, forecasts, settled = counts["updates"], counts["forecasts"], counts["settled"]
    if len(updates) < n:
        lines.append(f"the newest {len(updates):,} of {n:,}; more: --last {n}")
    show(Display(format_count(n, "update"), columns, rows, lines if updates else (), 2 + tells_apart))
    waiting = counts.get("pending", forecasts - settled)
    again = f", {former:,} asked again" if (former := forecasts - settled - waiting) else ""
    title = f"{format_count(forecasts, 'forecast')}: {settled:,} settled, {waiting:,} pending{again}"
    show(_pending_display(title, pending, ways, width))
    if questions:
        spent = format_cost("wall_s", math.fsum(each.spending.wall_s for each in questions))
        out.print(f"{format_count(len(questions), 'question')} without a forecast, {spent}: in `resque ledger life`")
    if voids:
        gone = [(each.id, each.entry, each.created_utc[:10], each.why) for each in voids]
        title = f"{len(voids):,} void entr{'ies' if len(voids) > 1 else 'y'}, counted nowhere"
        show(Display(title, ("void", "entry", "since", "why"), gone, text_columns=4))


def _pending_display(title: str, pending: Sequence[Forecast], ways: Mapping[str, str], width: int) -> Display:
    """Describe pending forecasts by their ways, and by their models where there are several."""
    names = shorten_names((each.model for each in pending), _MODEL_WIDTH)
    model = ("model",) if len(names) > 1 else ()
    rows = []
    for each in pending:
        steps = each.estimates["steps"]
        rows.append((
            each.id,
            *([names[each.model]] if model else []),
            _cut_middle(shorten_data(each.train_data), max(width - 20, 10) if model else width),
            ways[each.id],
            f"{each.target_accuracy:g}".removeprefix("0"),
            format_cost("steps", steps.value),
            format_interval("steps", steps.value, steps.interval),
        ))  # fmt: skip
    columns = "pending", *model, "data", "trained", "to", "steps", "interval"
    return Display(title, columns, rows, text_columns=3 + len(model))


def _outcome_mark(update: Update) -> str:
    return "" if update.reached else "!" if update.ended_by_budget else "*"


def _cut_middle(text: str, width: int) -> str:
    """Return a text cut in the middle to a width: source and shift are at its ends.

    Example:
        >>> _cut_middle("digits@16px@train@shifted+gaussian:3", 16)
        'digit…gaussian:3'
    """
    head = (width - 1) // 3
    return text if len(text) <= width else f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def show_facts(facts: dict[str, Any]) -> None:
    """Print names and values, one per line."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, dict):
            value = [f"{key} {item}" for key, item in value.items()]
        rows.append((name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    show(Display("", ("", ""), rows, text_columns=2))
