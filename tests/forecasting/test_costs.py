"""From steps to the other costs: evaluations, time per step, carbon."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from doubles import synthetic_update
from power_law import forecast_for, history, runs
from resque.energy.grid import Grid
from resque.forecasting.costs import (
    StepTimeSpread,
    cost_that_grows,
    rescale_with_steps,
    scale,
    step_time_drift,
    step_time_spread,
    widen_by_step_time,
)
from resque.forecasting.history import ForecastQuery, update_group
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


@pytest.mark.parametrize("runs_known", [3, 4, 8])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_spread_of_few_runs_widens_by_student_t(runs_known, level):
    """Where the steps are certain, the interval is that of a mean of logarithms with one degree of freedom less."""
    rates = np.geomspace(0.01, 0.04, runs_known)
    made = []
    for i, rate in enumerate(rates):
        update, nothing = synthetic_update(f"g{i}", index=0.5, steps=100), (None, None)
        curve = LearningCurve((0, 100), (0.5, 0.9), nothing, nothing, (0.0, 100.0 * rate), nothing, nothing, 10)
        made.append(dataclasses.replace(update, curve=curve))
    query = ForecastQuery(made[0].features, 0.9, update_group(made[0]), "gaussian", "p", "d", 1000)
    steps = Estimate(100.0, Interval(100.0, 100.0, level, ""), 100.0)
    grown, logs = cost_that_grows("gradient_norm", steps, made, query), np.log(100.0 * rates)
    expected = np.exp(stats.t.interval(level, runs_known - 1, logs.mean(), logs.std(ddof=1)))
    assert grown.value == pytest.approx(np.exp(logs.mean()))
    assert (grown.interval.low, grown.interval.high) == pytest.approx(tuple(expected))


def test_zero_intensity_gives_zero_carbon(job):
    apart = [
        dataclasses.replace(u, cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s * (1 + i % 2)))
        for i, u in enumerate(history())
    ]
    clean = forecast_for(apart, job, grid=Grid("TST", 0.0, "test")).estimates["carbon_kg"]
    assert (clean.value, clean.interval.low, clean.interval.high, clean.upper) == (0.0, 0.0, 0.0, 0.0)


def test_widened_bounds_stay_on_their_sides_at_any_level():
    found = widen_by_step_time(a_cost(), StepTimeSpread(0.3, 10))
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
    assert step_time_spread(unknown) is None
    assert "if each step costs what the probe measured" in widen_by_step_time(a_cost(), None).interval.guarantee


@pytest.mark.parametrize("apart", [{"processes": 4}, {"host": {"device": "other"}}])
def test_times_on_other_machines_or_by_other_numbers_of_processes_are_not_mixed(apart):
    same = history(types=("gaussian",))
    faster = [
        dataclasses.replace(u, id=f"{u.id}'", cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s / 4.0))
        for u in same
    ]
    mixed, told = (
        step_time_spread([*same, *updates]) for updates in (faster, [dataclasses.replace(u, **apart) for u in faster])
    )
    assert mixed.factor > 1.9
    assert told.factor == pytest.approx(step_time_spread(same).factor)


def a_cost():
    return Estimate(100.0, Interval(80.0, 300.0, 0.4, ""), 250.0)


def timed(rates, name):
    """A run whose first 100 steps and next 400 take so long each."""
    first, rest = rates
    steps, nothing = (0, 50, 100, 300, 500), (None,) * 5
    times = 0.0, 50 * first, 100 * first, 100 * first + 200 * rest, 100 * first + 400 * rest
    update = synthetic_update(name, index=0.5, steps=500)
    curve = LearningCurve(steps, (0.5, 0.6, 0.7, 0.8, 0.9), nothing, times, nothing, nothing, nothing, 10)
    return dataclasses.replace(update, curve=curve, cost=dataclasses.replace(update.cost, wall_s=times[-1]))


@pytest.mark.parametrize("own", [0, 3, 12])
@pytest.mark.parametrize("source", ["probe", "pilot"])
@pytest.mark.parametrize("drift", ["steady", "drifting", "becomes busy"])
def test_interval_of_the_time_covers_at_nominal_rate_whatever_the_drift(own, source, drift):
    """Runs of known drift: the coverage of 200 forecasts by intervals of 80 %."""
    random = np.random.default_rng([own, len(source), len(drift)])

    def rates():
        between = 0.2 * random.normal() if source == "probe" and own else 0.0
        change = {"steady": 0.1, "drifting": 0.4, "becomes busy": 0.1}[drift] * random.normal()
        if drift == "becomes busy" and random.random() < 0.25:
            change += math.log(2.0)
        return math.exp(between), math.exp(between + change)

    covered = 0
    for _ in range(200):
        history = [timed(rates(), f"o{n}") for n in range(own)]
        bundled = [timed(rates(), f"b{n}") for n in range(30)]
        first, rest = rates()
        log_steps, spread_of_steps = math.log(400.0), 0.2
        steps = math.exp(log_steps + spread_of_steps * random.normal())  # after the first 100
        low, high, upper = (math.exp(log_steps + z * spread_of_steps) for z in (-1.2816, 1.2816, 0.8416))
        ahead = Estimate(400.0, Interval(low, high, 0.8, ""), upper)
        if source == "pilot":
            spread, spent = step_time_drift(history, 100, bundled), 100 * first
            forecast = widen_by_step_time(shifted(scale(ahead, first), spent), spread, "pilot", spent)
            measured = spent + steps * rest
        else:
            spread = step_time_spread(history, step_time_drift(history, 100, bundled))
            forecast = widen_by_step_time(scale(ahead, first if not own else rates()[0]), spread)
            measured = steps * (rest if not own else (100 * first + 400 * rest) / 500)
        covered += measured in forecast.interval
    assert 0.7 <= covered / 200 <= 0.92


def shifted(estimate, by):
    low, high = (bound + by for bound in (estimate.interval.low, estimate.interval.high))
    return Estimate(
        estimate.value + by, dataclasses.replace(estimate.interval, low=low, high=high), estimate.upper + by
    )


@given(st.floats(0.0, 500.0), st.floats(1.0, 500.0), st.floats(0.0, 0.9), st.floats(1.0, 5.0), st.floats(0.05, 1.0))
def test_what_is_spent_is_not_uncertain(spent, value, below, above, deviation):
    rest = Estimate(value, Interval(value * (1 - below), value * above, 0.8, ""), value * above)
    spread = StepTimeSpread(deviation, 6)
    whole, alone = widen_by_step_time(shifted(rest, spent), spread, "pilot", spent), widen_by_step_time(rest, spread)
    for one, other in (
        (whole.interval.low, alone.interval.low), (whole.interval.high, alone.interval.high), (whole.upper, alone.upper)
    ):  # fmt: skip
        assert one == pytest.approx(other + spent, rel=1e-6, abs=1e-6)
    assert whole.interval.low >= spent


def test_too_few_runs_say_nothing_about_the_drift():
    assert step_time_drift([timed((1.0, 2.0), f"o{n}") for n in range(3)], 100) is None
    assert step_time_drift([timed((1.0, 2.0), f"o{n}") for n in range(9)], 400) is None  # no rest to compare with
