"""Profiles of all shards merge into the profile of one process; what does not belong together is refused."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import resque
from resque.data.dataset import BATCH, LabeledDataset
from resque.data.shards import Shard, parse_shard
from resque.errors import DataError, ProfileMismatchError, SettingError
from resque.indices.compute_profile import profile
from resque.indices.merging import merge
from resque.indices.profile import Profile
from resque.indices.profile_file import read_profile_file, write_profile_file


def images(n, classes=3, seed=0, names=()):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 5, 5, generator=generator)
    y = torch.randint(0, classes, (n,), generator=generator)
    return LabeledDataset(f"images-{seed}", x, y, torch.arange(n), class_names=names)


def network(dtype=torch.float32, norm=False):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), *([nn.BatchNorm2d(3)] if norm else []), nn.ReLU(), nn.Flatten(), nn.Linear(27, 4)]
    return nn.Sequential(*layers).to(dtype)


def assert_same(merged, whole):
    """Every field of the profiles agrees: numbers exactly, sums up to the rounding of float64."""
    assert (merged.origin, merged.labels_from, merged.class_names) == (
        whole.origin,
        whole.labels_from,
        whole.class_names,
    )
    assert (merged.n, merged.counts, merged.width, merged.shard) == (whole.n, whole.counts, whole.width, None)
    assert (merged._declared is None) == (whole._declared is None)
    assert merged._declared is None or torch.equal(merged._declared, whole._declared)
    assert (merged.channels is None) == (whole.channels is None)
    for label, halves in whole.split_halves.items():
        assert merged.split_halves[label].counts == halves.counts
        assert np.allclose(merged.split_halves[label].sums, halves.sums, rtol=1e-12, atol=1e-12)
        assert np.allclose(merged.sums[label], whole.sums[label], rtol=1e-12, atol=1e-12)
    for name, sums in (whole.channels or {}).items():
        assert merged.channels[name].count == sums.count
        assert torch.allclose(merged.channels[name].sums, sums.sums, rtol=1e-12, atol=1e-12)


@settings(max_examples=25)
@given(
    n=st.integers(1, 7 * BATCH),
    of=st.integers(1, 9),  # more shards than batches, so that some are empty
    classes=st.sampled_from([2, 3, 400]),  # more shards than samples in a class
    labels=st.sampled_from(["true", "pseudo"]),
    declared=st.booleans(),
    norm=st.booleans(),
    double=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_merged_profile_equals_that_of_one_process(n, of, classes, labels, declared, norm, double, seed):
    data = images(n, classes, seed, names=tuple(f"class {label}" for label in range(classes)))
    model = network(torch.float64 if double else torch.float32, norm)
    options = {"classes": classes if declared and labels == "true" else None, "labels": labels}
    whole = profile(model, data, **options)
    parts = [profile(model, data, **options, shard=(number, of)) for number in range(1, of + 1)]
    np.random.default_rng(seed).shuffle(parts)
    assert_same(merge(parts), whole)


@pytest.mark.filterwarnings("ignore:classes of fewer than 5 samples")
@settings(max_examples=10)
@given(n=st.sampled_from([1, BATCH, BATCH + 1, 3 * BATCH]), of=st.integers(1, 5), declared=st.booleans())
def test_files_merge_as_profiles_do(tmp_path_factory, n, of, declared):
    folder, data, model = tmp_path_factory.mktemp("shards"), images(n, names=("a", "b", "c")), network()
    options = {"classes": 3 if declared else None}
    files = [folder / f"{number}.safetensors" for number in range(1, of + 1)]
    for number, file in enumerate(files, start=1):
        profile(model, data, **options, shard=(number, of)).save(file)
    assert_same(merge(files[::-1]), profile(model, data, **options))
    assert [len(Profile.load(file).shard) for file in files] == [Profile.load(file).n for file in files]


@given(n=st.integers(1, 5000), of=st.integers(1, 40))
def test_shards_cover_the_data_once_in_whole_batches_that_differ_by_one(n, of):
    data = images(n, seed=1)
    shards = [Shard.cut(data, number, of) for number in range(1, of + 1)]
    assert torch.equal(torch.cat([shard.rows for shard in shards]), torch.arange(n))
    batches = [-(-len(shard) // BATCH) for shard in shards]
    assert max(batches) - min(batches) <= 1
    assert all(shard.start % BATCH == 0 or shard.start == n for shard in shards)


def test_index_of_merged_profiles_is_that_of_whole_ones():
    model, clean, new = network(), images(900), images(700, seed=3)
    merged = [merge(profile(model, data, shard=(i, 3)) for i in (1, 2, 3)) for data in (clean, new)]
    for debias in (False, True):
        one = resque.resque_dist(profile(model, clean), profile(model, new), debias=debias)
        other = resque.resque_dist(*merged, debias=debias)
        assert dataclasses.astuple(other)[1:2] == dataclasses.astuple(one)[1:2]
        assert (other.value, other.floor, other.interval.low) == pytest.approx((one.value, one.floor, one.interval.low))


DATA = images(3 * BATCH)


def shard(number, of=3, data=DATA, model=None, **options):
    return profile(model or network(), data, **options, shard=(number, of))


def named(names):
    return dataclasses.replace(DATA, class_names=tuple(names))


MISFITS = {
    "number of shards": (lambda: shard(2, of=4), "profile all shards with the same number"),
    "data": (lambda: shard(2, data=images(3 * BATCH, seed=9)), "shards of different data"),
    "limit": (lambda: shard(2, data=DATA.limited(600)), "768 samples"),
    "one label": (
        lambda: shard(2, data=dataclasses.replace(DATA, labels=torch.cat([DATA.labels[:-1], 2 - DATA.labels[-1:]]))),
        "shards of different data",
    ),
    "model": (lambda: shard(2, model=network(norm=True)), "differ in model"),
    "layer": (lambda: shard(2, layer="1"), "differ in layer"),
    "reduction": (lambda: shard(2, reduction="mean"), "differ in reduction"),
    "preprocessing": (lambda: shard(2, preprocessing="x / 255"), "differ in preprocessing"),
    "labels": (lambda: shard(2, labels="pseudo"), "profile all shards with the same --labels"),
    "class names": (
        lambda: shard(2, data=dataclasses.replace(DATA, class_names=("x", "y", "z"))),
        "number the classes",
    ),
    "whole": (lambda: profile(network(), DATA), "whole, and no shard"),
}


@pytest.mark.parametrize("change", MISFITS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_misfitting_shard_is_refused_in_one_line_that_says_what_to_do(change, place):
    make, said = MISFITS[change]
    one, three = (shard(number, data=named("abc")) for number in (1, 3))
    parts = [one, three]
    parts.insert(place, make())
    with pytest.raises(ProfileMismatchError) as error:
        merge(parts)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


PARTS = [shard(number, of=6) for number in range(1, 7)]


@pytest.mark.parametrize("kept", [kept for size in (1, 3, 5) for kept in itertools.combinations(range(6), size)])
def test_missing_shards_are_named(kept):
    with pytest.raises(ProfileMismatchError) as error:
        merge([PARTS[place] for place in kept])
    missing = [f"{place + 1}/6" for place in range(6) if place not in kept]
    assert f"for {', '.join(missing)} with" in str(error.value)
    assert f"{len(missing)} of 6 shards" in str(error.value)


@pytest.mark.parametrize("twice", range(6))
@pytest.mark.parametrize("missing", [None, 5])
def test_doubled_shard_is_named(twice, missing):
    parts = [part for place, part in enumerate(PARTS) if place != missing or place == twice]
    with pytest.raises(ProfileMismatchError, match=f"shard {twice + 1}/6 is there 2 times"):
        merge([*parts, PARTS[twice]])


def test_shards_that_another_version_cut_elsewhere_are_refused():
    for start, stop in ((255, 512), (256, 511), (257, 512)):
        moved = shard(2)
        moved.shard = dataclasses.replace(moved.shard, start=start, stop=stop)
        with pytest.raises(ProfileMismatchError, match="without a gap"):
            merge([shard(1), moved, shard(3)])


def test_nothing_is_refused():
    with pytest.raises(ProfileMismatchError, match="nothing to merge"):
        merge([])


@pytest.mark.parametrize("place", [0, 1])
def test_shard_where_a_whole_profile_is_needed_is_refused(place):
    pair = [profile(network(), DATA), profile(network(), DATA)]
    pair[place] = shard(2)
    for needs_whole in (resque.resque_dist, lambda one, two: one + two):
        with pytest.raises(ProfileMismatchError, match=r"is shard 2/3 of a profile.*`resque merge"):
            needs_whole(*pair)


@pytest.mark.parametrize(("number", "of"), [(0, 3), (4, 3), (-1, 3), (1, 0), (1.0, 3), (True, 2), ("1", 3)])
def test_numbers_that_are_no_shard_are_refused(number, of):
    with pytest.raises(SettingError, match="expected i/n with i from 1 to n"):
        profile(network(), DATA, shard=(number, of))


@pytest.mark.parametrize(
    "text", ["", "1", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1.0/3", "1 / 3", "٣/4", "1/3 "]
)
def test_texts_that_are_no_shard_are_refused(text):
    with pytest.raises(SettingError, match="expected i/n"):
        parse_shard(text)


def test_loader_of_unknown_length_is_refused_unless_its_shard_is_given():
    loader = list(DATA.batches())
    with pytest.raises(SettingError, match="the loader is a list: pass what resque.load_data returns"):
        profile(network(), loader, shard=(1, 3))
    parts = [profile(network(), [loader[i]], shard=Shard.cut(DATA, i + 1, 3)) for i in range(3)]
    assert_same(merge(parts), profile(network(), DATA))


FIELDS = json.loads(PARTS[1].shard.to_json())
BROKEN = [
    "", "null", "[]", "7", '"1/3"', "{", json.dumps({}), json.dumps({**FIELDS, "more": 1}),
    *(json.dumps({**FIELDS, name: value}) for name in ("number", "of", "start", "stop", "total")
      for value in (-1, None, "1", 1.5, True)),
    json.dumps({**FIELDS, "stop": 10**9}), json.dumps({**FIELDS, "start": 0}), json.dumps({**FIELDS, "number": 7}),
    json.dumps({**FIELDS, "swap": 2}), json.dumps({**FIELDS, "data": 7}),
]  # fmt: skip


def rewrite(file, text):
    tensors, metadata = read_profile_file(file)
    write_profile_file(file, tensors, {**metadata, "shard": text})
    return Profile.load(file)


@pytest.mark.parametrize("text", BROKEN)
def test_file_with_a_shard_that_cannot_be_is_refused(tmp_path, text):
    file = tmp_path / "p.safetensors"
    PARTS[1].save(file)
    assert rewrite(file, PARTS[1].shard.to_json()).shard == PARTS[1].shard
    with pytest.raises(DataError, match=r"shard|counts of"):
        rewrite(file, text)
