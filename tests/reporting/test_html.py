"""The report: self-contained, escaped, readable in light and dark, every figure with labeled axes."""

import dataclasses
import re

import pytest

from doubles import settled_pairs, synthetic_forecast, synthetic_update
from resque.errors import DataError
from resque.forecasting.evaluation.settlement import summarize_settlements
from resque.forecasting.life import lives
from resque.ledger.records import Features
from resque.reporting import html
from resque.reporting.displays import differing_part, newest_comparison
from resque.reporting.html import Opening, write_report
from resque.reporting.sentences import verdict_sentence


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
    texts = "To be decided", "Retrain the head: about", "Ways to accuracy", "Energy and money so far", verdict, "<svg"
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
    assert page.count("<svg") == 2
    with pytest.raises(DataError, match="the ledger is empty"):
        write_report(tmp_path / "none.html", [], [], summarize_settlements([]))


def test_equal_values_and_zero_steps_can_be_drawn(tmp_path):
    update = synthetic_update("a", index=0.2, steps=1000)
    assert page_of(tmp_path, [(synthetic_forecast(update, 1.0), update)]).count("<svg") == 3


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
    asked = [("x", 0.9), ("y", 0.9), ("y", 0.8), ("x", 0.9), ("z", 0.9)]
    pending = [
        dataclasses.replace(forecast, id=str(n), train_data=data, target_accuracy=target)
        for n, (data, target) in enumerate(asked)
    ]
    assert [each.id for each in newest_comparison(pending)] == ["0", "3"]
    assert newest_comparison(pending[1:]) == newest_comparison([]) == []


def test_settings_that_an_earlier_version_did_not_have_tell_nothing_apart():
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    now, before, other = (
        dataclasses.replace(forecast, recipe={"learning_rate": rate, **more})
        for rate, more in ((0.01, {"compile": False}), (0.01, {}), (0.1, {"compile": False}))
    )
    assert differing_part(now, [now, before]) == ""
    assert differing_part(now, [now, before, other]) == ", rate 0.01"


def test_decisions_of_one_question_are_told_apart(tmp_path):
    forecast = synthetic_forecast(synthetic_update("a", index=0.1, steps=10))
    pending = [
        dataclasses.replace(forecast, id=f"r{rate}", recipe={"trains": "all", "learning_rate": rate})
        for rate in (0.01, 0.001)
    ]
    page = page_of(tmp_path, [], pending=pending)
    assert all(f"<strong>Update all layers, rate {rate}: " in page for rate in (0.01, 0.001))


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
    assert "Ways to accuracy" not in page


@pytest.mark.parametrize(
    ("stopped_by", "chance", "said"),
    [
        ("max", 0.95, "Next-cheapest: Update all layers, rate 0.01 (forecast fast)."),
        (
            "max",
            0.4,
            "No other way is at least 80% likely; nearest comes: Update all layers, rate 0.01 (forecast fast)",
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
