"""Restore what an update leaves out from the forecast that it carries out: model, data, target, how they are loaded."""

import dataclasses
import numbers
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from resque.errors import SettingError
from resque.ledger.records import Forecast
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.workflows.inputs import InputLoader

__all__ = ["change_of", "inputs_of", "restored"]

Request = TypeVar("Request")
_RESTORED = "model", "train", "test", "target_accuracy", "original", "original_test", "layer", "reduction", "seed"
_OPTIONS = "weights", "classes", "limit"
_OF_SHIFTS = {NEW_TASK: ("original", "original_test"), EXTENSION: ("original",)}  # defaults that others do not take


def inputs_of(loader: InputLoader, **named: Any) -> dict[str, Any]:
    """Return the names by which the same update can be asked for again; what was passed as an object has none.

    Args:
        loader: Loader of the model and data.
        named: Arguments of :func:`resque.update`, by name.

    Example:
        >>> inputs_of(InputLoader("net.py:build"), train="npz:new.npz", test=([[0.5]], [1]), layer=None, seed=0)
        {'model': 'net.py:build', 'train': 'npz:new.npz', 'seed': 0}
    """
    change = None if loader.change == "shift" else loader.change
    given = {"model": loader.model, "change": change, **{name: getattr(loader.options, name) for name in _OPTIONS}}
    plain = {name: _plain(value) for name, value in (given | named).items()}
    return {name: value for name, value in plain.items() if value is not None}


def change_of(forecast: Forecast) -> str | None:
    """Return what the update of a forecast changes: ``"new task"``, ``"extension"``, or a type of shift."""
    change: str | None = (forecast.inputs or {}).get("change", forecast.shift_type)
    return change


def restored(request: Request, forecast: Forecast | None) -> Request:
    """Return a request with what it leaves out: as its forecast has it, else as its defaults have it.

    Args:
        request: Request as of :class:`resque.workflows.update.UpdateRequest`, which imports this module.
        forecast: Forecast that the update carries out; None without one.

    Raises:
        SettingError: The forecast was made for another target, or neither names what is needed.
    """
    asked: Any = request
    if forecast is None:
        return request
    if asked.target_accuracy not in (None, forecast.target_accuracy):
        raise SettingError(
            f"forecast {forecast.id} was made for target accuracy {forecast.target_accuracy}, not "
            f"{asked.target_accuracy}: leave --target-accuracy out, or make a new forecast"
        )
    found: Request = _of_forecast(asked, forecast)
    lacking = [f"--{name}" for name in ("model", "train", "test") if getattr(found, name) is None]
    if lacking:
        raise SettingError(f"forecast {forecast.id} was made for objects that have no name: add {', '.join(lacking)}")
    return found


def _of_forecast(asked: Any, forecast: Forecast) -> Any:
    known, options = _known(asked.defaults, forecast), asked.options
    if asked.model in (None, known.get("model")):
        own = {name: known[name] for name in _OPTIONS if getattr(options, name) is None and name in known}
        options = dataclasses.replace(options, **own)
    changes = {name: known[name] for name in _RESTORED if getattr(asked, name) is None and name in known}
    is_of_index = forecast.from_scratch or change_of(forecast) == EXTENSION  # which has none of original data
    if is_of_index and not forecast.recipe.get("replay"):
        changes["original"] = None
    tariff = asked.tariff or forecast.tariff
    return dataclasses.replace(asked, forecast=forecast, options=options, tariff=tariff, **changes)


def _known(defaults: Mapping[str, Any], forecast: Forecast) -> dict[str, Any]:
    """Return what a forecast has, or else the defaults; one of an earlier version has names of model and data alone."""
    left_out = _OF_SHIFTS.get(change_of(forecast) or "", ())
    others = {name: value for name, value in defaults.items() if value is not None and name not in left_out}
    if forecast.inputs:  # they tell how the model was loaded; what they lack is what no forecast needs
        others = {name: value for name, value in others.items() if name == "original_test"}
        return others | {**forecast.inputs, "target_accuracy": forecast.target_accuracy}
    names: dict[str, Any] = {"model": forecast.model, "train": forecast.train_data, "test": forecast.test_data}
    return names | others | {"target_accuracy": forecast.target_accuracy}


def _plain(value: Any) -> str | int | None:
    """Return a name or number as the ledger can keep it; None for anything else."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    is_text = isinstance(value, str) and value.isprintable()
    return value if is_text else int(value) if isinstance(value, numbers.Integral) else None
