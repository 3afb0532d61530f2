"""Settled forecasts: errors, coverage and the comparison of predictors."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from doubles import synthetic_forecast, synthetic_update
from power_law import GRID, forecast_for, history
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.errors import LedgerError, SettingError
from resque.forecasting.evaluation.matching import check_settles
from resque.forecasting.evaluation.settlement import (
    BUSY,
    FORECAST,
    IDLE,
    PRICE,
    ProbabilityScore,
    comparable_estimate,
    is_covered,
    score_predictors,
    summarize_settlements,
)
from resque.forecasting.forecaster import CONSTANT
from resque.ledger.records import Estimate
from resque.ledger.store import Ledger
from resque.reporting.displays import settled_display
from resque.reporting.html import write_report
from resque.reporting.sentences import settlement_sentence
from resque.training.recipe import Recipe
from resque.types import Interval


def test_forecast_is_settled_by_the_first_update_that_names_it(folder, job):
    ledger, forecast = Ledger(folder / "resque.db"), forecast_for(history(), job)
    ledger.add(forecast)
    assert ledger.forecast(forecast.id[:6]) == forecast
    assert ledger.settled() == []
    for name in ("first", "second"):
        ledger.add(synthetic_update(name, index=0.5, steps=240, forecast_id=forecast.id))
    assert [(forecast.id, update.id) for forecast, update in ledger.settled()] == [(forecast.id, "first")]
    with pytest.raises(LedgerError):
        ledger.forecast("nothing")


def settled_updates(job):
    """Return three forecasts with their updates: covered, not covered, and right-censored."""
    updates = history(types=("gaussian",), spread=0.05)
    settled = []
    for i, (index, steps, reached) in enumerate([(0.5, 240, True), (0.3, 900, True), (0.7, 400, False)]):
        forecast = forecast_for(updates, job, index=index)
        settled.append(
            (forecast, synthetic_update(f"s{i}", index=index, steps=steps, reached=reached, forecast_id=forecast.id))
        )
    return settled


@pytest.mark.parametrize("processes", [1, 2, 8])
def test_of_an_update_in_several_processes_only_what_they_do_not_change_is_compared(job, processes):
    pairs = [(forecast, dataclasses.replace(update, processes=processes)) for forecast, update in settled_updates(job)]
    alone, found = (summarize_settlements(each) for each in (settled_updates(job), pairs))
    timed = "wall_s", "energy_kwh", "carbon_kg"
    for one, several in zip(alone.accuracy, found.accuracy, strict=True):
        if several.cost in timed and processes > 1:
            assert (several.n, several.intervals, several.median_error) == (0, 0, None)
        else:
            assert several == one
    shown = settled_display(*pairs[0]).to_text(400)
    assert (f"the forecast was for one process, the update ran in {processes}" in shown) == (processes > 1)


def test_report_shows_errors_and_coverage(job, tmp_path):
    settled = settled_updates(job)
    for known, shown in (settled, True), (settled[:2], False):
        write_report(tmp_path / "report.html", [update for _, update in known], known, summarize_settlements(known))
        page = (tmp_path / "report.html").read_text()
        assert ("coverage of the intervals</text>" in page) == shown
        assert "How good past forecasts were" in page


def test_summary_holds_coverage_totals_and_scores(job):
    settled = settled_updates(job)
    assert [is_covered(*pair, "steps") for pair in settled] == [True, False, True]
    assert is_covered(*settled[0], "carbon_kg") is None
    summary = summarize_settlements(settled)
    assert summary.covered["steps"] == (2, 3)
    assert summary.n == 3
    assert summary.training_kwh == pytest.approx(1e-6 * 1540)
    probability = [forecast.probability_reached for forecast, _ in settled]
    brier = ((1 - probability[0]) ** 2 + (1 - probability[1]) ** 2 + probability[2] ** 2) / 3
    assert summary.probability_score == ProbabilityScore(
        3, 2, pytest.approx(np.mean(probability)), pytest.approx(brier), pytest.approx(2 / 9)
    )
    broken_off = [(forecast, dataclasses.replace(update, stopped_by="max hours")) for forecast, update in settled]
    assert summarize_settlements(broken_off).probability_score.n == 2
    scores = {score.predictor: score for score in score_predictors(settled)}
    assert set(scores) == {FORECAST, "index", "accuracy gap", "initial loss", CONSTANT}
    assert scores[FORECAST].n == 2
    steps = [pair[0].estimates["steps"].value for pair in settled[:2]]
    factors = [max(a / b, b / a) for a, b in zip(steps, (240, 900), strict=True)]
    assert scores[FORECAST].median_factor == pytest.approx(np.median(factors))


@pytest.mark.parametrize("seed", range(3))
def test_time_and_energy_are_judged_as_steps_are(job, seed):
    """Known factors between forecast and measured cost, on machines with and without other work."""
    random = np.random.default_rng(seed)
    forecast, pairs, logs = forecast_for(history(types=("gaussian",)), job), [], {}
    loads = random.permutation([None, 0.0, 0.05, 0.0999, 0.1, 0.5, 1.0, 0.02])
    costs = ("steps", "wall_s", "energy_kwh")
    for n, load in enumerate(loads):
        given = dataclasses.replace(forecast, step_cost=dataclasses.replace(forecast.step_cost, others_busy_share=load))
        factors = dict(zip(costs, np.exp(random.normal(size=3)), strict=True))
        values = {cost: forecast.estimates[cost].value * factor for cost, factor in factors.items()}
        values["steps"] = max(1, round(values["steps"]))
        update = synthetic_update(f"s{n}", index=0.5, steps=values["steps"], forecast_id=forecast.id)
        pairs.append((given, dataclasses.replace(update, cost=dataclasses.replace(update.cost, **values))))
        for cost in costs:
            logs.setdefault(cost, []).append(math.log(forecast.estimates[cost].value / values[cost]))
    summary = summarize_settlements(pairs)
    groups = {"": [True] * 8, IDLE: [x is not None and x < 0.1 for x in loads]}
    groups[BUSY] = [x is not None and x >= 0.1 for x in loads]
    for found in summary.accuracy:
        if found.cost not in costs:
            continue
        errors = np.array(logs[found.cost])[np.array(groups[found.load])]
        assert found.n == found.intervals == len(errors)
        assert found.median_factor == pytest.approx(np.exp(np.median(abs(errors))))
        assert found.median_error == pytest.approx(np.median(abs(np.expm1(errors))))
        assert found.within_factor_2 == np.mean(abs(errors) <= math.log(2))
        wilson = stats.binomtest(found.covered, found.intervals).proportion_ci(0.9, method="wilson")
        assert (found.coverage_interval.low, found.coverage_interval.high) == pytest.approx(tuple(wilson), abs=1e-6)
    by_load = {(each.cost, each.load) for each in summary.accuracy if each.load}
    assert by_load == {(cost, load) for cost in costs[1:] for load in (IDLE, BUSY)}
    assert str(summary).count("busy machine") == 2


def test_forecasts_of_unknown_load_are_in_neither_group(job):
    summary = summarize_settlements(settled_updates(job))
    assert {each.load for each in summary.accuracy} == {""}
    assert "machine" not in str(summary)


def test_sentence_compares_on_the_same_updates(job):
    """An update without an index, on which the forecast failed, must not favor the index."""
    settled = settled_updates(job)[:2]
    without = dataclasses.replace(settled[1][0], alternatives={"initial loss": 900.0})
    sentence = settlement_sentence(summarize_settlements([settled[0], (without, settled[1][1])]))
    only = summarize_settlements(settled[:1]).scores
    own, index = (next(each for each in only if each.predictor == name) for name in (FORECAST, "index"))
    assert (
        f"On the 1 update with an index, the median error of the forecast is a factor of {own.median_factor:.1f};"
        in sentence
    )
    assert f"of the RESQUE index alone, {index.median_factor:.1f}." in sentence


def test_forecast_is_not_settled_by_another_update(cnn, job):
    from resque.models.weights import fingerprint

    forecast = forecast_for(history(), job, parent=fingerprint(cnn))
    check_settles(cnn, job, forecast)
    with pytest.raises(SettingError, match="made for target accuracy 0.9, not 0.8"):
        check_settles(cnn, dataclasses.replace(job, target_accuracy=0.8), forecast)
    with pytest.raises(SettingError, match="made for recipe batch_size 32, max_epochs 100, not batch_size 7"):
        check_settles(cnn, dataclasses.replace(job, recipe=Recipe(batch_size=7)), forecast)
    with pytest.raises(SettingError, match="made for shift type gaussian, not fog"):
        check_settles(cnn, dataclasses.replace(job, shift_type="fog"), forecast)
    with pytest.raises(SettingError, match="made for model p"):
        check_settles(cnn, job, dataclasses.replace(forecast, parent="p"))


def test_energy_from_the_probe_is_not_compared(job):
    forecast = forecast_for(history(types=("gaussian",)), job)
    update = synthetic_update("s", index=0.5, steps=240, forecast_id=forecast.id)
    probed = dataclasses.replace(update, energy=dataclasses.replace(update.energy, energy_kwh=None))
    assert is_covered(forecast, update, "energy_kwh") is not None
    assert is_covered(forecast, probed, "energy_kwh") is None


def test_carbon_of_another_grid_is_not_compared(job):
    forecast = forecast_for(history(types=("gaussian",)), job)
    update = synthetic_update("s", index=0.5, steps=240, forecast_id=forecast.id)
    priced = dataclasses.replace(update, grid=GRID, cost=dataclasses.replace(update.cost, carbon_kg=1.2e-4))
    assert is_covered(forecast, priced, "carbon_kg") is not None
    for other in (Grid("OTH", 5.0, "test"), dataclasses.replace(GRID, pue=1.2)):
        assert is_covered(forecast, dataclasses.replace(priced, grid=other), "carbon_kg") is None


@pytest.mark.parametrize("cost", ["steps", "wall_s", "energy_kwh", PRICE])
@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-12, 1.7])
def test_a_cost_that_had_been_measured_is_no_evidence_of_coverage(cost, factor):
    """Whatever measuring it again gives: nothing was forecast."""
    update = dataclasses.replace(synthetic_update("a", index=0.5, steps=100), tariff=Tariff(per_hour=1.0))
    forecast = synthetic_forecast(update, 1.0)
    known = {
        name: Estimate(each.value * factor, Interval(each.value * factor, each.value * factor, 0.8, "measured: by a"))
        for name, each in forecast.estimates.items()
    }
    features = dataclasses.replace(forecast.features, evaluation_s=1.0)
    before = dataclasses.replace(forecast, estimates=known, features=features)
    assert comparable_estimate(before, update, cost) is not None
    assert is_covered(before, update, cost) is None
    assert summarize_settlements([(before, update)]).covered[cost] == (0, 0)
    shown = {row[0]: row[-1] for row in settled_display(before, update).rows}
    assert {*shown.values()} == {"–"}


@given(st.floats(1e-9, 1e9), st.floats(-4e-16, 4e-16), st.booleans())
def test_an_interval_covers_a_cost_that_equals_its_end_up_to_rounding(value, rounding, is_low):
    update = synthetic_update("a", index=0.5, steps=100)
    update = dataclasses.replace(update, cost=dataclasses.replace(update.cost, wall_s=value * (1.0 + rounding)))
    forecast = synthetic_forecast(update)
    ends = (value, 2 * value) if is_low else (value / 2, value)
    estimates = {**forecast.estimates, "wall_s": Estimate(value, Interval(*ends, 0.8, "jackknife+"))}
    assert is_covered(dataclasses.replace(forecast, estimates=estimates), update, "wall_s")
