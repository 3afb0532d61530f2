"""A history from synthetic shifts of one's own data: what is chosen, what is said beforehand, what is done."""

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
from resque.workflows.calibration import (
    CalibrationPlan,
    CalibrationRequest,
    plan_calibration,
    run_calibration,
)
from resque.workflows.calibration_defaults import shorten_recipe, split_for_calibration
from resque.workflows.shift_selection import Candidate, applicable_shifts, select_spread

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
"""
TARGET = 0.84
CANDIDATES = st.builds(
    lambda kind, level, index: Candidate(f"{kind}:{level}", index, 0.5),
    st.sampled_from(["gaussian", "blur", "rotation", "jpeg"]),
    st.integers(1, 10),
    st.floats(0.0, 3.0),
)
SETS = st.lists(CANDIDATES, min_size=1, max_size=20, unique_by=lambda candidate: candidate.shift)


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[Path, Path]:
    """A tiny network's code, and its weights after it has learned the digits."""
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
def model(learned) -> nn.Module:
    return load_model(f"{learned[0]}:build", learned[1])


@pytest.fixture(scope="module")
def made(learned) -> CalibrationPlan:
    model = load_model(f"{learned[0]}:build", learned[1])
    original, train, test = split_for_calibration(load_data("digits"))
    recipe = Recipe(learning_rate=3e-3, max_epochs=3, evaluate_every=3)
    asked = CalibrationRequest(
        train, test, profile(model, original.batches()), TARGET, recipe, updates=5, model_name="net"
    )
    return plan_calibration(model, asked, meter=ReplayMeter(), grid=Grid("given", 50.0, "test"))


@given(SETS, st.integers(1, 12), st.randoms())
def test_the_choice_is_even_over_kinds_and_the_same_in_any_order(found, n, random):
    taken = select_spread(found, n)
    assert len(set(taken)) == len(taken) == min(n, len(found))
    assert set(taken) <= set(found)
    assert taken[0].index_rad == min(candidate.index_rad for candidate in found)
    assert select_spread(random.sample(found, len(found)), n) == taken
    there, times = Counter(c.shift_type for c in found), Counter(c.shift_type for c in taken)
    assert all(times[kind] >= times[other] - 1 or times[kind] == there[kind] for kind in there for other in there)


@given(SETS, st.integers(1, 12))
def test_a_longer_campaign_begins_with_the_shorter_one(found, n):
    assert select_spread(found, n + 1)[:n] == select_spread(found, n)


@given(st.lists(st.floats(0.0, 3.0), min_size=3, max_size=8, unique=True), st.integers(2, 4))
def test_of_one_kind_no_candidate_is_twice_as_far_from_the_choice_as_it_must_be(indices, n):
    found = [Candidate(f"blur:{number}", index, 0.5) for number, index in enumerate(indices)]
    radius = farthest(indices, [candidate.index_rad for candidate in select_spread(found, n)])
    best = min(farthest(indices, some) for some in itertools.combinations(indices, min(n, len(indices))))
    assert radius <= 2.0 * best + 1e-12


def farthest(points, centers) -> float:
    return max(min(abs(point - center) for center in centers) for point in points)


def test_nothing_is_trained_on_that_is_tested_on_and_class_sums_are_of_other_samples():
    original, train, test = (set(part.indices.tolist()) for part in split_for_calibration(load_data("digits")))
    assert not test & (original | train)
    assert train - original
    held_out = load_data("digits@test")
    assert split_for_calibration(load_data("digits@train"), held_out)[2] is held_out


def test_every_shift_that_keeps_labels_and_that_the_images_can_have():
    kinds = {name.split(":")[0] for name in applicable_shifts(load_data("digits@rgb@20"))}
    assert kinds == {"gaussian", "blur", "salt_pepper", "rotation", "contrast", "jpeg", "bit_depth", "desaturate"}
    assert "desaturate:1" not in applicable_shifts(load_data("digits@20"))


def test_only_what_a_recipe_leaves_open_is_made_short():
    mine = Recipe(max_epochs=7, evaluate_every=5)
    assert shorten_recipe(mine, 100) == mine
    assert shorten_recipe(Recipe(), 3200, max_epochs=250).max_epochs == 250
    assert shorten_recipe(Recipe(), 320_000).max_epochs == 20
    assert shorten_recipe(Recipe(evaluate_growth=0.5), 320).evaluate_every is None


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(evaluate_every=4), Recipe(evaluate_every=1, evaluate_growth=0.3)])
def test_looks_are_counted_as_a_run_makes_them(recipe, model, meter):
    some = load_data("digits@200")
    job = RetrainingJob(some, some, 1.0, dataclasses.replace(recipe, learning_rate=1e-6, max_epochs=3))
    update = retrain(model, job, meter=meter)
    assert update.cost.steps == job.max_steps
    assert tuple(evaluation_steps(job.max_steps, job.steps_per_epoch, recipe)) == update.curve.steps


def test_a_plan_says_beforehand_what_it_would_do_and_cost(made, meter):
    assert made.clean_accuracy > TARGET
    assert {candidate.shift for candidate in made.candidates} < set(applicable_shifts(made.request.train))
    assert len(made.runs) == 5
    assert len({each.shift.split(":")[0] for each in made.runs}) >= 3
    assert all(each.features.accuracy < TARGET and each.features.index_rad > 0 for each in made.runs)
    assert all(each.done is None and each.expected_steps is None for each in made.runs)
    assert made.typical is None
    bill = made.at_most
    assert (bill.runs, bill.steps) == (5, 5 * made.request.job("blur:1").max_steps)
    assert bill.training_s == pytest.approx(bill.steps * made.step_cost.wall_s)
    assert bill.energy_kwh == pytest.approx(meter.watts * bill.wall_s / 3.6e6)
    assert bill.carbon_kg == pytest.approx(0.05 * bill.energy_kwh)


def test_a_campaign_that_was_killed_goes_on_and_can_be_made_longer(model, made, meter, tmp_path):
    before, ledger, asked = fingerprint(model), Ledger(tmp_path / "resque.db"), made.request
    with pytest.raises(KeyboardInterrupt):
        run_calibration(model, made, ledger, meter=meter, on_progress=interrupt(run=2, step=1))
    first = ledger.updates()
    assert [update.train_data for update in first] == [asked.job(each.shift).train.name for each in made.runs[:2]]
    done = run_calibration(model, made, ledger, meter=meter)
    assert list(done) == ledger.updates()
    assert list(done[:2]) == first
    assert {update.parent for update in done} == {before} == {fingerprint(model)}
    assert [update.shift_type for update in done] == [each.shift.split(":")[0] for each in made.runs]
    assert [update.features for update in done] == [each.features for each in made.runs]
    assert sum(update.cost.steps for update in done) <= made.at_most.steps
    assert all(update.original_accuracy_before == made.clean_accuracy for update in done)
    assert sum(update.reached for update in done) >= 3
    longer = plan_calibration(model, dataclasses.replace(asked, updates=6), meter=meter, history=ledger.updates())
    assert [each.done for each in longer.runs] == [*(update.id for update in done), None]
    assert (longer.at_most.runs, longer.typical.runs) == (1, 1)
    assert 0 < longer.typical.steps <= longer.at_most.steps


def test_a_run_that_was_killed_goes_on_within_its_epochs(model, made, meter, tmp_path):
    ledger, folder = Ledger(tmp_path / "resque.db"), tmp_path / "checkpoints"
    checkpoint = Checkpoint(folder, every_s=0.0, resume=True)
    hard = dataclasses.replace(made, request=dataclasses.replace(made.request, target_accuracy=1.0), runs=made.runs[:1])
    second_epoch = made.request.job("blur:1").steps_per_epoch + 1
    with pytest.raises(KeyboardInterrupt):
        run_calibration(
            model, hard, ledger, meter=meter, checkpoint=checkpoint, on_progress=interrupt(run=0, step=second_epoch)
        )
    assert list(folder.glob("*"))
    (update,) = run_calibration(model, hard, ledger, meter=meter, checkpoint=checkpoint)
    assert update.resumed == 1
    assert not list(folder.glob("*"))


def interrupt(run: int, step: int):
    """Press Ctrl-C in this run, at its first look from this step on."""

    def on_progress(done: int, total: int, detail: str) -> None:
        if done == run and int(detail.split(", ")[1].removeprefix("step ")) >= step:
            raise KeyboardInterrupt

    return on_progress


def test_what_cannot_be_calibrated_is_refused(model, made, meter):
    asked = made.request

    def refused(**changes) -> str:
        kinds = (DataError, ModelError, SettingError)
        with pytest.raises(kinds) as stop:
            plan_calibration(changes.pop("model", model), dataclasses.replace(asked, **changes), meter=meter)
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
    scaled = dataclasses.replace(asked.test, inputs=asked.test.inputs.float() / 127.5 - 1.0)
    assert "images in [0, 1]" in refused(test=scaled)


def test_the_command_line_ends_in_a_ledger_that_forecasts(cli, learned):
    net = f"--model {learned[0]}:build --weights {learned[1]}"
    line = (
        f"calibrate {net} --data digits@train --test digits@test --recipe train-adam,learning_rate=0.005,max_epochs=6"
    )
    code, out, err = cli(f"{line} --updates 5 --country FRA")
    assert code == 0, err
    made = Ledger("resque.db").updates()
    assert len(made) == 5
    assert {update.train_data.partition("+")[0] for update in made} == {"digits@train@shifted"}
    assert all(update.grid.region == "FRA" for update in made)
    told = next(row for row in out.splitlines() if row.startswith("resque forecast"))
    code, out, err = cli(f"{line} --updates 6 --max-hours 0 --json")
    assert code == 3, err
    assert "beyond budget, nothing was trained" in err
    said = json.loads(out)
    assert [each["done"] for each in said["runs"]] == [*(update.id for update in made), None]
    assert 0.96 * said["clean_accuracy"] < said["target_accuracy"] < 0.97 * said["clean_accuracy"] + 1e-9
    assert (said["at_most"]["runs"], said["updates"]) == (1, [])
    assert len(Ledger("resque.db").updates()) == 5
    unseen = "+gaussian:4/rotation:4"
    told = told.replace("NEW-HELD-OUT", f"digits@test{unseen}").replace("NEW", f"digits@train@shifted{unseen}")
    code, out, err = cli(f"{told.removeprefix('resque ')} --max-hours 1")
    assert code in (0, 3), out + err
    assert "learned from 5 updates" in out
    code, _, err = cli(f"calibrate {net} --data digits~digits --dry-run")
    assert (code, "one source" in err) == (1, True)
