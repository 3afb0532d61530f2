"""Sums are exact, and the cost of a pass is counted: forward calls, samples, operations, waits, memory."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from resque.errors import RepresentationError
from resque.indices.class_sums import ClassSums, ScratchBuffer, declared_labels
from resque.indices.compute_profile import profile
from resque.indices.half_assignment import assign_half
from resque.indices.profile import Profile
from watched import Watched

BATCH = 32


def free_model(classes):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 64, 4, stride=4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class Stream:
    """Batches made on request; counts the samples read."""

    def __init__(self, n, classes):
        self.n, self.classes, self.read = n, classes, 0

    def __iter__(self):
        for start in range(0, self.n, BATCH):
            size = min(BATCH, self.n - start)
            self.read += size
            yield torch.rand(size, 1, 16, 16), (start + torch.arange(size)) % self.classes


@pytest.mark.parametrize("labels", ["true", "pseudo"])
@pytest.mark.parametrize(("n", "classes"), [(96, 2), (100, 10), (33, 33)])
def test_profile_makes_one_forward_call_per_batch_and_reads_each_sample_once(n, classes, labels):
    model, loader, calls = free_model(classes), Stream(n, classes), []
    model.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    result = profile(model, loader, classes=classes, labels=labels)
    assert len(calls) == math.ceil(n / BATCH)
    assert sum(calls) == loader.read == result.n == n


@pytest.mark.parametrize("in_place", [False, True])
def test_in_place_layers_need_no_second_pass(in_place):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=in_place), nn.Flatten(), nn.Linear(4 * 196, 2))
    calls, batches = [], list(Stream(96, 2))
    model.register_forward_hook(lambda module, inputs, output: calls.append(1))
    result = profile(model, batches)
    assert len(calls) == 3
    with torch.no_grad():
        raw = torch.cat([model[0](x).flatten(1) for x, _ in batches]).double()
    assert sum(result.sums.values()) == pytest.approx(raw.sum(0).numpy(), abs=1e-9)


def test_a_model_that_turns_in_place_after_the_first_batch_gives_the_same_sums():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head, self.calls = nn.Conv2d(1, 4, 3), nn.Linear(4 * 196, 2), 0

        def forward(self, x):
            self.calls += 1
            out = self.conv(x)
            out = out.relu_() if self.calls > 1 else out.relu()
            return self.head(out.flatten(1))

    model, batches = Moody(), list(Stream(128, 2))
    result = profile(model, batches)
    with torch.no_grad():
        raw = torch.cat([model.conv(x).flatten(1) for x, _ in batches]).double()
    assert sum(result.sums.values()) == pytest.approx(raw.sum(0).numpy(), abs=1e-9)
    assert model.calls == 5  # four batches, one of them twice


def watched(n, classes, **options):
    model, loader = free_model(classes), Stream(n, classes)
    with Watched() as seen:
        profile(model, loader, **{"classes": classes, **options})
    return seen


def test_more_classes_add_no_operations():
    few, many = watched(320, 2), watched(320, 200)
    assert few.calls == many.calls


@pytest.mark.parametrize("labels", ["true", "pseudo"])
def test_no_batch_waits_for_the_device(labels):
    short, long = (watched(n, 10, labels=labels).waits for n in (64, 640))
    assert short == long > 0


def test_extra_memory_does_not_grow_with_the_data_and_stays_below_its_bound():
    """(1 + G) class-sum tables and two batches, beyond the bare pass; the data is made batch by batch."""
    classes, width = 10, 64 * 4 * 4
    tables, batches = 3 * classes * width * 8, 2 * BATCH * width * 4
    extra = []
    for n in (320, 1280):
        model = free_model(classes)
        with Watched() as bare, torch.no_grad():
            for x, _ in Stream(n, classes):
                model(x)
        extra.append(watched(n, classes).peak_bytes - bare.peak_bytes)
    assert extra[0] == extra[1]
    assert 0 < extra[0] <= tables + batches


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_are_exact_for_every_float_type(dtype):
    torch.manual_seed(0)
    rows, labels = (torch.randn(3000, 7) * 100).to(dtype), torch.randint(0, 3, (3000,))
    result = Profile()
    for part in torch.arange(3000).split(70):
        result.update(rows[part], labels[part])
    for label, total in result.sums.items():
        exact = [math.fsum(column) for column in rows[labels == label].double().T.tolist()]
        assert total == pytest.approx(exact, rel=1e-14, abs=1e-10)


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 59), max_size=4), exponent=st.integers(-900, 900))
def test_float64_rows_are_summed_to_twice_their_precision_in_any_order_and_cut(seed, cuts, exponent):
    """Terms that nearly cancel, of very different sizes."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(60, 3)) * 10.0 ** generator.integers(-8, 9, (60, 1))
    rows[30:] = -rows[:30] * (1 + 1e-12 * generator.integers(-1, 2, (30, 1)))
    rows = np.ldexp(generator.permutation(rows), exponent)
    exact = [math.fsum(column) for column in rows.T.tolist()]
    streamed, merged, edges = Profile(), Profile(), [0, *sorted(set(cuts)), 60]
    for start, stop in zip(edges, edges[1:], strict=False):
        streamed.update(rows[start:stop], np.zeros(stop - start, int))
        merged = merged + Profile.from_arrays(rows[start:stop], np.zeros(stop - start, int))
    for made in (streamed, merged):
        assert np.allclose(made.sums[0], exact, rtol=1e-15, atol=1e-30 * np.abs(rows).sum())


def test_exact_cancellation_gives_zero_and_a_small_remainder_survives():
    zero = np.random.default_rng(0).normal(size=(50, 3))
    assert not Profile.from_arrays(np.concatenate([zero, -zero]), np.zeros(100, int)).sums[0].any()
    assert Profile.from_arrays([[1e16], [1.0], [-1e16]], [0, 0, 0]).sums[0].tolist() == [1.0]


def test_many_short_streams_fill_both_halves():
    rows = np.random.default_rng(0).normal(size=(200, 3))
    merged = Profile()
    for start in range(0, 200, 2):
        merged = merged + Profile.from_arrays(rows[start : start + 2], [0, 0])
    counts = merged.split_halves[0].counts
    assert min(counts) > 70


def test_unknown_labels_are_counted_without_waiting_for_the_device():
    table = ClassSums.zeros(torch.tensor([2, 5]), 1)
    with Watched() as seen:
        table.add(torch.ones(4, 1), torch.tensor([2, 5, 9, -1]), assign_half(torch.arange(4)), ScratchBuffer())
    assert seen.waits == 0
    assert int(table.unknown) == 2


def test_means_leave_out_classes_without_samples():
    labels, means = Profile.from_arrays([[1.0, 2.0], [3.0, 4.0]], [5, 5], classes=[2, 5]).class_means()
    assert (labels.tolist(), means.tolist()) == ([5], [[2.0, 3.0]])


@pytest.mark.parametrize("classes", [[], [0.5], ["cat"], [2**63]])
def test_classes_that_are_not_integers_raise(classes):
    with pytest.raises(RepresentationError, match="classes"):
        declared_labels(classes)


@pytest.mark.parametrize("stride", [1, 2, 10, 34, 55, 89, 100, 1000])
def test_halves_do_not_depend_on_the_period_of_the_classes(stride):
    """Classes that come in turn, at any period, have both halves."""
    share = assign_half(torch.arange(0, 400 * stride, stride)).double().mean()
    assert abs(float(share) - 0.5) < 4 * 0.5 / math.sqrt(400)


@pytest.mark.parametrize(("device", "place"), [("cpu", "cpu"), ("meta", "meta"), ("mps", "cpu")])
def test_table_is_on_the_device_unless_it_has_no_float64(device, place):
    table = ClassSums.zeros(torch.arange(3), 2, device)
    assert {each.device.type for each in (table.labels, table.sums, table.counts, table.unknown)} == {place}


def test_totals_keep_what_the_sum_of_the_halves_rounds_away():
    """Between 1e17 and the next number lie 16: the lost 1 and a rounding error of 7.5 make more than half of that."""
    table = ClassSums.zeros(torch.tensor([0]), width=1)
    table.sums[:, 0, 0] = torch.tensor([1e17, 1.0], dtype=torch.float64)
    table.rounding = torch.full_like(table.sums, 3.75)
    assert table.totals.item() == 1e17 + 16
