"""Real stand-ins: a meter that replays a power, updates without a training, a shell; none needs PyTorch."""

import dataclasses
import os
import shlex
import subprocess
import sys
import time
import types
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from resque.energy.grid import Grid
from resque.energy.reading import EnergyReading
from resque.ledger.records import (
    COSTS,
    Cost,
    Estimate,
    Features,
    Forecast,
    ForecastRevision,
    LearningCurve,
    StepCost,
    Update,
)
from resque.types import Interval

if typing.TYPE_CHECKING:
    from resque.energy.meters import Window


class ReplayMeter:
    """A meter that plays back a constant power: real windows, known energy."""

    name = "replay"
    methods: typing.ClassVar = {"cpu": "measured"}

    def __init__(self, watts: float = 36.0, shortest_s: float = 0.0) -> None:
        self.watts, self.shortest_s = watts, shortest_s

    @contextmanager
    def window(self) -> "Iterator[Window]":
        from resque.energy.meters import Window

        window, start = Window(), time.perf_counter()
        try:
            yield window
        finally:
            wall_s = time.perf_counter() - start
            known = wall_s >= self.shortest_s
            kwh = self.watts * wall_s / 3.6e6 if known else None
            parts = {} if kwh is None else {"cpu": kwh}
            window.reading = EnergyReading(wall_s, kwh, parts, {"cpu": "measured"}, self.name, "" if known else "short")


class BrokenMeter(ReplayMeter):
    """A meter that fails at the end of its windows, from one of them on: an error, or what is no reading."""

    def __init__(self, failure: object, from_window: int = 0) -> None:
        super().__init__()
        self.failure, self.left = failure, from_window

    @contextmanager
    def window(self) -> "Iterator[Window]":
        self.left -= 1
        if self.left >= 0:
            with super().window() as window:
                yield window
            return
        window = types.SimpleNamespace(reading=self.failure)
        try:
            yield window
        finally:
            if isinstance(self.failure, Exception):
                raise self.failure


RECIPE = {"optimizer": "adam", "learning_rate": 1e-4, "batch_size": 32}


def synthetic_update(
    name: str,
    *,
    index: float,
    steps: int,
    shift_type: str | None = "gaussian",
    reached: bool = True,
    target: float = 0.9,
    forecast_id: str | None = None,
    accuracy: float = 0.5,
    loss: float = 1.0,
) -> Update:
    """A complete update whose curve rises from ``accuracy`` to the target (or stays just below) in ``steps``."""
    end = target if reached else target - 0.05
    points = 5
    rising = tuple(float(a) for a in np.linspace(accuracy, end, points))
    spread = tuple(float(s) for s in np.linspace(0.0, 1.0, points))
    curve = LearningCurve(
        steps=tuple(round(steps * s) for s in spread),
        accuracy=rising,
        loss=tuple(2.0 - a for a in rising),
        wall_s=tuple(0.01 * steps * s for s in spread),
        gradient_norm=tuple(0.1 * steps * s for s in spread),
        gradient_norm_last_batch=tuple(0.1 * steps * s for s in spread),
        parameter_change=tuple(0.001 * steps * s for s in spread),
        steps_per_epoch=10,
    )
    totals = 0.1 * steps, 0.1 * steps, 0.001 * steps, 0.01 * steps, 1e-6 * steps
    cost = Cost(steps / 10, steps, steps * 32, *totals, carbon_kg=None)
    kwh = 1e-6 * steps
    reading = EnergyReading(0.01 * steps + 1, kwh, {"cpu": kwh}, {"cpu": "measured"}, "replay")
    return Update(
        id=name, started_utc="2026-01-01", created_utc="2026-01-01", model="m", parent="p", child="c",
        train_data=f"d+{shift_type}:{name}", test_data="t",
        shift_type=shift_type, recipe=RECIPE, seed=0, target_accuracy=target, reached=reached,
        stopped_by="target" if reached else "tolerance 0.01", features=Features(index, accuracy, loss), curve=curve,
        cost=cost, evaluation_s=1.0, energy=reading, grid=None,
        original_accuracy_before=0.99, original_accuracy_after=0.9, forecast_id=forecast_id, host={"device": "cpu"},
    )  # fmt: skip


def synthetic_forecast(update: Update, factor: float = 1.2, probability: float = 0.9) -> Forecast:
    """A forecast that is off by a factor, for every cost that was measured."""
    reading = EnergyReading(1.0, 1e-6, {"cpu": 1e-6}, {"cpu": "measured"}, "replay")
    measured = {cost: getattr(update.cost, cost) for cost in COSTS}
    estimates = {
        cost: Estimate(value * factor, Interval(value / 2, value * 2, 0.8, "jackknife+"), value * 2)
        for cost, value in measured.items()
        if value is not None
    }
    return Forecast(
        id=f"f-{update.id}", created_utc="2026-01-01", model="m", parent="p", train_data=update.train_data,
        test_data="t", shift_type=update.shift_type, recipe={}, target_accuracy=0.9, features=update.features,
        predictor="index", estimates=estimates, probability_reached=probability, n_history=9,
        shift_types_history=("blur",), max_steps=1000, step_cost=StepCost(0.01, 1e-8, 5, reading), overhead=reading,
        grid=update.grid, alternatives={"index": update.cost.steps * 2.0},
    )  # fmt: skip


def settled_pairs(count: int = 4) -> list[tuple[Forecast, Update]]:
    """Forecasts with their updates, each of its own shift type; the second update misses its target."""
    pairs = []
    for n in range(count):
        steps = 50 * (n + 1)
        update = synthetic_update(f"u{n}", index=0.1 * (n + 1), steps=steps, shift_type=f"<type {n}>", reached=n != 1)
        revision = ForecastRevision(10, 0.7, Estimate(steps, Interval(0.0, None, 0.8, "none"), None), 0.8, 5)
        grid = Grid("TST", 400.0, "a table", pue=1.5)
        update = dataclasses.replace(update, grid=grid, revisions=(revision, dataclasses.replace(revision, step=20)))
        forecast = synthetic_forecast(update)
        pairs.append((forecast, dataclasses.replace(update, forecast_id=forecast.id)))
    return pairs


def environment_of_a_user() -> dict[str, str]:
    """This environment's programs on the path, and any warning an error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100", "PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "1"}
    environment.pop("RESQUE_LEDGER", None)
    return environment


def shell(command: str, folder: Path, resque: Sequence[str] = ()) -> subprocess.CompletedProcess:
    """A command line as a user types it, in a folder; ``resque`` may be another command that does the same."""
    function = f'resque() {{ {shlex.join(resque)} "$@"; }}\n' if resque else ""
    script = ["bash", "-euo", "pipefail", "-c", function + command]
    return subprocess.run(script, cwd=folder, env=environment_of_a_user(), capture_output=True, text=True, check=False)


def ended_early(update, share=0.4, stopped_by="budget: kWh"):
    """The run as its budget ended it, on its way to the target."""
    steps = max(1, round(share * update.cost.steps))
    index, shift_type = update.features.index_rad, update.shift_type
    short = synthetic_update(update.id, index=index, steps=steps, shift_type=shift_type, reached=False)
    return dataclasses.replace(short, stopped_by=stopped_by, forecast_id=update.forecast_id)
