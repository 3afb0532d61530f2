"""``resque compare`` asked again: what was done meanwhile is measured, and no question waits twice."""

import dataclasses
import json

import pytest

from doubles import ReplayMeter
from resque.data.loading import load_data
from resque.energy.price import Tariff
from resque.forecasting.comparison import BY_HISTORY
from resque.forecasting.price import forecast_price
from resque.ledger.components import MEASURED
from resque.ledger.questions import waiting_forecasts
from resque.ledger.store import Ledger
from resque.models.networks import small_cnn
from resque.models.weights import fingerprint, save_weights
from resque.training.job import RetrainingJob
from resque.training.recipe import RECIPES
from resque.training.retrain import retrain
from resque.workflows.done_before import done_before, what_it_showed

MODEL, DATA = "--model resque.networks:small_cnn --weights w.safetensors", "digits@16px@{}@300+contrast:9"
RECIPE = "train-adam,max_epochs=3,learning_rate=0.01"


@pytest.fixture
def few(few_bundled, monkeypatch):
    """Short fits, and a meter of energy for the command line."""
    for name in ("sources.open_meter", "update.open_meter_of_nodes"):
        monkeypatch.setattr(f"resque.workflows.{name}", lambda device: ReplayMeter())


@pytest.fixture
def asked(few, cnn, cli, folder):
    """``asked(target, more) -> comparison`` from the command line, without time for pilots."""
    save_weights(cnn, folder / "w.safetensors")

    def ask(target, more="", shown="--json"):
        line = f"compare {MODEL} --shifted {DATA.format('train')} --test {DATA.format('test')} --recipe {RECIPE} "
        code, out, err = cli(f"{line} --target-accuracy {target} --max-minutes 0 {more} {shown}")
        assert code in (0, 3, 4), err
        return json.loads(out) if shown == "--json" else out

    return ask


def way(made, rung):
    return next(each for each in made["options"] if each["rung"] == rung)


def test_a_way_that_failed_is_not_recommended_again_and_a_void_one_counts_nowhere(asked, cli, folder):
    """The first of two forecasts of one question was carried out."""
    head = way(asked(0.9), "head")
    assert head["how_known"] == BY_HISTORY
    asked(0.9)
    line = f"retrain {MODEL} --train {DATA.format('train')} --test {DATA.format('test')} --target-accuracy 0.9 "
    code, out, err = cli(f"{line} --forecast {head['id']} --out new --json")
    assert code == 0, err
    update = json.loads(out)
    assert not update["reached"]
    tried = way(asked(0.9, "--confidence 0.001"), "head")
    assert (tried["how_known"], tried["chance"], tried["id"], tried["update_id"]) == (
        MEASURED, 0.0, update["id"], update["id"])  # fmt: skip
    costs = {name: estimate["value"] for name, estimate in tried["estimates"].items()}
    assert costs == {name: update["cost"][name] for name in costs}
    assert costs["energy_kwh"] > 0.0
    assert f"tried already, as update {update['id']}: it ended at" in tried["note"]
    ledger = Ledger("resque.db")
    waiting = waiting_forecasts(ledger.forecasts(), ledger.settled())
    trains = [(each.recipe["trains"], each.recipe["learning_rate"], each.from_scratch) for each in waiting]
    assert len(trains) == len({*trains})
    assert "head" not in {each for each, _, _ in trains}
    assert cli("report")[0] == 0
    assert "Retrain the head was tried: " in (folder / "report.html").read_text()
    assert (peak := max(update["curve"]["accuracy"])) > update["curve"]["accuracy"][0]
    assert way(asked(peak), "head")["chance"] == 1.0  # another target: by its curve
    ledger.void(update["id"], "wrong data")
    assert way(asked(0.9), "head")["how_known"] == BY_HISTORY


@pytest.fixture(scope="module")
def run():
    """A finished run with its job."""
    digits = load_data("digits@16px")
    recipe = dataclasses.replace(RECIPES["train-adam"], max_epochs=1, evaluate_every=2)
    job = RetrainingJob(digits.part("train").limited(200), digits.part("test").limited(100), 0.99, recipe, seed=3)
    model = small_cnn()
    parent = fingerprint(model)
    return parent, job, retrain(model, job, meter=ReplayMeter())


@pytest.mark.parametrize(
    ("of_update", "of_job", "is_known"),
    [
        ({}, {}, True),
        ({"train_data": "copy.npz", "test_data": "t.npz", "shift_type": "camera", "model": "n"}, {"seed": 8}, True),
        ({"target_accuracy": 0.995}, {}, True),
        ({"stopped_by": "budget: kWh"}, {}, False),
        ({"stopped_by": "the user"}, {}, False),
        ({"digest": ""}, {}, False),
        ({"shift_type": "new task"}, {}, False),
        ({}, {"recipe": {"learning_rate": 0.1}}, False),
        ({}, {"recipe": {"trains": "head"}}, False),
        ({}, {"recipe": {"max_epochs": 2}}, False),
        ({}, {"test": 90}, False),
        ({}, {"parent": "another"}, False),
    ],
)
def test_only_the_same_way_on_the_same_contents_is_known(run, folder, of_update, of_job, is_known):
    parent, job, update = run
    ledger = Ledger("r.db")
    ledger.add(dataclasses.replace(update, **of_update))
    recipe = dataclasses.replace(job.recipe, **of_job.get("recipe", {}))
    test = job.test.limited(of_job["test"]) if "test" in of_job else job.test
    again = dataclasses.replace(job, recipe=recipe, test=test, seed=of_job.get("seed", job.seed))
    assert (done_before(ledger, of_job.get("parent", parent), again) is not None) == is_known


def test_the_run_of_the_same_seed_goes_before_the_newest(run, folder):
    parent, job, update = run
    ledger = Ledger("r.db")
    for name, seed in (("a", 3), ("b", 4), ("c", 5)):
        ledger.add(dataclasses.replace(update, id=name, seed=seed, created_utc=f"2026-{ord(name)}"))
    assert done_before(ledger, parent, job).id == "a"
    assert done_before(ledger, parent, dataclasses.replace(job, seed=9)).id == "c"


@pytest.mark.parametrize("place", [1, 3, -1])
def test_another_target_is_answered_from_the_curve(run, place):
    _, job, update = run
    target = max(update.curve.accuracy[: place + 1 or None])
    shown = what_it_showed(update, dataclasses.replace(job, target_accuracy=target), 0.8)
    cost = update.cost_at(target)
    assert (shown.probability_reached, shown.best_accuracy.value) == (1.0, target)
    assert {name: each.value for name, each in shown.estimates.items()} == {
        name: getattr(cost, name) for name in shown.estimates
    }
    assert shown.pilot.steps == cost.steps
    priced = dataclasses.replace(update, tariff=Tariff(per_hour=3600.0)).price
    price = forecast_price(shown, Tariff(per_hour=3600.0)).value
    assert price <= priced or cost.steps == update.cost.steps


@pytest.mark.parametrize(("now", "place", "kept"), [(0.9, -1, 0.7), (0.8, -1, None), (None, -1, None), (0.9, 1, None)])
def test_accuracy_on_the_original_data_is_that_of_the_same_test_at_the_end(run, now, place, kept):
    _, job, update = run
    update = dataclasses.replace(update, original_accuracy_before=0.9, original_accuracy_after=0.7)
    target = 0.99 if place == -1 else update.curve.accuracy[0]
    shown = what_it_showed(update, dataclasses.replace(job, target_accuracy=target), 0.8, now)
    assert shown.pilot.original_accuracy == kept
