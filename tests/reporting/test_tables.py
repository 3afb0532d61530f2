"""What the terminal shows: no line over 80 columns, the numbers of the records, warnings on stderr."""

import dataclasses
import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from doubles import settled_pairs, synthetic_forecast, synthetic_update
from resque._format import format_cost
from resque.data.loading import load_data
from resque.energy.grid import Grid
from resque.energy.hardware import CPU_EMISSIONS
from resque.energy.price import Spending, Tariff
from resque.energy.reading import EnergyReading
from resque.forecasting.budget import Budget, decide
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.forecasting.pilot import forecast_after_pilot
from resque.forecasting.reliability import small_test_notes
from resque.indices.results import DistributionIndex, Sampling, TaskIndex, TaskIndexOverhead
from resque.ledger.records import Estimate, Features, MissingLabels, Pilot, Question, Void
from resque.models.networks import small_cnn
from resque.reporting import calibration, console, tables
from resque.reporting.carbon_intensity import software_carbon_intensity
from resque.reporting.decisions import still_open
from resque.training.from_scratch import ScratchComparison
from resque.training.job import RetrainingJob
from resque.training.new_task import forgetting_risk
from resque.types import Interval
from resque.workflows.calibration_outcome import run_outcome


@pytest.fixture
def shown(capsys, monkeypatch):
    """``shown(function, …) -> stdout, stderr`` at 80 columns, with line breaks as spaces."""
    monkeypatch.setattr(console.out, "width", 80)

    def call(function, *values):
        function(*values)
        out, err = capsys.readouterr()
        assert max(map(len, out.splitlines())) <= 80
        return " ".join(out.split()), err

    return call


@pytest.fixture
def pair():
    return settled_pairs(1)[0]


def test_a_forecast_shows_costs_basis_overhead_and_embodied_emissions(shown, pair):
    forecast = dataclasses.replace(
        pair[0], notes=("a note",), reliability_issues=("too few updates",), n_bundled=147, n_history=1
    )
    price = Estimate(2.0, Interval(1.0, 3.0, 0.8, ""), None)
    forecast = dataclasses.replace(forecast, price=price, tariff=Tariff(per_hour=2.0))
    out, err = shown(tables.show_forecast, forecast, CPU_EMISSIONS, True)
    assert out.startswith("Retrain all layers: about 0.6 s, 0.06 Wh, 2 EUR, 90% likely to reach 0.9.")
    assert "steps 60 25–100 100" in out
    assert "price, EUR 2 1–3 –" in out
    assert "not reliable enough for a decision: - too few updates" in out
    assert "based on 1 update (blur) and 147 bundled updates; predictors: index" in out
    assert "steps forecast by RESQUE_dist alone: 100" in out
    assert "RESQUE_dist 0.1000 rad (noise floor unknown" in out
    assert "the forecast took 1 s, 0.001 Wh (cpu measured; replay)" in out
    assert "embodied emissions for this time, not included:" in out
    assert err == "note: a note\n"


def test_notes_of_lesser_weight_and_what_it_rests_on_wait_for_details(shown, pair):
    lesser = "9 of 12 updates in the ledger used another optimizer", "learned from 100 of 120 updates"
    forecast = dataclasses.replace(
        pair[0], notes=("the model is at the target", *lesser), reliability_issues=("too few updates",)
    )
    out, err = shown(tables.show_forecast, forecast)
    assert err == "note: the model is at the target\n"
    assert "- too few updates" in out  # a reason for exit code 4 is always there
    assert "predictors" not in out
    out, err = shown(tables.show_forecast, forecast, None, True)
    assert err.count("note: ") == 3
    assert "predictors: index" in out


def test_what_needs_care_is_a_warning_and_the_rest_a_note(shown, pair):
    """Each text is from the function that makes it."""
    forecast, data = dataclasses.replace(pair[0], target_accuracy=0.99), load_data("digits@16px@200")
    job = RetrainingJob(*2 * [dataclasses.replace(data, labels=data.labels + 10)], 0.5)
    pilot = Pilot(5, 0, "", pair[1].curve, pair[1].energy, 1.0)
    ended = dataclasses.replace(pilot, stopped_by="target")
    careful = forgetting_risk(small_cnn(), job), *small_test_notes(Features(None, 0.5, 1.0), job, 0.8)
    after = [forecast_after_pilot(forecast, each, None, job, []) for each in (pilot, ended)]
    careful = *careful, after[0].notes[-1]
    index = Sampling("0.03", 0, 30, 200, 2, 0.1, 0.5)
    plain = after[1].notes[-1], f"index {index.sentence}", "the model is already at the target"
    _, err = shown(tables.show_forecast, dataclasses.replace(forecast, notes=(*careful, *plain)), None, True)
    assert err == "".join([*(f"warning: {text}\n" for text in careful), *(f"note: {text}\n" for text in plain)])


@pytest.mark.parametrize("best", [0.7449, 0.74996, 0.75, 0.7551, 0.7549])
@pytest.mark.parametrize("targets", [(0.75, 0.75), (0.7, 0.755)])
def test_a_calibration_run_shows_the_accuracy_that_decides(capsys, monkeypatch, best, targets):
    monkeypatch.setattr(console.out, "width", 120)
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=9, target=best, accuracy=0.6), host={})
    outcome = run_outcome(update, targets, test_samples=10_000)
    runs = SimpleNamespace(updates=[update], ended="the number of runs is reached")
    plan = SimpleNamespace(request=SimpleNamespace(targets=targets), like=None)
    calibration.show_result(plan, SimpleNamespace(runs=runs, outcomes=[outcome], readiness=None), {})
    out = capsys.readouterr().out
    end = float(re.search(r"0\.600→(0\.\d+)", out)[1])
    assert [end >= target for target in targets] == [best >= target for target in targets]
    reached = re.search(r"reached (0\.\d+) ", out)
    assert (reached is None) == (best < targets[0])
    assert reached is None or float(reached[1]) <= end


@pytest.mark.parametrize("missing", [(0, 0), (300, 0), (0, 1200), (300, 1200)])
@pytest.mark.parametrize("price", [None, 0.0, 75.0])
def test_a_forecast_without_labels_says_what_is_estimated_and_what_labels_cost(shown, pair, missing, price):
    known, labels = pair[0].features, MissingLabels(*missing)
    estimated = dataclasses.replace(
        known, loss=None, accuracy_method="estimated without labels: mean confidence", accuracy_error_logit=1.0
    )
    forecast = dataclasses.replace(pair[0], features=estimated if labels.test else known, missing_labels=labels)
    per_label = None if price is None else price / max(labels.total, 1)
    out, _ = shown(tables.show_forecast, dataclasses.replace(forecast, tariff=Tariff(per_label=per_label)), None, True)
    assert ("(estimated without labels: mean confidence; ± 1.00 on the logit scale)" in out) is (labels.test > 0)
    assert ("labels missing: none" in out) is (price is not None and not labels.total)
    expected = f"{labels.train:,} of training data, {labels.test:,} of test data"
    assert (expected in out) is (labels.total > 0)
    assert ("price of labels" in out) is (price is not None)
    if price is not None:
        paid = price if labels.total else 0.0
        assert f"price of labels, EUR {paid:g} – {paid:g}" in out


def test_a_forecast_of_a_new_task_shows_its_index_and_no_median_for_fixed_epochs(shown, pair):
    features = Features(None, None, None, task_index=0.25, scores={"warm-up accuracy": 0.9})
    forecast = dataclasses.replace(pair[0], features=features, recipe={"fixed_epochs": 3}, alternatives={})
    out, _ = shown(tables.show_forecast, forecast, None, True)
    assert "RESQUE_task 0.2500 (0 is best, 1 is chance level); test accuracy after the warm-up 0.900" in out
    assert "median over runs" not in out
    assert "based on" not in out
    unknown = dataclasses.replace(forecast, features=dataclasses.replace(features, scores={}))
    assert "warm-up" not in shown(tables.show_forecast, unknown, None, True)[0]


def test_a_decision_shows_bound_and_budget(shown, pair):
    out, _ = shown(tables.show_decision, decide(pair[0], Budget(max_epochs=1.0)))
    assert out.startswith("Budget decision: beyond budget cost upper bound budget ")
    assert "epochs 10 epochs 1 epochs" in out


def test_an_update_shows_costs_energy_carbon_and_how_it_ran(shown, pair):
    curve = dataclasses.replace(pair[1].curve, accuracy=(0.5, 0.6, 0.99, 0.9, 0.9))
    update = dataclasses.replace(
        pair[1], tariff=Tariff(per_hour=2.0), resumed=2, trainable_share=0.01, curve=curve, angle_to_parent_rad=0.1,
        energy=dataclasses.replace(pair[1].energy, note="short run"),
    )  # fmt: skip
    out, err = shown(tables.show_update, update, software_carbon_intensity(update))
    for text in (
        "steps 50", "price, evaluation and asking included", "evaluation and in-run forecasts (excluded) 1 s",
        "accuracy on the original data 0.990 → 0.900", "CO2e per update, ", "× PUE 1.5 × I 400 g/kWh",
        "best accuracy during the run: 0.9900", "1 % of the parameters were trained",
        "interrupted and resumed: 2 times", "angle of its profile from the parent's 0.1000 rad",
    ):  # fmt: skip
        assert text in out
    assert err == "warning: short run\n"
    root = dataclasses.replace(update, angle_to_root_rad=0.2)
    assert "from the root model's 0.2000 rad" in shown(tables.show_update, root)[0]


def test_settled_updates_show_errors_and_a_single_one_its_in_run_forecasts(shown):
    pairs = settled_pairs()
    out, _ = shown(tables.show_settled, pairs)
    assert "steps 60 25–100 50 +20% yes" in out
    assert "steps 120 50–200 100+ – yes" in out
    assert "the forecast took 1 s and 0.001 Wh (cpu measured; replay)" in out
    assert "+ target not reached: the cost of reaching it is higher" in out
    assert "In-run" not in out
    assert "In-run forecast updates" in shown(tables.show_settled, pairs[:1])[0]
    out, _ = shown(tables.show_settlement, summarize_settlements(pairs))
    assert "steps 3 1.20 20% 100% 4 of 4 60% to 100%" in out
    assert "90% on average, reached 3 of 4" in out
    assert "forecast 3 1.20 20% 100%" in out


def test_a_comparison_shows_ratios_and_why_runs_stopped(shown):
    fast, slow, never = (
        synthetic_update(name, index=0.1, steps=steps, reached=reached)
        for name, steps, reached in (("a", 100, True), ("b", 400, True), ("c", 400, False))
    )
    out, _ = shown(tables.show_comparison, ScratchComparison((fast,), (slow,)))
    assert "steps 100 400 0.25 0.25–0.25, n = 1" in out
    assert "retrained: target reached in 1 of 1 runs; best accuracy 0.9000" in out
    out, _ = shown(tables.show_comparison, ScratchComparison((never,), (never,)))
    assert "target reached in 0 of 1 runs (the others stopped by tolerance 0.01)" in out
    assert "no ratios: in both arms a run missed the target" in out


def test_the_ledger_lists_updates_and_pending_forecasts(shown):
    pairs = settled_pairs(2)
    updates = [update for _, update in pairs]
    counts = {"updates": 2, "forecasts": 2, "settled": 1}
    out, _ = shown(tables.show_ledger, updates, [pairs[1][0]], [], counts)
    assert out.startswith("2 updates")
    assert "0.50→0.85*" in out
    assert "2 forecasts: 1 settled, 1 pending" in out
    assert "f-u1 d+<type 1>:u1 all .9 120 50–200" in out
    counts = dict.fromkeys(counts, 0)
    assert shown(tables.show_ledger, [], [], [], counts)[0] == "0 updates 0 forecasts: 0 settled, 0 pending"
    asked = [Question(each, "", "net", "m1", "d", 0.9, Spending(30.0, None)) for each in "ab"]
    assert "2 questions without a forecast, 1 min" in shown(tables.show_ledger, [], [], [], counts, asked)[0]
    tombstone = Void("abc", "update", "wrong test data", "2026-01-02T03:04:05Z")
    out, _ = shown(tables.show_ledger, updates[:1], [], [tombstone], {"updates": 1234, "forecasts": 0, "settled": 0})
    assert out.startswith("1,234 updates")
    assert "the newest 1 of 1,234; more: --last 1234" in out
    assert "abc update 2026-01-02 wrong test data" in out


@pytest.mark.parametrize(
    ("rates", "expected"),
    [((1e-4, 1e-3), ["all 1e-4", "all 1e-3"]), ((1e-3, 1e-3), None), ((None, 1e-3), ["all", "all 1e-3"])],
)
def test_the_ledger_tells_updates_apart_by_their_learning_rate(shown, rates, expected):
    updates = [synthetic_update(name, index=0.1, steps=100) for name in ("a", "b")]
    updates = [
        dataclasses.replace(each, recipe={**each.recipe, "learning_rate": rate})
        for each, rate in zip(updates, rates, strict=True)
    ]
    out, _ = shown(tables.show_ledger, updates, [], [], {"updates": 2, "forecasts": 0, "settled": 0})
    assert all(part in out for part in expected or ())
    assert ("trained" in out) == (expected is not None)


def test_an_index_shows_its_interval_and_every_class(shown):
    index = DistributionIndex(
        0.5, "rad", dict.fromkeys(range(100), 0.5), "flatten", "fc", "true", 10, 20,
        Interval(0.4, 0.6, 0.9, "jackknife"), debiased=True,
    )  # fmt: skip
    out, _ = shown(tables.show_index, index)
    assert "99 0.5000" in out
    assert "interval: jackknife" in out
    assert "debiased from 2 sub-sums" in out
    assert "confidence interval: unknown" in shown(tables.show_index, dataclasses.replace(index, interval=None))[0]


def test_a_task_index_shows_its_overhead_and_agreement(shown):
    reading = EnergyReading(3.0, 1e-6, {"cpu": 1e-6}, {"cpu": "measured"}, "replay")
    overhead = TaskIndexOverhead("new", 5, {}, 10, 0.5, 0.9, 1.0, 1.5, 0.5, reading, 4e-7)
    index = TaskIndex(0.25, "1 - ARI", "all", True, "flatten", 100, 5, "fc", overhead=overhead)
    out, _ = shown(tables.show_task, index, Grid("TST", 400.0, "a table"))
    assert "warm-up: new head with 5 outputs, 10 steps (0.5 epochs), training accuracy 0.900" in out
    assert "overhead: 3 s (warm-up 1 s, pass 1.5 s, clustering 0.5 s), 0.001 Wh" in out
    assert "carbon: 0.0004 g; grid TST" in out
    every = dataclasses.replace(
        index, overhead=None, keep="sizes", by_init={"random": 0.3}, agreement={"random, class-means": 0.9}
    )
    out, _ = shown(tables.show_task, every, None)
    assert "random: the clustering with the least entropy of sizes" in out
    assert "random, class-means 0.9000" in out


def test_facts_are_names_and_values(shown):
    out, _ = shown(tables.show_facts, {"devices": ["cpu", "cuda"], "energy": {"cpu": "measured"}, "n": 5})
    assert out == "devices cpu, cuda energy cpu measured n 5"


def test_a_progress_bar_shows_elapsed_and_remaining_time(monkeypatch):
    page = io.StringIO()
    monkeypatch.setattr(console, "err", Console(force_terminal=True, width=120, file=page))
    with console.progress("training") as report:
        report(1, 4, "accuracy 0.5")
    for text in ("training", "elapsed", "remaining", "1/4", "accuracy 0.5"):
        assert text in page.getvalue()


def test_a_run_too_short_for_the_meter_has_the_energy_that_its_carbon_intensity_counts(shown):
    """One figure in both sentences: the power of the training steps times the time of the whole run."""
    update = synthetic_update("u", index=0.5, steps=100)
    short = dataclasses.replace(update.energy, energy_kwh=None, components_kwh={}, methods={}, note="too short")
    update = dataclasses.replace(update, energy=short, grid=Grid("FRA", 56.0, "test"))
    out, _ = shown(tables.show_update, update, software_carbon_intensity(update))
    assert update.whole_energy_kwh == pytest.approx(update.cost.energy_kwh * short.wall_s / update.cost.wall_s)
    kwh = format_cost("energy_kwh", update.whole_energy_kwh)
    assert f"evaluation included: {kwh} (modeled, the power of its training steps;" in " ".join(out.split())
    assert f"E {kwh}" in " ".join(out.split())
    unknown = dataclasses.replace(update, cost=dataclasses.replace(update.cost, energy_kwh=None))
    assert "evaluation included: – (too short;" in " ".join(shown(tables.show_update, unknown)[0].split())


@pytest.mark.parametrize(("target", "is_open"), [(0.5, False), (0.9, False), (0.95, True)])
@pytest.mark.parametrize("is_later", [False, True])
def test_update_answers_questions_of_its_target_and_of_lower_ones(target, is_open, is_later):
    """Before it, and after it of the model that it started from."""
    done = dataclasses.replace(
        synthetic_update("u", index=0.3, steps=100), model="m", test_data="t", parent="p", created_utc="2026-01-02"
    )
    created = "2026-01-03" if is_later else "2026-01-01"
    asked = dataclasses.replace(synthetic_forecast(done), target_accuracy=target, created_utc=created)
    assert still_open([asked], [done]) == ([asked] if is_open else [])
    other = dataclasses.replace(asked, train_data="others")
    assert still_open([other], [done]) == [other]
