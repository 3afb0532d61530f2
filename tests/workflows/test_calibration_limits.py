"""Bounds on a whole calibration hold, whatever a run turns out to take."""

import dataclasses
import itertools
import math
import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from calibrated import run, shifts_of
from doubles import ReplayMeter, synthetic_update
from resque.energy.meters import ClockMeter
from resque.errors import SettingError
from resque.ledger.records import WOULD_NOT_REACH, Estimate, ForecastRevision, LearningCurve, StepCost
from resque.ledger.store import Ledger
from resque.training.job import evaluation_steps
from resque.training.recipe import Recipe, recipe_to_dict
from resque.types import Interval
from resque.workflows.calibrate import Calibration
from resque.workflows.calibration_limits import CalibrationLimits, CalibrationPace, max_hours_of
from resque.workflows.calibration_training import CalibrationRound
from resque.workflows.inputs import ModelOptions
from resque.workflows.ray_engine import RayEngine


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def curve_until(steps: list[int], step_s: float) -> LearningCurve:
    known = tuple(0.1 for _ in steps)
    return LearningCurve(tuple(steps), known, known, tuple(step_s * step for step in steps), known, known, known, 10)


SECONDS = st.floats(1e-4, 1.0)


@given(SECONDS, SECONDS, st.floats(0.2, 5.0), st.floats(1.0, 600.0), st.integers(1, 50), st.booleans())
def test_a_run_ends_within_the_limit_however_slow_the_machine_has_become(
    step_s, evaluation_s, slower, limit_s, every, of_energy
):
    clock, power = Clock(), 0.5
    given_limit = {"max_kwh": power * limit_s / 3600.0} if of_energy else {"max_hours": limit_s / 3600.0}
    limits, pace = (
        CalibrationLimits(**given_limit, start=0.0, clock=clock),
        CalibrationPace(step_s, evaluation_s, power),
    )
    evaluations = list(
        itertools.islice(evaluation_steps(math.inf, 200, Recipe(evaluate_every=every, evaluate_growth=0.2)), 200)
    )
    assume(pace.seconds(evaluations[1], 4) <= limit_s)  # a run that does not fit is not begun
    passed: list[int] = []
    for step in evaluations:
        clock.seconds += (step - (passed or [0])[-1]) * step_s * slower + evaluation_s
        passed.append(step)
        if limits.end_reason(curve_until(passed, step_s * slower), evaluations, pace, reserve_s=0.0):
            break
    first = evaluations[1] * step_s * slower + 2.0 * evaluation_s
    assert clock.seconds + evaluation_s <= max(limit_s, first + evaluation_s) + 1e-6 or step == evaluations[-1]


@given(st.lists(st.integers(1, 500), min_size=1, max_size=5), SECONDS)
def test_the_pace_is_that_of_the_runs_of_this_command_once_there_are_any(steps, probed_s):
    updates = [synthetic_update(f"u{n}", index=0.1, steps=each) for n, each in enumerate(steps)]
    probe = ReplayMeter()
    with probe.window() as window:
        pass
    pace = CalibrationPace.of(updates, StepCost(probed_s, None, 5, window.reading), 2.0)
    assert pace.step_s == pytest.approx(0.01)
    assert pace.evaluation_s == pytest.approx(0.2)
    assert CalibrationPace.of([], StepCost(probed_s, None, 5, window.reading), 2.0).step_s == probed_s
    passed = StepCost(probed_s, None, 5, window.reading, start_s=4.0)
    assert (CalibrationPace.of([], passed, 2.0).passes_s, CalibrationPace.of(updates, passed, 2.0).passes_s) == (
        4.0,
        0.0,
    )


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("name", ["max_hours", "max_kwh"])
def test_a_limit_of_calibration_is_a_number(meter, name, limit):
    with pytest.raises(SettingError, match=f"budget {name} is .*expected a number"):
        CalibrationLimits(**{name: limit}).check(meter)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"engine": RayEngine(), "limits": CalibrationLimits(max_kwh=1.0)},
            "by the local engine alone: limit the time",
        ),
        ({"round_size": 0}, "rounds of 0 runs: expected 1 or more"),
        ({"round_size": -3}, "rounds of -3 runs: expected 1 or more"),
    ],
)
def test_what_rounds_and_engines_cannot_do_is_refused_before_anything_is_read(meter, tmp_path, settings, text):
    ledger, options = Ledger(tmp_path / "resque.db"), ModelOptions()
    with pytest.raises(SettingError, match=text):
        Calibration(model="none.py:a", data="npz:none", ledger=ledger, meter=meter, options=options, **settings).plan()


@given(st.floats(0.1, 10.0), st.floats(0.0, 1.0))
def test_limits_of_another_machine_leave_the_same_time(max_hours, share):
    clock = Clock()
    limits = CalibrationLimits(max_hours=max_hours, start=0.0, clock=clock)
    clock.seconds = share * 3600.0 * max_hours
    common = CalibrationRound(None, (), None, limits, None, 0.0).shared()
    assert common.limits.left_s() == pytest.approx(limits.left_s(), abs=30.0)
    assert pickle.loads(pickle.dumps(common.limits)) == common.limits


def test_a_limit_of_energy_needs_a_meter_and_a_reading():
    with pytest.raises(SettingError, match="needs a meter that measures energy"):
        CalibrationLimits(max_kwh=1.0).check(ClockMeter())
    with pytest.raises(SettingError, match="limit the time"):
        CalibrationLimits(max_kwh=1.0).left_s(None)
    with pytest.raises(SettingError, match="give one of them"):
        max_hours_of(0.0, 0.0)


@pytest.mark.parametrize("name", ["max_hours", "max_kwh"])
@pytest.mark.parametrize(("jumps_in", "at_step"), [(0, 3), (1, 3), (1, 0), (3, 3)])
def test_a_running_run_ends_at_the_limit_and_no_other_begins(model, plan, tmp_path, name, jumps_in, at_step):
    """One that has taken no step is not kept."""
    clock, ledger, kept = Clock(), Ledger(tmp_path / "resque.db"), jumps_in + (at_step > 0)
    probe = plan.step_cost.reading
    plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, targets=(0.01, 1.0)))  # runs are long

    def on_progress(done: int, total: int, detail: str) -> None:
        if done == jumps_in and f", step {at_step}," in detail:
            clock.seconds = 3600.0

    limit = 1.0 if name == "max_hours" else 3600.0 * probe.energy_kwh / probe.wall_s
    limits = CalibrationLimits(**{name: limit}, start=0.0, clock=clock)
    runs = run(model, plan, ledger, limits=limits, on_progress=on_progress)
    assert (runs.new, runs.by_limit, runs.is_refused) == (kept, True, False)
    for update in runs.updates[jumps_in:]:
        assert (update.stopped_by, update.reached) == ("max hours" if name == "max_hours" else "max kWh", False)
        assert update.recipe == recipe_to_dict(plan.request.recipe)
    resumed = run(model, plan, ledger)
    assert resumed.updates[:kept] == runs.updates
    assert len(resumed.updates) == 5


def test_a_limit_that_allows_no_run_trains_nothing(model, plan, tmp_path):
    clock = Clock()
    runs = run(model, plan, Ledger(tmp_path / "resque.db"), limits=CalibrationLimits(1e-9, start=0.0, clock=clock))
    assert (runs.updates, runs.is_refused) == ((), True)
    assert runs.ended == "no further run fits into the limit"


@pytest.mark.parametrize("probability", [0.0, 0.049, 0.051, 1.0])
@pytest.mark.parametrize("lowest", [0.3, 0.8])
def test_a_run_is_given_up_if_it_is_unlikely_to_reach_any_target(
    model, plan, tmp_path, monkeypatch, probability, lowest
):
    """A run that has reached the lowest target goes on, whatever the forecast of that target says."""
    steps = Estimate(10.0, Interval(5.0, 20.0, 0.8, ""), 15.0)
    asked: list[float] = []

    def reviser(history, query, bundled, job):
        asked.append(query.target_accuracy)
        return lambda curve: ForecastRevision(curve.steps[-1], 0.5, steps, probability, 5)

    monkeypatch.setattr("resque.workflows.calibration_training.ForecastReviser", reviser)
    hardest = min(plan.shifts, key=lambda each: each.features.accuracy)
    request = dataclasses.replace(plan.request, targets=(lowest, 0.999))
    one = dataclasses.replace(plan, request=request, shifts=(hardest,))
    (update,) = run(model, one, Ledger(tmp_path / "resque.db")).updates
    gave_up = update.stopped_by == WOULD_NOT_REACH
    assert gave_up == (probability < 0.05 and update.curve.first_at(lowest) is None)
    assert set(asked) == {lowest}
    assert not update.revisions
    assert shifts_of([update]) == [hardest.shift]
