"""``resque compare`` for new tasks and for several models to start from."""

import dataclasses
import functools
import gc
import itertools
import json
import re
import shutil
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import resque
from doubles import ReplayMeter
from resque._display import describe
from resque.energy.price import Tariff
from resque.errors import DataError, ModelError, SettingError
from resque.forecasting.budget import Budget
from resque.forecasting.comparison import BY_HISTORY
from resque.forecasting.options import stored_comparison
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.networks import small_cnn
from resque.models.weights import save_weights
from resque.training.evaluation import evaluate_dataset
from resque.workflows import scoring, sources
from resque.workflows.candidates import as_candidates, parse_candidate, read_candidates, with_license_prices
from resque.workflows.compare import decide_comparison

CNN = "resque.networks:small_cnn"
NET = """from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 10))
"""
RECIPE = "retrain-adam,max_epochs=4,evaluate_every=4"


@pytest.fixture
def few(few_bundled, monkeypatch):
    """A part of the bundled history, and short pilots."""
    monkeypatch.setattr("resque.workflows.comparing._ROUNDS", (10, 20))


@pytest.fixture
def few_ways(monkeypatch):
    """Three ways alone: one that reuses, one that is nearly free, one from scratch."""
    from resque.workflows import asking

    every = asking.ways_to_update
    monkeypatch.setattr(
        asking,
        "ways_to_update",
        lambda *given: [
            way for way in every(*given) if way.name in ("Retrain the head", "Retrain all layers", "Train from scratch")
        ],
    )


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of two networks: one that knows the digits, one that knows little of them."""
    place = tmp_path_factory.mktemp("weights")
    data = resque.load_data("digits@16px@train")
    for name, steps in (("well", 150), ("little", 10)):
        torch.manual_seed(len(name))
        model, order = small_cnn(), torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(steps):
            inputs, labels = next(data.batches(64, order=torch.randperm(len(data), generator=order)))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
        save_weights(model, place / f"{name}.safetensors")
    return place


@pytest.fixture
def task(folder):
    """A new task: is a digit below three, to six, above?"""
    data = resque.load_data("digits@16px@600")
    images = np.rint(255 * next(data.batches(600))[0][:, 0].numpy()).astype(np.uint8)
    labels = np.digitize(data.labels.numpy(), [3, 7]) * 10 + 5
    np.savez(folder / "train.npz", x=images[:400], y=labels[:400])
    np.savez(folder / "test.npz", x=images[400:], y=labels[400:])
    return "npz:train.npz", "npz:test.npz"


@pytest.fixture
def compare(few, folder):
    given = {"ledger": "c.db", "recipe": RECIPE, "meter": ReplayMeter(), "max_minutes": 5.0}
    return functools.partial(resque.compare, **given)


@pytest.fixture
def named(weights, folder):
    """A trained network, one that is hardly trained, and one that is not."""
    for name in ("well", "little"):
        (folder / f"{name}.safetensors").symlink_to(weights / f"{name}.safetensors")
    return [f"{CNN}=well.safetensors", f"{CNN}=little.safetensors", CNN]


def test_the_ways_to_a_new_task(compare, task, weights):
    made = compare(f"{CNN}={weights}/well.safetensors", *task, 0.6, new_task=True)
    assert {each.rung for each in made.options} >= {"head", "all", "scratch"}
    assert not {each.rung for each in made.options} & {"nothing", "norm"}
    assert not any(each.recipe["replay"] for each in made.options)
    assert made.first_round == ()
    stored = {each.id: each for each in Ledger("c.db").forecasts(pending=True)}
    assert {each.id for each in made.options} == set(stored)
    assert {each.shift_type for each in stored.values()} == {"new task"}
    by_rung = {each.rung: stored[each.id] for each in made.options}
    assert by_rung["scratch"].features.task_index is None
    assert by_rung["all"].features.task_index is not None
    piloted = next(each for each in made.options if each.how_known != BY_HISTORY and each.rung != "scratch")
    options = resque.ModelOptions(weights=f"{weights}/well.safetensors")
    done = resque.update(CNN, *task, 0.6, forecast=piloted.id, ledger="c.db", out="new", meter=ReplayMeter(),
                         options=options)  # fmt: skip
    assert (done.forecast_id, done.shift_type, dict(done.recipe)) == (piloted.id, "new task", dict(piloted.recipe))
    assert done.pilot_steps == stored[piloted.id].pilot.steps


def test_a_new_task_from_scratch_is_carried_out_without_weights(compare, task, weights):
    made = compare(f"{CNN}={weights}/little.safetensors", *task, 0.99, new_task=True, max_minutes=0.0)
    scratch = next(each for each in made.options if each.rung == "scratch")
    done = resque.update(CNN, *task, 0.99, forecast=scratch.id, ledger="c.db", out="s", meter=ReplayMeter())
    assert done.parent == Ledger("c.db").forecast(scratch.id).parent


@pytest.mark.parametrize("more", [{"original": "digits@16px@train"}, {"original_test": "digits@16px@test"}])
def test_a_new_task_has_no_original_data(compare, task, more):
    with pytest.raises(SettingError, match="no original data"):
        compare(CNN, *task, 0.6, new_task=True, **more)


def test_several_models_and_one_that_fails(compare, task, named):
    made = compare([*named, "none.py:build"], *task, 0.6, new_task=True)
    rows = {each.model: each for each in made.first_round}
    assert [each.model for each in made.first_round] == [*named, "none.py:build"]
    assert [each.is_kept for each in made.first_round] == [True, True, True, False]
    assert "none.py" in rows["none.py:build"].note
    assert rows[named[0]].scores["LogME"] > rows[named[2]].scores["LogME"]
    assert all(rows[name].static_cost == rows[name].parameters * 400.0 for name in named)
    assert [rows[name].is_trained for name in named] == [True, True, False]
    assert {each.model for each in made.options} == set(named[:2])  # the third has its one way in common with them
    best = made.option(made.best or made.nearest)
    assert made.options[0] == best
    assert made.short_names[best.model] in " ".join(str(made).split())
    assert f"({made.short_names[best.model]})" in made.recommendation


def test_an_untrained_model_is_not_preferred_for_its_index(compare, few_ways, task, named, folder, monkeypatch):
    """Random features that get the best index of all: to train them is to train from scratch, as it is for others."""
    monkeypatch.setattr(scoring, "resque_task", lambda rows, labels: dataclasses.replace(INDEX, value=0.0))
    (folder / "net.py").write_text(NET)
    made = compare([named[0], "net.py:build"], *task, 0.6, new_task=True, max_minutes=0.0)
    untrained = [each for each in made.options if each.model == "net.py:build"]
    assert [each.rung for each in untrained] == ["scratch"]
    ledger = Ledger("c.db")
    scratch = [ledger.forecast(each.id) for each in made.options if each.rung == "scratch"]
    assert len(scratch) == 2
    assert {each.features.task_index for each in scratch} == {None}
    assert {each.index for each in made.first_round} == {0.0}


def test_networks_of_one_architecture_share_the_way_from_scratch(compare, few_ways, task, named):
    for _ in range(2):  # also where its pilot is stored
        made = compare(named, *task, 0.6, new_task=True, max_minutes=0.0)
        assert len({each.id for each in made.options}) == len(made.options)
        assert [each.model for each in made.options if each.rung == "scratch"] == [named[0]]
        assert {each.model for each in made.options} == set(named[:2])
        first, *others = (made.short_names[each] for each in named)
        assert made.notes == tuple(f"Train from scratch ({each}): the same as of {first}" for each in others)


def test_a_copy_of_a_model_is_one_line_and_no_way_twice(compare, few_ways, task, named, folder):
    spec, weights = named[0].split("=")
    shutil.copy(weights, folder / "copy.safetensors")
    made = compare([named[0], f"{spec}=copy.safetensors"], *task, 0.6, new_task=True, max_minutes=0.0)
    first, copy = (made.short_names[each.model] for each in made.first_round)
    assert made.notes == (f"All of {copy}: the same as of {first}",)
    assert {each.model for each in made.options} == {named[0]}


INDEX = resque.resque_task(np.eye(4)[[0, 0, 1, 1]], [0, 0, 1, 1])


def test_where_all_models_fail_it_is_an_error(compare, task):
    with pytest.raises(ModelError, match=r"none\.py:build: .*; other\.py:build: "):
        compare(["none.py:build", "other.py:build"], *task, 0.6, new_task=True)
    with pytest.raises(DataError, match="gone"):  # what they share is said once
        compare(["resque.networks:small_cnn", "resque.networks:vgg16"], "npz:gone.npz", "npz:gone.npz", 0.6)


def test_the_first_round_is_not_repeated(compare, few_ways, task, named, monkeypatch):
    first = compare(named, *task, 0.6, new_task=True, max_minutes=0.0)

    def fail(*arguments):
        raise AssertionError("scored again")

    monkeypatch.setattr(scoring, "collect_outputs", fail)
    again = compare(named, *task, 0.6, new_task=True, max_minutes=0.0)
    assert again.first_round == first.first_round
    with pytest.raises(AssertionError, match="again"):  # other data
        compare(named, task[1], task[1], 0.6, new_task=True, max_minutes=0.0)


@pytest.mark.parametrize("content", ['{"model": 3}'])
def test_scores_that_cannot_be_read_are_computed_anew(compare, few_ways, task, named, folder, content):
    first = compare(named[:2], *task, 0.6, new_task=True, max_minutes=0.0)
    for file in (folder / "c.db.comparisons").iterdir():
        file.write_text(content)
    assert compare(named[:2], *task, 0.6, new_task=True, max_minutes=0.0).first_round == first.first_round


def test_an_interrupted_first_round_is_a_question(compare, few_ways, task, named, monkeypatch):
    """The next comparison takes its scores as they are, so their cost would be in no sum."""

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "collect_outputs", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(named, *task, 0.6, new_task=True)
    (question,) = Ledger("c.db").questions()
    assert (question.model, question.target_accuracy, question.spending.wall_s > 0.0) == (CNN, 0.6, True)


@pytest.mark.parametrize("pilots_before", [3])
def test_an_interrupted_comparison_goes_on(compare, few_ways, task, named, folder, monkeypatch, pilots_before):
    begun = []
    pilot = sources.Passes.pilot

    def interrupted(passes, known, forecast, steps, *more):
        if len(begun) == pilots_before:
            raise KeyboardInterrupt
        begun.append(forecast.id)
        return pilot(passes, known, forecast, steps, *more)

    monkeypatch.setattr(sources.Passes, "pilot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(named[:2], *task, 0.999, new_task=True)
    assert not Ledger("c.db").forecasts()
    again = []

    def counted(passes, known, forecast, steps, *more):
        again.append((forecast.id, forecast.pilot is not None))
        return pilot(passes, known, forecast, steps, *more)

    monkeypatch.setattr(sources.Passes, "pilot", counted)
    made = compare(named[:2], *task, 0.999, new_task=True)
    assert set(begun) <= {each.id for each in made.options}
    assert all(had_pilot for each, had_pilot in again if each in begun)  # none from its beginning
    assert not list(folder.glob("c.db.comparisons/pilot-*"))


def test_one_network_is_in_memory_at_a_time(compare, few_ways, task, named, monkeypatch):
    alive: list[weakref.ref] = []
    most = []
    gc.collect()
    gc.freeze()  # what other tests have left is not searched again at each collection

    def load(*arguments, **options):
        gc.collect()
        most.append(sum(each() is not None for each in alive))
        model = load_model(*arguments, **options)
        alive.append(weakref.ref(model))
        return model

    monkeypatch.setattr("resque.workflows.inputs.load_model", load)
    try:
        compare(named[:2], *task, 0.999, new_task=True)
    finally:
        gc.unfreeze()
    assert len(most) > 8
    assert max(most) == 0


def test_shifts_compare_models_too_and_each_may_be_left_as_it_is(compare, named):
    data = "digits@16px@train@300+blur:9", "digits@16px@test+blur:9"
    made = compare(named[:2], *data, 0.999, original="digits@16px@train@300", original_test="digits@16px@test",
                   max_minutes=0.0)  # fmt: skip
    left = [each for each in made.options if each.rung == "nothing"]
    assert {each.model for each in left} == set(named[:2])
    assert len({each.id for each in made.options}) == len(made.options)
    assert {each.rung for each in made.options if each.model == named[1]} >= {"norm", "head", "all", "nothing"}
    assert all(each.index > 0.0 and each.accuracy is not None for each in made.first_round)


@pytest.mark.parametrize("target", [0.6, 0.999])
def test_what_each_way_of_several_models_keeps_of_the_old_data(compare, few_ways, named, target):
    """The accuracy before is that of the model that the first way starts from, whether one suffices or not."""
    data = "digits@16px@train@300+blur:9", "digits@16px@test+blur:9"
    made = compare(named[:2], *data, target, original="digits@16px@train@300", original_test="digits@16px@test")
    old, first = resque.load_data("digits@16px@test"), made.option(made.best or made.nearest)
    before = {name: evaluate_dataset(load_model(*name.split("=")), old)[0] for name in named[:2]}
    assert made.original_accuracy == before[first.model]
    for each in made.options:
        assert (each.original_accuracy is None) == (each.how_known == BY_HISTORY)
        if each.rung == "nothing":
            assert each.original_accuracy == before[each.model]
    assert "on old" in describe(made).columns


def test_a_model_at_the_target_is_taken_as_it_is(compare, named):
    made = compare(named[:2], "digits@16px@train@300", "digits@16px@test", 0.5, max_minutes=0.0)
    assert made.best == f"nothing {named[0]}"
    assert f"Do nothing: {made.short_names[named[0]]} is at the target already" in made.recommendation
    assert decide_comparison(made, "c.db", Budget(max_hours=0.0)).code == 0


def test_objects_of_one_class_are_numbered(compare, few_ways, task, weights):
    models = [load_model(CNN, weights / f"{name}.safetensors") for name in ("well", "little")]
    for model in models:
        del model.resque_spec
    made = compare(models, *task, 0.6, new_task=True, max_minutes=0.0)
    assert [each.model for each in made.first_round] == ["Sequential 1", "Sequential 2"]
    assert {each.rung for each in made.options} >= {"head", "all"}


def test_prices_of_licenses_and_labels(compare, few_ways, task, named):
    free, paid = (resque.Candidate(*name.split("=")) for name in named[:2])
    paid = dataclasses.replace(paid, license_price=50.0, license="some")
    given = {"new_task": True, "max_minutes": 0.0, "level": 0.01, "tariff": Tariff(per_hour=1.0, per_label=0.1)}
    made = compare([free, paid], *task, 0.5, **given)
    for each in made.options:
        fixed = 40.0 + (50.0 if each.model == paid.name else 0.0)
        assert each.fees == fixed
        assert 0.0 < each.cost("price") < 5.0  # of training, evaluation and asking, as everywhere
    assert made.by == "price"
    assert made.option(made.best).model == free.name
    assert ("license", free.name) in {(each.of, each.model) for each in made.break_even}
    assert {each.of for each in made.break_even} == {"license"}  # each way needs the same labels
    assert "for the license of" in made.recommendation
    tariff = Tariff(per_hour=1.0, per_label=0.1)
    for most, verdict in ((39.0, "beyond budget"), (45.0, "target too unlikely")):  # of which fees are 40
        gate = decide_comparison(made, "c.db", Budget(max_price=most, tariff=tariff))
        assert (gate.code, gate.verdict) in {(3, verdict), (4, "not reliable enough to decide")}
        ((_, bound, limit, _),) = gate.held
        assert (limit, 40.0 < bound < 45.0) == (most, True)
    ways = Ledger("c.db").forecasts()
    again = stored_comparison(ways, {each.id: made.option(each.id).name for each in ways})
    assert {each.id: each.fees for each in again.options if each.recipe} == {
        each.id: each.fees for each in made.options if each.recipe
    }  # as a report shows it
    text = " ".join(str(made).split())
    assert f"{made.option(made.best).labels:,} labels" in made.recommendation
    assert "fees: labels and license, as if they had still to be bought" in text
    assert made.to_dict()["first_round"][1]["license"] == "some"


def test_names_of_candidates():
    assert parse_candidate("timm:a=b/c.pth").name == "timm:a=b/c.pth"
    assert [each.weights for each in as_candidates("odd=name.pt", "w.pt")] == ["w.pt"]
    for wrong in (["a:b", "a:b"], []):
        with pytest.raises(SettingError):
            as_candidates(wrong)
    for several in (["a:b", "a:c"], ["a:b=w.pt"]):
        with pytest.raises(SettingError, match="NAME=WEIGHTS"):
            as_candidates(several, "w.pt")
    with pytest.raises(ModelError, match="is a int"):
        as_candidates([3])


@pytest.mark.parametrize("price", ["a:b", "a:b=", "a:b=x", "a:b=-1", "a:b=nan", "other=3", "=3"])
def test_a_license_price_is_of_a_model(price):
    with pytest.raises(SettingError, match="price"):
        with_license_prices(as_candidates("a:b"), [price])


def test_a_file_of_models(folder):
    (folder / "sub").mkdir()
    file = folder / "sub" / "models.toml"
    file.write_text(
        '[[model]]\nspec = "net.py:build"\nweights = "a.pt"\nlicense_price = 3\n[[model]]\nspec = "timm:x"\n'
    )
    first, second = read_candidates(file)
    assert first.name == f"{folder}/sub/net.py:build={folder}/sub/a.pt"
    assert (first.license_price, second.name) == (3.0, "timm:x")


@pytest.mark.parametrize(
    "text",
    ["", "x = 3", "model = 3", "[[model]]", "[[model]]\nspec = 3", '[[model]]\nspec = "a"\nx = 1', "[[model]]\n["],
)
def test_a_wrong_file_of_models_is_one_line(folder, text):
    (folder / "m.toml").write_text(text)
    with pytest.raises(SettingError, match=r"m\.toml") as error:
        read_candidates(folder / "m.toml")
    assert "\n" not in str(error.value)


def test_the_command_names_models(few, few_ways, task, named, cli, folder, monkeypatch):
    monkeypatch.setattr("resque.reporting.console.out.width", 80)
    monkeypatch.setattr("resque.workflows.sources.open_meter", lambda device: ReplayMeter())
    (folder / "models.toml").write_text('[[model]]\nspec = "none.py:build"\nlicense = "MIT"\n')
    line = f"compare --model {named[0]} --model {named[1]} --models models.toml --task {task[0]} --test {task[1]} "
    line += f"--target-accuracy 0.5 --recipe {RECIPE} --ledger c.db --max-minutes 0 --summary page.md "
    line += f"--price-per-hour 1 --price-per-label 0.01 --license-price {named[1]}=20"
    code, out, err = cli(f"{line} --json")
    assert code == 0, err
    made = json.loads(out)
    assert {each["model"] for each in made["options"]} == set(named[:2])
    assert [each["license_price"] for each in made["first_round"]] == [0.0, 20.0, 0.0]
    assert {"break_even", "best", "ties", "asking", "recommendation"} <= set(made)
    code, out, _ = cli(line)
    assert code == 0
    assert "First round: 2 of 3 models were compared" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "| model | LogME |" in (folder / "page.md").read_text()


@pytest.fixture
def metered(monkeypatch):
    for place in ("sources.open_meter", "update.open_meter_of_nodes"):
        monkeypatch.setattr(f"resque.workflows.{place}", lambda device: ReplayMeter())


SHIFT = "--shifted digits@16px@train+blur:9 --test digits@16px@test+blur:9 --original digits@16px@train "
SHIFT += "--original-test digits@16px@test --limit 300 --seed 3 --country FRA --price-per-hour 2 --ledger c.db"


def test_each_way_is_carried_out_by_the_command_that_is_printed(few, few_ways, metered, named, cli, folder):
    """Model, weights, data, limit, target, seed, grid and prices are the forecast's, whatever the project says."""
    line = f"compare --model {named[0]} --model {named[1]} {SHIFT} --target-accuracy 0.75 --recipe {RECIPE}"
    code, out, err = cli(line)
    assert code == 0, err
    (command,) = re.findall(r"`resque (retrain --forecast \w+ --ledger c.db)` does it", " ".join(out.split()))
    (folder / "resque.toml").write_text(
        '[model]\nspec = "other.py:build"\nweights = "other.pt"\noriginal = "other.safetensors"\n'
        '[data]\ntest = "npz:other.npz"\n[update]\ntarget_accuracy = 0.3\n'
    )
    ledger = Ledger("c.db")
    best = command.split()[2]
    scratch = next(each.id for each in ledger.forecasts() if each.from_scratch)
    for forecast_id in (best, scratch):
        forecast = ledger.forecast(forecast_id)
        code, out, err = cli(f"{command.replace(best, forecast_id)} --json")
        assert code == 0, err
        update = json.loads(out)
        for field in ("parent", "train_data", "test_data", "target_accuracy", "shift_type", "model", "from_scratch"):
            assert update[field] == getattr(forecast, field)
        assert (update["forecast_id"], update["seed"], update["grid"]["region"]) == (forecast_id, 3, "FRA")
        assert update["original_accuracy_before"] is not None
        assert update["price"] > 0.0
    assert "scratch" in cli("ledger list --ledger c.db")[1]
    lives = json.loads(cli("ledger life --ledger c.db --json")[1])["lives"]
    (life,) = [each for each in lives if each["parts"]["updates"]["n"]]
    assert [life["parts"][part]["n"] for part in ("original training", "updates", "from scratch")] == [0, 1, 1]
    (folder / "resque.toml").unlink()
    (again,) = [way for way in json.loads(cli(f"{line} --json")[1])["options"] if way["update_id"] == update["id"]]
    assert (again["rung"], again["original_accuracy"]) == ("scratch", update["original_accuracy_after"])


def test_a_forecast_tells_what_it_lacks(few, few_ways, metered, named, cli, folder):
    """One of an earlier version has the names of model and data, and not of the weights."""
    line = f"compare --model {named[0]} {SHIFT} --target-accuracy 0.999 --recipe {RECIPE} --max-minutes 0"
    assert cli(line)[0] == 0
    forecast = next(each for each in Ledger("c.db").forecasts() if not each.from_scratch)
    of_objects = {name: value for name, value in forecast.inputs.items() if name not in ("model", "train")}
    for name, inputs in (("old", None), ("objects", of_objects)):
        Ledger("d.db").add(dataclasses.replace(forecast, id=name, inputs=inputs))
    for given, says in (
        ("--forecast old", "name its weights, --weights"),
        (
            "--forecast old --target-accuracy 0.9",
            "made for target accuracy 0.999, not 0.9: leave --target-accuracy out",
        ),
        ("--forecast objects", "add --model, --train"),
    ):
        code, _, err = cli(f"retrain {given} --ledger d.db")
        assert code == 1
        assert says in " ".join(err.split())
    scratch = next(each.id for each in Ledger("c.db").forecasts() if each.from_scratch)
    code, _, err = cli(f"retrain --forecast {scratch} --from-scratch --ledger c.db")
    assert (code, "leave --from-scratch out" in err) == (1, True)
    code, _, err = cli("retrain --train digits")
    assert code == 2
    assert "missing --model, --test, --target-accuracy; or name a forecast" in " ".join(err.replace("│", "").split())
    code, out, err = cli("retrain --forecast old --ledger d.db --weights well.safetensors --seed 3 --json")
    assert code == 0, err
    assert json.loads(out)["forecast_id"] == "old"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--task a --shifted b --model m:b", "name the new data"),
        ("--task a --shifted b --model m:b", "--shifted and --task conflict"),
        ("--extend --shifted b --model m:b", "--extend and --shifted conflict: name the new data by --task"),
        ("--model m:b", "name the new data"),
        ("--task a", "no model"),
        ("--task a --model m:b --model m:c --weights w.pt", "NAME=WEIGHTS"),
        ("--task a --model m:b --license-price m:c=3", "none of the models"),
        ("--task a --model m:b --original o", "no original data"),
    ],
)
def test_options_that_contradict_each_other(cli, given, says):
    code, _, err = cli(f"compare {given} --test t --target-accuracy 0.5")
    assert code == 1
    assert says in err


def test_the_shortest_pilots_come_first(compare, few_ways, task, named, monkeypatch):
    """A large model must not take the time of small ones."""
    seconds = []
    pilot, probe, step_s = (
        sources.Passes.pilot,
        sources.Passes.probe,
        itertools.count(90, -1),
    )  # the last is the fastest

    def probed(passes, network, job):
        return dataclasses.replace(probe(passes, network, job), wall_s=1e-3 * next(step_s))

    def seen(passes, known, forecast, steps, *more):
        if forecast.pilot is None:
            seconds.append(known.step_cost.wall_s)
        return pilot(passes, known, forecast, steps, *more)

    monkeypatch.setattr(sources.Passes, "pilot", seen)
    monkeypatch.setattr(sources.Passes, "probe", probed)
    monkeypatch.setattr("resque.workflows.comparing._ROUNDS", (10,))
    monkeypatch.setattr("resque.workflows.comparing._FREE_S", 0.0)
    monkeypatch.setattr("resque.workflows.asking.evaluate_dataset", lambda *_: (0.0, 1.0))
    compare(named[:2], *task, 0.999, new_task=True)
    assert len(seconds) > 2
    assert seconds == sorted(seconds)
