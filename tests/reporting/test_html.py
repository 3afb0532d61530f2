"""The report: self-contained, escaped, readable in light and dark, every figure with labeled axes."""

import dataclasses
import re
from pathlib import Path

import pytest

from doubles import settled_pairs, synthetic_forecast, synthetic_update
from resque.energy.price import Tariff
from resque.errors import DataError
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.forecasting.life import lives
from resque.forecasting.price import priced
from resque.ledger.decision import remedy_in_words
from resque.ledger.records import Estimate, Features, ForecastRevision, LearningCurve, Pilot
from resque.ledger.store import Ledger
from resque.reporting import html
from resque.reporting.decisions import open_questions
from resque.reporting.html import Opening, write_report
from resque.reporting.sentences import verdict_sentence
from resque.reporting.ways import name_ways
from resque.types import Interval


def page_of(tmp_path, settled, history=(), pending=()):
    updates = [*history, *(update for _, update in settled)]
    write_report(
        tmp_path / "report.html",
        updates,
        settled,
        summarize_settlements(settled),
        Opening("Costs of <this> model", pending, lives(updates, pending)),
    )
    return (tmp_path / "report.html").read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of some settled forecasts."""
    return page_of(tmp_path_factory.mktemp("page"), settled_pairs())


def test_the_page_is_self_contained_escaped_and_small(page):
    assert not re.search(r'(?:src|href)="(?!#|data:image/png;base64,)|<script|@import|url\((?!#)', page)
    assert "Costs of &lt;this&gt; model" in page
    assert "<type" not in page
    assert len(page) < 600_000
    assert "prefers-color-scheme: dark" in page


def test_the_open_decision_comes_first_then_the_life_then_the_verdict_and_the_figures(tmp_path):
    settled = settled_pairs()
    pending = [
        dataclasses.replace(settled[0][0], id=name, recipe={"trains": trains}, train_data="npz:<new>.npz")
        for name, trains in (("f1", "all"), ("f2", "head"))
    ]
    page = page_of(tmp_path, settled, pending=pending)
    verdict = verdict_sentence(summarize_settlements(settled))
    texts = "To be decided", "Retrain all layers: about", "known by", "Energy and money so far", verdict, "<svg"
    places = [page.index(text) for text in texts]
    assert places == sorted(places)
    first_row = page[page.index(verdict) :].split("<tbody>")[1].split("</tr>")[1]
    assert re.findall(r">([^<>\n]+)</td>", first_row)[:3] == ["&lt;type 1&gt;:u1", "120", "100+"]
    for term in ("SCI", "PUE", "CO2e"):
        assert f"<dt>{term}</dt>" in page


def test_every_panel_has_labeled_axes_with_units(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(drawings) == 5
    for drawing in drawings:
        texts = re.findall(r">([^<>\n]+)</text>", drawing)
        labels = [text for text in texts if re.search(r"[a-z]{3}|\[", text) and "type" not in text]
        panels = len(re.findall(r'id="axes_\d+"', drawing))
        assert len(labels) >= 2 * panels
        assert "#000000" not in drawing
    for label in ("measured time [s]", "forecast energy [Wh]", "measured steps", "RESQUE_dist [rad]"):
        assert f">{label}</text>" in page


def test_a_ledger_without_forecasts_has_no_empty_sections(tmp_path):
    update = synthetic_update("a", index=0.2, steps=0)
    bare = dataclasses.replace(update, features=Features(None, None, None), shift_type=None)
    page = page_of(tmp_path, [], [update, bare])
    assert "No forecast has been settled yet" in page
    assert "Every forecast" not in page
    assert page.count("<svg") == 1
    with pytest.raises(DataError, match="the ledger is empty"):
        write_report(tmp_path / "none.html", [], [], summarize_settlements([]))


def test_equal_values_and_zero_steps_can_be_drawn(tmp_path):
    updates = [synthetic_update(name, index=0.2, steps=1000) for name in "abc"]
    pairs = [(synthetic_forecast(update, 1.0), update) for update in updates]
    assert page_of(tmp_path, pairs).count("<svg") == 4


def test_few_points_are_rows_of_a_table_and_no_plot(tmp_path):
    """So a report of a first update has no plots of one point, and no tables of what cannot be told yet."""
    update = synthetic_update("a", index=0.2, steps=40)
    measured = dataclasses.replace(synthetic_forecast(update, 1.0), alternatives={})  # as after a pilot to the end
    page = page_of(tmp_path, [(measured, update)])
    assert page.count("<svg") == 1  # the learning curve
    for heading in ("Accuracy by cost", "RESQUE index and measured costs", "forecast by"):
        assert heading not in page
    assert "Forecast and measured" in page


def test_a_long_history_is_shown_in_part_and_counted_whole(folder, monkeypatch):
    pairs = settled_pairs(5)
    monkeypatch.setattr(html, "MOST_SHOWN", 2)
    updates, summary = [update for _, update in pairs], summarize_settlements(pairs)
    html.write_report(folder / "r.html", updates, pairs, summary, n_updates=1234)
    page = (folder / "r.html").read_text()
    assert "Tables and figures show the newest 2 of 1,234 updates; the summary counts all." in page
    assert "the newest 2 of 5 settled forecasts" in page
    assert page.count("<details>") == 2
    html.write_report(folder / "r.html", updates[:2], pairs[:2], summary)
    assert "the newest" not in (folder / "r.html").read_text()


def test_pending_forecasts_of_one_question_are_a_comparison_and_others_are_not():
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    asked = [("x", 0.9, "all"), ("y", 0.9, "all"), ("y", 0.8, "all"), ("x", 0.9, "head"), ("z", 0.9, "all")]
    pending = [
        dataclasses.replace(forecast, id=str(n), train_data=data, target_accuracy=target, recipe={"trains": trains})
        for n, (data, target, trains) in enumerate(asked)
    ]
    found = [*open_questions(pending, [], name_ways(pending), str)]
    assert [question.table is not None for question in found] == [False, True, False, False]
    assert [row[-1] for row in found[1].table.rows] == ["0", "3", "–"]
    assert not [*open_questions([], [], {}, str)]


WAYS = {
    "Re-estimate normalization": {"trains": "norm", "learning_rate": 1e-3},
    "Retrain the head": {"trains": "head", "learning_rate": 1e-3},
    "Train adapters (LoRA)": {"trains": "lora", "learning_rate": 1e-3},
    "Retrain all layers, with old data": {"trains": "all", "learning_rate": 1e-3, "replay": 0.2},
    **{f"Retrain all layers, rate 1e-{n}": {"trains": "all", "learning_rate": 10.0**-n} for n in (2, 3, 4)},
}


def compared(count=None, **changed):
    """Ways to one target, with ids of their places."""
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=100))
    best = Estimate(0.95, Interval(0.92, 0.97, 0.8, ""))
    return [
        dataclasses.replace(forecast, id=f"w{n}", recipe=recipe, best_accuracy=best, train_data="npz:n.npz", **changed)
        for n, recipe in enumerate([*WAYS.values()][:count])
    ]


def carried_out(ways, **changed):
    """The ways with updates that carried them out."""
    updates = [synthetic_update(f"u{way.id}", index=0.1, steps=90, forecast_id=way.id) for way in ways]
    return [
        (way, dataclasses.replace(u, recipe=way.recipe, train_data=way.train_data, test_data=way.test_data, **changed))
        for way, u in zip(ways, updates, strict=True)
    ]


def test_a_way_has_one_name_in_each_table_and_figure_of_the_page(tmp_path):
    revision = ForecastRevision(10, 0.7, Estimate(90, Interval(0.0, None, 0.8, "none"), None), 0.8, 5)
    settled = carried_out(compared(), shift_type=None, revisions=(revision,))
    page = page_of(tmp_path, settled)
    assert [*name_ways([update for _, update in settled]).values()] == [*WAYS]
    tables = [part for part in page.split("<tbody>")[1:] if "npz:n.npz" in part or "Retrain" in part]
    for name in WAYS:
        assert f"<summary>Forecast and measured: npz:n.npz, {name}</summary>" in page
        assert sum(name in part.split("</tbody>")[0] for part in tables) == 4  # decided, overview, updates, energy
        assert page.count(f">{name}</text>") >= 4  # legend, in-run forecasts, index, learning curves


def test_ways_that_differ_in_nothing_have_one_name():
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    now, before = (
        dataclasses.replace(forecast, id=str(len(more)), recipe={"learning_rate": 0.01, **more})
        for more in ({"compile": False}, {})  # an earlier version had fewer settings
    )
    assert {*name_ways([now, before]).values()} == {"Retrain all layers"}
    assert {*name_ways([now, before], is_short=True).values()} == {"all"}


@pytest.mark.parametrize("doubt", [(), ("too few updates: do more",)])
def test_an_open_comparison_is_a_sentence_and_a_table_of_its_ways(tmp_path, doubt):
    ways = compared()
    ways = [dataclasses.replace(way, reliability_issues=doubt if way.id == "w1" else ()) for way in ways]
    page = page_of(tmp_path, [], pending=ways)
    assert page.count('<p class="decision">') == 1
    section = page[page.index("To be decided: accuracy 0.9 on npz:n.npz") : page.index("Energy and money")]
    for name in (*WAYS, "Do nothing", "known by", "likely to reach 0.9.", "0.900"):
        assert name in section
    assert "0.950" in section  # of normalization alone, which does not stop at the target
    assert section.count("?</td>") == len(doubt)
    assert "carries it out" in section
    for heading in ("RESQUE index", "Learning curves", "Sources", "How good past forecasts were"):
        assert f"<h2>{heading}" not in page


def test_where_nothing_is_to_be_done_no_command_is_offered(tmp_path):
    """A model at its target is forecast, too, as by a plan that says "not now"."""
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    nothing = {name: estimate.map(lambda value: 0.0) for name, estimate in forecast.estimates.items()}
    page = page_of(tmp_path, [], pending=[dataclasses.replace(forecast, estimates=nothing, pilot=None)])
    assert "Do nothing: the model is at" in page
    assert "carries it out" not in page


@pytest.mark.parametrize("is_priced", [False, True])
def test_a_price_that_decides_is_one_column_of_the_open_comparison(tmp_path, is_priced):
    tariff = Tariff(per_hour=2.0)
    timed = dataclasses.replace(compared(1)[0].features, evaluation_s=0.1)
    ways = [priced(way, tariff) if is_priced else way for way in compared(features=timed)]
    page = page_of(tmp_path, [], pending=ways)
    section = page[page.index("To be decided") : page.index("Energy and money")]
    assert len(re.findall(r"<th[^>]*>(?:EUR|price)</th>", section)) == is_priced


def test_the_command_of_an_open_question_names_the_ledger(cli, folder):
    ledger = Ledger("other.db")
    for way in compared():
        ledger.add(way)
    assert cli("report --ledger other.db --out r.html")[0] == 0
    assert "retrain --forecast" in (page := Path("r.html").read_text())
    assert page.count("--ledger other.db</code> carries it out") == page.count("carries it out") == 1


def test_a_way_that_was_measured_while_asking_keeps_its_accuracy_once_another_was_done(tmp_path):
    none = (None, None)
    curve = LearningCurve((0, 9), (0.5, 0.712), none, (0.0, 1.5), none, none, none, 20)
    pilot = Pilot(9, 0, "", curve, compared(1)[0].overhead, 0.5, stopped_by="max epochs", original_accuracy=0.66)
    first, second, *others = compared(created_utc="2025-01-01")
    measured = dataclasses.replace(second, pilot=pilot, probability_reached=0.0)
    page = page_of(tmp_path, carried_out([first]), pending=[measured, *others])
    section = page[page.index("Decided last") : page.index("Energy and money")]
    assert (section.count(">missed</td>"), ">0.712</td>" in section, ">0.66</td>" in section) == (1, True, True)


def test_what_the_best_way_keeps_is_said_with_its_remedy_where_the_accuracy_before_is_unknown(tmp_path):
    none = (None, None)
    curve = LearningCurve((0, 9), (0.5, 0.7), none, (0.0, 1.5), none, none, none, 20)
    pilot = Pilot(9, 0, "", curve, compared(1)[0].overhead, 0.5, original_accuracy=0.66)
    for way in compared():
        others = [other for other in compared() if other.id != way.id]
        costs = {name: each.map(lambda value: value / 9) for name, each in way.estimates.items()}
        page = page_of(tmp_path, [], pending=[*others, dataclasses.replace(way, pilot=pilot, estimates=costs)])
        kept = "On the old data its accuracy was 0.66 at the end of its pilot; if that is too low, "
        assert f"{kept}{remedy_in_words(way.recipe)}." in page
        assert ">~0.66</td>" in page


@pytest.mark.parametrize("done", [1, 2, len(WAYS)])
def test_the_comparison_that_was_decided_last_stays_with_what_came_of_it(tmp_path, done):
    ways = compared(created_utc="2025-01-01")
    settled = carried_out(ways[:done])
    page = page_of(tmp_path, settled, pending=ways[done:])
    assert "To be decided" not in page
    section = page[page.index("Decided last: accuracy 0.9 on npz:n.npz") : page.index("Energy and money")]
    assert f"{done} of {len(WAYS)} ways {'was' if done == 1 else 'were'} carried out." in section
    assert "Said before: " in section
    assert section.count(">reached</td>") == done
    assert all(name in section for name in WAYS)


def test_an_open_forecast_alone_is_worth_a_report(tmp_path):
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    page = page_of(tmp_path, [], pending=[forecast])
    assert forecast.decision in page
    assert "So far 0.001 Wh" in page


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("asked", ["before", "after", "after, of other data of the name", "after, of another model"])
@pytest.mark.parametrize("changed", [{}, {"train_data": "other"}, {"target_accuracy": 0.99}, {"model": "other"}])
def test_a_question_that_another_way_has_answered_is_no_longer_open(tmp_path, reached, asked, changed):
    update = synthetic_update("a", index=0.1, steps=10, reached=reached)
    when = f"{'2000' if asked == 'before' else '2100'}-01-01T00:00:00.000+00:00"
    alike = {"id": "other way", "test_data": update.test_data, "created_utc": when}
    forecast = dataclasses.replace(synthetic_forecast(update), **{**alike, **changed})
    if "data" in asked:
        forecast = dataclasses.replace(forecast, features=dataclasses.replace(forecast.features, accuracy=0.123))
    if "model" in asked:
        forecast = dataclasses.replace(forecast, parent="another")
    scratch = dataclasses.replace(forecast, id="from scratch", parent="new weights", from_scratch=True)
    page = page_of(tmp_path, [], [update], pending=[forecast, scratch])
    assert ("To be decided" not in page) == (reached and asked in ("before", "after") and not changed)


def test_without_an_open_decision_there_is_no_section_for_one(page):
    assert "To be decided" not in page
    assert "Decided last" not in page


@pytest.mark.parametrize(
    ("stopped_by", "chance", "said"),
    [
        ("max", 0.95, "Retrain all layers, rate 1e-2: about "),
        (
            "max",
            0.4,
            "Nothing is at least 80% likely to reach accuracy 0.9. Nearest comes “Retrain all layers, rate 1e-2”",
        ),
        ("budget: kWh", 0.95, None),
    ],
)
def test_a_way_that_was_tried_and_failed_is_said_where_the_question_is_open(tmp_path, stopped_by, chance, said):
    update = synthetic_update("a", index=0.1, steps=100, reached=False, forecast_id="f-a")
    update = dataclasses.replace(update, stopped_by=stopped_by)
    head = dataclasses.replace(synthetic_forecast(update, 1.2, 0.985), recipe={"trains": "head"})
    ways = [
        dataclasses.replace(synthetic_forecast(update, factor, probability), id=name,
                            recipe={"trains": "all", "learning_rate": rate})
        for name, factor, probability, rate in (("slow", 2.0, 0.3, 0.001), ("fast", 1.5, chance, 0.01))
    ]  # fmt: skip
    page = page_of(tmp_path, [(head, update)], pending=ways)
    tried = "Retrain the head was tried: 0.850 at best, below 0.9 (forecast f-a gave it 98%)."
    assert (f"<strong>{tried} {said}" in page) == (said is not None)
    assert (tried in page) == (said is not None)
