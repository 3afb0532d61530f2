import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from resque.errors import DataError, ProfileMismatchError, RepresentationError
from resque.indices.compute_profile import profile
from resque.indices.profile import Origin, Profile


def sample(seed, n=60, width=5, classes=4):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, width)), generator.integers(0, classes, n)


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_any_cut_of_the_stream_gives_the_same_result(seed, cuts):
    z, y = sample(seed)
    whole, streamed = Profile.from_arrays(z, y), Profile()
    merged = Profile()
    edges = [0, *sorted(cuts), 60]
    for start, stop in zip(edges, edges[1:], strict=False):
        streamed.update(z[start:stop], y[start:stop])
        merged = merged + Profile.from_arrays(z[start:stop], y[start:stop])
    for label, total in whole.sums.items():
        assert np.allclose(streamed.split_halves[label].sums, whole.split_halves[label].sums, rtol=0, atol=1e-12)
        assert np.allclose(merged.sums[label], total, rtol=0, atol=1e-12)
        assert np.allclose(total, z[y == label].sum(0))
    assert streamed.counts == merged.counts == whole.counts == {k: int((y == k).sum()) for k in set(y.tolist())}


@given(seed=st.integers(0, 10**6))
def test_halves_do_not_depend_on_the_order_if_indices_are_given(seed):
    z, y = sample(seed)
    order = np.random.default_rng(seed + 1).permutation(60)
    one, other = Profile(), Profile()
    one.update(z, y, indices=np.arange(60))
    other.update(z[order], y[order], indices=order)
    assert all(
        np.allclose(one.split_halves[k].sums, other.split_halves[k].sums, rtol=0, atol=1e-12) for k in one.counts
    )


def test_halves_have_about_equal_counts_and_add_up_to_the_total():
    z, y = sample(0, n=4000, classes=2)
    result = Profile.from_arrays(np.ones_like(z), y)
    first, second = result.split_halves[0].sums[:, 0]
    assert first + second == result.counts[0]
    assert abs(first - second) < 5 * np.sqrt(result.counts[0])


def test_sums_are_exact_in_float32_and_half_precision():
    z = torch.full((100_000, 1), 0.1, dtype=torch.float32)
    result = Profile.from_arrays(z, torch.zeros(100_000, dtype=torch.int64))
    assert result.sums[0][0] == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-12)
    half = Profile.from_arrays(
        torch.full((70_000, 1), 1.0, dtype=torch.bfloat16), torch.zeros(70_000, dtype=torch.long)
    )
    assert half.sums[0][0] == 70_000


def test_saved_profile_of_100_classes_and_512_features_is_below_1_mb_and_loads_unchanged(folder):
    z, y = sample(0, n=1200, width=512)[0], np.arange(1200) % 100
    result = Profile.from_arrays(z, y)
    result.save("p.safetensors")
    assert (folder / "p.safetensors").stat().st_size < 1_000_000
    back = Profile.load("p.safetensors")
    assert back.counts == result.counts
    assert all(np.array_equal(back.split_halves[k].sums, result.split_halves[k].sums) for k in result.counts)
    assert vars(back.origin) == vars(result.origin)
    with safe_open("p.safetensors", "pt") as file:
        assert set(file.keys()) == {"labels", "sums", "counts"}
        assert set(json.loads(file.metadata()["origin"])) == {"model", "layer", "preprocessing", "reduction"}
    assert sum(back.counts.values()) == back.n == 1200


def test_loaded_profile_can_be_updated(folder):
    z, y = sample(0)
    first = Profile.from_arrays(z[:30], y[:30])
    first.save("p.safetensors")
    back = Profile.load("p.safetensors")
    back.update(z[30:], y[30:])
    assert back.counts == Profile.from_arrays(z, y).counts


def test_pseudo_labels_are_the_models_predictions(cnn, small):
    result = profile(cnn, small[0].batches(), labels="pseudo")
    cnn.eval()
    with torch.no_grad():
        predicted = torch.cat([cnn(x).argmax(1) for x, _ in small[0].batches()])
    assert result.counts == {int(k): int((predicted == k).sum()) for k in predicted.unique()}
    assert result.labels_from == "pseudo"


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (Origin(model="b", layer="l"), "differ in model: 'a' and 'b'"),
        (Origin(model="a", layer="k"), "differ in layer"),
        (Origin(model="a", layer="l", reduction="mean"), "differ in reduction"),
        (Origin(model="a", layer="l", preprocessing="x"), "differ in preprocessing"),
    ],
)
def test_profiles_of_different_origin_cannot_be_added(origin, message):
    with pytest.raises(ProfileMismatchError, match=message):
        Profile(Origin(model="a", layer="l")) + Profile(origin)


def test_invalid_input_raises():
    z, y = sample(0)
    for bad, labels, message in [
        (np.full_like(z, np.nan), y, "NaN or infinity"),
        (np.full_like(z, np.inf), y, "NaN or infinity"),
        (z, y.astype(float), "expected integers"),
        (z, y > 1, "expected integers"),
        (z, y[:-1], r"shape \(59,\); expected \(60,\)"),
    ]:
        with pytest.raises(RepresentationError, match=message):
            Profile.from_arrays(bad, labels)
    with pytest.raises(RepresentationError, match="width 4 after width 5"):
        Profile.from_arrays(z, y).update(z[:, :4], y)
    with pytest.raises(RepresentationError, match="declared classes"):
        Profile.from_arrays(z, y, classes=2)
    with pytest.raises(ProfileMismatchError, match="width"):
        Profile.from_arrays(z, y) + Profile.from_arrays(z[:, :4], y)


def test_refused_batch_leaves_the_profile_unchanged():
    z, y = sample(0)
    result = Profile.from_arrays(z, y)
    with pytest.raises(RepresentationError):
        result.update(np.full((1, 5), np.nan), [9])
    assert result.counts == Profile.from_arrays(z, y).counts


def test_loading_another_file_raises(folder, cnn):
    from resque.models.weights import save_weights

    save_weights(cnn, folder / "weights.safetensors")
    (folder / "text.safetensors").write_text("x")
    for name, message in {
        "none": "no such profile",
        "weights.safetensors": "but no profile",
        "text.safetensors": "is no readable profile",
    }.items():
        with pytest.raises(DataError, match=message):
            Profile.load(folder / name)
    with pytest.raises(RepresentationError, match="empty"):
        Profile().save("p.safetensors")


def test_saving_warns_of_classes_with_few_samples(tmp_path):
    result = Profile.from_arrays(np.ones((9, 2)), [0] * 5 + [1] * 4)
    assert result.exposed_classes == [1]
    with pytest.warns(UserWarning, match="classes of fewer than 5 samples: 1; their sums reveal"):
        result.save(tmp_path / "p.safetensors")


def read(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


WITHOUT = object()
INVALID = {
    "labels": [
        lambda labels: labels.flip(0), lambda labels: labels[[0, 0, 1, 2]], lambda labels: labels.int(),
        lambda labels: labels[:1], lambda labels: labels[None], lambda labels: labels[:0], WITHOUT,
    ],
    "sums": [
        lambda sums: sums * float("nan"), lambda sums: sums + float("inf"), lambda sums: sums.float(),
        lambda sums: sums[:1], lambda sums: sums[:, :2], lambda sums: sums[..., :0], lambda sums: sums[..., 0],
        lambda sums: sums + 1.0, WITHOUT,
    ],
    "counts": [
        lambda counts: -counts, lambda counts: counts * 0, lambda counts: counts[:1], lambda counts: counts[:, :3],
        lambda counts: counts + 2**62, lambda counts: counts.double(), lambda counts: counts[0], WITHOUT,
    ],
    "extra": [lambda _: torch.zeros(2)],
}  # fmt: skip
ORIGIN = {"model": "m", "layer": "l", "preprocessing": "", "reduction": "flatten"}
INVALID_METADATA = {
    "origin": [
        WITHOUT, "", "{", "[]", "null", "[" * 100_000, json.dumps({}), json.dumps(ORIGIN | {"model": 3}),
        json.dumps(ORIGIN | {"reduction": "none"}), json.dumps(ORIGIN | {"more": ""}),
    ],
    "labels_from": [WITHOUT, "", "False", "trud"],
    "classes": ["", "closed"],
    "hue": ["red"],
}  # fmt: skip


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("field", [*INVALID, *INVALID_METADATA])
def test_invalid_field_is_refused_by_its_name(folder, field, checksum):
    """With a checksum and without, as older versions wrote it."""
    y = np.repeat([0, 1, 2, 5], 20)
    result = Profile.from_arrays(np.ones((80, 3)), y, classes=[0, 1, 2, 3, 5])
    result.save("p.safetensors")
    for change in INVALID.get(field, []) + INVALID_METADATA.get(field, []):
        tensors, about = read("p.safetensors")
        if not checksum:
            del about["checksum"]
        if field in INVALID_METADATA:
            about = {key: value for key, value in (about | {field: change}).items() if value is not WITHOUT}
        elif change is WITHOUT:
            del tensors[field]
        else:
            tensors[field] = change(tensors.get(field)).contiguous()
        save_file(tensors, "invalid.safetensors", about)
        with pytest.raises(DataError, match=f"{field}|sums have the shape") as error:
            Profile.load("invalid.safetensors")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", np.linspace(0, 1, 25).tolist())
def test_flipped_bit_is_found(folder, place):
    """Any bit of the file, header and padding included; a profile that still loads is unchanged."""
    result = Profile.from_arrays(*sample(0, width=64))
    result.save("p.safetensors")
    data = (folder / "p.safetensors").read_bytes()
    generator = np.random.default_rng(int(1000 * place))
    for position in {int(place * (len(data) - 1)), *generator.integers(0, len(data), 15).tolist()}:
        spoiled = bytearray(data)
        spoiled[position] ^= 1 << int(generator.integers(8))
        (folder / "spoiled.safetensors").write_bytes(spoiled)
        with pytest.raises(DataError, match="safetensors"):
            Profile.load("spoiled.safetensors")


def test_profile_without_checksum_loads_and_a_damaged_one_can_be_made_again(folder):
    result = Profile.from_arrays(*sample(0))
    result.save("p.safetensors")
    tensors, about = read("p.safetensors")
    save_file(tensors, "old.safetensors", {key: value for key, value in about.items() if key != "checksum"})
    assert np.array_equal(Profile.load("old.safetensors").split_halves[0].sums, result.split_halves[0].sums)
    save_file(tensors | {"sums": tensors["sums"] * 2}, "p.safetensors", about)
    with pytest.raises(DataError, match="damaged: its checksum differs"):
        Profile.load("p.safetensors")
    result.save("p.safetensors")
    assert Profile.load("p.safetensors").counts == result.counts


@pytest.mark.parametrize("spoiled", [Profile(labels_from="some"), Profile(Origin(layer=None))])
def test_nothing_is_written_that_could_not_be_read(folder, spoiled):
    spoiled.update(*sample(0))
    with pytest.raises(DataError, match="nothing was written"):
        spoiled.save("p.safetensors")
    assert not list(folder.iterdir())


def test_saving_replaces_a_profile_but_no_other_file(folder):
    result = Profile.from_arrays(*sample(0))
    (folder / "text").write_text("x")
    for _ in range(2):
        result.save("p.safetensors")
    assert Profile.load("p.safetensors").counts == result.counts
    with pytest.raises(DataError, match="text"):
        result.save("text")


def test_empty_profile_has_no_sums():
    empty = Profile(classes=3)
    assert (empty.n, empty.width, empty.counts, empty.sums) == (0, 0, {}, {})
    assert (empty + Profile()).empty
    assert repr(empty).startswith("Profile(n=0, classes=0, width=0, Origin(")


def test_arrays_of_any_layout_are_accepted():
    z, y = sample(0)
    whole = Profile.from_arrays(z, y)
    for layout in (z[::-1][::-1], z.astype(">f8"), np.asfortranarray(z)):
        assert np.allclose(Profile.from_arrays(layout, y).sums[0], whole.sums[0])
    z.setflags(write=False)
    assert np.allclose(Profile.from_arrays(z, y.astype(">i4")).sums[0], whole.sums[0])
    assert Profile.from_arrays(np.zeros((0, 3)), []).n == 0
    with pytest.raises(RepresentationError, match="complex"):
        Profile.from_arrays(z.astype(complex), y)
    with pytest.raises(RepresentationError, match="exceeds"):
        Profile.from_arrays(z[:2], np.array([1, 2**63], dtype=np.uint64))


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([[1.0], [1.0, 2.0]], [0, 1]),
        ([["a"], ["b"]], [0, 1]),
        ([[None], [1.0]], [0, 1]),
        ([[1.0], [2.0]], [0, 10**30]),
        ([[1.0], [2.0]], ["cat", "dog"]),
        (np.ones((2, 0)), [0, 1]),
        (np.ones((2, 2)) * 1j, [0, 1]),
        (1.0, [0]),
    ],
)
def test_input_that_is_not_a_numeric_array_raises_representation_error(values, labels):
    with pytest.raises(RepresentationError):
        Profile.from_arrays(values, labels)


def test_tensors_and_lists_of_any_kind_are_accepted():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    for form in (rows, list(rows), rows.detach().to_sparse(), [[True, False], [False, True]]):
        assert Profile.from_arrays(form, [0, 1]).n == 2
    assert Profile.from_arrays(rows, [0, 3], classes=np.int64(4)).counts == {0: 1, 3: 1}


def test_sum_that_overflows_float64_raises():
    with pytest.raises(RepresentationError, match="too large"):
        _ = Profile.from_arrays([[1e308], [1e308]], [0, 0]).sums


def test_profile_computed_in_inference_mode_can_be_updated_outside():
    with torch.inference_mode():
        result = Profile.from_arrays(torch.ones(3, 2), [0, 1, 1])
    result.update(torch.ones(1, 2), [0])
    assert (result + result).counts == {0: 4, 1: 4}


def test_declared_classes_survive_saving_and_adding(tmp_path):
    result = Profile.from_arrays([[1.0]] * 5, [0] * 5, classes=3)
    result.save(tmp_path / "p.safetensors")
    for same in (Profile.load(tmp_path / "p.safetensors"), result + Profile(), Profile() + result, result + result):
        with pytest.raises(RepresentationError, match="not among the declared classes"):
            same.update([[1.0]], [7])
    assert sum([result, result]).n == 10
    free = result + Profile.from_arrays([[1.0]], [7])
    free.update([[1.0]], [9])
    assert free.counts == {0: 5, 7: 1, 9: 1}


def test_labels_other_than_true_or_pseudo_raise(cnn):
    with pytest.raises(RepresentationError, match="use 'true' or 'pseudo'"):
        profile(cnn, [], labels="predicted")
    with pytest.raises(RepresentationError, match="no batch"):
        profile(cnn, [])


def test_pseudo_labels_need_no_labels(cnn):
    images = torch.rand(6, 1, 16, 16)
    forms = ([images], [(images,)], [(images, None)], [images.numpy()])
    result = [profile(cnn, form, labels="pseudo") for form in forms]
    assert all(one.counts == result[0].counts for one in result)


def plain_network():
    torch.manual_seed(0)
    convolutions = torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3)
    pool = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*convolutions, *pool, torch.nn.Linear(5, 3)).eval()


BATCHES = [(torch.randn(n, 1, 9, 9, generator=torch.Generator().manual_seed(n)), torch.arange(n) % 3) for n in (7, 5)]


def assert_same_channels(found, expected, tolerance=1e-12):
    assert list(found) == list(expected)
    for name, sums in expected.items():
        assert found[name].count == sums.count
        assert torch.allclose(found[name].sums, sums.sums, rtol=tolerance, atol=tolerance)


def test_the_profile_of_a_network_without_batch_norm_keeps_sums_over_channels(folder):
    net = plain_network()
    whole = profile(net, BATCHES)
    outputs = net[0](torch.cat([inputs for inputs, _ in BATCHES])).detach().double().transpose(0, 1).flatten(1)
    assert whole.channels["0"].count == outputs.shape[1]
    assert torch.allclose(whole.channels["0"].mean, outputs.mean(1), atol=1e-7)
    assert torch.allclose(whole.channels["0"].variance, outputs.var(1, correction=0), atol=1e-7)
    parts = [profile(net, [batch]) for batch in BATCHES]
    assert_same_channels(sum(parts).channels, whole.channels)
    assert_same_channels((Profile(whole.origin) + whole).channels, whole.channels)
    with pytest.warns(UserWarning, match="fewer than 5"):
        whole.save("p.safetensors")
    back = Profile.load("p.safetensors")
    assert_same_channels(back.channels, whole.channels, tolerance=0.0)
    assert_same_channels((back + parts[0]).channels, (whole + parts[0]).channels)


def test_sums_over_channels_are_unknown_where_they_would_be_of_a_part(folder, cnn, small):
    assert profile(cnn, small[0].batches()).channels is None  # batch norm adapts by itself
    assert profile(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(81, 3)), BATCHES, layer="0").channels is None
    whole = profile(plain_network(), BATCHES)
    older = profile(plain_network(), BATCHES)
    older.channels = None
    assert (whole + older).channels is (older + whole).channels is None
    whole.update(torch.zeros(1, whole.width), [0])
    assert whole.channels is None


def test_a_pass_that_is_repeated_for_a_model_in_place_counts_once():
    class SometimesInPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = plain_network(), 0

        def forward(self, x):
            self.calls += 1
            hidden = self.net[0](x)
            kept = hidden.clone()
            if self.calls > 1:
                hidden.mul_(2.0)
            return self.net[1:](kept)

    model = SometimesInPlace()
    found = profile(model, BATCHES, layer="net.0").channels
    assert model.calls == 3
    assert_same_channels(
        {name.removeprefix("net."): sums for name, sums in found.items()}, profile(plain_network(), BATCHES).channels
    )


INVALID_CHANNELS = {
    "channel_sums:0": [
        WITHOUT, lambda sums: sums.float(), lambda sums: sums[:1], lambda sums: sums[0], lambda sums: sums[:, :0],
        lambda sums: sums * float("nan"), lambda sums: sums + float("inf"), lambda sums: -sums,
        lambda sums: sums * torch.tensor([[1.0], [0.0]]),
    ],
    "channel_count:0": [
        WITHOUT, lambda count: count.double(), lambda count: count * 0, lambda count: -count, lambda count: count[None],
        lambda count: count + 2**62,
    ],
    "channel_means:0": [lambda _: torch.zeros(2)],
}  # fmt: skip


@pytest.mark.parametrize("field", INVALID_CHANNELS)
def test_invalid_sums_over_channels_are_refused_by_their_name(folder, field):
    inputs = torch.randn(30, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    profile(plain_network(), [(inputs, torch.arange(30) % 3)]).save("p.safetensors")
    for change in INVALID_CHANNELS[field]:
        tensors, about = read("p.safetensors")
        del about["checksum"]
        if change is WITHOUT:
            del tensors[field]
        else:
            tensors[field] = change(tensors.get(field)).contiguous()
        save_file(tensors, "invalid.safetensors", about)
        with pytest.raises(DataError, match=field) as error:
            Profile.load("invalid.safetensors")
        assert "\n" not in str(error.value)


def test_damaged_sums_over_channels_are_found(folder):
    inputs = torch.randn(30, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    profile(plain_network(), [(inputs, torch.arange(30) % 3)]).save("p.safetensors")
    tensors, about = read("p.safetensors")
    save_file(tensors | {"channel_sums:0": tensors["channel_sums:0"] * 1.5}, "p.safetensors", about)
    with pytest.raises(DataError, match="damaged: its checksum differs"):
        Profile.load("p.safetensors")
