"""Recipes are data: by name, changed in place, from a file; what of a model they train; what they do to images."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from resque.data.augmentation import AUGMENTATIONS, PAPER, build_augmentation
from resque.data.preprocessing import ImagePreprocessing
from resque.errors import ModelError, ResqueWarning, SettingError
from resque.models.layers import head
from resque.models.networks import small_cnn
from resque.models.weights import fingerprint
from resque.training.finetuning import FineTuningScope
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe, named_recipe
from resque.training.retrain import retrain
from resque.training.trainer import Trainer


def test_settings_change_in_place_and_from_a_file(folder):
    made = named_recipe("train-sgd,learning_rate=0.1,batch_size=64,augmentation=paper,fixed_epochs=3", max_epochs=9)
    expected = {"learning_rate": 0.1, "batch_size": 64, "augmentation": PAPER, "fixed_epochs": 3, "max_epochs": 9}
    assert made == dataclasses.replace(RECIPES["train-sgd"], **expected)
    assert named_recipe("train-adam,milestones=2+5").milestones == (2, 5)
    assert named_recipe("train-sgd,milestones=none").milestones == ()
    (folder / "mine.toml").write_text(
        'base = "train-sgd"\nlearning_rate = 1\naugmentation = ["flip"]\nmilestones = [5]\n'
    )
    made = named_recipe("mine.toml,precision=bfloat16")
    assert (made.optimizer, made.learning_rate, made.augmentation, made.milestones) == ("sgd", 1.0, ("flip",), (5,))
    assert made.precision == "bfloat16"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "unknown recipe 'nothing'"),
        ("train-adam,speed=3", "no setting 'speed': use one of optimizer"),
        ("train-adam,batch_size", "write SETTING=VALUE"),
        ("train-adam,batch_size=1.5", "expected a whole number"),
        ("train-adam,batch_size=many", "expected a whole number"),
        ("train-adam,learning_rate=fast", "expected a number"),
        ("train-adam,learning_rate=-1", "expected more than 0"),
        ("train-adam,optimizer=3", "expected a word"),
        ("train-adam,optimizer=lion", "use one of adam, adamw, sgd"),
        ("train-adam,schedule=linear", "use one of steps, cosine"),
        ("train-adam,precision=float16", "use one of float32, bfloat16"),
        ("train-adam,trains=tail", "use all, head, lora"),
        ("train-adam,compile=yes", "expected true or false"),
        ("train-adam,channels_last=1", "expected true or false"),
        ("train-adam,weight_decay=-1", "expected 0 or more"),
        ("train-adam,momentum=1", "0 to below 1"),
        ("train-adam,milestones=0+4", "expected epochs from 1 on"),
        ("train-adam,milestones=soon", "expected epochs from 1 on"),
        ("train-adam,tolerances=0.1", "expected a list; write it in a FILE.toml"),
        ("train-adam,rank=0", "expected 1 or more"),
        ("train-adam,augmentation=fog", "use paper, or some of flip"),
        ("train-adam,max_hours=0", "expected more than 0"),
        ("none.toml", "cannot be read as TOML"),
    ],
)
def test_nonsense_is_refused(folder, spec, message):
    with pytest.raises(SettingError, match=message):
        named_recipe(spec)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_each_sample_has_a_change_of_its_own_that_a_seed_repeats(name, channels):
    pytest.importorskip("kornia")
    images = torch.rand(1, channels, 16, 16).expand(12, -1, -1, -1)
    torch.manual_seed(3)
    one = build_augmentation((name,))(images)
    torch.manual_seed(3)
    assert torch.equal(build_augmentation((name,))(images), one)
    assert len({tuple(image.flatten().tolist()) for image in one}) > 1
    assert one.shape == images.shape
    assert 0.0 <= float(one.min()) <= float(one.max()) <= 1.0


@pytest.fixture
def short(small):
    return RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)


def with_recipe(job, **changes):
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def test_head_only_changes_the_head_only(cnn, short, meter):
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    update = retrain(cnn, with_recipe(short, trains="head"), meter=meter)
    changed = {name for name, value in cnn.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"12.weight", "12.bias"}  # running statistics neither
    assert update.trainable_share == pytest.approx(650 / sum(p.numel() for p in cnn.parameters()))
    assert all(p.requires_grad for p in cnn.parameters())


def test_adapters_are_merged_into_a_plain_model(small, meter):
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10))
    names, before = list(model.state_dict()), model[1].weight.clone()
    job = RetrainingJob(*small, 1.0, named_recipe("train-adam,trains=lora,rank=2", max_epochs=1), seed=1)
    update = retrain(model, job, meter=meter)
    assert list(model.state_dict()) == names
    assert type(model[1]) is nn.Linear
    assert torch.linalg.matrix_rank(model[1].weight.detach() - before, tol=1e-5) == 2
    assert 0 < update.trainable_share < 0.2
    assert update.child == fingerprint(model)


def test_a_model_without_dense_layers_has_none_for_adapters(cnn):
    pytest.importorskip("peft")
    with pytest.raises(ModelError, match="none for adapters"):
        FineTuningScope(cnn, "lora")


def test_a_fixed_number_of_epochs_goes_on_beyond_the_target(cnn, short, meter):
    update = retrain(cnn, dataclasses.replace(with_recipe(short, fixed_epochs=4), target_accuracy=0.3), meter=meter)
    assert (update.stopped_by, update.cost.epochs, update.reached) == ("epochs", 4.0, True)
    assert update.peak_accuracy == max(update.curve.accuracy)
    assert update.cost_at(0.3).steps < update.cost.steps


def test_budgets_end_a_run_that_is_complete(cnn, short, meter):
    update = retrain(cnn, with_recipe(short, max_hours=1e-9, max_epochs=50), meter=meter)
    assert (update.stopped_by, update.cost.epochs, update.reached) == ("max hours", 1.0, False)
    update = retrain(cnn, with_recipe(short, max_kwh=1e-12, max_epochs=50), meter=meter)
    assert (update.stopped_by, update.cost.epochs) == ("max kWh", 1.0)


def test_low_precision_trains_float32_weights(cnn, short, meter, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    update = retrain(cnn, with_recipe(short, precision="bfloat16"), meter=meter)
    assert all(p.dtype == torch.float32 for p in cnn.parameters())
    assert update.curve.accuracy[-1] > update.curve.accuracy[0]


def test_the_cosine_ends_at_zero():
    recipe = Recipe(schedule="cosine", max_epochs=5)
    optimizer = recipe.build_optimizer(nn.Linear(2, 2))
    schedule = recipe.build_schedule(optimizer)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-12)


def test_flops_are_those_of_the_layers(small, meter):
    """A dense layer costs two operations a weight and sample forward, and twice that backward but for the inputs'."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    job = RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)
    update = retrain(model, job, meter=meter)
    assert update.cost.flops == 2 * 2 * 2560 * update.cost.samples
    assert head(model) is model[1]


def test_a_processor_without_bfloat16_is_told_so(cnn, short, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.warns(ResqueWarning, match="float32 is many times faster here"):
        Trainer(cnn, short.train, Recipe(precision="bfloat16"), 0)


def test_channels_lie_together_while_it_trains_and_not_afterwards(cnn, short, meter):
    trainer = Trainer(cnn, short.train, Recipe(), 0)
    convolution = next(p for p in cnn.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    trainer.end()
    assert convolution.is_contiguous()
    assert not Trainer(cnn, short.train, Recipe(channels_last=False), 0)._channels_last


def test_the_memory_format_changes_nothing_but_rounding(cnn, short, meter):
    curves = [
        retrain(copy.deepcopy(cnn), with_recipe(short, channels_last=last, fixed_epochs=2), meter=meter).curve
        for last in (True, False)
    ]
    assert curves[0].loss == pytest.approx(curves[1].loss, rel=1e-3)


def test_samples_are_augmented_in_blocks_each_once(short):
    pytest.importorskip("kornia")
    trainer = Trainer(small_cnn(), short.train, Recipe(batch_size=8, augmentation=("flip",)), 0)
    seen: list[int] = []
    sizes: list[int] = []
    blocks = short.train.batches(8, augment=lambda images: (sizes.append(len(images)), images)[1])
    for inputs, labels in blocks:
        seen.append(len(labels))
        assert len(inputs) == len(labels)
    assert sum(seen) == sum(sizes) == len(short.train)
    assert max(sizes) == 8 * trainer.steps_per_block == 128


def test_large_images_are_augmented_a_batch_at_a_time(short):
    large = dataclasses.replace(short.train, transform=ImagePreprocessing(side=224, fixed=True, channels=3))
    assert large.batches_per_block(32) == 1


def test_a_model_that_cannot_be_compiled_is_told_so(cnn, short, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend=broken))
    trainer = Trainer(cnn, short.train, Recipe(compile=True), 0)
    with pytest.raises(ModelError, match="cannot be compiled: .*no compiler here.*; leave compile=true out"):
        trainer.step()


def test_a_compiled_model_learns_the_same(cnn, short, meter, monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend="eager"))
    plain = retrain(copy.deepcopy(cnn), with_recipe(short, fixed_epochs=1), meter=meter)
    update = retrain(cnn, with_recipe(short, compile=True, fixed_epochs=1), meter=meter)
    assert update.curve.loss == pytest.approx(plain.curve.loss, rel=1e-4)
    assert update.cost.flops == plain.cost.flops
