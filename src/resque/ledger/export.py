"""The ledger in other forms: JSON Lines both ways, exactly; CSV out, for spreadsheets.

A line of JSON Lines is one entry, ``{"forecast": {...}}`` or ``{"update": {...}}``; the file is read whole and refused
whole, so that a broken line cannot leave half a history behind.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from resque._files import write_atomically
from resque.errors import DataError, SettingError
from resque.ledger.migration import modernize
from resque.ledger.records import Forecast, LearningCurve, Update
from resque.ledger.serialization import from_dict_strict, to_dict
from resque.ledger.store import Ledger

_KINDS: Mapping[str, type[Update] | type[Forecast]] = {"forecast": Forecast, "update": Update}
_FIRST = {"jsonl": b'{"', "csv": b"id,"}
_FORMULA = "=", "+", "-", "@"
_COMPONENTS = "cpu", "gpu", "ram"
_COLUMNS: Mapping[str, Callable[[Update], Any]] = {
    "id": lambda update: update.id,
    "started_utc": lambda update: update.started_utc,
    "ended_utc": lambda update: update.created_utc,
    "model": lambda update: update.model,
    "train_data": lambda update: update.train_data,
    "test_data": lambda update: update.test_data,
    "shift_type": lambda update: update.shift_type,
    "seed": lambda update: update.seed,
    **{
        name: lambda update, name=name: update.recipe.get(name)  # type: ignore[misc]
        for name in ("optimizer", "learning_rate", "batch_size", "trains")
    },
    "target_accuracy_share": lambda update: update.target_accuracy,
    "reached": lambda update: update.reached,
    "stopped_by": lambda update: update.stopped_by,
    "index_rad": lambda update: update.features.index_rad,
    "accuracy_before_share": lambda update: update.features.accuracy,
    "accuracy_after_share": lambda update: update.accuracy,
    "original_accuracy_before_share": lambda update: update.original_accuracy_before,
    "original_accuracy_after_share": lambda update: update.original_accuracy_after,
    "epochs": lambda update: update.cost.epochs,
    "steps": lambda update: update.cost.steps,
    "samples": lambda update: update.cost.samples,
    "gradient_norm": lambda update: update.cost.gradient_norm,
    "parameter_change": lambda update: update.cost.parameter_change,
    "training_s": lambda update: update.cost.wall_s,
    "training_energy_kwh": lambda update: update.cost.energy_kwh,
    "training_carbon_kg_co2e": lambda update: update.cost.carbon_kg,
    "evaluation_s": lambda update: update.evaluation_s,
    "whole_s": lambda update: update.energy.wall_s,
    "whole_energy_kwh": lambda update: update.whole_energy_kwh,
    **{
        f"whole_{device}_kwh": lambda update, device=device: update.energy.components_kwh.get(device)  # type: ignore[misc]
        for device in _COMPONENTS
    },
    "energy_methods": lambda update: ", ".join(f"{device} {how}" for device, how in update.energy.methods.items()),
    "meter": lambda update: update.energy.meter,
    "grid_region": lambda update: update.grid and update.grid.region,
    "grid_intensity_g_per_kwh": lambda update: update.grid and update.grid.intensity_g_per_kwh,
    "grid_pue": lambda update: update.grid and update.grid.pue,
    "price": lambda update: update.price,
    "currency": lambda update: update.tariff and update.tariff.currency,
    "forecast_id": lambda update: update.forecast_id,
}


def export(history: Ledger, form: str, out: Path | None = None) -> Iterator[str]:
    """The ledger's lines; with ``out`` they are written there, and none are left.

    Args:
        history: What is exported.
        form: ``"jsonl"``, or ``"csv"`` for the updates alone.
        out: A new file, or one of the same form, which is replaced.

    Raises:
        SettingError: Another form.
        DataError: The file cannot be written, or holds something else.
    """
    if form not in _FIRST:
        raise SettingError(f"unknown format {form!r}: use one of {', '.join(_FIRST)}")
    updates = history.updates()
    lines = csv_lines(updates) if form == "csv" else json_lines(history.forecasts(), updates)
    if out is None:
        return lines
    with (
        write_atomically(out, may_replace=lambda path: _begins(path, _FIRST[form])) as scratch,
        scratch.open("w", encoding="utf-8") as file,
    ):
        file.writelines(lines)
    return iter(())


def _begins(path: Path, first: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(first)) in (b"", first)


def json_lines(forecasts: Iterable[Forecast], updates: Iterable[Update]) -> Iterator[str]:
    """One line an entry, forecasts first, each kind in the ledger's order."""
    for kind, entries in (("forecast", forecasts), ("update", updates)):
        for entry in entries:
            yield json.dumps({kind: to_dict(entry)}, allow_nan=False) + "\n"


def csv_lines(updates: Iterable[Update]) -> Iterator[str]:
    """A header with units, then one line an update; what was not measured is an empty cell."""
    yield _row(list(_COLUMNS))
    for update in updates:
        yield _row([_cell(column(update)) for column in _COLUMNS.values()])


def read_json_lines(path: Path) -> list[Update | Forecast]:
    """The entries of a file that :func:`json_lines` wrote.

    Raises:
        DataError: The file cannot be read, or a line is no entry, or holds another's id with another content.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     broken = Path(folder) / "history.jsonl"
        ...     _ = broken.write_text('{"update": {}}')
        ...     try:
        ...         read_json_lines(broken)
        ...     except DataError as error:
        ...         print(str(error).split("history.jsonl, ")[1])
        line 1: update: it has no 'id'; nothing imported, mend or remove it
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path} as text: {error}; expected JSON Lines of `resque ledger export`"
        ) from error
    found: dict[tuple[type, str], Update | Forecast] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = _entry(line)
            if found.setdefault((type(entry), entry.id), entry) != entry:
                raise ValueError(f"the id {entry.id} is on an earlier line with another content")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: {error}; nothing imported, mend or remove it") from error
    return list(found.values())


def _entry(line: str) -> Update | Forecast:
    try:
        plain = json.loads(line, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON ({error.msg} at column {error.colno})") from error
    if not (isinstance(plain, dict) and len(plain) == 1 and set(plain) <= set(_KINDS)):
        raise ValueError('expected {"update": {…}} or {"forecast": {…}}')
    ((kind, content),) = plain.items()
    try:
        entry = from_dict_strict(_KINDS[kind], modernize(content))
    except ValueError as error:
        raise ValueError(f"{kind}: {error}") from error
    if isinstance(entry, Update):
        _check_curve(entry.curve)
    elif "steps" not in entry.estimates:
        raise ValueError("forecast: estimates has no 'steps'")
    return entry


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number; what is not known is null")


def _check_curve(curve: LearningCurve) -> None:
    lengths = {len(column) for column in vars(curve).values() if isinstance(column, tuple)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"update: curve has columns of {sorted(lengths)} evaluations, expected one length from 1 on")


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets the apostrophe that makes it text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _row(cells: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
