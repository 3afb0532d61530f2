"""A pilot is the first steps of its update: what continues it ends as the uninterrupted run does, bit for bit."""

import copy
import dataclasses
import io

import pytest
import torch
from torch import nn

from resque.models.networks import small_cnn
from resque.models.randomness import isolated_random_state
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint, run_identity, save_checkpoint
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.pilot import run_pilot
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.training.run import RunSettings
from resque.training.trainer import Trainer

RECIPES = {
    "adam": "train-adam,batch_size=32",
    "sgd": "train-sgd,batch_size=48,learning_rate=0.01,momentum=0.9",
    "a batch that does not divide": "train-adam,batch_size=33,schedule=cosine,max_epochs=4",
    "head": "train-adam,trains=head",
    "scales of normalization": "train-adam,trains=norm-scales",
    "lora": "train-adam,trains=lora,rank=2,learning_rate=0.01",
    "augmentation": "train-adam,augmentation=flip+jitter",
    "augmentation in short blocks": "train-adam,augmentation=flip+jitter,batch_size=9",
}
NEEDS = {"lora": "peft", "augmentation": "kornia", "augmentation in short blocks": "kornia"}


@pytest.fixture(params=RECIPES)
def recipe(request):
    if request.param in NEEDS:
        pytest.importorskip({"kornia": "kornia.augmentation"}.get(NEEDS[request.param], NEEDS[request.param]))
    return named_recipe(RECIPES[request.param])


@pytest.fixture
def model():
    """A network with dropout, batch normalization and a dense layer beside its head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(196, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10),
    )  # fmt: skip


def started(model, data, recipe):
    return Trainer(copy.deepcopy(model), data, recipe, seed=3)


def steps(trainer, count):
    for _ in range(count):
        trainer.step()


def read_back(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def same(one, other):
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("at", [1, 7, 10, 25])
def test_training_continues_from_any_step(model, small, recipe, at):
    data, most = small[0], 31
    with isolated_random_state(torch.device("cpu"), seed=3):
        whole = started(model, data, recipe)
        steps(whole, most)
        expected = read_back(whole.state())
    with isolated_random_state(torch.device("cpu"), seed=3):
        first = started(model, data, recipe)
        steps(first, at)
        kept = read_back(first.state())
    with isolated_random_state(torch.device("cpu"), seed=77):
        rest = started(model, data, recipe)
        rest.restore(kept)
        steps(rest, most - at)
        found = read_back(rest.state())
        assert rest.cost_tracker.totals(rest.within_epoch) == whole.cost_tracker.totals(whole.within_epoch)
    assert same(found, expected)


def test_blocks_of_augmentation_that_have_passed_are_not_computed_again(small, monkeypatch):
    pytest.importorskip("kornia.augmentation")
    recipe = named_recipe("train-adam,augmentation=flip,batch_size=4")
    first = Trainer(small_cnn(), small[0], recipe, seed=0)
    assert (first.steps_per_block, first.steps_per_epoch) == (16, 80)
    steps(first, 35)
    rest, sizes = Trainer(small_cnn(), small[0], recipe, seed=0), []
    original = rest._augment
    monkeypatch.setattr(rest, "_augment", lambda images: (sizes.append(len(images)), original(images))[1])
    rest.restore(read_back(first.state()))
    rest.step()
    assert sizes == [64]


def test_states_without_the_order_of_an_epoch_are_still_read(small):
    """A checkpoint of an earlier version, which was written at the end of an epoch."""
    recipe = named_recipe("train-adam")
    first, rest = (Trainer(small_cnn(), small[0], recipe, seed=0) for _ in range(2))
    steps(first, 10)
    former = ("model", "optimizer", "schedule", "order", "random", "device_random", "tally", "step_count")
    rest.restore({key: value for key, value in read_back(first.state()).items() if key in former})
    steps(first, 3)
    steps(rest, 3)
    assert same(read_back(rest.state()), read_back(first.state()))


class KilledError(Exception):
    pass


def pilot_of(model, job, steps, meter, folder):
    """A pilot, with the settings of a run that continues it."""
    pilot, state = run_pilot(model, job, steps, fingerprint(model), RunSettings(meter))
    save_checkpoint(folder / "pilots" / "f.checkpoint", state)
    return pilot, Checkpoint(folder / "runs", every_s=0.0, pilot=folder / "pilots" / "f.checkpoint")


def continued(model, job, steps, meter, folder, **more):
    """A pilot, and the update that continues it, of copies of the model."""
    pilot, at = pilot_of(model, job, steps, meter, folder)
    learner = copy.deepcopy(model)
    return pilot, retrain(learner, job, meter=meter, checkpoint=at, **more), learner


def by_step(curve):
    columns = curve.accuracy, curve.loss, curve.gradient_norm, curve.gradient_norm_last_batch, curve.parameter_change
    return dict(zip(curve.steps, zip(*columns, strict=True), strict=True))


def with_settings(recipe, **changes):
    return dataclasses.replace(recipe, **changes)


@pytest.mark.parametrize("length", [1, 7, 10, 23])
def test_update_that_continues_a_pilot_is_the_whole_update(model, small, recipe, length, meter, tmp_path):
    recipe = with_settings(recipe, max_epochs=4, evaluate_every=2, evaluate_growth=0.3)
    job = RetrainingJob(*small, 0.999, recipe, seed=3)
    whole = copy.deepcopy(model)
    expected = retrain(whole, job, meter=meter)
    before = fingerprint(model)
    pilot, update, learner = continued(model, job, length, meter, tmp_path)
    assert fingerprint(learner) == fingerprint(whole) == update.child
    assert fingerprint(model) == before
    common = by_step(expected.curve)
    assert {step: values for step, values in by_step(update.curve).items() if step in common} == common
    assert set(update.curve.steps) - set(common) <= set(pilot.curve.steps)
    for cost in ("steps", "epochs", "samples", "gradient_norm", "gradient_norm_last_batch", "parameter_change"):
        assert getattr(update.cost, cost) == getattr(expected.cost, cost)
    assert (update.stopped_by, update.reached) == (expected.stopped_by, expected.reached)
    assert (update.pilot_steps, update.resumed, pilot.steps) == (length, 0, length)


@pytest.mark.parametrize("length", [1, 7, 8, 30, 50, 51, 100])
@pytest.mark.parametrize("schedule", [{}, {"evaluate_every": 4}, {"evaluate_every": 1, "evaluate_growth": 0.25}])
def test_pilot_is_evaluated_a_few_times_and_as_its_recipe_says(small, meter, length, schedule):
    job = RetrainingJob(*small, 1.0, named_recipe("train-adam,batch_size=32"))
    job = dataclasses.replace(job, recipe=with_settings(job.recipe, learning_rate=1e-9, **schedule))
    pilot, _ = run_pilot(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), job, length, "", RunSettings(meter))
    percents = (10, 30, 60, 100) if length <= 50 else (5, 10, 20, 30, 40, 50, 60, 70, 85, 100)
    additional = {-(-length * percent // 100) for percent in percents}
    own = {step for step in evaluation_steps(length, job.steps_per_epoch, job.recipe) if step <= length}
    assert set(pilot.curve.steps) == additional | own | {0}


def test_target_within_the_pilot_ends_the_run(small, cnn, meter, tmp_path):
    job = RetrainingJob(*small, 0.3, named_recipe("train-adam"), seed=1)
    pilot, update, _ = continued(cnn, job, 40, meter, tmp_path)
    assert pilot.stopped_by == update.stopped_by == "target"
    assert pilot.accuracy == update.accuracy >= 0.3
    assert update.cost.steps == update.pilot_steps == pilot.steps < 40
    assert update.energy == pilot.reading
    at = RetrainingJob(*small, pilot.accuracy, job.recipe, seed=1)
    assert run_pilot(cnn, at, pilot.steps, "", RunSettings(meter))[0].curve.steps[-1] == pilot.steps


def test_readings_of_the_pilot_are_part_of_the_update(small, cnn, meter, tmp_path):
    job = RetrainingJob(*small, 0.999, named_recipe("train-adam,max_epochs=2"), seed=1)
    pilot, update, _ = continued(cnn, job, 13, meter, tmp_path)
    assert update.energy.wall_s > pilot.reading.wall_s > pilot.training_s + pilot.evaluation_s > pilot.training_s > 0
    assert update.energy.energy_kwh > pilot.reading.energy_kwh > 0
    assert update.evaluation_s > pilot.evaluation_s
    assert update.curve.until(13) == pilot.curve


@pytest.mark.parametrize("killed_at", [10, 20])
def test_killed_continuation_resumes_from_its_own_file(small, cnn, meter, tmp_path, killed_at):
    """Before and after the first checkpoint of its own, which goes before the pilot's."""
    job = RetrainingJob(*small, 0.999, named_recipe("train-adam,max_epochs=3,evaluate_every=5"), seed=1)
    expected = retrain(copy.deepcopy(cnn), job, meter=meter)
    _, at = pilot_of(cnn, job, 7, meter, tmp_path)

    def kill(progress):
        if progress.step >= killed_at:
            raise KilledError

    with pytest.raises(KilledError):
        retrain(copy.deepcopy(cnn), job, meter=meter, checkpoint=at, on_progress=kill)
    steps = []
    resumed = dataclasses.replace(at, resume=True)
    note = lambda progress: steps.append(progress.step)  # noqa: E731
    update = retrain(copy.deepcopy(cnn), job, meter=meter, checkpoint=resumed, on_progress=note)
    assert (update.child, update.cost.steps) == (expected.child, expected.cost.steps)
    assert (update.pilot_steps, update.resumed) == (7, 1)
    assert steps[0] == (10 if killed_at == 10 else 15)


def test_identity_tells_what_changes_a_run_and_nothing_else(small, cnn):
    job = RetrainingJob(*small, 0.9, named_recipe("train-adam"), seed=1)
    other = dataclasses.replace(small[0], labels=small[0].labels.roll(1))
    changes = (
        {"seed": 2}, {"target_accuracy": 0.8}, {"shift_type": "x"}, {"train": other},
        {"recipe": named_recipe("train-sgd")},
    )  # fmt: skip
    others = [dataclasses.replace(job, **change) for change in changes]
    same_run = dataclasses.replace(job, original_test=small[1], shift_type=job.effective_shift_type)
    assert run_identity("a", same_run) == run_identity("a", job)
    assert len({run_identity("a", job), run_identity("b", job), *(run_identity("a", each) for each in others)}) == 7
