"""The README's commands, run as they stand."""

import json
import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```bash\n(.*?)```", README.read_text(), re.S)


@pytest.fixture(scope="module")
def walk(tmp_path_factory, warm_shell):
    """Every bash block of the README, one after the other, in one empty folder."""
    folder, outputs = tmp_path_factory.mktemp("walk"), []
    for block in BLOCKS:
        done = warm_shell(block, folder)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        outputs.append(done.stdout)
    return folder, outputs


def test_the_walk_through_ends_with_a_settled_forecast_and_a_report(walk, warm_shell):
    folder, outputs = walk
    assert len(outputs) == len(BLOCKS) >= 6
    assert "Forecast beside measured" in outputs[-1]
    assert "forecasts: 1, of them 1 settled and 0 waiting" in outputs[-1]
    history = json.loads(warm_shell("resque ledger list --json", folder).stdout)
    assert len(history["updates"]) == 8
    settled = [u for u in history["updates"] if u["forecast_id"]]
    assert [pair["update"] for pair in history["settled"]] == [u["id"] for u in settled]
    assert settled[0]["shift_type"] == "inverted"
    assert settled[0]["original_accuracy_after"] is not None
    assert settled[0]["cost"]["carbon_kg"] > 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 4
    assert not re.search(r'(?:src|href)="(?!#)', page)
    rows = re.findall(r"<tr><td class=.l. title=[^>]*>npz.*?</tr>", page)
    assert len(rows) == 2 * len(history["updates"])
    assert sum("ram assumed" in row or "measured" in row for row in rows) == len(history["updates"])
    assert sum(">FRA<" in row for row in rows) == len(history["updates"]) - 1  # the original model: no region named


def test_an_update_leaves_a_model_and_a_profile_that_go_on(walk, warm_shell):
    folder, _ = walk
    (update,) = [
        u for u in json.loads(warm_shell("resque ledger list --json", folder).stdout)["updates"] if u["forecast_id"]
    ]
    place = f"updates/{update['id']}"
    command = (
        f"resque dist --model net.py:build --weights {place}/model.safetensors "
        f"--original {place}/profile.safetensors --shifted npz:new.npz@test --json"
    )
    done = warm_shell(command, folder)
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


def test_the_python_blocks_run(capsys, folder):
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S):
        exec(compile(block, "README.md", "exec"), {})
    said = [r"0\.\d{3} rad, floor 0\.\d{3}, layer 7\n", r"\{0: 1, 2: 1\}\n", r"(.* with the cost, n = \d+\n){14}"]
    said.append(r"80 steps, accuracy 0\.\d\d\n$")
    assert re.match("".join(said), capsys.readouterr().out)
