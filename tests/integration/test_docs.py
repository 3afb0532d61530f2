"""The documentation and the project's habits agree with the code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint_commands() -> list[str]:
    rule = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in rule[1].splitlines()]


def test_pre_commit_runs_what_make_lint_runs_and_fetches_nothing():
    yaml = pytest.importorskip("yaml")
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"] for hook in repository["hooks"]] == lint_commands()
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])
