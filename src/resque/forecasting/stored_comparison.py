"""The comparison that stored forecasts of one question are: the same rows and sentence as when they were made."""

import dataclasses
from collections.abc import Mapping, Sequence

from resque.energy.price import Tariff
from resque.energy.reading import join_readings
from resque.forecasting.break_even import break_even_points
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, Comparison, Option, choose
from resque.forecasting.price import price_with_fees
from resque.ledger.components import COSTS, MEASURED
from resque.ledger.decision import EXTRAPOLATION, without_advice
from resque.ledger.records import Estimate, Forecast
from resque.types import Interval

__all__ = ["stored_comparison"]

_STATISTICS = "norm"  # the way without labels, and without a target that ends it


def stored_comparison(
    ways: Sequence[Forecast], names: Mapping[str, str], original_accuracy: float | None = None
) -> Comparison:
    """Return stored forecasts as a comparison. What was not stored is unknown: licenses, and models without a way.

    Args:
        ways: Forecasts of one model, data and target, one for each way, oldest first.
        names: Id of each forecast → name of its way.
        original_accuracy: Accuracy on the original test data before an update; None if unknown.
    """
    last = ways[-1]
    level, tariff = last.level, last.tariff or Tariff()
    options = [_option(way, names[way.id], tariff, original_accuracy) for way in ways]
    options += _nothing(ways, original_accuracy)
    best, ties, nearest, by = choose(options, level)
    chosen = next((option for option in options if option.id == best), None)
    enough = [] if chosen is None else [o for o in options if o.chance >= level and (chosen.doubt or not o.doubt)]
    flips = (
        [] if chosen is None else break_even_points(chosen, [o for o in enough if o != chosen], tariff.per_label or 0)
    )
    first = (best, *ties, nearest)

    def place(option: Option) -> tuple[int, bool, float, float]:
        suffices = option.chance >= level and not option.doubt
        rank = first.index(option.id) if option.id in first else len(first)
        return rank, not suffices, (option.cost(by) or 0.0) if suffices else 0.0, -option.chance

    return Comparison(
        model=last.model,
        train_data=last.train_data,
        target_accuracy=last.target_accuracy,
        options=tuple(sorted(options, key=place)),
        best=best,
        ties=ties,
        nearest=nearest,
        by=by,
        level=level,
        asking=join_readings(
            [each for way in ways for each in (way.overhead, *((way.pilot.reading,) if way.pilot else ()))]
        ),
        currency=tariff.currency,
        original_accuracy=original_accuracy,
        break_even=tuple(flips),
    )


def _option(way: Forecast, name: str, tariff: Tariff, before: float | None) -> Option:
    trains, pilot = str(way.recipe.get("trains", "all")), way.pilot
    labels = 0 if trains == _STATISTICS else way.features.samples or 0
    price = price_with_fees(way, tariff, tariff.price_of_labels(labels))
    kept, kept_known = _kept(way, before)
    has_ended = pilot is not None and pilot.stopped_by is not None
    return Option(
        id=way.id,
        rung="scratch" if way.from_scratch else trains,
        name=name,
        model=way.model,
        recipe=dict(way.recipe),
        chance=way.probability_reached,
        estimates={**way.estimates, **({} if price is None else {"price": price})},
        accuracy=_accuracy_at_end(way),
        how_known=BY_HISTORY if pilot is None else MEASURED if has_ended else BY_PILOT,
        labels=labels,
        original_accuracy=kept,
        original_known=kept_known,
        trainable_share=None if pilot is None else pilot.trainable_share,
        doubt=_doubt(way),
    )


def _nothing(ways: Sequence[Forecast], before: float | None) -> list[Option]:
    """Return what it is to do nothing, where the accuracy now was measured and the model knows the classes."""
    known = [way for way in ways if not way.from_scratch and way.features.task_index is None]
    known = [way for way in known if way.features.accuracy is not None and not way.features.is_estimated]
    if not known:
        return []
    way = known[-1]
    costs = [*(cost for cost in COSTS if cost in way.estimates), *(["price"] if way.price else [])]
    accuracy = way.features.accuracy or 0.0
    return [
        Option(
            id="nothing",
            rung="nothing",
            name="Do nothing",
            model=way.model,
            recipe={},
            chance=float(accuracy >= way.target_accuracy),
            estimates=dict.fromkeys(costs, _measured(0.0, way.level)),
            accuracy=_measured(accuracy, way.level),
            how_known=MEASURED,
            original_accuracy=before,
            original_known=None if before is None else MEASURED,
        )
    ]


def _measured(value: float, level: float) -> Estimate:
    return Estimate(value, Interval(value, value, level, MEASURED), value)


def _doubt(way: Forecast) -> str:
    """Return the first reason not to rely on a forecast; without a pilot, no advice to make one."""
    issues = sorted(way.reliability_issues, key=lambda issue: not issue.startswith(EXTRAPOLATION))
    first = next(iter(issues), "")
    return first if way.pilot is not None else without_advice(first)


def _accuracy_at_end(way: Forecast) -> Estimate | None:
    """Return the accuracy at the end of the training: the target, where it is reached and ends it."""
    best, target, pilot = way.best_accuracy, way.target_accuracy, way.pilot
    if pilot is not None and pilot.stopped_by is not None:
        return _measured(pilot.curve.accuracy[-1], way.level)
    if best is None or way.recipe.get("fixed_epochs") is not None or way.recipe.get("trains") == _STATISTICS:
        return best
    low, high = (target if bound is None else min(bound, target) for bound in (best.interval.low, best.interval.high))
    return Estimate(min(best.value, target), dataclasses.replace(best.interval, low=low, high=high))


def _kept(way: Forecast, before: float | None) -> tuple[float | None, str | None]:
    """Return the accuracy on the original test data, and how it is known: the lower of pilot and earlier updates."""
    piloted = None if way.pilot is None else way.pilot.original_accuracy
    if way.pilot is not None and piloted is not None and way.pilot.stopped_by is not None:
        return piloted, MEASURED
    expected = None
    if before is not None and way.expected_forgetting is not None:
        expected = min(1.0, max(0.0, before - way.expected_forgetting))
    if piloted is not None and piloted <= (1.0 if expected is None else expected):
        return piloted, BY_PILOT
    return expected, None if expected is None else BY_HISTORY
