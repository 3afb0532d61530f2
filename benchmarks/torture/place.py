"""The folder that is attacked: its files, the commands, and what must hold whatever happened."""

import json
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from process import Ended, run
from safetensors import safe_open

from resque.errors import ResqueError
from resque.ledger.bundled import bundled_updates
from resque.ledger.export import json_lines
from resque.ledger.store import Ledger

HELD, CALIBRATED = 40, 5
LEDGER, REPORT, EXPORT, MORE = "resque.db", "report.html", "export.jsonl", "more.jsonl"
_MODEL = "--model resque.networks:small_cnn --weights w.safetensors"
_DATA = "--train digits@16px@train@shifted@400+gaussian:3 --test digits@16px@test@150+gaussian:3"
_CLEAN = "--train digits@16px@train --test digits@16px@test --target-accuracy .85 --recipe train-adam,max_epochs=9"
_RECIPE = "--target-accuracy 1 --recipe train-adam,max_epochs=4 --evaluate-every 4 --checkpoint-every 0"
_RUNS = f"--updates {CALIBRATED} --max-epochs 2"
_VOID = bundled_updates()[3].id
COMMANDS = {
    "retrain": f"retrain {_MODEL} {_DATA} {_RECIPE}",
    "calibrate": f"calibrate {_MODEL} --data digits@16px@400 --target-accuracy .3 {_RUNS}",
    "import": f"ledger import {MORE}",
    "report": "report",
    "void": f"ledger void {_VOID} --why torture",
    "export": f"ledger export --out {EXPORT}",
}
"""Name → command line, without the name of the program."""
_DONE_BEFORE = {"retrain": "this run has ended", "void": "is void since"}
"""What a command says where an earlier one has done its work."""


@dataclass
class Row:
    """One line of the table.

    Attributes:
        attack: What was done.
        times: How often.
        holds: What must hold.
        violations: What did not hold, one text each.
        note: What was measured, or why it was left out.
    """

    attack: str
    times: int
    holds: str
    violations: list[str] = field(default_factory=list)
    note: str = ""


@contextmanager
def prepared_place() -> Iterator[Path]:
    """Make a folder with weights, a ledger of updates, a file to import, a report, and a user's own file."""
    with tempfile.TemporaryDirectory(prefix="resque-torture-") as name:
        folder = Path(name)
        trained = run(f"retrain {_MODEL.split(' --w')[0]} {_CLEAN} --ledger first.db --out first", folder)
        assert trained.code == 0, trained.err
        shutil.move(folder / "first" / "model.safetensors", folder / "w.safetensors")
        shutil.rmtree(folder / "first")
        ledger = Ledger(folder / LEDGER)
        ledger.extend(bundled_updates()[:HELD])
        (folder / MORE).write_text("".join(json_lines(bundled_updates()[HELD:])))
        (folder / "mine.part").write_text("a file of the user")
        assert run(COMMANDS["report"], folder).code == 0
        assert run(COMMANDS["export"], folder).code == 0
        records(folder)  # SQLite puts its log away
        yield folder


@contextmanager
def copied(place: Path) -> Iterator[Path]:
    """Copy a folder for one attack."""
    with tempfile.TemporaryDirectory(prefix="resque-torture-") as name:
        yield Path(shutil.copytree(place, Path(name) / "place"))


def originals(place: Path) -> dict[str, str]:
    """Return the records of the folder that is attacked, from a copy: others copy it meanwhile."""
    with copied(place) as folder:
        return records(folder)


def records(folder: Path) -> dict[str, str]:
    """Return the text of every entry by its kind and id, read without resque."""
    with closing(sqlite3.connect(folder / LEDGER)) as connection:
        (state,) = connection.execute("PRAGMA integrity_check").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)
        rows = [
            (f"{table} {entry_id}", record)
            for table in ("updates", "forecasts", "voids")
            for entry_id, record in connection.execute(f"SELECT id, record FROM {table}")
        ]
    return dict(rows)


def faults_of(ended: Ended) -> list[str]:
    """Return what is wrong with how a command ended: a traceback, a bug, a hang, an error of several lines."""
    found = []
    if "Traceback" in ended.err or "this is a bug" in ended.err:
        found.append(f"it said: {ended.err.strip()[-300:]}")
    if ended.code not in (0, 1, 3, 4):
        found.append(f"its exit code was {ended.code}")
    if ended.code == 1 and len([line for line in ended.err.splitlines() if not line.startswith("warning")]) != 1:
        found.append(f"its error was no single line: {ended.err.strip()[-300:]}")
    return found


def broken(folder: Path, before: dict[str, str], said: str = "") -> list[str]:
    """Return what is broken in a folder: entries, files of updates, report, export, or a file of the user.

    Args:
        folder: The folder.
        before: Its records before the attack.
        said: Errors that may name another place of a model, or say that none was kept.
    """
    found = []
    try:
        held = records(folder)
        ledger = Ledger(folder / LEDGER)
        updates = ledger.updates(void=True)
        ledger.forecasts(void=True), ledger.voids()
    except (sqlite3.Error, ResqueError) as error:
        return [f"the ledger cannot be read: {error}"]
    found += [f"{name} was lost or changed" for name, record in before.items() if held.get(name) != record]
    for update in updates:
        if (folder / "updates" / update.id).is_dir() and (error := _lost_model(update.id, folder, said)):
            found.append(f"the model of update {update.id} is not whole: {error}")
    report = folder / REPORT
    if report.exists() and not report.read_text(errors="replace").rstrip().endswith("</html>"):
        found.append("the report is not whole")
    try:
        for line in (folder / EXPORT).read_text().splitlines():
            json.loads(line)
    except ValueError as error:
        found.append(f"the export is not whole: {error}")
    if (folder / "mine.part").read_text() != "a file of the user":
        found.append("a file of the user was changed")
    return found


def undone(name: str, folder: Path, before: dict[str, str], said: str = "") -> list[str]:
    """Return what a command that ended well should have left and did not; ``said`` is as in :func:`broken`."""
    new = [entry for entry in records(folder) if entry not in before]
    expected = {"retrain": 1, "calibrate": CALIBRATED, "import": len(bundled_updates()) - HELD, "void": 1}.get(name, 0)
    if len(new) != expected:
        return [f"{len(new)} new entries after exit code 0, expected {expected}"]
    if name == "retrain" and (error := _lost_model(new[0].split()[1], folder, said)):
        return [f"the model of an acknowledged update is not whole: {error}"]
    return []


def halves(name: str, folder: Path, before: dict[str, str]) -> list[str]:
    """Return whether a command that writes all or nothing left a part."""
    new = len(records(folder)) - len(before)
    if name == "import" and new not in (0, len(bundled_updates()) - HELD):
        return [f"a part of the import is there: {new} entries"]
    return []


def repeated(name: str, folder: Path, before: dict[str, str], said: str = "") -> list[str]:
    """Repeat a command after an attack, a retraining with --resume; return why its work is then not done.

    A repetition that succeeds leaves the model at its place, whatever ``said`` named.
    """
    ended = run(COMMANDS[name] + (" --resume" if name == "retrain" else ""), folder)
    done_before = _DONE_BEFORE.get(name)
    if ended.code and not (done_before and done_before in ended.err):
        return [f"repeated, it failed: exit code {ended.code}, {ended.err.strip()[-300:]}"]
    said = said if ended.code else ""
    return [f"repeated, {fault}" for fault in broken(folder, before, said) + undone(name, folder, before, said)]


def model_elsewhere(folder: Path, said: str) -> Path | None:
    """Return the file that an error names as the place of the updated model."""
    named = re.search(r"the updated model is kept in (\S+\.safetensors)", said)
    return folder / named[1] if named else None


def _lost_model(update_id: str, folder: Path, said: str) -> str:
    """Return why the model of an update is lost, though no error said so; it may be where an error says it is."""
    if re.search(f"no model was kept.*update {update_id} has the costs alone", said):
        return ""
    return _unreadable(model_elsewhere(folder, said) or folder / "updates" / update_id / "model.safetensors")


def _unreadable(weights: Path) -> str:
    try:
        with safe_open(weights, "numpy") as file:
            for name in file.keys():  # noqa: SIM118  (it is no dictionary)
                file.get_tensor(name)
    except Exception as error:  # of several libraries
        return f"{type(error).__name__}: {error}"
    return ""
