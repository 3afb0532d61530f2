"""The decision line: what, how long, what it costs, how likely, what is free, what it loses, for any forecast."""

import dataclasses
import json
import re
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_forecast, synthetic_update
from resque._display import describe
from resque._format import format_column, format_cost, format_estimate
from resque.energy.price import Tariff
from resque.forecasting.forgetting import expected_forgetting
from resque.ledger.decision import loss_in_words, trained_part
from resque.ledger.records import Estimate
from resque.ledger.serialization import encode, from_dict_strict
from resque.types import Interval

RECIPES = {
    "all": ({}, "Retrain all layers", "all"),
    "replay": ({"replay": 0.2}, "Retrain all layers, with old data", "all+old"),
    "head": ({"trains": "head"}, "Retrain the head", "head"),
    "lora": ({"trains": "lora"}, "Train adapters (LoRA)", "LoRA"),
    "norm": ({"trains": "norm"}, "Re-estimate normalization", "norm"),
    "norm-scales": ({"trains": "norm-scales"}, "Train the scales of normalization", "scales"),
}
UNITS = {"wall_s": {"s": 1.0, "min": 60.0, "h": 3600.0}, "energy_kwh": {"Wh": 1e-3, "kWh": 1.0},
         "carbon_kg": {"g": 1e-3, "kg": 1.0}}  # fmt: skip


@given(
    name=st.sampled_from(sorted(RECIPES)),
    steps=st.integers(1, 5000),
    chance=st.floats(0.0, 1.0),
    priced=st.booleans(),
    free=st.none() | st.floats(0.1, 0.99),
    lost=st.none() | st.floats(-0.1, 0.6),
    doubts=st.sampled_from([(), ("too few updates",)]),
)
def test_every_known_part_is_said_and_no_unknown_one(name, steps, chance, priced, free, lost, doubts):
    recipe, action, _ = RECIPES[name]
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=steps), probability=chance)
    price = Estimate(0.04, Interval(0.01, 0.1, 0.8, ""), 0.09) if priced else None
    forecast = dataclasses.replace(
        forecast, recipe=recipe, price=price, tariff=Tariff(per_hour=1.0) if priced else None,
        features=dataclasses.replace(forecast.features, free_accuracy=free), expected_forgetting=lost,
        reliability_issues=doubts,
    )  # fmt: skip
    line = forecast.decision
    assert line.startswith(f"{action}: about ")
    assert re.search(r" (\d+|>99|<1)% likely to reach 0\.9\.", line)
    assert ("0.04 EUR" in line) is priced
    assert ("is free and gives" in line) is (free is not None and free > 0.5 and name != "norm")
    assert ("points on the old data" in line) is (lost is not None and lost > 0.02 + 1e-9)
    assert ("Not reliable enough" in line) is bool(doubts)
    text = str(forecast)
    assert text.split("\n")[0] in line
    assert max(map(len, text.splitlines())) <= 80
    for issue in doubts:
        assert issue in text


@given(
    st.none() | st.floats(-1.0, 1.0), st.none() | st.floats(0.0, 1.0), st.booleans(), st.none() | st.floats(0.0, 9.0)
)
def test_what_is_new_in_a_record_is_exported_and_imported(lost, free, priced, evaluation_s):
    update = synthetic_update("a", index=0.1, steps=10, forecast_id="f-a")
    forecast = synthetic_forecast(update)
    features = dataclasses.replace(forecast.features, free_accuracy=free, evaluation_s=evaluation_s)
    forecast = dataclasses.replace(forecast, expected_forgetting=lost, features=features)
    if priced:
        forecast = dataclasses.replace(forecast, tariff=Tariff(0.3, 2.0), price=forecast.estimates["wall_s"])
    for record in (forecast, update.asked_by(forecast)):
        copy = from_dict_strict(type(record), json.loads(encode(record)))
        assert copy == record
        assert copy.features.evaluation_s == record.features.evaluation_s


def test_nothing_is_to_be_done_at_the_target():
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    zero = dict.fromkeys(forecast.estimates, Estimate(0.0, Interval(0.0, 0.0, 0.8, ""), 0.0))
    there = dataclasses.replace(
        forecast, estimates=zero, features=dataclasses.replace(forecast.features, accuracy=0.93)
    )
    assert there.decision == "Do nothing: the model is at accuracy 0.93 already, and 0.9 is asked for."


def test_details_show_every_cost_and_the_table_those_that_decide():
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=100))
    shown = [row[0] for row in describe(forecast).rows]
    assert shown == ["steps", "time", "energy"]
    assert {row[0] for row in describe(forecast, details=True).rows} >= {*shown, "gradient norm", "parameter change"}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_is_trained_is_told_apart(name):
    recipe, _, part = RECIPES[name]
    assert trained_part(recipe) == part
    assert trained_part(recipe, from_scratch=True).startswith("scratch")
    assert len({trained_part(each) for each, _, _ in RECIPES.values()}) == len(RECIPES)


def parsed(cost, text):
    number, unit = text.split()
    return float(number.replace(",", "")) * UNITS[cost][unit]


@given(st.sampled_from(sorted(UNITS)), st.floats(1e-9, 1e6), st.floats(0.1, 10.0))
def test_units_are_those_that_people_read_and_hold_the_value(cost, value, factor):
    assert parsed(cost, format_cost(cost, value)) == pytest.approx(value, rel=0.06)
    _, interval, upper = format_estimate(cost, value, Interval(value, value * factor, 0.8, ""), value * factor)
    assert interval.split()[-1] == upper.split()[-1] == format_cost(cost, value).split()[-1]


@given(st.sampled_from(sorted(UNITS)), st.lists(st.none() | st.floats(1e-3, 1e4), min_size=1))
def test_a_column_has_one_scale(cost, values):
    texts = format_column(cost, values)
    assert len({text.split()[-1] for text in texts if text != "–"}) <= 1
    for value, text in zip(values, texts, strict=True):
        assert (text == "–") is (value is None)
        assert value is None or parsed(cost, text) == pytest.approx(value, rel=0.06)


@given(st.lists(st.floats(-0.2, 0.6), max_size=6), st.sampled_from(sorted(RECIPES)))
def test_forgetting_is_expected_from_like_updates_of_the_same_model_alone(losses, name):
    recipe = RECIPES[name][0]
    update = synthetic_update("a", index=0.1, steps=10)
    like = [
        dataclasses.replace(update, recipe=recipe, original_accuracy_before=0.7, original_accuracy_after=0.7 - lost)
        for lost in losses
    ]
    others = [
        dataclasses.replace(update, parent="other", recipe=recipe),
        dataclasses.replace(update, recipe={"trains": "other"}),
        dataclasses.replace(update, recipe=recipe, from_scratch=True),
        dataclasses.replace(update, recipe=recipe, original_accuracy_after=None),
    ]
    expected = sorted(losses)[len(losses) // 2] if len(losses) % 2 else None
    found = expected_forgetting([*others, *like], "p", recipe)
    assert (found is None) is (not losses)
    if expected is not None:
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("lost", [None, 0.0, 0.19])
def test_what_a_pilot_measured_on_the_old_data_goes_before_what_earlier_updates_lost(lost):
    pilot = types.SimpleNamespace(original_accuracy=0.434)
    assert loss_in_words(lost, {}, pilot) == "On the old data its accuracy was 0.43 at the end of its pilot."
    pilot.original_accuracy = None
    assert loss_in_words(lost, {}, pilot) == loss_in_words(lost, {})
