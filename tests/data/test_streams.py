"""Streams give the samples of the same data in memory, once each, and refuse what needs another order."""

import dataclasses
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import resque
from resque.data import streams
from resque.data.loading import load_data
from resque.data.streams import open_stream
from resque.errors import DataError, RepresentationError, ResqueError, SettingError
from resque.workflows.inputs import InputLoader

datasets = pytest.importorskip("datasets")
N, FILES = 61, 3
NAMES = ["wolf", "ant", "bee"]
FORMS = "parquet", "words", "tar"
STEPS = "", "@16px", "@rgb+blur:3", "+gaussian:5", "+gaussian:4/blur:2/none", "@gray@12px+blur:1+gaussian:2"


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def pixels_and_labels():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (N, 9, 9), np.uint8), np.arange(N) % 3


def write_parquet(path, images, labels, feature=None):
    rows = {"image": [{"bytes": png(image), "path": None} for image in images], "label": labels}
    features = datasets.Features({"image": datasets.Image(), "label": feature}) if feature else None
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def write_tar(path, images, labels, first=0):
    with tarfile.open(path, "w") as tar:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            for suffix, content in (("png", png(image)), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{first + i:05}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """The same samples in one file in memory, and as streams of three files of different lengths."""
    place = tmp_path_factory.mktemp("streams")
    x, y = pixels_and_labels()
    named = datasets.ClassLabel(names=NAMES)
    write_parquet(place / "whole.parquet", x, y.tolist(), named)
    for number, rows in enumerate(np.split(np.arange(N), [7, 40])):
        labels = y[rows].tolist()
        write_parquet(place / f"part-{number}.parquet", x[rows], labels, named)
        write_parquet(place / f"words-{number}.parquet", x[rows], [NAMES[label] for label in labels])
        write_tar(place / f"part-{number}.tar", x[rows], labels, rows[0])
    return {
        "memory": f"parquet:{place}/whole.parquet",
        "parquet": f"stream:parquet:{place}/part-*.parquet",
        "words": f"stream:parquet:{place}/words-*.parquet",
        "tar": f"stream:tar:{place}/part-0.tar,{place}/part-[12].tar",
    }


@pytest.fixture
def model():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(81, 8), nn.ReLU(), nn.Linear(8, 3))
    network.id2label = dict(enumerate(NAMES))
    return network


def collected(stream, **options):
    inputs, labels = zip(*stream.batches(16, **options), strict=True)
    return torch.cat(inputs), torch.cat(labels)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("form", FORMS)
def test_a_stream_gives_the_samples_of_the_same_data_in_memory(specs, form, steps):
    memory = load_data(specs["memory"] + steps)
    inputs, labels = collected(open_stream(specs[form] + steps).numbered(tuple(NAMES)))
    assert torch.equal(inputs, next(memory.batches(N))[0])
    assert labels.tolist() == memory.labels.tolist()


@pytest.mark.parametrize("labels", ["true", "pseudo"])
@pytest.mark.parametrize("form", FORMS)
def test_the_profile_of_a_stream_is_that_of_the_same_data_in_memory(specs, model, form, labels):
    loader = InputLoader(model)
    network = loader.network()
    memory, streamed = (
        loader.profile(network, loader.passed(specs[each]), "1", None, labels) for each in ("memory", form)
    )
    assert streamed.counts == memory.counts
    assert all(np.array_equal(streamed.sums[label], memory.sums[label]) for label in memory.sums)
    assert resque.resque_dist(memory, streamed).value == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("of", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_shards_hold_each_sample_once_and_their_profiles_add_up(specs, model, form, of):
    stream = open_stream(specs[form])
    shards = [stream.shard(number, of) for number in range(1, of + 1)]
    seen = torch.cat([collected(shard)[0] for shard in shards])
    rows, expected = ({row.numpy().tobytes() for row in each} for each in (seen, collected(stream)[0]))
    assert (len(seen), rows) == (N, expected)
    parts = [resque.profile(model, shard, layer="0", classes=3) for shard in shards]
    whole, merged = resque.profile(model, stream, layer="0", classes=3), sum(parts)
    assert merged.counts == whole.counts
    for label, total in whole.sums.items():
        np.testing.assert_allclose(merged.sums[label], total, rtol=1e-12)


@pytest.mark.parametrize(("number", "of"), [(0, 2), (3, 2), (-1, 3), (1, 0)])
def test_a_shard_that_there_is_not_is_refused(specs, number, of):
    with pytest.raises(ResqueError, match="expected i/n with i from 1 to n"):
        open_stream(specs["tar"]).shard(number, of)


@pytest.mark.parametrize("form", FORMS)
def test_no_sample_is_read_before_its_batch(specs, monkeypatch, form):
    read, decode = [], streams.decode
    monkeypatch.setattr(streams, "decode", lambda *given: read.append(given[1]) or decode(*given))
    batches = open_stream(specs[form]).unlabeled().batches(8)
    assert read == []
    for passed in (8, 16, 24):
        next(batches)
        assert len(read) == passed


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_shuffled_stream_has_each_sample_once_in_an_order_of_its_seed(specs, form):
    stream = open_stream(specs[form])
    order = [collected(stream, buffer=20, seed=seed)[0] for seed in (0, 0, 1)]
    plain = collected(stream)[0]
    sets = [{row.numpy().tobytes() for row in each} for each in (*order, plain)]
    assert sets[0] == sets[2] == sets[3]
    assert torch.equal(order[0], order[1])
    assert not torch.equal(order[0], order[2])
    assert not torch.equal(order[0], plain)


def test_a_loop_of_the_user_trains_on_a_shuffled_stream(specs, model, folder, meter):
    stream, step = open_stream(specs["parquet"]), 0
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses, per_epoch = [], -(-stream.samples // 16)
    with resque.record("own.db", model=model, optimizer=optimizer, steps_per_epoch=per_epoch, meter=meter) as run:
        for epoch in range(20):
            for inputs, labels in stream.batches(16, buffer=32, seed=epoch):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), labels)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
                step += 1
        run.evaluated(step=step, accuracy=0.5)
    assert run.update.cost.steps == step == 20 * per_epoch
    assert np.mean(losses[-per_epoch:]) < 0.75 * np.mean(losses[:per_epoch])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        *((step, f"{step} needs samples in any order") for step in ("@train", "@test", "@original", "@500")),
        *((step, r"\+relabel:2 needs samples in any order") for step in ("+relabel:2", "@16px+relabel:2+blur:1")),
        ("+frog:3", "unknown shift 'frog'"),
        ("~digits", "expected stream:parquet:FILES or stream:tar:FILES"),
    ],
)
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_what_needs_another_order_is_refused(specs, form, steps, message):
    with pytest.raises(DataError, match=message) as caught:
        open_stream(specs[form] + steps)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["stream:npz:a.npz", "stream:parquet:", "stream:parquet", "stream:", "stream:hf:a"])
def test_an_unknown_form_is_refused(spec):
    with pytest.raises(DataError, match="expected stream:parquet:FILES or stream:tar:FILES"):
        open_stream(spec)


@pytest.mark.parametrize("what", ["shard", "buffer"])
def test_noise_is_refused_where_samples_have_no_number(specs, what):
    stream = open_stream(specs["parquet"] + "@16px+gaussian:3")
    with pytest.raises(DataError, match=r"noise depends on the number of a sample.*leave \+gaussian:3 out"):
        stream.shard(1, 2) if what == "shard" else next(stream.batches(8, buffer=9))


@pytest.mark.parametrize("value", [-1, -20, 1.5, "9", None, True])
@pytest.mark.parametrize("name", ["batch_size", "buffer"])
def test_numbers_that_no_batch_can_have_are_refused_at_once(specs, name, value):
    with pytest.raises(SettingError, match=f"{name}=.*: expected a whole number from [01] on"):
        open_stream(specs["tar"]).batches(**{name: value})


def test_a_batch_of_nothing_is_refused_and_a_number_of_another_library_is_taken(specs):
    with pytest.raises(SettingError, match="batch_size=0 of stream:tar"):
        open_stream(specs["tar"]).batches(0, buffer=20)
    assert len(next(open_stream(specs["tar"]).batches(np.int64(8), buffer=np.int64(0)))[1]) == 8


@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_files_without_samples_are_named_where_all_are_and_left_out_where_some_are(folder, form):
    x, y = pixels_and_labels()
    write = {"tar": write_tar, "parquet": write_parquet}[form]
    feature = {} if form == "tar" else {"feature": datasets.ClassLabel(names=NAMES)}
    write(folder / f"0.{form}", x[:0], [], **feature)
    with pytest.raises(DataError, match=f"^stream:{form}:0.{form} holds no rows$"):
        open_stream(f"stream:{form}:0.{form}")
    write(folder / f"1.{form}", x, y.tolist(), **feature)
    assert len(collected(open_stream(f"stream:{form}:*.{form}"))[1]) == N


def test_a_limit_is_refused(specs):
    with pytest.raises(DataError, match="--limit 20 needs samples in any order"):
        open_stream(specs["tar"], limit=20)


@pytest.mark.parametrize("name", ["none.parquet", "none-*.parquet", "a" * 300, "https://example.org/a.parquet"])
def test_missing_files_are_named(folder, name):
    with pytest.raises(DataError, match="no such file"):
        open_stream(f"stream:parquet:{name}")


@pytest.mark.parametrize("names", [(), ("wolf", "ant")])
def test_names_of_classes_need_a_model_that_has_them(specs, names):
    expected = "a ClassLabel" if not names else "the model has no class 'bee'"
    with pytest.raises(DataError, match=expected):
        collected(open_stream(specs["words"]).numbered(names))


def test_classes_are_numbered_as_the_model_numbers_them(specs):
    named = ("cow", "bee", "ant", "wolf")
    for form in ("parquet", "words"):
        stream = open_stream(specs[form]).numbered(named)
        assert collected(stream)[1].tolist() == [named.index(NAMES[i % 3]) for i in range(N)]
        assert stream.class_names == named


def test_labels_beyond_the_classes_are_refused(specs, model):
    with pytest.raises(RepresentationError, match="not among the declared classes"):
        resque.profile(model, open_stream(specs["tar"]), classes=2)
    options = dataclasses.replace(InputLoader(model).options, classes=2)
    loader = InputLoader(model, options)
    with pytest.raises(RepresentationError, match="not among the declared classes"):
        loader.profile(loader.network(), loader.passed(specs["tar"]), None, None)


@pytest.mark.parametrize("kept", range(9, 100, 13))
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_file_that_ends_early_is_refused(folder, form, kept):
    x, y = pixels_and_labels()
    path = folder / f"a.{form}"
    write_tar(path, x, y) if form == "tar" else write_parquet(path, x, y.tolist())
    content = path.read_bytes()
    path.write_bytes(content[: kept * 1024 if form == "tar" else kept * len(content) // 100])  # tar: whole members
    with pytest.raises(DataError, match=r"a\.\w+"):
        collected(open_stream(f"stream:{form}:{path}"))


def test_rows_without_a_label_are_refused(folder):
    x, y = pixels_and_labels()
    write_parquet(folder / "a.parquet", x, [*y[:-1].tolist(), None])
    with pytest.raises(DataError, match="labels are missing"):
        collected(open_stream("stream:parquet:a.parquet"))


@pytest.fixture
def net(folder):
    (folder / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(81, 8), nn.ReLU(), nn.Linear(8, 3))\n"
    )
    return "--model net.py:build"


def test_commands_pass_streams(cli, net, specs):
    assert cli(f"profile {net} --data {specs['tar']} --out clean.safetensors --classes 3")[0] == 0
    shifted = f"--shifted {specs['parquet']}+gaussian:5"
    values = set()
    for original in ("clean.safetensors", specs["parquet"], specs["memory"]):
        code, out, _ = cli(f"dist {net} --original {original} {shifted} --json")
        assert code == 0
        values.add(round(float(out.split('"value": ')[1].split(",")[0]), 9))
    assert len(values) == 1


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("dist --original {memory} --shifted {tar} --precision 0.1", "leave --precision out"),
        ("dist --original {tar} --shifted {memory} --precision 0.1", "leave --precision out"),
        ("dist --original {memory} --shifted {tar} --limit 9", "name other files"),
        ("dist --original {memory} --shifted {tar}@test", "name other files"),
        ("task --data {tar}", "parquet:FILE or hf:FOLDER"),
        ("explain --original {memory} --shifted {tar}", "parquet:FILE or hf:FOLDER"),
        ("forecast --original {memory} --shifted {tar} --test {memory} --target-accuracy 0.9", "resque.record"),
        ("retrain --train {tar} --test {memory} --target-accuracy 0.9 --out new", "resque.record"),
        ("dist --original {memory} --shifted {tar}~{memory}", "not mixed"),
    ],
)
def test_commands_that_need_another_order_say_what_to_do(cli, net, specs, command, advice):
    code, out, err = cli(f"{command.format(**specs)} {net}")
    assert (code, out) == (1, "")
    assert advice in err
    assert err.count("\n") == 1
