"""The life of a model: sums of what its entries took, whatever the lines, and never silently too small."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_forecast, synthetic_update
from resque.energy.grid import Grid
from resque.energy.price import Spending, Tariff, price_of
from resque.energy.reading import EnergyReading
from resque.forecasting.life import ORIGINAL, QUESTIONS, SCRATCH, UPDATES, Total, lives
from resque.forecasting.model_lines import began_untrained
from resque.ledger.records import LearningCurve, Pilot, Question

GRID = Grid("TST", 400.0, "a table")
MODELS = st.sampled_from(["p0", "p1", "p2", "p3"])
KWH = st.none() | st.floats(0.0, 2.0)


def one_line(life):
    return " ".join(str(life).split())


def reading(wall_s, kwh):
    return EnergyReading(wall_s, kwh, {}, {}, "replay")


@st.composite
def ledgers(draw):
    """Updates and forecasts of any lineage: chains, forks, circles, from scratch, with pilots continued or not."""
    updates, forecasts = [], []
    for n in range(draw(st.integers(0, 8))):
        update = synthetic_update(f"u{n}", index=0.1, steps=draw(st.integers(1, 50)), reached=draw(st.booleans()))
        kwh = draw(KWH)
        update = dataclasses.replace(
            update, parent=draw(MODELS), child=draw(MODELS), from_scratch=draw(st.booleans()),
            created_utc=f"2026-01-{draw(st.integers(1, 28)):02}T00:00:00Z", tariff=draw(st.sampled_from(TARIFFS)),
            energy=reading(draw(st.floats(1.0, 9.0)), kwh), cost=dataclasses.replace(update.cost, energy_kwh=kwh),
            grid=draw(st.sampled_from([None, GRID])),
        )  # fmt: skip
        if draw(st.booleans()):
            forecast = dataclasses.replace(
                synthetic_forecast(update), parent=draw(MODELS), overhead=reading(draw(st.floats(1.0, 9.0)), draw(KWH)),
                tariff=draw(st.sampled_from(TARIFFS)), pilot=draw(st.sampled_from([None, PILOT])),
            )  # fmt: skip
            forecasts.append(forecast)
            if draw(st.booleans()):
                continued = forecast.pilot is not None and draw(st.booleans())
                update = dataclasses.replace(update, forecast_id=forecast.id, pilot_steps=int(continued))
        updates.append(update)
    dates = [f"2026-01-{draw(st.integers(1, 28)):02}T00:00:00Z" for _ in range(draw(st.integers(0, 3)))]
    questions = [
        Question(f"q{n}", date, draw(st.sampled_from(["net", "other"])), draw(MODELS), "npz:new.npz", 0.9,
                 Spending(draw(st.floats(1.0, 9.0)), draw(KWH)), GRID, draw(st.sampled_from(TARIFFS)))
        for n, date in enumerate(dates)
    ]  # fmt: skip
    return updates, forecasts, questions


TARIFFS = [None, Tariff(0.3, 2.0), Tariff(0.1, 1.0, "USD")]
NONE = (None,) * 2
PILOT = Pilot(
    1, 0, "", LearningCurve((0, 1), (0.5, 0.6), NONE, (0.0, 1.0), NONE, NONE, NONE, 10), reading(3.0, 0.25), 1.0
)


def expected_terms(updates, forecasts, questions):
    """What each entry took, one by one: ``(spending, tariff)``."""
    for update in updates:
        yield update.spending, update.tariff
    for forecast in forecasts:
        settling = next((update for update in updates if update.forecast_id == forecast.id), None)
        continued = settling is not None and bool(settling.pilot_steps)
        yield forecast.asking(continued), forecast.tariff or (settling.tariff if settling else None)
    for question in questions:
        yield question.spending, question.tariff


@given(ledgers())
def test_totals_are_the_sum_over_lines_and_parts_and_nothing_is_counted_twice(ledger):
    (updates, forecasts, questions), found, terms = ledger, lives(*ledger), list(expected_terms(*ledger))
    for partition in ([life.total for life in found], [part for life in found for part in life.parts.values()]):
        assert sum(part.n for part in partition) == sum(map(len, ledger))
        assert math.fsum(part.wall_s or 0.0 for part in partition) == pytest.approx(sum(s.wall_s for s, _ in terms))
        known = [s.energy_kwh for s, _ in terms if s.energy_kwh is not None]
        assert sum(part.energy_kwh.known for part in partition) == len(known)
        assert sum(part.energy_kwh.of for part in partition) == len(terms)
        assert math.fsum(part.energy_kwh.value or 0.0 for part in partition) == pytest.approx(math.fsum(known))
        for currency in ("EUR", "USD"):
            prices = [price_of(t, [s]) for s, t in terms if t is not None and t.currency == currency]
            own = [part.prices[currency] for part in partition if currency in part.prices]
            assert math.fsum(total.value or 0.0 for total in own) == pytest.approx(
                math.fsum(price for price in prices if price is not None)
            )
    untrained = began_untrained(updates, forecasts)
    assert untrained >= {update.id for update in updates if update.from_scratch}
    assert sum(life.parts[name].n for life in found for name in (ORIGINAL, SCRATCH)) == len(untrained)
    assert sum(life.parts[QUESTIONS].n for life in found) == len(forecasts) + len(questions)
    made = {update.child for update in updates if update.id in untrained}
    assert all(life.root in made for life in found if life.parts[ORIGINAL].n)
    assert len({life.root for life in found}) == len(found)


@given(ledgers(), st.floats(0.0, 20.0))
def test_an_unknown_energy_is_said_and_a_budget_has_at_most_its_rest(ledger, yearly_kwh):
    """The budget is one for all lines, and each says its share."""
    found = lives(*ledger, yearly_kwh=yearly_kwh)
    spent = Total.joined(life.spent_kwh for life in found)
    assert len({life.left_kwh for life in found}) <= 1
    for life in found:
        for total in (life.total.energy_kwh, life.total.carbon_kg, *life.total.prices.values()):
            assert (total.value is None) is (total.known == 0)
            if not total.is_complete and total.known:
                assert f"({total.known} of {total.of} known)" in life.sentence
        whole = (life.total.energy_kwh, life.total.carbon_kg, *life.total.prices.values())
        assert ("known)" in life.sentence) is any(total.known < total.of and total.known for total in whole)
        if life.left_kwh is not None:
            assert life.left_kwh == pytest.approx(yearly_kwh - spent.value)
            exceeded = life.left_kwh < 0.0
            assert ("is exceeded by" in life.sentence) is exceeded
            assert ("at most" in life.sentence) is (not exceeded and not spent.is_complete)
            assert ("by all model lines; " in life.sentence) is (len(found) > 1)
            assert ("at least" in life.sentence) is (0 < life.spent_kwh.known < life.spent_kwh.of and len(found) > 1)


def test_a_continued_pilot_is_training_and_an_abandoned_one_is_asking():
    update = synthetic_update("u", index=0.1, steps=10)
    forecast = dataclasses.replace(synthetic_forecast(update), pilot=PILOT)
    asked = {
        steps: lives([dataclasses.replace(update, forecast_id=forecast.id, pilot_steps=steps)], [forecast])[0]
        for steps in (0, 1)
    }
    (pending,) = lives([], [forecast])
    assert asked[1].parts[QUESTIONS].wall_s == forecast.overhead.wall_s
    for life in (asked[0], pending):
        assert life.parts[QUESTIONS].wall_s == forecast.overhead.wall_s + PILOT.reading.wall_s
        assert life.parts[QUESTIONS].energy_kwh.value == pytest.approx(1e-6 + 0.25)


def test_children_of_children_are_of_the_line_and_a_fork_too():
    chain = [("root", "a"), ("a", "b"), ("a", "c"), ("other", "d")]
    updates = [
        dataclasses.replace(synthetic_update(f"u{n}", index=0.1, steps=10), parent=parent, child=child)
        for n, (parent, child) in enumerate(chain)
    ]
    found = {life.root: life.parts[UPDATES].n for life in lives(updates, [])}
    assert found == {"root": 3, "other": 1}


def test_original_training_and_a_comparison_from_scratch_are_of_the_line_and_reuse_is_compared():
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=10), parent="root", child="a")
    original = dataclasses.replace(update, id="o", parent="random", child="root", from_scratch=True, train_data="first")
    scratch = dataclasses.replace(update, id="s", parent="random2", child="z", from_scratch=True)
    scratch = dataclasses.replace(scratch, energy=reading(9.0, 5e-5), cost=dataclasses.replace(scratch.cost))
    (life,) = lives([original, update, scratch], [])
    assert (life.root, *(life.parts[part].n for part in (ORIGINAL, UPDATES, SCRATCH))) == ("root", 1, 1, 1)
    assert life.scratch_kwh == pytest.approx((1e-5 + 5e-5) / 2)
    told = "reuse took 0.01 Wh, for 1 update (1 arrived) and all questions; 1 training from scratch would take 0.03 Wh"
    assert told in " ".join(str(life).split())
    missed = dataclasses.replace(update, id="m", child="b", reached=False, created_utc="2025-01-01T00:00:00+00:00")
    question = dataclasses.replace(synthetic_forecast(update), id="q")
    (life,) = lives([original, update, missed, scratch], [question])
    asked_kwh = question.asking(continued=False).energy_kwh
    assert life.reuse_kwh.value == pytest.approx(2e-5 + asked_kwh)  # what did not arrive was spent, too
    assert life.scratch_kwh == pytest.approx((1e-5 + 5e-5) / 2)
    assert "for 2 updates (1 arrived) and all questions" in " ".join(str(life).split())
    asked = dataclasses.replace(synthetic_forecast(update), id="f-s", parent="random3", from_scratch=True)
    (life,) = lives([update], [asked])  # a comparison's forecast of new weights
    assert life.scratch_kwh == pytest.approx(1.2e-5)
    assert "the mean of 1 forecast" in str(life)


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("targets", [1, 2])
def test_forecasts_of_new_weights_make_no_line_of_their_own(is_done, targets):
    """Carried out, their training is no reuse."""
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=10), parent="root", child="a")
    asked = [
        dataclasses.replace(synthetic_forecast(update), id=f"f{n}", parent="random", from_scratch=True)
        for n in range(targets)
    ]
    done = dataclasses.replace(update, id="s", parent="random", child="z", from_scratch=True, forecast_id="f0")
    (life,) = lives([update, *([done] if is_done else [])], asked)
    assert (life.root, *(life.parts[part].n for part in (ORIGINAL, UPDATES, SCRATCH))) == ("root", 0, 1, is_done)
    assert life.parts[QUESTIONS].n == targets
    assert (life.arrived, life.reuse_kwh.of) == (1, 1 + targets)


FIRST = {"index_rad": None, "classes": 10}


def starting(update, accuracy, **features):
    curve = dataclasses.replace(update.curve, accuracy=(accuracy, *update.curve.accuracy[1:]))
    return dataclasses.replace(update, curve=curve, features=dataclasses.replace(update.features, **FIRST | features))


@pytest.mark.parametrize("known_by", ["accuracy", "weights"])
@pytest.mark.parametrize("scratch", ["none", "beside", "a line of its own"])
def test_the_training_that_made_the_root_is_the_original_one_whether_flagged_or_not(known_by, scratch):
    """Another from scratch, also of the same weights, is no reuse and no original training of this line."""
    accuracy = 0.12 if known_by == "accuracy" else 0.5
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=10), parent="root", child="a", shift_type=None)
    first = dataclasses.replace(starting(update, accuracy), id="o", parent="random", child="root", train_data="clean")
    same = "random" if known_by == "weights" else "other"
    asked = dataclasses.replace(synthetic_forecast(update), id="f", parent=same, from_scratch=True)
    done = dataclasses.replace(update, id="s", parent=same, child="z", from_scratch=True, forecast_id="f")
    later = dataclasses.replace(update, id="l", parent="z", child="y", train_data="later")
    updates = [first, update, *([done] if scratch != "none" else []), *([later] if "line" in scratch else [])]
    found = {
        life.root: [life.parts[part].n for part in (ORIGINAL, UPDATES, SCRATCH)] for life in lives(updates, [asked])
    }
    assert found["root"] == [1, 1, scratch == "beside"]
    assert found.get("z") == ([1, 1, 0] if "line" in scratch else None)
    (life,) = (each for each in lives(updates, [asked]) if each.root == "root")
    assert (life.arrived, life.reuse_kwh.of) == (1, 1 + life.parts[QUESTIONS].n)
    assert "not in the ledger" not in str(life)


@pytest.mark.parametrize("changed", [{"accuracy": 0.5}, {"index_rad": 0.3}, {"task_index": 0.4}, {"classes": None}])
def test_an_update_of_a_trained_model_is_no_original_training(changed):
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=10), parent="p", child="a", shift_type=None)
    assert not began_untrained([starting(update, **{"accuracy": 0.12, **changed})], [])
    guessing = starting(update, 0.12)
    assert began_untrained([guessing], []) == {"u"}
    assert not began_untrained([dataclasses.replace(guessing, shift_type="fog")], [])
    for other in (
        dataclasses.replace(update, id="v", child="b"),  # of the same parent
        dataclasses.replace(update, id="v", parent="q", child="p"),  # which made the parent
    ):
        assert not began_untrained([guessing, other], [])


def test_pilots_that_count_with_updates_are_named():
    update = dataclasses.replace(synthetic_update("u", index=0.1, steps=10), pilot_steps=1, forecast_id="f-u")
    forecast = dataclasses.replace(synthetic_forecast(update), id="f-u", pilot=PILOT)
    (life,) = lives([update], [forecast])
    assert "pilots that updates continued (1, 3 s) are counted with those updates, not as questions" in one_line(life)
    (pending,) = lives([], [forecast])
    assert "continued" not in str(pending)


def test_a_yearly_budget_is_shared_by_all_lines():
    ups = [dataclasses.replace(synthetic_update(f"u{n}", index=0.1, steps=10), parent=f"p{n}") for n in range(2)]
    ups = [dataclasses.replace(each, energy=reading(9.0, 5.0 * n + 5.0)) for n, each in enumerate(ups)]
    first, second = lives(ups, [], yearly_kwh=20.0)
    assert first.left_kwh == second.left_kwh == 5.0
    shared = "Of the year's budget of 20 kWh, 5 kWh is left by all model lines; this one took"
    assert f"{shared} 5 kWh (25%)." in one_line(first)
    assert f"{shared} 10 kWh (50%)." in one_line(second)


def test_an_original_training_that_is_not_in_the_ledger_is_unknown_and_not_free():
    update = synthetic_update("u", index=0.1, steps=10)
    (life,) = lives([update], [])
    original = life.parts[ORIGINAL]
    assert (original.n, original.wall_s, original.energy_kwh.value) == (0, None, None)
    assert "the original training is not in the ledger, so not in these sums" in one_line(life)
    trained = dataclasses.replace(update, id="o", parent="random", child="p", from_scratch=True)
    (known,) = lives([trained, update], [])
    assert known.parts[ORIGINAL].n == 1
    assert "not in the ledger" not in one_line(known)


def test_a_year_ends_with_the_day_that_is_asked_about():
    update = synthetic_update("u", index=0.1, steps=10)
    old = dataclasses.replace(update, id="v", created_utc="2024-12-01T00:00:00Z")
    (life,) = lives([old, update], [], yearly_kwh=1.0, today_utc="2026-01-02T00:00:00Z")
    assert (life.spent_kwh.of, life.total.n) == (1, 2)


@given(st.lists(KWH, max_size=6))
def test_a_total_is_none_only_where_nothing_is_known(values):
    total = Total.of_values(values)
    known = [value for value in values if value is not None]
    assert (total.known, total.of) == (len(known), len(values))
    assert total.value == (None if values and not known else pytest.approx(math.fsum(known)))
