"""Bad values of options through the command line, each one line; no command asks a network; nothing leaks."""

import json
import os
import random
import resource
import socket
import tracemalloc

import numpy as np
import pytest
import torch

from doubles import synthetic_update
from resque.cli.app import app
from resque.data.loading import load_data
from resque.indices.compute_profile import profile
from resque.indices.distribution import resque_dist
from resque.ledger.export import json_lines
from resque.ledger.store import Ledger
from resque.models.networks import small_cnn

NET = "net.py:build"
COMMANDS = {
    "dist": {"--model": NET, "--original": "npz:ok.npz", "--shifted": "npz:ok.npz+gaussian:3"},
    "task": {"--model": NET, "--data": "npz:ok.npz"},
    "profile": {"--model": NET, "--data": "npz:ok.npz", "--out": "p.safetensors"},
    "forecast": {"--model": NET, "--shifted": "npz:ok.npz", "--test": "npz:ok.npz", "--target-accuracy": "0.9"},
    "compare": {"--model": NET, "--shifted": "npz:ok.npz", "--test": "npz:ok.npz", "--target-accuracy": "0.9"},
    "plan": {"--model": NET, "--batch": "2026-01=npz:ok.npz", "--target-accuracy": "0.9", "--floor": "0.8"},
    "retrain": {"--model": NET, "--train": "npz:ok.npz", "--test": "npz:ok.npz", "--target-accuracy": "0.9"},
    "calibrate": {"--model": NET, "--data": "npz:ok.npz"},
    "ledger validate": {"--target-accuracy": "0.9"},
}
"""Command → options of a valid call."""
TRAINS = {
    "--recipe": ["x", "retrain-adam,x", "retrain-adam,rank=x", "train-sgd,batch_size=0", "none.toml", "retrain-adam,,"],
    "--evaluate-every": ["0", "-1", "x", "1.5"],
    "--max-epochs": ["0", "-3", "x"],
    "--seed": ["x", "1.5"],
    "--country": ["x", "FR", "Ωmega"],
    "--intensity": ["-1", "nan", "inf", "x"],
    "--pue": ["0", "0.5", "nan", "-inf", "x"],
    "--target-accuracy": ["nan", "0", "-1", "1.01", "1e999", "x", "90%"],
    "--ledger": [".", "ok.npz", "net.py/x.db"],
}
LOADS = {
    "--model": [
        "net.py",
        "net.py:",
        ":build",
        "none.py:build",
        "net.py:none",
        "os:getcwd",
        "timm:none",
        "torchvision:x",
    ],
    "--weights": ["none.pt", "ok.npz", "net.py", ".", "broken.safetensors"],
    "--limit": ["0", "-1", "x"],
    "--device": ["x", "cuda:99", "meta", "cpu:cpu"],
}
DATA = ["npz:", "npz:none.npz", "npz:ok.npz@0", "npz:ok.npz@0px", "npz:ok.npz+blur", "npz:ok.npz+blur:11", "ok.npz"]
DATA += [
    "npz:ok.npz+blur:-1",
    "idx:ok.npz,ok.npz",
    "idx:",
    "folder:.",
    "folder:none",
    "torchvision:X",
]
DATA += ["net.py:build", "net.py:none", "npz:ok.npz~npz:none.npz", "npz:ok.npz+none/relabel:3", "npz:short.npz", "x"]
SOURCES = "--original", "--shifted", "--data", "--train", "--test"
INDEX = {"--layer": ["x", "0.0"], "--reduction": ["x"]}
BAD = {
    "dist": LOADS | INDEX | {"--unit": ["x"], "--confidence": ["0", "1", "nan", "x"]},
    "task": LOADS | INDEX | {"--init": ["x"], "--warmup-steps": ["-1", "x"]},
    "profile": LOADS | INDEX | {"--out": [".", "ok.npz", "net.py/x"]},
    "forecast": LOADS | INDEX | TRAINS | {"--max-kwh": ["-1", "nan", "x"], "--confidence": ["2", "nan"]},
    "compare": LOADS | TRAINS | {"--max-kwh": ["-1", "nan", "x"], "--max-minutes": ["-1", "nan", "x"]},
    "plan": LOADS
    | TRAINS
    | {"--batch": ["x", "2026-01=", "=npz:ok.npz", "2026-13=npz:ok.npz"], "--floor": ["0", "nan", "x", "0.95"]}
    | {"--price-per-error": ["-1", "nan", "1", "x"], "--yearly-kwh": ["-1", "nan", "x"]},
    "retrain": LOADS
    | INDEX
    | TRAINS
    | {"--price-per-kwh": ["-1", "nan", "x"], "--forecast": ["x"], "--out": [".", "net.py/x"]},
    "calibrate": LOADS | INDEX | TRAINS | {"--updates": ["0", "-1", "x"], "--max-hours": ["-1", "x"]},
    "ledger validate": {"--target-accuracy": TRAINS["--target-accuracy"], "--by": ["x"], "--confidence": ["0", "nan"]},
}
"""Command → option → values that it must refuse."""


def bad_lines(count: int) -> list[str]:
    """Command lines with one bad value each, drawn from all of them; each command is among them."""
    lines: dict[str, list[str]] = {}
    for command, options in BAD.items():
        values = options | {name: DATA for name in COMMANDS[command] if name in SOURCES}
        for name, bad in values.items():
            for value in bad:
                given_options = {**COMMANDS[command], name: value}
                words = [f"{option}={text}" for option, text in given_options.items()]
                lines.setdefault(command, []).append(" ".join([command, *words]))
    chance = random.Random(0)
    drawn = [chance.sample(each, len(each)) for each in lines.values()]
    return [each[number] for number in range(max(map(len, drawn))) for each in drawn if number < len(each)][:count]


LINES = bad_lines(70)


@pytest.fixture
def files(folder):
    x, y = np.random.default_rng(0).integers(0, 256, (60, 12, 12), dtype=np.uint8), np.arange(60) % 3
    np.savez(folder / "ok.npz", x=x, y=y)
    (folder / "short.npz").write_bytes(b"PK")
    (folder / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (folder / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    torch.manual_seed(0)\n    pool = nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))\n"
    )
    Ledger(folder / "resque.db").extend([synthetic_update(f"u{n}", index=0.1, steps=10 + n) for n in range(8)])
    return folder


def check(code: int, out: str, err: str) -> None:
    assert code in (1, 2, 3, 4), err
    assert "Traceback" not in err
    assert "this is a bug" not in err
    if code == 1:
        errors = [line for line in err.splitlines() if not line.startswith("warning: ")]
        assert len(errors) == 1, err
        assert errors[0].startswith("resque: ")


@pytest.mark.parametrize("line", LINES[:60])
def test_bad_value_is_one_line(cli, files, line):
    check(*cli(line))
    assert len(Ledger("resque.db").updates()) == 8


@pytest.mark.parametrize("line", LINES[60:])
def test_bad_value_is_one_line_of_a_process(warm_shell, files, line):
    done = warm_shell(f"resque {line}", files)
    check(done.returncode, done.stdout, done.stderr)


def test_broken_parquet_file_is_one_line(warm_shell, files):
    line = "profile --model=net.py:build --data=parquet:ok.npz --out=p.safetensors"
    done = warm_shell(f"resque {line}", files)
    check(done.returncode, done.stdout, done.stderr)


GOOD = {
    **{command: " ".join([command, *(f"{k}={v}" for k, v in given.items())]) for command, given in COMMANDS.items()},
    "calibrate": f"calibrate --model={NET} --data=npz:ok.npz --dry-run --target-accuracy=0.3",
    "retrain": f"retrain --model={NET} --train=npz:ok.npz --test=npz:ok.npz --target-accuracy=0.9 --max-epochs=1",
    "compare": f"compare --model={NET} --shifted=npz:ok.npz --test=npz:ok.npz --target-accuracy=0.9 --max-minutes=0",
    "merge": "merge shard.safetensors --out=p.safetensors",
    "doctor": "doctor",
    "init": f"init --model={NET} --test=npz:ok.npz --country=FRA",
    "report": "report",
    "ledger life": "ledger life",
    "explain": f"explain --model={NET} --original=npz:ok.npz --shifted=npz:ok.npz",
    "ledger list": "ledger list",
    "ledger show": "ledger show u1",
    "ledger void": "ledger void u1 --why=wrong",
    "ledger settle": "ledger settle",
    "ledger export": "ledger export --out=all.jsonl",
    "ledger import": "ledger import more.jsonl",
}
"""Command → a call that does its work."""


class Asked(BaseException):
    """A network was asked; no library takes that for a failure that it may retry."""


@pytest.fixture
def asked(monkeypatch) -> list[object]:
    """What was asked of a network: names and addresses; asking ends the command at once."""
    found: list[object] = []

    def refuse(*given_values, **_):
        address = given_values[1] if isinstance(given_values[0], socket.socket) else given_values[0]
        if not (isinstance(given_values[0], socket.socket) and given_values[0].family == socket.AF_UNIX):
            found.append(address)
            raise Asked(address)
        raise OSError("no such socket here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return found


@pytest.mark.parametrize("command", sorted(GOOD))
def test_command_asks_no_network(cli, files, asked, command):
    (files / "more.jsonl").write_text("".join(json_lines([synthetic_update("new", index=0.2, steps=9)])))
    cli(f"profile --model={NET} --data=npz:ok.npz --shard=1/1 --out=shard.safetensors")
    code, _, err = cli(GOOD[command])
    assert code in (0, 1, 4) if command == "calibrate" else code in (0, 4), err
    assert asked == []


def test_every_command_but_the_demo_is_watched():
    names = {each.name or each.callback.__name__ for each in app.registered_commands}
    names |= {
        f"ledger {each.name}" for group in app.registered_groups for each in group.typer_instance.registered_commands
    }
    assert names - {"demo"} == set(GOOD)


@pytest.mark.parametrize("option", ["--model=hf:no/such-model", "--train=hf:no/such-data"])
def test_mistyped_hub_path_asks_no_network(cli, files, asked, option):
    name = option.partition("=")[0]
    given_options = COMMANDS["retrain"] | {name: option.partition("=")[2]}
    code, _, err = cli(" ".join(["retrain", *(f"{k}={v}" for k, v in given_options.items())]))
    assert (code, asked) == (1, []), err


def test_200_passes_leave_no_memory_and_no_file_behind(files):
    model = small_cnn()
    history = Ledger(files / "resque.db")
    shifted = load_data("npz:ok.npz+gaussian:3@16px")

    def one_pass() -> float:
        data = load_data("npz:ok.npz@16px")
        with torch.no_grad():
            original = profile(model, data.batches(), preprocessing=data.preprocessing)
            other = profile(model, shifted.batches(), preprocessing=shifted.preprocessing)
        original.save("p.safetensors")
        assert len(history.updates()) == 8
        return resque_dist(original, other, undefined="skip").value

    for _ in range(20):
        one_pass()
    files_before, peak_before = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        one_pass()
        memory_before = tracemalloc.get_traced_memory()[0]
        for _ in range(200):
            one_pass()
        growth = tracemalloc.get_traced_memory()[0] - memory_before
    finally:
        tracemalloc.stop()
    assert len(os.listdir("/proc/self/fd")) <= files_before
    assert growth < 200_000, f"{growth:,} bytes more after 200 passes"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before < 50_000  # kB


def test_commands_leave_no_file_open(cli, files):
    lines = [GOOD["dist"] + " --json", "ledger list --json", GOOD["profile"].replace("npz:ok", "npz:none")]
    for line in lines:
        cli(line)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        codes = [cli(line)[0] for line in lines]
    assert codes == [0, 0, 1]
    assert json.loads(cli(lines[1])[1])["updates"]
    assert len(os.listdir("/proc/self/fd")) <= before
