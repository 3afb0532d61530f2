"""Keep a finished run: check its fields before it starts, and store its update whatever happens to the ledger."""

import json
import os
import shlex
import tempfile
import typing
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from resque._files import write_atomically
from resque._plain import to_builtins
from resque.energy.grid import Grid, named_grid
from resque.errors import DataError, LedgerError, ResqueWarning, SettingError
from resque.ledger.export import json_lines
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.ledger.validation import check_record

__all__ = ["check_fields", "keep_update"]

_TYPES = typing.get_type_hints(Update)
_EXPECTED = {
    "model": "its name, a text",
    "recipe": "settings by name, e.g. {'batch_size': 32}",
    "seed": "a whole number",
    "target_accuracy": "a share in (0, 1]",
    "grid": "a grid, e.g. resque.named_grid('FRA')",
    "tariff": "a resque.Tariff",
}


def check_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of an update as a ledger holds them: NumPy scalars, tensors and paths become plain values.

    Args:
        fields: Field of :class:`resque.Update` → value.

    Raises:
        SettingError: A value has another type, or could not be read back as it is.
        MeterError: The carbon intensity of a grid is negative.

    Example:
        >>> import numpy as np
        >>> check_fields({"seed": np.int64(3), "train_data": Path("new.npz"), "shift_type": None})
        {'seed': 3, 'train_data': 'new.npz', 'shift_type': None}
        >>> check_fields({"shift_type": 5})
        Traceback (most recent call last):
        resque.errors.SettingError: shift_type is 5; expected a text
    """
    return {name: _checked(name, value) for name, value in fields.items()}


def keep_update(ledger: Ledger, update: Update) -> None:
    """Append an update to a ledger; where that fails, write it to a file that ``resque ledger import`` takes.

    The pilot of the forecast that it settles is of no more use, and its file is deleted.

    Args:
        ledger: Ledger of the update.
        update: Finished update.

    Raises:
        LedgerError: The ledger cannot be written; the message names the file.
    """
    try:
        ledger.add(update)
    except BaseException as error:  # an impatient interruption must not lose the run either
        reason, kept = str(error) or type(error).__name__, _keep_beside(ledger.path, update)
        if not isinstance(error, Exception):
            warnings.warn(kept, ResqueWarning, stacklevel=2)
            raise
        raise LedgerError(f"the ledger cannot be written, and {kept} ({reason})") from error
    if update.forecast_id is not None:
        ledger.remove_pilot(update.forecast_id)


def _keep_beside(ledger: Path, update: Update) -> str:
    """Write an update to a new file: beside the ledger, here, or among temporary files; tell how to import it.

    Where no file can be written, the sentence holds the update itself.
    """
    (line,) = json_lines([update])
    for folder in (ledger.parent, "", tempfile.gettempdir()):
        try:
            path = Path(folder).absolute() / f"update-{update.id}.jsonl"
            with write_atomically(path) as scratch:
                scratch.write_text(line, encoding="utf-8")
        except (DataError, OSError):
            continue
        command = shlex.join(["resque", "ledger", "import", str(path), "--ledger", str(ledger)])
        return f"the update is kept: run `{command}` later"
    return f"no file either: put this line into a .jsonl file and import it: {line.strip()}"


def _checked(name: str, value: Any) -> Any:
    hint = _TYPES[name]
    expected = _EXPECTED.get(name, "a text")
    if hint in (str, str | None):
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str | None):  # else a dataset would become a text, sample by sample
            raise SettingError(f"{name} is {value!r:.60}; expected {expected}")
    try:
        plain = to_builtins(value)
        found = msgspec.convert(json.loads(json.dumps(plain)), hint)  # lists in place of tuples, as it is read back
    except msgspec.ValidationError as error:
        raise SettingError(f"{name} is {value!r:.60}; expected {expected}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingError(f"{name} cannot be stored ({error!s:.80}); expected {expected}") from error
    if isinstance(found, Grid):
        named_grid(intensity=found.intensity_g_per_kwh)
    try:
        check_record(plain, name)
    except ValueError as error:
        raise SettingError(str(error)) from error
    return found
