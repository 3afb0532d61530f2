"""The rows of a comparison: what a forecast says of a way, what it is to do nothing, and the choice among them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resque.energy.price import Tariff, price_of
from resque.energy.reading import join_readings
from resque.forecasting.break_even import break_even_points
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, NOTHING, SCRATCH, Comparison, Option, choose
from resque.forecasting.price import forecast_price
from resque.ledger.components import COSTS, MEASURED
from resque.ledger.decision import EXTRAPOLATION, without_advice
from resque.ledger.records import Estimate, Forecast
from resque.types import Interval

__all__ = ["compare_options", "do_nothing", "doubt_of", "option_of", "stored_comparison", "with_known_prices"]

_STATISTICS = "norm"  # the way without labels, and without a target that ends it


def option_of(
    forecast: Forecast,
    name: str,
    tariff: Tariff,
    before: float | None,
    labels: int | None = None,
    license_price: float | None = None,
    **known: Any,
) -> Option:
    """Return what a forecast says of a way.

    Args:
        forecast: Forecast of the way.
        name: Name of the way.
        tariff: Prices.
        before: Accuracy on the original test data before the update; None if unknown.
        labels: Number of labels that it needs; None takes the number of new training samples.
        license_price: Price of the license of its model; None takes that of the forecast.
        known: Further fields of the option.
    """
    trains, pilot = str(forecast.recipe.get("trains", "all")), forecast.pilot
    if labels is None:
        labels = 0 if trains == _STATISTICS else forecast.features.samples or 0
    license_price = forecast.license_price if license_price is None else license_price
    fees, price = license_price + (tariff.price_of_labels(labels) or 0.0), forecast_price(forecast, tariff)
    kept, kept_known = _kept(forecast, before)
    given = {
        "id": forecast.id,
        "rung": SCRATCH if forecast.from_scratch else trains,
        "name": name,
        "model": forecast.model,
        "recipe": dict(forecast.recipe),
        "chance": forecast.probability_reached,
        "estimates": {**forecast.estimates, **({} if price is None else {"price": price})},
        "accuracy": _accuracy_at_end(forecast),
        "how_known": BY_HISTORY if pilot is None else MEASURED if _has_ended(forecast) else BY_PILOT,
        "labels": labels,
        "license_price": license_price,
        "fees": fees,
        "original_accuracy": kept,
        "original_known": kept_known,
        "trainable_share": (pilot or forecast.step_cost).trainable_share,
        "doubt": doubt_of(forecast),
        "asking_price": price_of(tariff, [forecast.asking(continued=True)]) or 0.0,
    }
    return Option(**{**given, **known})


def do_nothing(model: str, accuracy: float, target_accuracy: float, costs: Sequence[str], **known: Any) -> Option:
    """Return what it is to do nothing.

    Args:
        model: Name of the model.
        accuracy: Its accuracy on the new test data.
        target_accuracy: Target accuracy.
        costs: Names of the costs, which are zero.
        known: Further fields of the option, and the ``level`` of its intervals.
    """
    level, kept = known.pop("level"), known.get("original_accuracy")
    zero = _measured(0.0, level)
    given = {
        "id": NOTHING,
        "rung": NOTHING,
        "name": "Do nothing",
        "model": model,
        "recipe": {},
        "chance": float(accuracy >= target_accuracy),
        "estimates": dict.fromkeys(costs, zero),
        "fees": known.get("license_price", 0.0),
        "accuracy": _measured(accuracy, level),
        "how_known": MEASURED,
        "original_known": None if kept is None else MEASURED,
        "trainable_share": 0.0,
    }
    return Option(**{**given, **known})


def compare_options(options: Sequence[Option], level: float, tariff: Tariff, **facts: Any) -> Comparison:
    """Choose among options, and put them in order: the best and its ties, those that suffice by cost, then the nearest.

    Args:
        options: The options.
        level: Smallest chance that suffices.
        tariff: Prices.
        facts: The other fields of the comparison.
    """
    options = with_known_prices(options, tariff)
    best, ties, nearest, by = choose(options, level)
    chosen = next((option for option in options if option.id == best), None)
    is_doubted = chosen is not None and bool(chosen.doubt)
    enough = [o for o in options if o.chance >= level and o is not chosen and (is_doubted or not o.doubt)]
    flips = [] if chosen is None else break_even_points(chosen, enough, tariff.per_label or 0.0)
    first = (best, *ties, nearest)

    def place(option: Option) -> tuple[float | bool, ...]:
        rank = first.index(option.id) if option.id in first else len(first)
        suffices = option.chance >= level and not option.doubt
        cost = option.ahead(by).value if suffices and by in option.estimates else 0.0
        return rank, not suffices, cost, *(-near for near in option.nearness)

    return Comparison(
        options=tuple(sorted(options, key=place)),
        best=best,
        ties=ties,
        nearest=nearest,
        by=by,
        level=level,
        currency=tariff.currency,
        break_even=tuple(flips),
        **facts,
    )


def with_known_prices(options: Sequence[Option], tariff: Tariff) -> Sequence[Option]:
    """Return options that can be compared by their fees where energy and time have no price: then their price is 0.

    Args:
        options: The options.
        tariff: Prices.
    """
    if tariff.per_kwh or tariff.per_hour or not any(option.fees for option in options):
        return options
    level = next((known.interval.level for each in options for known in each.estimates.values()), 0.0)
    free = {"price": _measured(0.0, level)}
    return [dataclasses.replace(option, estimates={**free, **option.estimates}) for option in options]


def stored_comparison(
    ways: Sequence[Forecast], names: Mapping[str, str], original_accuracy: float | None = None
) -> Comparison:
    """Return stored forecasts as a comparison; a model without a way was not stored, so it is not among them.

    Args:
        ways: Forecasts of one model, data and target, one for each way, oldest first.
        names: Id of each forecast → name of its way.
        original_accuracy: Accuracy on the original test data before an update, where no forecast has it.
    """
    last = ways[-1]
    tariff = last.tariff or Tariff()
    known = [way.original_accuracy for way in ways if way.original_accuracy is not None]
    before = known[-1] if known else original_accuracy
    options = [*(option_of(way, names[way.id], tariff, before) for way in ways), *_nothing(ways, before)]
    return compare_options(
        options,
        last.level,
        tariff,
        model=last.model,
        train_data=last.train_data,
        target_accuracy=last.target_accuracy,
        asking=join_readings([way.overhead for way in ways] + [way.pilot.reading for way in ways if way.pilot]),
        original_accuracy=before,
    )


def doubt_of(forecast: Forecast) -> str:
    """Return the first reason not to rely on a forecast, an extrapolation before others; empty if there is none.

    Without a pilot, it has no advice to make one.
    """
    issues = sorted(forecast.reliability_issues, key=lambda issue: not issue.startswith(EXTRAPOLATION))
    first = next(iter(issues), "")
    return first if forecast.pilot is not None else without_advice(first)


def _nothing(ways: Sequence[Forecast], before: float | None) -> Iterator[Option]:
    """Yield what it is to do nothing, where the accuracy now was measured and the model knows the classes."""
    known = [way for way in ways if not way.from_scratch and way.features.task_index is None]
    known = [way for way in known if way.features.accuracy is not None and not way.features.is_estimated]
    for way in known[-1:]:
        costs = [*(cost for cost in COSTS if cost in way.estimates), *(["price"] if way.price else [])]
        accuracy, target = way.features.accuracy or 0.0, way.target_accuracy
        known_of = {"level": way.level, "original_accuracy": before, "license_price": way.license_price}
        yield do_nothing(way.model, accuracy, target, costs, **known_of)


def _measured(value: float, level: float) -> Estimate:
    return Estimate(value, Interval(value, value, level, MEASURED), value)


def _has_ended(forecast: Forecast) -> bool:
    return forecast.pilot is not None and forecast.pilot.stopped_by is not None


def _accuracy_at_end(forecast: Forecast) -> Estimate | None:
    """Return the accuracy at the end of the training: the target, where it is reached and ends it."""
    best, target, pilot, recipe = forecast.best_accuracy, forecast.target_accuracy, forecast.pilot, forecast.recipe
    if pilot is not None and _has_ended(forecast):
        return _measured(pilot.curve.accuracy[-1], forecast.level)
    if best is None or recipe.get("fixed_epochs") is not None or recipe.get("trains") == _STATISTICS:
        return best  # it does not stop at the target
    low, high = (target if bound is None else min(bound, target) for bound in (best.interval.low, best.interval.high))
    return Estimate(min(best.value, target), dataclasses.replace(best.interval, low=low, high=high))


def _kept(forecast: Forecast, before: float | None) -> tuple[float | None, str | None]:
    """Return the accuracy on the original test data, and how it is known.

    The lower of that after a pilot and that which earlier updates lead to expect: more is mostly forgotten later.
    """
    piloted = None if forecast.pilot is None else forecast.pilot.original_accuracy
    if piloted is not None and _has_ended(forecast):
        return piloted, MEASURED
    expected = None
    if before is not None and forecast.expected_forgetting is not None:
        expected = min(1.0, max(0.0, before - forecast.expected_forgetting))
    if piloted is not None and piloted <= (1.0 if expected is None else expected):
        return piloted, BY_PILOT
    return expected, None if expected is None else BY_HISTORY
