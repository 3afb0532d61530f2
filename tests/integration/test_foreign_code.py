"""Code of the user that ends the program, by whatever way and wherever it runs: one line and exit code 1."""

import json

import pytest

from resque.ledger.store import Ledger

CODE = """
import sys
import torch
from torch import nn

class Own(BaseException):
    pass

class Mute(RuntimeError):
    def __str__(self):
        raise ValueError("no text")

CALLS = 0

def end(where, at=1):
    global CALLS
    CALLS += where == {where!r}
    if where == {where!r} and CALLS == at:
        raise {error}

class Net(nn.Sequential):
    def forward(self, x):
        end("late forward" if self.training else "forward")
        return super().forward(x)

def build():
    end("build")
    torch.manual_seed(0)
    return Net(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

class Data(torch.utils.data.Dataset):
    def __len__(self):
        end("length")
        return 30

    def __getitem__(self, i):
        end("sample", 5)
        return torch.full((1, 8, 8), i / 30), i % 3

def data():
    end("data")
    return Data()
"""
ERRORS = ["SystemExit(0)", "SystemExit(3)", "SystemExit('bye')", "SystemExit(130)", "GeneratorExit()", "Own('own')",
          "Mute()"]  # fmt: skip
COMMANDS = {
    "profile": "profile --model net.py:build --data net.py:data --out p.safetensors --json",
    "dist": "dist --model net.py:build --original net.py:data --shifted net.py:data --json",
    "forecast": "forecast --model net.py:build --shifted net.py:data --test net.py:data --target-accuracy 0.9 "
    "--max-kwh 1e-7 --json",
    "retrain": "retrain --model net.py:build --train net.py:data --test net.py:data --target-accuracy 0.9 "
    "--max-epochs 1 --json",
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("where", "command"),
    [("forward", command) for command in COMMANDS]
    + [("late forward", "forecast"), ("late forward", "retrain")]
    + [(where, "dist") for where in ("build", "data", "length", "sample")],
)
def test_code_that_ends_the_program_is_one_line_and_exit_code_1(cli, folder, where, command, error):
    (folder / "net.py").write_text(CODE.format(where=where, error=error))
    code, out, err = cli(COMMANDS[command])
    lines = [line for line in err.splitlines() if not line.startswith("warning: ")]
    assert (code, out, len(lines)) == (1, "", 1), err
    assert error.partition("(")[0] in err
    assert "a bug" not in err
    assert not (folder / "resque.db").exists() or not Ledger("resque.db").updates()


@pytest.mark.parametrize("where", ["forward", "build", "data", "length", "sample"])
def test_an_interruption_stays_one(cli, folder, where):
    (folder / "net.py").write_text(CODE.format(where=where, error="KeyboardInterrupt()"))
    code, out, err = cli(COMMANDS["dist"])
    assert (code, out) == (130, "")
    assert "interrupted" in err


@pytest.mark.parametrize(("line", "code"), [("--version", 0), ("dist --help", 0), ("dist", 2), ("ledger", 2)])
def test_the_exits_of_the_program_stay(cli, line, code):
    assert cli(line)[0] == code


def test_what_does_not_end_the_program_gives_its_number(cli, folder):
    (folder / "net.py").write_text(CODE.format(where="nowhere", error="Own()"))
    code, out, _ = cli(COMMANDS["dist"])
    assert (code, json.loads(out)["value"]) == (0, pytest.approx(0.0, abs=1e-6))
