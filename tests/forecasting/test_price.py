"""One price: forecast, gate, run, update and settlement agree, whatever an update and its question took."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_forecast, synthetic_update
from resque.energy.price import Spending, Tariff, price_of
from resque.energy.reading import EnergyReading
from resque.forecasting.budget import Budget, decide
from resque.forecasting.early_stopping import BudgetStop
from resque.forecasting.evaluation.settlement import (
    PRICE,
    comparable_cost,
    comparable_estimate,
    is_covered,
    relative_error,
    summarize_settlements,
)
from resque.forecasting.price import forecast_price, price_with_labels
from resque.ledger.records import Estimate, Forecast, LearningCurve, Pilot, StepCost, Update
from resque.types import Interval

TARIFFS = st.builds(Tariff, st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 2.0]))
PER_EPOCH, LEVEL = 10, 0.8


def reading(wall_s, power):
    kwh = None if power is None else power * wall_s
    return EnergyReading(wall_s, kwh, {}, {}, "replay")


@st.composite
def pairs(draw) -> tuple[Forecast, Update]:
    """A forecast that was right in every part, and its update: with or without energy, pilot and evaluations."""
    epochs, each_s = draw(st.integers(0, 20)), draw(st.floats(0.1, 5.0))
    step_s, asked_s, power = draw(st.floats(0.01, 2.0)), draw(st.floats(0.5, 50.0)), draw(st.sampled_from([None, 1e-5]))
    steps, probe = epochs * PER_EPOCH, StepCost(step_s, None if power is None else power * step_s, 5, reading(1, power))
    training_s, evaluation_s, pilot = steps * step_s, (epochs + 1) * each_s, None
    if epochs > 1 and draw(st.booleans()):
        none = (None,) * 2
        curve = LearningCurve((0, PER_EPOCH), (0.5, 0.6), none, (0.0, PER_EPOCH * step_s), none, none, none, PER_EPOCH)
        pilot = Pilot(PER_EPOCH, 0, "", curve, reading(PER_EPOCH * step_s + 2 * each_s, power), 2 * each_s)
    update = synthetic_update("u", index=0.1, steps=steps)
    kwh = None if power is None else power * training_s
    update = dataclasses.replace(
        update,
        cost=dataclasses.replace(update.cost, wall_s=training_s, energy_kwh=kwh, epochs=float(epochs)),
        energy=reading(training_s + evaluation_s, power),
        evaluation_s=evaluation_s,
        tariff=draw(TARIFFS),
        pilot_steps=0 if pilot is None else PER_EPOCH,
        features=dataclasses.replace(update.features, evaluation_s=each_s),
    )
    forecast = synthetic_forecast(update, 1.0)
    estimates = {name: exactly(each.value) for name, each in forecast.estimates.items()}
    forecast = dataclasses.replace(
        forecast, estimates=estimates, pilot=pilot, step_cost=probe, overhead=reading(asked_s, power)
    )
    return forecast, dataclasses.replace(update, forecast_id=forecast.id).asked_by(forecast)


def curve_of(update):
    """Its curve with the time that its steps took."""
    curve = update.curve
    factor = update.cost.wall_s / curve.wall_s[-1]
    return dataclasses.replace(curve, wall_s=tuple(factor * each for each in curve.wall_s))


def exactly(value):
    return Estimate(value, Interval(value, value, LEVEL, ""), value)


@given(pairs())
def test_forecast_gate_run_update_and_settlement_have_one_price(pair):
    forecast, update = pair
    tariff = update.tariff
    assert tariff is not None
    price = update.price
    if not (tariff.per_kwh or tariff.per_hour):
        assert forecast_price(forecast, tariff) is None
        return
    if price is None:
        assert tariff.per_kwh
        assert update.energy.energy_kwh is None
        assert forecast_price(forecast, tariff) is comparable_cost(forecast, update, PRICE) is None
        return
    whole_s = update.energy.wall_s + forecast.overhead.wall_s
    assert price == pytest.approx(tariff.price(1e-5 * whole_s, whole_s))
    found = forecast_price(forecast, tariff)
    bounds = found.value, found.interval.low, found.interval.high, found.upper
    assert bounds == pytest.approx((price,) * 4)
    ((cost, bound, _, _),) = decide(forecast, Budget(max_price=1e9, tariff=tariff)).held
    assert (cost, bound) == (PRICE, pytest.approx(price))
    assert comparable_cost(forecast, update, PRICE) == pytest.approx(price)
    assert comparable_estimate(forecast, update, PRICE).value == pytest.approx(price)
    assert relative_error(forecast, update, PRICE) == pytest.approx(0.0, abs=1e-9)
    for factor, reason in ((0.999, "budget: price"), (1.001, None)):
        budget = Budget(max_price=factor * price, tariff=tariff)
        stop = BudgetStop(budget, LEVEL, None, forecast.step_cost, forecast.asking(continued=True))
        if update.cost.steps:
            assert stop(curve_of(update), None, update.energy) == reason


@given(pairs(), st.floats(1.1, 3.0))
def test_the_price_is_settled_like_every_cost(pair, factor):
    forecast, update = pair
    if not update.price or not update.cost.steps:
        return
    wide = {
        name: Estimate(e.value, Interval(e.value / factor, e.value * factor, LEVEL, ""), None)
        for name, e in forecast.estimates.items()
    }
    assert is_covered(dataclasses.replace(forecast, estimates=wide), update, PRICE)
    summary = summarize_settlements([(forecast, update)])
    assert summary.median_error[PRICE] == pytest.approx(0.0, abs=1e-9)
    unpriced = dataclasses.replace(update, tariff=None)
    assert PRICE not in summarize_settlements([(forecast, unpriced)]).covered
    asked = dataclasses.replace(forecast, tariff=update.tariff)  # a tariff that the forecast alone was given
    assert comparable_cost(asked, unpriced, PRICE) == pytest.approx(update.price)


@given(pairs())
def test_entries_of_earlier_versions_are_recomputed_from_what_they_hold(pair):
    forecast, update = pair
    older = dataclasses.replace(update, asked=None)
    assert older.price is None  # what was asked is not in it, and is not left out silently
    assert older.asked_by(forecast) == update
    assert comparable_cost(forecast, older, PRICE) == comparable_cost(forecast, update, PRICE)
    untimed = dataclasses.replace(forecast, features=dataclasses.replace(forecast.features, evaluation_s=None))
    if forecast.pilot is None:
        assert forecast_price(untimed, Tariff(per_hour=2.0)) is None
    else:
        assert forecast_price(untimed, Tariff(per_hour=2.0)) == forecast_price(forecast, Tariff(per_hour=2.0))


@given(pairs())
def test_an_abandoned_pilot_is_a_question_and_a_continued_one_is_training(pair):
    forecast, update = pair
    if forecast.pilot is None or update.price is None:
        return
    anew = dataclasses.replace(update, pilot_steps=0).asked_by(forecast)
    pilot = forecast.pilot.reading
    more = price_of(update.tariff, [Spending(pilot.wall_s, pilot.energy_kwh)])
    assert anew.price == pytest.approx(update.price + more)


@given(pairs(), st.floats(0.0, 5.0), st.integers(0, 100))
def test_labels_are_added_to_it_and_are_no_part_of_it(pair, per_label, missing):
    forecast, update = pair
    tariff = dataclasses.replace(update.tariff, per_label=per_label)
    lacking = dataclasses.replace(forecast, missing_labels=dataclasses.replace(forecast.missing_labels, train=missing))
    bare = forecast_price(forecast, update.tariff)
    assert forecast_price(lacking, tariff) == bare
    if bare is not None:
        assert price_with_labels(lacking, tariff).value == pytest.approx(bare.value + missing * per_label)
