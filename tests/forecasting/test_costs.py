"""From steps to the other costs: evaluations, time per step, carbon."""

import dataclasses
import math

import pytest

from power_law import forecast_for, history, runs
from resque.energy.grid import Grid
from resque.forecasting.costs import StepTimeSpread, rescale_with_steps, step_time_spread, widen_by_step_time
from resque.ledger.records import Estimate, LearningCurve
from resque.types import Interval


def test_rescaled_bounds_stay_on_their_sides_of_the_median():
    def estimate(value, low, high, upper):
        return Estimate(value, Interval(low, high, 0.8, ""), upper)

    grown = rescale_with_steps(estimate(10, 5, 18.5, 18), estimate(18, 10, 33.5, 33), estimate(34, 17, 34, 34))
    assert grown.interval.low <= grown.value <= grown.upper
    assert grown.value <= grown.interval.high


def test_run_stops_at_an_evaluation(job):
    """With one evaluation per epoch of ten steps, no run stops after four."""
    quick = runs(20, pace=2.0)
    once, often = (
        forecast_for(quick, each, scores={"adapted refit": 0.95}).estimates["steps"]
        for each in (job, dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate_every=1)))
    )
    assert {once.value % 10, once.interval.low % 10, once.interval.high % 10} == {0}
    assert often.value % 10
    assert often.value < once.value + 10


def test_history_with_the_same_evaluations_forecasts_the_same_evaluation(job):
    """All runs reached the target at the first evaluation, so the forecast is that evaluation."""
    once = [
        dataclasses.replace(
            u,
            cost=dataclasses.replace(u.cost, steps=10, epochs=1.0),
            curve=LearningCurve((0, 10), (0.5, 0.9), *[(0.0, 1.0)] * 5, 10),
        )
        for u in history(types=("gaussian",))
    ]
    for index in (0.3, 0.5, 0.8):
        assert forecast_for(once, job, index=index).estimates["steps"].value == 10


def test_costs_that_grow_with_steps_follow_them(job):
    """The history's are .1 and .001 of the steps."""
    estimates = forecast_for(runs(20), job, scores={"adapted refit": 0.95}).estimates
    for cost, factor in (("gradient_norm", 0.1), ("parameter_change", 0.001)):
        steps, grown = estimates["steps"], estimates[cost]
        assert grown.value == pytest.approx(factor * steps.value, rel=0.3)
        assert grown.interval.low <= factor * steps.interval.low * 1.2
        assert grown.interval.high >= factor * steps.interval.high * 0.8


def test_zero_intensity_gives_zero_carbon(job):
    apart = [
        dataclasses.replace(u, cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s * (1 + i % 2)))
        for i, u in enumerate(history())
    ]
    clean = forecast_for(apart, job, grid=Grid("TST", 0.0, "test")).estimates["carbon_kg"]
    assert (clean.value, clean.interval.low, clean.interval.high, clean.upper) == (0.0, 0.0, 0.0, 0.0)


def test_widened_bounds_stay_on_their_sides_at_any_level():
    cost = Estimate(100.0, Interval(80.0, 300.0, 0.4, ""), 250.0)
    found = widen_by_step_time(cost, StepTimeSpread(0.3, 10))
    assert found.interval.low < 80.0 < 300.0 < found.interval.high
    assert found.upper > 250.0


def test_time_per_step_is_as_uncertain_as_between_runs(job):
    same = history(types=("gaussian",))
    apart = [
        dataclasses.replace(u, cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s * (2.0 if i % 2 else 0.5)))
        for i, u in enumerate(same)
    ]
    assert step_time_spread(apart[:4]) is None
    spread = step_time_spread(apart)
    assert spread.deviation == pytest.approx(math.sqrt(2 * 12 / 11) * math.log(2.0))
    one, other = (forecast_for(updates, job).estimates for updates in (same, apart))
    assert one["steps"] == other["steps"]
    assert "factor of 1.05" in one["wall_s"].interval.guarantee
    for cost in ("wall_s", "energy_kwh", "carbon_kg"):
        assert other[cost].value == one[cost].value
        assert other[cost].interval.low < 0.7 * one[cost].interval.low
        assert other[cost].interval.high > 1.3 * one[cost].interval.high
        assert other[cost].upper > 1.1 * one[cost].upper
    unknown = [dataclasses.replace(u, host={}) for u in apart]
    assert (
        "if each step costs what the probe measured"
        in forecast_for(unknown, job).estimates["wall_s"].interval.guarantee
    )
