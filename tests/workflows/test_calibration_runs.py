"""Calibration runs: selection of shifts, plan with its cost, runs."""

import dataclasses
import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from calibrated import TARGET, interrupt, run, shifts_of
from doubles import synthetic_update
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.errors import DataError, ModelError, SettingError
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.recipe import Recipe
from resque.training.retrain import retrain
from resque.workflows.calibration_candidates import Candidate, applicable_shifts, select_around, select_spread
from resque.workflows.calibration_choice import choose_next
from resque.workflows.calibration_defaults import shorten_recipe, split_for_calibration
from resque.workflows.calibration_plan import plan_calibration
from resque.workflows.calibration_runs import CalibrationRuns

CANDIDATES = st.builds(
    lambda shift_type, level, gap: Candidate(f"{shift_type}:{level}", 0.1, 0.5, gap),
    st.sampled_from(["gaussian", "blur", "rotation", "jpeg"]),
    st.integers(1, 10),
    st.floats(-5.0, 0.0),
)
SETS = st.lists(CANDIDATES, min_size=1, max_size=20, unique_by=lambda candidate: candidate.shift)


@given(SETS, st.integers(1, 12), st.randoms())
def test_selection_is_even_over_shift_types_and_independent_of_order(candidates, n, random):
    selected = select_spread(candidates, n)
    assert len(set(selected)) == len(selected) == min(n, len(candidates))
    assert set(selected) <= set(candidates)
    assert selected[0].gap == min(candidate.gap for candidate in candidates)
    assert select_spread(random.sample(candidates, len(candidates)), n) == selected
    available, counts = Counter(c.shift_type for c in candidates), Counter(c.shift_type for c in selected)
    assert all(
        counts[shift_type] >= counts[other] - 1 or counts[shift_type] == available[shift_type]
        for shift_type in available
        for other in available
    )


@given(SETS, st.integers(1, 12))
def test_longer_selection_starts_with_the_shorter_one(candidates, n):
    assert select_spread(candidates, n + 1)[:n] == select_spread(candidates, n)


@given(st.lists(st.floats(-5.0, 0.0), min_size=3, max_size=8, unique=True), st.integers(2, 4))
def test_selection_within_a_shift_type_covers_within_twice_the_optimum(gaps, n):
    candidates = [Candidate(f"blur:{number}", 0.1, 0.5, gap) for number, gap in enumerate(gaps)]
    radius = farthest(gaps, [candidate.gap for candidate in select_spread(candidates, n)])
    best = min(farthest(gaps, some) for some in itertools.combinations(gaps, min(n, len(gaps))))
    assert radius <= 2.0 * best + 1e-12


@given(SETS, st.integers(1, 12), st.floats(-5.0, 0.0), st.randoms())
def test_selection_around_a_gap_has_both_sides_and_many_types(candidates, n, gap, random):
    selected = select_around(candidates, n, gap)
    assert len(set(selected)) == len(selected) == min(n, len(candidates))
    assert select_around(random.sample(candidates, len(candidates)), n, gap) == selected
    harder, easier = (sum((each.gap >= gap) == side for each in selected) for side in (True, False))
    available = [sum((each.gap >= gap) == side for each in candidates) for side in (True, False)]
    assert abs(harder - easier) <= 1 or harder == available[0] or easier == available[1]


def farthest(points, centers) -> float:
    return max(min(abs(point - center) for center in centers) for point in points)


def test_test_data_is_disjoint_from_original_and_training_data():
    original, train, test = (set(part.indices.tolist()) for part in split_for_calibration(load_data("digits")))
    assert not test & (original | train)
    assert train - original
    held_out = load_data("digits@test")
    assert split_for_calibration(load_data("digits@train"), held_out)[2] is held_out


def test_applicable_shifts_keep_labels_and_fit_the_images():
    types = {name.split(":")[0] for name in applicable_shifts(load_data("digits@rgb@20"))}
    assert types == {"gaussian", "blur", "salt_pepper", "rotation", "contrast", "jpeg", "bit_depth", "desaturate"}
    assert "desaturate:1" not in applicable_shifts(load_data("digits@20"))


def test_shortening_changes_default_settings_alone():
    own = Recipe(max_epochs=7, evaluate_every=5)
    assert shorten_recipe(own, 100) == own
    assert shorten_recipe(Recipe(), 3200, max_epochs=250).max_epochs == 250
    assert shorten_recipe(Recipe(), 320_000).max_epochs == 20
    assert shorten_recipe(Recipe(evaluate_growth=0.5), 320).evaluate_every is None


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(evaluate_every=4), Recipe(evaluate_every=1, evaluate_growth=0.3)])
def test_evaluation_steps_match_those_of_a_run(recipe, model, meter):
    some = load_data("digits@200")
    job = RetrainingJob(some, some, 1.0, dataclasses.replace(recipe, learning_rate=1e-6, max_epochs=3))
    update = retrain(model, job, meter=meter)
    assert update.cost.steps == job.max_steps
    assert tuple(evaluation_steps(job.max_steps, job.steps_per_epoch, recipe)) == update.curve.steps


def test_plan_gives_candidates_and_an_upper_bound_on_the_cost(plan, meter):
    assert plan.clean_accuracy > TARGET
    assert len(plan.shifts) == round(1.5 * 5)
    assert {each.shift for each in plan.shifts} < set(applicable_shifts(plan.request.train))
    assert len({each.shift.split(":")[0] for each in plan.shifts}) >= 3
    noise = (TARGET * (1.0 - TARGET) / len(plan.request.test)) ** 0.5
    assert all(each.features.accuracy < TARGET - noise and each.features.index_rad > 0 for each in plan.shifts)
    cost = plan.at_most
    assert (cost.runs, cost.steps) == (5, 5 * plan.request.job("blur:1").max_steps)
    assert cost.training_s == pytest.approx(cost.steps * plan.step_cost.wall_s)
    assert cost.energy_kwh == pytest.approx(meter.watts * cost.wall_s / 3.6e6)
    assert cost.carbon_kg == pytest.approx(0.05 * cost.energy_kwh)


@pytest.fixture(scope="module")
def uninterrupted(trained, plan, tmp_path_factory) -> CalibrationRuns:
    model = load_model(f"{trained[0]}:build", trained[1])
    return run(model, plan, Ledger(tmp_path_factory.mktemp("whole") / "resque.db"))


def test_runs_train_to_the_highest_target_and_leave_the_model_as_it_was(model, plan, uninterrupted):
    updates = uninterrupted.updates
    assert (len(updates), uninterrupted.new) == (5, 5)
    assert {update.parent for update in updates} == {fingerprint(model)}
    assert {update.target_accuracy for update in updates} == {TARGET}
    assert sum(update.cost.steps for update in updates) <= plan.at_most.steps
    assert all(update.original_accuracy_before == plan.clean_accuracy for update in updates)
    assert sum(update.reached for update in updates) >= 3
    assert len({update.shift_type for update in updates}) >= 3
    assert shifts_of(updates)[0] == plan.shifts[0].shift


@pytest.mark.parametrize("after", range(5))
def test_interrupted_calibration_makes_the_same_choices(model, plan, uninterrupted, tmp_path, after):
    ledger = Ledger(tmp_path / "resque.db")
    with pytest.raises(KeyboardInterrupt):
        run(model, plan, ledger, on_progress=interrupt(run=after, step=1))
    first = ledger.updates()
    assert shifts_of(first) == shifts_of(uninterrupted.updates)[:after]
    resumed = run(model, plan, ledger)
    assert resumed.new == 5 - after
    assert list(resumed.updates[:after]) == first
    assert shifts_of(resumed.updates) == shifts_of(uninterrupted.updates)


@pytest.fixture(scope="module")
def in_rounds(trained, plan, tmp_path_factory) -> CalibrationRuns:
    model = load_model(f"{trained[0]}:build", trained[1])
    return run(model, plan, Ledger(tmp_path_factory.mktemp("rounds") / "resque.db"), round_size=2)


@pytest.mark.parametrize("kept", [(), (1,), (1, 0), (0, 1, 2), (1, 0, 3), (1, 0, 3, 2)])
def test_rounds_are_the_same_whatever_run_of_a_round_ended_first(model, plan, in_rounds, tmp_path, kept):
    ledger = Ledger(tmp_path / "resque.db")
    ledger.extend(in_rounds.updates[n] for n in kept)
    resumed = run(model, plan, ledger, round_size=2)
    assert resumed.new == 5 - len(kept)
    chosen = shifts_of(resumed.updates)
    for start in range(0, 5, 2):
        assert set(chosen[start : start + 2]) == set(shifts_of(in_rounds.updates)[start : start + 2])


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_a_round_has_as_many_candidates_as_runs(plan, size):
    for done in (0, size):
        chosen = choose_next(
            plan,
            {each.shift: synthetic_update(each.shift, index=0.1, steps=9) for each in plan.shifts[:done]},
            [],
            (),
            size,
        )
        assert len(chosen.ranked) >= min(size, len(plan.shifts) - done)


def test_finished_calibration_does_nothing_and_can_be_extended(model, plan, meter, tmp_path):
    ledger = Ledger(tmp_path / "resque.db")
    done = run(model, plan, ledger)
    again = run(model, plan, ledger)
    assert (again.updates, again.new) == (done.updates, 0)
    request = dataclasses.replace(plan.request, updates=6)
    longer = plan_calibration(model, request, meter=meter, history=ledger.updates())
    assert list(longer.done.values()) == list(done.updates)
    assert (longer.at_most.runs, len(longer.shifts)) == (1, 9)


def test_interrupted_calibration_run_resumes_from_its_checkpoint(model, plan, meter, tmp_path):
    ledger, folder = Ledger(tmp_path / "resque.db"), tmp_path / "checkpoints"
    checkpoint = Checkpoint(folder, every_s=0.0, resume=True)
    hard = dataclasses.replace(plan, request=dataclasses.replace(plan.request, targets=(0.5, 1.0)))
    hard = dataclasses.replace(hard, shifts=plan.shifts[:1])
    second_epoch = plan.request.clean_job.steps_per_epoch + 1
    with pytest.raises(KeyboardInterrupt):
        run(model, hard, ledger, checkpoint=checkpoint, on_progress=interrupt(run=0, step=second_epoch))
    assert list(folder.glob("*"))
    runs = run(model, hard, ledger, checkpoint=checkpoint)
    assert [update.resumed for update in runs.updates] == [1]
    assert runs.ended == "no candidate is left"
    assert not list(folder.glob("*"))


def test_invalid_calibration_requests_are_refused(model, plan, meter):
    request = plan.request

    def refused(**changes) -> str:
        types = (DataError, ModelError, SettingError)
        with pytest.raises(types) as stop:
            plan_calibration(changes.pop("model", model), dataclasses.replace(request, **changes), meter=meter)
        return str(stop.value)

    assert "a forecast needs 5" in refused(updates=4)
    assert "expected a share" in refused(targets=(0.7, 1.2))
    assert "ask for a higher --target-accuracy" in refused(targets=(0.12, 0.12))
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(fresh[1].weight)
    assert "name the model's trained weights" in refused(model=fresh)
    texts = {"input_ids": torch.zeros(20, 5, dtype=torch.int64)}
    words = LabeledDataset("texts", texts, torch.arange(20) % 2, torch.arange(20))
    assert "holds no images" in refused(train=words, test=words)
    scaled = dataclasses.replace(request.test, inputs=request.test.inputs.float() / 127.5 - 1.0)
    assert "images in [0, 1]" in refused(test=scaled)
