"""Forecasts from an accuracy that was estimated: wider than from a measured one, and coherent over targets."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from power_law import forecast_for, runs
from resque.errors import ResqueError
from resque.forecasting.budget import exit_code
from resque.forecasting.history import starts_at_target
from resque.forecasting.reliability import small_test_notes
from resque.forecasting.unknown_start import possible_starts, start_interval, unclear_start
from resque.ledger.records import Features

METHOD = "estimated without labels: mean confidence"
SHARES, ERRORS = st.floats(0.05, 0.95), st.floats(0.05, 2.0)


def estimate(accuracy, error=0.4):
    return Features(None, accuracy, None, accuracy_method=METHOD, accuracy_error_logit=error)


def estimated(job, accuracy=0.5, error=0.4, **more):
    return forecast_for(runs(20), job, features=dataclasses.replace(estimate(accuracy, error), index_rad=0.5), **more)


@given(SHARES, ERRORS)
def test_possible_starts_have_the_mean_and_error_of_the_estimate(accuracy, error):
    logits = special.logit([each.accuracy for each in possible_starts(estimate(accuracy, error))])
    assert (np.mean(logits), np.std(logits)) == pytest.approx((special.logit(accuracy), error))
    assert list(logits) == sorted(logits)


def test_a_measured_accuracy_is_the_only_start():
    features = Features(None, 0.7, 1.0)
    assert possible_starts(features) == [features]


@pytest.mark.parametrize(("start", "error"), [(0.3, 1.0), (0.5, 0.4), (0.7, 1.0), (0.8, 0.4)])
def test_harder_targets_never_cost_less_or_are_more_probable(job, start, error):
    """Also where a part of the starts is at the target."""
    targets = np.sort(np.random.default_rng(3).uniform(0.61, 0.94, 12))
    forecasts = [estimated(dataclasses.replace(job, target_accuracy=float(t)), start, error) for t in targets]
    for easier, harder in itertools.pairwise(forecasts):
        assert harder.probability_reached <= easier.probability_reached + 1e-12
        one, other = easier.estimates["steps"], harder.estimates["steps"]
        assert other.value >= one.value
        assert other.interval.low >= one.interval.low
        assert other.interval.high >= one.interval.high
        assert other.upper >= one.upper
        assert one.interval.low <= one.value <= one.interval.high


@pytest.mark.parametrize("start", [0.4, 0.5, 0.6])
def test_the_interval_is_wider_than_from_the_same_accuracy_measured(job, start):
    known = forecast_for(runs(20), job, accuracy=start).estimates["steps"].interval
    lows, highs = zip(
        *((i.low, i.high) for error in (0.4, 1.0) if (i := estimated(job, start, error).estimates["steps"].interval)),
        strict=True,
    )
    assert known.high - known.low <= highs[0] - lows[0] <= highs[1] - lows[1]
    assert known.low > lows[1]


def test_an_estimate_without_error_is_as_good_as_a_measurement(job):
    known, sure = forecast_for(runs(20), job, accuracy=0.5), estimated(job, 0.5, 1e-9)
    assert sure.probability_reached == pytest.approx(known.probability_reached, abs=1e-6)
    assert sure.estimates["steps"] == known.estimates["steps"]


def test_an_estimate_above_the_target_is_no_proof_that_there_is_nothing_to_do(job):
    assert not starts_at_target(estimate(0.95), 0.9)
    forecast = estimated(job, 0.95, 1.0)
    steps = forecast.estimates["steps"]
    assert steps.interval.low == 0.0 < steps.value
    assert forecast.alternatives
    assert forecast.probability_reached > 0.8
    assert all(each.interval.low == 0.0 for each in forecast.estimates.values())
    assert exit_code(forecast, None) == 0


@given(SHARES, ERRORS, SHARES)
def test_a_start_on_both_sides_of_the_target_is_a_reason_with_a_number_of_labels(accuracy, error, target):
    low, high = start_interval(estimate(accuracy, error), 0.8)
    assert special.expit(special.logit(accuracy) - 1.2816 * error) == pytest.approx(low, abs=1e-4)
    reasons = [*unclear_start(estimate(accuracy, error), target, 0.8)]
    assert len(reasons) == (low <= target <= high)
    assert not [*unclear_start(Features(None, accuracy, 1.0), target, 0.8)]
    for reason in reasons:
        n = int(reason.split("about ")[1].split(" test")[0].replace(",", ""))
        assert 30 <= n <= 10_000
        if 30 < n < 10_000:
            assert (accuracy * (1 - accuracy) / n) ** 0.5 == pytest.approx(abs(accuracy - target) / 2, rel=0.02)


def test_the_reason_is_among_those_of_the_forecast(job):
    near, far = (dataclasses.replace(job, target_accuracy=target) for target in (0.55, 0.9))
    assert not estimated(far).reliability_issues
    (issue,) = estimated(near).reliability_issues
    assert "label about" in issue
    with pytest.raises(ResqueError):
        estimated(near, level=1.5)


@pytest.mark.parametrize("n", [20, 60, 200])
def test_a_small_test_set_is_noted_where_its_interval_holds_the_target(job, small, n):
    few = dataclasses.replace(job, test=small[1].limited(n))
    for right in range(0, n + 1, n // 20):
        interval = stats.binomtest(right, n).proportion_ci(0.8, "wilson")
        for target in (0.3, 0.5, 0.9):
            noted = [
                *small_test_notes(Features(None, right / n, 1.0), dataclasses.replace(few, target_accuracy=target), 0.8)
            ]
            assert len(noted) == (interval.low <= target <= interval.high)
    assert not [*small_test_notes(estimate(0.9), few, 0.8)]
