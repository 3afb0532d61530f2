"""Attack the command line with real processes, and print one table of what held.

Run it with ``make torture``; ``--quick`` does a tenth of it. Exit code 1 means that something did not hold.
"""

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "COLUMNS": "100"}
os.environ.pop("RESQUE_LEDGER", None)

from attacks import file_limits, full_disks, kills, write_faults
from crowd import clocks, writers
from hostile import hostile_files
from large import agreement, large_ledger
from place import Row, prepared_place
from process import load_libraries

ATTACKS: tuple[tuple[Callable[[Path, int, int], Row], int], ...] = (
    (kills, 60),
    (write_faults, 160),
    (file_limits, 24),
    (full_disks, 24),
    (writers, 320),
    (clocks, 10),
)
"""Attack → how often."""
ALONE: tuple[tuple[Callable[[Path, int, int], Row], int], ...] = (
    (hostile_files, 3),
    (large_ledger, 100_000),
    (agreement, 2000),
)
"""What is timed, and so runs when nothing else does → how often, or number of updates."""


def main() -> None:
    """Run all attacks, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of each count")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of attacks")
    options = parser.parse_args()
    part = 10 if options.quick else 1

    def chosen(attacks: tuple[tuple[Callable[[Path, int, int], Row], int], ...]) -> list[tuple[Callable, int]]:
        named = [each for each in attacks if not options.only or each[0].__name__ in options.only]
        return [(attack, max(1, count // part)) for attack, count in named]

    load_libraries()
    with prepared_place() as place, ProcessPoolExecutor(2, mp_context=get_context("fork")) as workers:
        begun = [workers.submit(attack, place, count, options.seed) for attack, count in chosen(ATTACKS)]
        rows = [future.result() for future in begun]
        rows += [workers.submit(attack, place, count, options.seed).result() for attack, count in chosen(ALONE)]
    print_table(rows)
    sys.exit(any(row.violations for row in rows))


def print_table(rows: list[Row]) -> None:
    """Print the table, and below it each violation."""
    print("| attack | times | what must hold | violations |\n|---|---|---|---|")
    for row in rows:
        note = f" ({row.note})" if row.note else ""
        print(f"| {row.attack}{note} | {row.times:,} | {row.holds} | {len(row.violations)} |")
    for row in rows:
        for violation in row.violations:
            print(f"\n* {row.attack.partition(':')[0]}: {' '.join(violation.split())}")


if __name__ == "__main__":
    main()
