"""Results print themselves: short lines, escaped HTML, the numbers of the record."""

import dataclasses
import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import synthetic_update
from resque._display import MAX_ROWS, Display, describe
from resque._format import COST_NAMES, NOT_MEASURED, format_cost, printable
from resque.forecasting.budget import Decision
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.indices.results import DistributionIndex, TaskIndex
from resque.ledger.records import COSTS, Update
from resque.types import Interval

texts = st.text(min_size=1, max_size=120)
positive = st.floats(1e-9, 1e9)


@given(texts, st.lists(st.tuples(texts, texts, texts), max_size=4), st.lists(texts, max_size=3))
def test_no_line_is_longer_than_the_width(title, rows, lines):
    display = Display(title, ("name", "value", "a longer header"), rows, lines)
    for width in (80, 30):
        assert max((len(line) for line in display.to_text(width).splitlines()), default=0) <= width


@given(st.integers(1, 6), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_texts_are_wrapped_before_a_number_is_broken(words, lengths):
    cells = ["–".join(["7" * length] * 2) for length in lengths]
    shown = Display("", ["way", *["cost"] * len(cells)], [[" ".join(["layers"] * words), *cells]])
    narrowest = len("layers") + sum(max(len(cell), 4) + 2 for cell in cells)
    assert all(cell in shown.to_text(narrowest) for cell in cells)


@given(texts, texts, texts)
def test_html_is_escaped_and_complete(title, cell, line):
    page = Display(title, ("<column>", ""), [(cell, "")], [line]).to_html()
    assert all(html.escape(printable(text)) in page for text in (title, cell, line, "<column>"))
    assert set(re.findall(r"<(/?\w+)", page)) <= {
        prefix + tag for tag in ("table", "caption", "thead", "tbody", "tr", "th", "td", "p") for prefix in ("", "/")
    }


@pytest.mark.parametrize("shown", [Display.to_text, Display.to_html])
def test_long_tables_are_cut_only_where_asked(shown):
    display = Display("t", ("class", "angle"), [(str(i), "0") for i in range(1000)])
    assert "999" in shown(display)
    assert "999" not in shown(display, max_rows=MAX_ROWS)
    assert "980 more" in shown(display, max_rows=MAX_ROWS)


@given(steps=st.integers(1, 10**7), wall_s=positive, energy_kwh=st.none() | positive, name=st.text(max_size=90))
def test_an_update_prints_the_numbers_of_its_record(steps, wall_s, energy_kwh, name):
    update = synthetic_update("u", index=0.5, steps=steps)
    cost = dataclasses.replace(update.cost, wall_s=wall_s, energy_kwh=energy_kwh)
    update = dataclasses.replace(update, cost=cost, train_data=f"npz:{name}.npz")
    text, page = str(update), update._repr_html_()
    assert max(map(len, text.splitlines())) <= 80
    for costs in COSTS:
        shown = format_cost(costs, getattr(cost, costs))
        assert re.search(rf"^{COST_NAMES[costs]} +{re.escape(shown)}$", text, re.M)
        assert f"<td>{COST_NAMES[costs]}</td><td>{shown}</td>" in page
    assert update.to_dict()["cost"]["steps"] == steps
    assert update.to_dict()["cost"]["wall_s"] == wall_s


@given(value=positive, angles=st.dictionaries(st.integers(0, 99), st.none() | positive, min_size=1, max_size=30))
def test_an_index_prints_its_value_and_angles(value, angles):
    index = DistributionIndex(
        value, "rad", angles, "flatten", "fc", "true", 10, 20, Interval(0.0, value, 0.9, "g"), 0.1
    )
    assert f"{value:.4f} rad" in str(index).splitlines()[0]
    assert max(map(len, str(index).splitlines())) <= 80
    cells = [row[1] for row in describe(index).rows]
    assert cells == [NOT_MEASURED if angle is None else f"{angle:.4f}" for angle in angles.values()]


def test_an_index_without_interval_says_so_and_counts_left_out_classes():
    index = DistributionIndex(0.5, "rad", {0: 0.5, 1: None}, "flatten", "fc", "true", 10, 20, skipped=1)
    assert "confidence interval: unknown; noise floor: unknown" in str(index)
    assert "mean over 1 of 2 classes" in str(index)
    assert "representation: layer fc, flatten" in str(index)
    assert "representation: flatten" in str(dataclasses.replace(index, layer=""))


def test_a_task_index_without_starts_needs_no_table():
    index = TaskIndex(0.25, "1 - ARI", "class-means", False, "flatten", 100, 4, "fc")
    assert str(index).startswith("RESQUE_task 0.2500 (0 is best, 1 is chance level)\nunit 1 - ARI")
    every = dataclasses.replace(index, by_init={"random": 0.5}, lloyd=True)
    assert "random" in str(every)
    assert "Lloyd to convergence" in str(every)


def test_a_decision_prints_bounds_budgets_and_reasons():
    text = str(Decision(3, ("too much energy",), (("energy_kwh", 0.5, 0.2, "kWh"), ("price", 3.0, 5.0, "EUR"))))
    assert text.splitlines()[0] == "Budget decision: beyond budget"
    assert re.search(r"energy +500 Wh +200 Wh", text)
    assert text.endswith("too much energy")


def test_a_settlement_of_nothing_prints_dashes():
    text = str(summarize_settlements([]))
    assert text.startswith("Forecast accuracy over 0 settled updates")
    assert re.search(r"^energy +0 +– +– +– +0 of 0 +–$", text, re.M)


def test_repr_stays_the_dataclasses_and_what_is_not_finite_is_null():
    update = synthetic_update("u", index=0.5, steps=10)
    assert repr(update).startswith("Update(id='u', ")
    endless = dataclasses.replace(update, target_accuracy=float("inf"))
    assert endless.to_dict()["target_accuracy"] is None
    assert set(json.loads(json.dumps(update.to_dict()))) == {field.name for field in dataclasses.fields(Update)}
