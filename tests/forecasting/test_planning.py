"""The schedule of updates against an enumeration, the drift's coverage, dates, and what is recommended."""

import dataclasses
import datetime
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from doubles import synthetic_forecast, synthetic_update
from resque.energy.price import Tariff
from resque.errors import DataError, SettingError
from resque.forecasting.budget import Budget
from resque.forecasting.drift import AccuracyPoint, fit_drift
from resque.forecasting.objective import Objective
from resque.forecasting.plan import LATER, NEVER, NOW, UNDECIDED, PlanWindow
from resque.forecasting.planner import make_plan
from resque.forecasting.planning import best_schedule
from resque.forecasting.windows import Calendar
from resque.ledger.records import MissingLabels

TARIFF = Tariff(per_hour=1.0)


def cost_of(stay: np.ndarray, price: float, updates: tuple[int, ...]) -> float:
    """The cost of a schedule, window by window."""
    last = [max((at for at in updates if at <= w), default=0) for w in range(1, stay.shape[1] + 1)]
    return price * len(updates) + sum(stay[u, w] for w, u in enumerate(last))


def enumerated(stay: np.ndarray, price: float, at_most: int) -> float:
    """The least cost of all schedules with so many updates at most."""
    windows = range(1, stay.shape[1] + 1)
    counts = range(min(at_most, len(windows)) + 1)
    return min(cost_of(stay, price, each) for n in counts for each in itertools.combinations(windows, n))


stays = st.integers(1, 7).flatmap(lambda n: arrays(float, (n + 1, n), elements=st.floats(0.0, 10.0)))


@given(stays, st.floats(0.0, 12.0), st.none() | st.integers(0, 8))
def test_schedule_costs_what_the_best_of_all_costs(stay, price, at_most):
    cost, updates = best_schedule(stay, price, at_most)
    assert cost == pytest.approx(enumerated(stay, price, stay.shape[1] if at_most is None else at_most), abs=1e-9)
    assert cost == pytest.approx(cost_of(stay, price, updates), abs=1e-9)
    assert list(updates) == sorted(set(updates))
    assert at_most is None or len(updates) <= at_most


@given(st.integers(1, 8).flatmap(lambda n: arrays(bool, (n + 1, n))), st.none() | st.integers(0, 3))
def test_among_equal_schedules_the_first_update_is_as_late_as_can_be(below, at_most):
    """The floor alone: each window below it costs more than all updates."""
    stay = below * 100.0
    cost, updates = best_schedule(stay, 1.0, at_most)
    windows = range(1, stay.shape[1] + 1)
    counts = range(min(len(windows), len(windows) if at_most is None else at_most) + 1)
    all_of_them = [each for n in counts for each in itertools.combinations(windows, n)]
    best = [each for each in all_of_them if cost_of(stay, 1.0, each) == cost]
    late = len(windows) + 1
    assert (updates or (late,))[0] == max((each or (late,))[0] for each in best)


# ---------------------------------------------------------------------------------------------------------------- drift


@pytest.mark.parametrize("n", [3, 4, 7, 12])
def test_drift_bounds_cover_a_later_window_at_the_nominal_rate(n):
    random, covered, at = np.random.default_rng(n), [], np.arange(1.0 - n, 1.0)
    for _ in range(300):
        logits = np.append(at, 5.0) * -0.4 + 0.1 * random.standard_normal(n + 1)
        *past, later = 1.0 / (1.0 + np.exp(-logits))
        drift = fit_drift([AccuracyPoint(t, a, 10**6) for t, a in zip(at, past, strict=True)], level=0.8)
        low, high = (float(drift.accuracy(np.array(5.0), bound)) for bound in (-1, 1))
        covered.append(low <= later <= high)
    assert 0.74 < np.mean(covered) < 0.9


@given(st.integers(0, 8), st.floats(0.05, 0.95))
def test_one_strange_window_does_not_turn_the_line(which, strange):
    points = [AccuracyPoint(float(t), 1.0 / (1.0 + np.exp(0.1 * t + 0.5)), 10**6) for t in range(-8, 1)]
    points[which] = dataclasses.replace(points[which], accuracy=strange)
    drift = fit_drift(points)
    assert drift.slope == pytest.approx(-0.1, abs=0.02)
    assert drift.logit_now == pytest.approx(-0.5, abs=0.1)


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=8), st.integers(1, 5000), st.none() | st.floats(0.1, 1.5))
def test_accuracies_stay_between_zero_and_one_and_in_order(accuracies, samples, error):
    points = [AccuracyPoint(float(t - len(accuracies)), a, samples, error) for t, a in enumerate(accuracies)]
    drift = fit_drift(points)
    ahead = np.arange(1.0, 13.0)
    for low, middle, high in (
        [drift.accuracy(ahead, bound) for bound in (-1, 0, 1)],
        [drift.accuracy_after_update(0.9, ahead, bound) for bound in (-1, 0, 1)],
    ):
        assert (low >= 0.0).all()
        assert (high <= 1.0).all()
        assert (low <= middle).all()
        assert (middle <= high).all()
        assert (np.diff(middle) <= 1e-12).all()


def test_estimates_without_labels_widen_the_bounds_by_the_error_they_share():
    points = [AccuracyPoint(float(t), 0.8 + 0.01 * t, 10**6) for t in range(-9, 1)]
    widths = []
    for error in (None, 0.7):
        drift = fit_drift([dataclasses.replace(each, error_logit=error) for each in points])
        widths.append(float(drift.accuracy(np.array(1.0), 1) - drift.accuracy(np.array(1.0), -1)))
    assert widths[1] > 10 * widths[0] > 0.0


# ---------------------------------------------------------------------------------------------------------------- dates

DATES = st.dates(datetime.date(1950, 1, 1), datetime.date(2070, 1, 1))
UNITS = st.sampled_from(["%Y-%m", "%G-W%V", "%Y-%m-%d"])


@given(st.lists(DATES, min_size=1, max_size=9), UNITS)
def test_dates_in_order_are_read_and_positions_are_those_of_time(days, unit):
    dates = sorted({day.strftime(unit) for day in days})
    calendar = Calendar.of(dates)
    assert calendar.positions[-1] == 0.0
    assert list(calendar.positions) == sorted(set(calendar.positions))
    assert calendar.name(0) == dates[-1]
    assert Calendar.of([*dates, calendar.name(1)]).numbers[-1] == calendar.numbers[-1] + calendar.window
    assert calendar.per_year >= 1


@given(st.lists(DATES, min_size=2, max_size=6, unique=True), UNITS, st.randoms())
def test_dates_out_of_order_or_there_twice_are_refused_in_one_line(days, unit, random):
    dates = [day.strftime(unit) for day in days]
    if dates == sorted(set(dates)):
        dates.insert(0, random.choice(dates))
    with pytest.raises(DataError, match=r"^batch [\d\-W]+ (comes after|is there twice)[^\n]*$"):
        Calendar.of(dates)


@pytest.mark.parametrize(
    "dates",
    [[], [""], ["2026"], ["2026-13"], ["2026-00"], ["2026-02-30"], ["2026-W54"], ["2025-W53"], ["26-01"], ["jan"],
     ["2026-1"], ["2026-01\n"], ["9999-12"], ["0000-01"], ["٢٠٢٦-٠١"], ["2026-01", "2026-W09"],
     ["2026-01", "2026-02-01"]],
)  # fmt: skip
def test_what_is_no_date_is_refused_in_one_line(dates):
    with pytest.raises(DataError) as refused:
        Calendar.of(dates)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("dates", "per_year", "window"),
    [
        (["2026-01", "2026-02", "2026-03"], 12, "2026-04"),
        (["2025-06", "2025-09", "2025-12"], 4, "2026-03"),
        (["2025-W51", "2025-W52"], 52, "2026-W01"),
        (["2026-12-30", "2026-12-31"], 365, "2027-01-01"),
        (["2026-01-01", "2026-01-15"], 26, "2026-01-29"),
        (["2026-05"], 12, "2026-06"),
    ],
)
def test_a_year_has_as_many_windows_as_the_dates_are_apart(dates, per_year, window):
    calendar = Calendar.of(dates)
    assert (calendar.per_year, calendar.name(1)) == (per_year, window)


# ----------------------------------------------------------------------------------------------------------- the advice


def planned(accuracies, objective, *, target=0.9, seconds=None, issues=(), labels=0, chance=0.95):
    """A plan from monthly accuracies; an update takes so many seconds, about, and a tariff of 1 per hour."""
    dates = [f"{2024 + month // 12}-{month % 12 + 1:02d}" for month in range(len(accuracies))]
    update = synthetic_update("u", index=0.1, steps=100, accuracy=accuracies[-1], target=target)
    forecast = dataclasses.replace(
        synthetic_forecast(update, probability=chance), target_accuracy=target, reliability_issues=tuple(issues),
        missing_labels=MissingLabels(labels, 0), level=0.8, pilot=None,
    )  # fmt: skip
    forecast = dataclasses.replace(forecast, features=dataclasses.replace(forecast.features, evaluation_s=0.0))
    if seconds is not None:
        factor = seconds / forecast.estimates["wall_s"].value
        from resque.forecasting.costs import scale

        forecast = dataclasses.replace(
            forecast, estimates={name: scale(each, factor) for name, each in forecast.estimates.items()}
        )
    windows = [
        PlanWindow(date, "d", 1000, 0.1, "true", a, "measured") for date, a in zip(dates, accuracies, strict=True)
    ]
    return make_plan(forecast, windows, Calendar.of(dates), objective)


def falling(start, end, n=6):
    return [float(a) for a in np.linspace(start, end, n)]


def by_floor(floor, yearly=None):
    return Objective(floor, None, None, Tariff(), yearly or Budget())


def by_price(price, samples=1000, floor=None):
    return Objective(floor, price, samples, TARIFF, Budget())


KWH = planned(falling(0.85, 0.75), by_floor(0.7)).now.estimates["energy_kwh"].upper


def check_order(made):
    due = [each or "9999" for each in (made.later.earliest, made.later.window, made.later.latest)]
    assert due == sorted(due)


@given(st.floats(0.5, 0.85), st.floats(0.0, 0.2), st.floats(0.4, 0.85), st.integers(0, 13), st.booleans())
def test_within_a_small_budget_dates_are_in_order_and_reasons_are_true(end, drop, floor, most, is_priced):
    price = (1e-3, 1000, TARIFF) if is_priced else (None, None, Tariff())
    yearly = Budget(max_kwh=(most + 0.5) * KWH)
    made = planned(falling(end + drop * 0.5, end), Objective(floor, *price, yearly))
    check_order(made)
    best, never = made.cadences[0], made.cadences[-1]
    assert len(best.updates) <= most
    said = made.recommendation
    if "an update would save less" in said:
        assert all(each.total.value >= never.total.value for each in made.cadences)
    if "the budget allows none" in said:
        assert (most, made.budget.code) == (0, 3)  # whether a floor or the price of errors asks for updates
    if made.decision == LATER and made.windows[-1].accuracy < floor:
        assert f"the budget allows {len(best.updates)} update" in said
    assert ("(in doubt)" in said) is False


@pytest.mark.parametrize("issues", [(), ("few", "fewer")])
@pytest.mark.parametrize("n", [1, 6])
def test_a_chance_in_doubt_is_said_to_be(issues, n):
    made = planned(falling(0.75, 0.7, n), by_floor(0.78), issues=issues)
    assert ("95% likely to reach 0.90 (in doubt)" in made.recommendation) is bool(issues)


@given(st.floats(0.5, 0.85), st.floats(0.0, 0.2), st.floats(0.4, 0.85), st.none() | st.floats(1e-6, 10.0))
def test_the_plan_is_the_cheapest_of_all_cadences_and_its_parts_agree(end, drop, floor, price):
    made = planned(falling(end + drop * 0.5, end), by_floor(floor) if price is None else by_price(price, floor=floor))
    best, rest = made.cadences[0], made.cadences[1:]
    assert best.name == "planned"
    assert [each.every for each in rest] == [1, 2, 3, 6, 12, None]
    assert [len(each.updates) for each in rest] == [12, 6, 4, 2, 1, 0]
    if best.holds_floor:
        for each in rest:
            if each.holds_floor and price is not None:
                assert best.total.value <= each.total.value * (1.0 + 1e-9)
            elif each.holds_floor:
                assert len(best.updates) <= len(each.updates)
    else:
        assert not any(each.holds_floor for each in rest)
    assert made.decision == (NEVER if not best.updates else NOW if best.updates[0] == "2024-07" else LATER)
    assert made.later.window == (best.updates[0] if best.updates else None)
    for each in made.cadences:
        for value in (each.errors, each.total, each.mean_accuracy, each.lowest_accuracy, *each.costs.values()):
            assert value is None or value.value in value.interval
    check_order(made)


@pytest.mark.parametrize("n", [1, 6])
@pytest.mark.parametrize("chance", [0.0, 0.37, 0.79, 0.8, 1.0])
def test_a_due_update_that_hardly_arrives_names_the_question_to_ask_first(chance, n):
    made = planned(falling(0.75, 0.7, n), by_floor(0.78), chance=chance)
    assert made.decision == NOW
    assert made.recommendation.endswith("ask for other ways first, by `resque compare`.") == (chance < 0.8)


def test_without_a_price_updates_are_as_late_as_the_floor_allows():
    made = planned(falling(0.86, 0.82), by_floor(0.78))
    assert made.decision == LATER
    first = made.later.window
    assert made.later.earliest <= first
    assert f"Update before {first}" in made.recommendation
    assert made.cadences[0].holds_floor
    assert made.cadences[0].lowest_accuracy.value >= 0.78


@pytest.mark.parametrize(
    ("accuracies", "objective", "decision", "said"),
    [
        (falling(0.8, 0.7), by_floor(0.75), NOW, "accuracy 0.70 is below the floor of 0.75"),
        ([0.8, 0.8, 0.8, 0.74], by_floor(0.75), NOW, "accuracy 0.74 is below the floor of 0.75"),
        (falling(0.80, 0.80), by_floor(0.7), NEVER, "accuracy is expected to be 0.80 at least, and the floor is 0.70"),
        (falling(0.80, 0.70), by_price(1.0), NOW, "errors and 12 updates cost"),
        (falling(0.80, 0.78), by_price(1e-9), NEVER, "an update would save less than"),
        (
            falling(0.80, 0.70),
            dataclasses.replace(by_price(1.0), yearly=Budget(max_kwh=KWH / 2)),
            NEVER,
            "the budget allows none, though errors and 12 updates cost",
        ),
        (falling(0.97, 0.95), by_price(1.0), LATER, "is at the target already"),
        (falling(0.5, 0.1), by_floor(0.9), NOW, "The floor does not hold even so: accuracy falls to 0."),
        ([0.8], by_floor(0.75), LATER, "accuracy 0.80 holds the floor of 0.75; when it will fall below is not known"),
        ([0.8, 0.7], by_floor(0.75), NOW, "accuracy 0.70 is below the floor"),
        ([0.8, 0.7], by_price(1.0), NOW, "it saves errors of"),
        (
            [0.8, 0.7],
            by_price(1e-6),
            UNDECIDED,
            "how many windows it serves is not known from 2 windows (3 are needed)",
        ),
    ],
)
def test_decision_and_its_reason(accuracies, objective, decision, said):
    made = planned(accuracies, objective)
    assert made.decision == decision
    assert said in made.recommendation
    assert made.recommendation.startswith({NOW: "Update now: "}.get(decision, made.recommendation[:3]))
    if len(accuracies) < 3:
        assert made.drift is None
        assert made.later is None
        assert made.cadences == ()
    text = str(made)
    assert text.splitlines()[0].startswith(made.recommendation[:40])
    assert max(map(len, text.splitlines())) <= 80


def test_a_dear_error_calls_for_more_updates_and_a_dear_update_for_fewer():
    counts = [len(planned(falling(0.85, 0.75), by_price(price)).cadences[0].updates) for price in (1e-7, 1e-5, 1e-3)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    counts = [len(planned(falling(0.85, 0.75), by_price(1e-5), seconds=s).cadences[0].updates) for s in (1, 100, 1e4)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pytest.mark.parametrize(
    ("times", "issues", "chance", "code"),
    [(12.5, (), 0.95, 0), (0.5, (), 0.95, 3), (0.0, (), 0.95, 3), (12.5, (), 0.5, 3), (12.5, ("few",), 0.95, 4)],
)
def test_the_budget_of_a_year_is_a_gate(times, issues, chance, code):
    yearly = by_floor(0.74, Budget(max_kwh=times * KWH))
    made = planned(falling(0.85, 0.75), yearly, issues=issues, chance=chance)
    assert made.budget.code == code
    assert len(made.cadences[0].updates) <= times
    for each in made.cadences:
        assert each.within_budget == (len(each.updates) <= times)
    if times < 1.0:
        assert "within the budget" in made.recommendation


def test_a_budget_that_cannot_be_compared_decides_nothing():
    made = planned(falling(0.85, 0.75), by_floor(0.7, Budget(max_kg=1.0)))
    assert made.budget.code == 4
    assert "--yearly-kg is given" in made.budget.reasons[0]
    assert {each.within_budget for each in made.cadences} == {None}
    assert planned([0.8, 0.75], by_floor(0.7, Budget(max_kwh=1.0))).budget.code == 4
    assert planned(falling(0.8, 0.8), by_floor(0.7, Budget(max_kwh=0.0))).budget.code == 0  # no update is due


def test_missing_labels_are_a_part_of_the_price():
    labels = Objective(None, 0.01, 1000, Tariff(per_label=0.1), Budget())
    made = planned(falling(0.85, 0.75), labels, labels=70)
    assert made.now.estimates["price"].value == pytest.approx(7.0)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(None, None, None, TARIFF, Budget()),
        Objective(None, None, 100, TARIFF, Budget()),
        by_floor(0.0),
        by_floor(-1.0),
        by_floor(float("nan")),
        by_floor(0.95),
        by_floor(1.1),
        by_price(0.0),
        by_price(-1.0),
        by_price(float("nan")),
        by_price(float("inf")),
        by_price(1.0, samples=0),
        by_price(1.0, samples=None),
        Objective(None, 1.0, 100, Tariff(), Budget()),
    ],
)
def test_what_does_not_tell_when_to_update_is_refused_in_one_line(objective):
    with pytest.raises(SettingError) as refused:
        objective.check(0.9)
    assert "\n" not in str(refused.value)
