"""Milestones of learning curves: what forward passes tell of a run, and how it reweights simulated paths."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_law import runs
from resque.forecasting.curve_history import CurveHistory
from resque.forecasting.history import ForecastQuery
from resque.forecasting.learning_curves import CurvePrediction
from resque.forecasting.milestones import Milestone, log_error, log_errors_at
from resque.forecasting.mixed_model import NormalPrediction, TrainingExample

MISLEADING = 0.1
STEPS = np.array([1.0, 10.0, 100.0])


def paths(final, weights=None):
    final = np.asarray(final, dtype=float)
    best = np.stack([0.5 * final, 0.8 * final, final], axis=1)
    return CurvePrediction(STEPS, best, np.full(len(final), 1 / len(final)) if weights is None else weights)


def milestone(mean, deviation):
    made = Milestone.__new__(Milestone)
    made.expected = NormalPrediction(mean, deviation)
    return made


def reweighted(prediction, logs):
    weights = prediction.weights * np.exp(logs - logs.max())
    return dataclasses.replace(prediction, weights=weights / weights.sum())


@pytest.mark.parametrize("expected", [0.7, 0.8, 0.9])
def test_reweighted_paths_have_the_expected_milestone(expected):
    sample = 1.0 - np.exp(-np.random.default_rng(0).normal(1.6, 0.5, 4000).clip(0.1, 5.0))
    before = paths(sample)
    factors = np.exp(milestone(log_error(expected), 0.1).log_weights(before, 100, before))
    after = reweighted(before, np.log((factors - MISLEADING) / (1.0 - MISLEADING)))
    errors = log_errors_at(after, 100)
    assert after.weights @ errors == pytest.approx(log_error(expected), abs=0.05)
    assert math.sqrt(after.weights @ (errors - log_error(expected)) ** 2) < 0.25


@pytest.mark.parametrize("expected", [0.3, 0.8, 0.97, 0.997])
@pytest.mark.parametrize("deviation", [0.05, 0.5])
def test_before_any_step_one_path_in_ten_ignores_the_milestone(expected, deviation):
    """The forecast is a mixture: nine parts with the milestone, one without it, however odd the milestone is."""
    before = paths(np.random.default_rng(1).uniform(0.5, 0.99, 500))
    factors = np.exp(milestone(log_error(expected), deviation).log_weights(before, 100, before))
    assert before.weights @ factors == pytest.approx(1.0)
    assert factors.min() >= MISLEADING
    with_it = before.weights * (factors - MISLEADING) / (1.0 - MISLEADING)
    after = reweighted(before, np.log(factors))
    reached = after.best[:, -1] >= 0.8
    mixed = (1.0 - MISLEADING) * with_it[reached].sum() + MISLEADING * before.probability_reached(0.8)
    assert after.probability_reached(0.8) == pytest.approx(mixed)


def test_a_curve_outweighs_a_milestone_that_it_contradicts():
    """All paths of the curve so far end near .6, but for one in a hundred thousand; the milestone said .9."""
    before = paths(np.linspace(0.5, 0.99, 400))
    final = np.append(np.full(99, 0.6), 0.9)
    begun = paths(final, np.append(np.full(99, (1.0 - 1e-5) / 99), 1e-5))
    after = reweighted(begun, milestone(log_error(0.9), 0.05).log_weights(begun, 100, before))
    assert after.probability_reached(0.85) < 0.01


def test_a_milestone_that_says_what_the_paths_say_changes_little():
    sample = 1.0 - np.exp(-np.random.default_rng(0).normal(1.6, 0.3, 4000))
    before, errors = paths(sample), -np.log(1.0 - sample)
    logs = milestone(float(errors.mean()), float(errors.std())).log_weights(before, 100, before)
    assert logs == pytest.approx(np.zeros(4000), abs=1e-9)


@given(st.floats(0.05, 0.99), st.floats(0.02, 1.0), st.integers(0, 99))
def test_harder_targets_stay_less_probable(expected, deviation, seed):
    before = paths(np.random.default_rng(seed).uniform(0.3, 0.99, 200))
    after = reweighted(before, milestone(log_error(expected), deviation).log_weights(before, 100, before))
    probabilities = [after.probability_reached(target) for target in np.linspace(0.1, 1.0, 20)]
    assert after.weights.sum() == pytest.approx(1.0)
    assert (np.diff(probabilities) <= 1e-12).all()


def test_runs_that_ended_at_their_target_are_bounds():
    """The refit head says .95; half of the runs ended at .8 on their way."""
    examples = [TrainingExample((log_error(0.95),), log_error(0.95), shift_type=f"k{i}", condition=i) for i in range(8)]
    ended = [dataclasses.replace(e, value=log_error(0.8), censored=True, condition=-i) for i, e in enumerate(examples)]
    query = TrainingExample((log_error(0.95),), shift_type="new", condition="new")
    whole, both = (Milestone(each, query).expected for each in (examples, examples + ended))
    ignored = Milestone(examples + [dataclasses.replace(e, censored=False) for e in ended], query).expected
    assert both.mean == pytest.approx(whole.mean, abs=0.1)
    assert ignored.mean < whole.mean - 0.3


def start(updates, scores, **more):
    made = runs(1)[0]
    features = dataclasses.replace(made.features, scores=scores, **more)
    query = ForecastQuery.of_update(dataclasses.replace(made, features=features, shift_type="new"), 0.9, 1000)
    return CurveHistory(updates, query).start(query)


def test_scores_that_are_unknown_are_not_used():
    updates = runs(20)
    assert start(updates, {"adapted refit": 0.9}).scores == ("adapted refit",)
    assert start(updates, {}).scores == ()
    assert start(updates, {"warm-up accuracy": 0.9}).scores == ()  # no run has it
    few = [dataclasses.replace(u, features=dataclasses.replace(u.features, scores={})) for u in updates[4:]] + updates[
        :4
    ]
    assert start(few, {"adapted refit": 0.9}).scores == ()  # four runs have it


def test_early_accuracy_needs_an_evaluation_after_the_first_steps():
    """Runs that were evaluated at every 100th step do not tell the accuracy after ten."""

    def seldom(update):
        kept = [place for place, step in enumerate(update.curve.steps) if step % 100 == 0]
        names = [f.name for f in dataclasses.fields(update.curve) if f.name != "steps_per_epoch"]
        columns = {name: tuple(getattr(update.curve, name)[place] for place in kept) for name in names}
        return dataclasses.replace(update, curve=dataclasses.replace(update.curve, **columns))

    adapted = [
        dataclasses.replace(u, features=dataclasses.replace(u.features, scores={"adapted accuracy": 0.6}))
        for u in runs(20)
    ]
    assert start(adapted, {"adapted accuracy": 0.6}).scores == ("adapted accuracy",)
    assert start([seldom(u) for u in adapted], {"adapted accuracy": 0.6}).scores == ()


def test_a_short_budget_does_not_lower_the_accuracy_that_a_whole_run_reaches():
    """The best accuracy is that of a whole run; a run cut off at 100 steps is not expected to get there."""
    curve = start(runs(30), {"adapted refit": 0.95})
    whole, cut = curve.predict(range(10, 1001, 10)), curve.predict(range(10, 101, 10))
    assert cut.steps[-1] == 100
    at_100 = float(whole.weights @ whole.best[:, 9])
    assert float(cut.weights @ cut.best[:, -1]) == pytest.approx(at_100, abs=0.02)
