"""Other tools' records into the ledger: which format a file has, what of it is new, and what had to be left out.

What a run becomes is in :mod:`resque.ledger.importers.conversion`. All of a file goes in within one transaction, or
nothing; an imported entry keeps its run's id, so that a run is imported once.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resque.errors import DataError, SettingError
from resque.ledger.export import read_json_lines
from resque.ledger.importers.codecarbon import FILE, EmissionsRow, match_emissions, read_emissions
from resque.ledger.importers.conversion import (
    ImportOptions,
    Unusable,
    add_energy,
    option_name,
    update_from_emissions,
    update_from_run,
)
from resque.ledger.importers.mlflow import LoggedRun, is_store, read_runs
from resque.ledger.records import Update
from resque.ledger.store import Ledger

_BOTH = "run", "target_accuracy", "shift_type"
_TOLD: Mapping[str, tuple[str, ...]] = {
    "jsonl": (),
    "mlflow": (
        *("accuracy_metric", "loss_metric", "percent", "step_unit", "steps_per_epoch", "experiment", "energy"),
        *_BOTH,
    ),
    "codecarbon": ("steps", "accuracy", "accuracy_before", "steps_per_epoch", *_BOTH),
}
FORMATS = tuple(_TOLD)
_SHOWN = 6


@dataclass(frozen=True)
class Imported:
    """What an import brought.

    Attributes:
        source: Format of the file.
        updates: Ids of the new ones.
        forecasts: Ids of the new ones.
        held: Entries that the ledger had already.
        skipped: Run → why it is no update.
        notes: What the user should know.
    """

    source: str
    updates: tuple[str, ...]
    forecasts: tuple[str, ...]
    held: int
    skipped: Mapping[str, str]
    notes: tuple[str, ...]


def import_updates(ledger: Ledger, path: Path, source: str = "auto", said: ImportOptions | None = None) -> Imported:
    """Append what a file or folder holds; all of it in one transaction, or nothing.

    Args:
        ledger: Where to.
        path: A file of JSON Lines, ``emissions.csv``, ``mlflow.db``, or a folder of runs.
        source: One of :data:`FORMATS`, or ``"auto"``.
        said: What the file does not say.

    Raises:
        DataError: The file cannot be read, is ambiguous, or holds nothing that could be an entry.
        SettingError: Something was said that this format has no use for, or something is missing.
        LedgerError: The ledger holds an entry of the same id with another content.

    Example:
        >>> import tempfile
        >>> from resque.ledger.export import json_lines
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history, file = Ledger(folder + "/resque.db"), Path(folder) / "history.jsonl"
        ...     _ = file.write_text("".join(json_lines([], [])))
        ...     import_updates(history, file).updates
        ()
    """
    said = said or ImportOptions()
    source = detect_format(path) if source == "auto" else source
    if source not in FORMATS:
        raise SettingError(f"unknown format {source!r}: use auto, {', '.join(FORMATS)}")
    for field in dataclasses.fields(said):
        if getattr(said, field.name) not in (None, False) and field.name not in _TOLD[source]:
            raise SettingError(f"{option_name(field.name)} says nothing of {source}: leave it out")
    if source == "jsonl":
        return _entries(ledger, path)
    return _runs(ledger, path, said) if source == "mlflow" else _codecarbon(ledger, path, said)


def detect_format(path: Path) -> str:
    """The format that a file or folder has by its content.

    Raises:
        DataError: There is none that is known.
    """
    if path.is_dir():
        found = "mlflow" if is_store(path) else "codecarbon" if (path / FILE).is_file() else None
    elif not path.exists():
        raise DataError(f"no such file: {path}")
    elif path.suffix in (".jsonl", ".ndjson") or not path.is_file():  # a pipe can be read only once
        found = "jsonl"
    else:
        with path.open("rb") as file:
            head = file.readline(4096)
        marks = {b"SQLite format 3\0": "mlflow", b"{": "jsonl"}
        found = next((name for mark, name in marks.items() if head.startswith(mark)), None)
        if found is None and b"energy_consumed" in head:
            found = "codecarbon"
    if found is None:
        raise DataError(f"{path} is neither JSON Lines, MLflow's nor codecarbon's: name its --format")
    return found


def _entries(ledger: Ledger, path: Path) -> Imported:
    entries = read_json_lines(path)
    fresh = ledger.extend(entries)
    updates = tuple(entry.id for entry in fresh if isinstance(entry, Update))
    forecasts = tuple(entry.id for entry in fresh if not isinstance(entry, Update))
    return Imported("jsonl", updates, forecasts, len(entries) - len(fresh), {}, ())


def _keep(ledger: Ledger, source: str, updates: Sequence[Update], skipped: Mapping[str, str], *notes: str) -> Imported:
    """Runs that the ledger holds stay as they are there, whatever is said of them now."""
    held = {update.id: update for update in ledger.updates()}
    fresh = [update for update in updates if update.id not in held]
    if not updates and skipped:
        name, why = next(iter(skipped.items()))
        more = f" ({len(skipped)} runs were looked at)" if len(skipped) > 1 else ""
        raise DataError(f"no run became an update: {name}: {why}{more}")
    ledger.extend(fresh)
    other = sum(update.id in held and held[update.id] != update for update in updates)
    told = list(filter(None, notes))
    if other:
        told.append(f"{other} of those there already would be imported otherwise now; an entry is never changed")
    blind = sum(update.features.accuracy is None for update in fresh)
    if blind:
        told.append(f"{blind} have no accuracy before the first step (step 0), so no forecast learns from them")
    return Imported(source, tuple(u.id for u in fresh), (), len(updates) - len(fresh), dict(skipped), tuple(told))


def _runs(ledger: Ledger, path: Path, said: ImportOptions) -> Imported:
    there = read_runs(path)
    runs = [run for run in there if said.experiment in (None, run.experiment) and _is_chosen(run, said.run)]
    if not runs:
        names = ", ".join(f"{run.experiment}/{run.name} ({run.id[:6]})" for run in there[:_SHOWN]) or "none"
        raise DataError(f"no run in {path} was named; its runs: {names}")
    updates: dict[str, Update] = {}
    skipped: dict[str, str] = {}
    for run in runs:
        try:
            updates[run.id] = update_from_run(run, said)
        except Unusable as reason:
            skipped[f"{run.name} ({run.id[:6]})"] = str(reason)
    without, notes = 0, []
    if said.energy is not None:
        joined = match_emissions([run for run in runs if run.id in updates], read_emissions(said.energy))
        without = len(updates) - len(joined)
        updates |= {name: add_energy(updates[name], row) for name, row in joined.items()}
        partly = [updates[name] for name in joined if updates[name].cost.energy_kwh is None]
        notes += [f"{update.id}: {update.energy.note}" for update in partly]
    if without:
        notes.append(f"{without} have no row in {said.energy}, so their energy stays unknown")
    return _keep(ledger, "mlflow", list(updates.values()), skipped, *notes)


def _is_chosen(run: LoggedRun, named: str | None) -> bool:
    return named is None or run.name == named or bool(named and run.id.startswith(named))


def _codecarbon(ledger: Ledger, path: Path, said: ImportOptions) -> Imported:
    path = path / FILE if path.is_dir() else path
    row = _chosen_row(path, read_emissions(path), said.run)
    if said.steps is None or said.accuracy is None:
        raise SettingError(
            f"{path} holds energy and time, no steps and no accuracy, without which no forecast learns: "
            "say --steps and --accuracy (and --accuracy-before), or join it to MLflow runs with --energy"
        )
    return _keep(ledger, "codecarbon", [update_from_emissions(row, said.steps, said.accuracy, said)], {})


def _chosen_row(path: Path, rows: Sequence[EmissionsRow], named: str | None) -> EmissionsRow:
    fitting = [row for row in rows if named is None or row.project == named or (row.run_id.startswith(named) and named)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(f"{row.project} ({row.run_id[:8]})" for row in rows[:_SHOWN]) or "none"
    raise DataError(f"{len(fitting)} runs in {path} fit, expected one; choose with --run from: {there}")
