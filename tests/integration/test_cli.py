"""Bad input, through the real entry point: one line, exit code 1 or 2 (4: too little history), nothing written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resque._format import format_cost
from resque.ledger.store import Ledger
from resque.models.networks import small_cnn
from resque.models.weights import save_weights
from resque.reporting import console


@pytest.fixture
def files(folder):
    """Small images of 12 × 12 and files with one fault each."""
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 256, (60, 12, 12), dtype=np.uint8), np.arange(60) % 3
    np.savez(folder / "ok.npz", x=x, y=y)
    np.savez(folder / "float_labels.npz", x=x, y=y + 0.5)
    np.savez(folder / "one_class.npz", x=x, y=y * 0)
    np.savez(folder / "two_classes.npz", x=x, y=y % 2)
    (folder / "empty.npz").touch()
    np.savez(folder / "few.npz", x=x[:2], y=y[:2])
    np.savez(folder / "colour.npz", x=np.stack([x] * 3, -1), y=y)
    np.savez(folder / "label_seven.npz", x=x, y=y + 5)
    (folder / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    pool = nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 3))\n"
        "def poisoned():\n    net = build()\n    nn.init.constant_(net[0].weight, float('nan'))\n    return net\n"
        "def text():\n    return 'hello'\n"
        "def leaves():\n    raise SystemExit(3)\n"
        "class Buggy(nn.Module):\n    def forward(self, x):\n        raise KeyError('x')\n"
        "def buggy():\n    return nn.Sequential(nn.Conv2d(1, 4, 3), Buggy(), nn.Linear(4, 3))\n"
    )
    return folder


NET = "--model net.py:build"
TASK = f"task {NET} --data npz:label_seven.npz"
DIST = f"dist {NET} --original npz:ok.npz --shifted npz:ok.npz"
RETRAIN = f"retrain {NET} --train npz:ok.npz --test npz:ok.npz --target-accuracy 0.9"
FORECAST = f"forecast {NET} --original npz:ok.npz --shifted npz:ok.npz --test npz:ok.npz --target-accuracy 0.9"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (DIST.replace("--shifted npz:ok", "--shifted npz:none"), "no such file: none.npz"),
        (DIST.replace("net.py:build", "net.py:other"), "no callable 'other' in net.py; it offers: Buggy, buggy, build"),
        (DIST.replace("net.py:build", "net.py:text"), "returned str; expected a torch.nn.Module"),
        (DIST.replace("--shifted npz:ok", "--shifted npz:float_labels"), "float64; expected integers"),
        (DIST.replace("--shifted npz:ok", "--shifted npz:one_class"), "class 1 has no samples in the shifted data"),
        (DIST.replace("--shifted npz:ok", "--shifted npz:two_classes"), "class 2 has no samples in the shifted data"),
        (DIST.replace("net.py:build", "net.py:poisoned"), "NaN or infinity"),
        (DIST.replace("--shifted npz:ok", "--shifted npz:colour"), "does not take images of shape (3, 12, 12)"),
        (DIST + " --layer nine", "no layer 'nine' (from --layer"),
        (DIST + " --unit deg", "use 'rad' or 'pi'"),
        (DIST + " --labels guessed", "use 'true' or 'pseudo'"),
        (DIST + " --weights none.pt", "no such weights file"),
        (DIST + " --device abacus", "device 'abacus' cannot be used"),
        (DIST.replace("--original npz:ok.npz", "--original none.safetensors"), "no such profile"),
        (DIST.replace("--original npz:ok.npz", "--original ok.npz"), "is data, not a profile: write npz:ok.npz"),
        (DIST + " --reduction most", "unknown reduction 'most'"),
        (DIST.replace("net.py:build", "net.py:leaves"), "net.py:leaves failed: SystemExit"),
        (DIST.replace("--shifted npz:ok", "--shifted npz:empty"), "is no .npz archive of plain arrays"),
        (DIST.replace("net.py:build", "net.py:buggy"), "KeyError"),
        (RETRAIN + " --layer nine", "no layer 'nine'"),
        (RETRAIN + " --out ok.npz/new", "cannot make folder"),
        (RETRAIN.replace("npz:ok", "npz:few"), "2 samples for 3 classes"),
        (RETRAIN.replace("npz:ok", "npz:label_seven"), "expected labels 0 to 2"),
        (RETRAIN.replace("--train npz:ok", "--train npz:two_classes"), "classes [2] are in npz:ok.npz and not in"),
        (RETRAIN.replace("--train npz:ok", "--train npz:colour"), "does not take images"),
        (RETRAIN.replace("0.9", "1.1"), "target accuracy 1.1: expected a share in (0, 1]"),
        (RETRAIN.replace("0.9", "nan"), "expected a share in (0, 1]"),
        (RETRAIN + " --country Atlantis", "unknown country 'Atlantis'"),
        (TASK + " --init best", "use one of class-means, k-means++, random, or all"),
        (TASK + " --init random --no-lloyd", "without Lloyd's iterations"),
        (TASK + " --keep best", "use 'sizes' or 'labels'"),
        (TASK + " --warmup-steps -1", "expected 0 or more"),
        (TASK.replace("label_seven", "ok") + " --extend", "label new ones from 3 on to extend it"),
        (DIST + " --confidence 90", "expected a share between 0 and 1"),
        (RETRAIN + " --recipe best", "unknown recipe 'best'"),
        (RETRAIN + " --evaluate-every 0", "evaluate_every is 0"),
        (RETRAIN + " --forecast abc", "0 forecasts in {folder}/resque.db begin with 'abc'"),
        (RETRAIN + " --limit 0", "at least 1 sample"),
        (RETRAIN + " --ledger .", "ledger {folder} cannot be used: it is no regular file"),
        (RETRAIN + " --out .", "{folder} holds something already"),
        (f"profile {NET} --data npz:none.npz --out p.safetensors", "no such file"),
        (f"profile {NET} --data npz:ok.npz+rain:3 --out p.safetensors", "unknown shift 'rain'"),
        (f"profile {NET} --data npz:ok.npz --out net.py/p.safetensors", "cannot write 'net.py/p.safetensors'"),
        (f"profile {NET} --data npz:ok.npz --out net.py", "'net.py' holds something else, which is kept"),
        (DIST.replace("--shifted npz:ok.npz", "--shifted npz:ok.npz+blur:2.5"), "with a whole level 1 to 10"),
        ("ledger list", "no ledger at resque.db"),
        ("report", "no ledger at resque.db"),
    ],
)
def test_bad_input_gets_one_line_or_is_wrong_usage(cli, files, line, message):
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    code, out, err = cli(line)
    assert out == ""
    if "Invalid value for" in err:  # wrong in itself, whatever the files are: tests/integration/test_wrong_values.py
        assert code == 2
    else:
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith("resque: ")
        assert message.replace("{folder}", str(files)) in err
    after = {path: path.read_bytes() for path in files.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert after == {path: content for path, content in before.items() if "__pycache__" not in path.parts}


@pytest.mark.parametrize("line", ["dist", "dist --nonsense", "nonsense", RETRAIN.replace("0.9", "much"), "ledger"])
def test_wrong_usage_is_exit_code_2(cli, files, line):
    assert cli(line)[0] == 2


def test_too_little_history_is_exit_code_4(cli, files):
    code, out, err = cli(f"{FORECAST} --no-prior")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "0 updates in the ledger" in err
    assert not (files / "resque.db").exists()


def test_the_shipped_history_alone_forecasts_and_is_exit_code_4(cli, files):
    code, out, _ = cli(f"{FORECAST} --json")
    made = json.loads(out)
    assert (code, made["n_history"], made["n_bundled"] > 20) == (4, 0, True)
    assert made["reliability_issues"][0].startswith("the forecast rests on bundled updates only")
    assert "no coverage guarantee" in made["estimates"]["steps"]["interval"]["guarantee"]
    hours = made["estimates"]["wall_s"]["value"] / 3600
    assert made["embodied"]["low_kg"] == pytest.approx(100 * hours / (4 * 8766))
    assert len(Ledger("resque.db").forecasts()) == 1


def test_json_is_one_object_and_nothing_else(cli, files):
    for line in (DIST, f"profile {NET} --data npz:ok.npz --out p.safetensors", "doctor", RETRAIN + " --max-epochs 1"):
        code, out, _ = cli(line + " --json")
        assert code == 0
        assert isinstance(json.loads(out), dict)
        assert out.count("\n") == 1


def test_what_a_users_code_prints_is_not_in_the_json(cli, files):
    loud = "print('imported')\n" + (files / "net.py").read_text().replace(
        "def build():", "def build():\n    print('built')"
    )
    (files / "loud.py").write_text(loud)
    code, out, err = cli(DIST.replace("net.py", "loud.py") + " --json")
    assert code == 0, err
    assert isinstance(json.loads(out), dict)
    assert "imported" in err
    assert "built" in err


def test_a_run_that_misses_its_target_is_complete_and_exit_code_0(cli, files):
    code, out, _ = cli(RETRAIN.replace("0.9", "1") + " --max-epochs 1 --json")
    update = json.loads(out)
    assert (code, update["reached"], update["stopped_by"]) == (0, False, "max")
    assert update["cost"]["carbon_kg"] is None
    assert (Path(update["folder"]) / "model.safetensors").exists()
    listed = json.loads(cli("ledger list --json")[1])
    assert [u["id"] for u in listed["updates"]] == [update["id"]]


def test_a_profile_serves_in_place_of_the_data(cli, files):
    assert cli(f"profile {NET} --data npz:ok.npz --out p.safetensors")[0] == 0
    by_profile = json.loads(cli(DIST.replace("npz:ok.npz", "p.safetensors", 1) + "+gaussian:3 --json")[1])
    by_data = json.loads(cli(DIST + "+gaussian:3 --json")[1])
    assert by_profile == by_data
    assert by_profile["value"] > 0


def test_a_profile_of_another_model_is_refused(cli, files):
    assert cli(f"profile {NET} --data npz:ok.npz --out p.safetensors")[0] == 0
    torch.manual_seed(1)
    save_weights(
        torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), *[torch.nn.Identity()] * 3, torch.nn.Linear(4, 3)),
        files / "w.safetensors",
    )
    code, _, err = cli(DIST.replace("npz:ok.npz", "p.safetensors", 1) + " --weights w.safetensors")
    assert code == 1
    assert "the profiles differ in model" in err


def test_the_price_of_a_new_task_in_json(cli, files):
    found = json.loads(cli(f"{TASK} --warmup-steps 2 --intensity 50 --json")[1])
    assert {"value", "unit", "init", "lloyd", "n", "classes", "layer", "overhead"} <= set(found)
    assert (found["unit"], found["n"], found["classes"], found["layer"]) == ("1 - ARI", 60, 3, "0")
    asked = found["overhead"]
    assert (asked["head"], asked["outputs"], asked["steps"]) == ("new", 3, 2)
    assert asked["energy"]["wall_s"] > 0
    wider = json.loads(cli(f"{TASK} --extend --no-lloyd --json")[1])
    asked = wider["overhead"]
    assert (asked["head"], asked["outputs"], wider["lloyd"]) == ("widened", 6, False)
    again = json.loads(cli(f"{TASK} --extend --no-lloyd --json")[1])
    assert again["value"] == wider["value"]


def test_the_three_starts_in_a_terminal(cli, files):
    out = cli(f"{TASK} --init all --reduction mean")[1]
    for word in ("class-means", "k-means++", "the least entropy of sizes", "adjusted Rand index", "warm-up: new head"):
        assert word in out


def test_pseudo_labels_interval_and_sub_sums_are_told(cli, files):
    found = json.loads(cli(f"{DIST}+gaussian:5 --labels pseudo --layer penultimate --undefined skip --json")[1])
    assert (found["labels"], found["layer"], found["sub_sums"]) == ("pseudo", "penultimate", 2)
    plain, debiased = (json.loads(cli(f"{DIST}+gaussian:5{more} --json")[1]) for more in ("", " --debias"))
    assert plain["interval"]["low"] <= plain["value"] <= plain["interval"]["high"]
    assert debiased["debiased"]
    assert debiased["interval"]["level"] == 0.9


def test_the_version_is_said(cli):
    assert cli("--version")[:2] == (0, "resque 0.1.0\n")


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "doctor", "profile", "dist", "task", "forecast", "retrain", "report"),
        *(
            "ledger list",
            "ledger show",
            "ledger void",
            "ledger settle",
            "ledger validate",
            "ledger export",
            "ledger import",
        ),
    ],
)
def test_every_command_helps_with_an_example(cli, command):
    code, out, _ = cli(f"{command} --help")
    assert code == 0
    assert f"Example: resque {command}" in out


def test_pickled_weights_are_refused(cli, files):
    torch.save(small_cnn(), files / "pickled.pt")
    code, _, err = cli(DIST + " --weights pickled.pt")
    assert code == 1
    assert "never run here" in err


def test_names_with_brackets_and_dollars_are_printed_and_drawn_as_they_are(cli, files):
    (files / "a[b].npz").write_bytes((files / "ok.npz").read_bytes())
    line = RETRAIN.replace("npz:ok.npz", "npz:a[b].npz") + " --max-epochs 1 --shift-type $x^{[/b] --original npz:ok.npz"
    code, out, _ = cli(line)
    assert code == 0
    assert "npz:a[b].npz" in out
    assert cli("report")[0] == 0
    assert "$x^{[/b]" in (files / "report.html").read_text()


def test_an_interrupted_run_says_so_and_leaves_no_entry(cli, files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("resque.training.retrain.run_to_end", interrupt)
    code, _, err = cli(RETRAIN)
    assert code == 130
    assert "interrupted" in err
    assert not (files / "resque.db").exists()


def test_a_bug_is_one_line_unless_the_traceback_is_asked_for(cli, files, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("secret of the house")

    monkeypatch.setattr("resque.workflows.inputs.load_data", fail)
    code, _, err = cli(DIST)
    assert (code, err.count("\n")) == (1, 1)
    assert "unexpected ZeroDivisionError: secret of the house" in err
    monkeypatch.setenv("RESQUE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli(DIST)


def test_a_run_that_diverges_is_in_the_ledger(cli, files):
    (files / "wild.py").write_text(
        "import torch\nfrom torch import nn\nfrom net import build\n"
        "class Wild(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = build()\n        self.n = 0\n"
        "    def forward(self, x):\n        return self.net(x) * (float('nan') if self.training else 1)\n"
    )
    sys.path.insert(0, str(files))
    try:
        code, out, err = cli(RETRAIN.replace("net.py:build", "wild.py:Wild").replace("0.9", "1") + " --json")
    finally:
        sys.path.remove(str(files))
    update = json.loads(out)
    assert (code, update["stopped_by"], update["reached"]) == (0, "diverged", False)
    assert "no profile" in err
    assert len(json.loads(cli("ledger list --json")[1])["updates"]) == 1


def test_a_report_never_overwrites_what_is_no_report(cli, files):
    assert cli(RETRAIN + " --max-epochs 1")[0] == 0
    before = (files / "resque.db").read_bytes()
    code, _, err = cli("report --out resque.db")
    assert (code, (files / "resque.db").read_bytes()) == (1, before)
    assert "holds something else" in err
    assert cli("report")[0] == cli("report")[0] == 0


def test_the_ledger_keeps_every_number_whole_at_80_columns(cli, files, monkeypatch):
    monkeypatch.setattr(console.out, "width", 80)
    long = files / "a_rather_long_folder_name" / "with_another_one_inside"
    long.mkdir(parents=True)
    (long / "ok.npz").write_bytes((files / "ok.npz").read_bytes())
    line = RETRAIN.replace("npz:ok.npz", f"npz:{long}/ok.npz+gaussian:3") + " --max-epochs 1 --intensity 50"
    assert cli(line)[0] == 0
    command = [sys.executable, "-c", "from resque.cli import main; main()", "ledger", "list"]
    environment = {**os.environ, "COLUMNS": "80"}
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert max(map(len, said.splitlines())) <= 80
    cost = json.loads(cli("ledger list --json")[1])["updates"][0]["cost"]
    head, _, row = said.split("\n", 1)[1].partition("─\n")
    for name in ("steps", "wall_s", "energy_kwh", "carbon_kg"):
        number, _, unit = format_cost(name, cost[name]).partition(" ")
        assert f" {number} " in row.replace("\n", " \n")
        assert f"[{unit}]" in head or not unit
    assert "npz:" in said


def test_pseudo_labels_need_no_labels(cli, files):
    with np.load("ok.npz") as archive:
        np.savez("unlabeled.npz", x=archive["x"])
    line = DIST.replace("--shifted npz:ok", "--shifted npz:unlabeled") + " --undefined skip"
    code, out, _ = cli(line + " --labels pseudo --json")
    assert (code, json.loads(out)["labels"]) == (0, "pseudo")
    assert "--labels pseudo" in cli(line)[2]
    assert "has no labels" in cli(RETRAIN.replace("--train npz:ok", "--train npz:unlabeled"))[2]


def test_embodied_emissions_can_be_named(cli, files):
    line = f"{RETRAIN} --intensity 100 --embodied-kg 1000 --life-years 1 --json"
    code, out, err = cli(line)
    assert code == 0, err
    update = json.loads(out)
    sci, wall_s = update["sci"], update["energy"]["wall_s"]
    assert sci["embodied_low_g"] == sci["embodied_high_g"] == pytest.approx(1e6 * wall_s / 3600 / 8766)
    assert sci["tags"]["M"] == "given by the user"
    code, _, err = cli(f"{RETRAIN} --embodied-kg -1")
    assert (code, "--embodied-kg" in err) == (2, True)


def test_a_forecast_of_a_shift_needs_no_original_data(cli, files):
    line = f"forecast {NET} --shifted npz:ok.npz+gaussian:3 --test npz:ok.npz+gaussian:3 --target-accuracy 0.9"
    code, out, err = cli(f"{line} --recipe train-adam --json")
    assert code == 4, err
    forecast = json.loads(out)
    assert forecast["features"]["index_rad"] is None
    assert forecast["estimates"]["steps"]["value"] > 0
