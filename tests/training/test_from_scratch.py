"""Retraining compared with training from scratch."""

import copy
import dataclasses
import functools
import json

import pytest
import torch

from doubles import synthetic_update
from resque.errors import SettingError
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.networks import small_cnn
from resque.models.weights import fingerprint, read_weights, save_weights
from resque.training.from_scratch import ScratchComparison, compare_with_scratch
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe
from resque.training.retrain import retrain

SPEC = "resque.networks:small_cnn"


@pytest.fixture
def trained(cnn, small, meter):
    recipe = dataclasses.replace(RECIPES["train-adam"], max_epochs=3)
    retrain(cnn, RetrainingJob(*small, 0.5, recipe), meter=meter)
    return cnn


def test_both_arms_share_seeds_target_and_data(trained, small, meter):
    job = RetrainingJob(*small, 0.6, Recipe(learning_rate=5e-4, max_epochs=8, evaluate_every=1, trains="head"))
    before = fingerprint(trained)

    def run(model, own):
        return retrain(model, own, meter=meter)

    comparison = compare_with_scratch(trained, lambda seed: load_model(SPEC, seed=seed), job, [0, 1], run)
    assert fingerprint(trained) == before
    assert [update.seed for update in comparison.scratch] == [0, 1]
    assert {update.parent for update in comparison.retrained} == {before}
    assert len({before, *(update.parent for update in comparison.scratch)}) == 3
    assert all(update.from_scratch for update in comparison.scratch)
    assert not any(update.from_scratch for update in comparison.retrained)
    assert comparison.scratch[0].recipe["trains"] == "all"
    assert comparison.scratch[0].recipe["learning_rate"] == 1e-3
    assert comparison.scratch[0].recipe["max_epochs"] == 8
    steps = [a.cost.steps / b.cost.steps for a, b in zip(comparison.retrained, comparison.scratch, strict=True)]
    ratio = comparison.ratios["steps"]
    assert (ratio.low, ratio.high, ratio.n) == (min(steps), max(steps), 2)
    assert ratio.median == pytest.approx(sum(steps) / 2)
    assert comparison.ratios["carbon_kg"] is None
    assert comparison.ratios["flops"].n == 2


@pytest.mark.parametrize(
    ("retrained", "scratch", "bound"),
    [(True, True, ""), (True, False, "at most"), (False, True, "at least"), (False, False, None)],
)
def test_missed_target_makes_the_ratio_a_bound(retrained, scratch, bound):
    sides = [
        tuple(synthetic_update(f"{side}{n}", index=0.1, steps=10 * (n + side), reached=reached) for n in (1, 2))
        for side, reached in ((0, retrained), (3, scratch))
    ]
    ratio = ScratchComparison(*sides).ratios["steps"]
    assert (None if ratio is None else ratio.bound) == bound


def test_comparison_needs_a_seed(cnn, small):
    with pytest.raises(SettingError, match="expected at least one"):
        compare_with_scratch(cnn, lambda seed: cnn, RetrainingJob(*small, 0.5), [], lambda model, job: None)


LINE = (
    f"retrain --model {SPEC} --train digits@16px@train@300 --test digits@16px@test@200 --target-accuracy 0.6 "
    "--evaluate-every 1 --max-epochs 3 --recipe retrain-adam,learning_rate=0.001"
)


def test_command_compares_and_resumes(cli, folder, trained):
    save_weights(trained, folder / "w.safetensors")
    line = f"{LINE} --weights w.safetensors --from-scratch --seeds 2 --out kept --country FRA"
    code, out, err = cli(f"{line} --json")
    assert code == 0, err
    comparison = json.loads(out)
    assert [len(comparison[side]) for side in ("retrained", "scratch")] == [2, 2]
    assert comparison["ratios"]["steps"]["n"] == 2
    assert fingerprint(small_cnn()) != comparison["retrained"][0]["child"]
    model = small_cnn()
    model.load_state_dict(read_weights(folder / "kept" / "model.safetensors"))
    assert fingerprint(model) == comparison["retrained"][0]["child"]
    entries = Ledger(folder / "resque.db").updates()
    assert [entry.from_scratch for entry in entries] == [False, True, False, True]
    code, out, err = cli(f"{line} --resume --json")
    assert code == 0, err
    again = json.loads(out)
    assert (comparison.pop("folder"), again.pop("folder")) == ("kept", None)
    assert again == comparison
    assert len(Ledger(folder / "resque.db").updates()) == 4
    code, out, err = cli(f"{line} --resume")
    assert "Retraining compared with training from scratch" in out
    assert not list(folder.glob("updates/checkpoints/*"))


def test_command_shows_that_scratch_missed_the_target(cli, folder, trained):
    save_weights(trained, folder / "w.safetensors")
    code, out, err = cli(
        f"{LINE} --weights w.safetensors --from-scratch --seeds 1 "
        "--scratch-recipe train-adam,learning_rate=0.0000001 --target-accuracy 0.55"
    )
    assert code == 0, err
    assert "from scratch: target reached in 0 of 1 runs (the others stopped by max)" in out
    assert "at most" in out


def test_comparison_needs_trained_weights(cli, folder):
    code, _, err = cli(f"{LINE} --from-scratch")
    assert (code, "no trained weights to compare with scratch: name them with --weights" in err) == (1, True)
    assert not (folder / "resque.db").exists()


def test_forecasts_ignore_updates_from_scratch(trained):
    from resque.forecasting.history import ForecastQuery, history_rows
    from resque.ledger.records import Features

    query = ForecastQuery(Features(0.5, 0.1, 2.0), 0.9, ("m",), "gaussian", "p", "d", 100)
    update = synthetic_update("u", index=0.5, steps=10)
    assert len(history_rows([update], query, ["index"])) == 1
    scratch = dataclasses.replace(update, from_scratch=True)
    assert not history_rows([scratch], query, ["index"])


def test_comparison_leaves_the_model_unchanged(trained, small, meter):
    flags = [p.requires_grad for p in trained.parameters()]
    state = copy.deepcopy(trained.state_dict())
    compare_with_scratch(
        trained, lambda seed: load_model(SPEC, seed=seed), RetrainingJob(*small, 0.2), [3],
        lambda model, job: retrain(model, job, meter=meter),
    )  # fmt: skip
    assert [p.requires_grad for p in trained.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in trained.state_dict().items())


def test_comparison_that_settles_a_forecast_can_resume(cli, folder, trained):
    save_weights(trained, folder / "w.safetensors")
    ledger = Ledger(folder / "resque.db")
    for number in range(1, 7):
        past = synthetic_update(
            f"u{number}", index=0.1 * number, steps=5 * number, shift_type=f"k{number % 3}", accuracy=0.1
        )
        features = dataclasses.replace(past.features, layer="7", reduction="flatten")
        ledger.add(dataclasses.replace(past, features=features))
    weights = "--weights w.safetensors --shift-type k1"
    forecast_line = LINE.replace("retrain ", "forecast ", 1).replace("--train ", "--shifted ")
    parts = forecast_line.replace("--shifted", "--original digits@16px@train@300 --shifted")
    code, out, err = cli(f"{parts} {weights} --json")
    assert code == 4, err  # with a budget (--max-epochs), six updates of another model do not suffice
    forecast_id = json.loads(out)["id"]
    line = f"{LINE} {weights} --forecast {forecast_id} --from-scratch --seeds"
    assert cli(f"{line} 1 --json")[0] == 0
    code, out, err = cli(f"{line} 2 --resume --json")
    assert code == 0, err
    comparison = json.loads(out)
    assert [update["forecast_id"] for update in comparison["retrained"]] == [forecast_id, None]
    code, _, err = cli(f"{line} 1")
    assert (code, "settled already" in err) == (1, True)


def test_scratch_options_need_from_scratch(cli, folder):
    code, _, err = cli(f"{LINE} --seeds 5")
    assert (code, "belong to --from-scratch" in err) == (1, True)


def test_comparison_prints_itself(cnn, small, meter):
    job = RetrainingJob(*small, 0.3, RECIPES["train-adam"])
    comparison = compare_with_scratch(cnn, lambda seed: small_cnn(), job, [0], functools.partial(retrain, meter=meter))
    assert "retrained: target reached in 1 of 1 runs" in str(comparison)
    assert comparison._repr_html_().startswith("<table>")
    assert set(comparison.to_dict()) == {"retrained", "scratch"}
