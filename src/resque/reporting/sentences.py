"""Numbers and verdicts in words: each number with the unit in which it reads best."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resque._format import NOT_MEASURED, format_cost, format_interval, format_probability, format_share
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.forecasting.evaluation.settlement import FORECAST, Settlement, is_covered, relative_error
from resque.ledger.records import Forecast, ForecastRevision, Update
from resque.reporting.carbon_intensity import SoftwareCarbonIntensity, software_carbon_intensity

if TYPE_CHECKING:
    from resque.forecasting.evaluation.metrics import PredictorReport


def format_median(cost: str, updates: Sequence[Update]) -> str:
    """The median of a cost over several updates; a dash where one of them was not measured."""
    values = [getattr(update.cost, cost) for update in updates]
    return format_cost(cost, None if None in values else statistics.median(values))


def revision_lines(update: Update) -> list[str]:
    """Its forecast as it was renewed on the way: whenever the steps had doubled, and last."""
    shown: list[ForecastRevision] = []
    for revision in update.revisions:
        if not shown or revision.step >= 2 * shown[-1].step or revision is update.revisions[-1]:
            shown.append(revision)
    return [_renewed(revision) for revision in shown]


def _renewed(revision: ForecastRevision) -> str:
    steps = _steps(revision)
    at = f"after {revision.step:,} steps, at accuracy {revision.accuracy:.3f}"
    chance = format_probability(revision.probability_reached)
    return f"renewed {at}: {steps} steps in all if it arrives; chance of that {chance}"


def _steps(revision: ForecastRevision) -> str:
    """Return the total steps of an in-run forecast with their interval."""
    total = revision.steps
    return f"{format_cost('steps', total.value)} ({format_interval('steps', total.value, total.interval)})"


def progress_text(accuracy: float, revision: ForecastRevision | None) -> str:
    """Where a run stands, with its forecast as it was renewed last."""
    said = f"accuracy {accuracy:.4f}"
    if revision is None:
        return said
    return f"{said}, of {_steps(revision)}"


def format_error(said: Forecast, update: Update, cost: str) -> str:
    """How far a forecast was from what was measured, in percent of the latter; a dash where that cannot be judged."""
    error = relative_error(said, update, cost)
    return NOT_MEASURED if error is None else f"{error:+.0%}"


def format_correlation(each: "PredictorReport") -> str:
    """ρ with its interval, where there is one."""
    if each.spearman_value is None:
        return NOT_MEASURED
    ends = "–" if each.spearman is None else f"{each.spearman.low:.2f}, {each.spearman.high:.2f}"
    return f"{each.spearman_value:.2f} [{ends}]"


def format_forgetting(update: Update) -> str:
    """How accuracy on the original data changed: ``0.991 → 0.963``."""
    before, after = update.original_accuracy_before, update.original_accuracy_after
    return NOT_MEASURED if before is None or after is None else f"{before:.3f} → {after:.3f}"


def format_accuracies(update: Update, digits: int = 3, arrow: str = " → ") -> str:
    """Accuracy on the new test data before and after: ``0.612 → 0.941``."""
    before = update.features.accuracy
    return f"{NOT_MEASURED if before is None else f'{before:.{digits}f}'}{arrow}{update.accuracy:.{digits}f}"


def format_index(update: Update) -> str:
    """RESQUE_dist of an update in radians."""
    index = update.features.index_rad
    return NOT_MEASURED if index is None else f"{index:.3f} rad"


def outcome_sentence(said: Forecast, update: Update) -> str:
    """What was said of reaching the target beside whether it was."""
    came = "reached" if update.reached else f"not reached, ended by {update.stopped_by}"
    return f"chance of reaching the target {format_probability(said.probability_reached)}: {came}"


def probability_sentence(summary: Settlement) -> str:
    """All chances beside how often targets were reached; empty where nothing was."""
    found = summary.probability_score
    if found is None:
        return ""
    said = f"said {format_probability(found.mean_probability)} on average, {format_share(found.reached, found.n)} were"
    return f"Chance of reaching the target: {said} (Brier score {found.brier:.3f}, 0 is best)."


def covered_mark(said: Forecast, update: Update, cost: str) -> str:
    """``yes``, ``no`` or a dash: whether the interval held."""
    return {True: "yes", False: "no", None: NOT_MEASURED}[is_covered(said, update, cost)]


def format_shift(update: Update) -> str:
    """The steps that made the data, without its source and splits."""
    return "+".join(update.train_data.split("+")[1:]) or shorten_data(update.train_data)


def energy_sentence(reading: EnergyReading) -> str:
    """Energy with the method of each component and the meter."""
    how = format_methods(reading) if reading.methods else reading.note
    return f"{format_cost('energy_kwh', reading.energy_kwh)} ({how}; {reading.meter})"


def format_methods(reading: EnergyReading) -> str:
    """How each component is known: ``cpu modelled, ram assumed``."""
    return ", ".join(f"{device} {how}" for device, how in sorted(reading.methods.items())) or "not measured"


def carbon_sentence(carbon: SoftwareCarbonIntensity) -> str:
    """Software Carbon SoftwareCarbonIntensity with its terms."""
    update = _grams(carbon.per_update_low_g, carbon.per_update_high_g)
    each = _grams(carbon.per_sample_low_g, carbon.per_sample_high_g)
    made = _grams(carbon.embodied_low_g, carbon.embodied_high_g)
    site = "" if carbon.pue == 1.0 else f" × PUE {carbon.pue:g}"
    return (
        f"SCI {update} CO2e per update, {each} per sample: E {format_cost('energy_kwh', carbon.energy_kwh)}{site} × "
        f"I {carbon.intensity_g_per_kwh:g} g/kWh + M {made} ({carbon.tags['M']})"
    )


def format_carbon(update: Update) -> str:
    """Emissions of the whole run with the share of making the machine; a dash where energy or grid is not known."""
    carbon = software_carbon_intensity(update)
    return NOT_MEASURED if carbon is None else _grams(carbon.per_update_low_g, carbon.per_update_high_g)


def _grams(low: float | None, high: float | None) -> str:
    """A range, or the one value that it is."""
    both = [format_cost("carbon_kg", None if g is None else g / 1000.0) for g in (low, high)]
    return " to ".join(dict.fromkeys(both))


def grid_sentence(grid: Grid | None) -> str:
    """The grid, or that there is none."""
    if grid is None:
        return "no region named, so no carbon figure (--country or --intensity)"
    site = "" if grid.pue == 1.0 else f" × PUE {grid.pue:g}"
    return f"grid {grid.region} at {grid.intensity_g_per_kwh:g} g CO2e/kWh ({grid.source}){site}"


def settlement_sentence(summary: Settlement) -> str:
    """One sentence that a manager understands."""
    if not summary.n or not summary.scores:
        return "No forecast has been settled yet by an update that reached its target."
    kept, judged = summary.covered["steps"]
    scores = {score.predictor: score for score in summary.scores}
    own = scores.get(FORECAST, summary.scores[0])
    equal = {name: score for name, score in scores.items() if score.n == own.n}  # others were asked about other updates
    best, index, alone = next(iter(equal.values())), scores.get("index"), ""
    if index is not None and index.n < own.n:
        alone = (
            f" On the {index.n} that the index could speak of, the forecast was off by {index.forecast_factor:.1f}, "
            f"and the RESQUE index alone would have been by {index.median_factor:.1f}."
        )
    elif index is not None:
        alone = f" The RESQUE index alone would have been off by {index.median_factor:.1f}"
        alone += "." if best in (own, index) else f", {best.predictor} by {best.median_factor:.1f}."
    doing = f"{format_cost('wall_s', summary.training_s)} and {format_cost('energy_kwh', summary.training_kwh)}"
    overhead = f"{format_cost('wall_s', summary.overhead_s)} and {format_cost('energy_kwh', summary.overhead_kwh)}"
    return (
        f"Asked before {summary.n} update{'s' * (summary.n > 1)}, the forecast was typically off by a factor of "
        f"{own.median_factor:.1f} in training steps (n = {own.n} that reached the target), and "
        f"{format_share(kept, judged)} "
        f"of its intervals for them held; asking took {overhead}, the updates {doing}"
        f"{', less than asking' if summary.training_s < summary.overhead_s else ''}.{alone}"
    )
