"""What an update would have cost with another target, and what ending it saved."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import ended_early, synthetic_forecast, synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate, Features, Forecast, ForecastRevision, LearningCurve, Pilot
from resque.ledger.serialization import from_dict
from resque.types import Interval


def test_cost_of_a_lower_target_shares_energy_by_time_and_the_rest_by_steps():
    update = synthetic_update("u", index=0.1, steps=40)
    curve = dataclasses.replace(update.curve, wall_s=(0.0, 0.3, 0.32, 0.36, 0.5))
    cost = dataclasses.replace(update.cost, wall_s=0.5, energy_kwh=2e-3, samples=1000, flops=8e9)
    update = dataclasses.replace(update, curve=curve, cost=cost, grid=Grid("TST", 400.0, "a table", pue=1.5))
    half = update.cost_at(0.7)  # half the steps, and more than half of the time
    assert (half.steps, half.epochs, half.samples, half.flops) == (20, 2.0, 500, 4e9)
    assert half.wall_s == 0.32
    assert half.energy_kwh == pytest.approx(2e-3 * 0.32 / 0.5)
    assert half.carbon_kg == pytest.approx(1.5 * 0.4 * half.energy_kwh)
    assert (half.gradient_norm, half.gradient_norm_last_batch) == (
        curve.gradient_norm[2],
        curve.gradient_norm_last_batch[2],
    )
    assert half.parameter_change == curve.parameter_change[2]
    whole = update.cost_at(0.9)
    assert (whole.wall_s, whole.energy_kwh, whole.flops) == (0.5, 2e-3, 8e9)
    assert update.cost_at(0.95) is None


def test_cost_of_a_lower_target_is_unknown_where_the_run_s_is_and_zero_for_no_step():
    update = synthetic_update("u", index=0.1, steps=40)
    unknown = dataclasses.replace(update.cost, energy_kwh=None, samples=None, flops=None)
    curve = dataclasses.replace(update.curve, steps_per_epoch=None)
    found = dataclasses.replace(update, cost=unknown, curve=curve).cost_at(0.7)
    assert (found.energy_kwh, found.samples, found.flops, found.epochs, found.carbon_kg) == (None,) * 5
    at_once = update.cost_at(0.5)
    assert (at_once.steps, at_once.wall_s, at_once.energy_kwh, at_once.samples) == (0, 0.0, 0.0, 0)
    timeless = dataclasses.replace(update, cost=dataclasses.replace(update.cost, wall_s=0.0))
    assert timeless.cost_at(0.7).energy_kwh == 0.0


def test_an_update_says_what_its_budget_saved():
    update = ended_early(synthetic_update("u", index=0.5, steps=100), stopped_by="budget: kWh")  # 40 steps, 4e-5 kWh
    steps = Estimate(200.0, Interval(120.0, 1000.0, 0.8, ""), 500.0)
    update = dataclasses.replace(update, revisions=(ForecastRevision(40, 0.7, steps, 0.9, 5, 150.0),))
    sentence = "stopped at step 40 of an expected 200: about 0.16 Wh not spent"
    assert update.saving == sentence
    assert sentence in str(update)
    hopeless = dataclasses.replace(update, stopped_by="budget: would not reach")
    assert hopeless.saving == "stopped at step 40 of at most 1,000: up to 0.96 Wh not spent"
    unmeasured = dataclasses.replace(update, cost=dataclasses.replace(update.cost, energy_kwh=None))
    assert unmeasured.saving == "stopped at step 40 of an expected 200: about 1.6 s not spent"


@pytest.mark.parametrize("why", ["no budget", "no revision", "an old revision", "nothing left"])
def test_a_run_that_saved_nothing_known_says_nothing(why):
    stopped_by = "tolerance 0.01" if why == "no budget" else "budget: kWh"
    update = ended_early(synthetic_update("u", index=0.5, steps=100), stopped_by=stopped_by)
    total = 40.0 if why == "nothing left" else 200.0
    step = 20 if why == "an old revision" else 40
    revision = ForecastRevision(step, 0.7, Estimate(total, Interval(total, None, 0.8, "")), 0.9, 5)
    update = dataclasses.replace(update, revisions=() if why == "no revision" else (revision,))
    assert update.saving is None


def test_time_and_accuracy_of_a_pilot_are_those_of_its_last_evaluation():
    nothing = (None,) * 3
    curve = LearningCurve((0, 5, 10), (0.5, 0.7, 0.6), nothing, (0.0, 0.4, 0.9), nothing, nothing, nothing, 20)
    pilot = Pilot(10, 0, "identity", curve, EnergyReading(1.0, None, {}, {}, "clock"), 0.1)
    assert (pilot.training_s, pilot.accuracy) == (0.9, 0.6)


@pytest.mark.parametrize(("method", "kept"), [(MEASURED, (0.7, 1.1)), ("estimated", (0.4, 1.2))])
def test_a_measurement_takes_the_place_of_an_estimate_alone(method, kept):
    error = None if method == MEASURED else 0.7
    features = Features(None, 0.7, 1.1, accuracy_method=method, accuracy_error_logit=error).measured(0.4, 1.2)
    assert (features.accuracy, features.loss) == kept
    assert (features.accuracy_method, features.accuracy_error_logit) == (MEASURED, None)


@given(st.integers(2, 100), st.integers(1, 50))
def test_two_points_are_not_yet_forgotten_whatever_the_rounding(correct, hundreds):
    """Accuracies are counts of test samples, so that a drop may be exactly two points."""
    update, samples = synthetic_update("u", index=0.5, steps=100), 100 * hundreds
    before, two_points, more = ((correct * hundreds - lost) / samples for lost in (0, 2 * hundreds, 2 * hundreds + 1))
    for after, is_forgotten in ((two_points, False), (more, True)):
        changed = dataclasses.replace(update, original_accuracy_before=before, original_accuracy_after=after)
        assert bool(changed.forgetting) is is_forgotten


def test_forecast_stored_before_bundled_updates_were_counted_has_none():
    stored = synthetic_forecast(synthetic_update("u", index=0.5, steps=100)).to_dict()
    del stored["n_bundled"]
    assert from_dict(Forecast, stored).n_bundled == 0


STOPS = "max", "epochs", "diverged", "tolerance 0.01", "budget: kWh", "max hours", "max kWh", "the user", "target"


@pytest.mark.parametrize("stopped_by", STOPS)
@pytest.mark.parametrize("target", [0.7, 0.85, 0.86, 0.9, 0.95])
def test_only_a_run_that_went_to_its_end_shows_that_a_target_is_out_of_reach(stopped_by, target):
    """Its own target is 0.9, its curve ends at 0.85. The rule for a plateau depends on the target."""
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=40, reached=False), stopped_by=stopped_by)
    to_the_end = stopped_by in ("max", "epochs", "diverged") or (stopped_by == "tolerance 0.01" and target <= 0.9)
    assert update.reaches(target) is (True if target <= 0.85 else False if to_the_end else None)
