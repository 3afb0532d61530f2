"""Demo of the main job on scikit-learn's digits: initial history, forecasts, updates, and forecast beside outcome.

The settings below were chosen on other seeds than the one that runs. All forecasts are in the ledger before the first
update is trained. The demo runs on one thread: for a network this small a second one takes half again as much processor
time and saves a seventh of the wait.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from resque.data.loading import load_data
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import extend_reading
from resque.errors import ResqueError
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.landmarking import ForecastReviser
from resque.indices.compute_profile import profile
from resque.indices.profile import Profile
from resque.indices.shift_features import shift_features
from resque.ledger.records import Forecast, StepCost
from resque.ledger.store import Ledger
from resque.models.loading import load_model
from resque.models.weights import fingerprint, save_weights
from resque.training.job import RetrainingJob
from resque.training.probe import forecast_overhead, probe
from resque.training.recipe import RECIPES
from resque.training.retrain import retrain
from resque.training.run import RunProgress

__all__ = ["DemoOutcome", "DemoStage", "run_demo"]

MODEL = "resque.networks:small_cnn"
SOURCE = "digits@16px"
ORIGINAL, SHIFTED, TEST = f"{SOURCE}@train@original", f"{SOURCE}@train@shifted", f"{SOURCE}@test"
CLEAN_ACCURACY, TARGET_ACCURACY = 0.985, 0.94
CLEAN_RECIPE = dataclasses.replace(RECIPES["train-adam"], max_epochs=40)
RECIPE = dataclasses.replace(RECIPES["retrain-adam"], evaluate_every=5, max_epochs=30)
HISTORY = (
    "+gaussian:3",
    "+gaussian:4",
    "+gaussian:6",
    "+blur:9",
    "+blur:10",
    "+blur:10+blur:10",
    "+salt_pepper:1",
    "+salt_pepper:2",
    "+salt_pepper:4",
)
HISTORY_SEEDS = (1, 2)
UPDATES = (
    "+gaussian:5",
    "+blur:10+blur:5",
    "+salt_pepper:3",
    "+salt_pepper:5",
    "+rotation:3",
    "+rotation:4",
    "+rotation:6",
    "+rotation:8",
)
UPDATE_SEED = 3


@dataclass(frozen=True)
class DemoStage:
    """Progress of the demo.

    Attributes:
        name: Stage, in words.
        done: Number of finished parts of the stage.
        total: Number of parts of the stage.
        detail: Current part, in words.
    """

    name: str
    done: int
    total: int
    detail: str = ""


@dataclass(frozen=True)
class DemoOutcome:
    """Result of the demo.

    Attributes:
        folder: Folder of the model, its profile and the ledger.
        clean_accuracy: Accuracy of the original model on the original test data.
    """

    folder: Path
    clean_accuracy: float

    @property
    def ledger(self) -> Ledger:
        """Ledger with the history, the forecasts and the updates that settle them."""
        return Ledger(self.folder / "resque.db")


@dataclass(frozen=True, eq=False)
class _Deployment:
    """The original model, and everything with which its updates are forecast and measured."""

    model: nn.Module
    profile: Profile
    ledger: Ledger
    meter: EnergyMeter
    grid: Grid | None
    step_cost: StepCost

    def forecast(self, job: RetrainingJob) -> Forecast:
        """Forecast an update, and write the forecast to the ledger."""
        began_s = time.perf_counter()
        features, _, passes_s = shift_features(self.model, job, self.profile)
        forecast = forecast_from_features(
            self.ledger.updates(),
            job,
            features,
            step_cost=self.step_cost,
            overhead=forecast_overhead(passes_s, self.step_cost, forecasts=len(UPDATES)),
            parent=fingerprint(self.model),
            grid=self.grid,
            model_name=MODEL,
        )
        waited_s = time.perf_counter() - began_s + self.step_cost.reading.wall_s / len(UPDATES)
        overhead = extend_reading(forecast.overhead, waited_s, "fits")
        self.ledger.add(forecast := dataclasses.replace(forecast, overhead=overhead))
        return forecast

    def update(self, job: RetrainingJob, forecast: Forecast | None = None) -> None:
        """Retrain a copy of the model, and write the update to the ledger."""
        features = shift_features(self.model, job, self.profile)[0] if forecast is None else forecast.features
        update = retrain(
            copy.deepcopy(self.model),
            job,
            meter=self.meter,
            grid=self.grid,
            features=features,
            step_cost=self.step_cost,
            model_name=MODEL,
            forecast_id=None if forecast is None else forecast.id,
            revise=None if forecast is None else ForecastReviser.of_forecast(forecast, self.ledger.updates(), job),
        )
        self.ledger.add(update.asked_by(forecast))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run PyTorch on one thread inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def run_demo(
    folder: Path,
    meter: EnergyMeter,
    grid: Grid | None,
    *,
    seed: int = 0,
    on_progress: Callable[[DemoStage], None] = lambda stage: None,
) -> DemoOutcome:
    """Run the demo into a new folder.

    Args:
        folder: Folder for the model, its profile and the ledger; it must not hold a ledger.
        meter: Meter of every retraining.
        grid: Electricity grid; None leaves carbon unknown.
        seed: Seed of the original model; the retrainings have seeds of their own.
        on_progress: Callback at every step of every stage.

    Raises:
        ResqueError: The folder holds a ledger.
    """
    ledger = Ledger(folder / "resque.db")
    if ledger.path.exists():
        raise ResqueError(f"{folder} holds a ledger already: name another folder, or remove it for a fresh demo")
    model, clean_accuracy = _train_original(seed, meter, on_progress)
    save_weights(model, folder / "model.safetensors")
    clean = load_data(ORIGINAL)
    original = profile(model, clean.batches(), preprocessing=clean.preprocessing)
    original.save(folder / "profile.safetensors")

    on_progress(DemoStage("measuring a training step", 0, 1))
    step_cost = probe(model, load_data(SHIFTED), RECIPE, meter)
    deployment = _Deployment(model, original, ledger, meter, grid, step_cost)
    jobs = [_job(shift, seed=history_seed) for history_seed in HISTORY_SEEDS for shift in HISTORY]
    for done, job in enumerate(jobs):
        on_progress(DemoStage("building a history", done, len(jobs), job.train.name))
        deployment.update(job)

    jobs, forecasts = [_job(shift, seed=UPDATE_SEED) for shift in UPDATES], []
    for done, job in enumerate(jobs):
        on_progress(DemoStage("forecasting updates", done, len(jobs), job.train.name))
        forecasts.append(deployment.forecast(job))
    for done, (job, forecast) in enumerate(zip(jobs, forecasts, strict=True)):
        on_progress(DemoStage("doing the updates", done, len(jobs), job.train.name))
        deployment.update(job, forecast)
    on_progress(DemoStage("doing the updates", len(jobs), len(jobs)))
    return DemoOutcome(folder, clean_accuracy)


def _train_original(seed: int, meter: EnergyMeter, on_progress: Callable[[DemoStage], None]) -> tuple[nn.Module, float]:
    def show(progress: RunProgress) -> None:
        detail = f"accuracy {progress.accuracy:.3f}"
        on_progress(DemoStage("training the original model", progress.step, progress.max_steps, detail))

    model = load_model(MODEL, seed=seed)
    job = RetrainingJob(load_data(ORIGINAL), load_data(TEST), CLEAN_ACCURACY, CLEAN_RECIPE, seed)
    update = retrain(model, job, meter=meter, on_progress=show)
    return model, update.accuracy


def _job(shift: str, seed: int) -> RetrainingJob:
    train, test = load_data(SHIFTED + shift), load_data(TEST + shift)
    return RetrainingJob(train, test, TARGET_ACCURACY, RECIPE, seed, original_test=load_data(TEST))
