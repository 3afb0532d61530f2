"""What codecarbon wrote into ``emissions.csv``: energy, time and carbon of a run, and which run it was.

A row knows neither steps nor accuracy. It does not say either how the processor's power was known: from a counter,
from its load or from a constant. Its time has no zone; it is read as this machine's.
"""

import csv
import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from resque.energy.grid import LARGEST_PUE, Grid
from resque.energy.reading import EnergyReading
from resque.errors import DataError
from resque.ledger.importers.mlflow import LoggedRun

FILE = "emissions.csv"
_NEEDED = "timestamp", "duration", "emissions", "energy_consumed"
_METHODS = {
    "cpu": "unknown",  # a counter, its load or a constant: the file does not say
    "gpu": "measured",  # codecarbon knows a GPU's power from its driver alone
    "ram": "assumed",  # codecarbon takes a constant for each module
    "whole": "unknown",
}


@dataclass(frozen=True)
class EmissionsRow:
    """One run of codecarbon, from its last row.

    Attributes:
        run_id: Codecarbon's; empty in files of old versions.
        project: Its name.
        ended: With a zone.
        duration_s: Of the whole run.
        energy_kwh: Consumed by the machine; None where the row has none.
        components_kwh: Device → energy.
        carbon_kg: Emitted.
        country: ISO alpha-3 code, empty where it is not told.
        meter: Codecarbon's version and what it watched: the machine or the process.
        note: What the reader of the figures has to know.
        pue: Power usage effectiveness of the site.
        host: Processor, GPU, Python.
    """

    run_id: str
    project: str
    ended: datetime.datetime
    duration_s: float
    energy_kwh: float | None
    components_kwh: Mapping[str, float]
    carbon_kg: float
    country: str
    meter: str
    note: str
    pue: float
    host: Mapping[str, str]

    @property
    def started(self) -> datetime.datetime:
        """When it began."""
        return self.ended - datetime.timedelta(seconds=self.duration_s)

    @property
    def grid(self) -> Grid | None:
        """The electricity it was priced with, where the row tells."""
        if not self.energy_kwh or not self.carbon_kg > 0.0:
            return None
        source = f"emissions over energy in codecarbon's {FILE}"
        intensity = 1000.0 * self.carbon_kg / self.energy_kwh / self.pue
        return Grid(self.country or "given", intensity, source, self.pue)

    def reading(self) -> EnergyReading:
        """As a meter's reading of the whole run."""
        methods = {device: _METHODS[device] for device in self.components_kwh}
        return EnergyReading(self.duration_s, self.energy_kwh, self.components_kwh, methods, self.meter, self.note)


def read_emissions(path: Path) -> list[EmissionsRow]:
    """The runs of a file; of those that were written more than once, the last row, which holds the sum.

    Raises:
        DataError: The file cannot be read, or is not codecarbon's.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (rows.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {missing[0]!r}: expected codecarbon's {FILE}")
            found: dict[object, EmissionsRow] = {}
            for row in rows:
                found[row.get("run_id") or rows.line_num] = _emissions(row, f"{path}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}; expected codecarbon's {FILE}") from error
    return list(found.values())


def _emissions(row: Mapping[str, str | None], where: str) -> EmissionsRow:
    def text(name: str) -> str:
        return (row.get(name) or "").strip()

    def number(name: str) -> float:
        try:
            value = float(text(name))
        except ValueError:
            value = math.nan
        if not 0.0 <= value < math.inf:
            raise ValueError(f"{name} is {text(name)!r}")
        return value

    try:
        kwh, duration_s = number("energy_consumed"), number("duration")
        parts = {device: number(f"{device}_energy") for device in ("cpu", "gpu", "ram") if text(f"{device}_energy")}
        pue = number("pue") if text("pue") else 1.0
        if not 1.0 <= pue <= LARGEST_PUE:
            raise ValueError(f"pue is {pue:g}")
        cut_off = datetime.timedelta(seconds=0.5)  # codecarbon writes whole seconds, rounded down
        ended = datetime.datetime.fromisoformat(text("timestamp")).astimezone() + cut_off
        (ended - datetime.timedelta(seconds=duration_s)).timestamp()  # there must be such a moment
        carbon_kg = number("emissions")
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where}: {error}; expected codecarbon's numbers, from 0 on, and its time") from error
    if not parts.get("gpu"):
        parts.pop("gpu", None)  # codecarbon writes 0 for a GPU that is not there
    mode = text("tracking_mode")
    kwh, parts = kwh / pue, {device: energy / pue for device, energy in parts.items()}  # codecarbon's are the site's
    graphics = text("gpu_model") if parts.get("gpu") else ""
    host = {
        "device": f"cuda: {graphics}" if graphics else f"cpu: {text('cpu_model')}",
        "python": text("python_version"),
    }
    return EmissionsRow(
        run_id=text("run_id"),
        project=text("project_name"),
        ended=ended,
        duration_s=duration_s,
        energy_kwh=kwh or None,
        components_kwh=(parts or {"whole": kwh}) if kwh else {},
        carbon_kg=carbon_kg,
        country=text("country_iso_code"),
        meter=", ".join(filter(None, [f"codecarbon {text('codecarbon_version')}".strip(), mode, FILE])),
        note="" if kwh else "the row holds no energy",
        pue=pue,
        host={name: value for name, value in host.items() if value and value != "cpu: "},
    )


def match_emissions(runs: Sequence[LoggedRun], rows: Sequence[EmissionsRow]) -> dict[str, EmissionsRow]:
    """Run of MLflow → its energy: by id, by the run's name, by the experiment's, else by time; time settles ties.

    Raises:
        DataError: Several rows would fit one run, or one row several runs.
    """
    claims: dict[int, list[LoggedRun]] = {}
    for run in runs:
        number = _number_of(run, rows)
        if number is not None:
            claims.setdefault(number, []).append(run)
    return {_owner(rows[number], claiming).id: rows[number] for number, claiming in claims.items()}


def _number_of(run: LoggedRun, rows: Sequence[EmissionsRow]) -> int | None:
    """Which row is the run's; None where none is."""
    at_its_time = [number for number, row in enumerate(rows) if _same_time(run, row)]
    tests: tuple[Callable[[EmissionsRow], bool], ...] = (
        lambda row: row.run_id.replace("-", "") == run.id,
        lambda row: row.project == run.name,
        lambda row: row.project == run.experiment,
    )
    for test in tests:
        named = [number for number, row in enumerate(rows) if test(row)]
        fitting = named if len(named) == 1 else [number for number in named if number in at_its_time]
        if len(fitting) == 1:
            return fitting[0]
        if named:
            break
    else:
        named = fitting = at_its_time
    if named and len(fitting) != 1:
        raise DataError(
            f"{len(named)} rows of energy fit the run {run.name}, {len(fitting)} of them at its time, expected one: "
            "choose runs with --run, or leave --energy out"
        )
    return fitting[0] if fitting else None


def _owner(row: EmissionsRow, claiming: Sequence[LoggedRun]) -> LoggedRun:
    """The run that a row belongs to."""
    fitting = claiming if len(claiming) == 1 else [run for run in claiming if _same_time(run, row)]
    if len(fitting) != 1:
        names = ", ".join(run.name for run in claiming)
        raise DataError(
            f"the energy of {row.project or row.run_id} until {row.ended:%Y-%m-%d %H:%M:%S} fits {len(claiming)} runs, "
            f"{names}: what each took cannot be told; choose with --run, or leave --energy out"
        )
    return fitting[0]


def _same_time(run: LoggedRun, row: EmissionsRow) -> bool:
    """Whether they share half of the shorter one's time: codecarbon cuts off parts of a second, so neighbours touch."""
    began, ended = row.started.timestamp(), row.ended.timestamp()
    run_began = run.started_ms / 1000.0
    run_ended = run_began if run.ended_ms is None else run.ended_ms / 1000.0
    together = min(ended, run_ended) - max(began, run_began)
    return together > 0.0 and together >= 0.5 * min(row.duration_s, run_ended - run_began)
