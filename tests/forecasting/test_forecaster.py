import dataclasses
import math

import numpy as np
import pytest

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.errors import LedgerError, SettingError, TooFewUpdatesError
from resque.forecasting.costs import StepTimeSpread, rescale_with_steps, step_time_spread, widen_by_step_time
from resque.forecasting.evaluation.settlement import (
    FORECAST,
    ProbabilityScore,
    check_settles,
    is_covered,
    score_predictors,
    summarize_settlements,
)
from resque.forecasting.forecaster import CONSTANT, fit_cost, forecast_from_features
from resque.forecasting.history import ForecastQuery
from resque.ledger.records import COSTS, Estimate, Features, LearningCurve, StepCost
from resque.ledger.store import Ledger
from resque.reporting.html import write_report
from resque.reporting.sentences import settlement_sentence
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.types import Interval

READING = EnergyReading(1.0, 2e-6, {"cpu": 2e-6}, {"cpu": "measured"}, "replay")
STEP_COST = StepCost(wall_s=0.02, energy_kwh=1e-7, steps=50, reading=READING)
GRID = Grid("TST", 500.0, "test")


def power_law(index: float, noise: float = 0.0) -> int:
    return max(1, round(1000 * index**2 * math.exp(noise)))


def history(n=12, spread=0.2, kinds=("gaussian", "blur"), seed=0, never=()):
    generator = np.random.default_rng(seed)
    indices = np.geomspace(0.2, 0.9, n)
    return [
        synthetic_update(
            f"u{i}",
            index=index,
            steps=power_law(index, spread * generator.normal()),
            shift_type=kinds[i % len(kinds)],
            reached=i not in never,
        )
        for i, index in enumerate(indices)
    ]


@pytest.fixture
def job(small):
    return RetrainingJob(*small, 0.9, Recipe(max_epochs=100), shift_type="gaussian")


def ask(updates, job, index=0.5, accuracy=0.6, **options):
    features = Features(index, accuracy, 1.0)
    given = {"step_cost": STEP_COST, "overhead": READING, "parent": "p", "grid": GRID, **options}
    return forecast_from_features(updates, job, features, **given)


def test_a_power_law_without_noise_is_found_for_every_cost(job):
    made = ask(history(spread=0.0, kinds=("gaussian",)), job)
    steps, seen = made.estimates["steps"].value, 0.875  # they were seen at 250, and not yet at the look before, 188
    assert steps == pytest.approx(250 * seen, rel=0.02)
    assert made.estimates["epochs"].value == pytest.approx(steps / 10)
    assert made.estimates["gradient_norm"].value == pytest.approx(25 * seen, rel=0.02)
    assert made.estimates["parameter_change"].value == pytest.approx(0.25 * seen, rel=0.02)
    assert made.estimates["wall_s"].value == pytest.approx(steps * 0.02)
    assert made.estimates["energy_kwh"].value == pytest.approx(steps * 1e-7)
    assert made.estimates["carbon_kg"].value == pytest.approx(steps * 1e-7 * 0.5)
    assert list(made.estimates) == list(COSTS)
    assert all(e.interval.low <= e.value <= e.interval.high for e in made.estimates.values())


def test_carbon_has_the_sites_share_in_it_and_energy_has_not(job):
    past = history(kinds=("gaussian",))
    bare, whole = (ask(past, job, grid=dataclasses.replace(GRID, pue=pue)).estimates for pue in (1.0, 1.5))
    assert whole["carbon_kg"].value == pytest.approx(1.5 * bare["carbon_kg"].value)
    assert whole["energy_kwh"].value == pytest.approx(bare["energy_kwh"].value)


def test_what_is_not_known_is_missing_and_never_zero(job):
    clock = dataclasses.replace(STEP_COST, energy_kwh=None)
    assert {"energy_kwh", "carbon_kg"}.isdisjoint(ask(history(), job, step_cost=clock).estimates)
    assert "carbon_kg" not in ask(history(), job, grid=None).estimates


def test_a_history_that_tells_of_steps_alone_forecasts_steps_alone(job):
    """As MLflow's runs do: nobody looked at gradients."""
    blind = []
    for update in history():
        nothing = (None,) * len(update.curve.steps)
        curve = dataclasses.replace(update.curve, gradient_norm=nothing, parameter_change=nothing)
        cost = dataclasses.replace(update.cost, gradient_norm=None, parameter_change=None)
        blind.append(dataclasses.replace(update, curve=curve, cost=cost))
    made = ask(blind, job)
    assert {"gradient_norm", "parameter_change"}.isdisjoint(made.estimates)
    assert made.estimates["steps"] == ask(history(), job).estimates["steps"]


def test_the_interval_covers_as_often_as_it_says(job):
    """80 % nominal, jackknife+ promises 60 %; 300 exchangeable draws, so the standard error is 2.3 points."""
    hits = 0
    for seed in range(300):
        generator = np.random.default_rng(1000 + seed)
        index = float(generator.uniform(0.25, 0.85))
        query = ForecastQuery.of(job, Features(index, 0.6, 1.0), "p", "m")
        past = history(n=12, spread=0.3, kinds=("gaussian",), seed=seed)
        found = fit_cost(past, (), "steps", query, ("index",)).outlook
        hits += found.low <= math.log(power_law(index, 0.3 * generator.normal())) <= found.high
    assert 0.74 < hits / 300 < 0.92


def test_updates_of_others_shape_the_law_and_promise_nothing(job):
    others = [dataclasses.replace(u, model="x", parent="q") for u in history(12, spread=0.0)]
    made = ask([], job, bundled=others)
    assert (made.n_history, made.n_bundled) == (0, 12)
    assert made.reliability_issues[0].startswith("it rests on updates of others alone")
    assert "no guarantee" in made.estimates["steps"].interval.guarantee
    few = history(4, spread=0.0, kinds=("gaussian",))
    shaped = ask(few, job, bundled=others)
    assert (shaped.n_history, shaped.reliability_issues[0]) == (
        4,
        "4 own updates of this model and recipe; 5 are needed",
    )
    assert shaped.estimates["steps"].value == pytest.approx(250, rel=0.3)


def test_what_own_updates_do_not_bear_out_is_doubted_whatever_others_teach(job):
    others = [dataclasses.replace(u, model="x", parent="q") for u in history(12, spread=0.0)]
    repeats = [dataclasses.replace(u, train_data="one", id=f"r{i}") for i, u in enumerate(history(6))]
    assert "repeats of one" in ask(repeats, job, bundled=others).reliability_issues[0]
    assert (
        "0 of 6 own updates ever reached" in ask(history(6, never=range(6)), job, bundled=others).reliability_issues[0]
    )
    foreign = [dataclasses.replace(u, model="another", parent="q") for u in history(8)]
    assert "0 own updates of this model" in ask(foreign, job).reliability_issues[0]
    assert ask(history(8), job, bundled=others).reliability_issues == ()


def test_a_fixed_number_of_epochs_costs_what_it_costs(job):
    fixed = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, fixed_epochs=40))
    made = ask(history(), fixed)
    steps = made.estimates["steps"]
    said = steps.value, steps.interval.low, steps.interval.high, steps.upper
    assert said == pytest.approx((fixed.max_steps,) * 4)
    assert made.estimates["epochs"].value == pytest.approx(40)
    assert "gradient_norm" not in made.estimates
    assert 0.0 < made.probability_reached < 1.0


def test_an_unseen_kind_has_no_guarantee_and_a_wider_interval(job):
    apart = [
        dataclasses.replace(
            u,
            shift_type="blur",
            id=f"b{i}",
            curve=dataclasses.replace(u.curve, steps=tuple(3 * s for s in u.curve.steps)),
        )
        for i, u in enumerate(history(6, kinds=("gaussian",)))
    ] + history(6, kinds=("gaussian",))
    known, unknown = ask(apart, job), ask(apart, dataclasses.replace(job, shift_type="fog"))
    width = [math.log(e.interval.high / e.interval.low) for e in (known.estimates["steps"], unknown.estimates["steps"])]
    assert width[1] > width[0]
    assert "jackknife+: at least 60%" in known.estimates["steps"].interval.guarantee
    assert "no guarantee" in unknown.estimates["steps"].interval.guarantee


def test_a_known_kind_has_an_offset_of_its_own(job):
    updates = history(12, spread=0.05)
    slow = [
        dataclasses.replace(u, curve=dataclasses.replace(u.curve, steps=tuple(3 * s for s in u.curve.steps)))
        if u.shift_type == "blur"
        else u
        for u in updates
    ]
    fast, blurred, unknown = (
        ask(slow, dataclasses.replace(job, shift_type=kind)).estimates["steps"].value
        for kind in ("gaussian", "blur", "fog")
    )
    assert fast < unknown < blurred
    assert blurred / fast == pytest.approx(3.0, rel=0.25)


def test_a_censored_update_pushes_the_forecast_up(job):
    ended = history(12, spread=0.1, kinds=("gaussian",), never=(10, 11))
    censored = ask(ended, job, index=0.9)
    as_if_reached = ask(history(12, spread=0.1, kinds=("gaussian",)), job, index=0.9)
    assert censored.estimates["steps"].value > as_if_reached.estimates["steps"].value
    assert "2 of 12 updates ended below the target" in " ".join(censored.notes)


def test_where_many_never_reached_it_the_chance_falls_and_the_recipe_bounds_the_interval(job):
    surely, hardly = ask(history(12), job), ask(history(12, never=range(4, 12)), job)
    assert hardly.probability_reached <= surely.probability_reached
    assert surely.probability_reached > 0.9
    assert hardly.probability_reached < 0.6
    assert hardly.estimates["steps"].interval.high == job.max_steps == 1000
    assert hardly.estimates["gradient_norm"].interval.high == pytest.approx(0.1 * job.max_steps)


def test_the_history_is_read_off_at_the_target_that_is_asked_for(job):
    low = ask(history(), dataclasses.replace(job, target_accuracy=0.75))
    assert low.estimates["steps"].value < 0.8 * ask(history(), job).estimates["steps"].value


def test_updates_that_started_at_the_target_teach_nothing(job):
    idle = [synthetic_update(f"i{i}", index=0.1, steps=0, accuracy=0.95) for i in range(20)]
    assert ask(history() + idle, job).n_history == 12


def test_a_model_at_the_target_needs_no_history(job):
    made = ask([], job, accuracy=0.95)
    assert made.probability_reached == 1.0
    assert {e.value for e in made.estimates.values()} == {0.0}
    assert "nothing to retrain" in made.notes[0]


def test_too_few_updates_are_refused_with_exit_code_4(job):
    with pytest.raises(TooFewUpdatesError, match="4 updates in the ledger .* a forecast needs 5") as refused:
        ask(history(4), job)
    assert refused.value.exit_code == 4


def test_wrong_settings_are_refused(job):
    with pytest.raises(SettingError, match="unknown predictor"):
        ask(history(), job, predictor="mood")
    with pytest.raises(SettingError, match="level"):
        ask(history(), job, level=1.0)
    with pytest.raises(SettingError, match="not known of this update: index"):
        ask(history(), job, index=None, predictor="index")


HAD = "all that this model's own updates by this recipe had"


def test_what_another_recipe_has_seen_this_one_has_not(job):
    """One failed run by another recipe once made any shift ordinary."""
    far = synthetic_update("far", index=1.4, steps=300, reached=False)
    other = dataclasses.replace(far, recipe={**far.recipe, "optimizer": "sgd"})
    assert ask([*history(), other], job, index=1.4).reliability_issues == (f"extrapolated: index above {HAD}",)


def test_outside_the_range_of_the_history_it_says_so(job):
    assert ask(history(), job, index=1.4).reliability_issues == (f"extrapolated: index above {HAD}",)
    assert ask(history(), job, index=0.01).reliability_issues == (f"extrapolated: index below {HAD}",)
    assert ask(history(), job).reliability_issues == ()


def test_a_shift_far_beyond_the_history_is_outside_whatever_decides(job):
    """A log gap that hardly any shift can exceed once hid it, and the index beside the forecast was not looked at."""
    past = [dataclasses.replace(u, features=dataclasses.replace(u.features, index_rad=0.5)) for u in history()]
    asked = {"accuracy": 0.5, "predictor": "accuracy gap"}
    assert ask(past, job, index=1.2, **asked).reliability_issues == (f"extrapolated: index above {HAD}",)
    assert (
        ask(past, job, index=0.504, **asked).reliability_issues
        == ask(past, job, index=0.1, **asked).reliability_issues
        == ()
    )
    elsewhere = [dataclasses.replace(u, features=dataclasses.replace(u.features, layer="other")) for u in past]
    assert ask(elsewhere, job, index=1.2, **asked).reliability_issues == ()
    start = [Features(0.5, 0.2 + 0.04 * place, 1.0) for place in range(len(past))]
    lower = [dataclasses.replace(u, features=features) for u, features in zip(past, start, strict=True)]
    assert ask(lower, job, accuracy=0.06, predictor="accuracy gap").reliability_issues == (
        f"extrapolated: accuracy gap above {HAD}",
    )


def test_what_grows_with_steps_stays_below_no_less_than_its_middle():
    def estimate(value, low, high, upper):
        return Estimate(value, Interval(low, high, 0.8, ""), upper)

    grown = rescale_with_steps(estimate(10, 5, 18.5, 18), estimate(18, 10, 33.5, 33), estimate(34, 17, 34, 34))
    assert grown.interval.low <= grown.value <= grown.upper
    assert grown.value <= grown.interval.high


def test_forecasts_are_settled_by_the_first_update_that_names_them(folder, job):
    ledger, made = Ledger(folder / "resque.db"), ask(history(), job)
    ledger.add(made)
    assert ledger.forecast(made.id[:6]) == made
    assert ledger.settled() == []
    for name in ("first", "second"):
        ledger.add(synthetic_update(name, index=0.5, steps=240, forecast_id=made.id))
    assert [(said.id, update.id) for said, update in ledger.settled()] == [(made.id, "first")]
    with pytest.raises(LedgerError):
        ledger.forecast("nothing")


def settled_updates(job):
    """Three forecasts with their updates: held, missed, and never at its target."""
    updates = history(kinds=("gaussian",), spread=0.05)
    settled = []
    for i, (index, steps, reached) in enumerate([(0.5, 240, True), (0.3, 900, True), (0.7, 400, False)]):
        made = ask(updates, job, index=index)
        settled.append(
            (made, synthetic_update(f"s{i}", index=index, steps=steps, reached=reached, forecast_id=made.id))
        )
    return settled


def test_the_report_shows_error_and_coverage_as_they_came(job, tmp_path):
    settled = settled_updates(job)
    for known, shown in (settled, True), (settled[:2], False):
        write_report(tmp_path / "report.html", [update for _, update in known], known, summarize_settlements(known))
        page = (tmp_path / "report.html").read_text()
        assert ("intervals that held</text>" in page) == shown
        assert "How good were the forecasts?" in page


def test_scores_coverage_and_totals(job):
    settled = settled_updates(job)
    assert [is_covered(*pair, "steps") for pair in settled] == [True, False, True]
    assert is_covered(*settled[0], "carbon_kg") is None
    summary = summarize_settlements(settled)
    assert summary.covered["steps"] == (2, 3)
    assert summary.n == 3
    assert summary.doing_kwh == pytest.approx(1e-6 * 1540)
    said = [made.probability_reached for made, _ in settled]
    brier = ((1 - said[0]) ** 2 + (1 - said[1]) ** 2 + said[2] ** 2) / 3
    assert summary.chances == ProbabilityScore(3, 2, pytest.approx(np.mean(said)), pytest.approx(brier))
    broken_off = [(made, dataclasses.replace(update, stopped_by="max hours")) for made, update in settled]
    assert summarize_settlements(broken_off).chances.n == 2
    scores = {score.predictor: score for score in score_predictors(settled)}
    assert set(scores) == {FORECAST, "index", "accuracy gap", "initial loss", CONSTANT}
    assert scores[FORECAST].n == 2
    said = [pair[0].estimates["steps"].value for pair in settled[:2]]
    factors = [max(a / b, b / a) for a, b in zip(said, (240, 900), strict=True)]
    assert scores[FORECAST].median_factor == pytest.approx(np.median(factors))


def test_the_verdict_compares_on_the_same_updates(job):
    """One update that has no index, and that the forecast missed, must not speak for the index."""
    settled = settled_updates(job)[:2]
    without = dataclasses.replace(settled[1][0], alternatives={"initial loss": 900.0})
    said = settlement_sentence(summarize_settlements([settled[0], (without, settled[1][1])]))
    only = summarize_settlements(settled[:1]).scores
    own, index = (next(each for each in only if each.predictor == name) for name in (FORECAST, "index"))
    assert f"On the 1 that the index could speak of, the forecast was off by {own.median_factor:.1f}, and" in said
    assert f"the RESQUE index alone would have been by {index.median_factor:.1f}." in said


def test_a_forecast_is_not_settled_by_another_update(cnn, job):
    from resque.models.weights import fingerprint

    said = ask(history(), job, parent=fingerprint(cnn))
    check_settles(cnn, job, said)
    with pytest.raises(SettingError, match="made for target accuracy 0.9, not 0.8"):
        check_settles(cnn, dataclasses.replace(job, target_accuracy=0.8), said)
    with pytest.raises(SettingError, match="made for recipe batch_size 32, max_epochs 100, not batch_size 7"):
        check_settles(cnn, dataclasses.replace(job, recipe=Recipe(batch_size=7)), said)
    with pytest.raises(SettingError, match="made for shift_type gaussian, not fog"):
        check_settles(cnn, dataclasses.replace(job, shift_type="fog"), said)
    with pytest.raises(SettingError, match="made for model p"):
        check_settles(cnn, job, dataclasses.replace(said, parent="p"))


def test_repeats_teach_nothing_about_other_shifts(job):
    once = history(8, kinds=("gaussian",))
    twice = [dataclasses.replace(u, id=f"{u.id}-{i}") for u in once for i in range(2)]
    width = [ask(updates, job).estimates["steps"].interval for updates in (once, twice)]
    assert math.log(width[1].high / width[1].low) >= 0.99 * math.log(width[0].high / width[0].low)
    with pytest.raises(TooFewUpdatesError, match="repeats of one"):
        ask([dataclasses.replace(once[0], id=str(i)) for i in range(9)], job)


def test_a_kind_that_nobody_named_is_not_known(job):
    unnamed = history(12, kinds=(None,))
    made = ask(unnamed, dataclasses.replace(job, shift_type=None))
    assert "no guarantee" in made.estimates["steps"].interval.guarantee


def test_updates_that_never_reached_their_target_count_against_the_chance(job):
    made = ask(history(10, kinds=("gaussian",), never=range(3, 10)), job)
    assert made.probability_reached <= 4 / 12
    with pytest.raises(TooFewUpdatesError, match="1 of 8 updates in the ledger ever reached"):
        ask(history(8, never=range(1, 8)), job)


def test_a_predictor_that_cannot_speak_is_left_out(job):
    silent = [dataclasses.replace(u, features=dataclasses.replace(u.features, loss=None)) for u in history()]
    assert "initial loss" not in ask(silent, job).alternatives


def test_history_by_another_recipe_is_told_and_decides_nothing(job):
    faster = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, learning_rate=1e6))
    made = ask(history(), faster)
    assert any("12 of 12 updates in the ledger used another" in note for note in made.notes)
    assert made.reliability_issues == ("0 own updates of this model and recipe; 5 are needed",)
    assert "by this recipe" in made.estimates["steps"].interval.guarantee
    near, far = (said.estimates["steps"].interval for said in (ask(history(), job), made))
    assert far.high / far.low > 2 * near.high / near.low


def test_a_model_of_another_name_is_the_same_model(job):
    renamed = [dataclasses.replace(update, model="weights-of-may.safetensors") for update in history()]
    assert ask(renamed, job, model_name="model.safetensors").reliability_issues == ()


def test_an_index_of_the_models_own_labels_is_another_quantity(job):
    """By pseudo-labels it is smaller, and what true labels taught would be read at the wrong place."""
    features = Features(0.5, 0.6, 1.0, labels="pseudo")
    given = {"step_cost": STEP_COST, "overhead": READING, "parent": "p"}
    made = forecast_from_features(history(), job, features, **given)
    assert "index" not in made.predictor.split(", ")
    assert "index" not in made.alternatives


def test_a_run_ends_where_it_is_looked_at(job):
    """Looked at once an epoch of ten steps, none ends after four."""
    quick = history(kinds=("gaussian",))
    made = ask(quick, job, index=0.06)
    assert {made.estimates["steps"].value % 10, made.estimates["steps"].interval.low % 10} == {0}
    assert made.estimates["steps"].value >= 10
    often = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate_every=1))
    assert ask(quick, often, index=0.06).estimates["steps"].value < 10


def test_history_that_was_looked_at_as_seldom_forecasts_no_look_too_late(job):
    """All were seen to arrive at the first look, and not before: so will the next."""
    once = [
        dataclasses.replace(
            u,
            cost=dataclasses.replace(u.cost, steps=10, epochs=1.0),
            curve=LearningCurve((0, 10), (0.5, 0.9), *[(0.0, 1.0)] * 5, 10),
        )
        for u in history(kinds=("gaussian",))
    ]
    for index in (0.3, 0.5, 0.8):
        assert ask(once, job, index=index).estimates["steps"].value == 10


def test_what_grows_with_steps_grows_until_the_look(job):
    past = history(kinds=("gaussian",), spread=0.0)
    often = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate_every=1))
    exact, coarse = (ask(past, each, index=0.06).estimates for each in (often, job))
    grown = coarse["steps"].value / exact["steps"].value
    assert grown > 2
    for cost in ("gradient_norm", "parameter_change"):
        assert coarse[cost].value == pytest.approx(grown * exact[cost].value, rel=0.5)


def test_a_free_grid_costs_nothing(job):
    apart = [
        dataclasses.replace(u, cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s * (1 + i % 2)))
        for i, u in enumerate(history())
    ]
    clean = ask(apart, job, grid=Grid("TST", 0.0, "test")).estimates["carbon_kg"]
    assert (clean.value, clean.interval.low, clean.interval.high, clean.upper) == (0.0, 0.0, 0.0, 0.0)


def test_an_end_stays_on_its_side_whatever_the_level():
    cost = Estimate(100.0, Interval(80.0, 300.0, 0.4, ""), 250.0)
    found = widen_by_step_time(cost, StepTimeSpread(0.3, 10))
    assert found.interval.low < 80.0 < 300.0 < found.interval.high
    assert found.upper > 250.0


def test_what_a_step_takes_is_as_uncertain_as_it_was_between_runs(job):
    same = history(kinds=("gaussian",))
    apart = [
        dataclasses.replace(u, cost=dataclasses.replace(u.cost, wall_s=u.cost.wall_s * (2.0 if i % 2 else 0.5)))
        for i, u in enumerate(same)
    ]
    assert step_time_spread(apart[:4]) is None
    pace = step_time_spread(apart)
    assert pace.deviation == pytest.approx(math.sqrt(2 * 12 / 11) * math.log(2.0))
    one, other = (ask(past, job).estimates for past in (same, apart))
    assert one["steps"] == other["steps"]
    assert "×1.05" in one["wall_s"].interval.guarantee
    for cost in ("wall_s", "energy_kwh", "carbon_kg"):
        assert other[cost].value == one[cost].value
        assert other[cost].interval.low < 0.7 * one[cost].interval.low
        assert other[cost].interval.high > 1.3 * one[cost].interval.high
        assert other[cost].upper > 1.1 * one[cost].upper
    unknown = [dataclasses.replace(u, host={}) for u in apart]
    assert "if a step costs what the probe saw" in ask(unknown, job).estimates["wall_s"].interval.guarantee


def test_to_be_surer_takes_more_different_updates(job):
    assert ask(history(12), job, level=0.9).reliability_issues == ()
    assert ask(history(12), job, level=0.95).reliability_issues == (
        "to be 95% sure takes 19 different own updates, and there are 12",
    )


def test_energy_that_rests_on_the_probe_is_not_judged(job):
    made = ask(history(kinds=("gaussian",)), job)
    update = synthetic_update("s", index=0.5, steps=240, forecast_id=made.id)
    probed = dataclasses.replace(update, energy=dataclasses.replace(update.energy, energy_kwh=None))
    assert is_covered(made, update, "energy_kwh") is not None
    assert is_covered(made, probed, "energy_kwh") is None


def test_updates_that_stopped_at_a_lower_target_of_their_own_say_nothing_of_the_chance(job):
    lower = [dataclasses.replace(u, id=f"l{u.id}", target_accuracy=0.8) for u in history(6, kinds=("gaussian",))]
    lower = [
        dataclasses.replace(u, curve=dataclasses.replace(u.curve, accuracy=(0.5, 0.6, 0.7, 0.75, 0.8))) for u in lower
    ]
    without, with_lower = (ask(history(8, kinds=("gaussian",)) + more, job) for more in ([], lower))
    assert with_lower.probability_reached == pytest.approx(without.probability_reached, abs=0.05)
    assert with_lower.n_history == 14


def test_an_index_of_another_layer_is_another_quantity(job):
    elsewhere = [
        dataclasses.replace(u, features=dataclasses.replace(u.features, layer="penultimate")) for u in history()
    ]
    with pytest.raises(TooFewUpdatesError, match="0 updates in the ledger"):
        ask(elsewhere, job, predictor="index")
    assert ask(elsewhere, job).predictor == "accuracy gap"


def test_history_of_another_model_is_told_and_promises_nothing(job):
    made = ask(history(), job, parent="another")
    assert "12 of 12 updates in the ledger are of another model" in made.notes
    assert "no guarantee" in made.estimates["steps"].interval.guarantee


def test_carbon_of_another_grid_is_not_judged(job):
    made = ask(history(kinds=("gaussian",)), job)
    update = synthetic_update("s", index=0.5, steps=240, forecast_id=made.id)
    priced = dataclasses.replace(update, grid=GRID, cost=dataclasses.replace(update.cost, carbon_kg=1.2e-4))
    assert is_covered(made, priced, "carbon_kg") is not None
    for other in (Grid("OTH", 5.0, "test"), dataclasses.replace(GRID, pue=1.2)):
        assert is_covered(made, dataclasses.replace(priced, grid=other), "carbon_kg") is None
