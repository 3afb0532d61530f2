"""Read, write and check the project file ``resque.toml``: what stays the same from one command to the next.

Every key is optional, unknown keys are refused by name, and paths are relative to the file. The table :data:`KEYS` is
the one list of keys: reading, defaults of commands and the commented file of ``resque init`` come from it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from resque._files import write_atomically
from resque._toml import read_toml, shorten_value
from resque.data.spec import relative_to
from resque.errors import SettingError

__all__ = ["FILE", "KEYS", "Key", "Project", "read_project", "write_project"]

FILE = Path("resque.toml")
_GATES = ("forecast", "compare", "retrain")
_TARGETED = (*_GATES, "plan", "validate")


@dataclass(frozen=True)
class Key:
    """A key of the project file.

    Attributes:
        type: Type of its value.
        option: Parameter of the commands that it is a default for.
        example: Value in the commented file, as TOML.
        comment: Meaning, in the commented file.
        commands: Commands that take it; empty for every command with such a parameter.
        path: What kind of path the value holds: ``"file"``, ``"data"``, ``"model"``, or empty.
    """

    type: Any
    option: str
    example: str
    comment: str
    commands: tuple[str, ...] = ()
    path: str = ""


KEYS: Mapping[str, Mapping[str, Key]] = {
    "model": {
        "spec": Key(
            str, "model", '"net.py:build"', "FILE.py:CALLABLE, timm:NAME, torchvision:NAME, hf:PATH", (), "model"
        ),
        "weights": Key(str, "weights", '"model.safetensors"', "state dict: .safetensors or .pt", (), "file"),
        "download": Key(bool, "download", "true", "fetch hub names and tagged timm weights that are not here"),
        "original": Key(str, "original", '"profile.safetensors"', "profile or data before the shift", (), "data"),
    },
    "data": {
        "test": Key(str, "test", '"npz:new-test.npz"', "held-out new data", _GATES, "data"),
        "original_test": Key(
            str, "original_test", '"npz:clean-test.npz"', "held-out original data", ("compare", "retrain"), "data"
        ),
    },
    "update": {
        "target_accuracy": Key(float, "target_accuracy", "0.9", "accuracy to reach on the test data", _TARGETED),
        "recipe": Key(str, "recipe", '"retrain-adam,batch_size=64"', "how a model is trained"),
        "evaluate_every": Key(int, "evaluate_every", "20", "steps between evaluations"),
        "layer": Key(str, "layer", '"penultimate"', "module whose output is the representation"),
        "device": Key(str, "device", '"cuda"', "cpu, cuda, cuda:1 or mps"),
    },
    "cost": {
        "country": Key(str, "country", '"FRA"', "electricity grid, ISO alpha-3; without it there is no carbon"),
        "intensity": Key(float, "intensity", "56.0", "or the grid's carbon intensity in g CO2e per kWh"),
        "pue": Key(float, "pue", "1.2", "power usage effectiveness of the site"),
        "price_per_kwh": Key(float, "price_per_kwh", "0.2", "price of a kWh"),
        "price_per_hour": Key(float, "price_per_hour", "1.5", "price of an hour of the machine"),
        "price_per_label": Key(
            float, "price_per_label", "0.05", "price of labeling a sample", ("forecast", "compare", "plan")
        ),
        "currency": Key(str, "currency", '"EUR"', "currency of the prices"),
    },
    "budget": {
        "max_kwh": Key(float, "max_kwh", "0.05", "energy of one update", _GATES),
        "max_kg": Key(float, "max_kg", "0.02", "operational emissions of one update, kg CO2e", _GATES),
        "max_hours": Key(float, "max_hours", "2.0", "training time of one update", _GATES),
        "max_epochs": Key(int, "max_epochs", "30", "maximum number of epochs", _GATES),
        "max_price": Key(float, "max_price", "5.0", "price of one update", _GATES),
        "confidence": Key(float, "confidence", "0.8", "confidence of these limits", _GATES),
    },
    "calibration": {
        "target_accuracy": Key(
            float | str, "target_accuracy", '"0.7:0.85"', "targets to ask for later: one, or a range", ("calibrate",)
        ),
        "max_hours": Key(float, "max_hours", "0.5", "wall time of the whole calibration", ("calibrate",)),
        "max_kwh": Key(float, "max_kwh", "0.5", "energy of the whole calibration", ("calibrate",)),
    },
    "plan": {
        "floor": Key(float, "floor", "0.75", "lowest accuracy that is accepted", ("plan",)),
        "price_per_error": Key(float, "price_per_error", "0.1", "price of a wrong prediction", ("plan",)),
        "samples_per_window": Key(int, "samples_per_window", "10000", "predictions per window", ("plan",)),
        "yearly_kwh": Key(float, "yearly_kwh", "2.0", "energy of a year", ("plan", "life", "report")),
        "yearly_kg": Key(float, "yearly_kg", "0.8", "operational emissions of a year, kg CO2e", ("plan",)),
        "yearly_price": Key(float, "yearly_price", "50.0", "price of the updates of a year", ("plan",)),
    },
    "ledger": {"path": Key(str, "ledger", '"resque.db"', "history file of updates and forecasts", (), "file")},
}
"""Section → key → what it means."""


@dataclass(frozen=True)
class Project:
    """The content of a project file.

    Attributes:
        values: ``(section, key)`` → value; keys that are left out are missing.

    Example:
        >>> Project({("update", "target_accuracy"): 0.9, ("calibration", "max_kwh"): 0.05}).options("retrain")
        {'target_accuracy': 0.9}
    """

    values: Mapping[tuple[str, str], Any]

    def options(self, command: str) -> dict[str, Any]:
        """Return the defaults that the file gives to a command: parameter → value.

        Args:
            command: ``"forecast"``, ``"retrain"``, ``"calibrate"`` and so on.
        """
        found = {}
        for (section, name), value in self.values.items():
            key = KEYS[section][name]
            if not key.commands or command in key.commands:
                found[key.option] = value
        if command == "calibrate" and ("data", "original_test") in self.values:  # its runs shift the original data
            found["test"] = self.values["data", "original_test"]
        return found


def read_project(path: Path) -> Project:
    """Read a project file; its paths become relative to the current folder.

    Raises:
        SettingError: The file cannot be read, or has an unknown key or a value of the wrong type.
    """
    content = read_toml(path, "project file")
    values = {}
    for section, keys in content.items():
        if section not in KEYS or not isinstance(keys, dict):
            raise SettingError(
                f"project file {path}: no section [{shorten_value(section)}]; use one of {', '.join(KEYS)}"
            )
        for name, value in keys.items():
            if name not in KEYS[section]:
                offered = ", ".join(KEYS[section])
                raise SettingError(
                    f"project file {path}: [{section}] has no key {shorten_value(name)!r}; use one of {offered}"
                )
            values[section, name] = _checked(path, section, name, value)
    return Project(values)


def write_project(path: Path, values: Mapping[tuple[str, str], Any] | None = None) -> None:
    """Write a commented project file; keys without a value are commented out.

    Args:
        path: New file.
        values: ``(section, key)`` → value.

    Raises:
        SettingError: There is such a file already; it is never overwritten.
    """
    if path.exists():
        raise SettingError(f"{path} exists and is kept: edit it, or name another file with --project")
    given = values or {}
    lines = ["# Project file of resque: defaults of its commands. Paths are relative to this file."]
    for section, keys in KEYS.items():
        lines += ["", f"[{section}]"]
        for name, key in keys.items():
            value = given.get((section, name))
            setting = f"# {name} = {key.example}" if value is None else f"{name} = {_toml(value)}"
            lines.append(f"{setting:<48}  # {key.comment}")
    with write_atomically(path) as scratch:
        scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _toml(value: Any) -> str:
    """Return a value as TOML, which is JSON but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _checked(path: Path, section: str, name: str, value: Any) -> Any:
    """Return a value of the right type, with its path relative to the current folder."""
    key = KEYS[section][name]
    try:
        value = msgspec.convert(value, key.type)
    except (msgspec.ValidationError, OverflowError) as error:
        expected = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}.get(
            key.type, "a number or a text"
        )
        shown = shorten_value(repr(value) if isinstance(value, str) else value)
        raise SettingError(f"project file {path}: {section}.{name} is {shown}, expected {expected}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"project file {path}: {section}.{name} is {value}, expected a finite number")
    if not key.path or path.parent == Path():
        return value
    if key.path == "file" or ((section, name) == ("model", "original") and value.endswith(".safetensors")):
        return str(path.parent / value)
    return relative_to(value, path.parent)
