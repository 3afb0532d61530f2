"""Steps that processes take together have the gradient of one process that takes the whole batch."""

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ranks
from resque._processes import Processes
from resque.errors import SettingError
from resque.training.parallel import own_batch_size, own_rows, own_weight, require_own_gpus


@given(n=st.integers(1, 60), batch_size=st.integers(1, 20), count=st.integers(1, 6))
def test_parts_of_all_processes_are_the_batches_without_a_sample_twice(n, batch_size, count):
    everyone, order = [Processes(rank, count) for rank in range(count)], torch.randperm(n)
    if batch_size < count:
        with pytest.raises(SettingError, match=f"expected at least {count}"):
            own_batch_size(batch_size, everyone[0])
        return
    sizes = [own_batch_size(batch_size, each) for each in everyone]
    assert (sum(sizes), max(sizes) - min(sizes) <= 1) == (batch_size, True)
    parts = [own_rows(order, batch_size, each).split(size) for each, size in zip(everyone, sizes, strict=True)]
    for number, batch in enumerate(order.split(batch_size)):
        weights = [own_weight(len(batch), each) for each in everyone]
        counted = [part[number] for part, weight in zip(parts, weights, strict=True) if weight]
        assert torch.equal(torch.cat(counted), batch)
        shares = [len(part) * count / len(batch) for part in counted]
        assert [weight for weight in weights if weight] == pytest.approx(shares)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What two processes trained: results of the first and of the second."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    shared = {**os.environ, **place, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    shared["PYTHONPATH"] = os.pathsep.join([str(Path(ranks.__file__).parent), shared.get("PYTHONPATH", "")])
    train = f"{shlex.quote(sys.executable)} {shlex.quote(ranks.__file__)}"
    script = f"RANK=1 {train} > second & RANK=0 {train} > first; wait $!"
    subprocess.run(["bash", "-euc", script], env=shared, cwd=folder, check=True)
    return [json.loads((folder / name).read_text()) for name in ("first", "second")]


def case_name(number):
    return " ".join(map(str, ranks.CASES[number]))


@pytest.mark.parametrize("number", range(len(ranks.CASES)), ids=case_name)
def test_two_processes_learn_as_one_does_or_say_why_not(trained, number):
    one, (first, second) = ranks.train(*ranks.CASES[number]), (results[number] for results in trained)
    assert first["parameters"] == second["parameters"]
    assert first["curve"] == second["curve"]
    (model, recipe, *_), said = ranks.CASES[number], " ".join(first["said"])
    assert ("batch normalization takes" in said) == (model == "norm")
    assert ("each process draws" in said) == (model == "dropout" or "augmentation" in recipe)
    if said:
        assert "the learning curve of 2 processes is not that of one" in said
        return
    assert first["parameters"] == pytest.approx(one["parameters"], rel=1e-3, abs=1e-5)
    for together, alone in zip(first["curve"], one["curve"], strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_process_alone_has_nothing_to_say():
    assert not any(ranks.train(*case)["said"] for case in ranks.CASES)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["cuda:0", "cuda:1"])), max_size=5))
def test_no_two_processes_share_a_gpu(places):
    if len(set(places)) == len(places):
        require_own_gpus(places)
    else:
        with pytest.raises(SettingError, match="each needs one of its own"):
            require_own_gpus(places)
