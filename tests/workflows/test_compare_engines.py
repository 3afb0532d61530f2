"""``resque compare`` on an engine: what runs there, and that the result is that of one process."""

import dataclasses
from collections import Counter
from contextlib import nullcontext

import pytest

import resque
from compared import NEW, NEW_TEST, compare, fix_choices, told
from resque.energy.meters import ClockMeter
from resque.errors import ResqueError
from resque.forecasting.comparison import BY_HISTORY
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.training.trainer import Trainer
from resque.workflows.candidates import Candidate
from resque.workflows.comparison_cache import ComparisonCache
from resque.workflows.engine import LocalEngine
from resque.workflows.first_round import first_round
from resque.workflows.measured_tasks import pilot_elsewhere
from resque.workflows.sources import ComparisonRequest
from resque.workflows.trials import Trial
from several_at_once import Disorderly

REACHED = 0.75


@pytest.fixture(autouse=True)
def choices(monkeypatch):
    fix_choices(monkeypatch)


@pytest.fixture
def on(monkeypatch, tmp_path):
    """Compares on an engine."""

    def call(engine):
        monkeypatch.setattr("resque.workflows.compare.open_engine", lambda *_, **__: nullcontext(engine))
        return compare(tmp_path, REACHED, "there.db")

    return call


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The comparison of this process."""
    with pytest.MonkeyPatch.context() as patch:
        fix_choices(patch)
        return compare(tmp_path_factory.mktemp("here"), REACHED, "here.db")


def scored(engine) -> list[str]:
    return sorted(each.rpartition(":")[2] for each in engine.begun if ":" in each)


@pytest.mark.parametrize(("room", "seed"), [(1, 0), (9, 2)])
def test_result_does_not_depend_on_how_many_tasks_run_and_which_ends_first(on, here, tmp_path, room, seed):
    engine = Disorderly(room, seed)
    made = on(engine)
    assert told(made) == told(here)
    assert [row.note != "" for row in made.first_round] == [False, False, True]
    assert scored(engine) == ["build", "wide"]
    assert engine.begun.count("probe") == 6
    stored = Ledger(tmp_path / "there.db").forecasts()
    pilots = [each for each in engine.begun if each.startswith("pilot-")]
    taken = sum(each.pilot is not None for each in stored)
    assert len(stored) == 6 > taken > 0
    assert (len(pilots) > taken) is (room > 1)
    known_s = sum(each.overhead.wall_s + (each.pilot.reading.wall_s if each.pilot else 0.0) for each in stored)
    assert made.asking.wall_s == pytest.approx(known_s)  # with pilots that were not needed in the end
    best = made.option(made.best)
    done = resque.update(best.model, NEW, NEW_TEST, REACHED, forecast=best.id, original="digits@train@300",
                         ledger=tmp_path / "there.db", out=tmp_path / "new", meter=ClockMeter())  # fmt: skip
    assert done.pilot_steps == next(each for each in stored if each.id == best.id).pilot.steps


def test_interrupted_comparison_goes_on_from_what_the_driver_has_kept(on, here, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        on(Disorderly(2, ends_after=11))
    assert not Ledger(tmp_path / "there.db").forecasts()
    kept = {file.stem for file in (tmp_path / "there.db.comparisons").iterdir()}
    kinds = Counter(name.partition("-")[0] for name in kept)
    assert (kinds["scores"], kinds["features"]) == (2, 2)  # of two models
    assert 2 <= kinds["pilot"] <= 3  # of three those whose turn had come
    engine = Disorderly(2)
    assert told(on(engine)) == told(here)
    assert not kept & set(engine.begun)
    assert scored(engine) == []


def test_model_whose_worker_is_lost_is_a_row_with_its_reason(on):
    made = on(Disorderly(3, loses=".*:wide"))
    build, wide, _ = made.first_round
    assert wide.note == "its forward pass was lost 4 times: WorkerCrashedError"
    assert (build.is_kept, wide.is_kept) == (True, False)


@pytest.mark.parametrize("what", ["probe", "pilot"])
def test_lost_probe_or_pilot_is_one_line_and_what_is_known_is_kept(on, tmp_path, what):
    with pytest.raises(ResqueError, match=f"the {what} of .* was lost 4 times: .*start again") as stop:
        on(Disorderly(2, loses=f"{what}.*"))
    assert "\n" not in str(stop.value)
    kinds = Counter(file.stem.partition("-")[0] for file in (tmp_path / "there.db.comparisons").iterdir())
    assert kinds == {"scores": 2, "features": 2}


@pytest.mark.parametrize("change", ["shift", "new task", "extension"])
@pytest.mark.parametrize("names", ["abcdefghij", "jihgfedcba", ""])
def test_scores_of_named_classes_are_those_of_this_process(tmp_path, change, names):
    """Names are numbered as each model does, by a driver that has its files."""
    new, original = (
        dataclasses.replace(resque.load_data(f"digits@train@{n}{shift}"), class_names=tuple("abcdefghij"))
        for n, shift in ((150, "+contrast:5"), (120, ""))
    )
    models = [resque.load_model("resque.networks:small_cnn", seed=seed) for seed in (0, 1)]
    for model in models:
        del model.resque_spec
        model.id2label = dict(enumerate(names))
    asked = ComparisonRequest(new, new, 0.9, Recipe(), None if change == "new task" else original, None, change)
    rows = [
        first_round([Candidate(model) for model in models], asked, ComparisonCache(tmp_path / name), engine)
        for name, engine in (("a", LocalEngine()), ("b", Disorderly(2)), ("b", Disorderly(2)))
    ]
    assert rows[0] == rows[1] == rows[2]
    assert all((each.index is not None, each.note) == (True, "") for each in rows[0])


def test_first_steps_of_a_process_are_not_measured(monkeypatch):
    """A worker imports what the first step needs before its pilot, too."""
    steps, at_windows = [], []
    step, window = Trainer.step, ClockMeter.window

    def counted(trainer):
        steps.append(trainer)
        return step(trainer)

    def opened(meter):
        at_windows.append(len(steps))
        return window(meter)

    job = RetrainingJob(resque.load_data("digits@train@100"), resque.load_data("digits@test@50"), 1.0)
    monkeypatch.setattr(Trainer, "step", counted)
    monkeypatch.setattr(ClockMeter, "window", opened)
    given = {"recipe": job.recipe, "fingerprint": "", "step_cost": None}
    before = (model := resque.load_model("resque.networks:small_cnn")).state_dict()
    before = {name: value.clone() for name, value in before.items()}
    row = pilot_elsewhere(model, job, given, 3, None, "cpu", ClockMeter())
    assert (row["pilot"].steps, at_windows, len(steps)) == (3, [2], 5)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_time_for_pilots_holds(on, monkeypatch):
    engine = Disorderly(9)
    monkeypatch.setattr(Trial, "seconds_for", lambda trial, steps: 1e20)  # longer than there is time
    made = on(engine)
    assert {(each.how_known, each.note) for each in made.options if each.recipe} == {
        (BY_HISTORY, "no time for a pilot")
    }
    assert not any(each.startswith("pilot-") for each in engine.begun)


@pytest.mark.parametrize(
    ("given", "code", "says"), [("--engine spark", 2, "local, ray"), ("--address auto", 1, "add --engine ray")]
)
def test_command_refuses_invalid_engines(cli, given, code, says):
    ended, _, err = cli(f"compare --model m:b --shifted a --test t --target-accuracy 0.5 {given}")
    assert (ended, says in err) == (code, True)
