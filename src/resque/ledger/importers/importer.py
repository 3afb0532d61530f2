"""Import of other tools' records into a ledger: recognize the format, keep what is new, report what was left out.

The conversion of a run is in :mod:`resque.ledger.importers.conversion`. A file is imported in one transaction,
completely or not at all. An imported entry keeps the id of its run, so that a run is imported once.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resque.errors import DataError, SettingError
from resque.ledger.export import read_json_lines
from resque.ledger.importers.codecarbon import FILE, match_emissions, read_emissions
from resque.ledger.importers.conversion import (
    ImportOptions,
    UnusableRunError,
    add_energy,
    option_name,
    update_from_emissions,
    update_from_run,
)
from resque.ledger.importers.mlflow import holds_runs, read_runs
from resque.ledger.records import Forecast, Question, Update, Void
from resque.ledger.store import Ledger

__all__ = ["FORMATS", "ImportResult", "detect_format", "import_updates"]

_MLFLOW_ONLY = {"accuracy_metric", "loss_metric", "percent", "step_unit", "experiment", "energy"}
_CODECARBON_ONLY = {"steps", "accuracy", "accuracy_before"}
_SHARED = {"run", "target_accuracy", "shift_type", "steps_per_epoch"}
_OPTIONS: Mapping[str, set[str]] = {
    "jsonl": set(),
    "mlflow": _MLFLOW_ONLY | _SHARED,
    "codecarbon": _CODECARBON_ONLY | _SHARED,
}
FORMATS = tuple(_OPTIONS)
"""Names of the formats that can be imported."""
_MAX_NAMES = 6  # runs that an error message lists


@dataclass(frozen=True)
class ImportResult:
    """The result of an import.

    Attributes:
        source: Format of the file.
        updates: Ids of the new updates.
        forecasts: Ids of the new forecasts.
        held: Number of entries that the ledger already had.
        skipped: Name of each run that did not become an update → the reason.
        notes: Remarks for the user.
        voids: Ids of the entries that are void now.
        questions: Ids of the new questions without a forecast.
    """

    source: str
    updates: tuple[str, ...]
    forecasts: tuple[str, ...]
    held: int
    skipped: Mapping[str, str]
    notes: tuple[str, ...]
    voids: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


def import_updates(
    ledger: Ledger, path: Path, source: str = "auto", options: ImportOptions | None = None
) -> ImportResult:
    """Append the entries of a file or folder to a ledger, in one transaction.

    Args:
        ledger: Ledger that gets the entries.
        path: File of JSON Lines, ``emissions.csv``, ``mlflow.db``, or folder of runs.
        source: One of :data:`FORMATS`, or ``"auto"`` to recognize it.
        options: Facts that the file does not hold.

    Raises:
        DataError: The file cannot be read, is ambiguous, or holds nothing that can become an entry.
        SettingError: An option does not apply to this format, or a required one is missing.
        LedgerError: The ledger holds an entry of the same id with another content.

    Example:
        >>> import tempfile
        >>> from resque.ledger.export import json_lines
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history, file = Ledger(folder + "/resque.db"), Path(folder) / "history.jsonl"
        ...     _ = file.write_text("".join(json_lines([])))
        ...     import_updates(history, file).updates
        ()
    """
    options = options or ImportOptions()
    if not (os.path.isfile(path) or os.path.isdir(path)):  # pathlib raises on names that are too long
        raise DataError(f"no such file: {path}; expected a regular file or a folder, no pipe or device")
    source = detect_format(path) if source == "auto" else source
    if source not in FORMATS:
        raise SettingError(f"unknown format {source!r}: use auto, {', '.join(FORMATS)}")
    for field in dataclasses.fields(options):
        if getattr(options, field.name) not in (None, False) and field.name not in _OPTIONS[source]:
            raise SettingError(f"{option_name(field.name)} does not apply to the format {source}: leave it out")
    if source == "jsonl":
        return _import_entries(ledger, path)
    return _import_mlflow(ledger, path, options) if source == "mlflow" else _import_codecarbon(ledger, path, options)


def detect_format(path: Path) -> str:
    """Return the format of a file or folder, judged by its content.

    Raises:
        DataError: The format of the file is unknown.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"timestamp,project_name,energy_consumed")
        ...     file.flush()
        ...     detect_format(Path(file.name))
        'codecarbon'
    """
    if path.is_dir():
        if holds_runs(path):
            return "mlflow"
        if (path / FILE).is_file():
            return "codecarbon"
    elif path.suffix in (".jsonl", ".ndjson"):
        return "jsonl"
    else:
        with path.open("rb") as file:
            head = file.readline(4096)
        if head.startswith(b"SQLite format 3\0"):
            return "mlflow"
        if head.startswith(b"{"):
            return "jsonl"
        if b"energy_consumed" in head:
            return "codecarbon"
    raise DataError(f"{path} is neither JSON Lines, MLflow's nor codecarbon's: name its --format")


def _import_entries(ledger: Ledger, path: Path) -> ImportResult:
    entries = read_json_lines(path)
    new = ledger.extend(entries)
    updates, forecasts, voids, questions = (
        tuple(entry.id for entry in new if isinstance(entry, kind)) for kind in (Update, Forecast, Void, Question)
    )
    return ImportResult("jsonl", updates, forecasts, len(entries) - len(new), {}, (), voids, questions)


def _import_mlflow(ledger: Ledger, path: Path, options: ImportOptions) -> ImportResult:
    runs = read_runs(path)
    selected = [
        run for run in runs if options.experiment in (None, run.experiment) and _matches(options.run, run.name, run.id)
    ]
    if not selected:
        names = ", ".join(f"{run.experiment}/{run.name} ({run.id[:6]})" for run in runs[:_MAX_NAMES]) or "none"
        raise DataError(f"no run in {path} was selected; its runs: {names}")
    updates: dict[str, Update] = {}
    skipped: dict[str, str] = {}
    for run in selected:
        try:
            updates[run.id] = update_from_run(run, options)
        except UnusableRunError as error:
            skipped[f"{run.name} ({run.id[:6]})"] = str(error)
    if not updates:
        name, reason = next(iter(skipped.items()))
        more = f" ({len(skipped)} runs were read)" if len(skipped) > 1 else ""
        raise DataError(f"no run became an update: {name}: {reason}{more}")
    notes = []
    if options.energy is not None:
        rows = match_emissions([run for run in selected if run.id in updates], read_emissions(options.energy))
        updates |= {run_id: add_energy(updates[run_id], row) for run_id, row in rows.items()}
        incomplete = [updates[run_id] for run_id in rows if updates[run_id].cost.energy_kwh is None]
        notes += [f"{update.id}: {update.energy.note}" for update in incomplete]
        if without := len(updates) - len(rows):
            notes.append(f"{without} have no row in {options.energy}, so their energy stays unknown")
    return _store(ledger, "mlflow", list(updates.values()), skipped, notes)


def _import_codecarbon(ledger: Ledger, path: Path, options: ImportOptions) -> ImportResult:
    path = path / FILE if path.is_dir() else path
    rows = read_emissions(path)
    selected = [row for row in rows if _matches(options.run, row.project, row.run_id)]
    if len(selected) != 1:
        names = ", ".join(f"{row.project} ({row.run_id[:8]})" for row in rows[:_MAX_NAMES]) or "none"
        raise DataError(f"{len(selected)} runs in {path} fit, expected one; choose with --run from: {names}")
    try:
        update = update_from_emissions(selected[0], options)
    except UnusableRunError as error:
        raise DataError(f"the run {selected[0].project} in {path} cannot become an update: {error}") from error
    return _store(ledger, "codecarbon", [update], {}, [])


def _matches(query: str | None, name: str, run_id: str) -> bool:
    """Return whether a query selects a run: None selects all, else its name or the beginning of its id."""
    return query is None or query == name or bool(query and run_id.startswith(query))


def _store(
    ledger: Ledger, source: str, updates: Sequence[Update], skipped: Mapping[str, str], notes: list[str]
) -> ImportResult:
    """Append the new updates; those that the ledger already has stay as they are, whatever the options say now."""
    stored = {update.id: update for update in ledger.updates(void=True)}
    new = [update for update in updates if update.id not in stored]
    ledger.extend(new)
    if changed := sum(stored.get(update.id, update) != update for update in updates):
        notes.append(f"{changed} of those there already would be imported otherwise now; an entry is never changed")
    if without_start := sum(update.features.accuracy is None for update in new):
        notes.append(
            f"{without_start} have no accuracy before the first step (step 0), so no forecast learns from them"
        )
    return ImportResult(source, tuple(u.id for u in new), (), len(updates) - len(new), skipped, tuple(notes))
