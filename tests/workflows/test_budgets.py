"""Budgets that end a run, from the command line, from Python and in a custom loop."""

import dataclasses
import json

import pytest

import resque
from doubles import ReplayMeter, synthetic_update
from resque.energy.meters import ClockMeter
from resque.errors import ResqueWarning, SettingError
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.workflows.update import UpdateRequest

SPEC = "resque.networks:small_cnn"
TRAIN, TEST = "digits@16px@train@160+salt_pepper:6", "digits@16px@test@200+salt_pepper:6"
RECIPE = "train-adam,evaluate_every=5,max_epochs=40"
LINE = f"retrain --model {SPEC} --test {TEST} --train {TRAIN} --recipe {RECIPE}"


pytestmark = pytest.mark.usefixtures("short_history")


@pytest.fixture
def replayed(monkeypatch):
    """A meter of energy for the command line."""
    for name in ("update.open_meter_of_nodes", "forecast.open_meter"):
        monkeypatch.setattr(f"resque.workflows.{name}", lambda device: ReplayMeter())


@pytest.fixture
def job(folder, meter):
    return {"train": TRAIN, "test": TEST, "target_accuracy": 0.999, "recipe": RECIPE, "meter": meter}


def test_a_run_that_cannot_arrive_is_ended_early_and_its_entry_says_why(cli, folder, replayed):
    hopeless = f"{LINE} --target-accuracy 0.999 --max-kwh 1000 --confidence 0.6"
    code, out, err = cli(hopeless)
    assert code == 0, err
    (update,) = resque.Ledger("resque.db").updates()
    assert (update.reached, update.stopped_by) == (False, "budget: would not reach")
    assert update.revisions[-1].step == update.cost.steps < 200  # of a step budget of 200
    assert update.revisions[-1].probability_reached < 0.4
    (forecast,) = resque.Ledger("resque.db").forecasts()
    assert update.forecast_id == forecast.id  # made first, stored, settled
    assert dict(forecast.recipe) == dict(update.recipe)
    assert (update.recipe["max_kwh"], update.recipe["max_hours"]) == (None, None)
    assert (folder / f"updates/{update.id}/model.safetensors").is_file()
    saved = f"stopped at step {update.cost.steps} of at most 200: up to"
    assert saved in " ".join(out.split())
    for line in (f"ledger show {update.id}", f"ledger show {forecast.id}"):
        text = " ".join(cli(line)[1].split())
        assert "stopped by budget: would not reach" in text
        assert saved in text
    assert "! ended by its budget" in " ".join(cli("ledger list")[1].split())
    assert cli("report --out page.html")[0] == 0
    page = (folder / "page.html").read_text()
    assert saved in page
    assert "budget: would not reach" in page
    code, _, err = cli(f"{hopeless} --resume --max-hours 1000")
    assert code == 1
    assert f"this run has ended, as update {update.id}" in err


def test_a_run_within_its_budget_is_not_touched(cli, replayed):
    line = f"{LINE} --target-accuracy 0.3 --json"
    alone = json.loads(cli(f"{line} --ledger alone.db")[1])
    code, out, err = cli(
        f"{line} --max-kwh 1e3 --max-hours 1e3 --max-kg 1e3 --max-price 1e6 --country FRA --price-per-kwh 1"
    )
    assert code == 0, err
    update = json.loads(out)
    for field in ("child", "stopped_by", "reached", "recipe", "seed"):
        assert update[field] == alone[field]
    for field in ("steps", "accuracy", "loss", "gradient_norm", "parameter_change"):
        assert update["curve"][field] == alone["curve"][field]
    assert update["stopped_by"] == "target"
    assert update["forecast_id"] is not None


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_hours": 1e-9}, "hours"), ({"max_kwh": 1e-12}, "kWh"), ({"max_kg": 1e-12}, "kg CO2e"),
        ({"max_price": 1e-12}, "price"), ({"max_epochs": 1}, "epochs"), ({"max_kwh": 0.0}, "kWh"),
    ],
)  # fmt: skip
def test_a_budget_that_is_spent_ends_the_run(job, limit, reason):
    update = resque.update(SPEC, **job, budget=resque.Budget(**limit), country="FRA", tariff=resque.Tariff(per_kwh=1.0))
    assert (update.stopped_by, update.reached) == (f"budget: {reason}", False)
    assert update.cost.steps == (0 if 0.0 in limit.values() or reason == "price" else 5)  # asking has a price, too


@pytest.mark.parametrize(("own", "reason"), [("max_hours=1e-9", "max hours"), ("max_kwh=1e-12", "max kWh")])
def test_limits_of_the_recipe_stay_hard_and_the_smaller_wins(job, own, reason):
    job["recipe"] += f",{own}"
    generous, tight = resque.Budget(max_hours=1e3, max_kwh=1e3), resque.Budget(max_epochs=0)
    for budget, expected in ((generous, reason), (tight, "budget: epochs")):
        update = resque.update(SPEC, **job, budget=budget)
        assert update.stopped_by == expected
        name, limit = own.split("=")
        assert update.recipe[name] == float(limit)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--max-kg 1", ["--max-kg", "--country or --intensity"]),
        ("--max-price 1", ["--max-price", "--price-per-kwh or --price-per-hour"]),
        ("--max-kwh 1", ["--max-kwh", "no meter measured energy"]),
        ("--max-kg 1 --country FRA", ["--max-kg", "no meter measured energy"]),
        ("--max-price 1 --price-per-kwh 1", ["--max-price", "no meter measured energy"]),
        ("--confidence 0.9", ["--confidence", "--max-kwh"]),
        ("--max-hours 1 --from-scratch", ["scratch"]),
    ],
)
def test_a_budget_that_cannot_be_held_is_refused_before_training(cli, folder, monkeypatch, options, named):
    def trained(*arguments, **more):
        raise AssertionError("trained")

    for name in ("running.retrain", "budgets.probe", "passes.probe"):
        monkeypatch.setattr(f"resque.workflows.{name}", trained)
    monkeypatch.setattr("resque.workflows.update.open_meter_of_nodes", lambda device: ClockMeter())
    code, _, err = cli(f"{LINE} --target-accuracy 0.9 {options}")
    assert code == 1
    assert all(word in " ".join(err.split()) for word in named)
    assert not (folder / "resque.db").exists()
    assert not (folder / "updates").exists()


class KilledError(Exception):
    pass


@pytest.mark.parametrize("other", [{"max_hours": 1e3}, {"max_hours": 1e-9}, None])
def test_a_killed_run_goes_on_with_another_budget(job, folder, monkeypatch, other):
    """It is the same run, and settles the forecast that was made for it; a smaller budget may be spent already."""

    def kill(progress):
        if progress.step > 12:
            raise KilledError

    first = resque.Budget(max_hours=2e3)
    job["recipe"] = "train-adam,evaluate_every=5,max_epochs=4"
    monkeypatch.setattr("resque.forecasting.landmarking.FIRST_LANDMARK", 1000)  # only what is spent ends it
    whole = resque.update(SPEC, **job, ledger="other.db")
    with monkeypatch.context() as patch:
        patch.setattr("resque.workflows.running.progress_text", kill)
        with pytest.raises(KilledError):
            UpdateRequest(model=SPEC, **job, budget=first, checkpoint_every_s=0.0).run()
    (forecast,) = resque.Ledger("resque.db").forecasts()
    budget = None if other is None else resque.Budget(**other)
    update = resque.update(SPEC, **job, budget=budget, resume=True)
    assert (update.resumed, update.started_utc >= forecast.created_utc) == (1, True)
    assert resque.Ledger("resque.db").forecasts() == [forecast]
    assert update.forecast_id == (None if other is None else forecast.id)
    if other is None or budget.max_hours > 1:
        assert (update.child, update.stopped_by) == (whole.child, "max")
    else:
        assert (update.stopped_by, update.cost.steps) == ("budget: hours", 10)


def test_too_few_updates_for_a_forecast_leave_what_is_spent(job, monkeypatch):
    for module in ("workflows.forecast", "forecasting.landmarking"):
        monkeypatch.setattr(f"resque.{module}.bundled_updates", lambda: ())
    with pytest.warns(ResqueWarning, match="the budget ends the run only when it is spent: "):
        update = resque.update(SPEC, **job, budget=resque.Budget(max_epochs=2))
    assert (update.stopped_by, update.cost.epochs, update.forecast_id) == ("budget: epochs", 2.0, None)


def test_a_new_head_gets_its_forecast_first(job):
    """The labels are parity, a new task."""
    data = {name: resque.load_data(job[name]) for name in ("train", "test")}
    job |= {name: dataclasses.replace(each, labels=each.labels % 2) for name, each in data.items()}
    job |= {"target_accuracy": 0.6, "new_task": True}
    alone = resque.update(SPEC, **job, ledger="alone.db")
    update = resque.update(SPEC, **job, budget=resque.Budget(max_hours=1e3), confidence=0.999)
    ((told, done),) = resque.Ledger("resque.db").settled()
    assert (told.features.task_index is None, done.id) == (False, update.id)
    assert (update.child, update.stopped_by, alone.cost.steps > 0) == (alone.child, "target", True)


def test_the_project_file_has_the_budget_of_every_update(cli, folder, replayed):
    (folder / "resque.toml").write_text("[budget]\nmax_hours = 1e-9\nconfidence = 0.8\n")
    line = f"{LINE} --target-accuracy 0.999 --json"
    assert json.loads(cli(line)[1])["stopped_by"] == "budget: hours"
    assert json.loads(cli(f"{line} --max-hours 1e3 --max-epochs 1")[1])["stopped_by"] == "max"
    (folder / "resque.toml").write_text("[budget]\nconfidence = 0.8\n")
    assert json.loads(cli(f"{line} --max-epochs 1")[1])["stopped_by"] == "max"


# --- a loop of the user's own


@pytest.fixture
def forecast(folder):
    """A forecast in the ledger; its step budget is 200."""
    return resque.forecast(SPEC, TRAIN, TEST, 0.9, recipe=RECIPE, ledger="own.db", meter=ReplayMeter(), country="FRA")


def run(steps, accuracy_at, **options):
    """A loop that ends when it should."""
    with resque.record("own.db", meter=ReplayMeter(), **options) as running:
        for step in range(0, steps + 1, 10):
            running.evaluated(step=step, accuracy=accuracy_at(step))
            if running.should_stop:
                break
    return running


def test_a_loop_that_cannot_arrive_is_told_to_stop_and_why(forecast):
    running = run(190, lambda step: 0.2, forecast=forecast, budget=resque.Budget(max_kwh=1e3), confidence=0.6)
    assert running.should_stop == running.update.stopped_by == "budget: would not reach"
    assert (running.update.reached, running.update.forecast_id) == (False, forecast.id)
    assert 10 <= running.update.cost.steps < 190
    settled = summarize_settlements(resque.Ledger("own.db").settled())
    assert settled.probability_score is None


def test_a_loop_within_its_budget_is_not_told_to_stop(forecast):
    budget = resque.Budget(max_hours=1e3, max_kwh=1e3, max_kg=1e3)
    running = run(60, lambda step: min(0.9, 0.3 + step / 15), forecast=forecast, budget=budget)
    assert (running.should_stop, running.update.stopped_by, running.update.reached) == (None, "target", True)


@pytest.mark.parametrize("ignored", [True, False])
def test_a_spent_budget_tells_a_loop_without_a_forecast(folder, ignored):
    with resque.record(
        "own.db", meter=ClockMeter(), target_accuracy=0.9, budget=resque.Budget(max_hours=0.0)
    ) as running:
        assert not running.should_stop
        running.evaluated(step=0, accuracy=0.1)
        assert running.should_stop == "budget: hours"
        if ignored:
            running.evaluated(step=10, accuracy=0.95)
    assert running.update.stopped_by == ("target" if ignored else "budget: hours")


@pytest.mark.parametrize(
    ("limits", "more", "named"),
    [
        ({"max_kwh": 1.0}, {}, "name a forecast"),
        ({"max_kg": 1.0}, {}, "--country"),
        ({"max_price": 1.0}, {}, "--price-per-kwh"),
        ({"max_price": 1.0}, {"tariff": resque.Tariff(per_kwh=1.0)}, "name a forecast"),
        ({"max_hours": 1.0}, {"confidence": 1.5}, "level"),
    ],
)
def test_record_refuses_a_budget_that_it_cannot_hold_before_the_block(folder, limits, more, named):
    with (
        pytest.raises(SettingError, match=named),
        resque.record("own.db", meter=ClockMeter(), budget=resque.Budget(**limits), **more),
    ):
        raise AssertionError("the block began")
    assert not (folder / "own.db").exists()


def test_entries_of_a_ledger_name_what_ended_them(cli, folder):
    ended = dataclasses.replace(
        synthetic_update("u1", index=0.1, steps=10, reached=False), stopped_by="budget: kg CO2e"
    )
    resque.Ledger("resque.db").extend([ended, synthetic_update("u2", index=0.1, steps=10, reached=False)])
    text = cli("ledger list")[1]
    assert text.count("!") == 2  # the mark and its meaning
    assert text.count("*") == 2
