"""What commands do before they call a workflow: open the ledger, set up loading, name former keys of JSON."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resque._processes import current_processes
from resque.errors import LedgerError, SettingError

if TYPE_CHECKING:
    import typer

    from resque.ledger.store import Ledger
    from resque.workflows.candidates import Candidate
    from resque.workflows.engine import Engine
    from resque.workflows.inputs import InputLoader, ModelOptions


def model_options(
    weights: Path | None, classes: int | None, device: str, limit: int | None, data_root: Path, download: bool
) -> "ModelOptions":
    """Return how a model and its data are loaded, with progress bars."""
    from resque.reporting import console
    from resque.workflows.inputs import ModelOptions

    own = current_processes().device(device)
    return ModelOptions(weights, classes, own, limit, data_root, console.progress, download)


def input_loader(model: str, *options: Any) -> "InputLoader":
    """Return a loader of one model and its data; the options are those of :func:`model_options`."""
    from resque.workflows.inputs import InputLoader

    return InputLoader(model, model_options(*options))


def run_engine(context: "typer.Context", name: str, address: str | None, loader: "InputLoader") -> "Engine":
    """Return an engine that is open until the command ends; on Ray each run gets a GPU if its model needs one."""
    from resque.workflows.ray_engine import open_engine

    engine: Engine = context.with_resource(open_engine(name, address, gpus=int(loader.device.type == "cuda")))
    return engine


def candidates(
    models: Sequence[str], file: Path | None, weights: Path | None, license_prices: Sequence[str]
) -> "list[Candidate]":
    """Return the models of a comparison: those that are named, then those of a file, with prices of licenses."""
    from resque.workflows.candidates import as_candidates, read_candidates, with_license_prices

    found: list[Any] = [*models, *([] if file is None else read_candidates(file))]
    if not found:
        raise SettingError("no model: expected --model NAME or NAME=WEIGHTS, or --models FILE.toml")
    alone = found[0] if len(found) == 1 else found
    return with_license_prices(as_candidates(alone, weights), license_prices)


def new_data(shifted: str | None, task: str | None, extend: bool) -> str:
    """Return the new training data; raise SettingError unless one of two options names them."""
    if shifted is not None and task is not None:
        raise SettingError("--shifted and --task conflict: name the new data once, by --shifted if their classes are "
                           "the model's, by --task if they are others")  # fmt: skip
    if extend and shifted is not None:
        raise SettingError("--extend and --shifted conflict: name the new data by --task (and --extend) if they have "
                           "further classes, or leave --extend out")  # fmt: skip
    if shifted is None and task is None:
        raise SettingError("name the new data: --shifted, or --task (and --extend) for new classes")
    return task or shifted or ""


def retrain_command(context: "typer.Context", forecast_id: str) -> str:
    """Return the command that carries a forecast out, with what was typed of the place where it runs."""
    words = ["resque", "retrain", "--forecast", forecast_id]
    for name in ("ledger", "device", "data_root", "download", "project"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            value = context.params[name]
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


def open_existing_ledger(path: Path) -> "Ledger":
    """Open a ledger; raise LedgerError where there is none."""
    from resque.ledger.store import Ledger

    if not os.path.exists(path):  # pathlib raises on names that are too long
        raise LedgerError(
            f"no ledger at {path}: create one with `resque forecast` or `resque demo`, or name it with --ledger"
        )
    return Ledger(path)


def with_former_names(record: dict[str, Any]) -> dict[str, Any]:
    """Return an update or a forecast as JSON that also has the field names of version 0.1 before the redesign."""
    from resque.ledger.migration import FIELDS

    return record | {former: record[name] for former, name in FIELDS.items() if name in record}
