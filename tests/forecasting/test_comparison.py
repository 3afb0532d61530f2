"""The choice between ways to a target, and what is said about it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque.energy.price import Tariff
from resque.energy.reading import EnergyReading
from resque.forecasting.budget import Budget
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, Comparison, Option, choose
from resque.forecasting.options import compare_options
from resque.forecasting.scored_models import ScoredModel
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate
from resque.types import Interval
from resque.workflows.compare import decide_comparison

ASKING = EnergyReading(30.0, 1e-5, {}, {}, "replay")


def option(name, seconds, chance, spread=1.5, **more):
    cost = Estimate(seconds, Interval(seconds / spread, seconds * spread, 0.8, ""), seconds * spread)
    given = {"accuracy": None, "how_known": BY_PILOT, **more}
    return Option(name, "all", name, "m", {"trains": "all"}, chance, {"steps": cost, "wall_s": cost}, **given)


def comparison(options, level=0.8, **more):
    best, ties, nearest, by = choose(options, level)
    return Comparison("m", "new.npz", 0.9, tuple(options), best, ties, nearest, by, level, ASKING, **more)


WAYS = st.lists(st.tuples(st.floats(0.1, 1e5), st.floats(0.0, 1.0)), min_size=1, max_size=8)


@given(WAYS, st.floats(0.05, 0.95))
def test_the_best_is_the_cheapest_that_suffices(ways, level):
    options = [option(f"w{i}", seconds, chance) for i, (seconds, chance) in enumerate(ways)]
    best, ties, nearest, by = choose(options, level)
    enough = [each for each in options if each.chance >= level]
    assert by == "wall_s"
    if not enough:
        assert (best, ties) == (None, ())
        chosen = next(each for each in options if each.id == nearest)
        assert chosen.chance == max(each.chance for each in options)
        return
    chosen = next(each for each in options if each.id == best)
    assert chosen in enough
    assert chosen.cost("wall_s") == min(each.cost("wall_s") for each in enough)
    tied = [each for each in enough if each is not chosen and each.cost("wall_s") <= 1.5 * chosen.cost("wall_s")]
    assert set(ties) == {each.id for each in tied}
    assert nearest is None


@given(WAYS, st.sampled_from(["price", "energy_kwh"]))
def test_price_goes_before_energy_before_time_where_all_know_it(ways, cost):
    """Each way costs the more of one thing, the less of the other."""
    options = []
    for i, (seconds, _) in enumerate(ways):
        made, other = option(f"w{i}", seconds, 0.9), option("", 1.0 / seconds, 0.9).estimates["wall_s"]
        options.append(dataclasses.replace(made, estimates={**made.estimates, cost: other}))
    best, _, _, by = choose(options, 0.8)
    assert by == cost
    assert next(each for each in options if each.id == best).cost(cost) == min(each.cost(cost) for each in options)
    unknown = dataclasses.replace(options[0], id="u", estimates={"wall_s": options[0].estimates["wall_s"]})
    assert choose([*options, unknown], 0.8)[3] == "wall_s"


def test_doing_nothing_is_recommended_at_the_target():
    nothing = dataclasses.replace(option("nothing", 0.0, 1.0, how_known=MEASURED), rung="nothing", recipe={})
    made = comparison([nothing, option("all", 10.0, 0.95)])
    assert made.best == "nothing"
    assert made.recommendation.startswith("Do nothing: the model is at the target already")


def test_a_way_that_was_done_before_is_said_and_leaves_nothing_to_be_spent():
    done = option("head", 5.0, 1.0, how_known=MEASURED, update_id="u1")
    made = comparison([done, option("all", 10.0, 0.95)])
    assert "Update u1 did it already." in made.recommendation
    decision = decide_comparison(made, "none.db", Budget(max_hours=0.0))
    assert (decision.code, decision.reasons) == (0, ("nothing is left to be spent: update u1 did it already",))
    failed = dataclasses.replace(done, chance=0.0, accuracy=accuracy(0.871))
    assert comparison([failed, option("all", 10.0, 0.95)]).best == "all"
    text = comparison([failed]).recommendation
    assert "0% likely to get there, and accuracy 0.87 was measured" in text
    assert "already" not in text


def accuracy(value):
    return Estimate(value, Interval(value, value, 0.8, ""))


@pytest.mark.parametrize(("after", "says"), [(0.70, True), (0.879, True), (0.881, False), (0.95, False), (None, False)])
def test_what_is_forgotten_is_said_beyond_two_points(after, says):
    made = comparison([option("Retrain all layers", 10.0, 0.9, original_accuracy=after)], original_accuracy=0.90)
    assert ("replay=0.2" in made.recommendation) is says


@pytest.mark.parametrize(
    ("others", "best"), [([], "doubted"), ([0.7], "doubted"), ([0.8, 0.5], "0"), ([0.95, 0.9], "1")]
)
def test_a_doubted_option_is_the_best_only_if_no_other_suffices(others, best):
    doubted = option("doubted", 1.0, 0.99, doubt="extrapolation: no own update trains=head")
    made = [option(f"{place}", 60.0 - place, chance) for place, chance in enumerate(others)]
    assert choose([doubted, *made], level=0.8)[0] == best
    shown = comparison([doubted, *made])
    assert (f"Do not rely on it: {doubted.doubt}." in shown.recommendation) == (best == "doubted")
    assert "99%?" in str(shown)


DOUBTS = [(doubt, by) for doubt in ("", "bundled updates only") for by in (BY_PILOT, BY_HISTORY)]
DOUBTS += [("extrapolation: harder", by) for by in (BY_PILOT, BY_HISTORY)]


@given(doubts=st.lists(st.sampled_from(DOUBTS), min_size=1, max_size=4))
def test_of_likely_options_the_best_known_kind_is_taken_and_of_these_the_cheapest(doubts):
    made = [option(f"{n}", 10.0 + n, 0.9, doubt=doubt, how_known=by) for n, (doubt, by) in enumerate(doubts)]
    kinds = [(doubt, by if doubt.startswith("extrapolation") else "") for doubt, by in doubts]
    order = [("", ""), ("bundled updates only", ""), *DOUBTS[-2:]]
    assert choose(made, level=0.8)[0] == f"{kinds.index(min(kinds, key=order.index))}"


@pytest.mark.parametrize(("own", "says"), [(0.88, "“mixed (m)” keeps 0.88"), (None, "replay=0.2")])
def test_the_remedy_of_several_models_is_of_the_same_model(own, says):
    """Another model that keeps more is another choice, and no remedy for this one."""
    best = option("plain", 10.0, 0.9, original_accuracy=0.6, original_known=MEASURED)
    mixed = option("mixed", 20.0, 0.85, original_accuracy=own)
    ways = [best, *(dataclasses.replace(mixed, model=model, id=model, recipe={"replay": 0.2}) for model in "mn")]
    ways[-1] = dataclasses.replace(ways[-1], original_accuracy=0.95)
    made = comparison(ways, original_accuracy=0.9, first_round=(ScoredModel("m"), ScoredModel("n")))
    assert f"It loses 30 points on the original data: {says}" in made.recommendation.replace("mix some in with ", "")
    assert "on old" in str(made)


@pytest.mark.parametrize("doubt", ["", "extrapolation: harder"])
@given(chances=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4))
def test_the_remedy_is_a_way_that_suffices(doubt, chances):
    """One that keeps more after its first steps, and will hardly arrive, is none."""
    best = option("plain", 10.0, 0.9, original_accuracy=0.6, original_known=MEASURED)
    known = {"recipe": {"replay": 0.2}, "doubt": doubt, "original_known": BY_PILOT}
    mixed = [
        dataclasses.replace(option(f"mixed {n}", 50.0, chance, original_accuracy=0.85 - n / 100), **known)
        for n, chance in enumerate(chances)
    ]
    remedy = next((each.name for each in mixed if each.chance >= 0.8), None)
    said = comparison([best, *mixed], original_accuracy=0.9).recommendation
    assert (f"“{remedy}” keeps ~0.8" if remedy else "mix some in with replay=0.2") in said


@given(chance=st.floats(0.0, 0.004), hopeless=st.lists(st.floats(0.3, 0.85), min_size=1, max_size=5))
def test_of_hopeless_ways_the_most_accurate_comes_nearest(chance, hopeless):
    """Chances that all are printed as “<1%” do not order them."""
    ways = [option(f"{n}", 10.0, chance / (n + 1), accuracy=accuracy(at)) for n, at in enumerate(hopeless)]
    assert comparison(ways).nearest == f"{hopeless.index(max(hopeless))}"


@pytest.mark.parametrize("cost", ["price", "energy_kwh", "wall_s"])
def test_the_cost_that_decides_is_a_column_of_the_table(cost):
    def known(name, amount):
        some = option(name, 10.0, 0.9)
        return dataclasses.replace(some, estimates={**some.estimates, cost: Estimate(amount, Interval(1, 9, 0.8, ""))})

    made = comparison([known("a", 3.0), known("b", 7.0)], currency="CHF")
    assert made.by == cost
    heading, rows = made._display().columns, made._display().rows
    column = heading.index({"price": "CHF", "energy_kwh": "energy", "wall_s": "time"}[cost])
    assert [row[column].split()[0] for row in rows] == ["3", "7"]


def test_recommendation_names_cost_chance_ties_and_what_is_free():
    free = option("Re-estimate normalization", 1.0, 0.0, how_known=MEASURED, accuracy=accuracy(0.62), labels=0)
    ways = [option("Retrain all layers", 100.0, 0.96, labels=9), option("Adapters", 120.0, 0.9, labels=9), free]
    text = comparison(ways).recommendation
    assert text.startswith("Retrain all layers: about 1.67 min, 96% likely to reach 0.9. It is a tie with Adapters")
    assert "Re-estimate normalization needs no labels and gives 0.62." in text


def test_where_nothing_suffices_the_nearest_is_named():
    ways = [option("a", 1.0, 0.2, accuracy=accuracy(0.7)), option("b", 2.0, 0.5, accuracy=accuracy(0.8))]
    made = comparison(ways)
    assert (made.best, made.nearest) == (None, "b")
    assert "Nothing is at least 80% likely to reach accuracy 0.9. Nearest comes “b”: 50% likely" in made.recommendation


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99), st.integers(0, 30)), min_size=2, max_size=6))
def test_what_asking_took_decides_nothing_and_fees_decide_as_the_price_does(ways):
    """A way that was asked for first bears the dearer question, which is spent whichever way is taken."""

    def priced(name, amount, asking, fees):
        price = Estimate(amount + asking, Interval(amount + asking, amount + asking, 0.8, ""), amount + asking)
        known = {"estimates": {"price": price}, "asking_price": asking, "fees": fees}
        return dataclasses.replace(option(name, 10.0, 0.9), **known)

    found = [priced(f"{n}", *way) for n, way in enumerate(ways)]
    whole = [priced(f"{n}", amount + fees, 0, 0) for n, (amount, _, fees) in enumerate(ways)]
    assert choose(found, level=0.8) == choose(whole, level=0.8)
    ways = [(amount + fees, asking) for amount, asking, fees in ways]
    assert ways[int(choose(found, level=0.8)[0])][0] == min(amount for amount, _ in ways)
    made = compare_options(found, 0.8, Tariff(), model="m", train_data="d", target_accuracy=0.9, asking=ASKING)
    order = [ways[int(each.id)][0] for each in made.options if each.id not in made.ties]
    assert order == sorted(order)
    is_said = "only what is still to come decides" in " ".join(str(made).split())
    assert is_said is (made.by == "price" and len({asking for _, asking in ways}) > 1)


@pytest.mark.parametrize("tariff", [Tariff(), Tariff(per_label=0.01), Tariff(per_hour=1e-6), Tariff(per_kwh=1e-6)])
@pytest.mark.parametrize("fees", [(0.0, 20.0), (3.0, 20.0)])
def test_fees_decide_whatever_else_has_a_price(tariff, fees):
    """A way without labels, or a free license, is the cheaper one however long it takes."""
    cheap, dear = dataclasses.replace(option("a", 90.0, 0.9), fees=fees[0]), option("b", 1.0, 0.9)
    dear = dataclasses.replace(dear, fees=fees[1])
    if tariff.per_hour or tariff.per_kwh:
        price = Estimate(1e-6, Interval(1e-6, 1e-6, 0.8, ""), 1e-6)
        cheap, dear = (
            dataclasses.replace(each, estimates={**each.estimates, "price": price}) for each in (cheap, dear)
        )
    made = compare_options([dear, cheap], 0.8, tariff, model="m", train_data="d", target_accuracy=0.9, asking=ASKING)
    assert (made.best, made.by, made.ties) == ("a", "price", ())
    assert ", 0 EUR, and" not in made.recommendation
    assert [f"{fee:g}" in str(made) for fee in fees] == [True, True]


@given(WAYS)
def test_table_fits_80_columns(ways):
    known = [BY_HISTORY, BY_PILOT, MEASURED]
    options = [
        option(f"All layers, with old data {i}", seconds, chance, how_known=known[i % 3], accuracy=accuracy(0.5))
        for i, (seconds, chance) in enumerate(ways)
    ]
    text = str(comparison(options))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("All layers, with") >= len(ways)
    assert comparison(options).to_dict()["options"][0]["how_known"] in known


@given(st.lists(st.sampled_from(["", "no time", "dropped"]), min_size=1, max_size=9))
def test_a_remark_that_many_share_is_said_once(notes):
    options = [option(f"w{i}", 10.0 + i, 0.9, note=note) for i, note in enumerate(notes)]
    text = " ".join(str(comparison(options)).split())
    for note in {*notes} - {""}:
        assert text.count(f": {note}") == 1
        named = [f"w{i}" for i, each in enumerate(notes) if each == note]
        line = text.partition(f": {note}")[0]
        assert line.endswith(named[-1] if len(named) <= 3 else f"{len(named)} of the ways")


@pytest.mark.parametrize("names", [("a", "b"), ("All layers, 10 × rate", "b"), ("All layers, with old data",)])
def test_names_with_a_comma_are_told_apart_in_a_remark(names):
    text = " ".join(str(comparison([option(name, 10.0, 0.9, note="no time") for name in names])).split())
    quoted = [f"“{name}”" if "," in "".join(names) else name for name in names]
    assert f"{' and '.join(quoted)}: no time" in text
