"""A withdrawn entry stays in the file, is shown as void, and counts nowhere."""

import csv
import dataclasses
import itertools
import json

import pytest

from doubles import settled_pairs, synthetic_update
from resque.energy.price import Spending
from resque.errors import LedgerError, SettingError
from resque.ledger.export import csv_lines, export, read_json_lines
from resque.ledger.importers.importer import import_updates
from resque.ledger.records import Question
from resque.ledger.store import Ledger


@pytest.fixture
def pairs():
    return settled_pairs(4)


@pytest.fixture
def ledger(folder, pairs):
    history = Ledger(folder / "resque.db")
    history.extend([forecast for forecast, _ in pairs])
    history.extend([update for _, update in pairs])
    return history


def ids(entries):
    return [entry.id for entry in entries]


@pytest.mark.parametrize("place", range(4))
def test_void_update_counts_nowhere_and_its_forecast_is_open_again(ledger, pairs, place):
    forecast, update = pairs[place]
    left = [pair for pair in pairs if pair[1] is not update]
    tombstone = ledger.void(update.id[:4] if place == 0 else update.id, "wrong test data")
    assert (tombstone.id, tombstone.entry, tombstone.why) == (update.id, "update", "wrong test data")
    assert ids(ledger.updates()) == ids(update for _, update in left)
    assert ids(ledger.updates(void=True)) == ids(update for _, update in pairs)
    assert ledger.settled() == left
    assert ledger.settled_ids() == [(f.id, u.id) for f, u in left]
    assert ids(ledger.forecasts(pending=True)) == [forecast.id]
    assert ledger.pending(forecast.id) == forecast
    assert ledger.pair_of(forecast) is None
    assert ledger.count() == {"updates": 3, "forecasts": 4, "settled": 3, "void": 1}
    assert ledger.voids() == [tombstone]
    assert not any(update.id in line for line in csv_lines(ledger.updates()))
    again = dataclasses.replace(update, id="again")
    ledger.add(again)
    assert ledger.pair_of(forecast) == ledger.pair_of(again) == (forecast, again)
    with pytest.raises(LedgerError, match="settled already"):
        ledger.pending(forecast.id)


@pytest.mark.parametrize("place", range(4))
def test_void_forecast_settles_nothing_and_cannot_be_settled(ledger, pairs, place):
    forecast, update = pairs[place]
    ledger.void(forecast.id, "the wrong recipe")
    assert ids(ledger.updates()) == ids(update for _, update in pairs)
    assert forecast.id not in ids(ledger.forecasts())
    assert ledger.settled() == [pair for pair in pairs if pair[0] is not forecast]
    assert ledger.pair_of(update) is None
    with pytest.raises(LedgerError, match=r"is void \(the wrong recipe\): make a new one"):
        ledger.pending(forecast.id)


def test_second_update_settles_where_the_first_is_void(ledger, pairs):
    forecast, first = pairs[1]
    second = dataclasses.replace(first, id="second")
    ledger.add(second)
    assert ledger.pair_of(second) is None
    ledger.void(first.id, "a broken disk")
    assert ledger.pair_of(second) == (forecast, second)
    assert (forecast, second) in ledger.settled()


def test_voiding_twice_or_nothing_or_without_a_reason_is_an_error(ledger, pairs):
    forecast, update = pairs[0]
    ledger.void(update.id, "first")
    for why in ("first", "second"):
        with pytest.raises(LedgerError, match=f"update {update.id} is void since .*: first; nothing written"):
            ledger.void(update.id, why)
    for reason in ("", "  ", "\n"):
        with pytest.raises(SettingError, match="needs its reason"):
            ledger.void(forecast.id, reason)
    for unknown in ("nothing", ""):
        with pytest.raises(LedgerError, match="0 entries"):
            ledger.void(unknown, "why")
    assert len(ledger.voids()) == 1


def test_models_that_descend_from_a_void_update_are_named(folder):
    history, models = Ledger(folder / "line.db"), ["root", "a", "b", "c"]
    line = [
        dataclasses.replace(synthetic_update(f"u{i}", index=0.1, steps=40), parent=parent, child=child)
        for i, (parent, child) in enumerate(
            [*zip(models, models[1:], strict=False), ("a", "d"), ("c", "a"), ("x", "y")]
        )
    ]
    history.extend(line)
    assert ids(history.descendants(line[0])) == ["u1", "u3", "u2", "u4"]  # also around the circle from c to a
    assert ids(history.descendants(line[5])) == []
    history.void("u1", "wrong")
    assert ids(history.descendants(line[0])) == ["u3", "u2", "u4"]


@pytest.mark.parametrize("void_before", [set(each) for n in range(4) for each in itertools.combinations("bcd", n)])
def test_descendants_behind_void_updates_are_named(cli, folder, void_before):
    history = Ledger(folder / "resque.db")
    history.extend(
        dataclasses.replace(synthetic_update(name, index=0.1, steps=40), parent=parent, child=name)
        for parent, name in zip("xabc", "abcd", strict=True)
    )
    for name in void_before:
        history.void(name, "wrong")
    left = [name for name in "bcd" if name not in void_before]
    assert ids(history.descendants(history.entry("a"))) == left
    assert json.loads(cli("ledger void a --why wrong --json")[1])["descendants"] == left


def test_export_and_import_keep_void_entries_with_their_reason_and_questions(ledger, pairs, folder):
    ledger.void(pairs[0][1].id, "wrong test data")
    ledger.void(pairs[2][0].id, "mistake")
    asked = Question("q1", "2026-03-02T00:00:00+00:00", "net", "m1", "npz:new.npz", 0.9, Spending(3.0, None))
    ledger.add(asked)
    path = folder / "history.jsonl"
    list(export(ledger, "jsonl", path))
    copy = Ledger(folder / "copy.db")
    found = import_updates(copy, path)
    assert (len(found.updates), len(found.forecasts), len(found.voids), found.held) == (4, 4, 2, 0)
    assert (found.questions, copy.questions()) == (("q1",), [asked])
    assert copy.voids() == ledger.voids()
    assert (copy.updates(), copy.forecasts(), copy.settled()) == (
        ledger.updates(),
        ledger.forecasts(),
        ledger.settled(),
    )
    again = import_updates(copy, path)
    assert (again.updates, again.voids, again.questions, again.held) == ((), (), (), 11)
    with pytest.raises(LedgerError, match="another content"):
        copy.extend([dataclasses.replace(asked, spending=Spending(4.0, None))])
    assert read_json_lines(path)[-1] == ledger.voids()[-1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": "unknown"}, "holds no update unknown that could be void"),
        ({"entry": "forecast"}, "holds no forecast .* that could be void"),
        ({"entry": "profile"}, "void: Invalid enum value 'profile'|entry is 'profile'"),
        ({"why": None}, "why"),
        ({"more": 1}, "more"),
    ],
)
def test_invalid_tombstone_is_refused_and_nothing_is_imported(ledger, pairs, folder, change, reason):
    ledger.void(pairs[0][1].id, "wrong test data")
    path, lines = folder / "history.jsonl", list(export(ledger, "jsonl"))
    tombstone = json.loads(lines[-1])
    tombstone["void"] |= change
    path.write_text("".join([*lines[:-1], json.dumps(tombstone)]))
    copy = Ledger(folder / "copy.db")
    with pytest.raises(Exception, match=reason) as caught:
        import_updates(copy, path)
    assert "nothing" in str(caught.value)
    assert copy.updates(void=True) == []


def test_commands_show_void_entries_as_such(cli, ledger, pairs):
    forecast, update = pairs[0]
    child = dataclasses.replace(synthetic_update("heir", index=0.1, steps=40), parent=update.child, child="z")
    ledger.add(child)
    code, out, err = cli(f"ledger void {update.id} --why wrong")
    assert code == 0
    assert f"update {update.id}" in out
    assert forecast.id in out  # open again
    assert "update heir" in err
    assert cli(f"ledger void {update.id} --why wrong")[0] == 1
    code, out, _ = cli("ledger list")
    assert "1 void entry, counted nowhere" in out
    assert "4 updates" in out
    listed = json.loads(cli("ledger list --json")[1])
    assert (len(listed["updates"]), [each["why"] for each in listed["void"]]) == (4, ["wrong"])
    code, out, err = cli(f"ledger show {update.id}")
    assert code == 0
    assert f"update {update.id} is void since" in err
    assert json.loads(cli(f"ledger show {update.id} --json")[1])["void"]["why"] == "wrong"
    assert json.loads(cli(f"ledger show {child.id} --json")[1])["void"] is None
    assert json.loads(cli("ledger settle --json")[1])["n"] == 3
    done = json.loads(cli(f"ledger void {forecast.id} --why mistake --json")[1])
    assert (done["entry"], done["reopened"], done["descendants"]) == ("forecast", None, [])


@pytest.mark.parametrize("place", range(4))
def test_csv_has_the_overhead_of_the_forecast_that_an_update_settled(ledger, pairs, place):
    ledger.void(pairs[place][0].id, "the wrong recipe")
    rows = list(csv.DictReader(export(ledger, "csv")))
    for row, (forecast, update) in zip(rows, pairs, strict=True):
        spent = forecast.overhead.wall_s, forecast.overhead.energy_kwh
        expected = ("", "") if update is pairs[place][1] else tuple(map(str, spent))
        assert (row["forecasting_s"], row["forecasting_energy_kwh"]) == expected
