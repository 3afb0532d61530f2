"""Distributions of the steps by one predictor against their nominal coverage and against samples."""

import math

import numpy as np
import pytest
from scipy import stats

from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.mixed_model import MixedModel, NormalPrediction, TrainingExample
from simulations import simulated

DRAWS = stats.t(7).rvs(2_000_000, random_state=1)


@pytest.mark.parametrize("known", [True, False])
def test_interval_covers_at_nominal_rate(known):
    """80 % nominal; 200 draws, standard error 2.8 points."""
    hits = 0
    for seed in range(200):
        *history, query = simulated(6, 4, 1, shift_type=0.4, noise=0.4, seed=seed, slopes=(0.5, 0.5))
        if not known:
            history = [example for example in history if example.shift_type != query.shift_type]
        low, high = predict(MixedModel(history), query, known).interval_before(math.inf, 0.8)
        hits += low <= query.value <= high
    assert 0.72 < hits / 200 < 0.95


def test_probability_follows_students_t():
    query = TrainingExample((0.0, 0.0), shift_type="new", group="g")
    distribution = predict(MixedModel(simulated(5, 4)), query, shift_type_seen=False)
    low, high = distribution.interval_before(math.inf, 0.8)
    assert distribution.probability_below(distribution.median_before(math.inf)) == pytest.approx(0.5)
    assert (distribution.probability_below(low), distribution.probability_below(high)) == pytest.approx((0.1, 0.9))
    assert distribution.degrees_of_freedom == 4


@pytest.mark.parametrize("limit", [-3.0, 0.0, 1.0, 9.0])
def test_truncated_distribution_matches_a_sample(limit):
    """Runs that reach the target follow the truncated distribution; the others cost the limit."""
    distribution = PredictiveDistribution(NormalPrediction(0.0, 1.0), 7)
    median, (low, high) = distribution.median_before(limit), distribution.interval_before(limit, 0.8)
    reached = DRAWS[limit >= DRAWS]
    assert median == pytest.approx(np.median(reached), abs=0.02 if len(reached) > 1e5 else 0.1)
    ends = np.quantile(np.minimum(DRAWS, limit), (0.1, 0.9))
    assert low == pytest.approx(min(ends[0], median), abs=0.05)
    assert high == pytest.approx(max(ends[1], median), abs=0.05)


def test_impossible_cost_is_predicted_at_the_limit():
    distribution = PredictiveDistribution(NormalPrediction(0.0, 1e-9), 200)
    assert distribution.median_before(-5.0) == -5.0


@pytest.mark.parametrize("far", [0.45, 1.2, 9.0])
def test_query_harder_than_all_examples_is_not_predicted_easy(far):
    """A median of a truncated distribution with unlimited deviation once fell to the first step."""
    rows = [
        TrainingExample((0.3 + 0.002 * i,), 5.0 + 0.02 * i + 0.1 * (i % 3), shift_type=f"k{i % 4}", condition=i)
        for i in range(16)
    ]
    model, limit = MixedModel(rows), math.log(1000.0)
    within, beyond = (
        predict(model, TrainingExample((x,), shift_type="new", condition="new"), False) for x in (0.33, far)
    )
    low, high = beyond.interval_before(limit, 0.8)
    assert within.median_before(limit) - 0.3 < beyond.median_before(limit) <= limit
    assert low <= beyond.median_before(limit) <= high + 1e-9
    assert beyond.normal.deviation > within.normal.deviation
