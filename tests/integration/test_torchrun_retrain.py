"""A retraining in several processes: the curve, the end and the entry of one, whatever happens to one of them.

Nothing here is torchrun, which would end the other processes: they have to notice by themselves.
"""

import functools
import json

import numpy as np
import pytest

from resque.ledger.store import Ledger
from resque.models.weights import read_weights
from several import assert_silent, run_processes

NET = """
import os, signal, time
from pathlib import Path
from torch import nn

import resque.training.run

RANK = os.environ.get("RANK", "0")

class Net(nn.Sequential):
    # What happens in one process at one of its training steps, if a file says so: its rank, the step, and what.
    steps = 0

    def forward(self, x):
        Net.steps += self.training
        rank, step, what = (Path("trap").read_text() if Path("trap").exists() else "- 0 -").split()
        if (rank, int(step)) == (RANK, Net.steps) and self.training:
            if what == "FAIL":
                raise ValueError("a layer of my own")
            if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that runs in the background
                signal.signal(signal.SIGINT, signal.default_int_handler)
            os.kill(os.getpid(), getattr(signal, what))
        return super().forward(x)

def build():
    if Path("fast").exists() and Path("fast").read_text() == RANK:
        resque.training.run.now = lambda device: 1e6 * time.perf_counter()
    return Net(nn.Conv2d(1, 4, 3, stride=2), nn.GELU(), nn.Flatten(), nn.Linear(196, 10))
"""
DATA = "--train digits@16px@train@300 --test digits@16px@test@200"
RETRAIN = f"retrain --model net.py:build {DATA} --checkpoint-every 0 --json"
RECIPE = "train-adam,batch_size=50,max_epochs=6"
LONGER = RECIPE.replace("=6", "=40")
WHOLE = f"{RETRAIN} --target-accuracy 0.99 --recipe {RECIPE} --original-test digits@16px@test@100"
WITHIN = 26  # a training step of a process, within an epoch of 6, the few of its warm-up included


@pytest.fixture
def processes(warm_shell, folder):
    """Run a command in several processes: how each ended."""
    (folder / "net.py").write_text(NET)
    return functools.partial(run_processes, warm_shell, folder)


def first_of(ended):
    """What the first process printed; the others are silent."""
    first, *others = ended
    assert [each.code for each in ended] == [0] * len(ended), first.err
    assert_silent(others)
    return json.loads(first.out)


def assert_same(several, one):
    """Same end and same curve, up to float noise."""
    ends = "stopped_by", "reached", "parent", "trainable_share", "digest", "original_accuracy_after"
    assert [several[name] for name in ends] == [one[name] for name in ends]
    for name in ("steps", "accuracy", "loss", "gradient_norm", "parameter_change"):
        assert several["curve"][name] == pytest.approx(one["curve"][name], rel=1e-4), name
    for name in ("epochs", "steps", "samples"):
        assert several["cost"][name] == one["cost"][name]
    if one["recipe"]["trains"] == "all":  # one process passes the frozen layers once
        assert several["cost"]["flops"] == one["cost"]["flops"]


@pytest.mark.parametrize(
    "options",
    [
        "",
        "--recipe train-adam,batch_size=7,max_epochs=2,trains=head",
        f"--target-accuracy 0.5 --recipe {LONGER}",
    ],
)
def test_curve_and_files_are_those_of_one_process(processes, cli, folder, options):
    code, alone, said = cli(f"{WHOLE} {options} --out one --ledger one.db")
    assert code == 0, said
    several = first_of(processes(*[f"{WHOLE} {options} --out two --ledger two.db"] * 2))
    one = json.loads(alone)
    assert_same(several, one)
    assert (one["processes"], several["processes"]) == (1, 2)
    assert (several["stopped_by"] == "target") == ("--target-accuracy" in options)
    (entry,) = Ledger("two.db").updates()
    assert (entry.id, entry.processes) == (several["id"], 2)
    weights = [read_weights(folder / where / "model.safetensors") for where in ("one", "two")]
    for name, values in weights[0].items():
        assert np.allclose(values, weights[1][name], rtol=1e-3, atol=1e-5)
    files = [sorted(path.name for path in (folder / where).iterdir()) for where in ("one", "two")]
    assert files[0] == files[1] == ["model.safetensors", "profile.safetensors"]


@pytest.mark.parametrize(("what", "rank"), [("SIGKILL", 0), ("SIGKILL", 1), ("SIGINT", 0), ("FAIL", 1)])
def test_loss_of_a_process_ends_all_in_one_line_and_the_run_goes_on(processes, cli, folder, rank, what):
    (folder / "trap").write_text(f"{rank} {WITHIN} {what}")
    ended = processes(*[f"{WHOLE} --out new"] * 2)
    assert all(each.code for each in ended)
    assert not any(each.out for each in ended)
    lines = [line for each in ended for line in each.lines]
    assert ended[rank].code == {"SIGKILL": 247, "SIGINT": 130, "FAIL": 1}[what]
    of_another = "another process of the command ended"
    said = {"FAIL": "a layer of my own", "SIGINT": "interrupted" if rank == 0 else of_another, "SIGKILL": of_another}
    if (what, rank) != ("SIGKILL", 0):  # who has the store by which they agree who tells; of torchrun it is another
        assert len(lines) == 1, [each.err for each in ended]
        assert said[what] in lines[0]
    assert Ledger("resque.db").updates() == []
    assert not (folder / "new").exists()
    if (what, rank) != ("SIGKILL", 0):
        return
    (folder / "trap").unlink()
    code, _, wrong = cli(f"{WHOLE} --out new --resume")
    assert (code, "began in 2 processes and would go on in 1" in wrong) == (1, True)
    resumed = first_of(processes(*[f"{WHOLE} --out new --resume"] * 2))
    _, alone, _ = cli(f"{WHOLE} --ledger one.db")
    assert_same(resumed, json.loads(alone))
    assert (resumed["resumed"], len(Ledger("resque.db").updates())) == (1, 1)


@pytest.mark.parametrize("fast", [0, 1])
def test_first_process_alone_reads_the_clock(processes, folder, fast):
    (folder / "fast").write_text(str(fast))
    line = f"{WHOLE} --checkpoint-every 20".replace(RECIPE, f"{RECIPE},max_hours=1")
    update = first_of(processes(*[line] * 2))
    assert update["stopped_by"] == ("max hours" if fast == 0 else "max")


def test_forecast_of_one_process_is_settled_by_two(processes, cli):
    options = f"--model net.py:build --test digits@16px@test@200 --target-accuracy 0.5 --recipe {LONGER}"
    code, said, wrong = cli(f"forecast {options} --original digits@16px@train@300 --shifted "
                            "digits@16px@train@300+gaussian:2 --pilot 3 --json")  # fmt: skip
    assert code in (0, 4), wrong
    forecast = json.loads(said)["id"]
    line = f"retrain {options} --train digits@16px@train@300+gaussian:2 --forecast {forecast}"
    first, second = processes(*[f"{line} --max-hours 2"] * 2)
    assert_silent([second])
    assert first.code == 0, first.err
    assert f"the pilot of forecast {forecast} ran in one process: the update in 2 starts from" in first.err
    shown = " ".join(first.out.split())
    assert "the forecast was for one process, the update ran in 2: time, energy" in shown
    (update,) = Ledger("resque.db").updates()
    assert (update.forecast_id, update.processes, update.pilot_steps) == (forecast, 2, 0)
    assert (update.reached, bool(update.revisions)) == (True, update.cost.steps > 8)
    settled = json.loads(cli("ledger settle --json")[1])
    compared = {each["cost"]: each["n"] for each in settled["accuracy"] if not each["load"]}
    assert (compared["steps"], compared["wall_s"], compared["energy_kwh"]) == (1, 0, 0)


def test_differences_are_told_and_a_budget_ends_all(processes):
    """Parts of a batch of 17 and 16 samples are augmented in blocks of another number of steps."""
    data = (
        "--train digits@64px@train@540 --test digits@64px@test@60 --recipe train-adam,batch_size=33,augmentation=flip"
    )
    line = f"retrain --model resque.networks:small_cnn {data} --target-accuracy 0.99 --max-hours 1e-9"
    first, second = processes(*[line] * 2)
    assert (first.code, second.code) == (0, 0), first.err
    assert_silent([second])
    assert "the learning curve of 2 processes is not that of one: batch normalization takes" in first.err
    assert "each process draws its own augmentation" in first.err
    (update,) = Ledger("resque.db").updates()
    assert (update.stopped_by, update.processes) == ("budget: hours", 2)
    assert len(Ledger("resque.db").forecasts()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--recipe train-adam,trains=norm", "trains=norm is one pass over the data, in one process: leave torchrun"),
        ("--forecast none", "0 forecasts in"),
        ("--out net.py", "holds something already"),
    ],
)
def test_what_cannot_be_done_is_one_line(processes, options, said):
    model = "resque.networks:small_cnn"
    ended = processes(*[f"retrain --model {model} {DATA} --target-accuracy 0.9 {options}"] * 2)
    assert [each.code for each in ended] == [1, 1]
    (line,) = [line for each in ended for line in each.lines]
    assert said in line
