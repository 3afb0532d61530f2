"""Retraining beside training from scratch; what becomes of an update: its files, its line, its entry."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn

from doubles import synthetic_update
from resque.errors import ModelError, ResqueWarning, SettingError
from resque.indices.compute_profile import profile
from resque.indices.distribution import mean_angle
from resque.indices.profile import Profile
from resque.ledger.store import Ledger
from resque.models.loading import fresh_model, load_model
from resque.models.networks import small_cnn
from resque.models.weights import fingerprint, read_weights, save_weights
from resque.training.from_scratch import ScratchComparison, compare_with_scratch
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES, Recipe
from resque.training.retrain import retrain
from resque.workflows.artifacts import Lineage, save_update

SPEC = "resque.networks:small_cnn"


@pytest.fixture
def learned(cnn, small, meter):
    recipe = dataclasses.replace(RECIPES["train-adam"], max_epochs=3)
    retrain(cnn, RetrainingJob(*small, 0.5, recipe), meter=meter)
    return cnn


def test_the_same_seeds_target_and_data_and_every_cost_as_a_ratio(learned, small, meter):
    job = RetrainingJob(*small, 0.6, Recipe(learning_rate=5e-4, max_epochs=8, evaluate_every=1, trains="head"))
    before = fingerprint(learned)

    def run(model, own):
        return retrain(model, own, meter=meter)

    found = compare_with_scratch(learned, lambda seed: load_model(SPEC, seed=seed), job, [0, 1], run)
    assert fingerprint(learned) == before
    assert [update.seed for update in found.scratch] == [0, 1]
    assert {update.parent for update in found.retrained} == {before}
    assert len({before, *(update.parent for update in found.scratch)}) == 3
    assert all(update.from_scratch for update in found.scratch)
    assert not any(update.from_scratch for update in found.retrained)
    assert found.scratch[0].recipe["trains"] == "all"
    assert found.scratch[0].recipe["learning_rate"] == 1e-3
    assert found.scratch[0].recipe["max_epochs"] == 8
    steps = [a.cost.steps / b.cost.steps for a, b in zip(found.retrained, found.scratch, strict=True)]
    ratio = found.ratios["steps"]
    assert (ratio.low, ratio.high, ratio.n) == (min(steps), max(steps), 2)
    assert ratio.median == pytest.approx(sum(steps) / 2)
    assert found.ratios["carbon_kg"] is None
    assert found.ratios["flops"].n == 2


@pytest.mark.parametrize(
    ("mine", "theirs", "bound"),
    [(True, True, ""), (True, False, "at most"), (False, True, "at least"), (False, False, None)],
)
def test_a_target_that_was_missed_leaves_a_bound(mine, theirs, bound):
    sides = [
        tuple(synthetic_update(f"{side}{n}", index=0.1, steps=10 * (n + side), reached=reached) for n in (1, 2))
        for side, reached in ((0, mine), (3, theirs))
    ]
    ratio = ScratchComparison(*sides).ratios["steps"]
    assert (None if ratio is None else ratio.bound) == bound


def test_no_seed_is_refused(cnn, small):
    with pytest.raises(SettingError, match="expected at least one"):
        compare_with_scratch(cnn, lambda seed: cnn, RetrainingJob(*small, 0.5), [], lambda model, job: None)


def test_fresh_weights_are_random_and_of_the_same_form(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build(num_classes=3): return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))\n"
        "def fixed():\n    model = build()\n    for p in model.parameters(): nn.init.ones_(p)\n    return model\n"
        "def other(): return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 3))\n"
    )
    like = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    made = [fresh_model(f"{tmp_path}/net.py:build", like, seed) for seed in (0, 0, 1)]
    assert made[0][1].out_features == 5
    assert fingerprint(made[0]) == fingerprint(made[1]) != fingerprint(made[2])
    with pytest.raises(ModelError, match="the same weights whatever the seed"):
        fresh_model(f"{tmp_path}/net.py:fixed", like)
    with pytest.raises(ModelError, match="another architecture"):
        fresh_model(f"{tmp_path}/net.py:other", like)


def test_fresh_weights_of_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    config.num_labels = 3
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    trained = load_model(f"hf:{tmp_path / 'vit'}", classes=4)
    made = [fresh_model(f"hf:{tmp_path / 'vit'}", trained, seed) for seed in (0, 1)]
    assert len({fingerprint(model) for model in (trained, *made)}) == 3
    assert made[0].config.num_labels == 4


def test_an_update_is_kept_with_its_place_in_the_line(tmp_path, learned, small, meter):
    def passed(model):
        return profile(model, small[0].batches(), preprocessing=small[0].preprocessing)

    ledger, job = Ledger(tmp_path / "h.db"), RetrainingJob(*small, 0.99, Recipe(fixed_epochs=1))
    line, first, kept = Lineage.of(passed(learned)), passed(learned), []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        update = retrain(learned, dataclasses.replace(job, seed=seed), meter=meter)
        kept.append(save_update(update, learned, folder, ledger, line, lambda: passed(learned)))
        line = Lineage.of(Profile.load(folder / "profile.safetensors"), folder / "profile.safetensors")
    assert ledger.updates() == kept
    assert Profile.load(tmp_path / "1" / "origin.safetensors").origin == first.origin
    assert kept[0].angle_to_parent_rad == kept[0].angle_to_root_rad > 0
    assert kept[1].angle_to_root_rad == pytest.approx(mean_angle(first, passed(learned)))
    assert kept[1].angle_to_parent_rad != kept[1].angle_to_root_rad
    assert kept[1].parent == kept[0].child


def test_an_entry_is_there_even_if_its_files_are_not(tmp_path, cnn):
    ledger = Ledger(tmp_path / "h.db")
    with pytest.raises(ModelError, match="broken"):
        save_update(synthetic_update("u", index=0.1, steps=5), cnn, tmp_path / "f", ledger, Lineage(), broken)
    assert [update.id for update in ledger.updates()] == ["u"]


def test_an_interruption_leaves_no_entry_without_its_files(tmp_path, cnn):
    def interrupted():
        raise KeyboardInterrupt

    ledger = Ledger(tmp_path / "h.db")
    with pytest.raises(KeyboardInterrupt):
        save_update(synthetic_update("u", index=0.1, steps=5), cnn, tmp_path / "f", ledger, Lineage(), interrupted)
    assert not ledger.updates()


def broken():
    raise ModelError("broken")


def test_a_diverged_model_has_no_profile(tmp_path, cnn):
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=5, reached=False), stopped_by="diverged")
    with pytest.warns(ResqueWarning, match="no profile"):
        save_update(update, cnn, tmp_path / "f", Ledger(tmp_path / "h.db"), Lineage(), broken)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["model.safetensors"]


def test_models_of_other_layers_have_no_distance():
    one = Profile.from_arrays([[1.0, 0.0]], [0])
    assert mean_angle(one, Profile.from_arrays([[1.0, 0.0, 0.0]], [0])) is None
    assert mean_angle(one, Profile.from_arrays([[1.0, 0.0]], [1])) is None
    assert mean_angle(one, one) == 0.0


LINE = (
    f"retrain --model {SPEC} --train digits@16px@train@300 --test digits@16px@test@200 --target-accuracy 0.6 "
    "--evaluate-every 1 --max-epochs 3 --recipe retrain-adam,learning_rate=0.001"
)


def test_the_command_line_compares_and_goes_on(cli, folder, learned):
    save_weights(learned, folder / "w.safetensors")
    line = f"{LINE} --weights w.safetensors --from-scratch --seeds 2 --out kept --country FRA"
    code, out, err = cli(f"{line} --json")
    assert code == 0, err
    found = json.loads(out)
    assert [len(found[side]) for side in ("retrained", "scratch")] == [2, 2]
    assert found["ratios"]["steps"]["n"] == 2
    assert fingerprint(small_cnn()) != found["retrained"][0]["child"]
    model = small_cnn()
    model.load_state_dict(read_weights(folder / "kept" / "model.safetensors"))
    assert fingerprint(model) == found["retrained"][0]["child"]
    entries = Ledger(folder / "resque.db").updates()
    assert [entry.from_scratch for entry in entries] == [False, True, False, True]
    code, out, err = cli(f"{line} --resume --json")
    assert code == 0, err
    again = json.loads(out)
    assert (found.pop("folder"), again.pop("folder")) == ("kept", None)
    assert again == found
    assert len(Ledger(folder / "resque.db").updates()) == 4
    code, out, err = cli(f"{line} --resume")
    assert "Retraining beside training from scratch" in out
    assert not list(folder.glob("updates/checkpoints/*"))


def test_a_target_that_scratch_never_reaches_is_said_so(cli, folder, learned):
    save_weights(learned, folder / "w.safetensors")
    code, out, err = cli(
        f"{LINE} --weights w.safetensors --from-scratch --seeds 1 "
        "--scratch-recipe train-adam,learning_rate=0.0000001 --target-accuracy 0.55"
    )
    assert code == 0, err
    assert "from scratch: target reached in 0 of 1 runs, never ended by max" in out
    assert "at most" in out


def test_a_model_without_trained_weights_has_nothing_to_compare(cli, folder):
    code, _, err = cli(f"{LINE} --from-scratch")
    assert (code, "no trained weights to compare with scratch: name them with --weights" in err) == (1, True)
    assert not (folder / "resque.db").exists()


def test_history_from_scratch_teaches_a_forecast_nothing(learned):
    from resque.forecasting.history import ForecastQuery, history_rows
    from resque.ledger.records import Features

    query = ForecastQuery(Features(0.5, 0.1, 2.0), 0.9, ("m",), "gaussian", "p", "d", 100)
    update = synthetic_update("u", index=0.5, steps=10)
    assert len(history_rows([update], "steps", query, ["index"])) == 1
    scratch = dataclasses.replace(update, from_scratch=True)
    assert not history_rows([scratch], "steps", query, ["index"])


def test_the_callers_model_is_as_it_was(learned, small, meter):
    flags = [p.requires_grad for p in learned.parameters()]
    state = copy.deepcopy(learned.state_dict())
    compare_with_scratch(
        learned, lambda seed: load_model(SPEC, seed=seed), RetrainingJob(*small, 0.2), [3],
        lambda model, job: retrain(model, job, meter=meter),
    )  # fmt: skip
    assert [p.requires_grad for p in learned.parameters()] == flags
    assert all(torch.equal(value, state[name]) for name, value in learned.state_dict().items())


def test_a_comparison_that_settles_a_forecast_can_go_on(cli, folder, learned):
    save_weights(learned, folder / "w.safetensors")
    ledger = Ledger(folder / "resque.db")
    for number in range(1, 7):
        past = synthetic_update(
            f"u{number}", index=0.1 * number, steps=5 * number, shift_type=f"k{number % 3}", accuracy=0.1
        )
        features = dataclasses.replace(past.features, layer="7", reduction="flatten")
        ledger.add(dataclasses.replace(past, features=features))
    weights = "--weights w.safetensors --shift-type k1"
    asked = LINE.replace("retrain ", "forecast ", 1).replace("--train ", "--shifted ")
    parts = asked.replace("--shifted", "--original digits@16px@train@300 --shifted")
    code, out, err = cli(f"{parts} {weights} --json")
    assert code == 4, err  # --max-epochs is a budget, and nobody should decide by six updates of another model
    made = json.loads(out)["id"]
    line = f"{LINE} {weights} --forecast {made} --from-scratch --seeds"
    assert cli(f"{line} 1 --json")[0] == 0
    code, out, err = cli(f"{line} 2 --resume --json")
    assert code == 0, err
    found = json.loads(out)
    assert [update["forecast_id"] for update in found["retrained"]] == [made, None]
    code, _, err = cli(f"{line} 1")
    assert (code, "settled already" in err) == (1, True)


def test_options_that_mean_nothing_are_refused(cli, folder):
    code, _, err = cli(f"{LINE} --seeds 5")
    assert (code, "belong to --from-scratch" in err) == (1, True)
