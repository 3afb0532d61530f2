"""The README's commands, run as they stand; `resque demo` and what it leaves."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", README.read_text(), re.S)


def start(command: str, folder: Path) -> subprocess.Popen:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    environment.pop("RESQUE_LEDGER", None)
    script = ["bash", "-euo", "pipefail", "-c", command]
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(script, cwd=folder, env=environment, **piped)


def finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    return finish(start(command, folder))


@pytest.fixture(scope="module")
def demo_begun(tmp_path_factory):
    """The demo runs beside the walk-through: most machines have two cores."""
    folder = tmp_path_factory.mktemp("demo")
    process = start("resque demo --country DEU --json", folder)
    yield folder, process
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def walk(tmp_path_factory, demo_begun):
    """Every bash block of the README, one after the other, in one empty folder."""
    folder, outputs = tmp_path_factory.mktemp("walk"), []
    for block in BLOCKS:
        done = run(block, folder)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        outputs.append(done.stdout)
    return folder, outputs


def test_the_walk_through_ends_with_a_settled_forecast_and_a_report(walk):
    folder, outputs = walk
    assert len(outputs) == len(BLOCKS) >= 6
    assert "Forecast beside measured" in outputs[-1]
    assert "forecasts: 1, of them 1 settled and 0 waiting" in outputs[-1]
    history = json.loads(run("resque ledger list --json", folder).stdout)
    assert len(history["updates"]) == 8
    settled = [u for u in history["updates"] if u["forecast_id"]]
    assert [pair["update"] for pair in history["settled"]] == [u["id"] for u in settled]
    assert settled[0]["kind"] == "inverted"
    assert settled[0]["original_accuracy_after"] is not None
    assert settled[0]["cost"]["carbon_kg"] > 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r'(?:src|href)="(?!#)', page)
    rows = re.findall(r"<tr><td class=.l. title=[^>]*>npz.*?</tr>", page)
    assert len(rows) == 2 * len(history["updates"])
    assert sum("ram assumed" in row or "measured" in row for row in rows) == len(history["updates"])
    assert sum(">FRA<" in row for row in rows) == len(history["updates"]) - 1  # the original model: no region named


def test_an_update_leaves_a_model_and_a_profile_that_go_on(walk):
    folder, _ = walk
    (update,) = [u for u in json.loads(run("resque ledger list --json", folder).stdout)["updates"] if u["forecast_id"]]
    place = f"updates/{update['id']}"
    command = (
        f"resque dist --model net.py:build --weights {place}/model.safetensors "
        f"--original {place}/profile.safetensors --shifted npz:new.npz@test --json"
    )
    done = run(command, folder)
    assert done.returncode == 0, done.stderr
    index = json.loads(done.stdout)
    assert {
        "value",
        "unit",
        "per_class",
        "reduction",
        "layer",
        "labels",
        "n_original",
        "n_shifted",
        "interval",
        "floor",
    } <= set(index)
    assert len(index["per_class"]) == 10


def test_the_python_blocks_run(capsys):
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S):
        exec(compile(block, "README.md", "exec"), {})
    assert re.match(r"0\.\d{3} rad, floor 0\.\d{3}, layer 7\n\{0: 1, 2: 1\}\n$", capsys.readouterr().out)


@pytest.fixture(scope="module")
def demo(demo_begun):
    folder, process = demo_begun
    return folder, finish(process)


def test_the_demo_forecasts_before_it_trains_and_settles_everything(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["clean_accuracy"] > 0.97
    history = json.loads(run("resque ledger list --ledger demo-run/resque.db --json", folder).stdout)
    updates, forecasts = history["updates"], history["forecasts"]
    assert len(forecasts) == len(history["settled"]) >= 6
    begun = [u["started_utc"] for u in updates if u["forecast_id"]]
    assert max(f["created_utc"] for f in forecasts) < min(begun)
    taught = {u["train_data"] for u in updates if not u["forecast_id"]}
    asked = {f["train_data"] for f in forecasts}
    assert not taught & asked
    kinds = {u["kind"] for u in updates if not u["forecast_id"]}
    assert kinds == {"gaussian", "blur", "salt_pepper"}
    assert {f["kind"] for f in forecasts} - kinds == {"rotation"}
    steps = [u["cost"]["steps"] for u in updates if u["forecast_id"]]
    assert max(steps) >= 5 * min(steps) > 0
    assert all(None not in u["cost"].values() for u in updates)
    assert all(u["grid"]["region"] == "DEU" and u["energy"]["methods"] for u in updates)
    assert all(u["original_accuracy_after"] is not None for u in updates)


def test_the_demo_says_whether_the_index_won(demo):
    facts = json.loads(demo[1].stdout)
    best = facts["settlement"]["scores"][0]["predictor"]
    assert {s["predictor"] for s in facts["settlement"]["scores"]} == {
        "index", "accuracy drop", "initial loss", "constant median",
    }  # fmt: skip
    assert ("did not win" in facts["verdict"]) == (best != "index")
    assert facts["settlement"]["asking_kwh"] > 0


def test_the_demo_refuses_a_folder_that_holds_a_ledger(demo):
    again = run("resque demo", demo[0])
    assert again.returncode == 1
    assert re.fullmatch(r"resque: demo-run holds a ledger already: name another folder.*\n", again.stderr)
