"""The layers of the house: a module imports only from layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import resque

SOURCE = Path(resque.__file__).parent
LAYERS = (
    {"errors"},
    {"readings"},
    {"records", "files", "plain"},
    {"preparation", "sci", "layers", "energy", "difficulty", "angles", "sums"},
    {"families", "corruptions", "outlook"},
    {"networks", "models", "representations", "clustering", "augmentation", "tuning"},
    {"sources", "labelled", "moments"},
    {"data", "profiles", "measures", "views", "recalibration"},
    {"indices", "recipes", "rivals"},
    {"metrics", "trainer", "ledger", "checkpoints", "candidates"},
    {"asking"},
    {"tasks", "retraining", "evidence", "settling", "campaign"},
    {"forecasting", "validation", "gate"},
    {"wording", "demo", "doctor", "recording", "scratch", "lineage", "calibration"},
    {"console", "report"},
    {"inputs"},
    {"index_cli", "calibrate_cli", "update_cli"},
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


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['resque', '--help']\n"
        "from resque.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'matplotlib', 'codecarbon', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "forecast" in done.stdout
