"""Artifacts of an update: files, model lineage and ledger entry."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from doubles import synthetic_update
from resque.errors import DataError, LedgerError, ModelError, ResqueError, ResqueWarning
from resque.indices.compute_profile import profile
from resque.indices.distribution import mean_angle
from resque.indices.profile import Profile
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe
from resque.training.retrain import retrain
from resque.workflows import artifacts
from resque.workflows.artifacts import Lineage, save_update


@pytest.fixture
def trained(cnn, small, meter):
    recipe = dataclasses.replace(RECIPES["train-adam"], max_epochs=3)
    retrain(cnn, RetrainingJob(*small, 0.5, recipe), meter=meter)
    return cnn


def test_update_is_stored_with_its_lineage(tmp_path, trained, small, meter):
    def passed(model):
        return profile(model, small[0].batches(), preprocessing=small[0].preprocessing)

    ledger, job = Ledger(tmp_path / "h.db"), RetrainingJob(*small, 0.99, Recipe(fixed_epochs=1))
    line, first, kept = Lineage.of(passed(trained)), passed(trained), []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        update = retrain(trained, dataclasses.replace(job, seed=seed), meter=meter)
        kept.append(save_update(update, trained, folder, ledger, line, lambda: passed(trained)))
        line = Lineage.of(Profile.load(folder / "profile.safetensors"), folder / "profile.safetensors")
    assert ledger.updates() == kept
    assert Profile.load(tmp_path / "1" / "origin.safetensors").origin == first.origin
    assert kept[0].angle_to_parent_rad == kept[0].angle_to_root_rad > 0
    assert kept[1].angle_to_root_rad == pytest.approx(mean_angle(first, passed(trained)))
    assert kept[1].angle_to_parent_rad != kept[1].angle_to_root_rad
    assert kept[1].parent == kept[0].child


def test_entry_is_written_even_if_its_files_fail(tmp_path, cnn):
    ledger = Ledger(tmp_path / "h.db")
    with pytest.raises(ModelError, match="broken"):
        save_update(synthetic_update("u", index=0.1, steps=5), cnn, tmp_path / "f", ledger, Lineage(), broken)
    assert [update.id for update in ledger.updates()] == ["u"]


def test_interruption_leaves_no_entry_without_its_files(tmp_path, cnn):
    def interrupted():
        raise KeyboardInterrupt

    ledger = Ledger(tmp_path / "h.db")
    with pytest.raises(KeyboardInterrupt):
        save_update(synthetic_update("u", index=0.1, steps=5), cnn, tmp_path / "f", ledger, Lineage(), interrupted)
    assert not ledger.updates()


def broken():
    raise ModelError("broken")


def test_diverged_model_has_no_profile(tmp_path, cnn):
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=5, reached=False), stopped_by="diverged")
    with pytest.warns(ResqueWarning, match="no profile"):
        save_update(update, cnn, tmp_path / "f", Ledger(tmp_path / "h.db"), Lineage(), broken)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["model.safetensors"]


def test_profiles_of_different_layers_or_classes_have_no_angle():
    one = Profile.from_arrays([[1.0, 0.0]], [0])
    assert mean_angle(one, Profile.from_arrays([[1.0, 0.0, 0.0]], [0])) is None
    assert mean_angle(one, Profile.from_arrays([[1.0, 0.0]], [1])) is None
    assert mean_angle(one, one) == 0.0


def test_model_that_could_not_be_written_is_written_by_resuming(folder, monkeypatch):
    """The entry is kept after a failed write; the checkpoint still holds the model."""
    import resque
    from resque.models.weights import fingerprint

    arguments = {
        "train": "digits@16px@train@300", "test": "digits@16px@test@200", "target_accuracy": 0.999,
        "recipe": "train-adam,max_epochs=2", "ledger": "resque.db", "out": "new", "meter": resque.ClockMeter(),
    }  # fmt: skip
    real, failing = artifacts.save_weights, []

    def full(model, path, *names):
        failing.append(path)
        raise DataError(f"{path} cannot be written: No space left on device")

    monkeypatch.setattr(artifacts, "save_weights", full)
    with pytest.raises(DataError, match="No space left"):
        resque.update("resque.networks:small_cnn", **arguments)
    (entry,) = resque.Ledger("resque.db").updates()
    assert not (folder / "new" / "model.safetensors").exists()
    monkeypatch.setattr(artifacts, "save_weights", real)
    again = resque.update("resque.networks:small_cnn", resume=True, **arguments)
    assert again.id == entry.id
    assert resque.Ledger("resque.db").updates() == [entry]
    model = resque.load_model("resque.networks:small_cnn", folder / "new" / "model.safetensors")
    assert fingerprint(model) == entry.child
    assert [path.parent.name for path in failing][:2] == ["new", folder.name]  # then a folder of temporary files
    assert not list((folder / "updates" / "checkpoints").glob("*.checkpoint"))


def test_full_disk_at_a_checkpoint_does_not_end_the_run(folder, monkeypatch):
    import resque
    from resque.training import checkpoint

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.warns(resque.errors.ResqueWarning, match="goes on without a new checkpoint: .*could not be written"):
        update = resque.update(
            "resque.networks:small_cnn", "digits@16px@train@300", "digits@16px@test@200", 0.999,
            recipe="train-adam,max_epochs=2", ledger="resque.db", checkpoint_every_s=0.0, meter=resque.ClockMeter(),
        )  # fmt: skip
    assert [each.id for each in resque.Ledger("resque.db").updates()] == [update.id]


def test_model_whose_folder_does_not_take_it_is_kept_elsewhere(folder, monkeypatch):
    import resque
    from resque.models.weights import fingerprint

    real = artifacts.save_weights

    def full(model, path, *names):
        if path.parent.name == "new":
            raise DataError(f"{path} cannot be written: No space left on device")
        real(model, path, *names)

    monkeypatch.setattr(artifacts, "save_weights", full)
    with pytest.raises(
        DataError, match=r"No space left on device; the updated model is kept in /.*model-\w+.safetensors"
    ):
        resque.update(
            "resque.networks:small_cnn", "digits@16px@train@300", "digits@16px@test@200", 0.999,
            recipe="train-adam,max_epochs=1", ledger="resque.db", out="new", meter=resque.ClockMeter(),
        )  # fmt: skip
    (entry,) = resque.Ledger("resque.db").updates()
    model = resque.load_model("resque.networks:small_cnn", folder / f"model-{entry.id}.safetensors")
    assert fingerprint(model) == entry.child


def test_full_disk_while_tensors_are_written_is_one_line(folder, monkeypatch):
    from safetensors import SafetensorError

    from resque.models import weights
    from resque.models.networks import small_cnn

    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(DataError, match="No space left on device"):
        weights.save_weights(small_cnn(), folder / "m.safetensors")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("ledger_takes_it", [True, False])
@pytest.mark.parametrize("full", [("new",), ("new", "here"), ("new", "here", "temporary")])
def test_error_names_the_place_of_the_model_and_of_the_entry(folder, monkeypatch, cnn, full, ledger_takes_it):
    """Whatever takes no more files, the error tells where the model and the entry are, or that no model was kept."""
    places = {"new": folder / "new", "here": folder, "temporary": folder / "temporary"}
    places["temporary"].mkdir()
    real = artifacts.save_weights

    def save(model, path, *names):
        if path.parent.resolve() in [places[name] for name in full]:
            raise DataError(f"cannot write '{path}': No space left on device; name another place")
        real(model, path, *names)

    def add(self, update):
        raise LedgerError("database or disk is full")

    monkeypatch.setattr(artifacts, "save_weights", save)
    monkeypatch.setattr(artifacts.tempfile, "gettempdir", lambda: str(places["temporary"]))
    if not ledger_takes_it:
        monkeypatch.setattr(Ledger, "add", add)
    update, ledger = synthetic_update("u", index=0.1, steps=5), Ledger(folder / "h.db")
    with pytest.raises(ResqueError) as raised:
        save_update(update, cnn, folder / "new", ledger, Lineage(), broken)
    said = str(raised.value)
    assert "No space left on device" in said
    left = list(folder.rglob("*.safetensors"))
    if len(full) == len(places):
        assert "no model was kept" in said
        assert not left
    else:
        (kept,) = left
        assert f"the updated model is kept in {kept}" in said
        assert all(torch.equal(t, cnn.state_dict()[name]) for name, t in load_file(kept).items())
    assert [each.id for each in ledger.updates()] == ["u"] * ledger_takes_it
    assert ledger_takes_it or f"resque ledger import {folder / 'update-u.jsonl'}" in said
