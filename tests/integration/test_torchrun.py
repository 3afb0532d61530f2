"""Commands in several processes, as torchrun starts them: the numbers of one process, printed and written once.

Most run without torchrun itself, whose start takes seconds: two commands get the environment that it gives.
"""

import functools
import json

import numpy as np
import pytest

from doubles import shell
from resque.indices.profile import Profile
from several import assert_silent, run_processes

NET = "--model resque.networks:small_cnn"
OLD, NEW = "digits@16px@train", "digits@16px@test+gaussian:3"
DIST = f"dist {NET} --original {OLD} --shifted {NEW}"


@pytest.fixture
def processes(warm_shell, folder):
    """Run a command in several processes: how each ended."""
    return functools.partial(run_processes, warm_shell, folder)


def rounded(text):
    """JSON whose numbers have nine digits."""
    return json.loads(text, parse_float=lambda number: f"{float(number):.9g}")


@pytest.mark.parametrize("count", [2, 3, 7])  # 7 processes for 5 batches: two have no sample
def test_profile_of_several_processes_is_that_of_one(processes, cli, count):
    assert cli(f"profile {NET} --data {OLD} --out whole.safetensors")[0] == 0
    first, *others = processes(*[f"profile {NET} --data {OLD} --out p.safetensors --json"] * count)
    whole, found = Profile.load("whole.safetensors"), Profile.load("p.safetensors")
    assert (first.code, json.loads(first.out)["n"], [each.code for each in others]) == (0, whole.n, [0] * (count - 1))
    assert_silent(others)
    assert (found.origin, found.counts, found.shard) == (whole.origin, whole.counts, None)
    for label, halves in whole.split_halves.items():
        assert found.split_halves[label].counts == halves.counts
        assert np.allclose(found.split_halves[label].sums, halves.sums, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", ["", "--debias --labels pseudo --undefined skip"])
def test_index_of_several_processes_is_that_of_one(processes, cli, options):
    _, alone, _ = cli(f"{DIST} {options} --json")
    first, second = processes(*[f"{DIST} {options} --json"] * 2)
    assert (first.code, second.code) == (0, 0)
    assert_silent([second])
    assert rounded(first.out) == rounded(alone)


SIZES = (21, 5, 13), (30,), (1, 2), (8, 8)
"""Samples of the files of streams: dealt out by file, by sample, and fewer than there are processes."""


@pytest.fixture(scope="module")
def streams(tmp_path_factory):
    """Streams of images whose files have so many samples each, and one of them with a shift of its own."""
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place, generator = tmp_path_factory.mktemp("streams"), np.random.default_rng(0)
    for sizes in SIZES:
        for number, size in enumerate(sizes):
            images = generator.integers(0, 256, (size, 12, 12)).tolist()
            rows = pa.table({"image": images, "label": [i % 2 for i in range(size)]})
            parquet.write_table(rows, place / f"{len(sizes)}-{sum(sizes)}-{number}.parquet")
    return {sizes: f"stream:parquet:{place}/{len(sizes)}-{sum(sizes)}-*.parquet" for sizes in SIZES}


@pytest.mark.parametrize(
    ("sizes", "count", "options"),
    [
        (SIZES[0], 3, ""),
        (SIZES[0], 2, "--labels pseudo --undefined skip"),
        (SIZES[1], 2, ""),
        (SIZES[2], 4, "--undefined skip"),
    ],
)
def test_index_of_a_stream_in_several_processes_is_that_of_one(processes, cli, streams, sizes, count, options):
    line = f"dist {NET} --classes 2 --original {streams[8, 8]} --shifted {streams[sizes]} {options} --json"
    _, alone, _ = cli(line)
    first, *others = processes(*[line] * count)
    assert_silent(others)
    assert first.code == 0, first.err
    one, several = json.loads(alone), json.loads(first.out)
    assert several["value"] == pytest.approx(one["value"], rel=1e-5)
    assert several["per_class"].keys() == one["per_class"].keys()
    for angles in zip(several["per_class"].values(), one["per_class"].values(), strict=True):
        assert angles == (None, None) or angles[0] == pytest.approx(angles[1], rel=1e-5)
    same = "n_original", "n_shifted", "labels", "layer", "reduction", "skipped"
    assert [several[name] for name in same] == [one[name] for name in same]


def test_profile_of_a_stream_in_several_processes_is_whole(processes, cli, streams):
    line = f"profile {NET} --classes 2 --data {streams[SIZES[0]]}"
    assert cli(f"{line} --out whole.safetensors")[0] == 0
    first, second = processes(*[f"{line} --out p.safetensors"] * 2)
    whole, found = Profile.load("whole.safetensors"), Profile.load("p.safetensors")
    assert (first.code, second.code, found.counts, found.shard) == (0, 0, whole.counts, None)
    for label, total in whole.sums.items():
        assert np.allclose(found.sums[label], total, rtol=1e-5)


def test_shift_of_a_stream_needs_one_process(processes, streams):
    first, second = processes(*[f"profile {NET} --data {streams[SIZES[0]]}+gaussian:3 --classes 2 --out p"] * 2)
    (said,) = first.lines + second.lines
    assert "leave +gaussian:3 out, or pass the whole in its order, in one process" in said


SMOOTH = """
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(196, 10))
"""
TASK = f"task --model net.py:build --data {OLD} --recipe retrain-adam,batch_size=50 --warmup-steps 6"


@pytest.mark.parametrize("options", ["", "--no-lloyd"])
def test_task_of_several_processes_is_that_of_one(processes, cli, folder, options):
    (folder / "net.py").write_text(SMOOTH)
    _, alone, _ = cli(f"{TASK} {options} --json")
    first, *others = processes(*[f"{TASK} {options} --json"] * 3)
    assert_silent(others)
    one, several = json.loads(alone), json.loads(first.out)
    assert several["value"] == pytest.approx(one["value"], abs=0.02)  # float32 in the warm-up moves a sample or two
    assert several["overhead"]["accuracy"] == pytest.approx(one["overhead"]["accuracy"], abs=0.003)
    same = ("unit", "init", "lloyd", "reduction", "n", "classes", "layer")
    assert [several[name] for name in same] == [one[name] for name in same]
    assert several["overhead"]["steps"] == one["overhead"]["steps"]


@pytest.mark.parametrize("nodes", [1, 2])
def test_energy_is_metered_once_a_node_and_summed(processes, folder, nodes):
    (folder / "net.py").write_text(SMOOTH)
    first, *_ = processes(*[f"{TASK} --no-lloyd --json"] * 2, nodes=nodes)
    reading = json.loads(first.out)["overhead"]["energy"]
    assert reading["meter"].endswith(", 2 nodes" if nodes == 2 else ("machine, 1 s", "clock only"))


def test_batch_smaller_than_the_processes_is_refused(processes, folder):
    (folder / "net.py").write_text(SMOOTH)
    ended = processes(*[TASK.replace("batch_size=50", "batch_size=2")] * 3)
    (said,) = [line for each in ended for line in each.lines]
    assert "batch_size=2 of the recipe is that of all 3 processes together; expected at least 3" in said


BROKEN = f"{DIST} --layer none"


@pytest.mark.parametrize("failing", [(0,), (1, 2), (0, 1, 2)])
def test_error_of_some_processes_ends_all_with_one_line(processes, failing):
    ended = processes(*(BROKEN if rank in failing else DIST for rank in range(3)))
    assert all(each.code == 1 for each in ended)
    (said,) = [line for each in ended for line in each.lines]
    assert "'none'" in said
    assert not any(each.out for each in ended)


@pytest.mark.parametrize("line", ["calibrate --data digits", "compare", "ledger list", "merge a"])
def test_what_needs_one_process_is_refused_in_one_line(processes, line):
    first, second = processes(line, line)
    assert (first.code, second.code, first.out + second.out) == (1, 1, "")
    (said,) = first.lines + second.lines
    assert said.startswith(f"resque: resque {line.split()[0]} runs in one process, and torchrun started 2: leave")


def test_usage_error_is_printed_once(processes):
    first, second = processes("dist --wrong", "dist --wrong")
    assert (first.code, second.code, second.err) == (2, 2, "")
    assert "--wrong" in first.err


def test_shard_and_torchrun_are_not_taken_together(processes):
    first, second = processes(*[f"profile {NET} --data {OLD} --shard 1/2 --out p.safetensors"] * 2)
    (said,) = first.lines + second.lines
    assert "--shard is for one process" in said


def test_process_alone_takes_any_command(processes):
    (alone,) = processes("merge none.safetensors --out p.safetensors")
    assert alone.lines == ["resque: no such profile: none.safetensors; make one with `resque profile`"]


def test_torchrun_itself_starts_a_command(folder, cli):
    _, alone, _ = cli(f"{DIST} --json")
    done = shell(f"python -m torch.distributed.run --nproc-per-node 2 -m resque {DIST} --json", folder)
    assert (done.returncode, rounded(done.stdout)) == (0, rounded(alone))
