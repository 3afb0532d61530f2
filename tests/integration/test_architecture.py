"""The house: ten packages on seven levels, held by reading every import, also those inside functions."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import resque
from doubles import synthetic_update
from resque.ledger.store import Ledger

SOURCE = Path(resque.__file__).parent
LEVELS = (
    {"data", "energy"},
    {"models", "ledger"},
    {"training"},
    {"indices", "forecasting"},
    {"workflows"},
    {"reporting"},
    {"cli"},
)
LEVEL = {package: level for level, packages in enumerate(LEVELS, start=1) for package in packages}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def package_of(module: str) -> str | None:
    """The package that a module of resque is in; None for what lies below all of them."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else None


def imports_of(path: Path) -> set[str]:
    """The modules of resque that a file imports, inside functions, too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "resque":
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in inside}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "resque"}
    return found


IMPORTS = {name: imports_of(path) for name, path in MODULES.items()}


def test_every_module_is_in_a_package_or_below_them():
    outside = {name for name in MODULES if package_of(name) is None}
    below = {"resque", "resque.__main__", "resque.errors", "resque.types"}
    assert {name for name in outside - below if not name.startswith("resque._")} == set()


def test_a_package_imports_from_lower_levels_alone():
    upwards = [
        f"{name} -> {other}"
        for name, imported in IMPORTS.items()
        for other in imported
        if (here := package_of(name)) and (there := package_of(other)) and here != there and LEVEL[there] >= LEVEL[here]
    ]
    assert not upwards


def test_the_architecture_page_has_every_import_arrow():
    page = (SOURCE.parents[1] / "docs" / "development" / "architecture.md").read_text()
    table = page.split("| package | imports from |")[1]
    shown = {
        (package, other)
        for package, others in re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)
        for other in re.findall(r"`(\w+)`", others)
    }
    between = {(package_of(name), package_of(other)) for name, imported in IMPORTS.items() for other in imported}
    arrows = {(here, there) for here, there in between if here and there and here != there}
    assert shown == arrows
    assert f"{len(arrows)} import arrows" in page


def test_what_lies_below_imports_no_package():
    private = {name for name in MODULES if name.startswith("resque._")} - {"resque.__main__"}
    upwards = [(name, other) for name in {*private, "resque.errors", "resque.types"} for other in IMPORTS[name]]
    assert not [pair for pair in upwards if package_of(pair[1])]


def test_no_circle_inside_a_package():
    left = {name: {other for other in imported if other != name} for name, imported in IMPORTS.items()}
    left = {name: {o for o in found if package_of(o) == package_of(name)} for name, found in left.items()}
    while free := {name for name, found in left.items() if not found}:
        left = {name: found - free for name, found in left.items() if name not in free}
    assert not left


def test_no_pickled_code_is_loaded():
    loads = re.compile(r"weights_only=False|allow_pickle=True|(?<!cloud)pickle\.loads?\b|dist\.\w*_object|Unpickler\(")
    assert [path.name for path in FILES if loads.search(path.read_text())] == []


def test_no_module_is_longer_than_400_lines():
    lengths = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: n for name, n in lengths.items() if n > 400}


def functions() -> list[tuple[str, ast.FunctionDef]]:
    found = ((name, node) for name, path in MODULES.items() for node in ast.walk(ast.parse(path.read_text())))
    return [(name, node) for name, node in found if isinstance(node, ast.FunctionDef)]


def body_of(function: ast.FunctionDef) -> list[ast.stmt]:
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def test_no_function_is_longer_than_60_lines_and_no_command_than_40():
    lengths = {
        f"{name}.{node.name}": (body[-1].end_lineno or 0) - body[0].lineno + 1
        for name, node in functions()
        if (body := body_of(node))
    }
    assert not {name: n for name, n in lengths.items() if n > (40 if name.startswith("resque.cli.") else 60)}


def test_only_public_facades_and_commands_take_more_than_seven_parameters():
    many = set()
    for name, node in functions():
        parameters = {each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
        if len(parameters - {"self", "cls"}) > 7 and package_of(name) != "cli":
            many.add(node.name)
    assert many <= set(resque.__all__)


def test_public_names_are_there_and_documented():
    assert len(set(resque.__all__)) == len(resque.__all__)
    for name in resque.__all__:
        assert getattr(resque, name).__doc__


HEAVY = {"torch", "sklearn", "scipy", "codecarbon", "pandas"}
HEAVIER = HEAVY | {"numpy", "matplotlib"}


@pytest.mark.parametrize(
    ("line", "heavy", "said"),
    [
        ("--help", HEAVIER, "forecast"),
        ("ledger list", HEAVY | {"scipy"}, "1 update"),
        ("report", HEAVY | {"scipy"}, "html"),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(folder, line, heavy, said):
    Ledger(folder / "resque.db").add(synthetic_update("a", index=0.1, steps=10))
    assert said in run_without(line, heavy)


def run_without(line: str, modules: set[str]) -> str:
    """Run a command in a process of its own that must not import some modules; return what it printed."""
    code = (
        f"import sys; sys.argv = ['resque', *{line.split()}]\n"
        "from resque.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        f"heavy = set({sorted(modules)}) & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


UNUSED = {"torch._dynamo", "sklearn", "pandas", "codecarbon", "matplotlib", "scipy.stats"}
PASSES = {
    "profile": ("--model net.py:build --data npz:new.npz --out other.safetensors", UNUSED | {"scipy"}),
    "dist": ("--model net.py:build --original npz:new.npz --shifted npz:new.npz", UNUSED),
}


@pytest.mark.parametrize("command", PASSES)
def test_what_takes_no_step_imports_nothing_that_only_a_training_or_a_table_needs(folder, command):
    """PyTorch's optimizers import torch._dynamo at the first step, in one to three seconds."""
    options, unused = PASSES[command]
    labels = np.arange(40) % 4
    images = (60 * labels[:, None, None] + np.random.default_rng(0).integers(0, 60, (40, 16, 16))).astype(np.uint8)
    np.savez(folder / "new.npz", x=images, y=labels)
    (folder / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, 4))\n"
    )
    run_without(f"{command} {options}", unused)
