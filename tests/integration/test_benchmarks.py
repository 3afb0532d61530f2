"""The benchmarks: how they measure, what they write, and one case from end to end."""

import resource
import socket
import time
from pathlib import Path

import pytest
from benchmarks import run
from benchmarks.curves import curve_points, write_curves
from benchmarks.measuring import Case, Comparison, Curve, interleaved, measure, processor_s, ratios
from benchmarks.table import machine, table
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
SECONDS = st.floats(1e-3, 1e3)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=1, max_size=9), st.integers(0, 5))
def test_what_slows_a_whole_round_changes_no_ratio(rounds, power):
    calm = {"wall": {"a": [a for a, _ in rounds], "b": [b for _, b in rounds]}}
    busy = {"wall": {name: [2**power * s for s in seconds] for name, seconds in calm["wall"].items()}}
    found, again = (ratios(row, "wall", Comparison("a", "b")) for row in (calm, busy))
    assert found.values == again.values
    assert min(found.values) <= found.median <= max(found.values)


@given(st.integers(1, 6), st.integers(0, 8), st.integers(0, 3))
def test_each_round_has_every_variant_once(count, rounds, seed):
    names = [f"v{i}" for i in range(count)]
    orders = list(interleaved(names, rounds, seed))
    assert len(orders) == rounds
    assert all(sorted(order) == names for order in orders)


def test_the_order_changes_from_round_to_round():
    assert len({tuple(order) for order in interleaved("abc", 30)}) == 6


@pytest.mark.parametrize(("rounds", "most_s", "expected"), [(1, 0.0, 1), (5, 0.0, 3), (5, 1e9, 5)])
def test_rounds_end_at_the_limit_but_not_below_three(rounds, most_s, expected):
    calls = {"a": 0, "b": 0}

    def call(name):
        calls[name] += 1

    row = measure({name: lambda name=name: call(name) for name in calls}, rounds, most_s, shortest_s=0.0)
    assert {len(seconds) for clock in row.values() for seconds in clock.values()} == {expected}
    assert calls["a"] == calls["b"] == expected + 2  # two calls are not measured


def test_a_quick_variant_is_called_in_blocks_and_counts_as_one_call():
    calls = []
    row = measure({"a": lambda: calls.append(1)}, 1, shortest_s=0.001)
    assert len(calls) > 3
    assert row["wall"]["a"][0] < 0.001


def test_processor_time_includes_children(monkeypatch):
    usage = resource.struct_rusage((5.0, 1.0, *[0] * 14))
    monkeypatch.setattr(resource, "getrusage", lambda who: {resource.RUSAGE_CHILDREN: usage}[who])
    monkeypatch.setattr(time, "process_time", lambda: 2.0)
    assert processor_s() == 8.0


def case(name, prepare=None, **more):
    return Case(name, "3 rows", prepare or (lambda scale: {"x": int, "y": int}), (Comparison("x", "y", 1.5),), **more)


def row(x, y):
    return {"wall": {"x": x, "y": y}, "processor": {"x": y, "y": x}, "load": 0.5}


def test_the_table_has_median_and_range_of_both_clocks_and_says_what_is_left_out():
    rows = {
        "a": row([1.0, 2.0, 6.0], [2.0, 2.0, 2.0]),
        "b": {"left_out": "No module named 'neighbor'"},
        "c": {"error": "ValueError: 2.00% of the samples are in another cluster"},
    }
    lines = list(table([case(name, neighbors=("numpy", "no-such-thing")) for name in "abc"], rows))
    assert "| a; 3 rows | x | y | 1.00 [0.33, 2.00] | 1.00 [0.50, 3.00] | 2,000 | 2,000 | 3 | 1.5 |" in lines
    assert "* b is left out: No module named 'neighbor'" in lines
    assert "* c is left out: ValueError: 2.00% of the samples are in another cluster" in lines
    text = "\n".join(lines)
    assert "numpy " in text
    assert "no-such-thing" not in text


@pytest.mark.parametrize(("aim", "shown"), [(0.99, "**0.99**"), (1.0, "1"), (1.5, "1.5"), (None, "")])
def test_missed_aims_are_marked_and_explained(aim, shown):
    one = Case("a", "3 rows", lambda scale: {}, (Comparison("x", "y", aim),))
    lines = list(table([one], {"a": row([1.0, 2.0, 6.0], [2.0, 2.0, 2.0])}))
    assert [line.split(" | ")[-1].removesuffix(" |") for line in lines if line.startswith("| a")] == [shown]
    assert any("are missed" in line for line in lines) == ("**" in shown)


def test_the_machine_is_described_without_its_name_or_places():
    assert socket.gethostname() not in machine()
    assert "/home" not in machine()
    assert str(ROOT) not in machine()


def test_the_figure_is_small_and_the_same_for_the_same_numbers(tmp_path):
    seconds = {f"{line}|{n}": [n * 1e-3] * 3 for line in ("ours", "theirs") for n in (1000, 10, 100)}
    curve = case("growth", curve=Curve("a title", "samples"))
    rows = {"growth": {"processor": seconds, "wall": seconds}}
    assert [x for x, _ in curve_points(rows["growth"])["ours"]] == [10.0, 100.0, 1000.0]
    for name in ("1.svg", "2.svg"):
        write_curves([curve], rows, tmp_path / name)
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()
    assert len((tmp_path / "1.svg").read_bytes()) < 200_000
    assert "a title" in (tmp_path / "1.svg").read_text()


def test_an_interrupted_run_continues_with_what_is_left(tmp_path, monkeypatch, capsys):
    prepared, stops = [], iter([True])

    def prepare(name):
        def variants(scale):
            prepared.append((name, scale))
            if name == "second" and next(stops, False):
                raise KeyboardInterrupt
            if name == "third":
                raise ImportError("a neighbor is missing")
            return {"x": int, "y": int}

        return variants

    monkeypatch.setattr(run, "CASES", {name: case(name, prepare(name)) for name in ("first", "second", "third")})
    line = ["--rounds", "1", "--scale", "0.5", "--out", str(tmp_path)]
    with pytest.raises(KeyboardInterrupt):
        run.main(line)
    assert not (tmp_path / "results.md").exists()
    run.main(line)
    assert prepared == [("first", 0.5), ("second", 0.5), ("second", 0.5), ("third", 0.5)]
    text = (tmp_path / "results.md").read_text()
    assert "| first; 3 rows |" in text
    assert "third is left out: a neighbor is missing" in text
    assert "0.5 times" in text
    assert [path.name for path in tmp_path.iterdir()] == ["results.md"]
    assert "min left" in capsys.readouterr().err


def test_a_word_that_no_case_has_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(["--only", "nowhere", "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["KMeans, 10 classes", "assignment, 100 classes of width 512", "pass, a layer"])
def test_a_case_from_end_to_end(name, tmp_path, capsys):
    run.main(["--only", name, "--rounds", "1", "--scale", "0.01", "--out", str(tmp_path)])
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {name}")]
    assert len(shown) == sum(len(case.rows) for key, case in run.CASES.items() if name in key)
    assert list(tmp_path.iterdir()) == []


def test_the_committed_table_has_every_case_and_the_figure_is_small():
    text = (ROOT / "benchmarks" / "results.md").read_text()
    assert [name for name, case in run.CASES.items() if case.rows and name not in text] == []
    assert (ROOT / "benchmarks" / "growth.svg").stat().st_size < 200_000
