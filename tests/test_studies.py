"""The smallest run of the studies: rows are made once, the table is read off them."""

import dataclasses
import sys
from pathlib import Path

import pytest

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture
def studies(monkeypatch, folder):
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.setenv("PYTHONPATH", str(STUDIES))
    yield
    for name in ("shift", "table1"):
        sys.modules.pop(name, None)


def test_the_smallest_study_of_a_shift(studies, folder, monkeypatch):
    import shift
    import table1

    small = dataclasses.replace(
        shift.PRESETS["quick"][0],
        train="digits@16px@train@200",
        test="digits@16px@test@100",
        clean_recipe="train-adam,max_epochs=3",
        recipe="train-adam,evaluate_every=2,max_epochs=4",
        target_accuracy=0.8,
        kinds=("gaussian", "relabel", "desaturate"),
        levels=(3, 9),
        seeds=(0,),
    )
    monkeypatch.setitem(shift.PRESETS, "quick", (small,))
    rows = shift.campaign("quick", 1, folder / "results", folder / "work")
    assert list(rows) == [f"digits 0 {kind}:{level}" for kind in small.kinds for level in (3, 9)]
    assert rows["digits 0 desaturate:3"]["error"].startswith("DataError: desaturate needs colour")
    one = rows["digits 0 gaussian:9"]
    assert len(one["indices"]) == 12
    assert (
        one["indices"]["paper layer, flatten, true labels"]
        > rows["digits 0 gaussian:3"]["indices"]["paper layer, flatten, true labels"]
    )
    assert one["update"]["cost"]["steps"] > 0
    assert {"LogME", "accuracy drop"} <= set(one["rivals"])
    written = (folder / "results" / "quick-shift.jsonl").read_text()
    assert shift.campaign("quick", 1, folder / "results", folder / "work") == rows
    assert (folder / "results" / "quick-shift.jsonl").read_text() == written
    made = table1.table("quick", list(rows.values()))
    assert made.count("| digits |") == 9


def test_a_correlation_has_its_interval(studies):
    import table1

    assert table1.correlation([1, 2, 3], [1, 2, 3], "r") == "– (n = 3)"
    said = table1.correlation([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 6], "ρ")
    assert said.startswith("0.94 [")
