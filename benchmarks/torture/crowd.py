"""Attacks by many: sixteen writers and four readers of one ledger, and processes whose clocks jump."""

import contextlib
import dataclasses
import datetime
import functools
import importlib
import itertools
import json
import random
import sys
import time
from pathlib import Path

from place import COMMANDS, LEDGER, Row, broken, copied, faults_of, records
from process import fork, start

from resque.ledger.bundled import bundled_updates
from resque.ledger.export import json_lines
from resque.ledger.store import Ledger

WRITERS, READERS = 16, 4
DAY_S = 86_400.0


def writers(place: Path, times: int, seed: int) -> Row:
    """Let sixteen processes import entries one by one into one ledger, while four list it."""
    each = max(1, times // WRITERS)
    row = Row(
        f"{WRITERS} processes append {each} entries each, {READERS} read",
        WRITERS * each,
        'every entry is there and whole, no "database is locked", readers never see an entry vanish',
    )
    with copied(place) as folder:
        before = records(folder)
        names = [[f"w{number:02d}-{entry}" for entry in range(each)] for number in range(WRITERS)]
        for name in itertools.chain(*names):
            entry = dataclasses.replace(bundled_updates()[0], id=name)
            (folder / f"{name}.jsonl").write_text("".join(json_lines([entry])))
        lines = [[f"ledger import {name}.jsonl" for name in mine] for mine in names]
        crowd = [fork("writer", folder, lambda mine=mine: _calls(mine)) for mine in lines]
        crowd += [fork("reader", folder, lambda: _reads(3 * each)) for _ in range(READERS)]
        for process in crowd:
            ended = process.wait()
            if ended.code or "locked" in ended.err:
                row.violations.append(f"a {ended.line} ended with {ended.code}: {ended.err.strip()[-300:]}")
        held = records(folder)
        row.violations += [f"{name} is lost" for name in itertools.chain(*names) if f"updates {name}" not in held]
        row.violations += broken(folder, before)
    return row


def clocks(place: Path, times: int, seed: int) -> Row:
    """Retrain in pairs of processes whose clocks jump by days, into one ledger."""
    row = Row(
        "two processes whose clocks jump retrain into one ledger",
        0,
        "both are stored; times and energies are 0 or more, and the times of a curve never decrease",
    )
    for pair in range(times):
        row.times += 1
        with copied(place) as folder:
            before = records(folder)
            lines = [f"{COMMANDS['retrain']} --seed {number}" for number in (1, 2)]
            running = [
                start(line, folder, functools.partial(jumping_clock, f"{seed} {pair} {number}"))
                for number, line in enumerate(lines)
            ]
            for process in running:
                ended = process.wait()
                faults = faults_of(ended) + ([f"failed: {ended.err[-300:]}"] if ended.code else [])
                row.violations += [f"retrain under a jumping clock: {fault}" for fault in faults]
            row.violations += broken(folder, before)
            new = [update for update in Ledger(folder / LEDGER).updates() if f"updates {update.id}" not in before]
            if len(new) != len(lines):
                row.violations.append(f"{len(new)} of {len(lines)} updates are stored")
            for update in new:
                seconds = update.curve.wall_s
                known = [update.cost.wall_s, update.evaluation_s, update.energy.wall_s, update.cost.energy_kwh or 0.0]
                if any(later < earlier for earlier, later in itertools.pairwise(seconds)) or min(known) < 0:
                    row.violations.append(f"times of an update: {known}, curve {seconds}")
    return row


def jumping_clock(seed: str) -> None:
    """Move the wall clock of this process back and forth, by up to three days at every look at it."""
    chance, real, real_datetime = random.Random(seed), time.time, datetime.datetime

    def jump_s() -> float:
        return chance.uniform(-3 * DAY_S, 3 * DAY_S)

    class Jumping(real_datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> real_datetime:
            return real_datetime.now(tz) + datetime.timedelta(seconds=jump_s())

    time.time = lambda: real() + jump_s()
    for name, module in list(sys.modules.items()):
        if name.startswith("resque.") and getattr(module, "datetime", None) is datetime:
            module.datetime = _DatetimeModule(Jumping)


class _DatetimeModule:
    """The module datetime with another class of that name."""

    def __init__(self, jumping: type) -> None:
        self.datetime = jumping

    def __getattr__(self, name: str) -> object:
        return getattr(datetime, name)


def _calls(lines: list[str]) -> None:
    """Run command lines one after the other in this process; end with the first exit code that is not 0."""
    main = importlib.import_module("resque.cli").main
    for line in lines:
        sys.argv = ["resque", *line.split()]
        try:
            main()
        except SystemExit as stop:
            if stop.code:
                raise


def _reads(times: int) -> None:
    """List the ledger again and again; fail if an entry that was there is not there any more."""
    import io

    seen: set[str] = set()
    for _ in range(times):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            _calls(["ledger list --json"])
        ids = {update["id"] for update in json.loads(text.getvalue())["updates"]}
        if not seen <= ids:
            raise AssertionError(f"entries vanished: {sorted(seen - ids)}")
        seen = ids
