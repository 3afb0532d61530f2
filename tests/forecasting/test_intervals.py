"""Prediction intervals against their nominal coverage and against samples."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from resque.forecasting.cost_model import CostModel, NormalPrediction, TrainingExample
from resque.forecasting.intervals import PredictiveDistribution, predict, standardized_residuals
from simulations import simulated

DRAWS = stats.t(7).rvs(2_000_000, random_state=1)


@pytest.mark.parametrize("known", [True, False])
def test_interval_covers_at_nominal_rate(known):
    """80 % nominal; 200 draws, standard error 2.8 points."""
    hits = above = 0
    for seed in range(200):
        rows = simulated(6, 4, 1, shift_type=0.5, noise=0.3, seed=seed)
        *history, query = rows
        if not known:
            history = [example for example in history if example.shift_type != query.shift_type]
        prediction = predict(CostModel(history), query, [True] * len(history), known, 0.8)
        hits += prediction.lower <= query.log_cost <= prediction.upper
        above += query.log_cost <= prediction.upper_bound
        assert prediction.conformal == known
    assert 0.72 < hits / 200 < 0.92
    assert 0.72 < above / 200 < 0.92


def test_residual_of_censored_run_is_at_least_zero():
    rows = simulated(4, 4)
    rows[0] = dataclasses.replace(rows[0], censored=True, log_cost=rows[0].log_cost - 5.0)
    rows[1] = dataclasses.replace(rows[1], censored=True, log_cost=rows[1].log_cost + 5.0)
    z = standardized_residuals(CostModel(rows), [example.condition for example in rows])
    assert z[0] == 0.0
    assert z[1] > 2.0


def test_probability_follows_students_t():
    rows = simulated(5, 4)
    query = TrainingExample((0.0, 0.0), shift_type="new", group="g")
    prediction = predict(CostModel(rows), query, [True] * len(rows), False, 0.8)
    assert prediction.probability_below(prediction.median) == pytest.approx(0.5)
    assert prediction.probability_below(prediction.upper) == pytest.approx(0.9)
    assert prediction.degrees_of_freedom == 4
    one_sided = prediction.normal.deviation * stats.t.ppf(0.8, 4)
    assert prediction.upper_bound - prediction.median == pytest.approx(one_sided)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.85, 0.95, 1.0])
@pytest.mark.parametrize("limit", [-3.0, 0.0, 1.0, 9.0])
def test_truncated_distribution_matches_a_sample(probability, limit):
    """Runs that reach the target follow the truncated distribution; the others cost the limit."""
    distribution = PredictiveDistribution(0.0, -1.5, 1.5, 1.0, False, NormalPrediction(0.0, 1.0), 7)
    prediction = distribution.truncated_at(limit, probability, 0.8)
    reached = DRAWS[limit >= DRAWS]
    assert prediction.median == pytest.approx(np.median(reached), abs=0.02 if len(reached) > 1e5 else 0.1)
    for share, end in ((0.1, prediction.lower), (0.9, prediction.upper), (0.8, prediction.upper_bound)):
        expected = limit if share >= probability else np.quantile(reached, share / probability)
        expected = min(expected, np.quantile(DRAWS, share)) if share < 0.5 else expected
        if (share < 0.5 and expected > prediction.median) or (share > 0.5 and expected < prediction.median):
            expected = prediction.median
        assert end == pytest.approx(expected, abs=0.05 if len(reached) > 1e5 else 0.15)
    assert prediction.lower <= prediction.median <= min(prediction.upper, prediction.upper_bound)


@pytest.mark.parametrize(
    ("probability", "upper", "bound"),
    [(0.95, 2.0, 1.5), (0.9, 3.0, 1.5), (0.85, 3.0, 1.5), (0.8, 3.0, 3.0), (0.5, 3.0, 3.0)],
)
def test_conformal_ends_move_to_the_limit_when_their_tail_of_the_runs_misses_the_target(probability, upper, bound):
    whole = PredictiveDistribution(1.0, 0.5, 2.0, 1.5, True, NormalPrediction(1.0, 0.5), 9)
    cut = whole.truncated_at(3.0, probability, level=0.8)
    assert (cut.lower, cut.upper, cut.upper_bound) == (0.5, upper, bound)


def test_impossible_cost_is_predicted_at_the_limit():
    distribution = PredictiveDistribution(0.0, -1.5, 1.5, 1.0, False, NormalPrediction(0.0, 1e-9), 200)
    assert distribution.truncated_at(-5.0, 0.9, 0.8).median == -5.0


@pytest.mark.parametrize("far", [0.45, 1.2, 9.0])
def test_query_harder_than_all_examples_is_not_predicted_easy(far):
    """A median of a truncated distribution with unlimited deviation once fell to the first step."""
    rows = [
        TrainingExample((0.3 + 0.002 * i,), 5.0 + 0.02 * i + 0.1 * (i % 3), shift_type=f"k{i % 4}", condition=i)
        for i in range(16)
    ]
    model, limit = CostModel(rows), math.log(1000.0)
    within, beyond = (
        predict(model, TrainingExample((x,), shift_type="new", condition="new"), [True] * 16, False, 0.8)
        for x in (0.33, far)
    )
    known, prediction = (each.truncated_at(limit, each.probability_below(limit), 0.8) for each in (within, beyond))
    assert known.median - 0.3 < prediction.median <= limit
    assert prediction.lower <= prediction.median <= prediction.upper_bound <= prediction.upper + 1e-9
    assert beyond.normal.deviation > within.normal.deviation
