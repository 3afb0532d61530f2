"""Updates of normalization alone: statistics in one pass without labels, and scales by gradient steps."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from resque.errors import ModelError, SettingError
from resque.ledger.validation import check_record
from resque.models.batchnorm import adapt_batchnorm
from resque.models.networks import small_cnn
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint, save_checkpoint
from resque.training.job import RetrainingJob
from resque.training.pilot import run_pilot
from resque.training.probe import probe
from resque.training.recipe import named_recipe
from resque.training.retrain import retrain
from resque.training.run import RunSettings

NORMS = {
    "batch": nn.BatchNorm2d(4),
    "layer": nn.LayerNorm((4, 7, 7)),
    "group": nn.GroupNorm(2, 4),
    "instance": nn.InstanceNorm2d(4, affine=True),
    "named": type("RMSNorm", (nn.GroupNorm,), {})(1, 4),
}


def network(norm=None):
    torch.manual_seed(0)
    middle = [copy.deepcopy(NORMS[norm])] if norm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(196, 10))


def job_of(small, recipe, target=1.0):
    return RetrainingJob(*small, target, named_recipe(f"retrain-adam,{recipe}"), seed=5)


@pytest.mark.parametrize("recipe", ["", ",batch_size=33", ",evaluate_every=3", ",fixed_epochs=1", ",max_epochs=7"])
def test_statistics_are_those_of_one_pass_in_random_order(small, meter, recipe):
    model = small_cnn()
    job = job_of(small, f"trains=norm{recipe}")
    order = torch.randperm(320, generator=torch.Generator().manual_seed(5))
    expected = adapt_batchnorm(model, small[0].batches(job.recipe.batch_size, order=order))
    update = retrain(model, job, meter=meter)
    assert fingerprint(model) == fingerprint(expected) == update.child != update.parent
    assert (update.curve.steps, update.cost.steps, update.cost.epochs, update.cost.samples) == ((0, 1), 1, 1.0, 320)
    assert update.curve.wall_s[1] == update.cost.wall_s > 0.0
    assert update.cost.energy_kwh == pytest.approx(36.0 * update.cost.wall_s / 3.6e6, rel=1e-6)
    assert (update.cost.gradient_norm, update.cost.parameter_change, update.trainable_share) == (0.0, 0.0, 0.0)
    assert update.cost.flops > 0.0
    assert update.stopped_by == ("epochs" if "fixed" in recipe else "max")
    check_record(update)


def test_labels_of_the_training_data_are_not_read(small, meter):
    model, other = small_cnn(), dataclasses.replace(small[0], labels=small[0].labels.roll(1))
    jobs = [job_of((data, small[1]), "trains=norm") for data in (small[0], other)]
    ends = [retrain(copy.deepcopy(model), job, meter=meter).child for job in jobs]
    assert ends[0] == ends[1]


def test_pass_that_arrives_reaches_the_target(cnn, small, meter):
    retrain(cnn, job_of(small, "trains=all,learning_rate=0.003", 0.9), meter=meter)
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    update = retrain(cnn, job_of(small, "trains=norm", 0.6), meter=meter)
    assert update.curve.accuracy[0] < 0.6 <= update.accuracy
    assert (update.reached, update.stopped_by) == (True, "target")


@pytest.mark.parametrize("every", [None, 0.0])
def test_update_goes_on_from_its_pilot_and_resumes(cnn, small, meter, tmp_path, every):
    job, parent = job_of(small, "trains=norm"), fingerprint(cnn)
    whole = retrain(copy.deepcopy(cnn), job, meter=meter)
    pilot, state = run_pilot(cnn, job, 1, parent, RunSettings(meter))
    assert (pilot.steps, pilot.stopped_by, fingerprint(cnn)) == (1, "max", parent)
    save_checkpoint(tmp_path / "p.checkpoint", state)
    at = Checkpoint(tmp_path / "runs", pilot=tmp_path / "p.checkpoint")
    update = retrain(cnn, job, meter=meter, checkpoint=at)
    assert (update.child, update.pilot_steps, update.curve.accuracy) == (whole.child, 1, whole.curve.accuracy)
    again = retrain(copy.deepcopy(cnn), job, meter=meter, checkpoint=dataclasses.replace(at, resume=True))
    assert (again.child, again.id) == (whole.child, update.id)


def test_probe_measures_whole_passes(cnn, small, meter):
    before = fingerprint(cnn)
    step_cost = probe(cnn, small[0], named_recipe("retrain-adam,trains=norm"), meter)
    assert (step_cost.steps, fingerprint(cnn)) == (1, before)
    assert step_cost.energy_kwh > 0.0


@pytest.mark.parametrize("norm", NORMS)
def test_scales_are_trained_and_nothing_else(small, meter, norm):
    model = network(norm)
    before = copy.deepcopy(model.state_dict())
    update = retrain(model, job_of(small, "trains=norm-scales,learning_rate=0.01,fixed_epochs=2"), meter=meter)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"} if norm == "batch" else set()
    assert changed == {"1.weight", "1.bias"} | statistics
    assert 0.0 < update.trainable_share < 0.2
    assert update.cost.gradient_norm > 0.0
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("norm", "trains", "advice"),
    [
        (None, "norm", "use trains=head or all"),
        (None, "norm-scales", "use trains=head or all"),
        ("layer", "norm", "trains=norm-scales trains its scales"),
        ("instance", "norm", "trains=norm-scales"),
    ],
)
def test_model_without_what_is_trained_is_refused_unchanged(small, meter, norm, trains, advice):
    model = network(norm)
    before = fingerprint(model)
    with pytest.raises(ModelError, match=advice):
        retrain(model, job_of(small, f"trains={trains}"), meter=meter)
    assert fingerprint(model) == before


def test_settings_that_a_pass_cannot_have_are_refused(cnn, small, meter):
    with pytest.raises(SettingError, match="passes the data once"):
        named_recipe("retrain-adam,trains=norm,fixed_epochs=2")
    with pytest.raises(SettingError, match="batches of 2 or more"):
        retrain(cnn, job_of(small, "trains=norm,batch_size=1"), meter=meter)
