"""The training loop: precision, memory format, augmentation, compilation."""

import contextlib
import copy
import dataclasses

import pytest
import torch

from resque.data.preprocessing import ImagePreprocessing
from resque.errors import DeviceMemoryError, ModelError, ResqueWarning
from resque.models.networks import small_cnn
from resque.training.head_features import FeatureCache
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe, named_recipe
from resque.training.retrain import retrain
from resque.training.trainer import Trainer


@pytest.fixture
def short(small):
    return RetrainingJob(*small, 1.0, dataclasses.replace(RECIPES["train-adam"], max_epochs=1), seed=1)


def with_recipe(job, **changes):
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **changes))


def test_bfloat16_keeps_float32_weights(cnn, short, meter, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    update = retrain(cnn, with_recipe(short, precision="bfloat16"), meter=meter)
    assert all(p.dtype == torch.float32 for p in cnn.parameters())
    assert update.curve.accuracy[-1] > update.curve.accuracy[0]


def test_bfloat16_without_hardware_support_warns(cnn, short, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.warns(ResqueWarning, match="float32 is many times faster here"):
        Trainer(cnn, short.train, Recipe(precision="bfloat16"), 0)


def test_channels_last_format_ends_with_the_training(cnn, short, meter):
    trainer = Trainer(cnn, short.train, Recipe(), 0)
    convolution = next(p for p in cnn.parameters() if p.ndim == 4 and p.shape[1] > 1)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    trainer.end()
    assert convolution.is_contiguous()
    assert not Trainer(cnn, short.train, Recipe(channels_last=False), 0)._channels_last


def test_memory_format_changes_rounding_alone(cnn, short, meter):
    curves = [
        retrain(copy.deepcopy(cnn), with_recipe(short, channels_last=last, fixed_epochs=2), meter=meter).curve
        for last in (True, False)
    ]
    assert curves[0].loss == pytest.approx(curves[1].loss, rel=1e-3)


def test_each_sample_is_augmented_once_in_blocks(short):
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


def test_large_images_are_augmented_one_batch_at_a_time(short):
    large = dataclasses.replace(short.train, transform=ImagePreprocessing(side=224, fixed=True, channels=3))
    assert large.batches_per_block(32) == 1


def test_model_that_cannot_be_compiled_is_refused(cnn, short, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend=broken))
    trainer = Trainer(cnn, short.train, Recipe(compile=True), 0)
    with pytest.raises(ModelError, match="cannot be compiled: .*no compiler here.*; leave compile=true out"):
        trainer.step()


def test_compiled_model_learns_the_same(cnn, short, meter, monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: original(model, backend="eager"))
    plain = retrain(copy.deepcopy(cnn), with_recipe(short, fixed_epochs=1), meter=meter)
    update = retrain(cnn, with_recipe(short, compile=True, fixed_epochs=1), meter=meter)
    assert update.curve.loss == pytest.approx(plain.curve.loss, rel=1e-4)
    assert update.cost.flops == plain.cost.flops


@pytest.mark.parametrize(
    "recipe",
    [
        "train-adam",
        "train-sgd",
        "train-adam,trains=head",
        "train-adam,augmentation=paper",
        "train-adam,optimizer=adamw",
    ],
)
def test_no_step_reads_a_value(small, monkeypatch, recipe):
    """Tensors on the device ``meta`` have no values, so that to read one, as a wait for a GPU does, is an error."""
    if "augmentation" in recipe:
        pytest.importorskip("kornia")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # knows no such device
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    monkeypatch.setattr(FeatureCache, "allows", lambda *_: False)  # its pass, before the first step, reads
    trainer = Trainer(small_cnn().to("meta"), small[0], named_recipe(recipe), seed=0)
    for _ in range(3):
        trainer.step()
    assert trainer.step_count == 3


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_batch_that_takes_too_much_memory_is_one_line(cnn, short, monkeypatch, error):
    trainer = Trainer(cnn, short.train, Recipe(batch_size=64), 0)

    def refuse():
        raise error

    monkeypatch.setattr(trainer.cost_tracker, "after_backward", refuse)
    with pytest.raises(DeviceMemoryError, match=r"for a batch of 64: pass a smaller one \(in a recipe batch_size=32\)"):
        trainer.step()


def test_other_errors_of_a_step_are_left_as_they_are(cnn, short, monkeypatch):
    trainer = Trainer(cnn, short.train, Recipe(), 0)

    def fail():
        raise RuntimeError("another reason")

    monkeypatch.setattr(trainer.cost_tracker, "after_backward", fail)
    with pytest.raises(RuntimeError, match="another reason"):
        trainer.step()
