"""``resque compare --extend``: ways to add classes, with old data and without, and what each keeps of the old ones."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

import resque
from doubles import ReplayMeter
from resque.data.loading import load_data
from resque.errors import DataError, SettingError
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT
from resque.ledger.components import MEASURED
from resque.ledger.store import Ledger
from resque.training.evaluation import evaluate_dataset

pytestmark = pytest.mark.filterwarnings("ignore::resque.errors.ResqueWarning")
NET = """from torch import nn
def build(num_classes=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, num_classes))
"""
RECIPE = "retrain-adam,learning_rate=0.003,max_epochs=2,evaluate_every=8"
OLD, NEW, ALL = "old", "new", "all"
CLASSES = {OLD: range(5), NEW: range(5, 10), ALL: range(10)}


@pytest.fixture(scope="session")
def digits_by_class():
    digits, found = load_data("digits"), {}
    for (name, classes), part in itertools.product(CLASSES.items(), ("train", "test")):
        data = digits.part(part)
        rows = torch.isin(data.labels, torch.tensor(classes)).nonzero()[:160, 0]
        images = np.rint(255 * next(data.take(rows).batches(len(rows)))[0][:, 0].numpy()).astype(np.uint8)
        found[f"{name}-{part}"] = images, data.labels[rows].numpy()
    return found


@pytest.fixture(scope="session")
def old_weights(tmp_path_factory, digits_by_class):
    """Weights of a net that knows the digits below five."""
    place = tmp_path_factory.mktemp("old")
    (place / "net.py").write_text(NET)
    images, labels = digits_by_class["old-train"]
    recipe = "train-adam,learning_rate=0.003,fixed_epochs=8,max_epochs=8"
    resque.update(f"{place}/net.py:build", (images, labels), (images, labels), 1.0, recipe=recipe, out=place / "first",
                  ledger=place / "first.db", meter=ReplayMeter())  # fmt: skip
    return place / "first/model.safetensors"


@pytest.fixture
def files(folder, digits_by_class, old_weights):
    (folder / "net.py").write_text(NET)
    (folder / "w.safetensors").symlink_to(old_weights)
    for name, (images, labels) in digits_by_class.items():
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    return folder


@pytest.fixture
def few(few_bundled, monkeypatch):
    """A part of the bundled history, and short pilots."""
    monkeypatch.setattr("resque.workflows.comparing._ROUNDS", (4, 8))


WEIGHTS = resque.ModelOptions(weights="w.safetensors")
SHARED = {"ledger": "c.db", "meter": ReplayMeter(), "options": WEIGHTS}
PLAIN = {("head", 0.0), ("all", 0.0), ("lora", 0.0)}


@pytest.fixture
def compare(few, files):
    def call(test=NEW, **given):
        asked = {"extend": True, "recipe": RECIPE, **SHARED, **given}
        return resque.compare("net.py:build", "npz:new-train.npz", f"npz:{test}-test.npz", 0.9999, **asked)

    return call


def rows_of(made):
    return {(each.rung, round(each.recipe["replay"], 3)) for each in made.options}


@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("test", [NEW, OLD, ALL])
def test_rows_with_and_without_old_data(compare, test, share):
    """Without old data a test of old classes is out of reach; from scratch needs them all."""
    given = {} if share == 0.2 else {"recipe": f"{RECIPE},replay={share}"}
    made = compare(test, original="npz:old-train.npz", max_minutes=0.0, **given)
    mixed = {("head", share), ("all", share), ("lora", share), ("scratch", 0.5)}
    assert rows_of(made) == (mixed | PLAIN if test == NEW else mixed)
    assert any("ways without old data are left out" in note for note in made.notes) == (test != NEW)
    assert not [note for note in made.notes if "not compared" in note]
    rates = [each.recipe for each in made.options if " rate" in each.name]
    assert [each["replay"] for each in rates] == [share, share][: len(rates)]


def test_without_old_data_the_risk_is_told_and_nothing_starts_from_scratch(compare):
    made = compare(max_minutes=0.0)
    assert rows_of(made) == PLAIN
    assert any("none of the 5 old classes, which will probably be forgotten" in note for note in made.notes)
    with pytest.raises(DataError, match="replay some"):
        compare(ALL)


@pytest.mark.parametrize(("rung", "replay"), [("head", 0.2), ("all", 0.0), ("all", 0.2), ("scratch", 0.5)])
def test_each_row_is_a_forecast_that_an_update_carries_out(compare, rung, replay):
    made = compare(original="npz:old-train.npz", original_test="npz:old-test.npz")
    row = next(each for each in made.options if (each.rung, each.recipe["replay"]) == (rung, replay))
    stored = Ledger("c.db").forecast(row.id)
    assert stored.shift_type == "extension"
    done = resque.update(
        "net.py:build", "npz:new-train.npz", "npz:new-test.npz", 0.9999, forecast=row.id, out="new",
        original_test="npz:old-test.npz",
        **SHARED | ({"options": resque.ModelOptions()} if rung == "scratch" else {}),
    )  # fmt: skip
    assert (done.forecast_id, dict(done.recipe), done.parent) == (row.id, dict(row.recipe), stored.parent)
    assert done.pilot_steps == (0 if stored.pilot is None else stored.pilot.steps)
    if row.how_known == MEASURED:
        assert (row.original_known, row.original_accuracy) == (MEASURED, done.original_accuracy_after)


def test_what_each_way_keeps_of_the_old_classes_is_measured(compare):
    """Before, it is the accuracy of the model as it was; then that of all outputs after the pilot."""
    made = compare(original="npz:old-train.npz", original_test="npz:old-test.npz")
    model, old = resque.load_model("net.py:build", "w.safetensors"), load_data("npz:old-test.npz")
    assert made.original_accuracy == evaluate_dataset(model, old)[0] > 0.8
    known = [each for each in made.options if each.how_known != BY_HISTORY]
    assert len(known) > 1
    for each in made.options:
        assert (each.original_accuracy is None) == (each.how_known == BY_HISTORY)
        assert each.original_known == (None if each.how_known == BY_HISTORY else each.how_known)


@pytest.mark.parametrize(("replay", "pilots"), list(itertools.product([0.0, 0.2], [0.0, 5.0])))
def test_what_is_not_measured_is_expected_of_earlier_updates(compare, replay, pilots):
    done = resque.update(
        "net.py:build", "npz:new-train.npz", "npz:new-test.npz", 0.9999,
        recipe=f"{RECIPE},replay={replay},weight_decay=0",  # another way than those that are compared
        original="npz:old-train.npz" if replay else None, original_test="npz:old-test.npz", extend=True, out="new",
        **SHARED,
    )  # fmt: skip
    made = compare(original="npz:old-train.npz", original_test="npz:old-test.npz", max_minutes=pilots)
    for each in made.options:
        is_alike = each.rung == "all" and bool(each.recipe["replay"]) == bool(replay)
        if each.how_known == BY_HISTORY:
            assert each.original_known == (BY_HISTORY if is_alike else None)
            assert each.original_accuracy == (pytest.approx(done.original_accuracy_after) if is_alike else None)
        else:
            assert each.original_known in (MEASURED, BY_PILOT)
    if pilots == 0.0:
        assert "earlier updates" in str(made)
        assert f"~{done.original_accuracy_after:.2f}" in str(made)


def test_the_sentence_names_the_way_that_keeps_the_old_classes(compare):
    made = compare(NEW, original="npz:old-train.npz", original_test="npz:old-test.npz")
    plain = next(each for each in made.options if each.rung == "all" and not each.recipe["replay"])
    mixed = next(each for each in made.options if each.rung == "all" and each.recipe["replay"])
    for kept, by in itertools.product((0.0, 0.5, 0.9), (MEASURED, BY_PILOT, BY_HISTORY)):
        lossy = dataclasses.replace(plain, original_accuracy=0.1, original_known=by, chance=1.0)
        keeping = dataclasses.replace(mixed, original_accuracy=kept, original_known=BY_PILOT, chance=0.9)
        shown = dataclasses.replace(made, options=(lossy, keeping), best=lossy.id, original_accuracy=0.95)
        says = shown.recommendation
        assert "85 points on the original data" in says
        assert (f"“{mixed.name}” keeps ~{kept:.2f} at the end of its pilot" in says) == (kept > 0.12)
        assert ("replay=0.2" in says) == (kept <= 0.12)
        assert all(len(line) <= 80 for line in str(shown).splitlines())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"new_task": True}, "choose one"),
        ({"original": "p.safetensors"}, "which a profile does not hold"),
        ({"recipe": f"{RECIPE},replay=0.2"}, "name them, not their profile"),
    ],
)
def test_what_contradicts_an_extension_is_refused(compare, given, says):
    with pytest.raises(SettingError, match=says):
        compare(**given)


@pytest.mark.parametrize("extend", [False, True])
def test_old_data_are_numbered_as_the_model_numbers_them(compare, files, monkeypatch, extend):
    """Also where a folder or a file names the classes in an order of its own."""
    names = np.array([f"digit {i}" for i in range(10)])
    for name in ("old-train", "new-train", "new-test"):
        content = dict(np.load(files / f"{name}.npz"))
        content["y"] = content["y"] if extend else content["y"] % 5
        np.savez(files / f"{name}.npz", x=content["x"], y=names[content["y"]])
    kept = tuple(names[[3, 1, 4, 0, 2]].tolist())
    monkeypatch.setattr("resque.workflows.inputs.read_class_names", lambda path: kept)
    made = compare(original="npz:old-train.npz", max_minutes=0.0, extend=extend)
    mixed = next(each.id for each in made.options if each.recipe.get("replay") == 0.2)
    done = resque.update("net.py:build", "npz:new-train.npz", "npz:new-test.npz", 0.9999, out="new", forecast=mixed,
                         **SHARED)  # fmt: skip
    assert done.replay_data == "npz:old-train.npz"


def test_the_command_extends(few, files, cli, monkeypatch):
    monkeypatch.setattr("resque.workflows.sources.open_meter", lambda device: ReplayMeter())
    (files / "resque.toml").write_text(
        '[model]\nspec = "net.py:build"\nweights = "w.safetensors"\noriginal = "p.safetensors"\n'
        '[data]\ntest = "npz:new-test.npz"\noriginal_test = "npz:old-test.npz"\n'
    )
    line = f"compare --task npz:new-train.npz --target-accuracy 0.9999 --recipe {RECIPE} --max-minutes 0 --extend"
    for original, replays in (("", {0.0}), ("--original npz:old-train.npz", {0.0, 0.2, 0.5})):
        code, out, err = cli(f"{line} {original} --json")
        assert code == 0, err
        made = json.loads(out)
        assert {each["recipe"]["replay"] for each in made["options"]} == replays
        assert made["original_accuracy"] > 0.8  # the project's data; its profile holds none to mix in
    code, _, err = cli(f"{line.replace('--task', '--shifted')}")
    assert (code, "--task (and --extend)" in err) == (1, True)


@pytest.mark.parametrize("shift_type", ["", " --shift-type signs"])
def test_each_way_to_extend_is_carried_out_by_its_id_with_the_original_data_of_the_comparison(
    few, files, cli, monkeypatch, shift_type
):
    """They are named again or not; a way that mixes none in leaves them."""
    for place in ("sources.open_meter", "update.open_meter_of_nodes"):
        monkeypatch.setattr(f"resque.workflows.{place}", lambda device: ReplayMeter())
    shared = "--original npz:old-train.npz --original-test npz:old-test.npz"
    line = "compare --model net.py:build --weights w.safetensors --task npz:new-train.npz --test npz:new-test.npz "
    line += f"--extend {shared} --target-accuracy 0.9999 --recipe {RECIPE} --max-minutes 0 --json{shift_type}"
    code, out, err = cli(line)
    assert code == 0, err
    rows = {(each["rung"], each["recipe"]["replay"] > 0.0): each["id"] for each in json.loads(out)["options"]}
    for rung, mixes, again in (("head", False, shared), ("all", True, ""), ("scratch", True, shared)):
        code, out, err = cli(f"retrain --forecast {rows[rung, mixes]} {again} --json")
        assert code == 0, err
        update = json.loads(out)
        assert update["shift_type"] == (shift_type.split()[-1] if shift_type else "extension")
        assert update["replay_data"] == ("npz:old-train.npz" if mixes else None)
        assert update["from_scratch"] == (rung == "scratch")
        assert update["original_accuracy_before"] is not None
