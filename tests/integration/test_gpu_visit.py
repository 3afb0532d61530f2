"""The script for a GPU, rehearsed on the CPU with its smallest preset."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doubles import environment_of_a_user

ROOT = Path(__file__).parents[2]
PARTS = ("correctness", "energy", "speed", "evidence", "tables")


def visit(folder, seconds, *options):
    """Run the script; return its output and the rows of each file."""
    command = ["studies/on_gpu.sh", str(seconds), "--preset", "gpu-tiny", *options]
    command += ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
    environment = {**environment_of_a_user(), "DEVICE": "cpu", "PYTHON": sys.executable}
    environment["PYTEST_ADDOPTS"] = "-k class_sums"  # the suite runs the other device tests by itself
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((folder / "results").glob("*.jsonl"))
    return done.stdout, {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}


@pytest.fixture(scope="module")
def module():
    """The script as a module, as Python sees it in its folder."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "studies"))
        patch.setenv("DEVICE", "cpu")
        yield importlib.import_module("gpu_visit")
        for name in set(sys.modules) - before:
            if any((ROOT / place / f"{name}.py").is_file() for place in ("studies", "benchmarks")):
                del sys.modules[name]


@pytest.fixture
def visit_here(module, monkeypatch, capsys):
    """A visit in this process."""

    def call(folder, seconds, *options):
        places = ["--results", str(folder / "results"), "--cache", str(folder / "cache")]
        line = ["gpu_visit.py", "--seconds", str(seconds), "--preset", "gpu-tiny", *options, *places]
        monkeypatch.setattr(sys, "argv", line)
        assert module.main() == 0
        files = sorted((folder / "results").glob("*.jsonl"))
        rows = {file.stem: [json.loads(line) for line in file.read_text().splitlines()] for file in files}
        return capsys.readouterr().out, rows

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visit")
    return folder, *visit(folder, 300)


def test_all_parts_leave_rows_without_errors_in_order(whole):
    folder, output, rows = whole
    assert [line.split()[1].strip(",") for line in output.splitlines() if line.startswith("== ")] == list(PARTS)
    assert set(rows) == {"correctness", "energy", "speed", "small_cnn-digits"}
    assert not [row for file in rows.values() for row in file if "error" in row]
    assert (rows["correctness"][0]["tests"], rows["correctness"][0]["skipped"]) == (3, 0)
    assert [(row["seed"], row["level"]) for row in rows["small_cnn-digits"]] == [(0, 9), (0, 3), (1, 9), (1, 3)]
    machine = json.loads((folder / "results" / "machine.json").read_text())
    assert [name.split(":")[0] for name in machine] == ["cpu"]
    for table in ("energy.md", "speed.md"):
        assert "| " in (folder / "results" / table).read_text()


def test_targets_follow_the_original_model(whole):
    _, _, rows = whole
    for row in rows["small_cnn-digits"]:
        update = row["update"]
        assert update["target_accuracy"] == pytest.approx(update["original_accuracy_before"] - 0.1, abs=1e-5)
        assert {"adapted accuracy", "adapted loss"} <= set(row["scores"])


def test_what_has_a_row_is_not_made_again(whole, visit_here):
    folder, _, rows = whole
    written = {path: path.stat().st_mtime_ns for path in (folder / "results").glob("*.jsonl")}
    output, again = visit_here(folder, 300)
    assert again == rows
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert "failed" not in output


def test_nothing_starts_after_the_time_limit(tmp_path, visit_here):
    output, rows = visit_here(tmp_path, 0, "--parts", "energy", "evidence")
    assert not any(rows.values())
    assert "0 of 5 rows" in output


def test_rows_of_another_kind_of_device_are_left_alone(tmp_path, visit_here):
    machine = tmp_path / "results" / "machine.json"
    machine.parent.mkdir()
    machine.write_text('{"cuda: a card": {}}')
    with pytest.raises(SystemExit, match="has rows of cuda: a card, not of a cpu"):
        visit_here(tmp_path, 5)
    assert machine.read_text() == '{"cuda: a card": {}}'


def test_seed_whose_original_model_is_gone_is_left_as_it_is(whole, tmp_path, visit_here):
    folder, _, _ = whole
    shutil.copytree(folder / "results", tmp_path / "results")
    path = tmp_path / "results" / "small_cnn-digits.jsonl"
    path.write_text(path.read_text().split("\n")[0] + "\n")
    output, found = visit_here(tmp_path, 300, "--parts", "evidence")
    assert "seed 0: begun with an original model that is not here, so left as it is" in output
    assert [(row["seed"], row["level"]) for row in found["small_cnn-digits"]] == [(0, 9), (1, 9), (1, 3)]


@pytest.mark.parametrize("limit", ["", "soon", "1.5", "-3"])
def test_time_limit_that_is_no_number_is_one_line(limit):
    command = [ROOT / "studies" / "on_gpu.sh", *([limit] if limit else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "expected a whole number of seconds" in done.stderr
