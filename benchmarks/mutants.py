"""Change one operator or number at a time in the modules that compute numbers, and see whether a test fails.

mutmut would run the whole suite first, and draws no sample; cosmic-ray draws none either, and has one test command for
all modules. Here each drawn mutant gets the tests of its package, those of its module first, in a copy of the tree.
Run it with ``make mutants``; exit code 1 means that less than 95 % were killed. Each outcome is kept in
``benchmarks/mutants.jsonl``: a killed mutant is not run again while its function stays as it is, so that an interrupted
sample continues. Other functions do not change which of a function's mutants are drawn.
"""

import argparse
import ast
import copy
import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = ROOT / "benchmarks/mutants.jsonl"
MODULES = [
    "indices/angles.py", "indices/class_sums.py", "indices/distribution.py", "indices/half_assignment.py",
    "indices/clustering.py", "indices/nearest_mean.py", "indices/baselines/moments.py",
    "indices/baselines/transferability.py", "training/cost_tracking.py", "training/stopping.py", "energy/reading.py",
    "ledger/components.py", "ledger/records.py", "forecasting/mixed_model.py", "forecasting/intervals.py",
    "forecasting/costs.py", "forecasting/curve_shape.py", "forecasting/learning_curves.py", "forecasting/pilot.py",
]  # fmt: skip
SWAPS: dict[type, type] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sum": "mean", "mean": "sum", "sqrt": "square"}
LIBRARIES = ["pytest", "scipy.optimize", "scipy.stats", "sklearn.cluster", "sklearn.datasets", "torch"]
LEAST_KILLED = 0.95
EQUIVALENT = {
    "82a370d0d96a1d8e": "only Apple's GPU takes the other branch",
    "7847a5d7293979e6": "memory that grows on demand begins with one number instead of none",
    "0711d4b37f1558a3": "one simulated path more changes predictions by less than their own noise",
    "624c8750c5d88cfa": "the quantile is multiplied by the root of a sum that is 0 then",
    "5622e07eaf394377": "both bounds are None, or neither",
    "fe01a3806fec4579": "halves do not depend on the size of a cached block",
    "f815b9a7ed08cf76": "the fit may take a longer step, to the same optimum",
    "57a0c7dcdadf0205": "the fit may take a longer step, to the same optimum",
    "c58bc212f38af4a1": "the deviates are symmetric about 0",
    "62a9809637b60a53": "the loop ends by itself one round earlier",
    "dfe15c6ca299297a": "only a copy to another device could block",
    "16b2acde43faa386": "the iteration does not end when it has converged, but at its last round",
    "aca31ee4a49bc947": "NumPy infers the length for any negative number",
}
"""Key of a mutant → why no test can tell it from its original."""


class Mutant(NamedTuple):
    """An expression of a module below ``src/resque``, the source that replaces it, and a key of both in their place."""

    module: str
    node: ast.expr
    new: str
    key: str

    def source(self) -> str:
        """Return the module with the change."""
        lines = [line.encode() for line in (ROOT / "src/resque" / self.module).read_text().splitlines(keepends=True)]
        first, last = self.node.lineno - 1, (self.node.end_lineno or 1) - 1
        head, tail = lines[first][: self.node.col_offset], lines[last][self.node.end_col_offset :]
        return b"".join([*lines[:first], head, f"({self.new})".encode(), tail, *lines[last + 1 :]]).decode()

    def __str__(self) -> str:
        return f"{self.module}: `{ast.unparse(self.node)}` → `{self.new}`"


def expressions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions of a module that run; not annotations, and nothing in formatted texts."""
    for name, value in ast.iter_fields(node):
        skipped = (
            name in ("annotation", "returns", "decorator_list", "type_params") or getattr(node, "arg", "") == "strict"
        )
        for child in [] if skipped else value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                if isinstance(child, ast.expr):
                    yield child
                yield from expressions(child)


def changed(node: ast.expr) -> str | None:
    """Return what an expression may become; None where nothing is changed."""
    new: Any = copy.deepcopy(node)
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in SWAPS:
        new.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        new = new.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        new.value = not node.value if isinstance(node.value, bool) else node.value + 1
    elif (field := {ast.Name: "id", ast.Attribute: "attr"}.get(type(node))) and getattr(node, field) in NAMES:
        setattr(new, field, NAMES[getattr(node, field)])
    elif isinstance(node, ast.IfExp):
        new.test = ast.UnaryOp(ast.Not(), new.test)
    else:
        return None
    return ast.unparse(ast.fix_missing_locations(new))


def mutants_of(module: str) -> list[Mutant]:
    """Return all mutants of a module; their keys change with the function or class that holds them."""
    mutants = []
    for part in ast.parse((ROOT / "src/resque" / module).read_text()).body:
        within = f"{module} {ast.unparse(part)}"
        for place, node in enumerate(expressions(part)):
            if new := changed(node):
                key = hashlib.sha256(f"{within} {place} {new}".encode()).hexdigest()[:16]
                mutants.append(Mutant(module, node, new, key))
    return mutants


def load_libraries() -> None:
    """Import what most tests need, once: each mutant gets a fork of this process."""
    os.environ.update({"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    for name in LIBRARIES:
        importlib.import_module(name)


def run_tests(module: str, tree: Path, timeout_s: float) -> bool:
    """Return whether tests pass in a copy of the tree: those of a module in a fork, then those of its package."""
    tests, stem = tree / "tests" / Path(module).parts[0], Path(module).stem
    own = tests / f"test_{stem}.py"
    files = (
        [own] if own.is_file() else [file for file in tests.glob("test_*.py") if f".{stem} import" in file.read_text()]
    )
    fork = get_context("fork").Process(target=_fork, args=(tree, [f"src/resque/{module}", *map(str, files)]))
    fork.start()
    fork.join(timeout_s)
    fork.kill()
    fork.join()
    if fork.exitcode not in (0, 5):  # 5: no tests of its own
        return False
    command = [sys.executable, "-m", "pytest", "-x", "-q", str(tests)]
    settings: dict[str, Any] = {"cwd": tree, "env": {**os.environ, **_environment(tree)}, "capture_output": True}
    try:
        return subprocess.run(command, check=False, timeout=timeout_s, **settings).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _fork(tree: Path, paths: list[str]) -> None:
    os.chdir(tree)
    for descriptor in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    os.environ.update(_environment(tree))
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    os._exit(importlib.import_module("pytest").main(["-x", "-q", *paths]))


def _environment(tree: Path) -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join([f"{tree}/src", f"{tree}/tests/helpers"])}


def run_all(mutants: Sequence[Mutant], jobs: int) -> None:
    """Test each mutant in one of ``jobs`` copies of the tree, and append its outcome to the file."""
    load_libraries()
    with tempfile.TemporaryDirectory(prefix="resque-mutants-") as folder, ThreadPoolExecutor(jobs) as workers:
        trees: SimpleQueue[Path] = SimpleQueue()
        limits_s: dict[str, float] = {}
        for number in range(jobs):
            ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
            trees.put(Path(shutil.copytree(ROOT, Path(folder, str(number)), ignore=ignored)))

        def test(mutant: Mutant, source: str) -> None:
            tree = trees.get()
            file = tree / "src/resque" / mutant.module
            original = file.read_text()
            file.write_text(source)
            try:
                killed = not run_tests(mutant.module, tree, limits_s[Path(mutant.module).parts[0]])
            finally:
                file.write_text(original)
                trees.put(tree)
            with OUTCOMES.open("a") as kept:
                kept.write(json.dumps({"key": mutant.key, "mutant": str(mutant), "killed": killed}) + "\n")

        def try_unchanged(module: str) -> None:
            tree, started = trees.get(), time.monotonic()
            if not run_tests(module, tree, 1e4):
                sys.exit(f"tests fail without a change: {module}")
            limits_s[Path(module).parts[0]] = 60.0 + 3.0 * (time.monotonic() - started)
            trees.put(tree)

        list(workers.map(try_unchanged, {Path(mutant.module).parts[0]: mutant.module for mutant in mutants}.values()))
        list(workers.map(test, mutants, [mutant.source() for mutant in mutants]))


def main() -> None:
    """Draw mutants, test those that are not known to be killed, and print a table and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("--count", 200), ("--seed", 0), ("--jobs", 2)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--only", nargs="*", default=MODULES, help="modules below src/resque")
    parser.add_argument("--known", action="store_true", help="run none, and count those of earlier runs")
    options = parser.parse_args()
    everything = [mutant for module in options.only for mutant in mutants_of(module)]
    drawn = sorted(everything, key=lambda each: hashlib.sha256(f"{options.seed} {each.key}".encode()).digest())
    drawn = drawn[: options.count]
    if not options.known:
        killed = {key for key, is_killed in outcomes().items() if is_killed}
        equivalent = {mutant.key for mutant in drawn if mutant.key in EQUIVALENT}
        run_all([mutant for mutant in drawn if mutant.key not in killed | equivalent], options.jobs)
    known = {mutant.key: False for mutant in drawn if mutant.key in EQUIVALENT} | outcomes()
    tested = [mutant for mutant in drawn if mutant.key in known]
    sys.exit(print_table(tested, known, everything) > (1.0 - LEAST_KILLED) * len(tested))


def print_table(tested: Sequence[Mutant], known: Mapping[str, bool], everything: Sequence[Mutant]) -> int:
    """Print a row for each module, and each survivor; return the number of those that a test should kill."""
    print("| module | mutants | tested | killed | equivalent |\n|---|---|---|---|---|")
    survivors = [mutant for mutant in tested if not known[mutant.key]]
    equivalent = [mutant for mutant in survivors if mutant.key in EQUIVALENT]
    for module in [*dict.fromkeys(mutant.module for mutant in everything), "all"]:
        parts = everything, tested, [mutant for mutant in tested if known[mutant.key]], equivalent
        numbers = [sum(module in ("all", mutant.module) for mutant in part) for part in parts]
        print(f"| {module} | {' | '.join(map(str, numbers))} |")
    for mutant in survivors:
        why = EQUIVALENT.get(mutant.key)
        print(f"\n* {f'equivalent, {why}' if why else 'survived'}: {mutant}, line {mutant.node.lineno}")
    return len(survivors) - len(equivalent)


def outcomes() -> dict[str, bool]:
    """Return key → killed, of the mutants that were run; the last run of each counts."""
    lines = OUTCOMES.read_text().splitlines() if OUTCOMES.is_file() else []
    return {row["key"]: row["killed"] for row in map(json.loads, lines)}


if __name__ == "__main__":
    main()
