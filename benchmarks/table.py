"""Write the table of ratios, with the machine it was measured on and the versions of the neighbors."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from benchmarks.measuring import Case, Comparison, Row, Spread, ratios

__all__ = ["machine", "table"]

HEAD = "case", "ours", "theirs", "processor time", "wall time", "ours, ms", "theirs, ms", "rounds", "aim"
EXPLAINED = """\
Each ratio is ours over theirs, below 1 is faster: median over the rounds [least, most], taken within a round. Processor
time includes child processes; milliseconds are medians of the wall clock. Variants take turns in a new order each
round, on one thread. `make bench` measures all of it anew."""
MISSED = """\
Aims in **bold** are missed by the median of the processor time. Sums, means and distances of representations are
computed in float64, so that the order of the samples does not matter; the neighbors' float32 moves half as many bytes.
Each pass hashes the weights and checks inputs, features and logits, which a bare pass does not."""
OWN = "resque", "torch", "numpy", "scikit-learn"


def machine() -> str:
    """Describe this machine in one sentence, without its name.

    Example:
        >>> "cores" in machine()
        True
    """
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    processor = model[1] if model else platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        system = platform.system()
    return f"{processor}, {cores} cores, {memory_gb:.0f} GB, {system}, Python {platform.python_version()}"


def versions(names: Iterable[str]) -> list[str]:
    """Return each distribution that is installed with its version."""
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def table(cases: Iterable[Case], rows: Mapping[str, Row], scale: float = 1.0) -> Iterator[str]:
    """Yield the lines of the page.

    Args:
        cases: Cases in their order.
        rows: Name → what was measured, the reason why it is left out, or the error.
        scale: Factor of the sizes that the cases name.
    """
    known = [case for case in cases if case.name in rows]
    loads = [rows[case.name]["load"] for case in known if "load" in rows[case.name]]
    neighbors = versions([*OWN, *(name for case in known for name in case.neighbors)])
    yield "# Speed, beside others"
    yield from ("", EXPLAINED, "", f"Machine: {machine()}; {', '.join(neighbors)}.")
    if scale != 1.0:
        yield f"Sizes are {scale:g} times those named here."
    if loads:
        yield f"Load average of the machine after each case (the benchmark alone makes 1): {Spread(loads)}."
    yield from ("", f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}")
    for case in known:
        row = rows[case.name]
        yield from case_rows(case, row) if "wall" in row else ()
    if any(is_missed(rows[case.name], each) for case in known if "wall" in rows[case.name] for each in case.rows):
        yield from ("", MISSED)
    yield ""
    for case in known:
        if reason := rows[case.name].get("left_out") or rows[case.name].get("error"):
            yield f"* {case.name} is left out: {reason}"


def case_rows(case: Case, row: Row) -> Iterator[str]:
    """Yield the rows of one case."""
    for comparison in case.rows:
        ours, theirs = (1e3 * Spread(row["wall"][name]).median for name in comparison[:2])
        aim = "" if comparison.aim is None else f"{comparison.aim:g}"
        cells = (
            f"{case.name}; {case.size}",
            comparison.ours,
            comparison.theirs,
            str(ratios(row, "processor", comparison)),
            str(ratios(row, "wall", comparison)),
            *(f"{ms:.3g}" if ms < 100 else f"{ms:,.0f}" for ms in (ours, theirs)),
            str(len(row["wall"][comparison.ours])),
            aim if not aim or not is_missed(row, comparison) else f"**{aim}**",
        )
        yield f"| {' | '.join(cells)} |"


def is_missed(row: Row, comparison: Comparison) -> bool:
    """Return whether the median ratio of the processor time, as it is shown, is above the aim."""
    return comparison.aim is not None and round(ratios(row, "processor", comparison).median, 2) > comparison.aim
