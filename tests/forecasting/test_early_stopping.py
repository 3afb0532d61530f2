"""A budget ends a run that will exceed it or not reach its target, and what such runs do to later forecasts."""

import dataclasses
import functools
import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from doubles import ended_early, settled_pairs, synthetic_forecast, synthetic_update
from power_law import forecast_for, power_law, runs
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.errors import SettingError
from resque.forecasting.budget import Budget, check_measurable, stop_reason
from resque.forecasting.curve_history import CurveHistory
from resque.forecasting.early_stopping import BudgetStop, stop_in_hindsight
from resque.forecasting.evaluation.cross_validation import cross_validate
from resque.forecasting.evaluation.settlement import is_covered, summarize_settlements
from resque.forecasting.history import ForecastQuery, steps_or_lower_bound
from resque.forecasting.landmarking import revise_forecast
from resque.forecasting.learning_curves import CurvePrediction
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, ForecastRevision, LearningCurve, StepCost
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.types import Interval

MAX_STEPS = 1000
REASONS = {"max_kwh": "kWh", "max_kg": "kg CO2e", "max_hours": "hours", "max_epochs": "epochs", "max_price": "price"}
COSTS = {"max_kwh": "energy_kwh", "max_kg": "carbon_kg", "max_hours": "wall_s", "max_epochs": "epochs",
         "max_price": "price"}  # fmt: skip
PER_STEP = {"energy_kwh": 1e-3, "carbon_kg": 5e-4, "wall_s": 36.0, "epochs": 0.1, "price": 0.02}
SCALE = {"max_hours": 3600.0}


class Outlook:
    """Steps to the target in closed form: log-normal from the present step on, if they are reached at all."""

    def __init__(self, step, median, spread, reached):
        self.step, self.reached = step, reached
        self.log_steps_to_go = NormalDist(math.log(median), spread)
        self.reached_by_end = self.probability_by(MAX_STEPS)

    def probability_by(self, step):
        to_go = min(step, MAX_STEPS) - self.step
        return self.reached * self.log_steps_to_go.cdf(math.log(to_go)) if to_go > 0 else 0.0

    def at(self, confidence):
        """The revision that a reviser makes for this confidence."""
        share = (1.0 - confidence) / self.reached
        lower = math.inf if share >= 1 else self.step + math.exp(self.log_steps_to_go.inv_cdf(share))
        lower = min(MAX_STEPS, lower)
        steps = Estimate(lower, Interval(self.step, MAX_STEPS, 0.8, ""), MAX_STEPS)
        return ForecastRevision(self.step, 0.5, steps, self.reached_by_end, 5, lower)


outlooks = st.builds(
    Outlook, st.integers(8, 500), st.floats(5.0, 2000.0), st.floats(0.1, 2.0), st.floats(0.01, 1.0)
)  # fmt: skip
limits = st.sampled_from(sorted(REASONS))
confidences = st.floats(0.01, 0.99)


def allowed(name, steps):
    """A budget of so many steps."""
    limit = PER_STEP[COSTS[name]] * steps / SCALE.get(name, 1.0)
    return Budget(**{name: float(math.ceil(limit)) if name == "max_epochs" else limit})


def decide(outlook, budget, confidence):
    spent = {cost: outlook.step * each for cost, each in PER_STEP.items()}
    return stop_reason(budget, confidence, spent, PER_STEP, outlook.at(confidence))


@given(outlooks, limits, st.integers(1, 2000), confidences)
def test_a_run_ends_where_reaching_within_the_budget_is_less_probable_than_the_confidence_leaves(
    outlook, name, steps, confidence
):
    budget = allowed(name, steps)
    steps = budget.limits[COSTS[name]] / PER_STEP[COSTS[name]]
    probability = outlook.probability_by(steps)
    assume(abs(probability - (1.0 - confidence)) > 1e-6 and abs(steps - outlook.step) > 1e-6)
    reason = decide(outlook, budget, confidence)
    spent = steps < outlook.step
    assert (reason is not None) == (spent or probability < 1.0 - confidence)
    gave_up = not spent and outlook.reached_by_end < 1.0 - confidence
    assert reason in (None, "budget: would not reach" if gave_up else f"budget: {REASONS[name]}")


@given(outlooks, limits, st.integers(1, 2000), st.integers(0, 2000), confidences)
def test_a_larger_budget_never_ends_a_run_that_a_smaller_one_does_not(outlook, name, steps, more, confidence):
    if decide(outlook, allowed(name, steps), confidence) is None:
        assert decide(outlook, allowed(name, steps + more), confidence) is None


@given(outlooks, limits, st.integers(1, 2000), confidences, confidences)
def test_more_confidence_never_ends_a_run_that_less_does_not(outlook, name, steps, one, other):
    budget = allowed(name, steps)
    if decide(outlook, budget, min(one, other)) is None:
        assert decide(outlook, budget, max(one, other)) is None


@given(outlooks, st.lists(limits, min_size=1, unique=True), st.integers(1, 2000), confidences)
def test_several_limits_end_a_run_as_the_tightest_does(outlook, names, steps, confidence):
    budgets = [allowed(name, steps + 10 * k) for k, name in enumerate(names)]
    whole = Budget(**{name: getattr(each, name) for name, each in zip(names, budgets, strict=True)})
    alone = [decide(outlook, each, confidence) for each in budgets]
    assert (decide(outlook, whole, confidence) is None) == (set(alone) == {None})


@given(st.data(), confidences)
def test_the_lower_bound_decides_as_the_simulated_paths_do(data, confidence):
    """An oracle: the share of the paths that reach the target by the last step that the budget allows."""
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    best = np.maximum.accumulate(random.normal(0.0, 1.0, (40, 12)), axis=1)
    weights = random.exponential(size=40)
    prediction = CurvePrediction(np.arange(10.0, 130.0, 10.0), best, weights / weights.sum())
    target, affordable = data.draw(st.floats(-1.0, 3.0)), data.draw(st.integers(10, 150))
    within = prediction.steps <= affordable
    share = float(prediction.weights[(best[:, within] >= target).any(1)].sum())
    assume(abs(share - (1.0 - confidence)) > 1e-9)
    lower = prediction.quantile(target, 1.0 - confidence)
    steps = Estimate(lower, Interval(lower, lower, 0.8, ""), lower)
    revision = ForecastRevision(8, 0.0, steps, prediction.probability_reached(target), 5, lower)
    spent, each = {"energy_kwh": 8.0}, {"energy_kwh": 1.0}
    reason = stop_reason(Budget(max_kwh=float(affordable)), confidence, spent, each, revision)
    assert (reason is not None) == (share < 1.0 - confidence)


def test_without_a_revision_only_what_is_spent_ends_a_run():
    spent, each = {"wall_s": 3600.0}, {"wall_s": 3600.0}
    assert stop_reason(Budget(max_hours=1.5), 0.6, spent, each, None) is None
    assert stop_reason(Budget(max_hours=1.0), 0.6, spent, each, None) == "budget: hours"
    assert stop_reason(Budget(), 0.6, spent, each, Outlook(100, 1e3, 0.1, 0.01).at(0.6)) is None


PROBE = StepCost(0.5, 1e-4, 20, EnergyReading(11.0, 2e-3, {}, {}, "replay"))


def curve(steps, step_s):
    none = (None,) * 2
    return LearningCurve((0, steps), (0.1, 0.5), none, (0.0, steps * step_s), none, none, none, steps_per_epoch=10)


def revision_for(step, lower):
    return ForecastRevision(step, 0.5, Estimate(lower, Interval(lower, lower, 0.8, ""), lower), 0.99, 5, lower)


@pytest.mark.parametrize(
    ("steps", "step_s", "reading", "expected"),
    [
        (10, 0.1, None, 0.5),  # 1 s so far: the probe of 10 s knows better
        (100, 0.25, None, 0.25),
        (100, 0.25, EnergyReading(30.0, 0.03, {}, {}, "replay"), 0.25),
    ],
)
@pytest.mark.parametrize("name", sorted(REASONS))
def test_a_step_costs_what_the_run_measured_or_else_the_probe(name, steps, step_s, reading, expected):
    power = 1e-3 if reading else PROBE.energy_kwh / PROBE.wall_s
    tariff, lower = Tariff(per_kwh=2.0, per_hour=3.0), 500.0
    seconds = steps * step_s + (lower - steps) * expected
    kwh = power * seconds
    whole = reading.wall_s / (steps * step_s) if reading else 1.0  # the price has the evaluations in it
    price = whole * (2.0 * kwh + 3.0 * seconds / 3600.0)
    total = {"max_kwh": kwh, "max_kg": 0.4 * kwh, "max_hours": seconds / 3600, "max_epochs": 50.0, "max_price": price}
    for factor, reason in ((0.98, f"budget: {REASONS[name]}"), (1.02, None)):
        limit = total[name] * factor
        limit = round(limit) if name == "max_epochs" else limit
        stop = BudgetStop(Budget(**{name: limit}, tariff=tariff), 0.9, Grid("TST", 400.0, ""), PROBE)
        assert stop(curve(steps, step_s), revision_for(steps, lower), reading) == reason


@pytest.fixture(scope="module")
def replayed():
    """Runs of the bundled history with revisions from runs of other shift types; revisions are made once."""
    shifts = [u for u in bundled_updates() if u.features.task_index is None]
    running = [u for u in shifts if u.cost.steps >= 40 and u.shift_type == "gaussian"][::8]
    others, pairs = [u for u in shifts if u.shift_type != "gaussian"][::4], []
    for update in running:
        query = ForecastQuery.of_update(update, update.target_accuracy, MAX_STEPS)
        history = CurveHistory((), query, others).start(query)

        @functools.cache
        def made(step, confidence, update=update, query=query, history=history):
            return revise_forecast(history, query, update.curve.until(step), confidence=confidence)

        pairs.append((update, made))
    return pairs


def test_real_runs_end_later_with_a_larger_budget_and_with_more_confidence(replayed):
    ended = set()
    for update, made in replayed:
        steps = np.array([
            [stopped_at(update, made, factor, confidence) for factor in (0.3, 0.8, 1.5, 4.0)]
            for confidence in (0.6, 0.8, 0.99)
        ])  # fmt: skip
        assert (steps[1:] >= steps[:-1]).all()
        assert (steps[:, 1:] >= steps[:, :-1]).all()
        ended |= set(steps.ravel().tolist())
    assert len(ended) > 5  # the steps differ at all


def stopped_at(update, made, factor, confidence):
    def revise(curve):
        late = curve.steps[-1] >= 8 and curve.accuracy[-1] < update.target_accuracy
        return made(curve.steps[-1], confidence) if late else None

    budget = Budget(max_hours=factor * update.cost.wall_s / 3600.0)
    found = stop_in_hindsight(update, revise, BudgetStop(budget, confidence))
    return math.inf if found is None else found[0]


@pytest.mark.parametrize(
    ("budget", "grid", "measures", "missing"),
    [
        ({"max_kg": 1.0}, False, True, ["--max-kg", "--country"]),
        ({"max_price": 1.0}, True, True, ["--max-price", "--price-per-kwh"]),
        ({"max_kwh": 1.0}, True, False, ["--max-kwh", "meter"]),
        ({"max_kg": 1.0}, True, False, ["--max-kg", "meter"]),
        ({"max_price": 1.0, "tariff": Tariff(per_kwh=0.3)}, True, False, ["--max-price", "meter"]),
        ({"max_kg": 1.0, "max_price": 1.0, "max_kwh": 2.0}, False, False, ["--max-kg", "--max-price", "--max-kwh"]),
        ({"max_price": 1.0, "tariff": Tariff(per_hour=2.0)}, False, False, []),
        ({"max_hours": 1.0, "max_epochs": 2}, False, False, []),
    ],
)
def test_a_limit_without_what_it_needs_is_refused_in_one_line_that_names_it(budget, grid, measures, missing):
    grid = Grid("TST", 400.0, "") if grid else None
    if not missing:
        check_measurable(Budget(**budget), grid, measures)
        return
    with pytest.raises(SettingError) as refused:
        check_measurable(Budget(**budget), grid, measures)
    assert all(word in str(refused.value) for word in missing)
    assert "\n" not in str(refused.value)


# --- what runs that looked bad do to later forecasts


@pytest.fixture
def job(digits):
    return RetrainingJob(digits.part("train"), digits.part("test"), 0.9, Recipe(evaluate_every=1))


def test_runs_ended_because_they_looked_bad_bias_forecasts_less_than_leaving_them_out(job):
    """The slower half of the runs is ended by a budget after 60 steps.

    Their curves until then count, so forecasts hardly change. Left out, they leave forecasts too low.
    """
    bias = {}
    for seed in range(4):
        whole = runs(24, seed=seed)
        middle = np.median([update.curve.accuracy[6] for update in whole])
        slow = {update.id for update in whole if update.curve.accuracy[6] < middle}
        histories = {
            "whole": whole,
            "ended": [ended_at(update, 60) if update.id in slow else update for update in whole],
            "left out": [update for update in whole if update.id not in slow],
        }
        for name, history in histories.items():
            steps = (
                forecast_for(history, dataclasses.replace(job, target_accuracy=0.78), accuracy=0.5)
                .estimates["steps"]
                .value
            )
            bias.setdefault(name, []).append(math.log(steps))
    mean = {name: np.mean(each) for name, each in bias.items()}
    assert mean["left out"] < mean["whole"]
    assert abs(mean["ended"] - mean["whole"]) < 0.5 * abs(mean["left out"] - mean["whole"])


def ended_at(update, step):
    curve = update.curve.until(step)
    cost = dataclasses.replace(update.cost, steps=step)
    return dataclasses.replace(update, curve=curve, cost=cost, reached=False, stopped_by="budget: hours")


@pytest.mark.parametrize("reason", ["kWh", "kg CO2e", "hours", "epochs", "price", "would not reach"])
def test_a_run_that_its_budget_ended_is_censored_where_it_ended(reason):
    update = ended_early(synthetic_update("u", index=0.5, steps=100), stopped_by=f"budget: {reason}")
    assert steps_or_lower_bound(update, 0.9, max_steps=1000) == (40, True)
    assert steps_or_lower_bound(update, 0.6, max_steps=1000)[1] is False  # read at what it did reach
    plateau = dataclasses.replace(update, stopped_by="tolerance 0.01")
    assert steps_or_lower_bound(plateau, 0.9, max_steps=1000) == (1000, True)


def test_settlement_judges_no_forecast_by_a_run_that_its_budget_ended():
    pairs = settled_pairs(6)
    ended = [(forecast, ended_early(update)) for forecast, update in pairs]
    alone, both = summarize_settlements(ended), summarize_settlements(pairs + ended)
    plain = summarize_settlements(pairs)
    assert (alone.n, alone.probability_score) == (6, None)
    assert set(alone.covered.values()) == {(0, 0)}
    assert (both.covered, both.probability_score, both.median_error) == (
        plain.covered, plain.probability_score, plain.median_error
    )  # fmt: skip


def test_a_run_that_its_budget_ended_above_the_interval_was_not_covered():
    whole = synthetic_update("u", index=0.5, steps=100)
    forecast = synthetic_forecast(whole)  # up to 200 steps
    for steps, covered in ((199, None), (201, False)):
        ended = ended_early(synthetic_update("u", index=0.5, steps=steps), share=1.0)
        assert is_covered(forecast, ended, "steps") is covered


def test_cross_validation_learns_from_such_runs_and_is_not_judged_by_them():
    updates = [
        synthetic_update(f"u{i}", index=x, steps=power_law(x), shift_type=("a", "b", "c", "d")[i % 4])
        for i, x in enumerate(np.geomspace(0.3, 0.9, 12))
    ]
    whole = cross_validate(updates, 0.9)
    some = cross_validate([*updates[:-3], *map(ended_early, updates[-3:])], 0.9)
    n = {report.predictor: report.n for report in some.reports}
    assert (whole.updates, some.updates) == (12, 12)
    assert {report.predictor: report.n for report in whole.reports} == {name: count + 3 for name, count in n.items()}
    assert all(report.reached == report.n for report in some.reports)


@pytest.mark.parametrize(("start_s", "reason"), [(10.0, None), (0.0, "budget: hours")])
def test_pass_before_the_first_step_is_not_taken_for_the_time_of_a_step(start_s, reason):
    none = (None, None)
    curve = LearningCurve((0, 10), (0.5, 0.6), none, (0.0, 11.0), none, none, none, 10)
    probe = dataclasses.replace(PROBE, wall_s=0.1, steps=5, start_s=start_s)
    steps = Estimate(100.0, Interval(100.0, 100.0, 0.8, ""), 100.0)
    revision = ForecastRevision(10, 0.6, steps, 1.0, 7, steps_lower=100.0)
    assert BudgetStop(Budget(max_hours=30.0 / 3600.0), 0.95, None, probe)(curve, revision) == reason
