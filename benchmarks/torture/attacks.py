"""Attacks on single commands: kill -9, write faults, a full disk."""

import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from injected import Faults
from place import COMMANDS, Row, broken, copied, faults_of, halves, model_elsewhere, originals, repeated, undone
from process import run, start

KILLED = "retrain", "calibrate", "import", "report", "void"
FAULTED = {"retrain": 4, "import": 4, "report": 3, "void": 3, "export": 2}
"""Command → its share of the faults, in sixteenths."""
FULL = "retrain", "import", "report", "export"
WHOLE = "the ledger is sound, old and acknowledged entries are whole, none is half, files are whole or as before"
ERROR = f"{WHOLE}; an error is one line, exit code 1; repeated, the command does its work"
MODEL = "a model is at its place, where the error says it is, or said not to be kept"


def kills(place: Path, times: int, seed: int) -> Row:
    """Kill commands with signal 9 at random moments."""
    row = Row("kill -9: " + ", ".join(KILLED), 0, f"{WHOLE}; repeated (a retraining resumed), the command ends")
    chance, before = random.Random(seed), originals(place)
    landed = 0
    for name in KILLED:
        with copied(place) as folder:
            usual_s = run(COMMANDS[name], folder).wall_s
        for _ in range(times // len(KILLED)):
            row.times += 1
            moment = chance.uniform(0.0, usual_s)
            with copied(place) as folder:
                ended = start(COMMANDS[name], folder).wait(kill_after_s=moment)
                landed += ended.code < 0
                found = [] if ended.code < 0 else faults_of(ended)
                found += [] if ended.code else undone(name, folder, before)
                found += broken(folder, before) + halves(name, folder, before) + repeated(name, folder, before)
            row.violations += [f"{name} killed after {moment:.2f} s: {each}" for each in found]
    row.note = f"{landed} before the end"
    return row


def write_faults(place: Path, times: int, seed: int) -> Row:
    """Let the n-th write of a command fail, with "no space left" or an input/output error."""
    row = Row("write fault: " + ", ".join(FAULTED), 0, f"{ERROR}; {MODEL}")
    chance, seen, shares = random.Random(seed), 0, sum(FAULTED.values())
    for name, share in FAULTED.items():
        writes = _count_writes(name, place)
        for number in range(max(1, times * share // shares)):
            failing = 1 + (
                number if number < writes and writes <= times * share // shares else chance.randrange(writes)
            )
            code = chance.choice((errno.ENOSPC, errno.EIO))
            row.times += 1
            faults = Faults(failing, code)
            found, failed = _attack(name, place, faults.install)
            seen += failed
            row.violations += [f"{name}, write {failing} of {writes} ({errno.errorcode[code]}): {f}" for f in found]
    row.note = f"{seen} commands failed"
    return row


def file_limits(place: Path, times: int, seed: int) -> Row:
    """Limit the size of files (RLIMIT_FSIZE)."""
    row = Row("disk full, RLIMIT_FSIZE: " + ", ".join(FULL), 0, f"{ERROR}; {MODEL}")
    chance, seen = random.Random(seed), 0
    for number in range(times):
        name, size = FULL[number % len(FULL)], int(2 ** chance.uniform(12, 21))

        def limit(size: int = size) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        row.times += 1
        found, failed = _attack(name, place, limit)
        seen += failed
        row.violations += [f"{name} with files of at most {size} bytes: {each}" for each in found]
    row.note = f"{seen} commands failed"
    return row


def full_disks(place: Path, times: int, seed: int) -> Row:
    """Run commands on a small file system in memory, with little space left."""
    row = Row("disk full, small tmpfs: " + ", ".join(FULL), 0, f"{ERROR}; {MODEL}")
    chance, seen = random.Random(seed), 0
    used = sum(path.stat().st_size + 4096 for path in place.rglob("*"))
    for number in range(times):
        name, spare = FULL[number % len(FULL)], int(2 ** chance.uniform(13, 21))
        with small_disk(used + spare) as disk:
            if disk is None:
                row.note = "left out: a tmpfs cannot be mounted here (it takes root)"
                return row
            row.times += 1
            found, failed = _attack(name, place, lambda: None, disk)
            seen += failed
            row.violations += [f"{name} with {spare} bytes left: {each}" for each in found]
    row.note = f"{seen} commands failed"
    return row


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path | None]:
    """Mount a file system in memory; None where that is not allowed."""
    with tempfile.TemporaryDirectory(prefix="resque-torture-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        try:
            mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        try:
            yield Path(folder) if mounted else None
        finally:
            if mounted:
                subprocess.run(["umount", "-l", folder], check=True)


def _count_writes(name: str, place: Path) -> int:
    """Return the number of writes of a command that nothing disturbs."""
    with tempfile.NamedTemporaryFile() as file:
        faults = Faults(0, count_file=Path(file.name))
        with copied(place) as folder:
            ended = run(COMMANDS[name], folder, faults.install)
        if ended.code:
            raise SystemExit(f"{name} fails by itself: {ended.err}")
        return int(Path(file.name).read_text() or 1)


def _attack(name: str, place: Path, prepare: Callable[[], None], disk: Path | None = None) -> tuple[list[str], bool]:
    """Attack one command, in a copy of the folder; return what did not hold, and whether the command failed."""
    before = originals(place)
    with copied(place) as folder:
        where = folder if disk is None else Path(shutil.copytree(folder, disk / "place"))
        ended = run(COMMANDS[name], where, prepare)
        if where != folder:  # what is left is looked at where there is space again
            shutil.rmtree(folder)
            shutil.copytree(where, folder)
            shutil.rmtree(where)
        found = faults_of(ended)
        found += [] if ended.code else undone(name, folder, before)
        found += broken(folder, before, ended.err) + halves(name, folder, before)
        found += [f"{path.name} was left" for path in folder.rglob("*.part") if path.name != "mine.part"]
        found += repeated(name, folder, before, ended.err)
        if (elsewhere := model_elsewhere(folder, ended.err)) is not None:
            elsewhere.unlink(missing_ok=True)
        return found, bool(ended.code)


assert os.name == "posix", "these attacks need a POSIX system"
