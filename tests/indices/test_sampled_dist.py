"""The index from a sample: coverage, bias, what is read, and what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from resque.data.loading import load_data
from resque.data.random_access import IndexedDataset
from resque.errors import DataError, RepresentationError, SettingError, UndefinedDirectionError
from resque.indices import sampled_dist
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.indices.sampled_angles import GROUPS, GroupSums, estimate_sampled
from resque.indices.sampled_dist import Precision, SamplingOptions, _schedule, sample_index

WIDTH, CLASSES = 24, 4


def model(width=WIDTH, classes=CLASSES):
    """A model whose representations are its inputs."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Identity(), nn.Linear(width, classes)).eval()


def drawn(seed, counts=(500,) * CLASSES, angle=0.5, noise=2.0, width=WIDTH):
    """Original and shifted samples of classes whose directions are rotated by about one angle."""
    generator = np.random.default_rng(seed)
    before = generator.normal(size=(len(counts), width)) + 0.5
    other = generator.normal(size=before.shape)
    other -= before * ((other * before).sum(1) / (before**2).sum(1))[:, None]
    other *= (np.linalg.norm(before, axis=1) / np.linalg.norm(other, axis=1))[:, None]
    after = math.cos(angle) * before + math.sin(angle) * other
    y = np.repeat(np.arange(len(counts)), counts)
    sets = [means[y] + noise * generator.normal(size=(len(y), width)) for means in (before, after)]
    return [load_data((torch.from_numpy(x).float(), y), name="drawn") for x in sets]


def full(original, shifted, **options):
    return resque_dist(*(profile(model(), each, layer="0") for each in (original, shifted)), **options)


def sampled(original, shifted, precision="0.05", **options):
    before = profile(model(), original, layer="0")
    return sample_index(model(), before, IndexedDataset.of(shifted), SamplingOptions(precision, **options))


@pytest.mark.parametrize(
    "case", [{"angle": 0.3, "noise": 1.0}, {"angle": 0.5, "noise": 3.0}, {"angle": 1.0, "noise": 3.0}]
)
def test_intervals_cover_the_index_of_all_data_at_the_nominal_rate_or_above(case):
    covered, early = 0, 0
    for data_seed in range(3):
        original, shifted = drawn(data_seed, **case)
        truth = full(original, shifted).value
        for seed in range(20):
            index = sampled(original, shifted, seed=seed, level=0.8)
            early += index.sampling.n_read < len(shifted)
            covered += index.interval.low - 1e-12 <= truth <= index.interval.high + 1e-12
    assert early > 30  # else nothing was tested
    assert covered >= 60 * 0.8 - 2 * math.sqrt(60 * 0.8 * 0.2)


def test_the_estimate_lacks_the_angle_that_unread_samples_would_add():
    original, shifted = drawn(0, angle=0.5, noise=3.0)
    truth, plain, estimated = full(original, shifted).value, [], []
    for seed in range(30):
        index = sampled(original, shifted, "0.8rad", seed=seed)
        n, order = index.sampling.n_read // CLASSES, np.random.default_rng(seed)
        rows = np.concatenate([order.permutation(500)[:n] + 500 * k for k in range(CLASSES)])
        plain.append(full(original, shifted.take(torch.from_numpy(rows))).value - truth)
        estimated.append(index.value - truth)
    assert np.mean(plain) > 0.1
    assert abs(np.mean(estimated)) < np.mean(plain) / 4


@pytest.mark.parametrize("labels", ["true", "pseudo"])
@pytest.mark.parametrize("unit", ["rad", "pi"])
def test_all_data_read_give_the_plain_index_exactly(labels, unit):
    original, shifted = drawn(1, noise=4.0)
    before = profile(model(), original, layer="0")
    options = {"undefined": "skip", "unit": unit}
    expected = resque_dist(before, profile(model(), shifted, layer="0", labels=labels), **options)
    index = sampled(original, shifted, "1e-6rad", labels=labels, **options)
    assert index.value == pytest.approx(expected.value, abs=1e-12)
    assert index.per_class == pytest.approx(expected.per_class, abs=1e-12)
    assert (index.interval.low, index.interval.high) == (index.value, index.value)
    assert (index.sampling.n_shifted_read, index.debiased) == (len(shifted), False)


@given(seed=st.integers(0, 10**6), precision=st.sampled_from(["0.05", "0.2", "0.02rad", "0.01pi", "0.05,0.03rad"]))
def test_the_pass_ends_at_the_first_round_within_the_precision(seed, precision):
    original, shifted = drawn(seed % 7, angle=0.2 + (seed % 10) / 10)
    index = sampled(original, shifted, precision, seed=seed)
    reach, bound = index.interval.high - index.value, Precision.parse(precision)
    assert reach <= max((bound.relative or 0) * index.value, bound.radians or 0) + 1e-12
    assert index.sampling.n_read == CLASSES * _schedule(500)[index.sampling.rounds - 1]
    assert index.sampling.n_full == index.n_shifted == len(shifted)


def test_no_sample_is_read_twice_and_each_class_gets_as_many():
    original, shifted = drawn(2, counts=(700, 300, 60, 40))
    seen = []
    data = IndexedDataset(shifted, lambda rows: seen.append(rows) or shifted.take(rows))
    before = profile(model(), original, layer="0")
    index = sample_index(model(), before, data, SamplingOptions("0.05"))
    rows = torch.cat(seen)
    assert len(rows) == len(rows.unique()) == index.sampling.n_read < len(shifted)
    end = _schedule(700)[index.sampling.rounds - 1]
    assert shifted.labels[rows].bincount().tolist() == [min(end, n) for n in (700, 300, 60, 40)]


@pytest.mark.parametrize("smallest", [1, 2, 3, 9])
def test_classes_with_few_samples_are_read_in_full(smallest):
    original, shifted = drawn(3, counts=(600, 600, 600, smallest), noise=1.0)
    index, truth = sampled(original, shifted), full(original, shifted)
    assert index.sampling.n_read < len(shifted)
    assert index.per_class[3] == pytest.approx(truth.per_class[3], abs=1e-7)


def test_original_data_are_sampled_too():
    original, shifted = drawn(4, noise=1.0)
    truth = full(original, shifted).value
    opened = IndexedDataset.of(original), IndexedDataset.of(shifted)
    index = sample_index(model(), *opened, SamplingOptions("0.05", layer="0"))
    assert 0 < index.sampling.n_original_read < len(original)
    assert index.interval.low <= truth <= index.interval.high


def test_without_a_shift_an_absolute_bound_ends_the_pass_and_a_relative_one_does_not():
    original, shifted = drawn(5, angle=0.0, noise=1.0)
    assert sampled(original, shifted, "0.03").sampling.n_read == len(shifted)
    index = sampled(original, shifted, "0.03,0.15rad")
    assert index.sampling.n_read < len(shifted)
    assert index.interval.low <= full(original, shifted).value <= index.interval.high


def test_the_floor_is_that_of_all_data():
    original, shifted = drawn(6)
    assert sampled(original, shifted, "0.2").floor == pytest.approx(full(original, shifted).floor)


def test_a_missing_class_is_an_error_at_the_first_look_or_skipped():
    original, shifted = drawn(7)
    fewer, seen = shifted.take(torch.nonzero(shifted.labels != 2)[:, 0]), []
    before = profile(model(), original, layer="0")
    data = IndexedDataset(fewer, lambda rows: seen.extend(rows) or fewer.take(rows))
    with pytest.raises(UndefinedDirectionError, match="class 2 has no samples in the shifted data"):
        sample_index(model(), before, data, SamplingOptions("0.05"))
    assert len(seen) == 3 * 32
    index = sample_index(model(), before, data, SamplingOptions("0.05", undefined="skip"))
    assert (index.per_class[2], index.skipped) == (None, 1)


def test_pseudo_labels_need_no_labels_and_true_ones_do():
    original, shifted = drawn(8)
    bare = load_data((shifted.inputs, None), name="bare", for_training=False)
    labels = {"labels": "pseudo", "undefined": "skip"}
    truth = resque_dist(
        profile(model(), original, layer="0"), profile(model(), bare, layer="0", labels="pseudo"), undefined="skip"
    )
    index = sampled(original, bare, "0.1", **labels)
    assert index.labels == "pseudo"
    assert index.interval.low <= truth.value <= index.interval.high
    with pytest.raises(DataError, match="has no labels: use the model's own predictions"):
        sampled(original, bare)


@pytest.mark.parametrize("rare", [1, 4, 20])
def test_pseudo_labels_cover_the_full_index_though_a_predicted_class_is_rare(rare):
    """A sample without the rare class would give the mean over the other classes, far from that of all."""
    generator, counts = np.random.default_rng(rare), (700, 700, 700, rare)
    y = np.repeat(np.arange(CLASSES), counts)
    directions = 6.0 * np.eye(WIDTH)[: 2 * CLASSES]
    network = model()
    with torch.no_grad():  # it predicts the class of either direction
        weight = np.tile(np.eye(CLASSES), 2) @ directions
        network[1].weight.copy_(torch.from_numpy(weight))
        network[1].bias.zero_()
    turned = directions[:CLASSES].copy()
    turned[:3] += 0.1 * directions[CLASSES : 2 * CLASSES - 1]
    turned[3] = directions[-1]
    sets = [means[y] + 0.3 * generator.normal(size=(len(y), WIDTH)) for means in (directions[:CLASSES], turned)]
    original, new = (load_data((torch.from_numpy(x).float(), y), name="drawn") for x in sets)
    before, after = profile(network, original, layer="0"), profile(network, new, layer="0", labels="pseudo")
    assert after.counts == dict(enumerate(counts))
    truth, covered = resque_dist(before, after).value, 0
    for seed in range(20):
        options = SamplingOptions("0.5", labels="pseudo", undefined="skip", seed=seed)
        index = sample_index(network, before, IndexedDataset.of(new), options)
        covered += index.interval.low <= truth <= index.interval.high
        assert index.skipped == 0
    assert covered >= 18


def test_broken_models_and_data_are_refused():
    original, shifted = drawn(9)
    shifted.inputs[5] = math.nan
    with pytest.raises(RepresentationError, match="NaN or infinity"):
        sampled(original, shifted, "1e-9rad")


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "-0.1", "nan", "inf", "3%", "0.1deg", "4rad", "0.1,0.2", "0.1rad,0.01pi", "0.1,", "rad", None],
)
def test_a_malformed_precision_is_refused_in_one_line(text):
    with pytest.raises(SettingError, match="expected a share of the index such as 0.03") as error:
        Precision.parse(text)
    assert "\n" not in str(error.value)


@given(st.floats(1e-6, 0.99), st.sampled_from(["rad", "pi"]))
def test_both_bounds_are_read_in_either_order(value, unit):
    angle = value * {"rad": 1.0, "pi": math.pi}[unit]
    for parts in itertools.permutations([f"{value}", f"{value}{unit}"]):
        assert Precision.parse(",".join(parts)) == Precision(value, pytest.approx(angle))
    assert Precision.parse(value) == Precision(value, None)


def group_sums(rows, totals, groups=GROUPS):
    parts = [torch.stack([each[g::groups].sum(0) for g in range(groups)]) for each in rows]
    counts = [[len(each[g::groups]) for g in range(groups)] for each in rows]
    return GroupSums(torch.stack(parts), np.array(counts, dtype=float), np.array(totals, dtype=float))


@given(seed=st.integers(0, 10**6), power=st.integers(-20, 20))
def test_the_estimate_does_not_depend_on_scale_or_rotation(seed, power):
    generator = np.random.default_rng(seed)
    rows = [[torch.from_numpy(generator.normal(size=(40, 5)) + 2) for _ in range(3)] for _ in range(2)]
    turn = torch.from_numpy(np.linalg.qr(generator.normal(size=(5, 5)))[0]) * 2.0**power
    expected = estimate_sampled(*(group_sums(each, [400] * 3) for each in rows), 0.9)
    turned = estimate_sampled(*(group_sums([x @ turn for x in each], [400] * 3) for each in rows), 0.9)
    for name in ("value", "low", "high"):
        assert getattr(turned, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_too_few_groups_give_no_estimate_unless_all_is_read():
    rows = [torch.ones(2, 3, dtype=torch.float64)]
    assert estimate_sampled(group_sums(rows, [2]), group_sums(rows, [9]), 0.9) is None
    assert estimate_sampled(group_sums(rows, [2]), group_sums(rows, [2]), 0.9).value == pytest.approx(0.0, abs=1e-7)


def test_an_angle_that_cannot_be_told_from_0_has_its_noise_as_interval():
    noise = torch.tensor([[1.0, 0.2], [1.0, -0.2]], dtype=torch.float64).repeat_interleave(GROUPS, 0)
    shifted = GroupSums(noise[None], np.ones((1, 2 * GROUPS)), np.array([1000.0]))
    original = GroupSums(torch.tensor([[[5.0, 0.0]]]).double(), np.array([[5.0]]), np.array([5.0]))
    estimate = estimate_sampled(original, shifted, 0.9)
    assert estimate.value == 0.0
    assert estimate.high == pytest.approx(0.2 / math.sqrt(2 * GROUPS), rel=0.1)


def test_the_arc_cosine_adds_no_bias():
    generator, classes, n, angle = np.random.default_rng(0), 4000, 24, 0.6
    before = torch.tensor([[[9.0, 0.0]]]).double().repeat(classes, 1, 1)
    original = GroupSums(before, np.full((classes, 1), 9.0), np.full(classes, 9.0))
    along = 0.15 * math.sqrt(n) * generator.normal(size=(classes, n))  # noise along the arc alone
    rows = [math.cos(angle) - along * math.sin(angle), math.sin(angle) + along * math.cos(angle)]
    shifted = group_sums(list(torch.from_numpy(np.stack(rows, -1))), [10**6] * classes)
    assert estimate_sampled(original, shifted, 0.9).value == pytest.approx(angle, abs=0.008)


def test_the_two_datasets_are_read_in_different_orders():
    data, _ = drawn(4)
    seen = [], []
    opened = [IndexedDataset(data, lambda rows, kept=kept: kept.append(rows) or data.take(rows)) for kept in seen]
    sample_index(model(), *opened, SamplingOptions("0.05,0.5rad", layer="0", reduction="flatten"))
    first, second = (set(kept[0].tolist()) for kept in seen)
    assert len(first) == len(second) == CLASSES * 32
    assert len(first & second) < CLASSES * 16


@pytest.mark.parametrize("n", [40, 500, 3000])
def test_each_look_has_the_level_with_which_all_together_have_the_nominal_one(n, monkeypatch):
    levels = []
    monkeypatch.setattr(sampled_dist, "estimate_sampled", lambda before, after, level: levels.append(level))
    original, shifted = drawn(0, counts=(n,) * CLASSES)
    index = sampled(original, shifted, level=0.8)
    assert index.sampling.n_read == len(shifted)  # no look has told anything
    assert len(levels) == len(_schedule(n)) - 1
    assert math.prod(levels) == pytest.approx(0.8)
