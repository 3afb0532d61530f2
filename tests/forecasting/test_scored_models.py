"""Which of several models get pilots, and at which price the recommendation changes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.forecasting.break_even import break_even_points
from resque.forecasting.comparison import Option
from resque.forecasting.scored_models import MOST_KEPT, ScoredModel, models_to_try
from resque.ledger.records import Estimate
from resque.types import Interval

SHARE = st.floats(0.0, 1.0)
ROWS = st.lists(st.tuples(SHARE, SHARE, SHARE, st.integers(1, 10**9), st.booleans()), min_size=1, max_size=12)


def models(rows):
    return [
        ScoredModel(f"m{place}", {"LogME": logme, "k-NN accuracy": near}, index, parameters=size, is_trained=trained)
        for place, (logme, near, index, size, trained) in enumerate(rows)
    ]


@given(ROWS, st.data())
def test_the_index_does_not_decide(rows, data):
    """Whatever the indices are, an untrained one with the lowest among them, the same models are kept."""
    scored = models(rows)
    other = [dataclasses.replace(each, index=data.draw(st.none() | SHARE)) for each in scored]
    assert models_to_try(scored) == models_to_try(other)


@given(ROWS)
def test_kept_are_the_best_the_smallest_and_one_untrained(rows):
    scored = models(rows)
    kept = models_to_try(scored)
    assert len(kept) == len(set(kept)) <= MOST_KEPT + 2
    by_name = {each.model: each for each in scored}
    assert kept
    assert sum(not by_name[name].is_trained for name in kept) == any(not each.is_trained for each in scored)
    trained = [each for each in scored if each.is_trained]
    for each in trained:  # one that is better in both scores than all others is among them
        if all(
            each.scores[name] > other.scores[name] for other in trained if other is not each for name in each.scores
        ):
            assert kept[0] == each.model
    left_out = [each for each in trained if each.model not in kept]
    last = [by_name[name] for name in kept if by_name[name].is_trained][MOST_KEPT:]
    assert not left_out or min(each.parameters for each in left_out) >= last[0].parameters


@given(ROWS)
def test_models_that_failed_are_left_out(rows):
    scored = models(rows)
    failed = [ScoredModel(f"f{place}", note="no such file") for place in range(3)]
    assert models_to_try([*failed, *scored]) == models_to_try(scored)


def option(name, price, labels=0, model="m", license_price=0.0):
    cost = Estimate(price, Interval(price, price, 0.8, ""), price)
    return Option(
        name, "all", name, model, {}, 1.0, {"price": cost}, None, "pilot", labels, license_price=license_price
    )


PRICES = st.floats(0.0, 1e4)


@given(PRICES, PRICES, st.integers(0, 5000), st.integers(0, 5000), st.floats(0.0, 10.0))
def test_at_the_break_even_price_of_a_label_both_cost_the_same(one, other, labels, fewer, per_label):
    ways = [option("a", one + labels * per_label, labels), option("b", other + fewer * per_label, fewer)]
    best, rest = sorted(ways, key=lambda way: way.cost("price"))
    points = break_even_points(best, [rest], per_label)
    assert {point.of for point in points} <= {"label"}
    training = {"a": one, "b": other}
    for point in points:
        assert point.then == rest.id
        assert point.above is (best.labels > rest.labels)
        total = [training[way.id] + way.labels * point.at for way in (best, rest)]
        assert total[0] == pytest.approx(total[1], abs=1e-6 * (1.0 + one + other))
    if labels == fewer:
        assert not points


@given(PRICES, PRICES, PRICES, PRICES)
def test_at_the_break_even_price_of_a_license_both_cost_the_same(one, other, first, second):
    ways = [option("a", one + first, model="x", license_price=first), option("b", other + second, 0, "y", second)]
    best, rest = sorted(ways, key=lambda way: way.cost("price"))
    points = break_even_points(best, [rest], 0.0)
    assert {(point.model, point.above) for point in points} <= {(best.model, True), (rest.model, False)}
    assert (best.model, True) in {(point.model, point.above) for point in points}
    for point in points:
        changed = {best.model: best, rest.model: rest}[point.model]
        total = changed.cost("price") - changed.license_price + point.at
        unchanged = rest if changed is best else best
        assert total == pytest.approx(unchanged.cost("price"), abs=1e-6 * (1.0 + one + other + first + second))


def test_the_nearest_of_several_alternatives_is_named():
    others = [option("far", 9.0), option("near", 5.0), option("other", 4.0, 100)]
    assert [(point.at, point.then) for point in break_even_points(option("a", 3.0, 100), others, 0.0)] == [
        (0.02, "near")
    ]


def test_prices_that_are_unknown_have_no_break_even():
    unpriced = dataclasses.replace(option("b", 0.0, model="y"), estimates={})
    assert break_even_points(option("a", 1.0, 10), [unpriced], 0.0) == []
    assert break_even_points(unpriced, [option("a", 1.0, 10)], 0.0) == []
