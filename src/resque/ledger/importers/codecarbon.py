"""Reader of codecarbon's ``emissions.csv``: energy, time and carbon of a run, and which run it belongs to.

A row holds neither steps nor accuracy. It does not tell whether the processor's power was measured by a counter,
modelled from its load, or assumed. Its time has no zone and is read in this machine's zone.
"""

import csv
import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from resque._files import read_lines
from resque.energy.grid import LARGEST_PUE, Grid
from resque.energy.reading import EnergyReading
from resque.errors import DataError
from resque.ledger.importers.mlflow import LoggedRun
from resque.ledger.validation import check_record

__all__ = ["FILE", "EmissionsRow", "match_emissions", "read_emissions"]

FILE = "emissions.csv"
_COLUMNS = "timestamp", "duration", "emissions", "energy_consumed"
_METHODS = {
    "cpu": "unknown",  # a counter, its load or a constant: the file does not tell
    "gpu": "measured",  # codecarbon reads a GPU's power from its driver only
    "ram": "assumed",  # codecarbon assumes a constant power for each module
    "whole": "unknown",
}


@dataclass(frozen=True)
class EmissionsRow:
    """One run of codecarbon.

    Attributes:
        run_id: Codecarbon's id of the run; empty in files of old versions.
        project: Codecarbon's name of the project.
        ended: End time, with a zone.
        reading: Duration and energy of the whole run, without the facility overhead.
        grid: Grid with the intensity that the emissions imply; None if the row has no energy or no emissions.
        host: Processor or GPU, and version of Python.
    """

    run_id: str
    project: str
    ended: datetime.datetime
    reading: EnergyReading
    grid: Grid | None
    host: Mapping[str, str]

    @property
    def started(self) -> datetime.datetime:
        """Start time, with a zone."""
        return self.ended - datetime.timedelta(seconds=self.reading.wall_s)


def read_emissions(path: Path) -> list[EmissionsRow]:
    """Return the runs of a file; if a run was written several times, its last row, which holds the sum.

    Raises:
        DataError: The file cannot be read, or is not codecarbon's.
    """
    runs: dict[object, EmissionsRow] = {}
    with closing(read_lines(path, f"codecarbon's {FILE}", newline="")) as lines:
        rows = csv.DictReader(lines)
        try:
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {missing[0]!r}: expected codecarbon's {FILE}")
            for row in rows:
                try:
                    runs[row.get("run_id") or rows.line_num] = _parse_row(row)
                except (ValueError, OverflowError) as error:
                    expected = "expected codecarbon's numbers, 0 or more, and its time"
                    raise DataError(f"{path}, line {rows.line_num}: {error}; {expected}") from error
        except csv.Error as error:
            raise DataError(f"cannot read {path}: {error}; expected codecarbon's {FILE}") from error
    return list(runs.values())


def _parse_row(row: Mapping[str, str | None]) -> EmissionsRow:
    def text(name: str) -> str:
        return (row.get(name) or "").strip()

    pue = _number("pue", text("pue") or "1")
    if not 1.0 <= pue <= LARGEST_PUE:
        raise ValueError(f"pue is {pue:g}")
    cut_off = datetime.timedelta(seconds=0.5)  # codecarbon truncates to whole seconds
    ended = datetime.datetime.fromisoformat(text("timestamp")).astimezone() + cut_off
    kwh, carbon_kg = _number("energy_consumed", text("energy_consumed")), _number("emissions", text("emissions"))
    reading = _reading(text, kwh / pue, pue)
    gpu = text("gpu_model") if "gpu" in reading.components_kwh else ""
    host = {"device": f"cuda: {gpu}" if gpu else f"cpu: {text('cpu_model')}", "python": text("python_version")}
    grid = None
    if kwh and carbon_kg:
        source = f"emissions over energy in codecarbon's {FILE}"
        grid = Grid(text("country_iso_code") or "given", 1000.0 * carbon_kg / (kwh / pue) / pue, source, pue)
    parsed = EmissionsRow(
        run_id=text("run_id"),
        project=text("project_name"),
        ended=ended,
        reading=reading,
        grid=grid,
        host={name: value for name, value in host.items() if value and value != "cpu: "},
    )
    check_record(reading)
    parsed.started.timestamp()  # raises OverflowError if there is no such moment
    return parsed


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} is {text!r}")
    return value


def _reading(text: Callable[[str], str], kwh: float, pue: float) -> EnergyReading:
    """Return the energy of a row without the facility overhead, which codecarbon's numbers include."""
    given = [device for device in ("cpu", "gpu", "ram") if text(f"{device}_energy")]
    parts = {device: _number(f"{device}_energy", text(f"{device}_energy")) / pue for device in given}
    if not parts.get("gpu"):
        parts.pop("gpu", None)  # codecarbon writes 0 for a GPU that does not exist
    if not kwh:
        parts = {}
    elif not parts:
        parts = {"whole": kwh}
    meter = f"codecarbon {text('codecarbon_version')}".strip(), text("tracking_mode"), FILE
    return EnergyReading(
        wall_s=_number("duration", text("duration")),
        energy_kwh=kwh or None,
        components_kwh=parts,
        methods={device: _METHODS[device] for device in parts},
        meter=", ".join(filter(None, meter)),
        note="" if kwh else "the row holds no energy",
    )


def match_emissions(runs: Sequence[LoggedRun], rows: Sequence[EmissionsRow]) -> dict[str, EmissionsRow]:
    """Return the id of each MLflow run with its row of energy, if there is one.

    A row belongs to a run by its id, else by the run's name, else by the experiment's name, else by time. Time also
    decides between several rows of one name.

    Raises:
        DataError: Several rows fit one run, or one row fits several runs.
    """
    claims: dict[int, list[LoggedRun]] = {}
    for run in runs:
        number = _row_number(run, rows)
        if number is not None:
            claims.setdefault(number, []).append(run)
    return {_owner(rows[number], claimants).id: rows[number] for number, claimants in claims.items()}


def _row_number(run: LoggedRun, rows: Sequence[EmissionsRow]) -> int | None:
    """Return the position of the run's row; None if there is none."""
    simultaneous = [number for number, row in enumerate(rows) if _overlap(run, row)]
    criteria: tuple[Callable[[EmissionsRow], bool], ...] = (
        lambda row: row.run_id.replace("-", "") == run.id,
        lambda row: row.project == run.name,
        lambda row: row.project == run.experiment,
    )
    matches = ([number for number, row in enumerate(rows) if criterion(row)] for criterion in criteria)
    named = next(filter(None, matches), simultaneous)
    fitting = named if len(named) == 1 else [number for number in named if number in simultaneous]
    if named and len(fitting) != 1:
        raise DataError(
            f"{len(named)} rows of energy fit the run {run.name}, {len(fitting)} of them at its time, expected one: "
            "choose runs with --run, or leave --energy out"
        )
    return fitting[0] if fitting else None


def _owner(row: EmissionsRow, claimants: Sequence[LoggedRun]) -> LoggedRun:
    """Return the only run whose time overlaps a row of emissions.csv; raise DataError if none or several do."""
    fitting = claimants if len(claimants) == 1 else [run for run in claimants if _overlap(run, row)]
    if len(fitting) != 1:
        names = ", ".join(run.name for run in claimants)
        raise DataError(
            f"the energy of {row.project or row.run_id} until {row.ended:%Y-%m-%d %H:%M:%S} fits {len(claimants)} "
            f"runs, {names}, and cannot be divided between them; choose with --run, or leave --energy out"
        )
    return fitting[0]


def _overlap(run: LoggedRun, row: EmissionsRow) -> bool:
    """Return whether they share half of the shorter's time: codecarbon truncates times, so successive runs touch."""
    started = run.started_ms / 1000.0
    ended = started if run.ended_ms is None else run.ended_ms / 1000.0
    shared = min(row.ended.timestamp(), ended) - max(row.started.timestamp(), started)
    return shared > 0.0 and shared >= 0.5 * min(row.reading.wall_s, ended - started)
