"""What reaches stdout, a terminal and a page: one JSON object, and no control character of a name."""

import csv
import dataclasses
import io
import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import environment_of_a_user, settled_pairs
from resque._display import Display
from resque._format import printable
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.forecasting.budget import Budget, decide
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.forecasting.life import lives
from resque.ledger.store import Ledger
from resque.reporting import console, markdown
from resque.reporting.html import Opening, write_report

LOUD = """
import atexit, ctypes, logging, os, subprocess, sys, threading
from torch import nn
libc = ctypes.CDLL(None)

def shout(where):
    print(where, "print")
    sys.__stdout__.write(where + " original stream\\n")
    os.write(1, (where + " descriptor\\n").encode())
    libc.printf((where + " printf\\n").encode())  # stays in C's buffer until the process ends
    libc.puts((where + " puts\\n").encode())
    subprocess.run(["echo", where, "subprocess"])
    os.system("echo " + where + " system")
    logging.StreamHandler(sys.stdout).emit(logging.makeLogRecord({"msg": where + " logging"}))
    thread = threading.Thread(target=print, args=(where, "thread"))
    thread.start()
    thread.join()

class Net(nn.Sequential):
    def forward(self, x):
        shout("forward")
        return super().forward(x)

def build():
    shout("build")
    atexit.register(shout, "exit")
    return Net(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def data():
    shout("data")
    from resque.data.loading import load_data
    digits = load_data("digits@60")
    return [(digits.images[i], int(digits.labels[i])) for i in range(len(digits))]

shout("import")
"""
WAYS = "print", "original stream", "descriptor", "printf", "puts", "subprocess", "system", "logging", "thread"


def test_json_is_one_object_whatever_a_model_writes_by_whatever_way(folder):
    (folder / "loud.py").write_text(LOUD)
    arguments = "profile --data loud.py:data --model loud.py:build --out p.safetensors --json"
    line = [sys.executable, "-m", "resque", *arguments.split()]
    done = subprocess.run(line, cwd=folder, env=environment_of_a_user(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout), dict)
    assert done.stdout.count("\n") == 1
    expected = [f"{where} {way}" for where in ("import", "build", "data", "forward", "exit") for way in WAYS]
    assert [each for each in expected if each not in done.stderr] == []


def test_json_is_one_object_in_process_and_the_streams_are_as_before(folder, capfd, monkeypatch):
    (folder / "loud.py").write_text(LOUD.replace("atexit.register(shout, 'exit')", ""))
    from resque.cli import main

    line = "resque dist --original digits@60 --shifted digits@60 --model loud.py:build --json"
    monkeypatch.setattr(sys, "argv", line.split())
    before = sys.stdout
    with pytest.raises(SystemExit):
        main()
    assert sys.stdout is before
    subprocess.run(["echo", "afterwards"], check=True)
    out, err = capfd.readouterr()
    first, second = out.splitlines()
    assert (isinstance(json.loads(first), dict), second) == (True, "afterwards")
    assert "build descriptor" in err


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "a\x7fb\x1b[2J\u202e\udcff"])
def test_json_is_valid_and_plain_whatever_it_holds(capsys, value):
    console.print_json({"a": {"b": [value, 1.0]}})
    out = capsys.readouterr().out
    kept = value if isinstance(value, str) else None
    assert json.loads(out, parse_constant=pytest.fail) == {"a": {"b": [kept, 1.0]}}
    assert raw(out) == ""


CONTROLS = [
    *map(chr, [*range(0x20), *range(0x7F, 0xA0)]),
    *"\u00ad\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d",
]
CONTROLS += [*"\u202e\u2066\u2067\u2068\u2069\u200b\u2060\ufeff\ufff9\ufffb\udcff\ud800", "\U000e0001", "\U000e0041"]
SEQUENCES = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "ok\rnot ok",
    "a\nresque: done",
    "b\x08c",
    "\x1b]8;;http://x\x1b\\",
]


def raw(text: str, keep: str = "\n") -> str:
    """The characters of a text that control a terminal, lines, or the direction of writing."""
    return "".join(
        c for c in text if c not in keep + "\u200c\u200d" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


names = st.lists(st.sampled_from([*CONTROLS, *SEQUENCES]) | st.text(max_size=3), min_size=1, max_size=6).map("".join)


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_a_control_character_is_escaped(control):
    assert raw(printable(control), keep="") == ""
    assert printable(f"a{control}b") not in ("ab", f"a{control}b")


@given(st.text(alphabet=st.characters(categories=("L", "M", "N", "P", "S", "Zs"))))
def test_other_text_stays_as_it_is(text):
    assert printable(text) == text


@given(names)
def test_a_name_cannot_steer_a_terminal(name):
    with console.out.capture() as shown:
        console.show(Display(name, (name, "b"), [(name, name)], [name]))
        console.out.print(f"model: {name}", soft_wrap=True)
    with console.err.capture() as warned:
        console.warn(name)
    assert raw(shown.get() + warned.get()) == ""
    assert warned.get().count("\n") == 1
    assert shown.get().splitlines()[-1].startswith("model: ")


def named(name: str):
    """Settled forecasts whose every name is the one given."""
    pairs = []
    for forecast, update in settled_pairs(2):
        names = {"model": name, "train_data": name, "test_data": name, "shift_type": name}
        grid, energy = (
            Grid(name, 44.0, name),
            dataclasses.replace(update.energy, meter=name, note=name, methods={name: name}),
        )
        update = dataclasses.replace(
            update, **names, stopped_by=name, grid=grid, energy=energy, host={name: name}, tariff=Tariff(1.0, 0.0, name)
        )
        issues = {"notes": (name,), "reliability_issues": (name,), "predictor": name, "shift_types_history": (name,)}
        alternatives = {name: 5.0}
        pairs.append((dataclasses.replace(forecast, **names, **issues, grid=grid, alternatives=alternatives), update))
    return pairs


EVERY = "".join(c for c in [*CONTROLS, *SEQUENCES] if not "\ud800" <= c <= "\udfff")  # a ledger holds no halves


@pytest.mark.parametrize("name", [EVERY, "a\nb", "\x1b[31m<b>$x$"], ids=["every", "line", "markup"])
def test_a_name_cannot_steer_the_report_or_the_summary(folder, name):
    settled = named(name)
    summary = summarize_settlements(settled)
    updates, pending = [update for _, update in settled], [forecast for forecast, _ in settled]
    opening = Opening(name, pending, lives(updates, pending))
    write_report(folder / "report.html", updates, settled, summary, opening)
    assert raw((folder / "report.html").read_text()) == ""
    forecast = settled[0][0]
    budget = Budget(max_kwh=1.0, max_price=1.0, tariff=Tariff(1.0, 1.0, name))
    price = forecast.estimates["wall_s"]
    for page in (
        markdown.decision_markdown(forecast, decide(forecast, budget), price, name),
        markdown.undecided_markdown(name),
    ):
        assert raw(page) == ""
    assert page.count("\n") == 3
    for result in (*settled[0], summary):
        assert raw(str(result)) == ""
        assert raw(result._repr_html_()) == ""


@pytest.mark.parametrize(
    "line", ["ledger list", "ledger show u0", "ledger show f-u0", "ledger settle", "report", "ledger list --json"]
)
def test_a_name_in_a_ledger_cannot_steer_a_command(cli, folder, line):
    ledger = Ledger(folder / "resque.db")
    for forecast, update in named(EVERY):
        ledger.add(forecast)
        ledger.add(update)
    code, out, err = cli(line)
    assert code == 0, err
    assert raw(out) == ""
    assert raw(err) == ""


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("name", [EVERY, *SEQUENCES], ids=ascii)
def test_an_export_is_escaped_on_a_terminal_and_exact_elsewhere(cli, folder, monkeypatch, form, name):
    ledger = Ledger(folder / "resque.db")
    ledger.extend([update for _, update in named(name)])
    with monkeypatch.context() as terminal:
        terminal.setattr(type(sys.stdout), "isatty", lambda stream: True)
        code, shown, err = cli(f"ledger export --format {form}")
    assert code == 0, err
    assert raw(shown) == ""
    assert shown.count("\n") == (2 if form == "jsonl" else 3)
    piped = cli(f"ledger export --format {form}")[1]
    cli(f"ledger export --format {form} --out file")
    assert piped == (folder / "file").read_bytes().decode()
    if form == "csv":
        assert [row["model"].removeprefix("'") for row in csv.DictReader(io.StringIO(piped, newline=""))] == [name] * 2
    else:
        assert [json.loads(line)["update"]["model"] for line in piped.split("\n")[:-1]] == [name] * 2


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """A command from a list of arguments, which may hold any character."""

    def run(*arguments):
        from resque.cli import main

        monkeypatch.setattr(sys, "argv", ["resque", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


BAD = "a\x1b[31m\r\u202e\x9bb"


@pytest.mark.parametrize(
    "arguments",
    [
        [BAD], ["dist", f"--{BAD}"], ["ledger", BAD], ["ledger", "list", f"--{BAD}", "x"], ["dist", "--limit", BAD],
        ["ledger", "list", "--ledger", BAD], ["ledger", "list", "--project", BAD], ["report", "--out", BAD],
        ["dist", "--model", BAD, "--original", "digits", "--shifted", "digits"],
        ["dist", "--model", "resque.networks:small_cnn", "--original", BAD, "--shifted", "digits"],
        ["dist", "--model", "resque.networks:small_cnn", "--original", "digits", "--shifted", f"npz:{BAD}"],
        ["doctor", "--country", BAD],
    ],
    ids=ascii,
)  # fmt: skip
def test_a_wrong_argument_is_named_without_its_control_characters(call, arguments):
    code, out, err = call(*arguments)
    assert code in (1, 2)
    assert raw(out + err) == ""
    assert err


def test_files_and_options_with_control_characters_in_their_names_work(call, folder):
    x, y = np.random.default_rng(0).integers(0, 256, (60, 16, 16), dtype=np.uint8), np.arange(60) % 10
    np.savez(folder / f"{BAD}.npz", x=x, y=y)
    data, out = f"npz:{BAD}.npz", f"new\n{BAD}"
    code, shown, err = call(
        "retrain", "--model", "resque.networks:small_cnn", "--train", data, "--test", data, "--target-accuracy", "0.9",
        "--recipe", "train-adam,max_epochs=1", "--out", out, "--shift-type", BAD, "--ledger", f"{BAD}.db",
        "--price-per-hour", "1", "--currency", BAD,
    )  # fmt: skip
    assert code == 0, err
    assert raw(shown + err) == ""
    assert (folder / out / "model.safetensors").exists()
    assert Ledger(f"{BAD}.db").updates()[0].train_data == data


@pytest.mark.parametrize(
    "options",
    [
        ["--shift-type", "\udcff"], ["--kind", "\udcff"], ["--kind=\udcff"], ["--train", "npz:\udcff.npz"],
        ["--out", "\udcff"], ["--currency", "\udcff"], ["--ledger", "\udcff.db"], ["--embodied-kg", "nan"],
        ["--embodied-kg", "inf"], ["--embodied-kg", "-1"], ["--life-years", "0"], ["--life-years", "nan"],
        ["--life-years", "-4"], ["--price-per-kwh", "nan"], ["--price-per-hour", "inf"],
        ["--pue", "nan"], ["--intensity", "nan"], ["--intensity", "inf"], ["--seed", str(2**64)],
        ["--json", "--pue", "0"],
        ["--recipe", "train-adam,batch_size=inf"], ["--recipe", "train-adam,learning_rate=nan"],
    ],
    ids=ascii,
)  # fmt: skip
def test_bad_options_are_refused_before_training(call, folder, monkeypatch, options):
    monkeypatch.setattr("resque.workflows.running.retrain", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr("resque.workflows.update.shift_features", lambda *_, **__: pytest.fail("passed the data"))
    given = {"--model": "resque.networks:small_cnn", "--train": "digits@60", "--test": "digits@60"}
    line = [part for pair in {**given, "--target-accuracy": "0.9"}.items() for part in pair]
    code, out, err = call("retrain", *line, *options)
    numbers = {"--embodied-kg", "--life-years", "--price-per-kwh", "--price-per-hour", "--pue", "--intensity"}
    is_usage = bool(numbers & {*options})
    assert (code, out) == (2 if is_usage else 1, "")
    assert is_usage or err.count("\n") == 1
    assert "bug" not in err
    assert not [path for path in folder.iterdir() if path.name not in ("updates",)]


@pytest.mark.parametrize("json_too", [[], ["--json"]])
@pytest.mark.parametrize("limit", ["inf", "nan", "-inf"])
@pytest.mark.parametrize("option", ["--max-kwh", "--max-kg", "--max-hours", "--max-price"])
def test_a_budget_that_is_no_number_is_refused(call, folder, option, limit, json_too):
    line = ["forecast", "--model", "resque.networks:small_cnn", "--shifted", "digits@60", "--test", "digits@60"]
    code, out, err = call(*line, "--target-accuracy", "0.9", f"{option}={limit}", *json_too)
    assert (code in (1, 2), out) == (True, "")
    assert "expected" in err or "greater than or equal to 0" in err
    assert list(folder.iterdir()) == []


CLASSED = (
    "import torch\nfrom torch import nn\n"
    "def build(num_classes=10):\n"
    "    torch.manual_seed(0)\n"
    "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))\n"
)


@pytest.mark.parametrize(
    "command",
    [
        "profile --data digits@60 --out p.safetensors",
        "dist --original digits@60 --shifted digits@60",
        "task --data digits@60",
    ],
)
def test_classes_are_the_outputs_of_the_model(cli, folder, monkeypatch, command):
    from resque.workflows import inputs

    (folder / "net.py").write_text(CLASSED)
    built = []

    def load(*arguments):
        built.append(inputs_load(*arguments))
        return built[-1]

    inputs_load = inputs.load_model
    monkeypatch.setattr(inputs, "load_model", load)
    for classes in (10, 13):
        code, _, err = cli(f"{command} --model net.py:build --classes {classes} --json")
        assert code == 0, err
        assert built[-1][-1].out_features == classes


@pytest.mark.parametrize(
    "command", ["--help", "forecast --help", "ledger list --help", "doctor", "ledger list", "ledger export"]
)
def test_a_reader_that_goes_away_is_no_error(folder, command):
    """As with ``| head``: nobody reads the rest, and there is nothing to tell."""
    ledger = Ledger(folder / "resque.db")
    ledger.extend([update for _, update in named("a")])
    process = subprocess.Popen(
        [sys.executable, "-m", "resque", *command.split()],
        cwd=folder,
        env=environment_of_a_user(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()
    said = process.stderr.read().decode().splitlines()
    assert [line for line in said if not line.startswith("working: ")] == []
    process.stderr.close()
    process.wait()
