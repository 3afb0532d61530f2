"""``resque compare`` from model to ledger: which ways there are, how each is known, and what is kept of them."""

import dataclasses
import functools
import itertools
import json
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import resque
from doubles import ReplayMeter
from resque.energy.meters import ClockMeter
from resque.energy.price import Tariff
from resque.forecasting.budget import Budget
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT
from resque.forecasting.life import lives
from resque.forecasting.options import stored_comparison
from resque.ledger.components import MEASURED
from resque.ledger.records import Forecast
from resque.ledger.serialization import decode
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint, save_weights
from resque.workflows import inputs, passes
from resque.workflows.compare import decide_comparison
from resque.workflows.comparing import Comparing, _is_free
from resque.workflows.passes import after_pilot

CLEAN, CLEAN_TEST = "digits@16px@train@300", "digits@16px@test"
NEW, NEW_TEST = "digits@16px@train@300+blur:9", "digits@16px@test+blur:9"
RECIPE = "train-adam,max_epochs=6,evaluate_every=4"


@pytest.fixture
def few(monkeypatch):
    """A twelfth of the bundled history, whose fits take a second, and short pilots."""
    from resque.ledger.bundled import bundled_updates

    some = tuple(bundled_updates()[::12])
    for module in ("workflows.compare", "workflows.forecast", "forecasting.landmarking"):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: some)
    monkeypatch.setattr("resque.workflows.comparing._ROUNDS", (10, 20))


@pytest.fixture
def compare(few, folder):
    return functools.partial(resque.compare, ledger="c.db", recipe=RECIPE, meter=ReplayMeter(), max_minutes=5.0)


@pytest.fixture
def known(cnn, folder):
    """A trained model."""
    resque.update(cnn, CLEAN, CLEAN_TEST, 0.6, recipe="train-adam", out="first", meter=ReplayMeter())
    return cnn


def test_ways_beside_each_other_and_the_best_is_carried_out(compare, known):
    before = {name: value.clone() for name, value in known.state_dict().items()}
    made = compare(known, NEW, NEW_TEST, 0.6, original=CLEAN, original_test=CLEAN_TEST, tariff=Tariff(per_hour=1.0))
    assert all(torch.equal(value, before[name]) for name, value in known.state_dict().items())
    rungs = [(each.rung, each.how_known) for each in made.options]
    assert {rung for rung, _ in rungs} == {"nothing", "norm", "head", "all"}  # an object has no other weights
    assert ("nothing", MEASURED) in rungs
    assert ("norm", MEASURED) in rungs
    nothing = made.option("nothing")
    assert (nothing.chance, nothing.cost("wall_s"), nothing.labels) == (0.0, 0.0, 0)
    assert nothing.original_accuracy == made.original_accuracy
    for each in made.options:
        if each.how_known != BY_HISTORY:
            assert each.accuracy is not None
            assert each.original_accuracy is not None
    ledger = Ledger("c.db")
    stored = {forecast.id: forecast for forecast in ledger.forecasts(pending=True)}
    assert {each.id for each in made.options if each.recipe} == set(stored)
    assert {each.recipe.get("replay") for each in made.options if each.recipe} >= {0.0, 0.2}
    names = {each.id: each.name for each in made.options}
    again = stored_comparison([*reversed(ledger.forecasts(pending=True))], names)
    assert again.recommendation == made.recommendation  # of what is stored, as a report shows it
    rows, of_report = (
        {each.name: (each.kept(), each.chance, each.accuracy, each.how_known) for each in found.options}
        for found in (made, again)
    )
    assert of_report == rows
    best = made.option(made.best or made.nearest)
    done = resque.update(known, NEW, NEW_TEST, 0.6, forecast=best.id, original=CLEAN, ledger="c.db", out="new",
                         meter=ReplayMeter())  # fmt: skip
    assert dict(done.recipe) == dict(best.recipe)
    assert done.pilot_steps == (0 if best.how_known == BY_HISTORY else stored[best.id].pilot.steps)
    assert done.forecast_id == best.id


def test_ways_whose_steps_are_alike_share_a_probe(compare, known, monkeypatch):
    """Learning rates and old data change what a run learns, and not what a step takes."""
    probed, real = [], passes.probe

    def probe(network, data, recipe, meter):
        probed.append(recipe.trains)
        return real(network, data, recipe, meter)

    monkeypatch.setattr(passes, "probe", probe)
    made = compare(known, NEW, NEW_TEST, 0.99, original=CLEAN, max_minutes=0.0)
    assert sorted(probed) == ["all", "head", "norm"]
    forecasts = [Ledger("c.db").forecast(each.id) for each in made.options if each.rung == "all"]
    assert len(forecasts) == 4
    shares = {each.rung: each.trainable_share for each in made.options}
    assert (shares["nothing"], shares["norm"], shares["all"]) == (0.0, 0.0, 1.0)  # also without a pilot
    assert 0.0 < shares["head"] < 1.0
    assert all(forecast.step_cost == forecasts[0].step_cost for forecast in forecasts)
    asked = [Ledger("c.db").forecast(each.id).overhead for each in made.options if each.recipe]
    assert all(each == asked[0] for each in asked)  # what served all speaks for none of them
    assert made.asking.wall_s == pytest.approx(len(asked) * asked[0].wall_s)  # nothing twice, nothing lost
    assert made.asking.wall_s > forecasts[0].step_cost.reading.wall_s  # with the passes


class UnevenMeter(ReplayMeter):
    """A meter of a machine whose power differs from window to window."""

    def window(self):
        self.watts = 90.0 - self.watts
        return super().window()


@pytest.mark.parametrize(("max_minutes", "meter"), [(0.0, ClockMeter), (0.02, UnevenMeter)])
def test_asking_is_all_that_the_user_waited_for(compare, known, max_minutes, meter):
    """Also evaluations and fits, which no window of a meter holds; the new forecasts share them."""
    began_s = time.perf_counter()
    made = compare(known, NEW, NEW_TEST, 0.99, original=CLEAN, max_minutes=max_minutes, meter=meter())
    waited_s = time.perf_counter() - began_s
    assert 0.5 * waited_s < made.asking.wall_s <= waited_s  # what is stored at the end comes on top
    stored = Ledger("c.db").forecasts()
    took = [each.asking(continued=False) for each in stored]
    assert made.asking.wall_s == pytest.approx(sum(each.wall_s for each in took))
    assert made.asking.energy_kwh == (None if meter is ClockMeter else pytest.approx(sum(e.energy_kwh for e in took)))
    again_s = time.perf_counter()
    asked = compare(known, NEW, NEW_TEST, 0.99, original=CLEAN, max_minutes=0.0, meter=meter()).asking
    assert asked.wall_s <= time.perf_counter() - again_s  # what was there is not counted again


@pytest.mark.parametrize(
    ("target", "pilots_before", "endings"),
    [
        pytest.param(0.99, (2, 1, None), "iia", id="interrupted twice, then answered"),
        pytest.param(0.99, (None, None), "aq", id="asked again without anything new to store"),
        pytest.param(0.99, (0, None, 0, None), "iaqq", id="asked again without time for the pilots that are left"),
        pytest.param(0.05, (None,), "q", id="nothing has to be done"),
    ],
)
def test_no_second_of_any_question_is_lost_or_counted_twice(
    compare, known, monkeypatch, target, pilots_before, endings
):
    """What all comparisons of a ledger took is what all waited for, however each has ended."""
    ledger, pilot, waited_s = Ledger("c.db"), passes.Passes.pilot, 0.0
    for allowed, ending in zip(pilots_before, endings, strict=True):
        left = [allowed]

        def limited(self, known, forecast, *more, left=left):
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] = None if left[0] is None else left[0] - 1
            return pilot(self, known, forecast, *more)

        monkeypatch.setattr(passes.Passes, "pilot", limited)
        before, began_s = (len(ledger.forecasts()), len(ledger.questions())), time.perf_counter()
        with pytest.raises(KeyboardInterrupt) if ending == "i" else nullcontext():
            compare(known, NEW, NEW_TEST, target, original=CLEAN, max_minutes=0.0 if ending == "q" else 5.0)
        waited_s += time.perf_counter() - began_s
        more = len(ledger.forecasts()) - before[0], len(ledger.questions()) - before[1]
        assert (more[0] > 0, more[1]) == (ending == "a", int(ending in "iq"))
        kept = [file.read_text() for file in Path("c.db.comparisons").glob("pilot-*")]
        asking = [
            each.asking(continued=False) for each in (*ledger.forecasts(), *(decode(Forecast, text) for text in kept))
        ]
        counted_s = sum(each.wall_s for each in (*asking, *(each.spending for each in ledger.questions())))
        assert 0.8 * waited_s < counted_s <= waited_s
        if not kept:
            (life,) = lives([], ledger.forecasts(), ledger.questions())
            assert life.parts["questions"].wall_s == pytest.approx(counted_s)
            assert life.total.energy_kwh.is_complete


@pytest.mark.parametrize(
    ("module", "is_measured"),
    [
        ("passes.shift_features", False),
        ("asking.evaluate_dataset", False),
        ("asking.forecast_from_features", True),
        ("passes.Passes.pilot", True),
    ],
)
def test_an_interrupted_question_has_the_energy_of_what_was_measured(compare, known, monkeypatch, module, is_measured):
    """Also where a probe has ended, and the forecast that takes its reading has not; zero would mean zero."""

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"resque.workflows.{module}", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare(known, NEW, NEW_TEST, 0.99, original=CLEAN)
    (question,) = Ledger("c.db").questions()
    assert (question.parent == fingerprint(known)) is is_measured
    assert (question.spending.energy_kwh or 0.0) > 1e-9 if is_measured else question.spending.energy_kwh is None


def test_ways_of_the_same_cost_have_the_same_price(compare, known, folder):
    """What passes and probes took is spent already, whichever way had the first probe."""
    tariff = Tariff(per_kwh=0.4, per_hour=1.0)
    made = compare(known, NEW, NEW_TEST, 0.99, original=CLEAN, max_minutes=0.0, tariff=tariff)
    trained = [each for each in made.options if each.rung == "all" and not each.recipe["replay"]]
    costs = [{name: each.cost(name) for name in ("wall_s", "energy_kwh", "price")} for each in trained]
    for one, other in itertools.combinations(costs, 2):
        if (one["wall_s"], one["energy_kwh"]) == (other["wall_s"], other["energy_kwh"]):
            assert one["price"] == pytest.approx(other["price"])
        else:  # of the same steps, so of the same evaluations in between
            assert (one["price"] < other["price"]) is (one["wall_s"] < other["wall_s"])


@pytest.mark.parametrize("replay", [0.0, 0.3])
def test_share_of_old_data_is_the_recipes(compare, known, replay):
    made = compare(known, NEW, NEW_TEST, 0.99, original=CLEAN, recipe=f"{RECIPE},replay={replay}", max_minutes=0.0)
    shares = [each.recipe["replay"] for each in made.options if each.recipe]
    assert sorted(set(shares)) == [0.0, replay or 0.2]
    assert shares.count(replay or 0.2) == 1


def test_every_option_is_stored_with_its_price(compare, known, folder):
    """That of the row, whether it is known by its pilot, from the history, or starts from new weights."""
    model, options = "resque.networks:small_cnn", resque.ModelOptions(weights="first/model.safetensors")
    made = compare(model, NEW, NEW_TEST, 0.9, tariff=Tariff(per_hour=2.0, per_label=0.1), options=options,
                   max_minutes=0.05)  # fmt: skip
    rows = [each for each in made.options if each.recipe]
    assert {each.rung for each in rows} >= {"norm", "head", "all", "scratch"}
    for each in rows:
        stored = Ledger("c.db").forecast(each.id)
        assert stored.price.value == each.cost("price") > 0.0
        assert stored.features.floor_rad is None or stored.features.floor_rad < 3.2
        assert stored.from_scratch is stored.decision.startswith("Train from scratch: ") is (each.rung == "scratch")


def test_a_model_at_the_target_needs_nothing(compare, known):
    made = compare(known, CLEAN, CLEAN_TEST, 0.3)
    assert (made.best, len(made.options)) == ("nothing", 1)
    assert not Ledger("c.db").forecasts()
    assert decide_comparison(made, "c.db", Budget(max_hours=0.0)).code == 0


def test_a_comparison_that_is_asked_again_takes_what_is_stored(compare, known, monkeypatch):
    probe, step_costs = passes.probe, {}

    def as_fast_as_before(network, data, recipe, meter):
        if recipe.trains not in step_costs:
            step_costs[recipe.trains] = probe(network, data, recipe, meter)
        return step_costs[recipe.trains]

    monkeypatch.setattr(passes, "probe", as_fast_as_before)
    first = compare(known, NEW, NEW_TEST, 0.6)
    again = compare(known, NEW, NEW_TEST, 0.6)
    kept = {each.id for each in first.options if each.how_known != BY_HISTORY} - {"nothing"}
    assert kept <= {each.id for each in again.options}
    assert {each.note.partition(":")[0] for each in again.options if each.id in kept} == {"from the ledger"}
    assert again.best == first.best


@pytest.mark.parametrize(
    ("new_task", "changed", "passes_again"),
    [
        (False, {"target_accuracy": 0.98}, False),
        (False, {"train": f"{NEW}~digits@16px@train@2"}, True),
        (False, {"test": "digits@16px@test@200+blur:9"}, True),
        (False, {"layer": "3"}, True),
        (False, {"weights": 0.01}, True),
        (False, {"code": nn.Tanh()}, True),
        (True, {"code": nn.Dropout(0.9)}, True),
        (False, {"unreadable": True}, True),
        (True, {}, False),
        (True, {"seed": 1}, True),
    ],
)
def test_passes_are_repeated_where_what_they_tell_may_have_changed(
    compare, known, monkeypatch, new_task, changed, passes_again
):
    """Model and data are recognized by content, and the features are those of a first question."""
    passed = []

    def noted(computed):
        def compute(*arguments, **options):
            passed.append(found := computed(*arguments, **options))
            return found

        return compute

    for module, name in ((passes, "shift_features"), (inputs, "task_features")):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    asked = {"train": NEW, "test": NEW_TEST, "target_accuracy": 0.99, "max_minutes": 0.0, "new_task": new_task}
    compare(known, **asked)
    if (more := changed.get("weights")) is not None:
        with torch.no_grad():
            next(known.parameters()).add_(more)
    if (module := changed.get("code")) is not None:  # with the same weights
        known[2] = module
    if changed.get("unreadable"):
        for file in Path("c.db.comparisons").glob("features-*"):
            file.write_text("{}")
    compare(known, **asked | {name: changed[name] for name in {*changed} - {"weights", "code", "unreadable"}})
    assert len(passed) == 1 + passes_again
    first, *_, last = (each.features for each in Ledger("c.db").forecasts() if each.recipe["trains"] == "all")
    assert passes_again or first == last


def test_without_time_there_are_no_pilots(compare, known):
    made = compare(known, NEW, NEW_TEST, 0.6, max_minutes=0.0)
    assert {each.how_known for each in made.options if each.recipe} == {BY_HISTORY}
    assert {each.note for each in made.options if each.recipe} == {"no time for a pilot"}
    assert {(each.rung, each.doubt) for each in made.options if each.doubt} == {
        ("head", "extrapolation: no own update trains=head"),
        ("all", "the forecast rests on bundled updates only"),
    }
    assert made.option(made.best).rung == "norm"  # measured by a pass
    assert "Do not rely on it" not in made.recommendation


def test_what_a_model_does_not_allow_is_left_out(compare, folder):
    torch.manual_seed(0)
    made = compare(nn.Sequential(nn.Flatten(), nn.Linear(256, 10)), NEW, NEW_TEST, 0.99, max_minutes=0.0)
    assert {each.rung for each in made.options} == {"nothing", "all"}  # no norm, no old data, and the head is all


def test_new_weights_are_compared_where_a_specification_builds_them(compare, known, folder):
    save_weights(known, folder / "w.safetensors")
    options = resque.ModelOptions(weights="w.safetensors")
    made = compare("resque.networks:small_cnn", NEW, NEW_TEST, 0.6, options=options, max_minutes=0.0)
    scratch = next(each for each in made.options if each.rung == "scratch")
    parent = Ledger("c.db").forecast(scratch.id).parent
    assert parent != Ledger("c.db").forecast(next(each.id for each in made.options if each.rung == "all")).parent
    done = resque.update("resque.networks:small_cnn", NEW, NEW_TEST, 0.6, forecast=scratch.id, ledger="c.db",
                         out="s", meter=ReplayMeter())  # fmt: skip
    assert done.parent == parent


def test_a_pilot_must_not_cost_more_than_it_may_save(compare, known, monkeypatch):
    """The first way that arrives within its pilot has nothing left to save."""
    made = compare(known, NEW, NEW_TEST, 0.45)
    best = made.option(made.best)
    assert best.how_known == MEASURED
    notes = [each.note for each in made.options if each.how_known == BY_HISTORY]
    assert notes
    assert all(note.startswith("no pilot: it would cost more than it may save over") for note in notes)


def test_ways_spared_for_one_that_then_fails_get_their_pilots(compare, known, monkeypatch):
    def revised(forecast, pilot, job, updates):
        made, promises = after_pilot(forecast, pilot, job, updates), job.recipe.trains == "head" and pilot.steps <= 10
        wall_s = dataclasses.replace(made.estimates["wall_s"], value=made.pilot.training_s + 1e-9)
        estimates = made.estimates | ({"wall_s": wall_s} if promises else {})
        return dataclasses.replace(made, estimates=estimates, probability_reached=0.9 if promises else 0.1)

    monkeypatch.setattr("resque.workflows.comparing._is_free", lambda *_: False)
    monkeypatch.setattr("resque.workflows.comparing.after_pilot", revised)
    monkeypatch.setattr(Comparing, "_is_decided", lambda self, trials: False)  # as if another way were as good
    made = compare(known, NEW, NEW_TEST, 0.99)
    assert made.best is None
    assert not [each.note for each in made.options if each.note.startswith("no pilot")]
    assert {each.how_known for each in made.options if each.recipe} <= {BY_PILOT, MEASURED}


@pytest.mark.parametrize(
    ("steps", "step_s", "usual_step_s", "expected"),
    [(100, 0.009, 0.001, True), (100, 0.011, 0.001, False), (20_000, 0.0005, 0.3, True), (40_000, 0.0005, 0.3, False)],
)
def test_a_way_that_takes_less_than_a_pilot_of_all_layers_is_done(steps, step_s, usual_step_s, expected):
    """A head over 250 epochs of features that are there takes less than fifty steps of the whole network."""
    start, other = object(), object()
    head, usual, elsewhere = (
        SimpleNamespace(job=SimpleNamespace(max_steps=steps), step_s=each, start=of, way=SimpleNamespace(rung=rung))
        for each, of, rung in ((step_s, start, "head"), (usual_step_s, start, "all"), (1e3, other, "all"))
    )
    assert _is_free(head, [head, usual, elsewhere]) == expected


@pytest.mark.parametrize(("dear_s", "first"), [(-1.0, 4), (1e9, 10)])
def test_dear_pilots_come_after_a_first_look(compare, known, monkeypatch, dear_s, first):
    steps, pilot = [], passes.Passes.pilot

    def seen(self, known, forecast, until, *more):
        steps.append(until)
        return pilot(self, known, forecast, until, *more)

    for name, value in {"_is_free": lambda *_: False, "_FIRST_LOOK": 4, "_UNLIKELY": 0.0, "_DEAR_S": dear_s}.items():
        monkeypatch.setattr(f"resque.workflows.comparing.{name}", value)
    monkeypatch.setattr(passes.Passes, "pilot", seen)
    compare(known, NEW, NEW_TEST, 0.99)
    assert min(each for each in steps if each > 1) == first  # to re-estimate normalization takes one
    assert sorted(steps[:5]) == [1, first, first, first, first]


@pytest.mark.parametrize(("target", "budget", "code"), [("0.45", "--max-hours 1", 0), ("0.45", "--max-hours 0", 3)])
def test_the_command_prints_json_and_is_a_gate(few, known, cli, folder, monkeypatch, target, budget, code):
    monkeypatch.setattr("resque.workflows.sources.open_meter", lambda device: ReplayMeter())
    save_weights(known, folder / "w.safetensors")
    line = f"compare --model resque.networks:small_cnn --weights w.safetensors --shifted {NEW} --test {NEW_TEST} "
    line += f"--target-accuracy {target} --recipe {RECIPE} --ledger c.db --summary page.md {budget} --json"
    got, out, _ = cli(line)
    made = json.loads(out)
    assert got == code == made["gate"]["code"]
    assert {"options", "best", "ties", "asking", "recommendation"} <= set(made)
    for each in made["options"]:
        assert {"id", "rung", "model", "estimates", "chance", "how_known"} <= set(each)
    page = (folder / "page.md").read_text()
    assert made["recommendation"] in page
    assert "Budget: " in page
    got, out, _ = cli(line.replace("--json", "--details --price-per-kwh 0.3 --country DEU"))
    assert "80% intervals" in out
    assert "What each keeps and needs" in out
