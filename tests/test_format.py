"""Numbers for people say what is known, and no more."""

import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doubles import settled_pairs
from resque._format import format_beside, format_probability, shorten_names
from resque.forecasting.comparison import BY_HISTORY, BY_PILOT, Comparison, Option
from resque.forecasting.scored_models import ScoredModel
from resque.ledger.components import MEASURED
from resque.ledger.records import Estimate
from resque.reporting.comparisons import _first_round
from resque.reporting.sentences import outcome_sentence
from resque.types import Interval

SHARE = st.floats(0.0, 1.0)


@given(SHARE)
@example(0.0)
@example(1.0)
def test_chance_is_certain_only_where_it_is_measured(chance):
    assert format_probability(chance) not in ("0%", "100%")
    measured = format_probability(chance, is_measured=True)
    assert (measured == "100%") == (chance == 1.0)
    assert (measured == "0%") == (chance == 0.0)


@given(SHARE, st.lists(SHARE, max_size=3))
@example(0.75499, [0.755])
@example(0.74999, [0.75])
def test_share_beside_others_shows_which_is_larger(share, others):
    text = format_beside(share, *others)
    assert all((float(text) < other) == (share < other) for other in others)
    assert abs(float(text) - share) <= 0.0005


@pytest.mark.parametrize("chance", [0.0, 1.0])
@pytest.mark.parametrize("guarantee", ["as for steps", "measured: the run ended within its pilot"])
def test_forecast_is_certain_only_of_what_was_measured(chance, guarantee):
    forecast, update = settled_pairs(1)[0]
    steps = forecast.estimates["steps"]
    steps = dataclasses.replace(steps, interval=dataclasses.replace(steps.interval, guarantee=guarantee))
    forecast = dataclasses.replace(
        forecast, probability_reached=chance, estimates={**forecast.estimates, "steps": steps}
    )
    expected = f"{chance:.0%}" if guarantee.startswith("measured") else ">99%" if chance else "<1%"
    assert forecast.chance == expected
    for text in (str(forecast), outcome_sentence(forecast, update)):
        assert expected in text


@pytest.mark.parametrize("chance", [0.0, 1.0])
@pytest.mark.parametrize("known", [MEASURED, BY_PILOT, BY_HISTORY])
def test_way_is_certain_only_where_it_is_measured(chance, known):
    one = Estimate(1.0, Interval(1.0, 1.0, 0.8, ""))
    option = Option("a", "all", "Retrain all layers", "m", {}, chance, {"wall_s": one}, None, known)
    reading = settled_pairs(1)[0][1].energy
    shown = str(Comparison("m", "d", 0.9, (option,), None, (), "a", "wall_s", 0.8, reading))
    assert (f" {chance:.0%} " in shown) == (known == MEASURED)


PATHS = st.lists(st.text("abc/", min_size=1, max_size=60), min_size=1, max_size=2).map("=".join)
LONG = "/home/someone/projects/classifiers/net.py:build=/data/models/{}/weights-of-the-model.safetensors"


@given(st.lists(PATHS, max_size=6), st.integers(8, 40))
@example([LONG.format("one"), LONG.format("two"), "timm:resnet18"], 28)
@example(["one/net.py:build=one/w.safetensors", "two/net.py:build=two/w.safetensors", "timm:resnet18"], 28)
@example(["a" * 40 + "b" + "a" * 40, "a" * 40 + "c" + "a" * 40], 12)
@example(["x/" * 20 + "net.py", "y/" + "x/" * 20 + "net.py", "net.py"], 12)
def test_short_names_differ_and_short_ones_stay(names, width):
    short = shorten_names(names, width)
    assert list(short) == list(dict.fromkeys(names))
    assert len({*short.values()}) == len(short)
    assert all(text == name for name, text in short.items() if len(name) <= width)
    if len(short) == 1:
        assert all(len(text) <= width for text in short.values())


@pytest.mark.parametrize(("count", "kept"), [(2, None), (4, None), (2, 0.9), (4, 0.9)])
def test_comparison_of_models_with_long_paths_fits_80_columns(count, kept):
    names = [LONG.format(f"run-{i}") for i in range(count)]
    one = Estimate(1.0, Interval(1.0, 1.0, 0.8, ""), 1.0)
    options = tuple(
        Option(
            f"{i}", "all", "All layers, 10 × rate", name, {"trains": "all"}, 0.5, {"wall_s": one}, None, BY_PILOT,
            original_accuracy=kept,
        )
        for i, name in enumerate(names)
    )  # fmt: skip
    scored = tuple(ScoredModel(name, {"LogME": 1.0}, is_kept=True, limitations="none") for name in names)
    reading = settled_pairs(1)[0][1].energy
    made = Comparison("m", "d", 0.9, options, "0", ("1",), None, "wall_s", 0.8, reading, first_round=scored,
                      original_accuracy=kept)  # fmt: skip
    for text in (str(made), _first_round(made).to_text()):
        assert all(len(line) <= 80 for line in text.splitlines())
        assert all(f"run-{i}" in text.replace("\n", "") for i in range(count))
        assert "/home" not in text
    assert all(name in str(made.to_dict()) for name in names)
