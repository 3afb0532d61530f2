"""Forecasts from synthetic histories."""

import dataclasses
import math

import numpy as np
import pytest

from doubles import synthetic_update
from power_law import GRID, READING, STEP_COST, forecast_for, history, power_law
from resque.errors import SettingError, TooFewUpdatesError
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.history import ForecastQuery
from resque.forecasting.prediction import predict_cost
from resque.ledger.records import COSTS, Features


def test_power_law_without_noise_is_recovered_for_every_cost(job):
    forecast = forecast_for(history(spread=0.0, types=("gaussian",)), job)
    steps, seen = forecast.estimates["steps"].value, 0.875  # reached between the evaluations at 188 and 250
    assert steps == pytest.approx(250 * seen, rel=0.02)
    assert forecast.estimates["epochs"].value == pytest.approx(steps / 10)
    assert forecast.estimates["gradient_norm"].value == pytest.approx(25 * seen, rel=0.02)
    assert forecast.estimates["parameter_change"].value == pytest.approx(0.25 * seen, rel=0.02)
    assert forecast.estimates["wall_s"].value == pytest.approx(steps * 0.02)
    assert forecast.estimates["energy_kwh"].value == pytest.approx(steps * 1e-7)
    assert forecast.estimates["carbon_kg"].value == pytest.approx(steps * 1e-7 * 0.5)
    assert list(forecast.estimates) == list(COSTS)
    assert all(e.interval.low <= e.value <= e.interval.high for e in forecast.estimates.values())


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


def test_interval_covers_at_nominal_rate(job):
    """80 % nominal, jackknife+ guarantees 60 %; 300 exchangeable draws, so the standard error is 2.3 points."""
    hits = 0
    for seed in range(300):
        generator = np.random.default_rng(1000 + seed)
        index = float(generator.uniform(0.25, 0.85))
        query = ForecastQuery.of(job, Features(index, 0.6, 1.0), "p", "m")
        updates = history(n=12, spread=0.3, types=("gaussian",), seed=seed)
        prediction = predict_cost(updates, "steps", query, ("index",)).distribution
        hits += prediction.lower <= math.log(power_law(index, 0.3 * generator.normal())) <= prediction.upper
    assert 0.74 < hits / 300 < 0.92


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


def test_unseen_shift_type_has_no_guarantee_and_a_wider_interval(job):
    apart = [
        dataclasses.replace(
            u,
            shift_type="blur",
            id=f"b{i}",
            curve=dataclasses.replace(u.curve, steps=tuple(3 * s for s in u.curve.steps)),
        )
        for i, u in enumerate(history(6, types=("gaussian",)))
    ] + history(6, types=("gaussian",))
    known, unknown = forecast_for(apart, job), forecast_for(apart, dataclasses.replace(job, shift_type="fog"))
    width = [math.log(e.interval.high / e.interval.low) for e in (known.estimates["steps"], unknown.estimates["steps"])]
    assert width[1] > width[0]
    assert "jackknife+: at least 60%" in known.estimates["steps"].interval.guarantee
    assert "no coverage guarantee" in unknown.estimates["steps"].interval.guarantee


def test_seen_shift_type_has_its_own_intercept(job):
    updates = history(12, spread=0.05)
    slow = [
        dataclasses.replace(u, curve=dataclasses.replace(u.curve, steps=tuple(3 * s for s in u.curve.steps)))
        if u.shift_type == "blur"
        else u
        for u in updates
    ]
    fast, blurred, unknown = (
        forecast_for(slow, dataclasses.replace(job, shift_type=shift_type)).estimates["steps"].value
        for shift_type in ("gaussian", "blur", "fog")
    )
    assert fast < unknown < blurred
    assert blurred / fast == pytest.approx(3.0, rel=0.25)


def test_censored_updates_raise_the_forecast(job):
    ended = history(12, spread=0.1, types=("gaussian",), never=(10, 11))
    censored = forecast_for(ended, job, index=0.9)
    as_if_reached = forecast_for(history(12, spread=0.1, types=("gaussian",)), job, index=0.9)
    assert censored.estimates["steps"].value > as_if_reached.estimates["steps"].value
    assert "2 of 12 updates ended below the target" in " ".join(censored.notes)


def test_missed_targets_lower_the_probability_and_the_step_budget_bounds_the_interval(job):
    surely, hardly = forecast_for(history(12), job), forecast_for(history(12, never=range(4, 12)), job)
    assert hardly.probability_reached <= surely.probability_reached
    assert surely.probability_reached > 0.9
    assert hardly.probability_reached < 0.6
    assert hardly.estimates["steps"].interval.high == job.max_steps == 1000
    assert hardly.estimates["gradient_norm"].interval.high == pytest.approx(0.1 * job.max_steps)


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


def test_wrong_settings_are_refused(job):
    with pytest.raises(SettingError, match="unknown predictor"):
        forecast_for(history(), job, predictor="mood")
    with pytest.raises(SettingError, match="level"):
        forecast_for(history(), job, level=1.0)
    with pytest.raises(SettingError, match="not known for this update: index"):
        forecast_for(history(), job, index=None, predictor="index")


RANGE = "the range of the own updates with this model and recipe, so this one is harder"
CURE = "decides; or do similar ones first"


def only_reason(forecast):
    (reason,) = forecast.reliability_issues
    assert reason.endswith(CURE)
    return reason


def test_updates_by_another_recipe_do_not_extend_the_range(job):
    """One failed run by another recipe once hid every extrapolation."""
    far = synthetic_update("far", index=1.4, steps=300, reached=False)
    other = dataclasses.replace(far, recipe={**far.recipe, "optimizer": "sgd"})
    assert only_reason(forecast_for([*history(), other], job, index=1.4)).startswith(
        f"extrapolation: index is above {RANGE}"
    )


def test_extrapolation_to_harder_updates_is_reported_with_its_cure(job):
    reason = only_reason(forecast_for(history(), job, index=1.4))
    assert reason == f"extrapolation: index is above {RANGE}: `--pilot 100` (about 2 s of training) {CURE}"


@pytest.mark.parametrize("index", [0.001, 0.01, 0.1])
def test_an_easier_update_is_no_reason(job, index):
    assert forecast_for(history(), job, index=index).reliability_issues == ()


def test_unused_predictor_is_no_reason(job):
    """An index beyond its range once stopped forecasts that do not use it."""
    updates = [dataclasses.replace(u, features=dataclasses.replace(u.features, index_rad=0.5)) for u in history()]
    assert forecast_for(updates, job, index=1.2, accuracy=0.5, predictor="accuracy gap").reliability_issues == ()
    start = [Features(0.5, 0.2 + 0.04 * place, 1.0) for place in range(len(updates))]
    lower = [dataclasses.replace(u, features=features) for u, features in zip(updates, start, strict=True)]
    reason = only_reason(forecast_for(lower, job, accuracy=0.06, predictor="accuracy gap"))
    assert reason.startswith(f"extrapolation: accuracy gap is above {RANGE}")


def test_repeats_do_not_narrow_the_interval(job):
    once = history(8, types=("gaussian",))
    twice = [dataclasses.replace(u, id=f"{u.id}-{i}") for u in once for i in range(2)]
    width = [forecast_for(updates, job).estimates["steps"].interval for updates in (once, twice)]
    assert math.log(width[1].high / width[1].low) >= 0.99 * math.log(width[0].high / width[0].low)
    with pytest.raises(TooFewUpdatesError, match="repeat one condition"):
        forecast_for([dataclasses.replace(once[0], id=str(i)) for i in range(9)], job)


def test_unnamed_shift_type_has_no_guarantee(job):
    unnamed = history(12, types=(None,))
    forecast = forecast_for(unnamed, dataclasses.replace(job, shift_type=None))
    assert "no coverage guarantee" in forecast.estimates["steps"].interval.guarantee


def test_missed_targets_lower_the_probability(job):
    forecast = forecast_for(history(10, types=("gaussian",), never=range(3, 10)), job)
    assert forecast.probability_reached <= 4 / 12
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
    assert "with this model and recipe" in forecast.estimates["steps"].interval.guarantee
    near, far = (each.estimates["steps"].interval for each in (forecast_for(history(), job), forecast))
    assert far.high / far.low > 2 * near.high / near.low


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


def test_higher_level_needs_more_conditions(job):
    assert forecast_for(history(12), job, level=0.9).reliability_issues == ()
    assert forecast_for(history(12), job, level=0.95).reliability_issues == (
        "an interval of 95% needs own updates under 19 conditions, and there are 12: do more updates or lower the "
        "confidence",
    )


def test_updates_with_lower_targets_do_not_change_the_probability(job):
    lower = [dataclasses.replace(u, id=f"l{u.id}", target_accuracy=0.8) for u in history(6, types=("gaussian",))]
    lower = [
        dataclasses.replace(u, curve=dataclasses.replace(u.curve, accuracy=(0.5, 0.6, 0.7, 0.75, 0.8))) for u in lower
    ]
    without, with_lower = (forecast_for(history(8, types=("gaussian",)) + more, job) for more in ([], lower))
    assert with_lower.probability_reached == pytest.approx(without.probability_reached, abs=0.05)
    assert with_lower.n_history == 14


def test_index_of_another_layer_is_not_comparable(job):
    elsewhere = [
        dataclasses.replace(u, features=dataclasses.replace(u.features, layer="penultimate")) for u in history()
    ]
    with pytest.raises(TooFewUpdatesError, match="0 updates in the ledger"):
        forecast_for(elsewhere, job, predictor="index")
    assert forecast_for(elsewhere, job).predictor == "accuracy gap"


def test_history_of_another_model_is_noted_without_guarantee(job):
    forecast = forecast_for(history(), job, parent="another")
    assert "12 of 12 updates in the ledger started from other weights" in forecast.notes
    assert "no coverage guarantee" in forecast.estimates["steps"].interval.guarantee
