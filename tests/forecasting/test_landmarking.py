"""In-run forecast updates, on learning curves of known shape."""

import dataclasses
import itertools
import math
import time

import numpy as np
import pytest
import torch

from doubles import synthetic_update
from resque.energy.meters import ClockMeter
from resque.energy.reading import EnergyReading
from resque.forecasting.curve_history import FEWEST_CURVES, CurveHistory
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.history import ForecastQuery, update_group
from resque.forecasting.landmarking import FIRST_LANDMARK, ForecastReviser, revise_forecast
from resque.ledger.records import Features, LearningCurve, StepCost
from resque.ledger.store import Ledger
from resque.models.networks import small_cnn
from resque.reporting.tables import show_update
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.recipe import Recipe
from resque.training.retrain import retrain
from resque.workflows.recording import record


def curve_of(pace, ceiling=0.95, start=0.5, longest=4000, noise=0.0, seed=0):
    """``ceiling - (ceiling - start) / (1 + step / pace)`` at steps 10 % apart, with noise of that deviation."""
    random = np.random.default_rng(seed)
    steps = [0, *sorted({round(1.1**i) for i in range(1, 90) if 1.1**i <= longest})]
    rising = [ceiling - (ceiling - start) / (1 + step / pace) + noise * random.normal() for step in steps]
    nothing = (None,) * len(steps)
    times = tuple(0.01 * step for step in steps)
    return LearningCurve(tuple(steps), tuple(rising), nothing, times, nothing, nothing, nothing, 10)


def update(name, pace, shift_type="gaussian", **more):
    made = synthetic_update(name, index=0.5, steps=10, shift_type=shift_type)
    curve = curve_of(pace, **more)
    cost = dataclasses.replace(made.cost, steps=curve.steps[-1])
    return dataclasses.replace(made, curve=curve, cost=cost, stopped_by="max")


def history(n=12, seed=0, noise=0.0):
    random = np.random.default_rng(seed)
    return [
        update(f"u{i}", float(np.exp(random.normal(4.0, 1.0))), shift_type=f"k{i % 4}", noise=noise, seed=i)
        for i in range(n)
    ]


def revised(updates, of, curve, **more):
    known = CurveHistory(updates, of, **more)
    return revise_forecast(known.start(of), of, curve, n_history=known.n_own)


def query(of, target=0.9, shift_type="new"):
    return ForecastQuery(of.features, target, update_group(of), shift_type, of.parent, "d+new", 4000)


def test_revisions_reduce_the_error():
    """The pace of a run is unknown before it starts; its first steps show it."""
    random = np.random.default_rng(7)
    errors = {10: [], 160: []}
    for number in range(12):
        updates, pace = history(24, number, noise=0.003), float(np.exp(random.normal(4.5, 0.7)))
        run = update("running", pace, shift_type="new", noise=0.003, seed=100 + number)
        total, model = run.cost_at(0.9).steps, CurveHistory(updates, query(run)).start(query(run))
        for step, found in errors.items():
            if total > 2 * step:
                revision = revise_forecast(model, query(run), run.curve.until(step))
                found.append(abs(math.log(revision.steps.value / total)))
                assert revision.steps.interval.low > step
    assert np.median(errors[160]) < 0.6 * np.median(errors[10])


def test_few_curves_revise_nothing():
    run = update("running", 90.0)
    revision = revised(history(FEWEST_CURVES), query(run), run.curve.until(100))
    assert revision.n_history == FEWEST_CURVES
    assert revised(history(FEWEST_CURVES - 1), query(run), run.curve.until(100)) is None


def test_harder_targets_never_cost_less_or_are_more_probable():
    """For any targets, at any step: the median, both ends of the interval and the bound never fall."""
    updates = [*history(20, noise=0.01), *(update(f"n{i}", 60.0, ceiling=0.7 + 0.02 * i, noise=0.01) for i in range(6))]
    targets = np.sort(np.random.default_rng(3).uniform(0.5, 0.99, 40))
    known = CurveHistory(updates, query(updates[0]))
    for pace, step in itertools.product((20.0, 200.0), (9, 40, 300)):
        run = update("running", pace, noise=0.01)
        curve, model = run.curve.until(step), known.start(query(run))
        beyond = [target for target in targets if target > max(curve.accuracy)]
        revisions = [revise_forecast(model, query(run, float(target)), curve) for target in beyond]
        for easier, harder in itertools.pairwise(revisions):
            assert harder.probability_reached <= easier.probability_reached
            assert harder.steps.value >= easier.steps.value
            assert harder.steps.interval.low >= easier.steps.interval.low
            assert harder.steps.interval.high >= easier.steps.interval.high
            assert harder.steps.upper >= easier.steps.upper


def test_probability_rises_as_the_curve_nears_its_target():
    """At .797 of .8 the probability once fell, because the curve did not count."""
    updates = [*history(20, noise=0.003), *(update(f"n{i}", 60.0, ceiling=0.7 + 0.01 * i) for i in range(9))]
    run = update("running", 60.0, noise=0.003)
    near, far = (
        revised(updates, query(run, 0.8 + gap), run.curve.until(131)).probability_reached for gap in (0.02, 0.12)
    )
    assert near > max(0.95, far)


def test_unknown_features_and_starts_are_no_obstacle():
    run = update("running", 90.0)
    bare = dataclasses.replace(run, features=Features(None, None, None))
    assert revised(history(), query(bare), run.curve.until(33)) is not None
    later = dataclasses.replace(
        run.curve.until(33),
        **{
            field: getattr(run.curve.until(33), field)[1:]
            for field in (
                "steps",
                "accuracy",
                "loss",
                "wall_s",
                "gradient_norm",
                "gradient_norm_last_batch",
                "parameter_change",
            )
        },
    )
    assert revised(history(), query(bare), later) is None
    assert revised(history(), query(run), later) is not None


def test_new_tasks_use_new_tasks_and_shifts_use_shifts():
    """A user's shifts, read at the target of a task, once predicted the task's cost."""

    def task(u):
        return dataclasses.replace(u, id=f"t{u.id}", features=dataclasses.replace(u.features, task_index=0.3))

    shifts, tasks = history(20), [task(u) for u in history(9, seed=1)]
    run = update("running", 90.0)
    for running, comparable in ((query(run), shifts), (query(task(run)), tasks)):
        curve = run.curve.until(100)
        alone = revised(comparable, running, curve)
        assert revised([*shifts, *tasks], running, curve) == alone
        others = [u for u in shifts + tasks if u not in comparable]
        assert revised(comparable, running, curve, bundled=others) == alone


def test_plateau_lowers_the_probability():
    rising, flat = update("going", 400.0), update("still", 400.0, ceiling=0.7)
    updates = history(16) + [update(f"never{i}", 60.0, ceiling=0.7 + 0.01 * i) for i in range(6)]
    probabilities = [revised(updates, query(run), run.curve.until(1000)).probability_reached for run in (rising, flat)]
    assert probabilities[0] > probabilities[1] + 0.1


def test_forecast_is_revised_at_each_evaluation():
    run = update("running", 200.0)
    reviser = ForecastReviser(history(60), query(run))
    at = [step for step in run.curve.steps if reviser(run.curve.until(step)) is not None]
    assert at == [step for step in run.curve.steps if FIRST_LANDMARK <= step < run.cost_at(0.9).steps]


def test_run_stops_at_one_of_its_evaluations(forecast_in_ledger, small):
    ledger, forecast = forecast_in_ledger
    job = RetrainingJob(*small, 0.9, Recipe(max_epochs=200, evaluate_every=7), shift_type="k0")
    ends = set(evaluation_steps(job.max_steps, job.steps_per_epoch, job.recipe))
    by_job, bare = (ForecastReviser.of_forecast(forecast, ledger.updates(), of) for of in (job, None))
    run = curve_of(100.0)
    for step in (8, 33, 64):
        revision = by_job(run.until(step))
        for end in (revision.steps.value, revision.steps.interval.low, revision.steps.interval.high):
            assert end in ends
            assert end > step
    assert {bare(run.until(step)).steps.interval.low for step in (8, 33, 64)} - ends


def test_time_of_revisions_counts_as_evaluation(small, capsys):
    """The evaluation time is at least the time measured inside the callback."""
    spent = []

    def busily(curve):
        start = time.perf_counter()
        assert sum(range(400_000))
        spent.append(time.perf_counter() - start)
        return revised(updates, query(run), run.curve.until(16)) if len(spent) == 3 else None

    updates, run = history(12), update("running", 90.0)
    job = RetrainingJob(*small, 0.9999, Recipe(max_epochs=1, evaluate_every=2))
    done = retrain(small_cnn(), job, meter=ClockMeter(), revise=busily)
    assert done.evaluation_s > sum(spent)
    assert len(done.revisions) == 1
    show_update(done)
    assert "evaluation and in-run forecasts (excluded)" in capsys.readouterr().out


def test_no_bound_exceeds_the_step_budget():
    run = update("running", 200.0, noise=0.01)
    updates = [*history(24, noise=0.01), *(update(f"n{i}", 60.0, ceiling=0.7 + 0.01 * i, noise=0.01) for i in range(6))]
    for step in (step for step in run.curve.steps if 8 <= step < 60):
        steps = revised(updates, query(run), run.curve.until(step)).steps
        assert max(steps.value, steps.interval.high, steps.upper) <= 4000


@pytest.fixture
def forecast_in_ledger(tmp_path, small):
    """Return a ledger with a history, and a forecast from it."""
    ledger = Ledger(tmp_path / "resque.db")
    for updates in history(20):
        ledger.add(updates)
    reading = EnergyReading(1.0, None, {}, {}, "clock")
    forecast = forecast_from_features(
        ledger.updates(),
        RetrainingJob(*small, 0.9, Recipe(max_epochs=200), shift_type="k0"),
        Features(0.5, 0.5, 1.0),
        step_cost=StepCost(0.01, None, 10, reading),
        overhead=reading,
        parent="p",
    )
    ledger.add(forecast)
    return ledger, forecast


def test_custom_training_loop_gets_revisions(forecast_in_ledger):
    ledger, forecast = forecast_in_ledger
    curve = curve_of(100.0)
    with record(ledger, forecast.id, meter=ClockMeter()) as run:
        for step, accuracy in zip(curve.steps, curve.accuracy, strict=True):
            if accuracy < 0.9:
                run.evaluated(step=step, accuracy=accuracy)
    assert [revision.step for revision in run.revisions][:3] == [8, 9, 10]
    total = curve.steps[curve.first_at(0.9)]
    first, last = (abs(math.log(revision.steps.value / total)) for revision in (run.revisions[0], run.revisions[-1]))
    assert last < max(first, 0.3)
    assert ledger.updates()[-1].revisions == tuple(run.revisions)


def test_interrupted_run_keeps_its_revisions(forecast_in_ledger, cnn, small, tmp_path):
    """The first revisions come from before the interruption, the others from after it."""
    ledger, forecast = forecast_in_ledger
    job = RetrainingJob(*small, 0.9999, Recipe(max_epochs=4, evaluate_every=2), shift_type="k0")

    def run(checkpoint, stop_at=None):
        def on_progress(at):
            if at.step == stop_at:
                raise KeyboardInterrupt

        revise_forecast = ForecastReviser.of_forecast(forecast, ledger.updates())
        torch.manual_seed(0)
        return retrain(
            small_cnn(), job, meter=ClockMeter(), checkpoint=checkpoint, on_progress=on_progress, revise=revise_forecast
        )

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(Checkpoint(tmp_path / "c", 0.0, False), stop_at=24)
    resumed = run(Checkpoint(tmp_path / "c", 0.0, True))
    assert resumed.resumed == 1
    assert resumed.revisions == whole.revisions


@pytest.mark.parametrize("limit", ["max hours", "max kWh"])
def test_run_that_a_limit_of_its_recipe_ended_might_have_gone_on(limit):
    def expected(stopped_by):
        updates = []
        for place, each in enumerate(history(12)):
            scores = {"adapted refit": max(each.curve.accuracy) - 0.01 * place}
            end = stopped_by if place % 2 else "max"
            features = dataclasses.replace(each.features, scores=scores)
            updates.append(dataclasses.replace(each, features=features, reached=False, stopped_by=end))
        asked = query(updates[0])
        asked = dataclasses.replace(asked, features=dataclasses.replace(asked.features, scores={"adapted refit": 0.9}))
        return CurveHistory(updates, asked).start(asked).predict([10, 100, 1000]).best_accuracy(0.5)

    assert expected(limit) == expected("budget: hours") != expected("max")
