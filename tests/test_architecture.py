"""The layers of the house: a module imports only from layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import resque
from doubles import synthetic_update
from resque.ledger import Ledger

SOURCE = Path(resque.__file__).parent
LAYERS = (
    {"errors", "specs"},
    {"readings"},
    {"records", "files", "plain", "mlflow_runs"},
    {"preparation", "sci", "layers", "energy", "emissions", "difficulty", "judging", "angles", "sums"},
    {"families", "corruptions", "outlook", "foreign"},
    {"networks", "models", "representations", "clustering", "augmentation", "tuning"},
    {"sources", "labelled", "moments"},
    {"data", "profiles", "measures", "views", "recalibration"},
    {"indices", "recipes", "rivals"},
    {"metrics", "trainer", "ledger", "checkpoints", "prior", "candidates"},
    {"asking", "exchange"},
    {"tasks", "retraining", "evidence", "settling", "campaign", "imports"},
    {"estimates", "wording"},
    {"forecasting"},
    {"renewal", "gate"},
    {"validation"},
    {"demo", "doctor", "recording", "scratch", "lineage", "calibration"},
    {"console", "report"},
    {"inputs"},
    {"index_cli", "calibrate_cli", "forecast_cli", "update_cli", "ledger_cli"},
    {"cli"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "resque":
            found |= {alias.name for alias in node.names if alias.name in LEVEL}
            found |= {resque._HOME[alias.name] for alias in node.names if alias.name in resque._HOME}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resque."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("resque.")}
    return found


def test_every_module_has_a_layer():
    assert {path.stem for path in SOURCE.glob("*.py")} - {"__init__"} == set(LEVEL)


def test_imports_point_downwards():
    upwards = [
        f"{path.stem} -> {name}"
        for path in SOURCE.glob("*.py")
        for name in imports_of(path)
        if path.stem != "__init__" and LEVEL[name] >= LEVEL[path.stem]
    ]
    assert not upwards


def test_no_module_is_longer_than_400_lines():
    lengths = {path.name: len(path.read_text().splitlines()) for path in SOURCE.glob("*.py")}
    assert not {name: n for name, n in lengths.items() if n > 400}


def test_public_names_are_there_and_sorted():
    assert resque.__all__ == sorted(resque.__all__)
    assert set(resque.__all__) == set(resque._HOME)
    for name in resque.__all__:
        assert getattr(resque, name).__doc__


HEAVY = {"torch", "sklearn", "scipy", "codecarbon", "pandas"}
HEAVIER = HEAVY | {"numpy", "matplotlib"}


@pytest.mark.parametrize(
    ("line", "heavy", "said"),
    [
        ("--help", HEAVIER, "forecast"),
        ("ledger list", HEAVY | {"scipy"}, "1 updates"),
        ("report", HEAVY | {"scipy"}, "html"),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(folder, line, heavy, said):
    Ledger(folder / "resque.db").add(synthetic_update("a", index=0.1, steps=10))
    code = (
        f"import sys; sys.argv = ['resque', *{line.split()}]\n"
        "from resque.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"heavy = set({sorted(heavy)}) & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
