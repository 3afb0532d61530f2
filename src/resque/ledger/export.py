"""Export of a ledger: JSON Lines, which can be imported again without loss, and CSV for spreadsheets.

A line of JSON Lines is one entry, such as ``{"update": {...}}``; the others are forecasts, questions and tombstones. A
file is read completely before anything is imported, so that an invalid line cannot leave half a history behind.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from resque._files import read_lines, write_atomically
from resque.errors import DataError, SettingError
from resque.ledger.migration import modernize
from resque.ledger.records import Forecast, Question, Update, Void
from resque.ledger.serialization import encode, from_dict_strict
from resque.ledger.store import Ledger

__all__ = ["csv_lines", "export", "json_lines", "read_json_lines"]

Entry = Update | Forecast | Question | Void
_TYPES: Mapping[str, type[Entry]] = {"forecast": Forecast, "update": Update, "question": Question, "void": Void}
_FIRST_BYTES = {"jsonl": b'{"', "csv": b"id,"}
_FORMULA = "=", "+", "-", "@"
_LINE_END = "\r\n"  # of the CSV writer, which then quotes cells with either character
_COLUMNS = {
    "id": "id",
    "started_utc": "started_utc",
    "ended_utc": "created_utc",
    "model": "model",
    "train_data": "train_data",
    "test_data": "test_data",
    "shift_type": "shift_type",
    "seed": "seed",
    "optimizer": "recipe.optimizer",
    "learning_rate": "recipe.learning_rate",
    "batch_size": "recipe.batch_size",
    "trains": "recipe.trains",
    "target_accuracy_share": "target_accuracy",
    "reached": "reached",
    "stopped_by": "stopped_by",
    "index_rad": "features.index_rad",
    "accuracy_before_share": "features.accuracy",
    "accuracy_after_share": "accuracy",
    "original_accuracy_before_share": "original_accuracy_before",
    "original_accuracy_after_share": "original_accuracy_after",
    "epochs": "cost.epochs",
    "steps": "cost.steps",
    "samples": "cost.samples",
    "gradient_norm": "cost.gradient_norm",
    "parameter_change": "cost.parameter_change",
    "training_s": "cost.wall_s",
    "training_energy_kwh": "cost.energy_kwh",
    "training_carbon_kg_co2e": "cost.carbon_kg",
    "evaluation_s": "evaluation_s",
    "total_s": "energy.wall_s",
    "total_energy_kwh": "whole_energy_kwh",
    "total_cpu_kwh": "energy.components_kwh.cpu",
    "total_gpu_kwh": "energy.components_kwh.gpu",
    "total_ram_kwh": "energy.components_kwh.ram",
    "energy_methods": "energy.methods",
    "meter": "energy.meter",
    "processes": "processes",
    "grid_region": "grid.region",
    "grid_intensity_g_per_kwh": "grid.intensity_g_per_kwh",
    "grid_pue": "grid.pue",
    "price": "price",
    "currency": "tariff.currency",
    "forecast_id": "forecast_id",
}
"""Column of the CSV file → path of its value in an update."""
_FORECAST_COLUMNS = {"forecasting_s": "overhead.wall_s", "forecasting_energy_kwh": "overhead.energy_kwh"}


def export(ledger: Ledger, file_format: str, out: Path | None = None) -> Iterator[str]:
    """Return the lines of a ledger, or write them to a file and return none.

    Args:
        ledger: Ledger to export.
        file_format: ``"jsonl"`` for everything, or ``"csv"`` for the updates only.
        out: New file, or file of the same format, which is replaced; None returns the lines.

    Raises:
        SettingError: The format is unknown.
        DataError: The file cannot be written, or holds something else.
    """
    if file_format not in _FIRST_BYTES:
        raise SettingError(f"unknown format {file_format!r}: use one of {', '.join(_FIRST_BYTES)}")
    if file_format == "csv":
        lines = csv_lines(ledger.updates(), {update.id: forecast for forecast, update in ledger.settled()})
    else:
        entries = ledger.forecasts(void=True), ledger.updates(void=True), ledger.questions(), ledger.voids()
        lines = json_lines(entry for several in entries for entry in several)
    if out is None:
        return lines

    def is_export(path: Path) -> bool:
        first = _FIRST_BYTES[file_format]
        with path.open("rb") as file:
            return file.read(len(first)) in (b"", first)

    with write_atomically(out, may_replace=is_export) as scratch, scratch.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    return iter(())


def json_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield one line of JSON for each entry; a tombstone comes after the entry that is void.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> next(json_lines(bundled_updates()))[:35]
        '{"update": {"id": "1a548d221954", "'
    """
    for entry in entries:
        yield f'{{"{type(entry).__name__.lower()}": {encode(entry)}}}\n'


def csv_lines(updates: Iterable[Update], forecasts: Mapping[str, Forecast] = {}) -> Iterator[str]:
    """Yield a header with units and one line for each update; a cell is empty if its value was not measured.

    Args:
        updates: Updates.
        forecasts: Id of an update → the forecast that it settled, whose overhead stands beside the costs.

    Example:
        >>> next(csv_lines([]))[:35]
        'id,started_utc,ended_utc,model,trai'
    """
    writer = csv.writer(_Echo(), lineterminator=_LINE_END)
    yield writer.writerow([*_COLUMNS, *_FORECAST_COLUMNS])
    for update in updates:
        forecast = forecasts.get(update.id)
        cells = [_cell(update.asked_by(forecast), path) for path in _COLUMNS.values()]
        cells += [_cell(forecast, path) for path in _FORECAST_COLUMNS.values()]
        yield writer.writerow(cells)


class _Echo:
    """File whose write returns the text, so that a CSV writer returns its lines."""

    def write(self, line: str) -> str:
        return line.removesuffix(_LINE_END) + "\n"


def _cell(value: Any, path: str) -> Any:
    for name in path.split("."):
        if value is not None:
            value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    is_formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if is_formula else value  # the apostrophe keeps a spreadsheet from executing it


def read_json_lines(path: Path) -> list[Entry]:
    """Return the entries of a file that :func:`json_lines` wrote, in this or an earlier version.

    Raises:
        DataError: The file cannot be read, a line is not an entry, or two lines have one id and different contents.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     broken = Path(folder) / "history.jsonl"
        ...     _ = broken.write_text('{"update": {}}')
        ...     try:
        ...         read_json_lines(broken)
        ...     except DataError as error:
        ...         print(str(error).split("history.jsonl, ")[1])
        line 1: update: it has no 'id'; nothing was imported: correct or remove the line
    """
    entries: dict[tuple[type, str], Entry] = {}
    with closing(read_lines(path, "JSON Lines of `resque ledger export`")) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = _parse_line(line)
                if entries.setdefault((type(entry), entry.id), entry) != entry:
                    raise ValueError(f"the id {entry.id} is on an earlier line with another content")
            except (ValueError, RecursionError) as error:
                message = f"{path}, line {number}: {error}; nothing was imported: correct or remove the line"
                raise DataError(message) from error
    return list(entries.values())


def _parse_line(line: str) -> Entry:
    try:
        document = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from error
    if not (isinstance(document, dict) and len(document) == 1 and set(document) <= set(_TYPES)):
        raise ValueError('expected {"update": {…}}, {"forecast": {…}}, {"question": {…}} or {"void": {…}}')
    ((name, content),) = document.items()
    try:
        entry = from_dict_strict(_TYPES[name], modernize(content))
        if isinstance(entry, Forecast) and "steps" not in entry.estimates:
            raise ValueError("estimates has no 'steps'")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return entry


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number; an unknown value is null")
