"""Calibration runs: selection of shifts, plan with its cost, runs."""

import dataclasses
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from doubles import ReplayMeter
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.energy.grid import Grid
from resque.errors import DataError, ModelError, SettingError
from resque.indices.compute_profile import profile
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.weights import fingerprint, save_weights
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.recipe import Recipe
from resque.training.retrain import retrain
from resque.workflows.calibration_defaults import shorten_recipe, split_for_calibration
from resque.workflows.calibration_runs import (
    CalibrationPlan,
    CalibrationRequest,
    plan_calibration,
    run_calibration,
)
from resque.workflows.shift_selection import Candidate, applicable_shifts, select_spread

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
"""
TARGET = 0.84
CANDIDATES = st.builds(
    lambda shift_type, level, index: Candidate(f"{shift_type}:{level}", index, 0.5),
    st.sampled_from(["gaussian", "blur", "rotation", "jpeg"]),
    st.integers(1, 10),
    st.floats(0.0, 3.0),
)
SETS = st.lists(CANDIDATES, min_size=1, max_size=20, unique_by=lambda candidate: candidate.shift)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny network's code, and its weights after it was trained on the digits."""
    place = tmp_path_factory.mktemp("net")
    (place / "net.py").write_text(NET)
    model = load_model(f"{place}/net.py:build")
    digits = load_data("digits")
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.01), torch.Generator().manual_seed(0)
    for _ in range(8):
        order = torch.randperm(880, generator=generator)
        for inputs, labels in digits.part("train").part("original").batches(32, order=order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    save_weights(model, place / "net.safetensors")
    return place / "net.py", place / "net.safetensors"


@pytest.fixture
def model(trained) -> nn.Module:
    return load_model(f"{trained[0]}:build", trained[1])


@pytest.fixture(scope="module")
def plan(trained) -> CalibrationPlan:
    model = load_model(f"{trained[0]}:build", trained[1])
    original, train, test = split_for_calibration(load_data("digits"))
    recipe = Recipe(learning_rate=3e-3, max_epochs=3, evaluate_every=3)
    request = CalibrationRequest(
        train, test, profile(model, original.batches()), TARGET, recipe, updates=5, model_name="net"
    )
    return plan_calibration(model, request, meter=ReplayMeter(), grid=Grid("given", 50.0, "test"))


@given(SETS, st.integers(1, 12), st.randoms())
def test_selection_is_even_over_shift_types_and_independent_of_order(candidates, n, random):
    selected = select_spread(candidates, n)
    assert len(set(selected)) == len(selected) == min(n, len(candidates))
    assert set(selected) <= set(candidates)
    assert selected[0].index_rad == min(candidate.index_rad for candidate in candidates)
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


@given(st.lists(st.floats(0.0, 3.0), min_size=3, max_size=8, unique=True), st.integers(2, 4))
def test_selection_within_a_shift_type_covers_within_twice_the_optimum(indices, n):
    candidates = [Candidate(f"blur:{number}", index, 0.5) for number, index in enumerate(indices)]
    radius = farthest(indices, [candidate.index_rad for candidate in select_spread(candidates, n)])
    best = min(farthest(indices, some) for some in itertools.combinations(indices, min(n, len(indices))))
    assert radius <= 2.0 * best + 1e-12


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


def test_plan_gives_runs_and_an_upper_bound_on_their_cost(plan, meter):
    assert plan.clean_accuracy > TARGET
    assert {candidate.shift for candidate in plan.candidates} < set(applicable_shifts(plan.request.train))
    assert len(plan.runs) == 5
    assert len({each.shift.split(":")[0] for each in plan.runs}) >= 3
    assert all(each.features.accuracy < TARGET and each.features.index_rad > 0 for each in plan.runs)
    assert all(each.done is None and each.expected_steps is None for each in plan.runs)
    assert plan.typical is None
    cost = plan.at_most
    assert (cost.runs, cost.steps) == (5, 5 * plan.request.job("blur:1").max_steps)
    assert cost.training_s == pytest.approx(cost.steps * plan.step_cost.wall_s)
    assert cost.energy_kwh == pytest.approx(meter.watts * cost.wall_s / 3.6e6)
    assert cost.carbon_kg == pytest.approx(0.05 * cost.energy_kwh)


def test_interrupted_calibration_resumes_and_can_be_extended(model, plan, meter, tmp_path):
    before, ledger, request = fingerprint(model), Ledger(tmp_path / "resque.db"), plan.request
    with pytest.raises(KeyboardInterrupt):
        run_calibration(model, plan, ledger, meter=meter, on_progress=interrupt(run=2, step=1))
    first = ledger.updates()
    assert [update.train_data for update in first] == [request.job(each.shift).train.name for each in plan.runs[:2]]
    done = run_calibration(model, plan, ledger, meter=meter)
    assert list(done) == ledger.updates()
    assert list(done[:2]) == first
    assert {update.parent for update in done} == {before} == {fingerprint(model)}
    assert [update.shift_type for update in done] == [each.shift.split(":")[0] for each in plan.runs]
    assert [update.features for update in done] == [each.features for each in plan.runs]
    assert sum(update.cost.steps for update in done) <= plan.at_most.steps
    assert all(update.original_accuracy_before == plan.clean_accuracy for update in done)
    assert sum(update.reached for update in done) >= 3
    longer = plan_calibration(model, dataclasses.replace(request, updates=6), meter=meter, history=ledger.updates())
    assert [each.done for each in longer.runs] == [*(update.id for update in done), None]
    assert (longer.at_most.runs, longer.typical.runs) == (1, 1)
    assert 0 < longer.typical.steps <= longer.at_most.steps


def test_interrupted_calibration_run_resumes_from_its_checkpoint(model, plan, meter, tmp_path):
    ledger, folder = Ledger(tmp_path / "resque.db"), tmp_path / "checkpoints"
    checkpoint = Checkpoint(folder, every_s=0.0, resume=True)
    hard = dataclasses.replace(plan, request=dataclasses.replace(plan.request, target_accuracy=1.0), runs=plan.runs[:1])
    second_epoch = plan.request.job("blur:1").steps_per_epoch + 1
    with pytest.raises(KeyboardInterrupt):
        run_calibration(
            model, hard, ledger, meter=meter, checkpoint=checkpoint, on_progress=interrupt(run=0, step=second_epoch)
        )
    assert list(folder.glob("*"))
    (update,) = run_calibration(model, hard, ledger, meter=meter, checkpoint=checkpoint)
    assert update.resumed == 1
    assert not list(folder.glob("*"))


def interrupt(run: int, step: int):
    """Press Ctrl-C in this run, at its first evaluation from this step on."""

    def on_progress(done: int, total: int, detail: str) -> None:
        if done == run and int(detail.split(", ")[1].removeprefix("step ")) >= step:
            raise KeyboardInterrupt

    return on_progress


def test_invalid_calibration_requests_are_refused(model, plan, meter):
    request = plan.request

    def refused(**changes) -> str:
        types = (DataError, ModelError, SettingError)
        with pytest.raises(types) as stop:
            plan_calibration(changes.pop("model", model), dataclasses.replace(request, **changes), meter=meter)
        return str(stop.value)

    assert "a forecast needs 5" in refused(updates=4)
    assert "expected a share" in refused(target_accuracy=1.2)
    assert "ask for a higher --target-accuracy" in refused(target_accuracy=0.12)
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(fresh[1].weight)
    assert "name the model's trained weights" in refused(model=fresh)
    texts = {"input_ids": torch.zeros(20, 5, dtype=torch.int64)}
    words = LabeledDataset("texts", texts, torch.arange(20) % 2, torch.arange(20))
    assert "holds no images" in refused(train=words, test=words)
    scaled = dataclasses.replace(request.test, inputs=request.test.inputs.float() / 127.5 - 1.0)
    assert "images in [0, 1]" in refused(test=scaled)


def test_calibrate_command_enables_forecasts(cli, trained):
    net = f"--model {trained[0]}:build --weights {trained[1]}"
    line = (
        f"calibrate {net} --data digits@train --test digits@test --recipe train-adam,learning_rate=0.005,max_epochs=6"
    )
    code, out, err = cli(f"{line} --updates 5 --country FRA")
    assert code == 0, err
    updates = Ledger("resque.db").updates()
    assert len(updates) == 5
    assert {update.train_data.partition("+")[0] for update in updates} == {"digits@train@shifted"}
    assert all(update.grid.region == "FRA" for update in updates)
    command = next(row for row in out.splitlines() if row.startswith("resque forecast"))
    code, out, err = cli(f"{line} --updates 6 --max-hours 0 --json")
    assert code == 3, err
    assert "beyond budget, nothing was trained" in err
    output = json.loads(out)
    assert [each["done"] for each in output["runs"]] == [*(update.id for update in updates), None]
    assert 0.96 * output["clean_accuracy"] < output["target_accuracy"] < 0.97 * output["clean_accuracy"] + 1e-9
    assert (output["at_most"]["runs"], output["updates"]) == (1, [])
    assert len(Ledger("resque.db").updates()) == 5
    unseen = "+gaussian:4/rotation:4"
    command = command.replace("NEW-HELD-OUT", f"digits@test{unseen}").replace("NEW", f"digits@train@shifted{unseen}")
    code, out, err = cli(f"{command.removeprefix('resque ')} --max-hours 1")
    assert code in (0, 3), out + err
    assert "based on 5 updates" in out
    code, _, err = cli(f"calibrate {net} --data digits~digits --dry-run")
    assert (code, "one source" in err) == (1, True)
