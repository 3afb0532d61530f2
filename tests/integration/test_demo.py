"""`resque demo` and what it leaves."""

import json
import re

import pytest

from doubles import shell
from resque.forecasting.predictors import PREDICTORS

OF_TASKS = ("task index", "warm-up gap", "warm-up k-NN")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, shell("resque demo --country DEU --json", folder)


def test_the_demo_forecasts_before_it_trains_and_settles_everything(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["clean_accuracy"] > 0.97
    history = json.loads(shell("resque ledger list --ledger demo-run/resque.db --json", folder).stdout)
    updates, forecasts = history["updates"], history["forecasts"]
    assert len(forecasts) == len(history["settled"]) >= 6
    begun = [u["started_utc"] for u in updates if u["forecast_id"]]
    assert max(f["created_utc"] for f in forecasts) < min(begun)
    taught = {u["train_data"] for u in updates if not u["forecast_id"]}
    asked = {f["train_data"] for f in forecasts}
    assert not taught & asked
    kinds = {u["shift_type"] for u in updates if not u["forecast_id"]}
    assert kinds == {"gaussian", "blur", "salt_pepper"}
    assert {f["shift_type"] for f in forecasts} - kinds == {"rotation"}
    steps = [u["cost"]["steps"] for u in updates if u["forecast_id"]]
    assert max(steps) >= 5 * min(steps) > 0
    assert all(None not in u["cost"].values() for u in updates)
    assert all(u["grid"]["region"] == "DEU" and u["energy"]["methods"] for u in updates)
    assert all(u["original_accuracy_after"] is not None for u in updates)


def test_one_entry_is_shown_and_all_that_were_settled(demo):
    folder, _ = demo
    ask = "resque ledger {} --ledger demo-run/resque.db"
    settled = json.loads(shell(ask.format("settle --json"), folder).stdout)
    assert settled["n"] == settled["probability_score"]["n"] == len(settled["settled"]) >= 6
    assert settled["probability_score"]["mean_probability"] <= 1.0
    for which in ("forecast", "update"):
        name = settled["settled"][0][which]
        both = json.loads(shell(ask.format(f"show {name[:8]} --json"), folder).stdout)
        assert {both["forecast"]["id"], both["update"]["id"]} == set(settled["settled"][0].values())
        assert "probability of reaching the target" in shell(ask.format(f"show {name}"), folder).stdout
    assert settled["verdict"] in " ".join(shell(ask.format("settle"), folder).stdout.split())
    missing = shell(ask.format("show zz"), folder)
    assert (missing.returncode, "0 entries" in missing.stderr) == (1, True)


def test_the_demo_says_whether_the_index_won(demo):
    facts = json.loads(demo[1].stdout)
    factors = {s["predictor"]: s["median_factor"] for s in facts["settlement"]["scores"]}
    apart = *OF_TASKS, "sampled index"  # which stands for the index with --precision
    assert set(factors) == {"forecast", *(name for name in PREDICTORS if name not in apart), "constant median"}
    assert f"The median error of the RESQUE index alone is a factor of {factors['index']:.1f}" in facts["verdict"]
    assert f"is a factor of {factors['forecast']:.1f} in training steps" in facts["verdict"]
    assert facts["settlement"]["overhead_kwh"] > 0


def test_the_demo_refuses_a_folder_that_holds_a_ledger(demo, cli, monkeypatch):
    monkeypatch.chdir(demo[0])
    code, _, err = cli("demo")
    assert code == 1
    assert re.fullmatch(r"resque: demo-run holds a ledger already: name another folder.*\n", err)
