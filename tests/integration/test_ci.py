"""The gate as a CI job calls it: real model and command line, exit codes, JSON, step summary; the how-to page of it."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from doubles import ReplayMeter, synthetic_update
from resque.data.loading import load_data
from resque.indices.compute_profile import profile
from resque.indices.shift_features import shift_features
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.weights import fingerprint, save_weights
from resque.training.job import RetrainingJob
from resque.training.recipe import named_recipe, recipe_to_dict
from resque.training.retrain import retrain

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "ci-gate.md").read_text()
SPEC = "resque.networks:small_cnn"
SOURCE = "digits@16px@train@600"
TEST = "digits@16px@test@200"
RECIPE = "train-adam,max_epochs=20"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``(folder, line)``: model, profile and a ledger of twelve updates like the one that the line asks about."""
    folder = tmp_path_factory.mktemp("ci")
    model, recipe, clean = load_model(SPEC, seed=0), named_recipe(RECIPE), load_data(SOURCE)
    retrain(model, RetrainingJob(clean, load_data(TEST), 0.8, recipe), meter=ReplayMeter())
    save_weights(model, folder / "w.safetensors")
    original = profile(model, clean.batches(), preprocessing=clean.preprocessing)
    original.save(folder / "p.safetensors")
    job = RetrainingJob(load_data(f"{SOURCE}+gaussian:4"), load_data(f"{TEST}+gaussian:4"), 0.9, recipe)
    known = shift_features(model, job, original)[0]
    for number, easier in enumerate(np.linspace(-0.1, 0.1, 12)):
        scores = {name: value + float(easier) for name, value in known.scores.items()}
        features = dataclasses.replace(known, accuracy=known.accuracy + float(easier), scores=scores)
        steps = round(60 * np.exp(-4 * easier))
        past = synthetic_update(f"u{number}", index=0.0, steps=steps, accuracy=features.accuracy)
        past = dataclasses.replace(
            past, features=features, recipe=recipe_to_dict(recipe), train_data=f"d+gaussian:{number}"
        )
        past = dataclasses.replace(past, model=SPEC, parent=fingerprint(model))
        Ledger(folder / "resque.db").add(past)
    line = f"forecast --model {SPEC} --weights w.safetensors --original p.safetensors --target-accuracy 0.9"
    return folder, f"{line} --recipe {RECIPE} --shifted {SOURCE}+gaussian:4 --test {TEST}+gaussian:4"


@pytest.fixture
def gate(place, cli, monkeypatch):
    """``gate(options) -> (exit code, stdout, stderr, what a GitHub job's step summary then holds)``."""
    folder, line = place
    monkeypatch.chdir(folder)
    page = folder / "summary.md"
    page.write_text("# The job\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))

    def call(options, instead=line):
        return *cli(f"{instead} {options}"), page.read_text()

    return call


def test_without_a_budget_there_is_no_gate_and_within_it_the_job_goes_on(gate):
    code, out, _, page = gate("--json")
    made = json.loads(out)
    assert (code, made["gate"], made["reliability_issues"], page) == (0, None, [], "# The job\n")
    budget = 10 * made["estimates"]["energy_kwh"]["upper"]
    code, out, err, page = gate(f"--max-kwh {budget} --json")
    assert code == 0, err
    made = json.loads(out)
    assert (made["gate"]["code"], made["gate"]["reasons"]) == (0, [])
    ((cost, value, limit, unit),) = made["gate"]["held"]
    assert (cost, limit, unit) == ("energy_kwh", budget, "kWh")
    assert value == made["estimates"]["energy_kwh"]["upper"] < limit
    assert page.startswith("# The job\n### Update forecast: within budget\n")
    assert f"forecast `{made['id']}`" in page
    assert page.count("\n| energy |") == 1


def test_beyond_its_budget_the_job_fails_with_3(gate):
    code, out, err, page = gate("--max-kwh 1e-12 --max-hours 100 --json")
    assert code == 3, err
    made = json.loads(out)
    assert made["gate"]["code"] == 3
    (reason,) = made["gate"]["reasons"]
    assert reason.startswith("the upper bound on energy at ")
    assert "### Update forecast: beyond budget" in page
    assert f"- {reason}" in page
    code, out, _, _ = gate("--max-kwh 1e-12")
    assert (code, "Budget decision: beyond budget" in out, "the upper bound on energy" in out) == (3, True, True)


def test_what_cannot_be_told_asks_a_human_with_4(gate, place):
    code, out, _, page = gate("--max-kg 1 --json")
    made = json.loads(out)
    assert (code, made["gate"]["code"], made["gate"]["held"]) == (4, 4, [])
    assert "--max-kg is given, but the forecast has no CO2e" in made["gate"]["reasons"][0]
    assert "### Update forecast: not reliable enough to decide" in page
    assert gate("--max-kg 1 --country FRA")[0] == 0


def test_what_lies_outside_the_history_goes_before_what_is_too_dear(gate, place):
    code, out, _, page = gate("--max-kwh 1e-12 --json", instead=place[1].replace("gaussian:4", "salt_pepper:9"))
    assert (code, json.loads(out)["gate"]["code"]) == (4, 4)
    assert re.search("extrapolation: .* harder than all own updates", page)
    out = gate("--max-kwh 1e-12", instead=place[1].replace("gaussian:4", "salt_pepper:9"))[1]
    assert " ".join(out.split()).count("harder than all own updates") == 1


def test_too_little_history_is_in_the_summary_too(gate):
    code, out, err, page = gate("--max-kwh 1 --ledger none.db --no-prior --json")
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "### Update forecast: not reliable enough to decide" in page
    assert f"- {err.removeprefix('resque: ').strip()}\n" in page


def test_a_summary_that_cannot_be_written_is_one_line(gate, folder):
    code, _, err, _ = gate(f"--max-kwh 1 --summary {folder}")
    assert code == 1
    assert err.endswith("name another with --summary\n")


def test_the_documented_workflows_name_options_that_there_are(cli):
    known = {command: set(re.findall(r"--[a-z-]+", cli(f"{command} --help")[1])) for command in ("forecast", "retrain")}
    common = set(re.findall(r"--[a-z-]+", " ".join(re.findall(r"JOB: >-\n((?: +--.*\n)+)", PAGE))))
    assert len(common) == 7
    for command, options in known.items():
        lines = re.findall(rf"resque {command} \$JOB((?:.*\\\n)*.*)", PAGE)
        assert len(lines) == 2
        assert common | set(re.findall(r"--[a-z-]+", " ".join(lines))) <= options
    others = set(re.findall(r"`(--[a-z-]+)", PAGE))
    assert others <= known["forecast"] | known["retrain"]


@pytest.mark.parametrize(
    ("code", "ends", "said"), [(0, 0, True), (3, 3, True), (4, 0, True), (4, 0, False), (1, 1, False)]
)
def test_the_documented_gate_fails_on_3_and_hands_4_on(folder, code, ends, said):
    yaml = pytest.importorskip("yaml")
    workflow, gitlab = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))
    assert gitlab["forecast"]["allow_failure"] == {"exit_codes": 4}
    (step,) = (step for step in workflow["jobs"]["forecast"]["steps"] if step.get("id") == "gate")
    answer = """echo '{"id": "abc"}';""" if said else ""
    script = f'resque() {{ {answer} return {code}; }}\npython() {{ {sys.executable} "$@"; }}\n{step["run"]}'
    environment = {"GITHUB_OUTPUT": "out", "GITHUB_STEP_SUMMARY": "page", "JOB": workflow["env"]["JOB"]}
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], env=environment, check=False)
    assert done.returncode == ends
    assert Path("out").read_text() == f"code={code}\n" + "id=abc\n" * said
