"""A classifier that must also know further classes: what it forgets, what replay costs, and the weights that follow."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from torch import nn

import resque
from doubles import ReplayMeter
from resque.data.loading import load_data
from resque.errors import DataError, ResqueWarning, SettingError
from resque.ledger.store import Ledger
from resque.models.heads import replace_head
from resque.models.networks import small_cnn
from resque.models.weights import read_weights
from resque.training.evaluation import evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.new_task import forgetting_risk, prepare_new_task
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = small_cnn()
    replace_head(net, 5)
    return net


@pytest.fixture
def calls(folder):
    shared = {"ledger": folder / "resque.db", "meter": ReplayMeter()}
    return functools.partial(resque.forecast, **shared), functools.partial(resque.update, **shared)


def digits_of(part, classes, n=150, names=()):
    data = load_data(f"digits@16px@{part}")
    rows = torch.isin(data.labels, torch.tensor(classes)).nonzero()[:, 0][:n]
    return dataclasses.replace(data.take(rows), name=f"{part} of {classes}", class_names=names)


OLD, NEW, ALL = range(5), range(5, 10), range(10)


def job_of(train=NEW, test=NEW, replay=None, kept=None, recipe="train-adam,fixed_epochs=2"):
    recipe = dataclasses.replace(named_recipe(recipe), replay=0.0 if replay is None else 0.5)
    return RetrainingJob(
        digits_of("train", [*train]),
        digits_of("test", [*test]),
        0.9,
        recipe,
        replayed=None if replay is None else digits_of("train", [*replay]),
        original_test=None if kept is None else digits_of("test", [*kept]),
    )


def test_accuracy_on_the_old_classes_is_that_of_the_old_model_then_of_all_outputs(model, meter):
    with torch.no_grad():
        model[-1].bias.fill_(-20.0)  # a random new output would win
    job = job_of(kept=OLD)
    before = evaluate_dataset(model, job.original_test)[0]
    learner, prepared = prepare_new_task(model, job, extend=True)
    update = retrain(learner, prepared, meter=meter)
    assert update.original_accuracy_before == before > 0.0
    assert update.original_accuracy_after == evaluate_dataset(learner, job.original_test)[0] == 0.0
    assert "replay=0.2 in the recipe" in update.forgetting


@pytest.mark.parametrize("kept", [range(3), range(5)])
@pytest.mark.parametrize("train", [NEW, ALL, range(3, 7)])
def test_original_data_keep_their_labels_and_new_classes_follow(model, train, kept):
    learner, prepared = prepare_new_task(model, job_of(train, train, kept, kept), extend=True)
    assert prepared.replayed.classes == prepared.original_test.classes == list(kept)
    assert set(prepared.trained_on.classes) == {*train, *kept}
    assert learner[-1].out_features == max(train) + 1


@pytest.mark.parametrize("which", ["replay", "kept"])
@pytest.mark.parametrize("classes", [range(6), range(5, 7)])
def test_original_data_of_classes_beyond_the_model_are_refused(model, which, classes):
    with pytest.raises(DataError, match="the model has 5 outputs"):
        prepare_new_task(model, job_of(**{which: classes}), extend=True)


@pytest.mark.parametrize("which", ["replay", "kept"])
def test_new_head_has_no_old_classes_to_measure_or_replay(model, which):
    with pytest.raises(SettingError, match="a new head has none of the old classes"):
        prepare_new_task(model, job_of(**{which: OLD}))


def test_replayed_classes_may_be_tested(model):
    learner, prepared = prepare_new_task(model, job_of(NEW, ALL, OLD), extend=True)
    assert prepared.test.classes == list(ALL)
    assert learner[-1].out_features == 10
    with pytest.raises(DataError, match="replay some"):
        job_of(NEW, ALL)


def test_original_data_may_name_the_old_classes_alone():
    names = tuple("abcdefghij")
    train, test = (digits_of(part, [*NEW], names=names) for part in ("train", "test"))
    kept = digits_of("test", [*OLD], names=names[:5])
    assert RetrainingJob(train, test, 0.9, original_test=kept).original_test is kept
    with pytest.raises(DataError, match="number the classes differently"):
        RetrainingJob(train, test, 0.9, original_test=dataclasses.replace(kept, class_names=tuple("abced")))


@pytest.mark.parametrize("batch_size", [1, 32, 64, 150, 1000])
def test_risk_tells_the_steps_per_epoch_that_replay_takes(model, batch_size):
    job = job_of(recipe=f"train-adam,batch_size={batch_size}")
    replayed = dataclasses.replace(
        job, recipe=dataclasses.replace(job.recipe, replay=0.2), replayed=digits_of("train", [*OLD])
    )
    ratio = replayed.steps_per_epoch / job.steps_per_epoch
    assert f"at {ratio:.2f} times the steps per epoch" in forgetting_risk(model, job)


@pytest.mark.parametrize(("train", "replay"), [(ALL, None), ([4, 5], None), (NEW, OLD)])
def test_no_risk_is_told_where_old_classes_are_trained(model, train, replay):
    assert forgetting_risk(model, job_of(train, train, replay)) is None


RECIPE = "train-adam,max_epochs=1"


def test_forecast_and_update_tell_the_risk(calls, model, folder):
    forecast, update = calls
    train, test = digits_of("train", [*NEW]), digits_of("test", [*NEW])
    made = forecast(model, train, test, 0.999, extend=True, recipe=RECIPE)
    assert [note for note in made.notes if "probably be forgotten" in note]
    with pytest.warns(ResqueWarning, match=r"none of the 5 old classes.*replay=0.2.* times the steps per epoch"):
        update(model, train, test, 0.999, forecast=made, out=folder / "new")


@pytest.mark.filterwarnings("error::resque.errors.ResqueWarning")
def test_replay_goes_from_forecast_and_pilot_to_the_update(calls, model, folder):
    forecast, update = calls
    train, test, old = digits_of("train", [*NEW]), digits_of("test", [*ALL]), digits_of("train", [*OLD])
    asked = {"extend": True, "original": old}
    made = forecast(model, train, test, 0.999, recipe=RECIPE + ",replay=0.5", pilot=3, **asked)
    assert not [note for note in made.notes if "forgotten" in note]
    kept = digits_of("test", [*OLD])
    done = update(model, train, test, 0.999, forecast=made, original=old, original_test=kept, out=folder / "new")
    assert (done.replay_data, done.pilot_steps, done.cost.samples) == (old.name, 3, 300)
    assert done.original_accuracy_before == evaluate_dataset(model, kept)[0]
    assert resque.Profile.load(folder / "new/profile.safetensors").sums.keys() == {*ALL}


@pytest.mark.filterwarnings("ignore::resque.errors.ResqueWarning")
@pytest.mark.parametrize("replay", [0.0, 0.5])
def test_interrupted_extension_resumes_to_the_same_model(calls, model, folder, monkeypatch, replay):
    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step > 12:  # after the first epoch, whose end has a checkpoint
            raise StopError

    _, update = calls
    asked = {"extend": True, "recipe": f"train-adam,max_epochs=3,evaluate_every=2,replay={replay}"}
    asked |= {"original": digits_of("train", [*OLD])} if replay else {}
    job = digits_of("train", [*NEW]), digits_of("test", [*NEW]), 0.9999
    with monkeypatch.context() as patch:
        patch.setattr("resque.workflows.running.progress_text", stop)
        with pytest.raises(StopError):
            update(model, *job, out=folder / "new", checkpoint_every_s=0.0, **asked)
    resumed = update(model, *job, out=folder / "new", resume=True, **asked)
    whole = update(model, *job, out=folder / "whole", **{**asked, "ledger": folder / "other.db"})
    assert resumed.resumed == 1
    assert (resumed.child, resumed.curve.accuracy) == (whole.child, whole.curve.accuracy)
    assert read_weights(folder / "new/model.safetensors")["12.weight"].shape[0] == 10


@pytest.mark.parametrize("original", ["profile", "data"])
def test_original_of_an_extension_is_for_replay_alone(calls, model, original):
    old = digits_of("train", [*OLD])
    source = resque.profile(model, old) if original == "profile" else old
    for call in calls:
        with pytest.raises(SettingError, match="for replay alone: add replay=0.2"):
            call(model, digits_of("train", [*NEW]), digits_of("test", [*NEW]), 0.9, extend=True, original=source)


@pytest.fixture
def five(folder):
    """A net of five outputs without a parameter, and digits in files: the old ones, the new ones and all."""
    (folder / "net.py").write_text(
        "from torch import nn\n"
        "def build(): return nn.Sequential(nn.Flatten(), nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 5))\n"
    )
    for name, classes in {"old": OLD, "new": NEW, "all": ALL}.items():
        for part in ("train", "test"):
            data = digits_of(part, [*classes], n=240)
            images = np.rint(255 * next(data.batches(len(data)))[0][:, 0].numpy()).astype(np.uint8)
            np.savez(folder / f"{name}-{part}.npz", x=images, y=data.labels.numpy())
    return folder


def test_shift_extension_and_shift_run_by_one_specification(cli, five):
    def run(line):
        code, out, err = cli(f"{line} --model net.py:build --json")
        assert code in (0, 4), (line, err)
        return json.loads(out)

    recipe = "--recipe train-adam,learning_rate=0.003,max_epochs=4"
    first = run(f"retrain --train npz:old-train.npz --test npz:old-test.npz --target-accuracy 0.95 {recipe} --out a")
    shift = "--test npz:old-test.npz+gaussian:2 --target-accuracy 0.9999 --weights a/model.safetensors"
    made = run(f"forecast --shifted npz:old-train.npz+gaussian:2 --original a/profile.safetensors {shift} {recipe}")
    second = run(f"retrain --train npz:old-train.npz+gaussian:2 {shift} --forecast {made['id']} --out b")
    task = "--test npz:all-test.npz --target-accuracy 0.9999 --weights b/model.safetensors"
    replayed = f"--original npz:old-train.npz {recipe},replay=0.5"
    made = run(f"forecast --task npz:new-train.npz --extend {task} {replayed} --pilot 3")
    kept = "--original-test npz:old-test.npz"
    third = run(f"retrain --train npz:new-train.npz {task} {kept} --forecast {made['id']} --out c")
    assert (third["shift_type"], third["pilot_steps"], third["replay_data"]) == (
        "extension", 3, "npz:old-train.npz",
    )  # fmt: skip
    wide = "--weights c/model.safetensors"
    shift = f"--test npz:all-test.npz+gaussian:2 --target-accuracy 0.9999 {wide} {kept}"
    run(f"profile --data npz:all-train.npz {wide} --out wide.safetensors")
    made = run(
        f"forecast --shifted npz:all-train.npz+gaussian:2 --original c/profile.safetensors {recipe} "
        f"{shift.replace(kept, '')} --pilot 2"
    )
    assert made["features"]["index_rad"] is not None
    shifted = f"retrain --train npz:all-train.npz+gaussian:2 --original c/profile.safetensors {shift}"
    fourth = run(f"{shifted} --forecast {made['id']} --out d")
    assert fourth["angle_to_parent_rad"] is not None
    assert [each["parent"] for each in (second, third, fourth)] == [each["child"] for each in (first, second, third)]
    code, _, err = cli(f"{shifted} {recipe} --model net.py:build --classes 5 --out e")
    assert (code, "have 10 outputs, and --classes says 5" in err) == (1, True)
    assert nn.Linear(24, 10).weight.shape == resque.load_model("net.py:build", "d/model.safetensors")[-1].weight.shape
    code, _, err = cli("report --out page.html")
    assert code == 0, err
    assert "extension" in (five / "page.html").read_text()
    assert len(Ledger(five / "resque.db").settled()) == 3


def test_extended_model_is_extended_again_and_compared_with_scratch(cli, five):
    def run(line):
        code, out, err = cli(f"{line} --model net.py:build --json")
        assert code == 0, (line, err)
        return json.loads(out)

    recipe = "--recipe train-adam,max_epochs=1 --target-accuracy 0.9999"
    run(f"retrain --train npz:new-train.npz --extend --test npz:new-test.npz {recipe} --out a")
    np.savez(five / "more.npz", **dict(np.load(five / "new-train.npz")) | {"y": np.load("new-train.npz")["y"] + 7})
    again = f"retrain --train npz:more.npz --extend --test npz:more.npz {recipe} --weights a/model.safetensors"
    run(f"{again} --original-test npz:all-test.npz --out b")
    wide = resque.load_model("net.py:build", "b/model.safetensors")
    assert wide[-1].out_features == 15
    scratch = f"--weights b/model.safetensors --test npz:all-test.npz {recipe} --from-scratch --seeds 1"
    assert len(run(f"retrain --train npz:all-train.npz {scratch} --out c")["scratch"]) == 1


def test_accuracy_on_the_old_classes_comes_from_the_project_file_too(cli, five):
    (five / "resque.toml").write_text('[model]\nspec = "net.py:build"\n[data]\noriginal_test = "npz:old-test.npz"\n')
    rest = "--train npz:new-train.npz --test npz:new-test.npz --target-accuracy 0.99 --json"
    shared = "--recipe train-adam,max_epochs=1"
    code, out, err = cli(f"retrain {rest} {shared} --extend")
    assert code == 0, err
    assert json.loads(out)["original_accuracy_before"] is not None
    assert "will probably be forgotten" in err
    code, out, err = cli(f"retrain {rest} {shared} --new-head")
    assert (code, json.loads(out)["original_accuracy_before"]) == (0, None)
    code, _, err = cli(f"retrain {rest} {shared} --new-head --original-test npz:old-test.npz")
    assert (code, "none of the old classes" in err) == (1, True)
