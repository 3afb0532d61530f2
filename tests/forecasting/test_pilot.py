"""Forecasts after a pilot, from pilots of known curves."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_update
from power_law import GRID, forecast_for, history
from resque.energy.reading import EnergyReading
from resque.forecasting.budget import BEYOND, UNSURE, WITHIN, Budget, decide, exit_code
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.forecasting.landmarking import ForecastReviser
from resque.forecasting.pilot import forecast_after_pilot
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import COSTS, Estimate, ForecastRevision, LearningCurve, Pilot
from resque.ledger.serialization import decode, encode
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.types import Interval


def pilot_of(steps=100, accuracy=0.8, per_step=0.05, kwh=4e-4, norm=30.0, change=0.2, stopped_by=None):
    points = (0, steps // 2, steps)
    curve = LearningCurve(
        points, (0.6, (0.6 + accuracy) / 2, accuracy), (1.0, 0.8, 0.6), tuple(per_step * at for at in points),
        (0.0, norm / 2, norm), (0.0, norm / 2, norm), (0.0, change / 2, change), 10,
    )  # fmt: skip
    reading = EnergyReading(2 * per_step * steps, kwh, {}, {"cpu": "measured"}, "replay")
    return Pilot(steps, 0, "a", curve, reading, per_step * steps, stopped_by)


def revision_of(step, value, low, high, upper, probability=0.9):
    steps = Estimate(value, Interval(low, high, 0.8, f"jackknife+; revised after {step} steps"), upper)
    return ForecastRevision(step, 0.8, steps, probability, 7)


@pytest.fixture(scope="module")
def asked(small):
    """A forecast from features with little history, and its job."""
    job = RetrainingJob(*small, 0.9, Recipe(max_epochs=100), shift_type="gaussian")
    return forecast_for(history(n=6), job), job


def numbers(estimate):
    return estimate.value, estimate.interval.low, estimate.interval.high, estimate.upper


def test_costs_follow_the_steps_of_the_revision(asked):
    forecast, job = asked
    pilot, revision = pilot_of(), revision_of(100, 300.0, 200.0, 500.0, 400.0)
    after = forecast_after_pilot(forecast, pilot, revision, job, ())
    assert (after.estimates["steps"], after.probability_reached, after.pilot) == (revision.steps, 0.9, pilot)
    assert numbers(after.estimates["epochs"]) == pytest.approx((30.0, 20.0, 50.0, 40.0))
    assert numbers(after.estimates["wall_s"]) == pytest.approx((15.0, 10.0, 25.0, 20.0))
    per_step = 4e-4 / 2 / 100  # half of the window was evaluation
    assert numbers(after.estimates["energy_kwh"]) == pytest.approx([n * per_step for n in (300, 200, 500, 400)])
    assert after.estimates["carbon_kg"].value == pytest.approx(300 * per_step * GRID.kg_per_kwh)
    before = forecast.estimates
    grown = max(before["gradient_norm"].value * 300 / before["steps"].value, 30.0)  # as much as was measured
    assert after.estimates["gradient_norm"].value == pytest.approx(grown)
    assert after.reliability_issues == ()
    assert list(after.estimates) == list(COSTS)
    assert decode(type(after), encode(after)) == after


@pytest.mark.parametrize(("per_step", "source", "wall_s"), [(0.05, "pilot", 15.0), (0.001, "probe", 6.0)])
@pytest.mark.parametrize("spread", [False, True])
def test_the_longer_measurement_gives_the_cost_of_a_step(asked, per_step, source, wall_s, spread):
    forecast, job = asked
    updates = history(n=12) if spread else ()
    after = forecast_after_pilot(
        forecast, pilot_of(per_step=per_step), revision_of(100, 300, 200, 500, 400), job, updates
    )
    assert after.estimates["wall_s"].value == pytest.approx(wall_s)
    assert source in after.estimates["wall_s"].interval.guarantee


@pytest.mark.parametrize(("per_step", "source"), [(0.05, "pilot"), (0.001, "probe")])
@pytest.mark.parametrize("start_s", [0.5, 40.0])
def test_pass_of_a_head_is_counted_once_for_the_pilot_and_once_for_what_continues_it(asked, per_step, source, start_s):
    forecast, job = asked
    forecast = dataclasses.replace(forecast, step_cost=dataclasses.replace(forecast.step_cost, start_s=start_s))
    pilot = pilot_of(per_step=per_step)
    seconds = (0.0, *(start_s + at for at in pilot.curve.wall_s[1:]))
    reading = dataclasses.replace(pilot.reading, wall_s=2 * seconds[-1])
    pilot = dataclasses.replace(pilot, curve=dataclasses.replace(pilot.curve, wall_s=seconds), reading=reading)
    after = forecast_after_pilot(forecast, pilot, revision_of(100, 300, 200, 500, 400), job, ())
    step_s = per_step if source == "pilot" else forecast.step_cost.wall_s
    assert after.estimates["wall_s"].value == pytest.approx(300 * step_s + 2 * start_s)
    assert source in after.estimates["wall_s"].interval.guarantee


def test_energy_of_a_pilot_that_is_too_short_for_the_meter_is_probed(asked):
    forecast, job = asked
    after = forecast_after_pilot(forecast, pilot_of(kwh=None), revision_of(100, 300, 200, 500, 400), job, ())
    assert after.estimates["energy_kwh"].value == pytest.approx(300 * forecast.step_cost.energy_kwh)
    assert after.estimates["wall_s"].value == pytest.approx(15.0)


@given(st.lists(st.floats(101.0, 1e4), min_size=4, max_size=4), st.floats(1e-3, 1e6), st.floats(1e-6, 1e3))
def test_nothing_is_below_what_the_pilot_measured(asked, steps, norm, change):
    forecast, job = asked
    low, value, upper, high = sorted(steps)
    pilot = pilot_of(norm=norm, change=change)
    after = forecast_after_pilot(forecast, pilot, revision_of(100, value, low, high, upper), job, history(n=12))
    measured = {"steps": 100, "epochs": 10.0, "gradient_norm": norm, "parameter_change": change, "wall_s": 5.0}
    for cost, least in measured.items():
        estimate = after.estimates[cost]
        assert min(numbers(estimate)) >= least
        assert estimate.interval.low <= estimate.value <= estimate.interval.high
        assert estimate.value <= estimate.upper <= estimate.interval.high or cost != "steps"


@pytest.mark.parametrize(("steps", "advice"), [(5, "it takes 8 steps or more"), (100, "too few learning curves")])
def test_without_a_revision_the_forecast_stands_with_a_note(asked, steps, advice):
    forecast, job = asked
    forecast = dataclasses.replace(forecast, reliability_issues=("too few",))
    pilot = pilot_of(steps)
    after = forecast_after_pilot(forecast, pilot, None, job, ())
    assert dataclasses.replace(after, pilot=None, notes=forecast.notes) == forecast
    assert advice in after.notes[-1]
    assert exit_code(dataclasses.replace(after, n_history=0), None) == UNSURE


@pytest.mark.parametrize(("stopped_by", "accuracy", "probability"), [("target", 0.93, 1.0), ("diverged", 0.1, 0.0)])
def test_run_that_ended_within_its_pilot_costs_what_was_measured(asked, stopped_by, accuracy, probability):
    forecast, job = asked
    pilot = pilot_of(accuracy=accuracy, stopped_by=stopped_by)
    after = forecast_after_pilot(forecast, pilot, None, job, ())
    assert after.probability_reached == probability
    expected = {"epochs": 10.0, "steps": 100, "gradient_norm": 30.0, "parameter_change": 0.2, "wall_s": 5.0}
    for cost, value in expected.items():
        assert numbers(after.estimates[cost]) == (value,) * 4
    assert after.estimates["energy_kwh"].value == pytest.approx(2e-4)
    assert (after.reliability_issues, after.alternatives) == ((), {})
    assert decide(after, Budget(max_hours=1.0)).code == (WITHIN if probability else BEYOND)


def test_fixed_epochs_go_on_after_the_target(small):
    job = RetrainingJob(*small, 0.75, Recipe(fixed_epochs=20), shift_type="gaussian")
    updates = [dataclasses.replace(each, recipe=dict(each.recipe) | {"fixed_epochs": 20}) for each in history()]
    forecast = forecast_for(updates, job)
    after = forecast_after_pilot(forecast, pilot_of(), None, job, ())
    assert after.probability_reached == 1.0
    assert numbers(after.estimates["steps"]) == (200.0,) * 4
    assert after.estimates["wall_s"].value == pytest.approx(10.0)
    assert "gradient_norm" not in after.estimates


@pytest.mark.parametrize("task", [False, True])
def test_forecast_from_the_bundled_history_alone_decides_after_a_pilot(small, task):
    """Every bundled run as the pilot of itself, with the updates of other models as history."""
    bundled, decided = bundled_updates(), []
    runs = [each for each in bundled if (each.features.task_index is not None) == task and len(each.curve.steps) > 9]
    for update in runs[::90]:
        recipe = Recipe(max_epochs=50, learning_rate=update.recipe["learning_rate"])
        job = RetrainingJob(*small, 0.99, recipe, shift_type=update.shift_type)
        forecast = forecast_for((), job, bundled=bundled, parent="new")
        forecast = dataclasses.replace(forecast, features=update.features)
        assert decide(forecast, Budget(max_hours=1e9)).code == UNSURE
        curve = update.curve.until(update.curve.steps[7])
        steps = curve.steps[-1]
        pilot = Pilot(steps, 0, "", curve, EnergyReading(curve.wall_s[-1], None, {}, {}, "clock"), 0.0)
        revision = ForecastReviser.of_forecast(forecast, (), job)(pilot.curve)
        after = forecast_after_pilot(forecast, pilot, revision, job, ())
        if revision is not None:
            decided.append(decide(after, Budget(max_hours=1e9)).code)
            assert after.estimates["steps"].interval.low >= steps
            assert exit_code(after, None) == WITHIN
    assert decided
    assert set(decided) <= {WITHIN, BEYOND}


@pytest.mark.parametrize("kwh", [4e-4, None])
def test_a_pilot_is_training_where_it_was_continued_and_asking_elsewhere(asked, kwh):
    forecast, job = asked
    pilot = pilot_of(kwh=kwh)
    after = forecast_after_pilot(forecast, pilot, revision_of(100, 300, 200, 500, 400), job, ())
    update = synthetic_update("u", index=0.5, steps=240, forecast_id=after.id)
    going_on = dataclasses.replace(update, pilot_steps=100)
    asking, training = summarize_settlements([(after, update)]), summarize_settlements([(after, going_on)])
    assert training.overhead_s == forecast.overhead.wall_s
    assert training.overhead_kwh == forecast.overhead.energy_kwh
    assert asking.overhead_s == forecast.overhead.wall_s + pilot.reading.wall_s
    power = forecast.step_cost.reading.energy_kwh / forecast.step_cost.reading.wall_s
    more = pilot.reading.wall_s * power if kwh is None else kwh
    assert math.isclose(asking.overhead_kwh, forecast.overhead.energy_kwh + more)
    assert asking.training_s == training.training_s == update.cost.wall_s


@pytest.mark.parametrize("value", [1e-3, 0.2])
def test_a_cost_that_the_pilot_did_not_measure_has_no_lower_bound(asked, value):
    forecast, job = asked
    small = Estimate(value, Interval(value / 2, value * 2, 0.8, ""), value * 2)
    forecast = dataclasses.replace(forecast, estimates={**forecast.estimates, "gradient_norm": small})
    pilot = pilot_of()
    curve = dataclasses.replace(pilot.curve, gradient_norm=(None,) * 3, gradient_norm_last_batch=(None,) * 3)
    pilot = dataclasses.replace(pilot, curve=curve)
    steps = forecast.estimates["steps"].value
    after = forecast_after_pilot(forecast, pilot, revision_of(100, steps, steps, steps, steps), job, ())
    assert after.estimates["gradient_norm"].value == pytest.approx(value)


@pytest.mark.parametrize("longest", [40, 900])
@pytest.mark.parametrize("factor", [4.5, 5.5])
@pytest.mark.parametrize("probability", [0.1, 0.9])
def test_success_far_beyond_all_earlier_runs_stays_a_reason(asked, longest, factor, probability):
    forecast, job = asked
    runs = [synthetic_update(f"u{n}", index=0.1 * n, steps=max(1, longest // n)) for n in (1, 2, 3)]
    high = factor * longest
    revision = revision_of(100, min(300.0, high), 20.0, high, high, probability)
    reasons = forecast_after_pilot(forecast, pilot_of(), revision, job, runs).reliability_issues
    far = factor > 5 and probability > 0.5
    assert [f"the longest earlier run of its like had {longest:,}" in reason for reason in reasons] == [True] * far


@pytest.mark.parametrize("hardest_refit", [0.7, 0.95])
@pytest.mark.parametrize("accuracy", [0.7, 0.86, 0.88])
@pytest.mark.parametrize("probability", [0.1, 0.9])
def test_success_of_an_update_harder_than_all_own_ones_is_doubted_until_its_pilot_comes_close(
    asked, hardest_refit, accuracy, probability
):
    """After a pilot at .32 a forecast said > 99 % for .66, of noise in place of pixels; the run ended at .634."""
    forecast, job = asked
    forecast = dataclasses.replace(
        forecast, features=dataclasses.replace(forecast.features, scores={"adapted refit": 0.75}), model=""
    )
    own = [synthetic_update(f"u{n}", index=0.1, steps=900) for n in range(6)]
    own = [
        dataclasses.replace(
            u, features=dataclasses.replace(u.features, scores={"adapted refit": 0.98 if n else hardest_refit}),
            model="", recipe=forecast.recipe, parent=forecast.parent,
        )
        for n, u in enumerate(own)
    ]  # fmt: skip
    revision = revision_of(100, 300.0, 200.0, 500.0, 400.0, probability)
    reasons = forecast_after_pilot(forecast, pilot_of(accuracy=accuracy), revision, job, own).reliability_issues
    doubted = hardest_refit > 0.75 and (accuracy - 0.6) / (0.9 - 0.6) < 0.9 and probability > 0.5
    assert ["of the way: try a longer one" in reason for reason in reasons] == [True] * doubted


@pytest.mark.parametrize("own", [0, 1])
@pytest.mark.parametrize("accuracy", [0.7, 0.88])
@pytest.mark.parametrize("probability", [0.1, 0.4, 0.9])
def test_a_first_new_task_is_doubted_until_its_pilot_comes_close_or_failure_is_sure(asked, own, accuracy, probability):
    """A comparison said over 99 % for a task of photographs, learned from letters; the run ended far below."""
    forecast, job = asked
    features = dataclasses.replace(forecast.features, task_index=0.5)
    forecast = dataclasses.replace(forecast, features=features, shift_type="new task")
    history = [synthetic_update(f"u{n}", index=0.1, steps=900) for n in range(own)]
    revision = revision_of(100, 300.0, 200.0, 500.0, 400.0, probability)
    reasons = forecast_after_pilot(forecast, pilot_of(accuracy=accuracy), revision, job, history).reliability_issues
    doubted = not own and accuracy < 0.87 and probability > 0.2
    assert ["no own update of a new task" in reason for reason in reasons] == [True] * doubted


@pytest.mark.parametrize("trains", ["all", "head", "lora"])
@pytest.mark.parametrize("known", ["all", "head"])
@pytest.mark.parametrize("accuracy", [0.7, 0.88])
@pytest.mark.parametrize("probability", [0.1, 0.4, 0.9])
def test_a_part_that_no_own_update_trained_is_doubted_until_its_pilot_comes_close_or_failure_is_sure(
    asked, trains, known, accuracy, probability
):
    """A comparison said 98 % for a head that ended below its target, and 40 % for one that ended far below."""
    forecast, job = asked
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, trains=trains))
    own = [synthetic_update(f"u{n}", index=0.1, steps=900) for n in range(6)]
    own = [dataclasses.replace(update, recipe={**update.recipe, "trains": known}) for update in own]
    revision = revision_of(100, 300.0, 200.0, 500.0, 400.0, probability)
    reasons = forecast_after_pilot(forecast, pilot_of(accuracy=accuracy), revision, job, own).reliability_issues
    doubted = trains not in ("all", known) and accuracy < 0.87 and probability > 0.2
    assert [f"no own update trains={trains}" in reason for reason in reasons] == [True] * doubted
