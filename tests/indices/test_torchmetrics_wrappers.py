"""The torchmetrics form: the same sums, in a user's own loop and under distributed training."""

import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from resque.errors import RepresentationError
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.indices.task import resque_task
from resque.indices.torchmetrics_wrappers import ProfileMetric, TaskMetric

CLASSES = [2, 5, 11]


def sample(seed, n=90):
    generator = np.random.default_rng(seed)
    labels = np.array(CLASSES)[generator.integers(0, 3, n)]
    return torch.from_numpy(generator.normal(size=(n, 4)) + labels[:, None] % 3).float(), torch.from_numpy(labels)


def test_any_cut_of_the_stream_gives_the_profile():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    for part in torch.arange(90).split(37):
        metric.update(z[part], y[part])
    made, whole = metric.compute(), Profile.from_arrays(z, y)
    assert made.counts == whole.counts
    for label in CLASSES:
        assert np.allclose(made.split_halves[label].sums, whole.split_halves[label].sums, rtol=0, atol=1e-12)
    metric.reset()
    metric.update(z[:5], y[:5])
    assert metric.compute().n == 5


def test_calling_it_gives_the_batch_and_keeps_the_whole():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    assert [metric(z[part], y[part]).n for part in torch.arange(90).split(40)] == [40, 40, 10]
    assert metric.compute().n == 90


def test_calling_it_on_small_batches_fills_both_halves():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    for part in torch.arange(90).split(2):
        metric(z[part], y[part])
    assert min(min(halves.counts) for halves in metric.compute().split_halves.values()) > 5


def test_its_profiles_make_an_index():
    one, other = (sample(seed) for seed in (0, 1))
    metrics = [ProfileMetric(classes=CLASSES, width=4) for _ in range(2)]
    for metric, data in zip(metrics, (one, other), strict=True):
        metric.update(*data)
    expected = resque_dist(Profile.from_arrays(*one), Profile.from_arrays(*other)).value
    assert resque_dist(*(metric.compute() for metric in metrics)).value == pytest.approx(expected, abs=1e-12)


def test_what_is_wrong_is_told_when_it_is_read():
    z, y = sample(0)
    metric = ProfileMetric(classes=[2, 5], width=4)
    metric.update(z, y)
    with pytest.raises(RepresentationError, match="have labels that are not among the declared classes"):
        metric.compute()
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z * float("inf"), y)
    with pytest.raises(RepresentationError, match="NaN or infinity"):
        metric.compute()
    with pytest.raises(RepresentationError, match="width 4; the metric was made for width 5"):
        ProfileMetric(classes=3, width=5).update(z, y)


def test_the_task_index_in_two_streaming_passes():
    z, y = sample(3)
    metric = TaskMetric(Profile.from_arrays(z, y))
    for part in torch.arange(90).split(25):
        metric.update(z[part], y[part])
    assert float(metric.compute()) == resque_task(z, y, lloyd=False).value
    assert metric.index().n == 90


def one_process(rank, world, port, folder):
    """What each process of a distributed run does; some see no sample of some class, and one sees few samples."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    z, y = sample(7)
    own = torch.arange(90)[:10] if rank == 0 else torch.arange(90)[10:]
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z[own], y[own])
    made = metric.compute()
    task = TaskMetric(made)
    task.update(z[own], y[own])
    value = float(task.compute())
    if rank == 0:
        made.save(folder / "profile.safetensors")
        (folder / "value").write_text(repr(value))
    dist.destroy_process_group()


def test_processes_together_give_the_whole(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=one_process, args=(1, 2, port, tmp_path))
    other.start()
    one_process(0, 2, port, tmp_path)
    other.join()
    assert other.exitcode == 0
    z, y = sample(7)
    whole, made = Profile.from_arrays(z, y), Profile.load(tmp_path / "profile.safetensors")
    assert made.counts == whole.counts
    assert all(np.allclose(made.sums[label], whole.sums[label], rtol=0, atol=1e-12) for label in CLASSES)
    assert float((tmp_path / "value").read_text()) == resque_task(z, y, lloyd=False).value


def test_sums_stay_float64_whatever_the_model_around_them_is_cast_to():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z, y)
    around = torch.nn.ModuleDict({"metric": metric, "net": torch.nn.Linear(2, 2)})
    for cast in (around.half, around.bfloat16, around.float, lambda: around.to(torch.float16)):
        cast()
    assert metric.sums.dtype == torch.float64
    assert np.array_equal(metric.compute().sums[2], Profile.from_arrays(z, y).sums[2])


def test_an_empty_batch_and_a_new_start():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z[:0], y[:0])
    assert metric.compute().counts == {}
    metric.update(z, y)
    first = metric.compute()
    metric.reset()
    metric.update(z, y)
    assert all(np.array_equal(metric.compute().split_halves[c].sums, first.split_halves[c].sums) for c in CLASSES)


def test_what_is_computed_is_the_callers_own():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z, y)
    metric.compute().update(z, y)
    assert metric.compute().n == 90


def test_arrays_are_taken_and_nonsense_is_named():
    z, y = sample(0)
    metric, task = ProfileMetric(classes=CLASSES, width=4), TaskMetric(Profile.from_arrays(z, y))
    metric.update(z.numpy(), y.numpy())
    task.update(z.numpy(), y.numpy())
    assert float(task.compute()) == resque_task(z, y, lloyd=False).value
    with pytest.raises(RepresentationError, match="complex"):
        metric.update(z.to(torch.complex64), y)
    with pytest.raises(RepresentationError, match="width"):
        task.update(z[:, :3], y)
    with pytest.raises(RepresentationError, match="empty"):
        TaskMetric(Profile())
    with pytest.raises(RepresentationError, match="width"):
        ProfileMetric(classes=3, width=0)
    with pytest.raises(RepresentationError, match="no sample"):
        TaskMetric(Profile.from_arrays(z, y)).index()
