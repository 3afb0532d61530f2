"""Checkpoints: an interrupted run resumes to the same curve, without partial entries."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from resque.data.loading import load_data
from resque.energy.meters import ClockMeter
from resque.errors import DataError
from resque.ledger.serialization import to_dict
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.weights import fingerprint, save_weights
from resque.training.checkpoint import Checkpoint, load_checkpoint
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain

JOB = "augmentation=flip+jitter,schedule=cosine,max_epochs=4"


class KilledError(Exception):
    pass


def killed_at(step):
    def on_progress(progress):
        if progress.step >= step:
            raise KilledError

    return on_progress


@pytest.fixture
def job(small):
    pytest.importorskip("kornia")
    return RetrainingJob(*small, 1.0, named_recipe(f"train-adam,{JOB}"), seed=1)


def curve_of(update):
    return {key: value for key, value in vars(update.curve).items() if key != "wall_s"}


@pytest.mark.parametrize("step", [15, 20, 35])
def test_resumed_run_has_the_same_curve_bit_for_bit(tmp_path, job, meter, step):
    from resque.models.networks import small_cnn

    def model():
        torch.manual_seed(0)
        return small_cnn()

    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, evaluate_every=5))
    whole, kept = model(), model()
    expected = retrain(whole, job, meter=meter)
    at = Checkpoint(tmp_path, every_s=0.0)
    with pytest.raises(KilledError):
        retrain(model(), job, meter=meter, checkpoint=at, on_progress=killed_at(step))
    (file,) = tmp_path.glob("*.checkpoint")
    energy = sum(reading["energy_kwh"] for reading in load_checkpoint(file)["readings"])
    update = retrain(kept, job, meter=meter, checkpoint=dataclasses.replace(at, resume=True))
    assert curve_of(update) == curve_of(expected)
    assert fingerprint(kept) == fingerprint(whole)
    assert (update.resumed, expected.resumed) == (1, 0)
    assert update.energy.energy_kwh > energy > 0
    assert at.started_utc(update.parent, job) == update.started_utc
    at.remove(update.parent, job)
    assert not list(tmp_path.iterdir())


def test_ended_run_is_restored_without_training(tmp_path, cnn, job, meter):
    from resque.models.networks import small_cnn

    at = Checkpoint(tmp_path, every_s=0.0, resume=True)
    job = dataclasses.replace(job, target_accuracy=0.3, recipe=dataclasses.replace(job.recipe, evaluate_every=3))
    first = small_cnn()
    first.load_state_dict(cnn.state_dict())
    update = retrain(first, job, meter=meter, checkpoint=at)
    steps = []
    again = retrain(cnn, job, meter=meter, checkpoint=at, on_progress=lambda progress: steps.append(progress.step))
    assert update.reached
    assert update.cost.steps % 10 != 0
    assert (again.id, again.curve, again.child, steps) == (update.id, update.curve, update.child, [])
    assert fingerprint(cnn) == fingerprint(first)


def test_run_without_resume_starts_from_the_beginning(tmp_path, cnn, job, meter):
    from resque.models.networks import small_cnn

    at = Checkpoint(tmp_path, every_s=0.0)
    with pytest.raises(KilledError):
        retrain(small_cnn(), job, meter=meter, checkpoint=at, on_progress=killed_at(20))
    assert retrain(cnn, job, meter=meter, checkpoint=at).resumed == 0


def test_different_runs_have_different_files(tmp_path, job):
    at = Checkpoint(tmp_path)
    changed = dataclasses.replace(job.train, labels=job.train.labels.roll(1))  # under the same name
    changes = (
        {"seed": 2},
        {"target_accuracy": 0.9},
        {"shift_type": "x"},
        {"train": changed},
        {"original_test": job.test},
    )
    others = [dataclasses.replace(job, **change) for change in changes]
    assert len({at.path("a", job), at.path("b", job), *(at.path("a", other) for other in others)}) == 7


def test_other_files_are_refused_as_checkpoints(tmp_path, cnn, job, meter):
    at = Checkpoint(tmp_path, resume=True)
    path = at.path(fingerprint(cnn), job)
    path.write_text("no checkpoint")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        retrain(cnn, job, meter=meter, checkpoint=at)
    torch.save({"format": "other"}, path)
    with pytest.raises(DataError, match="is not a checkpoint"):
        retrain(cnn, job, meter=meter, checkpoint=at)


@pytest.mark.parametrize("resume", [False, True])
def test_equal_run_at_the_same_time_is_refused_and_harms_nothing(tmp_path, cnn, job, meter, resume):
    """The second run starts while the first is in progress, and again once it has ended."""
    at, refusals = Checkpoint(tmp_path, every_s=0.0, resume=resume), []
    before = fingerprint(cnn)

    def second(progress):
        if progress.step:
            with pytest.raises(DataError, match="an equal run is going on") as error:
                retrain(copy.deepcopy(start), job, meter=meter, checkpoint=at)
            refusals.append(str(error.value))
            other = dataclasses.replace(job, seed=job.seed + 1, recipe=named_recipe("train-adam,max_epochs=1"))
            assert retrain(copy.deepcopy(start), other, meter=meter, checkpoint=at).seed == other.seed

    start, job = copy.deepcopy(cnn), dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, max_epochs=2))
    expected = retrain(copy.deepcopy(cnn), job, meter=meter)
    update = retrain(cnn, job, meter=meter, checkpoint=at, on_progress=second)
    assert (curve_of(update), update.child) == (curve_of(expected), expected.child)
    assert fingerprint(start) == before
    assert len(refusals) == 2
    assert not list(tmp_path.glob("*.lock"))
    assert retrain(start, job, meter=meter, checkpoint=at).resumed == resume


def test_lock_is_held_until_the_file_is_removed(tmp_path, job):
    at = Checkpoint(tmp_path)
    with at.hold("parent", job) as held:
        with held.hold("parent", job) as again:
            assert again is held
        with pytest.raises(DataError, match="wait for its end, or name another --seed"), at.hold("parent", job):
            pass
        with at.hold("another", job):
            pass
    with at.hold("parent", job):
        pass


DATA = ["--train", "npz:d.npz@train", "--test", "npz:d.npz@test", "--target-accuracy", "1", "--max-epochs", "6"]
COMMAND = ["retrain", "--model", "resque.networks:small_cnn", *DATA, "--recipe", "train-adam"]
REPORT_CHECKPOINTS = """
import sys
from resque.training import run as retraining
from resque.cli import main

def save(*arguments, original=retraining.save_checkpoint):
    original(*arguments)
    print("kept", file=sys.__stdout__, flush=True)

retraining.save_checkpoint = save
sys.argv[0] = "resque"
main()
"""


def test_killed_process_leaves_no_partial_entry_and_resumes(cli, folder):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (300, 16, 16), dtype=np.uint8)
    np.savez(folder / "d.npz", x=x, y=np.arange(300) % 10)
    data, recipe = load_data("npz:d.npz"), named_recipe("train-adam", max_epochs=6)
    job = RetrainingJob(data.part("train"), data.part("test"), 1.0, recipe)
    expected = to_dict(retrain(load_model("resque.networks:small_cnn"), job, meter=ClockMeter()).curve)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [*COMMAND, "--checkpoint-every", "0", "--out", "killed"]
    command = [sys.executable, "-c", REPORT_CHECKPOINTS, *line]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"kept\n"
        process.send_signal(signal.SIGSTOP)
        for other in ("", " --resume"):
            code, out, err = cli(" ".join([*COMMAND, "--out", "second"]) + other)
            assert (code, out, err.count("\n")) == (1, "", 1)
            assert "an equal run is going on" in err
        process.kill()
    assert not (folder / "second").exists()
    assert process.returncode != 0
    assert list(folder.glob("updates/checkpoints/*.checkpoint"))
    assert not (folder / "killed" / "model.safetensors").exists()
    _, out, err = cli(" ".join([*line, "--resume", "--json"]))
    update = json.loads(out)
    assert update["resumed"] == 1, err
    assert {**update["curve"], "wall_s": 0} == {**expected, "wall_s": 0}
    assert not list(folder.glob("updates/checkpoints/*"))
    assert [entry["id"] for entry in json.loads(cli("ledger list --json")[1])["updates"]] == [update["id"]]


def one_epoch(folder):
    """A command line of one epoch, and the job that it describes."""
    np.savez(
        folder / "d.npz", x=np.random.default_rng(0).integers(0, 256, (60, 16, 16), np.uint8), y=np.arange(60) % 10
    )
    data, recipe = load_data("npz:d.npz"), named_recipe("train-adam", max_epochs=1)
    line = " ".join(COMMAND).replace("--max-epochs 6", "--max-epochs 1")
    return line, RetrainingJob(data.part("train"), data.part("test"), 1.0, recipe)


def test_ended_run_is_not_resumed(cli, folder):
    line, _ = one_epoch(folder)
    assert cli(f"{line} --out one")[0] == 0
    code, _, err = cli(f"{line} --out two --resume")
    assert (code, "this run has ended, as update" in err) == (1, True)
    assert cli(f"{line} --out two")[0] == 0


def test_kill_between_run_and_entry_loses_nothing(cli, folder):
    """What a kill between the end of the run and its entry leaves: the last state, and some of the files."""
    line, job = one_epoch(folder)
    model, at = load_model("resque.networks:small_cnn"), Checkpoint(folder / "updates" / "checkpoints")
    killed = retrain(model, job, meter=ClockMeter(), checkpoint=at)
    save_weights(model, folder / "out" / "model.safetensors")
    code, out, err = cli(f"{line} --out out --resume --json")
    assert code == 0, err
    assert json.loads(out)["id"] == killed.id
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["model.safetensors", "profile.safetensors"]
    assert not list(folder.glob("updates/checkpoints/*"))


def test_kill_after_the_entry_leaves_one_entry(cli, folder):
    line, job = one_epoch(folder)
    at = Checkpoint(folder / "updates" / "checkpoints")
    update = retrain(load_model("resque.networks:small_cnn"), job, meter=ClockMeter(), checkpoint=at)
    Ledger(folder / "resque.db").add(update)
    code, out, err = cli(f"{line} --out out --resume --json")  # its files may be missing, so they are written
    assert code == 0, err
    assert json.loads(out)["id"] == update.id
    assert [each.id for each in Ledger(folder / "resque.db").updates()] == [update.id]
    assert (folder / "out" / "model.safetensors").is_file()
    assert not list(folder.glob("updates/checkpoints/*"))
    code, _, err = cli(f"{line} --out out --resume")
    assert (code, f"has ended, as update {update.id}" in err) == (1, True)


def test_damaged_checkpoint_does_not_block_a_new_run(cli, folder):
    line, job = one_epoch(folder)
    path = Checkpoint(folder / "updates" / "checkpoints").path(
        fingerprint(load_model("resque.networks:small_cnn")), job
    )
    path.parent.mkdir(parents=True)
    path.write_text("spoiled")
    code, _, err = cli(f"{line} --resume")
    assert code == 1
    assert "start again without --resume" in err
    code, _, err = cli(line)
    assert code == 0, err
    assert not path.exists()
