"""Progress where stderr is no terminal: plain lines, soon, not too many, with what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque._format import format_about
from resque.reporting import console
from resque.reporting.progress import PlainProgress, current, lines_of, watched


@given(st.floats(2.5, 4000.0), st.integers(0, 50), st.integers(0, 50))
def test_it_is_never_silent_for_long_and_says_what_is_left(lasts_s, done, more):
    progress = PlainProgress("training", began_s=0.0)
    progress.report(done, done + more, "step 5")
    times = [0.25 * n for n in range(int(4 * lasts_s) + 1)]
    printed, quiet = [], 0.0
    with current(progress):
        for at in times:
            line, quiet = lines_of(at, quiet)
            printed += [] if line is None else [(at, line)]
    gaps = [after - before for (before, _), (after, _) in zip([(0.0, ""), *printed], printed, strict=False)]
    assert max(gap for gap, (at, _) in zip(gaps, printed, strict=True) if at <= 20.0) <= 2.25
    assert all(gap <= max(2.25, 0.1 * at + 0.5) for gap, (at, _) in zip(gaps, printed, strict=True))
    assert len(printed) <= 90
    for _, line in printed:
        assert line.isprintable()
        assert line.startswith("training: ")
        assert (" left" in line) is (done > 0)
        assert (f"{done:,} of {done + more:,}" in line) is (done + more > 0)


@given(loading_s=st.integers(0, 100), pace_s=st.integers(1, 10), done=st.integers(1, 9))
def test_remaining_time_goes_by_the_pace_of_the_parts_and_not_by_what_came_before(loading_s, pace_s, done):
    progress = PlainProgress("training", 0.0)
    assert progress.line(loading_s, loading_s) is None
    progress.report(0, 10)
    progress.line(loading_s, loading_s)
    progress.report(done, 10)
    left = format_about("wall_s", pace_s * (10 - done))
    assert f"about {left} left" in progress.line(loading_s + done * pace_s, -1e9)


def test_lines_are_of_the_innermost_progress_and_a_bar_needs_none():
    with current(PlainProgress("outer", 0.0)):
        with current(PlainProgress("inner", 5.0)):
            assert lines_of(7.0, 5.0)[0] == "inner: 2 s"
        with current(None):
            assert lines_of(9.0, 7.0) == (None, 9.0)
        assert lines_of(11.0, 9.0)[0] == "outer: 11 s"
    assert lines_of(99.0, 0.0)[0] is None


def test_what_is_quick_prints_nothing_and_what_fails_ends_its_lines():
    lines = []

    def fail():
        with watched("working", lines.append):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert lines == []
    assert lines_of(99.0, 0.0)[0] is None


def test_a_redirected_stream_gets_no_bar(capsys):
    with console.progress("training") as report:
        report(1, 4, "accuracy 0.5")
    assert capsys.readouterr().err == ""
