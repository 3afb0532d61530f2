"""Replay: every epoch has each new sample once and its share of old ones; runs repeat, resume and are told apart."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from resque.data.preprocessing import ImagePreprocessing
from resque.errors import DataError, SettingError
from resque.models.networks import small_cnn
from resque.models.randomness import isolated_random_state
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint, run_identity, save_checkpoint
from resque.training.job import RetrainingJob, is_update_of
from resque.training.pilot import run_pilot
from resque.training.recipe import Recipe, named_recipe, recipe_to_dict
from resque.training.reestimation import open_trainer
from resque.training.replay import count_replayed, epoch_order
from resque.training.retrain import retrain
from resque.training.run import RunSettings

TRAINS = ("all", "head", "norm-scales", "norm", "lora")


@given(new=st.integers(1, 300), old=st.integers(1, 300), share=st.floats(0.001, 0.9), seed=st.integers(0, 5))
def test_epoch_has_every_new_sample_once_and_the_share_of_old_ones(new, old, share, seed):
    order = epoch_order(new + old, new, share, torch.Generator().manual_seed(seed))
    count = count_replayed(new, share)
    drawn = torch.bincount(order[order >= new] - new, minlength=old)
    assert sorted(order[order < new].tolist()) == list(range(new))
    assert int(drawn.sum()) == count == len(order) - new
    assert int(drawn.max() - drawn.min()) <= 1  # none twice before all came once
    assert abs(count - share * len(order)) <= 1.0
    assert torch.equal(order, epoch_order(new + old, new, share, torch.Generator().manual_seed(seed)))


@pytest.fixture
def parts(digits):
    """New training data, test data, and more original data than an epoch takes."""
    train = digits.part("train")
    return (
        train.take(torch.arange(160)),
        digits.part("test").take(torch.arange(100)),
        train.take(torch.arange(400, 1000)),
    )


def job_of(parts, recipe="train-adam", replay=0.2, **changes):
    recipe = dataclasses.replace(named_recipe(recipe), replay=replay, fixed_epochs=None)
    return RetrainingJob(parts[0], parts[1], 1.0, recipe, seed=3, replayed=parts[2], **changes)


def test_steps_and_samples_count_the_old_data(parts, meter, cnn):
    job = job_of(parts, "train-adam,max_epochs=2")
    assert (job.samples_per_epoch, job.steps_per_epoch, job.max_steps) == (200, 7, 14)
    assert (job.samples_after(7), job.samples_after(14), len(job.trained_on)) == (200, 400, 320)
    update = retrain(cnn, job, meter=meter)
    assert (update.cost.steps, update.cost.samples, update.replay_data) == (14, 400, parts[2].name)
    assert is_update_of(update, update.parent, job)


def test_old_samples_change_the_weights_and_the_seed_repeats_them(parts, meter, cnn):
    jobs = [job_of(parts, "train-adam,max_epochs=1", replay) for replay in (0.2, 0.2, 0.4, 0.0)]
    jobs.append(job_of((*parts[:2], parts[2].take(torch.arange(300))), "train-adam,max_epochs=1"))
    ends = [retrain(copy.deepcopy(cnn), job, meter=meter).child for job in jobs]
    assert ends[0] == ends[1]
    assert len(set(ends)) == 4


@pytest.mark.parametrize("trains", TRAINS)
@pytest.mark.parametrize("at", [1, 5, 7, 9])
def test_training_continues_from_any_step(parts, trains, at):
    model = small_cnn()
    if trains == "lora":
        pytest.importorskip("peft")
        torch.manual_seed(0)
        layers = torch.nn.Flatten(), torch.nn.Linear(256, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10)
        model = torch.nn.Sequential(*layers)
    job, most = job_of(parts, f"train-adam,trains={trains}"), 1 if trains == "norm" else 10
    at = min(at, most)

    def started():
        return open_trainer(copy.deepcopy(model), job.trained_on, job.recipe, job.seed, len(job.train))

    with isolated_random_state(torch.device("cpu"), seed=3):
        whole, rest = started(), started()
        for _ in range(at):
            whole.step()
        rest.restore(copy.deepcopy(whole.state()))
        for _ in range(most - at):
            whole.step()
            rest.step()
    expected, found = (trainer.state()["model"] for trainer in (whole, rest))
    assert rest.totals() == whole.totals()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.parametrize("trains", ["all", "head", "norm"])
def test_update_goes_on_from_its_pilot(parts, meter, tmp_path, cnn, trains):
    job, parent = job_of(parts, f"train-adam,trains={trains},max_epochs=2"), fingerprint(cnn)
    whole = retrain(copy.deepcopy(cnn), job, meter=meter)
    _, state = run_pilot(cnn, job, 3, parent, RunSettings(meter))
    save_checkpoint(tmp_path / "p.checkpoint", state)
    update = retrain(cnn, job, meter=meter, checkpoint=Checkpoint(tmp_path / "runs", pilot=tmp_path / "p.checkpoint"))
    assert (update.child, update.pilot_steps) == (whole.child, 1 if trains == "norm" else 3)


def test_runs_differ_in_share_and_old_data_and_nothing_else_new(parts, tmp_path):
    job = job_of(parts)
    other_data = *parts[:2], parts[2].take(torch.arange(9, 600))
    others = [job_of(parts, replay=0.3), job_of(parts, replay=0.0), job_of(other_data)]
    at = Checkpoint(tmp_path)
    assert len({at.path("a", each) for each in (job, *others)}) == 4
    assert len({run_identity("a", each) for each in (job, *others)}) == 4
    unused = dataclasses.replace(job_of(parts, replay=0.0), replayed=None)
    assert run_identity("a", unused) == run_identity("a", others[1])
    assert (others[1].replay_data, others[1].trained_on, others[1].digest) == (None, parts[0], unused.digest)


def test_updates_of_a_version_without_replay_are_still_recognized(parts, meter, cnn):
    job = dataclasses.replace(job_of(parts, "train-adam,max_epochs=1", 0.0), replayed=None)
    update = retrain(cnn, job, meter=meter)
    earlier = {name: value for name, value in recipe_to_dict(job.recipe).items() if name != "replay"}
    assert is_update_of(dataclasses.replace(update, recipe=earlier), update.parent, job)
    assert not is_update_of(
        dataclasses.replace(update, recipe=earlier), update.parent, job_of(parts, "train-adam,max_epochs=1")
    )


@pytest.mark.parametrize("replay", [-0.1, 1.0, 2.0, float("nan"), float("inf")])
def test_share_outside_its_range_is_refused(replay):
    with pytest.raises(SettingError, match="replay"):
        Recipe(replay=replay)


def test_old_data_that_do_not_fit_are_refused(parts, meter, cnn):
    with pytest.raises(SettingError, match=r"replay=0.2 mixes original data in: name them"):
        job_of((*parts[:2], None))
    with pytest.raises(DataError, match="different forms"):
        job_of((*parts[:2], parts[2].resized(8)))
    with pytest.raises(DataError, match="different preprocessing"):
        job_of((*parts[:2], dataclasses.replace(parts[2], transform=ImagePreprocessing(mean=(0.5,), std=(0.5,)))))
    named = [dataclasses.replace(part, class_names=tuple("abcdefghij")) for part in parts]
    with pytest.raises(DataError, match="number the classes differently"):
        job_of((*named[:2], dataclasses.replace(parts[2], class_names=tuple("jihgfedcba"))))
    before = fingerprint(cnn)
    with pytest.raises(DataError, match="labels run from"):
        retrain(cnn, job_of((*parts[:2], dataclasses.replace(parts[2], labels=parts[2].labels + 5))), meter=meter)
    assert fingerprint(cnn) == before
    assert job_of((*named[:2], parts[2])).trained_on.class_names == named[0].class_names


def test_a_model_from_scratch_replays_nothing():
    assert Recipe(replay=0.2).from_scratch().replay == 0.0
