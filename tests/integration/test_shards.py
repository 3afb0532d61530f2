"""Shards on the command line: merged into one profile, and refused where a whole is needed."""

import json

import numpy as np
import pytest

from resque.indices.profile import Profile

NET = "--model resque.networks:small_cnn"
DATA = "digits@16px@train"
PROFILE = f"profile {NET} --data {DATA}"


@pytest.fixture
def whole(cli):
    assert cli(f"{PROFILE} --out whole.safetensors")[0] == 0
    return Profile.load("whole.safetensors")


def test_shards_of_several_commands_merge_into_the_profile_of_one(cli, whole):
    for number in (1, 2, 3):
        code, out, _ = cli(f"{PROFILE} --shard {number}/3 --out part-{number}.safetensors --json")
        shown = json.loads(out)
        assert (code, shown["shard"], shown["n_of_all_shards"]) == (0, f"{number}/3", whole.n)
    code, out, _ = cli("merge part-2.safetensors part-3.safetensors part-1.safetensors --out merged.safetensors --json")
    assert code == 0
    assert (json.loads(out)["n"], "shard" in json.loads(out)) == (whole.n, False)
    merged = Profile.load("merged.safetensors")
    assert (merged.origin, merged.counts) == (whole.origin, whole.counts)
    for label, halves in whole.split_halves.items():
        assert np.allclose(merged.split_halves[label].sums, halves.sums, rtol=1e-12, atol=1e-12)
        assert merged.split_halves[label].counts == halves.counts


NEEDS_WHOLE = [
    f"dist {NET} --original part.safetensors --shifted {DATA}",
    f"explain {NET} --original part.safetensors --shifted {DATA}",
    f"forecast {NET} --original part.safetensors --shifted {DATA} --test digits@16px@test --target-accuracy 0.5",
    f"compare {NET} --original part.safetensors --shifted {DATA} --test digits@16px@test --target-accuracy 0.5",
    f"retrain {NET} --original part.safetensors --train {DATA} --test digits@16px@test --target-accuracy 0.5",
]


@pytest.mark.parametrize("line", NEEDS_WHOLE, ids=lambda line: line.split()[0])
def test_a_shard_where_a_whole_profile_is_needed_is_refused_with_the_way_out(cli, line):
    assert cli(f"{PROFILE} --shard 1/3 --out part.safetensors")[0] == 0
    code, out, err = cli(line)
    assert (code, out) == (1, "")
    (said,) = [row for row in err.splitlines() if row.startswith("resque:")]
    assert "part.safetensors is shard 1/3 of a profile" in said
    assert "`resque merge FILES --out WHOLE`" in said


def test_a_merge_that_fails_writes_nothing(cli, folder):
    for number in (1, 3):
        assert cli(f"{PROFILE} --shard {number}/3 --out part-{number}.safetensors")[0] == 0
    code, out, err = cli("merge part-1.safetensors part-3.safetensors --out merged.safetensors")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "1 of 3 shards is missing: run `resque profile --shard` for 2/3" in err
    assert not (folder / "merged.safetensors").exists()


@pytest.mark.parametrize("out", ["part-1.safetensors", "./part-2.safetensors", "link.safetensors"])
def test_a_merge_does_not_overwrite_its_shards(cli, folder, out):
    for number in (1, 2):
        assert cli(f"{PROFILE} --shard {number}/2 --out part-{number}.safetensors")[0] == 0
    (folder / "link.safetensors").symlink_to(folder / "part-1.safetensors")
    code, shown, err = cli(f"merge part-1.safetensors part-2.safetensors --out {out}")
    assert (code, shown, err.count("\n")) == (1, "", 1)
    assert "is one of the shards, which are kept: name another file" in err
    assert [Profile.load(f"part-{number}.safetensors").shard.number for number in (1, 2)] == [1, 2]


def test_a_shard_that_is_none_is_refused_before_anything_is_read(cli):
    code, out, err = cli(f"{PROFILE.replace('digits', 'npz:none')} --shard 0/3 --out part.safetensors")
    assert (code, out) == (2, "")  # wrong usage
    assert "shard 0/3: expected i/n with i from 1 to n, as 1/8" in " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize("shard", ["1/2", "2/2", "1/1"])
def test_a_stream_is_not_cut(cli, tmp_path, shard):
    pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [[[float(i + j) for j in range(8)] for _ in range(8)] for i in range(4)]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    model = "--model resque.networks:small_cnn --classes 2"
    code, out, err = cli(f"profile {model} --data stream:parquet:{tmp_path}/a.parquet --shard {shard} --out p")
    assert (code, out) == (1, "")
    assert "is a stream" in err
    assert "pass it in several processes with torchrun" in err
    assert err.count("\n") == 1
