"""The torchmetrics wrappers give the same sums, in a custom loop and in distributed training."""

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


def test_any_cut_of_the_stream_gives_the_same_profile():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    for part in torch.arange(90).split(37):
        metric.update(z[part], y[part])
    profile, whole = metric.compute(), Profile.from_arrays(z, y)
    assert profile.counts == whole.counts
    for label in CLASSES:
        assert np.allclose(profile.split_halves[label].sums, whole.split_halves[label].sums, rtol=0, atol=1e-12)
    metric.reset()
    metric.update(z[:5], y[:5])
    assert metric.compute().n == 5


def test_call_returns_the_batch_profile_and_accumulates():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    assert [metric(z[part], y[part]).n for part in torch.arange(90).split(40)] == [40, 40, 10]
    assert metric.compute().n == 90


def test_calls_on_small_batches_fill_both_halves():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    for part in torch.arange(90).split(2):
        metric(z[part], y[part])
    assert min(min(halves.counts) for halves in metric.compute().split_halves.values()) > 5


def test_profiles_of_metrics_give_the_same_index():
    one, other = (sample(seed) for seed in (0, 1))
    metrics = [ProfileMetric(classes=CLASSES, width=4) for _ in range(2)]
    for metric, data in zip(metrics, (one, other), strict=True):
        metric.update(*data)
    expected = resque_dist(Profile.from_arrays(*one), Profile.from_arrays(*other)).value
    assert resque_dist(*(metric.compute() for metric in metrics)).value == pytest.approx(expected, abs=1e-12)


def test_compute_raises_for_invalid_batches():
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


def test_task_metric_matches_resque_task():
    z, y = sample(3)
    metric = TaskMetric(Profile.from_arrays(z, y))
    for part in torch.arange(90).split(25):
        metric.update(z[part], y[part])
    assert float(metric.compute()) == resque_task(z, y, lloyd=False).value
    assert metric.index().n == 90


def one_process(rank, world, port, folder):
    """Run one process of a distributed run; one process has few samples."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    z, y = sample(7)
    own = torch.arange(90)[:10] if rank == 0 else torch.arange(90)[10:]
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z[own], y[own])
    profile = metric.compute()
    task = TaskMetric(profile)
    task.update(z[own], y[own])
    value = float(task.compute())
    if rank == 0:
        profile.save(folder / "profile.safetensors")
        (folder / "value").write_text(repr(value))
    dist.destroy_process_group()


def test_two_processes_give_the_result_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=one_process, args=(1, 2, port, tmp_path))
    other.start()
    one_process(0, 2, port, tmp_path)
    other.join()
    assert other.exitcode == 0
    z, y = sample(7)
    whole, profile = Profile.from_arrays(z, y), Profile.load(tmp_path / "profile.safetensors")
    assert profile.counts == whole.counts
    assert all(np.allclose(profile.sums[label], whole.sums[label], rtol=0, atol=1e-12) for label in CLASSES)
    assert float((tmp_path / "value").read_text()) == resque_task(z, y, lloyd=False).value


def test_sums_stay_float64_if_the_surrounding_module_is_cast():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z, y)
    around = torch.nn.ModuleDict({"metric": metric, "net": torch.nn.Linear(2, 2)})
    for cast in (around.half, around.bfloat16, around.float, lambda: around.to(torch.float16)):
        cast()
    assert metric.sums.dtype == torch.float64
    assert np.array_equal(metric.compute().sums[2], Profile.from_arrays(z, y).sums[2])


def test_empty_batch_adds_nothing_and_reset_starts_again():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z[:0], y[:0])
    assert metric.compute().counts == {}
    metric.update(z, y)
    first = metric.compute()
    metric.reset()
    metric.update(z, y)
    assert all(np.array_equal(metric.compute().split_halves[c].sums, first.split_halves[c].sums) for c in CLASSES)


def test_updating_the_computed_profile_does_not_change_the_metric():
    z, y = sample(0)
    metric = ProfileMetric(classes=CLASSES, width=4)
    metric.update(z, y)
    metric.compute().update(z, y)
    assert metric.compute().n == 90


def test_arrays_are_accepted_and_invalid_input_raises():
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
