"""Pending forecasts: each question is listed once, as it was asked last, until it is answered."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import settled_pairs, synthetic_forecast, synthetic_update
from resque.ledger.questions import waiting_forecasts
from resque.ledger.store import Ledger

UPDATE = synthetic_update("u", index=0.1, steps=10)
FORECAST = synthetic_forecast(UPDATE)


def at(minute):
    return f"2026-01-01T00:{minute:02}:00.000+00:00"


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12))
def test_each_question_waits_once_until_one_of_its_forecasts_is_settled(events):
    """A question is asked, or its oldest unsettled forecast is carried out, as a user does who noted the id."""
    asked, settled, waits = [], [], {}
    for minute, (question, is_update) in enumerate(events):
        done = {forecast.id for forecast, _ in settled}
        known = [each for each in asked if each.target_accuracy == question / 10 and each.id not in done]
        if is_update and known:
            update = dataclasses.replace(UPDATE, created_utc=at(minute), forecast_id=known[0].id)
            settled.append((known[0], update))
            waits.pop(question, None)
        elif not is_update:
            made = {"id": str(minute), "created_utc": at(minute), "target_accuracy": question / 10}
            asked.append(dataclasses.replace(FORECAST, **made))
            waits[question] = str(minute)
    assert {each.id for each in waiting_forecasts(asked, settled)} == {*waits.values()}


@pytest.mark.parametrize(
    "changed",
    [{"parent": "q"}, {"train_data": "x"}, {"test_data": "x"}, {"replay_data": "x"}, {"target_accuracy": 0.5},
     {"recipe": {"trains": "head"}}, {"shift_type": "new task"}],
)  # fmt: skip
def test_other_questions_wait_beside_it(changed):
    other = dataclasses.replace(FORECAST, id="other", **changed)
    assert waiting_forecasts([FORECAST, other], []) == [FORECAST, other]


@pytest.mark.parametrize("models", [("m", "m"), ("net.py:build=first-of-two.safetensors", "net.py:wide=w.safetensors")])
def test_the_list_shows_each_question_once_and_what_tells_ways_apart(cli, folder, monkeypatch, models):
    ledger = Ledger("resque.db")
    pairs = settled_pairs(2)
    asked = [(rate, target) for rate in (0.001, 0.01) for target in (0.9, 0.85)]
    for again in ("first", "again"):
        for rate, target in asked:
            recipe = {"trains": "all", "learning_rate": rate, "batch_size": 32}
            ledger.add(dataclasses.replace(
                FORECAST, id=f"{again}{rate}{target}", created_utc=at(9), recipe=recipe, target_accuracy=target,
                train_data="npz:/data/of/a/long/name/new-camera.npz", model=models[rate == 0.01],
            ))  # fmt: skip
    ledger.extend([each for pair in pairs for each in pair])
    monkeypatch.setattr("resque.reporting.console.out.width", 80)
    code, out, _ = cli("ledger list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "10 forecasts: 2 settled, 4 pending, 4 asked again" in out
    text = " ".join(out.split())
    assert "first" not in text
    assert (" model " in text) == (models[0] != models[1])
    for rate, target in asked if models[0] == models[1] else ():  # else the models tell them apart
        assert f"all {rate:.0e} {str(target)[1:]} ".replace("e-0", "e-") in text
    assert "batch_size" not in text  # which all have in common
    assert len(json.loads(cli("ledger list --json")[1])["forecasts"]) == 10


def test_listing_the_newest_reads_no_more_of_a_long_ledger(cli, tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "long.db")
    for number in range(60):
        update = synthetic_update(f"u{number}", index=0.5, steps=10)
        ledger.add(update)
        ledger.add(dataclasses.replace(synthetic_forecast(update), id=f"f{number:011d}"))
    read, decode = [], Ledger._decode
    monkeypatch.setattr(Ledger, "_decode", lambda self, *given: read.append(1) or decode(self, *given))
    code, out, _ = cli(f"ledger list --last 3 --ledger {tmp_path}/long.db")
    assert code == 0
    assert "60 forecasts" in out
    assert 6 <= len(read) <= 21  # updates, and twice as many pending forecasts and settled pairs
