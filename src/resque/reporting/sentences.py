"""Numbers and verdicts as short texts, shared by the terminal, the report and Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resque._format import NOT_MEASURED, format_cost, format_count, format_share
from resque.data.spec import shorten_data
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.forecasting.evaluation.settlement import FORECAST, LIKELY, Settlement, is_covered, relative_error
from resque.ledger.records import Forecast, Update
from resque.reporting.carbon_intensity import SoftwareCarbonIntensity, software_carbon_intensity

if TYPE_CHECKING:
    from resque.forecasting.evaluation.metrics import PredictorReport

__all__ = [
    "carbon_sentence",
    "caveat_sentence",
    "covered_mark",
    "energy_sentence",
    "format_accuracies",
    "format_carbon",
    "format_correlation",
    "format_error",
    "format_forgetting",
    "format_index",
    "format_methods",
    "format_shift",
    "grid_sentence",
    "missed_sentence",
    "outcome_sentence",
    "overhead_sentence",
    "predictor_sentence",
    "settlement_sentence",
    "verdict_sentence",
    "whole_energy_sentence",
]  # fmt: skip

_FROM_STEPS = "modeled, the power of its training steps"


def format_error(forecast: Forecast, update: Update, cost: str) -> str:
    """Return the signed error of a forecast in percent of the measured cost; a dash if there is none."""
    error = relative_error(forecast, update, cost)
    if error is None:
        return NOT_MEASURED
    percent = round(100.0 * error)
    return f"{percent:+,}%" if percent else "0%"


def covered_mark(forecast: Forecast, update: Update, cost: str) -> str:
    """Return whether the interval covered the measured cost: ``yes``, ``no`` or a dash."""
    return {True: "yes", False: "no", None: NOT_MEASURED}[is_covered(forecast, update, cost)]


def format_correlation(report: "PredictorReport") -> str:
    """Return Spearman's ρ with its confidence interval, where there is one: ``0.91 [0.73, 0.97]``."""
    if report.spearman_value is None:
        return NOT_MEASURED
    bounds = "–" if report.spearman is None else f"{report.spearman.low:.2f}, {report.spearman.high:.2f}"
    return f"{report.spearman_value:.2f} [{bounds}]"


def format_forgetting(update: Update) -> str:
    """Return the accuracy on the original data before and after the update: ``0.991 → 0.963``."""
    before, after = update.original_accuracy_before, update.original_accuracy_after
    return NOT_MEASURED if before is None or after is None else f"{before:.3f} → {after:.3f}"


def format_accuracies(update: Update, digits: int = 3, arrow: str = " → ") -> str:
    """Return the accuracy on the new test data before and after the update: ``0.612 → 0.941``."""
    before = update.features.accuracy
    return f"{NOT_MEASURED if before is None else f'{before:.{digits}f}'}{arrow}{update.accuracy:.{digits}f}"


def format_index(update: Update) -> str:
    """Return RESQUE_dist of an update in radians."""
    index = update.features.index_rad
    return NOT_MEASURED if index is None else f"{index:.3f} rad"


def format_shift(update: Update) -> str:
    """Return the shift in an update's data specification, or the whole specification without one."""
    return "+".join(update.train_data.split("+")[1:]) or shorten_data(update.train_data)


def outcome_sentence(forecast: Forecast, update: Update) -> str:
    """Return the forecast probability of reaching the target with the outcome."""
    outcome = "reached" if update.reached else f"not reached, stopped by {update.stopped_by}"
    return f"probability of reaching the target: {forecast.chance}; outcome: {outcome}"


def energy_sentence(reading: EnergyReading) -> str:
    """Return energy with the method of each component and the meter."""
    how = format_methods(reading) if reading.methods else reading.note
    return f"{format_cost('energy_kwh', reading.energy_kwh)} ({how}; {reading.meter})"


def whole_energy_sentence(update: Update) -> str:
    """Return the energy of a whole run; one too short for the meter has it from the power of its training steps."""
    energy, kwh = update.energy, update.whole_energy_kwh
    if energy.energy_kwh is None and kwh is not None:
        energy = dataclasses.replace(energy, energy_kwh=kwh, methods={}, note=_FROM_STEPS)
    return energy_sentence(energy)


def caveat_sentence(forecasts: Sequence[Forecast]) -> str:
    """Return the nominal coverage of the intervals, and how many forecasts have no guarantee or are not reliable."""
    levels = " or ".join(sorted({f"{forecast.level:.0%}" for forecast in forecasts}))
    guarantees = [forecast.estimates["steps"].interval.guarantee for forecast in forecasts]
    unguarded = sum("no coverage guarantee" in text or "no guarantee" in text for text in guarantees)
    unreliable = sum(bool(forecast.reliability_issues) for forecast in forecasts)
    n = len(forecasts)
    return (
        f"Intervals have a nominal coverage of {levels}. {unguarded} of {n} forecasts have no coverage guarantee; "
        f"{unreliable} of {n} were not reliable enough for a decision."
    )


def format_methods(reading: EnergyReading) -> str:
    """Return how the energy of each component is known: ``cpu modeled, ram assumed``."""
    named = {"modelled": "modeled"}  # as the file format has it → as people read it
    return (
        ", ".join(f"{device} {named.get(how, how)}" for device, how in sorted(reading.methods.items()))
        or "not measured"
    )


def carbon_sentence(carbon: SoftwareCarbonIntensity) -> str:
    """Return the Software Carbon Intensity with every term of its formula."""
    pue = "" if carbon.pue == 1.0 else f" × PUE {carbon.pue:g}"
    return (
        f"SCI {_grams(carbon.per_update_low_g, carbon.per_update_high_g)} CO2e per update, "
        f"{_grams(carbon.per_sample_low_g, carbon.per_sample_high_g)} per sample: "
        f"E {format_cost('energy_kwh', carbon.energy_kwh)}{pue} × I {carbon.intensity_g_per_kwh:g} g/kWh + "
        f"M {_grams(carbon.embodied_low_g, carbon.embodied_high_g)} ({carbon.tags['M']})"
    )


def format_carbon(update: Update) -> str:
    """Return the emissions of the whole run with embodied emissions; a dash if energy or grid is unknown."""
    carbon = software_carbon_intensity(update)
    return NOT_MEASURED if carbon is None else _grams(carbon.per_update_low_g, carbon.per_update_high_g)


def _grams(low: float | None, high: float | None) -> str:
    """Return a range of emissions, or one value where both ends read the same."""
    bounds = [format_cost("carbon_kg", None if grams is None else grams / 1000.0) for grams in (low, high)]
    return " to ".join(dict.fromkeys(bounds))


def grid_sentence(grid: Grid | None) -> str:
    """Return the grid with its carbon intensity, or that there is none."""
    if grid is None:
        return "no region, so no carbon is reported (set --country or --intensity)"
    pue = "" if grid.pue == 1.0 else f" × PUE {grid.pue:g}"
    return f"grid {grid.region} at {grid.intensity_g_per_kwh:g} g CO2e/kWh ({grid.source}){pue}"


def settlement_sentence(summary: Settlement) -> str:
    """Return the verdict on all settled forecasts, likely ones that missed, and how the RESQUE index alone compares."""
    parts = verdict_sentence(summary), missed_sentence(summary), predictor_sentence(summary)
    return " ".join(filter(None, parts))


def missed_sentence(summary: Settlement) -> str:
    """Return how many of the forecasts that were nearly sure missed their target; empty where none did."""
    if not summary.likely_missed:
        return ""
    missed, n = summary.likely_missed, summary.likely
    return f"{format_share(missed, n)} forecast{'s' * (n != 1)} that gave {LIKELY:.0%} or more missed the target."


def verdict_sentence(summary: Settlement) -> str:
    """Return the verdict on all settled forecasts, one sentence."""
    if not summary.n:
        return "No forecast has been settled yet whose steps had to be predicted."
    if not summary.scores:
        return "No forecast has been settled yet by an update that reached its target."
    scores = {score.predictor: score for score in summary.scores}
    own = scores.get(FORECAST, summary.scores[0])
    reached = "" if own.n == summary.n else f" ({own.n} reached the target)"
    return (
        f"The median error of {format_count(summary.n, 'forecast')} is a factor of {own.median_factor:.1f} in "
        f"training steps{reached}; {format_share(*summary.covered['steps'])} intervals covered the measured steps."
    )


def predictor_sentence(summary: Settlement) -> str:
    """Return the error of the RESQUE index alone on the same updates; empty where it made no forecast."""
    scores = {score.predictor: score for score in summary.scores}
    index = scores.get("index")
    if index is None:
        return ""
    own = scores.get(FORECAST, summary.scores[0])
    if index.n < own.n:
        updates = f"update{'s' * (index.n > 1)}"
        return (
            f"On the {index.n} {updates} with an index, the median error of the forecast is a factor of "
            f"{index.forecast_factor:.1f}; of the RESQUE index alone, {index.median_factor:.1f}."
        )
    best = next(score for score in summary.scores if score.n == own.n)  # others forecast other updates
    other = "" if best in (own, index) else f"; of {best.predictor}, {best.median_factor:.1f}"
    return f"The median error of the RESQUE index alone is a factor of {index.median_factor:.1f}{other}."


def overhead_sentence(summary: Settlement) -> str:
    """Return what the settled forecasts took, and what their updates took until they ended; empty without any."""
    if not summary.n:
        return ""
    updates = f"{format_cost('wall_s', summary.training_s)} and {format_cost('energy_kwh', summary.training_kwh)}"
    forecasts = f"{format_cost('wall_s', summary.overhead_s)} and {format_cost('energy_kwh', summary.overhead_kwh)}"
    less = ", less than the forecasts" if summary.training_s < summary.overhead_s else ""
    return f"These forecasts took {forecasts}; training the updates, evaluation left out, took {updates}{less}."
