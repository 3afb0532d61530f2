"""The project file: read, written, checked; defaults of commands."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.errors import SettingError
from resque.training.recipe import named_recipe
from resque.workflows.project import KEYS, Project, read_project, write_project
from resque.workflows.project_check import check_project

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
"""
EVERY_KEY = [(section, name) for section, keys in KEYS.items() for name in keys]
LINE = "--shifted npz:new.npz --shift-type inverted --json"


@pytest.fixture
def files(folder: Path, digits) -> Path:
    (folder / "net.py").write_text(NET)
    x, y = (digits.images.numpy() * 255).round().astype(np.uint8)[:, 0, ::2, ::2], digits.labels.numpy()
    np.savez("clean.npz", x=x[:400], y=y[:400])
    np.savez("new.npz", x=255 - x[400:800], y=y[400:800])
    np.savez("new-test.npz", x=255 - x[800:1100], y=y[800:1100])
    return folder


def values():
    kinds = {str: st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)}
    kinds |= {float: st.floats(0.01, 100.0), int: st.integers(1, 1000), bool: st.booleans()}
    kinds[float | str] = kinds[float] | kinds[str]
    return st.fixed_dictionaries({}, optional={key: kinds[KEYS[key[0]][key[1]].type] for key in EVERY_KEY})


@given(values())
def test_what_is_written_is_read(given_values):
    path = Path("resque.toml")
    path.unlink(missing_ok=True)
    write_project(path, given_values)
    try:
        assert read_project(path).values == given_values
    finally:
        path.unlink()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(folder):
    """Hypothesis runs many examples in one folder."""


def test_the_commented_file_has_every_key_and_is_valid_with_all_of_them(folder):
    write_project(folder / "resque.toml")
    text = (folder / "resque.toml").read_text()
    assert read_project(folder / "resque.toml").values == {}
    settings = [line.removeprefix("# ") for line in text.splitlines() if " = " in line]
    assert len(settings) == len(EVERY_KEY)
    (folder / "all.toml").write_text("\n".join(line.removeprefix("# ") for line in text.splitlines()[1:]))
    assert set(read_project(Path("all.toml")).values) == set(EVERY_KEY)
    named_recipe(read_project(Path("all.toml")).values["update", "recipe"])
    assert all(len(line) < 130 for line in text.splitlines())


def test_a_file_that_exists_is_kept(folder):
    (folder / "resque.toml").write_text("mine")
    with pytest.raises(SettingError, match="exists and is kept"):
        write_project(Path("resque.toml"))
    assert (folder / "resque.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nspecs = 'a'", r"\[model\] has no key 'specs'; use one of spec, weights, download, original"),
        ("[models]\nspec = 'a'", r"no section \[models\]; use one of model, data, update"),
        ("target_accuracy = 0.9", r"no section \[target_accuracy\]"),
        ("[update]\ntarget_accuracy = 'high'", "update.target_accuracy is 'high', expected a number"),
        ("[update]\nevaluate_every = 2.5", "update.evaluate_every is 2.5, expected a whole number"),
        ("[update]\nevaluate_every = true", "update.evaluate_every is True, expected a whole number"),
        ("[budget]\nmax_kwh = inf", "budget.max_kwh is inf, expected a finite number"),
        ("[budget]\nmax_kwh = nan", "budget.max_kwh is nan, expected a finite number"),
        ("[model\n", "cannot be read"),
    ],
)
def test_what_is_no_project_file_is_refused_by_name(folder, text, message):
    (folder / "resque.toml").write_text(text)
    with pytest.raises(SettingError, match=message):
        read_project(Path("resque.toml"))


def test_paths_are_relative_to_the_file(folder):
    (folder / "sub").mkdir()
    given = {("model", "spec"): "net.py:build", ("model", "weights"): "m.safetensors", ("ledger", "path"): "r.db"}
    given |= {("model", "original"): "p.safetensors", ("data", "test"): "npz:a.npz@test~idx:b.gz,c.gz+blur:3"}
    write_project(folder / "sub" / "p.toml", given)
    assert read_project(Path("sub/p.toml")).values == {
        ("model", "spec"): "sub/net.py:build",
        ("model", "weights"): "sub/m.safetensors",
        ("ledger", "path"): "sub/r.db",
        ("model", "original"): "sub/p.safetensors",
        ("data", "test"): "npz:sub/a.npz@test~idx:sub/b.gz,sub/c.gz+blur:3",
    }


def test_a_command_gets_what_concerns_it():
    project = Project({("budget", "max_hours"): 2.0, ("calibration", "max_hours"): 0.5, ("data", "test"): "npz:a.npz"})
    assert project.options("forecast") == {"max_hours": 2.0, "test": "npz:a.npz"}
    assert project.options("calibrate") == {"max_hours": 0.5}
    assert project.options("profile") == {}
    original = Project({("data", "original_test"): "npz:o.npz"})
    assert (original.options("retrain"), original.options("calibrate")) == (
        {"original_test": "npz:o.npz"},
        {"test": "npz:o.npz"},
    )


def test_init_writes_and_checks_and_the_commands_are_short(cli, files):
    line = (
        "init --model net.py:build --original npz:clean.npz --test npz:new-test.npz --target-accuracy 0.9 --country FRA"
    )
    code, out, err = cli(f"{line} --recipe train-adam,max_epochs=2 --json")
    assert code == 0, err
    found = json.loads(out)
    assert found["model"].startswith("net.py:build, ")
    assert "300 samples, 10 classes" in found["test data"]
    assert "256 samples, 10 outputs" in found["one batch"]
    assert tomllib.loads((files / "resque.toml").read_text())["cost"] == {"country": "FRA"}
    assert cli("init")[0] == 1

    code, out, err = cli(f"forecast {LINE}")
    assert code == 4, err  # the bundled history alone
    forecast = json.loads(out)
    assert (forecast["target_accuracy"], forecast["grid"]["region"]) == (0.9, "FRA")
    assert (forecast["test_data"], forecast["recipe"]["max_epochs"]) == ("npz:new-test.npz", 2)
    code, out, err = cli(f"retrain --train npz:new.npz --shift-type inverted --forecast {forecast['id']} --json")
    assert code == 0, err
    assert json.loads(out)["forecast_id"] == forecast["id"]
    for short in ("ledger list", "report", "ledger settle", "doctor --json"):
        assert cli(short)[0] == 0


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(cli, files, monkeypatch):
    write_project(files / "resque.toml", {("ledger", "path"): "file.db", ("update", "target_accuracy"): 0.9})
    cli("init --project other.toml --model net.py:build --ledger other.db")
    base = f"forecast --model net.py:build --original npz:clean.npz --test npz:new-test.npz {LINE} --recipe train-adam"
    assert cli(base)[0] == 4
    assert Path("file.db").exists()
    monkeypatch.setenv("RESQUE_LEDGER", "environment.db")
    assert cli(base)[0] == 4
    assert Path("environment.db").exists()
    assert json.loads(cli(f"{base} --ledger line.db --target-accuracy 0.8")[1])["target_accuracy"] == 0.8
    assert Path("line.db").exists()
    monkeypatch.delenv("RESQUE_LEDGER")
    assert cli(f"{base} --project other.toml")[0] == 2  # that file has no target
    assert cli(f"{base} --project other.toml --target-accuracy 0.9")[0] == 4
    assert Path("other.db").exists()


@pytest.mark.parametrize("command", ["profile --data digits --out p.safetensors", "doctor", "ledger list"])
def test_an_unknown_key_stops_every_command(cli, folder, command):
    (folder / "resque.toml").write_text("[update]\nacuracy = 0.9")
    code, _, err = cli(command)
    assert (code, "[update] has no key 'acuracy'" in err) == (1, True)


def test_a_named_file_must_exist(cli, folder):
    code, _, err = cli("doctor --project none.toml")
    assert (code, "project file none.toml cannot be read" in err) == (1, True)


def test_a_new_task_ignores_the_original_of_the_file(cli, files):
    write_project(files / "resque.toml", {("model", "original"): "npz:clean.npz", ("update", "target_accuracy"): 0.9})
    code, _, err = cli(
        "forecast --model net.py:build --task npz:clean.npz --test npz:new-test.npz --recipe train-adam,max_epochs=2"
    )
    assert code == 4, err
    code, _, err = cli(
        "retrain --model net.py:build --train npz:clean.npz --new-head --test npz:new-test.npz "
        "--recipe train-adam,max_epochs=1"
    )
    assert code == 0, err


def test_a_check_refuses_what_a_command_would(files):
    with pytest.raises(SettingError, match="target accuracy"):
        check_project(Project({("update", "target_accuracy"): 1.5}))
    with pytest.raises(SettingError, match="unknown recipe"):
        check_project(Project({("update", "recipe"): "best"}))


@pytest.mark.parametrize(
    "wrong",
    ["--model none.py:build", "--model net.py:build --weights none.safetensors",
     "--model net.py:build --test npz:none.npz", "--recipe best", "--country Atlantis"],
)  # fmt: skip
def test_init_leaves_no_file_that_fails_its_check(cli, files, wrong):
    code, _, err = cli(f"init {wrong}")
    assert (code, err.count("\n")) == (1, 1)
    assert not Path("resque.toml").exists()
    assert cli("init --model net.py:build")[0] == 0


def test_init_checks_the_file_as_it_will_be_read(cli, files):
    (files / "sub").mkdir()
    code, _, err = cli("init --project sub/resque.toml --model net.py:build --test npz:new-test.npz")
    assert (code, "sub/" in err, Path("sub/resque.toml").exists()) == (1, True, False)
    code, _, err = cli("init --project sub/resque.toml --model ../net.py:build --test npz:../new-test.npz")
    assert code == 0, err


def test_init_refuses_a_profile_of_another_model(cli, files):
    assert cli("profile --model resque.networks:small_cnn --data npz:clean.npz@16px --out p.safetensors")[0] == 0
    code, _, err = cli("init --model net.py:build --original p.safetensors")
    assert (code, "profile of another model" in err) == (1, True)


def test_the_recipe_of_a_forecast_goes_before_that_of_the_file(cli, files):
    given = {
        ("model", "spec"): "net.py:build",
        ("model", "original"): "npz:clean.npz",
        ("data", "test"): "npz:new-test.npz",
    }
    given |= {("update", "recipe"): "train-sgd", ("update", "evaluate_every"): 7, ("update", "target_accuracy"): 0.9}
    write_project(files / "resque.toml", given)
    code, out, err = cli(f"forecast {LINE} --recipe train-adam,max_epochs=1 --evaluate-every 3")
    assert code == 4, err
    line = f"retrain --train npz:new.npz --shift-type inverted --forecast {json.loads(out)['id']} --json"
    code, out, err = cli(line)
    assert code == 0, err
    assert (json.loads(out)["recipe"]["optimizer"], json.loads(out)["recipe"]["evaluate_every"]) == ("adam", 3)
