"""Numbers and verdicts in words: each number with the unit in which it reads best."""

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resque.readings import EnergyReading, Grid
from resque.records import Estimate, Forecast, Renewal, Update
from resque.sci import Intensity, software_carbon_intensity
from resque.settling import FORECAST, Settlement, held, relative_error
from resque.specs import parts_of

if TYPE_CHECKING:
    from resque.judging import Judged

_SCALES = {
    "energy_kwh": ((1.0, "kWh"), (1e-3, "Wh"), (1e-6, "mWh"), (1e-9, "µWh")),
    "carbon_kg": ((1.0, "kg"), (1e-3, "g"), (1e-6, "mg"), (1e-9, "µg")),
    "flops": ((1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1.0, "FLOP")),
    "wall_s": ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")),
}
NAMES = {
    "epochs": "epochs",
    "steps": "steps",
    "gradient_norm": "gradient norm",
    "parameter_change": "parameter change",
    "wall_s": "time",
    "energy_kwh": "energy",
    "carbon_kg": "CO2e",
    "flops": "operations",
}
NOT_MEASURED = "–"


def quantity(cost: str, value: float | None) -> str:
    """A cost with its unit; a dash where it was not measured.

    Example:
        >>> quantity("energy_kwh", 0.0000124), quantity("wall_s", 95.0), quantity("steps", 1400.0)
        ('12.4 mWh', '1.58 min', '1,400')
        >>> quantity("carbon_kg", None), quantity("flops", 3.2e12)
        ('–', '3.2 TFLOP')
    """
    if value is None:
        return NOT_MEASURED
    scale, unit = _scale(cost, value)
    return f"{_number(value / scale)} {unit}".rstrip()


def median_of(cost: str, updates: Sequence[Update]) -> str:
    """The median of a cost over several updates; a dash where one of them was not measured."""
    values = [getattr(update.cost, cost) for update in updates]
    return quantity(cost, None if None in values else statistics.median(values))


def interval(cost: str, estimate: Estimate | None) -> str:
    """The interval of a forecast, in the unit in which its value reads best.

    Example:
        >>> from resque.readings import Interval
        >>> interval("energy_kwh", Estimate(2e-5, Interval(5.1e-6, 9.96e-5, 0.8, "")))
        '5.1–100 mWh'
    """
    if estimate is None:
        return NOT_MEASURED
    (low, high), (scale, unit) = (estimate.interval.low, estimate.interval.high), _scale(cost, estimate.value)
    bounds = f"over {_short(low / scale)}" if high is None else f"{_short(low / scale)}–{_short(high / scale)}"
    return f"{bounds} {unit}".rstrip()


def chance(probability: float) -> str:
    """A chance in whole percent, never rounded up to what is sure, or to a level that it does not reach.

    Example:
        >>> chance(0.7999), chance(0.9985), chance(1.0), chance(0.004)
        ('79%', '>99%', '100%', '<1%')
    """
    if 0.0 < probability < 0.01:
        return "<1%"
    return ">99%" if 0.99 < probability < 1.0 else f"{math.floor(100.0 * probability + 1e-9)}%"


def renewed(update: Update) -> list[str]:
    """Its forecast as it was renewed on the way: whenever the steps had doubled, and last."""
    shown: list[Renewal] = []
    for renewal in update.renewals:
        if not shown or renewal.step >= 2 * shown[-1].step or renewal is update.renewals[-1]:
            shown.append(renewal)
    return [_renewed(renewal) for renewal in shown]


def _renewed(renewal: Renewal) -> str:
    steps = f"{quantity('steps', renewal.steps.value)} ({interval('steps', renewal.steps)})"
    at = f"after {renewal.step:,} steps, at accuracy {renewal.accuracy:.3f}"
    return f"renewed {at}: {steps} steps in all if it arrives; chance of that {chance(renewal.probability_reached)}"


def standing(accuracy: float, renewal: Renewal | None) -> str:
    """Where a run stands, with its forecast as it was renewed last."""
    said = f"accuracy {accuracy:.4f}"
    if renewal is None:
        return said
    return f"{said}, of {quantity('steps', renewal.steps.value)} ({interval('steps', renewal.steps)})"


def error_of(said: Forecast, update: Update, cost: str) -> str:
    """How far a forecast was from what was measured, in percent of the latter; a dash where that cannot be judged."""
    error = relative_error(said, update, cost)
    return NOT_MEASURED if error is None else f"{error:+.0%}"


def correlation(each: "Judged") -> str:
    """ρ with its interval, where there is one."""
    if each.spearman_value is None:
        return NOT_MEASURED
    ends = "–" if each.spearman is None else f"{each.spearman.low:.2f}, {each.spearman.high:.2f}"
    return f"{each.spearman_value:.2f} [{ends}]"


def share(part: int, whole: int) -> str:
    """``7 of 8``."""
    return f"{part} of {whole}"


def forgotten(update: Update) -> str:
    """How accuracy on the original data changed: ``0.991 → 0.963``."""
    before, after = update.original_accuracy_before, update.original_accuracy_after
    return NOT_MEASURED if before is None or after is None else f"{before:.3f} → {after:.3f}"


def accuracies(update: Update, digits: int = 3, arrow: str = " → ") -> str:
    """Accuracy on the new test data before and after: ``0.612 → 0.941``."""
    before = update.features.accuracy
    return f"{NOT_MEASURED if before is None else f'{before:.{digits}f}'}{arrow}{update.accuracy:.{digits}f}"


def short_data(spec: str) -> str:
    """A data specification without the folders of its files.

    Example:
        >>> short_data("idx:/data/mnist/t10k-images.gz,/data/mnist/t10k-labels.gz@test+blur:3")
        'idx:t10k-images.gz,t10k-labels.gz@test+blur:3'
        >>> short_data("npz:/data/new.npz@700~npz:/data/old.npz")
        'npz:new.npz@700~npz:old.npz'
    """
    if len(parts := parts_of(spec)) > 1:
        return "~".join(map(short_data, parts))
    kind, colon, rest = spec.partition(":")
    if kind not in ("npz", "idx"):
        return spec
    return kind + colon + ",".join(part.rsplit("/", 1)[-1] for part in rest.split(","))


def index_of(update: Update) -> str:
    """RESQUE_dist of an update in radians."""
    index = update.features.index_rad
    return NOT_MEASURED if index is None else f"{index:.3f} rad"


def arrived(said: Forecast, update: Update) -> str:
    """What was said of reaching the target beside whether it was."""
    came = "reached" if update.reached else f"not reached, ended by {update.stopped_by}"
    return f"chance of reaching the target {chance(said.probability_reached)}: {came}"


def chances(summary: Settlement) -> str:
    """All chances beside how often targets were reached; empty where nothing was."""
    found = summary.chances
    if found is None:
        return ""
    said = f"said {chance(found.said)} on average, {share(found.reached, found.n)} were"
    return f"Chance of reaching the target: {said} (Brier score {found.brier:.3f}, 0 is best)."


def mark(said: Forecast, update: Update, cost: str) -> str:
    """``yes``, ``no`` or a dash: whether the interval held."""
    return {True: "yes", False: "no", None: NOT_MEASURED}[held(said, update, cost)]


def shift_of(update: Update) -> str:
    """The steps that made the data, without its source and splits."""
    return "+".join(update.train_data.split("+")[1:]) or short_data(update.train_data)


def energy_line(reading: EnergyReading) -> str:
    """Energy with the method of each component and the meter."""
    how = methods_of(reading) if reading.methods else reading.note
    return f"{quantity('energy_kwh', reading.energy_kwh)} ({how}; {reading.meter})"


def methods_of(reading: EnergyReading) -> str:
    """How each component is known: ``cpu modelled, ram assumed``."""
    return ", ".join(f"{device} {how}" for device, how in sorted(reading.methods.items())) or "not measured"


def price(amount: float | None, currency: str) -> str:
    """``0.0123 EUR``; a dash where it is not known."""
    return NOT_MEASURED if amount is None else f"{_number(amount)} {currency}"


def carbon_line(carbon: Intensity) -> str:
    """Software Carbon Intensity with its terms."""
    update = _grams(carbon.per_update_low_g, carbon.per_update_high_g)
    each = _grams(carbon.per_sample_low_g, carbon.per_sample_high_g)
    made = _grams(carbon.embodied_low_g, carbon.embodied_high_g)
    site = "" if carbon.pue == 1.0 else f" × PUE {carbon.pue:g}"
    return (
        f"SCI {update} CO2e per update, {each} per sample: E {quantity('energy_kwh', carbon.energy_kwh)}{site} × "
        f"I {carbon.intensity_g_per_kwh:g} g/kWh + M {made} ({carbon.tags['M']})"
    )


def whole_carbon(update: Update) -> str:
    """Emissions of the whole run with the share of making the machine; a dash where energy or grid is not known."""
    carbon = software_carbon_intensity(update)
    return NOT_MEASURED if carbon is None else _grams(carbon.per_update_low_g, carbon.per_update_high_g)


def _grams(low: float | None, high: float | None) -> str:
    """A range, or the one value that it is."""
    both = [quantity("carbon_kg", None if g is None else g / 1000.0) for g in (low, high)]
    return " to ".join(dict.fromkeys(both))


def grid_line(grid: Grid | None) -> str:
    """The grid, or that there is none."""
    if grid is None:
        return "no region named, so no carbon figure (--country or --intensity)"
    site = "" if grid.pue == 1.0 else f" × PUE {grid.pue:g}"
    return f"grid {grid.region} at {grid.intensity_g_per_kwh:g} g CO2e/kWh ({grid.source}){site}"


def verdict(summary: Settlement) -> str:
    """One sentence that a manager understands."""
    if not summary.n or not summary.scores:
        return "No forecast has been settled yet by an update that reached its target."
    kept, judged = summary.held["steps"]
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
    doing = f"{quantity('wall_s', summary.doing_s)} and {quantity('energy_kwh', summary.doing_kwh)}"
    asking = f"{quantity('wall_s', summary.asking_s)} and {quantity('energy_kwh', summary.asking_kwh)}"
    return (
        f"Asked before {summary.n} update{'s' * (summary.n > 1)}, the forecast was typically off by a factor of "
        f"{own.median_factor:.1f} in training steps (n = {own.n} that reached the target), and {share(kept, judged)} "
        f"of its intervals for them held; asking took {asking}, the updates {doing}"
        f"{', less than asking' if summary.doing_s < summary.asking_s else ''}.{alone}"
    )


def _scale(cost: str, value: float) -> tuple[float, str]:
    scales = _SCALES.get(cost, ((1.0, ""),))
    if value == 0:
        return next((scale, unit) for scale, unit in scales if scale == 1.0)
    return next(((scale, unit) for scale, unit in scales if abs(value) >= scale), scales[-1])


def _short(value: float) -> str:
    """Two digits are enough for a bound."""
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.1e}" if 0 < value < 1e-3 else f"{value:.2g}"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1e}"
