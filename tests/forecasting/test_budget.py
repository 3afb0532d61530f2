"""Budgets compared with forecasts: every exit code."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.errors import SettingError
from resque.forecasting.budget import BEYOND, Budget, Decision, decide
from resque.forecasting.price import forecast_price, price_with_labels
from resque.ledger.records import Estimate, Features, Forecast, LearningCurve, MissingLabels, Pilot, StepCost
from resque.reporting.markdown import decision_markdown
from resque.types import Interval

READING = EnergyReading(1.0, 1e-6, {}, {}, "replay")
UPPER = {"steps": 120.0, "epochs": 12.0, "wall_s": 7200.0, "energy_kwh": 0.5, "carbon_kg": 0.1}


def forecast(probability=0.95, reliability_issues=(), level=0.8, without=()):
    interval = Interval(0.0, 9e9, level, "")
    return Forecast(
        id="f", created_utc="", model="m", parent="p", train_data="d", test_data="t", shift_type=None, recipe={},
        target_accuracy=0.9, features=Features(0.1, 0.5, 1.0, evaluation_s=0.0), predictor="index",
        estimates={
            cost: Estimate(upper / 2, interval, upper) for cost, upper in UPPER.items() if cost not in without
        },
        probability_reached=probability, n_history=9, shift_types_history=(), max_steps=1000,
        step_cost=StepCost(0.1, 1e-6, 5, READING), overhead=READING, grid=None,
        reliability_issues=reliability_issues, level=level,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        (Budget(max_kwh=0.5), 0),
        (Budget(max_kwh=0.49), 3),
        (Budget(max_kg=0.1), 0),
        (Budget(max_kg=0.09), 3),
        (Budget(max_hours=2.0), 0),
        (Budget(max_hours=1.9), 3),
        (Budget(max_epochs=12.0), 0),
        (Budget(max_epochs=11.0), 3),
        (Budget(max_price=20.11, tariff=Tariff(per_kwh=0.2, per_hour=10.0)), 0),
        (Budget(max_price=20.1, tariff=Tariff(per_kwh=0.2, per_hour=10.0)), 3),
        (Budget(max_price=20.0), 4),
    ],
)
def test_each_budget_gives_its_exit_code(budget, code):
    decision = decide(forecast(), budget)
    assert decision.code == code
    assert bool(decision.reasons) == bool(code)


def test_improbable_target_is_beyond_any_budget():
    decision = decide(forecast(probability=0.79), Budget(max_kwh=1.0))
    assert decision.code == 3
    assert decision.reasons[0] == "the probability of reaching accuracy 0.9 within 1,000 steps is 79%, below 80%"


OPEN = "the budget lies within the interval: `--pilot 100` (about 10 s of training) narrows it"


def with_lower(share, **more):
    """Return a forecast whose intervals begin at a share of their upper bounds."""
    made = forecast(**more)
    estimates = {
        cost: dataclasses.replace(each, interval=Interval(share * each.upper, 9e9, 0.8, ""))
        for cost, each in made.estimates.items()
    }
    return dataclasses.replace(made, estimates=estimates)


@pytest.mark.parametrize(("share", "is_open"), [(0.3, True), (0.45, True), (0.9, False)])
def test_a_budget_within_the_interval_asks_for_a_pilot(share, is_open):
    """At a budget of half the upper bounds, in every unit."""
    paid = Tariff(per_kwh=0.2, per_hour=10.0)
    budgets = [Budget(**{name: limit}) for name, limit in (("max_kwh", 0.25), ("max_hours", 1.0), ("max_epochs", 6))]
    for budget in (*budgets, Budget(max_price=10.05, tariff=paid)):
        decision = decide(with_lower(share), budget)
        assert decision.code == 3
        assert any(reason.startswith(OPEN) for reason in decision.reasons) is is_open


def test_no_pilot_where_the_target_is_hopeless_or_one_has_been_run():
    hopeless = decide(with_lower(0.3, probability=0.1), Budget(max_kwh=0.25))
    curve = LearningCurve((0, 100), (0.5, 0.6), *[(0.0, 0.0)] * 5, 50)
    piloted = dataclasses.replace(with_lower(0.3), pilot=Pilot(100, 0, "identity", curve, READING, 0.1, None))
    for decision in (hopeless, decide(piloted, Budget(max_kwh=0.25)), decide(with_lower(0.3), Budget(max_kwh=0.5))):
        assert not any(reason.startswith(OPEN) for reason in decision.reasons)


def test_unreliable_forecast_is_not_decided():
    decision = decide(forecast(reliability_issues=("too few",)), Budget(max_kwh=0.001))
    assert (decision.code, decision.reasons) == (4, ("too few",))


def test_missing_cost_is_not_decided():
    decision = decide(forecast(without=("carbon_kg",)), Budget(max_kg=1.0, max_kwh=1.0))
    assert decision.code == 4
    assert "--max-kg is given, but the forecast has no CO2e: name a region" in decision.reasons[0]
    assert decision.held == (("energy_kwh", 0.5, 1.0, "kWh"),)


def test_message_names_what_is_missing():
    bare = forecast(without=("carbon_kg", "energy_kwh"))
    paid = Tariff(per_kwh=0.3)
    for budget in (Budget(max_kg=1.0), Budget(max_kwh=1.0), Budget(max_price=5.0, tariff=paid)):
        assert "no meter measured energy" in decide(bare, budget).reasons[0]
    assert "give --price-per-kwh" in decide(bare, Budget(max_price=5.0)).reasons[0]


def test_budget_without_limits_is_not_given():
    assert not Budget().is_given
    assert Budget(max_price=0.0).is_given


def test_summary_lists_costs_and_budgets():
    text = decision_markdown(forecast(), decide(forecast(), Budget(max_kwh=0.2)))
    assert text.startswith("### Update forecast: perhaps beyond budget")
    assert "| energy | 250 Wh | 0–9,000,000,000,000 Wh | 500 Wh | 200 Wh |" in text
    assert "- the upper bound on energy at 80% confidence is 500 Wh; the budget is 200 Wh" in text
    tariff = Tariff(per_kwh=0.2, per_hour=10.0)
    decision = decide(forecast(), Budget(max_price=21.0, tariff=tariff))
    priced = decision_markdown(forecast(), decision, forecast_price(forecast(), tariff), "EUR")
    assert "| price | 10.1 EUR | 0.0028–1,825,000,000 | 20.1 EUR | 21 EUR |" in priced
    fine = dataclasses.replace(forecast(), estimates={})
    assert "within budget" in decision_markdown(fine, decide(fine, Budget()))


@pytest.mark.parametrize("missing", [0, 1, 40])
@pytest.mark.parametrize("per_label", [None, 0.0, 0.5])
@pytest.mark.parametrize("tariff", [Tariff(), Tariff(per_kwh=0.2, per_hour=10.0)])
def test_labels_are_part_of_the_price_if_and_only_if_they_are_priced(missing, per_label, tariff):
    """By this tariff training costs 20.1 at most, and a second of asking."""
    lacking = dataclasses.replace(forecast(), missing_labels=MissingLabels(train=missing))
    priced = dataclasses.replace(tariff, per_label=per_label)
    training = 20.1 + tariff.price(1e-6, 1.0) if tariff.per_hour else 0.0
    decision = decide(lacking, Budget(max_price=20.2, tariff=priced))
    if per_label is None and not training:
        assert decision.code == 4
        assert "--price-per-label" in decision.reasons[0]
        return
    ((cost, bound, _, _),) = decision.held
    assert (cost, bound) == ("price", pytest.approx(training + missing * (per_label or 0.0)))
    assert decision.code == (3 if bound > 20.2 else 0)
    text = decision_markdown(lacking, decision, None, "EUR", priced.price_of_labels(missing))
    assert ("price of labels" in text) is ("price in all" in text) is (per_label is not None)


@pytest.mark.parametrize("price", [-0.01, math.nan, math.inf])
def test_a_price_of_a_label_is_a_number_from_0_on(price):
    with pytest.raises(SettingError, match="per label"):
        Tariff(per_label=price)


def test_a_pilot_is_advised_once_the_data_have_labels():
    near = Budget(max_kwh=0.3)
    assert ": `--pilot 100`" in decide(forecast(), near).reasons[-1]
    lacking = dataclasses.replace(forecast(), missing_labels=MissingLabels(train=1))
    assert ": once the data have labels, `--pilot 100`" in decide(lacking, near).reasons[-1]


@pytest.mark.parametrize("prices", [{"per_hour": 10.0}, {"per_kwh": 0.2}, {"per_hour": 10.0, "per_kwh": 0.2}])
def test_labels_alone_are_no_price_where_the_training_has_one_that_is_unknown(prices):
    unknown = forecast(without=("wall_s", "energy_kwh"))
    assert price_with_labels(unknown, Tariff(**prices, per_label=0.5)) is None


@given(
    st.floats(1e-6, 1e6), st.floats(1e-9, 1e-2), st.sampled_from([("price", "EUR"), ("wall_s", "h"), ("epochs", "")])
)
def test_a_bound_beyond_its_budget_never_reads_like_it(limit, excess, cost):
    bound = limit * (1.0 + max(excess, 1e-7))
    decision = Decision(BEYOND, ("why",), ((cost[0], bound, limit, cost[1]),))
    ((said, allowed),) = decision.amounts.values()
    assert said != allowed
