"""Forecasts from synthetic histories."""

import dataclasses
import itertools
import math

import numpy as np
import pytest

from doubles import synthetic_update
from power_law import GRID, READING, STEP_COST, forecast_for, history, runs
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.forecaster import forecast_from_features
from resque.ledger.records import COSTS, Features


def test_runs_that_went_alike_are_forecast_for_every_cost(job):
    """All went from .5 to .9 in 250 steps, more and more slowly, and passed it between 188 and 250."""
    updates = [synthetic_update(f"u{i}", index=0.5, steps=250, shift_type=f"k{i % 4}") for i in range(24)]
    slowing = (0.5, 0.8, 0.861, 0.886, 0.9)
    updates = [dataclasses.replace(u, curve=dataclasses.replace(u.curve, accuracy=slowing)) for u in updates]
    forecast = forecast_for(updates, job, accuracy=0.5)
    steps = forecast.estimates["steps"].value
    assert 150 < steps < 300
    assert forecast.estimates["epochs"].value == pytest.approx(steps / 10)
    assert forecast.estimates["gradient_norm"].value == pytest.approx(0.1 * steps, rel=0.15)
    assert forecast.estimates["parameter_change"].value == pytest.approx(0.001 * steps, rel=0.15)
    assert forecast.estimates["wall_s"].value == pytest.approx(steps * 0.02)
    assert forecast.estimates["energy_kwh"].value == pytest.approx(steps * 1e-7)
    assert forecast.estimates["carbon_kg"].value == pytest.approx(steps * 1e-7 * 0.5)
    assert list(forecast.estimates) == list(COSTS)
    assert all(e.interval.low <= e.value <= e.interval.high for e in forecast.estimates.values())


def test_slower_runs_cost_more_and_lower_accuracies_are_missed(job):
    """The refit head tells where a run ends, and the pace of earlier runs when it gets there."""
    quick, slow = (forecast_for(runs(30, pace=pace), job, scores={"adapted refit": 0.95}) for pace in (20.0, 100.0))
    assert slow.estimates["steps"].value > 2 * quick.estimates["steps"].value
    assert quick.probability_reached > 0.9
    assert quick.predictor == "learning curves, adapted refit"
    chances = [
        forecast_for(runs(30), job, scores={"adapted refit": refit}).probability_reached
        for refit in (0.8, 0.86, 0.9, 0.94)
    ]
    assert chances == sorted(chances)
    assert chances[0] < 0.2 < 0.8 < chances[-1]


def test_harder_targets_never_cost_less_or_are_more_probable(job):
    """For any targets: the median, both ends of the interval and the bound never fall."""
    updates, targets = runs(20), np.sort(np.random.default_rng(3).uniform(0.61, 0.94, 30))
    forecasts = [
        forecast_for(updates, dataclasses.replace(job, target_accuracy=float(t)), scores={"adapted refit": 0.9})
        for t in targets
    ]
    for easier, harder in itertools.pairwise(forecasts):
        assert harder.probability_reached <= easier.probability_reached
        one, other = easier.estimates["steps"], harder.estimates["steps"]
        assert other.value >= one.value
        assert (other.interval.low, other.interval.high) >= (one.interval.low, one.interval.high)
        assert other.upper >= one.upper


def test_interval_covers_at_least_at_nominal_rate(job):
    """80 % nominal; 60 runs of a type that the history does not have, so the standard error is 5 points."""
    hits = 0
    for seed in range(60):
        *updates, new = runs(24, seed=seed)
        low, high = (
            (steps := forecast_for(
                updates, dataclasses.replace(job, target_accuracy=0.8, shift_type="new"),
                scores=dict(new.features.scores), accuracy=0.5,
            ).estimates["steps"]).interval.low, steps.interval.high,
        )  # fmt: skip
        reached = new.cost_at(0.8)
        hits += low <= (reached.steps if reached else 1000) <= high + 10  # evaluations are 10 steps apart
    assert hits / 60 > 0.7


def test_pue_multiplies_carbon_and_not_energy(job):
    updates = history(types=("gaussian",))
    bare, whole = (forecast_for(updates, job, grid=dataclasses.replace(GRID, pue=pue)).estimates for pue in (1.0, 1.5))
    assert whole["carbon_kg"].value == pytest.approx(1.5 * bare["carbon_kg"].value)
    assert whole["energy_kwh"].value == pytest.approx(bare["energy_kwh"].value)


def test_unknown_costs_are_missing_and_not_zero(job):
    clock = dataclasses.replace(STEP_COST, energy_kwh=None)
    assert {"energy_kwh", "carbon_kg"}.isdisjoint(forecast_for(history(), job, step_cost=clock).estimates)
    assert "carbon_kg" not in forecast_for(history(), job, grid=None).estimates


def test_history_with_steps_alone_forecasts_steps_alone(job):
    """Imported MLflow runs hold no gradient norms."""
    blind = []
    for update in history():
        nothing = (None,) * len(update.curve.steps)
        curve = dataclasses.replace(update.curve, gradient_norm=nothing, parameter_change=nothing)
        cost = dataclasses.replace(update.cost, gradient_norm=None, parameter_change=None)
        blind.append(dataclasses.replace(update, curve=curve, cost=cost))
    forecast = forecast_for(blind, job)
    assert {"gradient_norm", "parameter_change"}.isdisjoint(forecast.estimates)
    assert forecast.estimates["steps"] == forecast_for(history(), job).estimates["steps"]


def test_bundled_updates_shape_the_forecast_without_guarantee(job):
    bundled = [dataclasses.replace(u, model="x", parent="q") for u in history(12, spread=0.0)]
    forecast = forecast_for([], job, bundled=bundled)
    assert (forecast.n_history, forecast.n_bundled) == (0, 12)
    assert forecast.reliability_issues[0].startswith("the forecast rests on bundled updates only")
    assert "no coverage guarantee" in forecast.estimates["steps"].interval.guarantee
    few = history(4, spread=0.0, types=("gaussian",))
    shaped = forecast_for(few, job, bundled=bundled)
    assert (shaped.n_history, shaped.reliability_issues[0]) == (
        4,
        "4 own updates with this model and recipe, and 5 are needed: do more updates",
    )
    assert shaped.estimates["steps"].value == pytest.approx(250, rel=0.3)


def test_forecast_without_enough_own_updates_is_unreliable(job):
    bundled = [dataclasses.replace(u, model="x", parent="q") for u in history(12, spread=0.0)]
    repeats = [dataclasses.replace(u, train_data="one", id=f"r{i}") for i, u in enumerate(history(6))]
    assert "repeat one condition" in forecast_for(repeats, job, bundled=bundled).reliability_issues[0]
    assert (
        "0 of 6 own updates reached"
        in forecast_for(history(6, never=range(6)), job, bundled=bundled).reliability_issues[0]
    )
    foreign = [dataclasses.replace(u, model="another", parent="q") for u in history(8)]
    assert "0 own updates with this model" in forecast_for(foreign, job).reliability_issues[0]
    assert forecast_for(history(8), job, bundled=bundled).reliability_issues == ()


def test_fixed_number_of_epochs_fixes_the_steps(job):
    fixed = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, fixed_epochs=40))
    forecast = forecast_for(history(), fixed)
    steps = forecast.estimates["steps"]
    ends = steps.value, steps.interval.low, steps.interval.high, steps.upper
    assert ends == pytest.approx((fixed.max_steps,) * 4)
    assert forecast.estimates["epochs"].value == pytest.approx(40)
    assert "gradient_norm" not in forecast.estimates
    assert 0.0 < forecast.probability_reached < 1.0


def test_unseen_shift_type_has_a_wider_interval(job):
    updates = runs(40)
    job, seen = dataclasses.replace(job, target_accuracy=0.75), {"adapted refit": 0.9}
    known, unknown = (
        forecast_for(updates, dataclasses.replace(job, shift_type=name), scores=seen).estimates["steps"].interval
        for name in ("k0", "new")
    )
    assert unknown.high / unknown.low >= known.high / known.low
    assert "no coverage guarantee" in known.guarantee


def test_seen_shift_type_has_its_own_pace(job):
    quick = [dataclasses.replace(u, shift_type="fast") for u in runs(20, pace=15.0)]
    slow = [
        dataclasses.replace(u, shift_type="slow", id=f"s{u.id}", train_data=f"s{u.id}") for u in runs(20, pace=120.0)
    ]
    fast, unknown, slowest = (
        forecast_for(quick + slow, dataclasses.replace(job, target_accuracy=0.75, shift_type=name), accuracy=0.5)
        .estimates["steps"]
        .value
        for name in ("fast", "new", "slow")
    )
    assert fast < unknown < slowest


def test_censored_updates_raise_the_forecast(job):
    ended = history(12, spread=0.1, types=("gaussian",), never=(10, 11))
    censored = forecast_for(ended, job, index=0.9)
    as_if_reached = forecast_for(history(12, spread=0.1, types=("gaussian",)), job, index=0.9)
    assert censored.estimates["steps"].value > as_if_reached.estimates["steps"].value
    assert "2 of 12 updates ended below the target" in " ".join(censored.notes)


def test_the_step_budget_bounds_the_interval(job):
    hardly = forecast_for(runs(30), job, scores={"adapted refit": 0.86})
    assert hardly.estimates["steps"].interval.high == job.max_steps == 1000
    assert hardly.estimates["gradient_norm"].interval.high == pytest.approx(0.1 * job.max_steps, rel=0.3)


def test_history_is_read_at_the_target_of_the_query(job):
    low = forecast_for(history(), dataclasses.replace(job, target_accuracy=0.75))
    assert low.estimates["steps"].value < 0.8 * forecast_for(history(), job).estimates["steps"].value


def test_updates_that_started_at_the_target_are_not_used(job):
    idle = [synthetic_update(f"i{i}", index=0.1, steps=0, accuracy=0.95) for i in range(20)]
    assert forecast_for(history() + idle, job).n_history == 12


def test_a_model_at_the_target_needs_no_history(job):
    forecast = forecast_for([], job, accuracy=0.95)
    assert forecast.probability_reached == 1.0
    assert {e.value for e in forecast.estimates.values()} == {0.0}
    assert "nothing to retrain" in forecast.notes[0]


def test_too_few_updates_are_refused_with_exit_code_4(job):
    with pytest.raises(TooFewUpdatesError, match="4 updates in the ledger .* a forecast needs 5") as refused:
        forecast_for(history(4), job)
    assert refused.value.exit_code == 4


def test_wrong_level_is_refused(job):
    with pytest.raises(SettingError, match="level"):
        forecast_for(history(), job, level=1.0)


HARDER = "extrapolation: by adapted refit it is harder than all own updates"
CURE = ", or do similar ones first"


def only_reason(forecast):
    (reason,) = forecast.reliability_issues
    assert reason.endswith(CURE)
    return reason


def test_updates_by_another_recipe_do_not_extend_the_range(job):
    """One failed run by another recipe once hid every extrapolation."""
    far = runs(1)[0]
    far = dataclasses.replace(far, id="far", features=dataclasses.replace(far.features, scores={"adapted refit": 0.3}))
    other = dataclasses.replace(far, recipe={**far.recipe, "optimizer": "sgd"})
    reason = only_reason(forecast_for([*runs(30), other], job, scores={"adapted refit": 0.5}))
    assert reason.startswith(HARDER)


def test_extrapolation_to_harder_updates_is_reported_with_its_cure(job):
    reason = only_reason(forecast_for(runs(30), job, scores={"adapted refit": 0.5}))
    assert reason == f"{HARDER}: try `--pilot 100` (about 2 s of training){CURE}"


@pytest.mark.parametrize("refit", [0.975, 0.99, 1.0])
def test_an_easier_update_is_no_reason(job, refit):
    assert forecast_for(runs(30), job, scores={"adapted refit": refit}).reliability_issues == ()


@pytest.mark.parametrize("index", [0.001, 1.4, 3.0])
def test_an_index_beyond_the_range_is_no_reason_where_better_is_known(job, index):
    """An index beyond its range once stopped forecasts that do not use it."""
    assert forecast_for(runs(30), job, index=index, scores={"adapted refit": 0.9}).reliability_issues == ()


def test_repeats_hardly_narrow_the_interval(job):
    once, seen = runs(16), {"adapted refit": 0.93}
    repeats = [dataclasses.replace(u, id=f"{u.id}-{i}") for u in once for i in range(3)]
    often = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate_every=1), target_accuracy=0.8)
    ends = [forecast_for(updates, often, scores=seen).estimates["steps"].interval for updates in (once, repeats)]
    assert math.log(ends[1].high / ends[1].low) >= 0.8 * math.log(ends[0].high / ends[0].low)
    with pytest.raises(TooFewUpdatesError, match="repeat one condition"):
        forecast_for([dataclasses.replace(history(8)[0], id=str(i)) for i in range(9)], job)


def test_unnamed_shift_type_has_no_guarantee(job):
    unnamed = history(12, types=(None,))
    forecast = forecast_for(unnamed, dataclasses.replace(job, shift_type=None))
    assert "no coverage guarantee" in forecast.estimates["steps"].interval.guarantee


def test_too_few_arrivals_are_refused(job):
    with pytest.raises(TooFewUpdatesError, match="1 of 8 updates in the ledger reached"):
        forecast_for(history(8, never=range(1, 8)), job)


def test_predictor_without_values_is_no_alternative(job):
    silent = [dataclasses.replace(u, features=dataclasses.replace(u.features, loss=None)) for u in history()]
    assert "initial loss" not in forecast_for(silent, job).alternatives


def test_history_by_another_recipe_is_noted_and_unreliable(job):
    faster = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, learning_rate=1e6))
    forecast = forecast_for(history(), faster)
    assert any("12 of 12 updates in the ledger used another" in note for note in forecast.notes)
    assert forecast.reliability_issues == (
        "0 own updates with this model and recipe, and 5 are needed: do more updates",
    )
    near, far = (each.estimates["steps"].interval for each in (forecast_for(history(), job), forecast))
    assert far.high / far.low > near.high / near.low


def test_renamed_model_is_the_same_model(job):
    renamed = [dataclasses.replace(update, model="weights-of-may.safetensors") for update in history()]
    assert forecast_for(renamed, job, model_name="model.safetensors").reliability_issues == ()


def test_index_by_pseudo_labels_is_not_comparable(job):
    """By pseudo-labels the index is smaller, so a model fitted to true labels would be read at the wrong place."""
    features = Features(0.5, 0.6, 1.0, labels="pseudo")
    given = {"step_cost": STEP_COST, "overhead": READING, "parent": "p"}
    forecast = forecast_from_features(history(), job, features, **given)
    assert "index" not in forecast.predictor.split(", ")
    assert "index" not in forecast.alternatives


def test_runs_that_stopped_at_a_lower_target_do_not_lower_the_probability(job):
    """They were ended on their way up: censored, not worse."""

    def stopped(update):
        curve = update.curve.until(next((s for s, a in zip(*_points(update), strict=True) if a >= 0.75), 1000))
        cost = dataclasses.replace(update.cost, steps=curve.steps[-1])
        return dataclasses.replace(update, curve=curve, cost=cost, stopped_by="target", reached=True)

    whole, seen = runs(24), {"adapted refit": 0.95}
    stopped_too = whole[:12] + [stopped(update) for update in whole[12:]]
    before, after = (forecast_for(each, job, scores=seen).probability_reached for each in (whole, stopped_too))
    assert after > before - 0.1


def _points(update):
    return update.curve.steps, update.curve.accuracy


def test_history_of_another_model_is_noted_without_guarantee(job):
    forecast = forecast_for(history(), job, parent="another")
    assert "12 of 12 updates in the ledger started from other weights" in forecast.notes
    assert "no coverage guarantee" in forecast.estimates["steps"].interval.guarantee


@pytest.mark.parametrize(("epochs", "far"), [(100, False), (600, True)])
def test_success_far_beyond_all_earlier_runs_is_a_reason(job, epochs, far):
    """A forecast of 93 % within 250 epochs, learned from runs of 40, ended below its target."""
    long = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, max_epochs=epochs))
    reasons = forecast_for(runs(30), long, scores={"adapted refit": 0.903}).reliability_issues
    assert ["the longest earlier run of its like had 1,000" in reason for reason in reasons] == [True] * far
