"""The smallest run of the studies: rows are made once, and every table and figure is read off them."""

import dataclasses
import importlib
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from doubles import ReplayMeter
from resque.data.shifts import parse_shift
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Update
from resque.ledger.serialization import decode
from resque.training.recipe import named_recipe
from resque.workflows.engine import LocalEngine

STUDIES = Path(__file__).parents[2] / "studies"
SCRIPTS = ("table1", "table2", "fig1", "fig2", "fig3", "fig4", "fig5", "beyond", "forecasts", "ranking", "in_run")


@pytest.fixture(scope="module")
def studies():
    """The scripts as modules, as ``python studies/SCRIPT.py`` sees them."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        patch.setenv("PYTHONPATH", str(STUDIES))
        patch.chdir(STUDIES.parent)
        yield importlib.import_module
        for name in set(sys.modules) - before:
            if (STUDIES / f"{name}.py").is_file():
                del sys.modules[name]


@pytest.fixture(scope="module")
def made(studies, tmp_path_factory):
    """``(place, rows)`` of a preset that is smaller than the smallest."""
    presets, runs = studies("presets"), studies("runs")
    quick = presets.PRESETS["quick"]
    shifts = dataclasses.replace(
        quick.shifts[0],
        train="digits@16px@train@200",
        test="digits@16px@test@100",
        clean_recipe="train-adam,max_epochs=3",
        recipe="train-adam,evaluate_every=2,max_epochs=4",
        targets=(0.3, 0.4, 0.5),
        shifts=presets.conditions_by_level(
            "digits@16px@train@200", "digits@16px@test@100", ("gaussian", "desaturate"), (3, 9)
        ),
        seeds=(0,),
        sizes=(40,),
        scratch=(("gaussian", 9),),
    )
    other = dataclasses.replace(
        shifts,
        name="digits-head",
        recipe=f"{shifts.recipe},trains=head",
        shifts=shifts.shifts[1:2],
        originals="digits",
        scratch=(),
    )
    tasks = dataclasses.replace(
        quick.tasks[0],
        tasks={name: tuple(f"{spec}@120" for spec in pair) for name, pair in quick.tasks[0].tasks.items()},
        clean_recipe="train-adam,fixed_epochs=2",
        recipe="train-adam,evaluate_every=1,fixed_epochs=3",
        sources=("", "low"),
        cutoffs={"high": (0.25, 0.3, 0.35), "parity": (0.5, 0.52, 0.54)},
        seeds=(0,),
    )
    place = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.PRESETS, "quick", presets.Preset((shifts, other), (tasks,)))
        patch.setattr(
            studies("shift_rows"), "open_meter", lambda device: ReplayMeter()
        )  # the real one would have half a second a probe
        rows = runs.make_rows("quick", LocalEngine(0), place / "results", place / "work")
        written = {path.name: path.read_text() for path in (place / "results" / "quick").iterdir()}
        assert runs.make_rows("quick", LocalEngine(0), place / "results", place / "work") == rows
        assert {path.name: path.read_text() for path in (place / "results" / "quick").iterdir()} == written
        yield place, rows


def test_rows_of_a_shift_hold_what_the_tables_need(made):
    rows = {row["key"]: row for row in made[1]["digits"]}
    assert list(rows) == [f"digits 0 {kind}:{level}" for kind in ("gaussian", "desaturate") for level in (3, 9)]
    assert rows["digits 0 desaturate:3"]["error"].startswith("DataError: desaturate needs color")
    mild, strong = (rows[f"digits 0 gaussian:{level}"] for level in (3, 9))
    assert len(strong["indices"]) == 2 * 3 + 2 + 2
    assert strong["indices"]["paper layer, flatten, true labels"] > mild["indices"]["paper layer, flatten, true labels"]
    assert strong["update"]["cost"]["steps"] > 0
    assert {"LogME", "accuracy drop"} <= set(strong["baselines"])
    assert made[1]["digits-scratch"][0]["update"]["from_scratch"]


def test_rows_of_a_task_hold_the_index_after_one_epoch(made):
    rows = {row["key"]: row for row in made[1]["tasks"]}
    assert list(rows) == [
        f"tasks 0 {source} > {target}" for target, source in itertools.product(("high", "parity"), ("none", "low"))
    ]
    one = rows["tasks 0 low > high"]
    assert (one["classes"], one["update"]["stopped_by"]) == (5, "epochs")
    first = one["update"]["curve"]["steps"].index(one["update"]["curve"]["steps_per_epoch"])
    assert one["accuracy_after_one_epoch"] == one["update"]["curve"]["accuracy"][first]
    assert len(one["indices"]["agreement"]) == 3


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_makes_its_tables_and_figures_from_the_rows(made, studies, script, monkeypatch):
    place, rows = made
    monkeypatch.setattr(studies(script), "PLOTTED_COSTS", ("steps", "energy"), raising=False)
    publish = studies("publish")
    found = studies(script).make("quick", rows)
    assert found
    for name, thing in found.items():
        publish.write(thing, place / name)
        assert (place / name).with_suffix(".md" if isinstance(thing, str) else ".svg").stat().st_size > 200


def test_the_same_rows_give_the_same_files(made, studies):
    place, rows = made
    of_figure = studies("fig5")
    (study,) = studies("presets").PRESETS["quick"].tasks
    for name in ("first", "second"):
        known = of_figure.mean_points(studies("analysis").successful_runs(rows["tasks"]))
        studies("publish").write(of_figure.figure(study, known), place / name)
    assert (place / "first.svg").read_bytes() == (place / "second.svg").read_bytes()


def test_a_run_that_failed_is_in_no_table_and_stays_in_the_rows(made, studies):
    assert sum("error" in row for row in made[1]["digits"]) == 2
    assert len(studies("analysis").successful_runs(made[1]["digits"])) == 2


def test_correlations_have_intervals(studies):
    correlate = studies("analysis").correlate
    assert str(correlate([1, 2, 3], [1, 2, 3])) == "– (n = 3)"
    assert str(correlate([1, 2, 3, 4, 5, 6], [1, 2, 3, 5, 4, 6])) == "0.94 [0.38, 1.00]"
    assert correlate([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]).value is None
    # at r = .86 and n = 7 Fisher's interval is wide
    x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    found = correlate(x, [1.0, 3.1, 2.0, 2.4, 6.0, 4.0, 7.0], ranks=False)
    assert found.low < 0.4 < found.value < found.high


def test_presets_name_existing_models_recipes_and_shifts(studies):
    presets = studies("presets")
    from resque._callables import load_callable

    for preset in presets.PRESETS.values():
        for study in preset.shifts:
            named_recipe(study.recipe)
            named_recipe(study.clean_recipe)
            assert callable(load_callable(study.model))
            assert list(study.targets) == sorted(study.targets)
            assert len({(shift.shift_type, shift.level) for shift in study.shifts}) == len(study.shifts)
            assert set(study.scratch) <= {(shift.shift_type, shift.level) for shift in study.shifts}
            for shift in study.shifts:
                for step in shift.train.split("+")[1:]:
                    parse_shift(step.partition("@")[0])
        for study in preset.tasks:
            named_recipe(study.recipe)
            assert set(study.cutoffs) <= set(study.tasks)
            assert set(study.sources) - {""} <= set(study.tasks)


def test_published_rows_are_complete_and_without_pilot_seeds(studies):
    """What is in the repository: each line a row, each run once, of seeds that no pilot used."""
    presets = studies("presets")
    for path in sorted((STUDIES / "results" / "cpu").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({row["key"] for row in rows}) == len(rows)
        assert not {row["seed"] for row in rows if "seed" in row} & set(presets.PILOT_SEEDS)


def test_the_bundled_history_is_made_of_the_published_rows(studies):
    found, lines = studies("runs").existing_rows, studies("bundled_history").lines
    text = (STUDIES.parent / "src" / "resque" / "ledger" / "bundled.jsonl").read_text(encoding="utf-8")
    made = [decode(Update, line) for preset in studies("bundled_history").USED for line in lines(preset, found(preset))]
    assert [decode(Update, line) for line in text.splitlines()] == made  # fields of later versions have their defaults


def test_each_condition_of_the_bundled_history_has_a_unique_name(studies):
    """Repeats of a condition are told by its name; the parts of a mixture once lost their levels with the folders."""
    without_folders = studies("bundled_history").without_folders
    assert without_folders("idx:/data/sets/a.gz,b/c.gz@400@shifted+blur:5/none") == "a.gz,c.gz@400@shifted+blur:5/none"
    assert without_folders("npz:studies/cache/latin.npz@shifted") == "latin.npz@shifted"
    assert without_folders("digits@16px+gaussian:5") == "digits@16px+gaussian:5"
    text = (STUDIES.parent / "src" / "resque" / "ledger" / "bundled.jsonl").read_text(encoding="utf-8")
    updates = [json.loads(line) for line in text.splitlines()]
    runs = {(u["parent"], u["train_data"], json.dumps(u["recipe"])) for u in updates}
    assert len(runs) == len(updates)


@pytest.mark.parametrize(
    ("costs", "tau", "regret", "best"),
    [
        ([1, 2, 3, 4], 1.0, 0.0, 1.0),
        ([4, 3, 2, 1], -1.0, 7.0, 0.0),
        ([2, 1, 3, 4], None, 1.0, 0.0),
        ([1, 1, 3, 4], None, 0.5, 0.5),
        ([5, 5, 5, 5], math.nan, 2.75, 0.25),
    ],
)
def test_a_ranking_is_judged_by_what_each_run_took(studies, costs, tau, regret, best):
    found = studies("ranking").judged([10, 20, 40, 80], costs)
    assert found[1:] == (pytest.approx(regret), best)
    if tau is None:
        assert 0.4 < found[0] < 1.0
    else:
        assert found[0] == pytest.approx(tau, nan_ok=True)


def test_a_run_is_ranked_by_its_steps_and_not_by_its_evaluations(studies):
    """The position of an evaluation was once taken for steps, beside real steps of runs without success."""
    update = bundled_updates()[0]
    columns = dict.fromkeys(("loss", "gradient_norm", "gradient_norm_last_batch", "parameter_change"), (None,) * 3)
    curve = dataclasses.replace(update.curve, steps=(0, 40, 90), accuracy=(0.1, 0.5, 0.7), wall_s=(0, 1, 2), **columns)
    run = dataclasses.replace(update, curve=curve, cost=dataclasses.replace(update.cost, steps=90))
    steps_to = studies("ranking").steps_to
    assert [steps_to(run, target) for target in (0.5, 0.6, 0.9)] == [40, 90, 90]


def test_a_candidate_costs_what_its_cheapest_way_that_arrived_took(studies):
    def run(model, way, reached, steps, seconds, kwh):
        row = {"model": model, "way": way, "reached": reached, "steps": steps, "processor_s": seconds, "kwh": kwh}
        return {**row, "key": f"{model}: {way}", "best": 0.9 if reached else 0.5}

    found = studies("which_model_page").truths(
        [
            run("large", "head", False, 384, 1.0, None),
            run("large", "10 × rate", True, 100, 30.0, 3e-4),
            run("small", "head", True, 200, 0.1, None),
            run("small", "all layers", True, 50, 5.0, 5e-5),
            run("never", "all layers", False, 384, 6.0, 6e-5),
        ]
    )
    # a run too short for the meter counts its processor seconds; the cheapest way is that by energy, not by steps
    assert (found["small"].way, found["small"].steps, found["small"].kwh) == ("head", 200, pytest.approx(1e-6))
    assert (found["large"].way, found["large"].kwh) == ("10 × rate", 3e-4)
    # what never arrived counts as the dearest, although its runs were cheap
    assert (found["never"].way, found["never"].steps, found["never"].kwh) == ("", 384, 3e-4)


def test_a_forecast_ranks_candidates_as_a_comparison_ranks_ways(studies):
    page = studies("which_model_page")
    likely, dear = ({"chance": 0.9, "doubt": "", "kwh": kwh} for kwh in (1e-5, 1e-4))
    unlike = {"chance": 0.99, "doubt": f"{page.EXTRAPOLATION}: no own update trains=head", "kwh": 1e-7}
    hopeless = {"chance": 0.1, "doubt": "", "kwh": 1e-8}
    ways = [hopeless, unlike, dear, likely]
    assert sorted(ways, key=lambda way: page.place(way, 0.8)) == [likely, dear, unlike, hopeless]


def test_the_new_camera_turns_blurs_and_darkens(studies):
    images = np.zeros((2, 28, 28))
    images[:, 13:15, 4:24] = 1.0
    seen = studies("camera").photographed(images, np.random.default_rng(0))
    assert seen.shape == images.shape
    assert 0.2 < seen.max() < 0.7
    assert 0.2 < seen.sum() / images.sum() < 0.7
    for each in seen:  # the long side lay flat
        axis = np.linalg.eigh(np.cov(np.nonzero(each > 0.1)))[1][:, 1]
        assert 10.0 < np.degrees(np.arctan(abs(axis[0] / axis[1]))) < 45.0


@pytest.mark.parametrize("script", ["which_model", "camera"])
def test_pages_of_examples_are_those_of_their_rows(studies, script, monkeypatch):
    """Made by ``--existing`` from the committed rows, they are what is in the repository."""
    module, written = studies(script), {}
    monkeypatch.setattr(sys, "argv", [script, "--existing"])
    monkeypatch.setattr(module, "write", lambda text, path: written.setdefault(path.with_suffix(".md"), text))
    module.main()
    assert written
    for path, text in written.items():
        assert path.read_text(encoding="utf-8") == text
