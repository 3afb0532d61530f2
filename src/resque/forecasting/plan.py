"""The plan of a model's updates: what the windows show, an update now, a later one, and a year at several cadences."""

from collections.abc import Mapping
from dataclasses import dataclass

from resque._display import Display, Displayable
from resque._format import NOT_MEASURED, format_interval, format_number, scale_and_unit
from resque._plain import Serializable
from resque.forecasting.budget import Decision
from resque.forecasting.drift import Drift
from resque.ledger.records import Estimate

__all__ = ["LATER", "NEVER", "NOW", "UNDECIDED", "Cadence", "Plan", "PlanWindow", "UpdateLater", "UpdateNow"]

NOW, LATER, NEVER, UNDECIDED = "now", "later", "never", "undecided"
"""Values of :attr:`Plan.decision`."""


@dataclass(frozen=True)
class PlanWindow(Serializable):
    """A window of time: its batch, and the model on it.

    Attributes:
        date: Date of the window.
        data: Specification of the batch.
        samples: Number of samples.
        index_rad: RESQUE_dist of the batch in radians; None without original data.
        labels: Source of the labels of the index, ``"true"`` or ``"pseudo"``.
        accuracy: Accuracy of the model, measured or estimated.
        accuracy_method: ``"measured"``, or how it was estimated without labels.
        accuracy_error_logit: Standard error of an estimated accuracy on the logit scale; None if it was measured.
    """

    date: str
    data: str
    samples: int
    index_rad: float | None
    labels: str
    accuracy: float
    accuracy_method: str
    accuracy_error_logit: float | None = None


@dataclass(frozen=True)
class UpdateNow(Serializable):
    """An update on the newest batch, as it is forecast.

    Attributes:
        forecast_id: Id of its forecast in the ledger, for ``resque retrain --forecast ID``.
        train_data: Training data, a part of the newest batch.
        test_data: Test data, the other part.
        accuracy: Accuracy before it, on the whole batch.
        accuracy_after: Accuracy that the plan expects of it.
        target_accuracy: Target accuracy.
        chance: Probability of reaching the target.
        estimates: Name of a cost → its forecast. The price is there with a tariff, and includes missing labels.
        is_needed: Whether the model is below the target; if not, an update costs and changes nothing.
        reliability_issues: Reasons why the forecast is not reliable enough for a decision.
    """

    forecast_id: str
    train_data: str
    test_data: str
    accuracy: float
    accuracy_after: float
    target_accuracy: float
    chance: float
    estimates: Mapping[str, Estimate]
    is_needed: bool
    reliability_issues: tuple[str, ...] = ()


@dataclass(frozen=True)
class UpdateLater(Serializable):
    """The window before which the first update is due.

    Attributes:
        window: Date of the window; None if none is due within a year.
        earliest: The same by the lower bounds of accuracy and price; None if none is due within a year even so.
        latest: The same by the upper bounds; None if none is due within a year then.
    """

    window: str | None
    earliest: str | None
    latest: str | None


@dataclass(frozen=True)
class Cadence(Serializable):
    """A year with an update every so many windows.

    Attributes:
        name: Description for people.
        every: Number of windows between updates; None for none, and for the plan's own schedule.
        updates: Dates of the windows before which the model is updated.
        costs: Costs of the updates: name → sum over the year; empty where an update has no forecast.
        errors: Price of the errors; None without a price per error.
        total: Price of errors and updates; None where one of them is unknown.
        mean_accuracy: Mean accuracy over the year.
        lowest_accuracy: Lowest accuracy of a window.
        holds_floor: Whether the lowest accuracy is at the floor or above it; None without a floor.
        within_budget: Whether the upper bounds of the costs are within the budget of a year; None if that is unknown.
    """

    name: str
    every: int | None
    updates: tuple[str, ...]
    costs: Mapping[str, Estimate]
    errors: Estimate | None
    total: Estimate | None
    mean_accuracy: Estimate
    lowest_accuracy: Estimate
    holds_floor: bool | None
    within_budget: bool | None


@dataclass(frozen=True)
class Plan(Displayable):
    """When to update a model: now, later or never, and what a year costs at several cadences.

    Attributes:
        model: Specification or name of the model.
        target_accuracy: Target accuracy of each update.
        decision: ``"now"``, ``"later"``, ``"never"`` (not within a year) or ``"undecided"``.
        recommendation: Advice with its reason, in a sentence.
        windows: The windows of the batches, the oldest first.
        now: An update now.
        later: When the first update is due; None with too few windows to tell, or where an update has no price.
        cadences: A year at several cadences, the plan's own schedule first; empty where ``later`` is None.
        drift: Drift of the accuracy; None with fewer than three windows.
        budget: Decision about the budget of a year; None without one.
        floor: Lowest accuracy that is accepted; None without one.
        price_per_error: Price of a wrong prediction; None without one.
        samples_per_window: Number of predictions per window; None if it is not given.
        currency: Currency of all prices.
        level: Nominal coverage of the intervals.
        notes: Remarks for the reader, assumptions first.
    """

    model: str
    target_accuracy: float
    decision: str
    recommendation: str
    windows: tuple[PlanWindow, ...]
    now: UpdateNow
    later: UpdateLater | None
    cadences: tuple[Cadence, ...]
    drift: Drift | None
    budget: Decision | None
    floor: float | None
    price_per_error: float | None
    samples_per_window: int | None
    currency: str
    level: float
    notes: tuple[str, ...]

    def _display(self) -> Display:
        priced = any(_price(each) for each in self.cadences)
        most = max(
            (each.costs["energy_kwh"].value for each in self.cadences if "energy_kwh" in each.costs), default=0.0
        )
        scale, unit = scale_and_unit("energy_kwh", most)
        columns = ["update", "n", *([self.currency, f"{self.level:.0%} interval"] if priced else []), unit, "mean"]
        columns += ["lowest", *(["floor"] if self.floor is not None else [])]
        columns += ["budget"] if self.budget is not None else []
        rows = []
        for each in self.cadences:
            energy, price = each.costs.get("energy_kwh"), _price(each)
            cells = [each.name, str(len(each.updates)), *(_price_cells(price) if priced else [])]
            cells += [NOT_MEASURED if energy is None else format_number(energy.value / scale)]
            cells += [_short(each.mean_accuracy.value), _with_interval(each.lowest_accuracy)]
            cells += [_mark(each.holds_floor)] if self.floor is not None else []
            rows.append([*cells, _mark(each.within_budget)] if self.budget is not None else cells)
        means = "updates alone" if self.price_per_error is None else "errors and updates"
        shown = ["a year: every 3 is an update every three windows; mean and lowest accuracy"]
        shown += [f"{self.currency} of {means}, each update with its evaluation and one question"] if priced else []
        return Display(self.recommendation, columns, rows, [*(shown if rows else []), *self.notes])


def _price(cadence: Cadence) -> Estimate | None:
    return cadence.total or cadence.costs.get("price")


def _price_cells(price: Estimate | None) -> list[str]:
    if price is None:
        return [NOT_MEASURED, NOT_MEASURED]
    return [
        format_number(price.value),
        format_interval("", price.value, price.interval) if price.value else NOT_MEASURED,
    ]


def _short(accuracy: float) -> str:
    return f"{accuracy:.2f}".removeprefix("0")


def _with_interval(accuracy: Estimate) -> str:
    low, high = accuracy.interval.low, accuracy.interval.high
    return f"{_short(accuracy.value)} ({_short(low)}–{_short(1.0 if high is None else high)})"


def _mark(holds: bool | None) -> str:
    return NOT_MEASURED if holds is None else "yes" if holds else "no"
