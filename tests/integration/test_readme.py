"""The commands and the Python blocks of README, tutorial and how-to pages run as they stand."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
PAGES = [README, *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


@pytest.fixture(scope="module")
def walk(tmp_path_factory, warm_shell):
    """Every shell block of the tutorial, one after the other, in one empty folder."""
    folder, outputs = tmp_path_factory.mktemp("walk"), []
    for block in blocks(TUTORIAL, "bash"):
        done = warm_shell(block, folder)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        outputs.append(done.stdout)
    return folder, outputs


def test_tutorial_ends_with_a_settled_forecast_and_a_report(walk, warm_shell):
    folder, outputs = walk
    assert len(outputs) >= 6
    assert "Forecast and measured" in outputs[-1]
    assert "1 forecast: 1 settled, 0 pending" in outputs[-1]
    history = json.loads(warm_shell("resque ledger list --json", folder).stdout)
    assert len(history["updates"]) == 8
    settled = [u for u in history["updates"] if u["forecast_id"]]
    assert [pair["update"] for pair in history["settled"]] == [u["id"] for u in settled]
    assert settled[0]["shift_type"] == "inverted"
    assert settled[0]["original_accuracy_after"] is not None
    assert settled[0]["cost"]["carbon_kg"] > 0
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 3  # one settled forecast is a row of a table, and no plot
    assert not re.search(r'(?:src|href)="(?!#|data:image/png;base64,)', page)
    rows = re.findall(r"<tr><td class=.l.>npz.*?</tr>", page[page.index("Every update") :])
    assert len(rows) == 2 * len(history["updates"])
    assert sum("ram assumed" in row or "measured" in row for row in rows) == len(history["updates"])
    assert sum(">FRA<" in row for row in rows) == len(history["updates"]) - 1  # the original model: no region named


def test_updated_model_and_profile_start_the_next_update(walk, warm_shell):
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
    fields = "value unit per_class reduction layer labels n_original n_shifted interval floor"
    assert set(fields.split()) <= set(index)
    assert len(index["per_class"]) == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page, folder):
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_shell_blocks_of_a_how_to_page_run(page, folder, warm_shell):
    for block in blocks(page, "bash"):
        done = warm_shell(block, folder)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
