"""A ledger of 100,000 updates: seconds of each command beside its aim; forecasts from a part of a history."""

import dataclasses
import math
import random
import statistics
import time
from pathlib import Path

from place import LEDGER, Row, copied
from process import run

from resque.forecasting.curve_history import CurveHistory, evaluations_until
from resque.forecasting.history import ForecastQuery
from resque.forecasting.selection import MOST_UPDATES, updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Update
from resque.ledger.store import Ledger

BATCH = 5000
COMMANDS_S = {
    "ledger list": 1.0,
    "ledger show e00000007": 1.0,
    "ledger void e00000009 --why torture": 1.0,
    "report": 10.0,
}
"""Command → aim in seconds, more than the same command takes with ten updates."""
APPEND_S, ROWS_S = 0.02, 1.0
LARGEST_FACTOR = 1.25
QUERIES = 6


def copies(count: int, first: int = 0) -> list[Update]:
    """Return updates of the bundled history under new ids."""
    known = bundled_updates()
    return [
        dataclasses.replace(known[number % len(known)], id=f"e{number:08d}") for number in range(first, first + count)
    ]


def large_ledger(place: Path, times: int, seed: int) -> Row:
    """Time commands on a large ledger, less what they take on a ledger of ten."""
    aims = "list and show 1 s, void 1 s, append 20 ms, a forecast's rows 1 s, report 10 s"
    row = Row("a large ledger", times, f"seconds beyond start-up: {aims}")
    measured: dict[str, tuple[float, float]] = {}
    with copied(place) as small, copied(place) as large:
        for folder, count in ((small, 10), (large, times)):
            (folder / LEDGER).unlink()
            for first in range(0, count, BATCH):
                Ledger(folder / LEDGER).extend(copies(min(BATCH, count - first), first))
        for line, aim_s in COMMANDS_S.items():
            usual, slow = (run(line, folder) for folder in (small, large))
            if usual.code or slow.code:
                row.violations.append(f"{line} failed: {slow.err.strip()[-300:]}")
            measured[" ".join(line.split()[:2])] = max(0.0, slow.wall_s - usual.wall_s), aim_s
        ledger = Ledger(large / LEDGER)
        measured["append"] = statistics.median(_seconds_to_add(ledger, f"new{n}") for n in range(21)), APPEND_S
        started = time.perf_counter()
        rows = updates_to_learn_from(ledger, bundled_updates()[0].parent, new_tasks=False)
        measured["rows"] = time.perf_counter() - started, ROWS_S
        if len(rows) != min(MOST_UPDATES, times):
            row.violations.append(f"{len(rows)} rows of a forecast, expected {MOST_UPDATES}")
    row.note = ", ".join(f"{name} {seconds:.3f} s" for name, (seconds, _) in measured.items())
    row.violations += [
        f"{name} took {seconds:.3f} s, the aim is {aim:g} s"
        for name, (seconds, aim) in measured.items()
        if seconds > aim
    ]
    return row


def agreement(place: Path, times: int, seed: int) -> Row:
    """Compare forecasts from the updates that are chosen with forecasts from all of a history."""
    times = max(times, MOST_UPDATES + 100)
    queries = max(1, round(QUERIES * times / 2000))
    holds = f"median steps of each forecast within a factor of {LARGEST_FACTOR} of the full fit's"
    row = Row(f"a forecast from {MOST_UPDATES} of {times:,} updates", queries, holds)
    chance, rows, factors = random.Random(seed), [], []
    with copied(place) as folder:
        (folder / LEDGER).unlink()
        ledger = Ledger(folder / LEDGER)
        ledger.extend([_varied(update, chance) for update in copies(times)])
        everything = ledger.updates()
        asked = chance.sample(_queries(), queries)
        chosen = [updates_to_learn_from(ledger, query.parent, new_tasks=False) for query in asked]
    started = time.perf_counter()
    for query, some in zip(asked, chosen, strict=True):
        known = [CurveHistory(history, query) for history in (some, everything)]
        few, all_of_them = (_median_steps(history, query) for history in known)
        factors.append(few / all_of_them)
        rows.append(f"{known[0].n_own} and {known[1].n_own}")
    seconds = time.perf_counter() - started
    shown = ", ".join(f"{factor:.3f} (rows {each})" for factor, each in zip(factors, rows, strict=True))
    apart = [math.exp(abs(math.log(factor))) for factor in factors]
    row.note = f"ratios of medians {shown}; median factor {statistics.median(apart):.2f}; {seconds:.0f} s"
    row.violations += [f"a factor of {factor:.3f}" for factor in apart if factor > LARGEST_FACTOR]
    return row


def _median_steps(history: CurveHistory, query: ForecastQuery) -> float:
    curve = history.start(query)
    paths = None if curve is None else curve.predict([*evaluations_until(query.max_steps)])
    assert paths is not None
    return paths.median_if_reached(query.target_accuracy)


def _queries() -> list[ForecastQuery]:
    """Return a query for each shift of the bundled history."""
    shifts = [update for update in bundled_updates() if update.features.task_index is None]
    return [ForecastQuery.of_update(update, update.target_accuracy, max_steps=10_000) for update in shifts]


def _varied(update: Update, chance: random.Random) -> Update:
    """Return an update that took other steps, by a factor with a standard deviation of a fifth."""
    factor = math.exp(chance.gauss(0.0, 0.2))
    steps = sorted(round(step * factor) for step in update.curve.steps)
    cost = dataclasses.replace(update.cost, steps=round(update.cost.steps * factor))
    return dataclasses.replace(update, curve=dataclasses.replace(update.curve, steps=tuple(steps)), cost=cost)


def _seconds_to_add(ledger: Ledger, entry_id: str) -> float:
    entry = dataclasses.replace(bundled_updates()[0], id=entry_id)
    started = time.perf_counter()
    ledger.add(entry)
    return time.perf_counter() - started
