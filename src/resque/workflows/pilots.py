"""Pilots of forecasts: how long they are, where they are kept, and which update may continue them."""

import dataclasses
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resque.errors import DataError, ResqueWarning, SettingError
from resque.ledger.records import Forecast
from resque.ledger.serialization import from_dict
from resque.ledger.store import Ledger
from resque.training.checkpoint import load_checkpoint, run_identity, save_checkpoint
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe

__all__ = ["check_pilot", "keep_pilot", "kept_pilot", "parse_pilot", "read_pilot"]


def parse_pilot(pilot: int | str) -> Callable[[int], int]:
    """Return the function from the step budget of an update to the steps of its pilot.

    Args:
        pilot: Number of steps, or a share of the step budget such as ``"5%"``; 0 for none.

    Raises:
        SettingError: It is neither.

    Example:
        >>> [parse_pilot(pilot)(1000) for pilot in (100, "100", "5%", 0, 2000)]
        [100, 100, 50, 0, 1000]
    """
    text = str(pilot).strip()
    is_share = text.endswith("%")
    try:
        number = float(text[:-1]) if is_share else int(text)
        valid = 0.0 < number <= 100.0 if is_share else number >= 0
    except ValueError:
        valid = False
    if not valid:
        raise SettingError(
            f"pilot {pilot!r:.40}: expected a number of steps, such as 100, or a share of the step budget up to 100%, "
            "such as 5%"
        )

    def steps(max_steps: int) -> int:
        return min(max_steps, math.ceil(number * max_steps / 100.0) if is_share else int(number))

    return steps


def keep_pilot(ledger: Ledger, forecast: Forecast, state: dict[str, Any]) -> None:
    """Keep the state of a forecast's pilot beside the ledger; warn where that fails, because the forecast stands."""
    try:
        identity = {} if forecast.pilot is None else {"identity": forecast.pilot.identity}
        save_checkpoint(ledger.pilot_file(forecast.id), state | identity)
    except DataError as error:
        _warn(f"the update cannot go on from its pilot, and will start from the beginning: {error}")


def kept_pilot(ledger: Ledger, forecast: Forecast | None) -> Path | None:
    """Return the file of a forecast's pilot; None if it has none, or it is not here."""
    if forecast is None or forecast.pilot is None:
        return None
    file = ledger.pilot_file(forecast.id)
    return file if file.is_file() else None


def read_pilot(file: Path, forecast: Forecast) -> dict[str, Any]:
    """Read the state of a forecast's pilot.

    Raises:
        DataError: The file cannot be read.
        SettingError: It holds the pilot of another run.
    """
    state = load_checkpoint(file)
    if forecast.pilot is None or state.get("identity") != forecast.pilot.identity:
        raise SettingError(
            f"{file} does not hold the pilot of forecast {forecast.id}, but another run: delete it, and the update "
            "starts from the beginning"
        )
    return state


def check_pilot(ledger: Ledger, forecast: Forecast, parent: str, job: RetrainingJob, processes: int = 1) -> None:
    """Check that an update may continue the pilot of its forecast; warn if it begins anew all the same.

    That is so if the pilot's file is missing, and in several processes: time and energy would be of neither number.

    Args:
        ledger: Ledger beside which the pilot is kept.
        forecast: Forecast that the update settles.
        parent: Fingerprint of the model.
        job: Job of the update, without the limits of a budget.
        processes: Number of processes of the update.

    Raises:
        SettingError: The pilot was trained with another seed or recipe, or on other data; or its file holds another.
        DataError: Its file cannot be read.
    """
    if (pilot := forecast.pilot) is None:
        return
    if processes > 1:
        _warn(f"the pilot of forecast {forecast.id} ran in one process: the update in {processes} starts from the "
              "beginning")  # fmt: skip
        return
    if (file := kept_pilot(ledger, forecast)) is None:
        _warn(f"the pilot of forecast {forecast.id} is not in {ledger.pilot_file(forecast.id).parent}: "
              "the update starts from the beginning")  # fmt: skip
        return
    if run_identity(parent, job) == pilot.identity:
        read_pilot(file, forecast)
        return
    as_forecast = dataclasses.replace(job, recipe=from_dict(Recipe, forecast.recipe))
    if pilot.seed != job.seed:
        differs = f"with seed {pilot.seed}, not {job.seed}: leave --seed out"
    elif run_identity(parent, as_forecast) == pilot.identity:
        differs = "by the recipe of its forecast to the last digit: leave --recipe out"
    else:
        differs = "on other data of the same name: name those"
    raise SettingError(f"the pilot of forecast {forecast.id} was trained {differs}, or make a new forecast")


def _warn(message: str) -> None:
    warnings.warn(message, ResqueWarning, stacklevel=4)
