"""Artifacts of an update: files, model lineage and ledger entry."""

import dataclasses

import pytest

from doubles import synthetic_update
from resque.errors import ModelError, ResqueWarning
from resque.indices.compute_profile import profile
from resque.indices.distribution import mean_angle
from resque.indices.profile import Profile
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe
from resque.training.retrain import retrain
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
