"""What updating a deep learning classifier will cost, said before, and what it did cost, measured after.

Data flows one way; a module imports only from those above it in this list::

    errors           every way this package says no
    readings         what one question gives back: Index, Interval, EnergyReading, Grid
    records          the nouns of an update: Cost, LearningCurve, Update, Forecast
    plain            records as dictionaries, and back
    specs            what a data specification is made of, as text
    files            written whole or not at all
    mlflow_runs      runs that MLflow kept, read where they lie
    preparation      how samples become what a model takes
    families         models of timm, torchvision, transformers, and what they want of their data
    corruptions      synthetic shifts at ten levels
    networks         the paper's networks for small images
    models           specifications → nn.Module, weights, fingerprint
    sources          files, folders, libraries, a user's code → samples
    labelled         samples with their classes, in memory; the paper's splits
    data             specifications → labelled samples
    layers           which layer is the representation, which is the head
    angles           two noisy directions: angle, floor, bias, interval
    sums             class sums in float64 halves, without waiting for the device
    energy           a meter's windows, the grid
    emissions        what codecarbon wrote, and whose energy it was
    foreign          runs of other tools as updates
    sci              Software Carbon Intensity of an update, every term beside the sum
    representations  one forward pass with a hook
    clustering       KMeans from the paper's three starts; 1 - ARI in exact integers
    difficulty       a mixed model of log cost, with censored runs
    outlook          from that law to an interval, and what it promises
    judging          what was said beside what came: errors, coverage, scores
    moments          second moments by class: streamed, merged
    views            what a model sees in one data set, gathered in one pass
    recalibration    a model whose batch normalisation follows other data
    profiles         class sums: streamed, merged, saved
    measures         accuracy, gradient norm, parameter change, stopping rule
    indices          RESQUE_dist, RESQUE_task
    rivals           what others would use in the index's place
    metrics          the accumulators as torchmetrics metrics
    augmentation     random changes of training images, batched on the device
    tuning           which parameters train: all, the head, adapters
    recipes          what is to be done, as data: recipe and job
    trainer          optimizer steps, counted with the paper's measures
    asking           what is known before an update, and what it takes to know it
    tasks            RESQUE_task with its warm-up, and what asking took
    checkpoints      where an interrupted run stands
    retraining       a measured update
    ledger           the history, SQLite
    prior            the history that ships with the package
    exchange         the ledger as JSON Lines, there and back; as CSV
    imports          other tools' records into the ledger
    lineage          an update kept: its model, its profile, its place in a line of models
    scratch          retraining beside training from scratch
    recording        a training loop of the user's own, measured
    evidence         what a history says of the update that is asked about
    estimates        from steps to what they take
    forecasting      history + one pass + probe → every cost with an interval
    renewal          a forecast renewed while its update runs
    validation       what forecasts from a history would have been worth
    wording          numbers and verdicts in words
    gate             budgets held against a forecast
    settling         forecasts beside what happened
    campaign         many runs as tasks, each done once, whatever is killed
    candidates       synthetic shifts that begin below a target, and which of them span the index
    calibration      a history from synthetic shifts of the user's own data
    doctor           what this machine offers
    demo             the main job on embedded data
    console          tables and progress for a terminal
    report           one self-contained HTML file
    inputs           what a user may type, and the objects it names
    index_cli        the commands that compute an index
    calibrate_cli    the command that makes a history from the user's own model
    forecast_cli     the command that forecasts an update
    update_cli       the command that does one
    ledger_cli       the commands of the ledger
    cli              the command line

Public names are loaded when they are first used: importing this package imports nothing heavy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resque.asking import probe
    from resque.data import load_data
    from resque.energy import ClockMeter, CodecarbonMeter, named_grid, open_meter
    from resque.errors import ResqueError
    from resque.forecasting import forecast
    from resque.indices import resque_dist, resque_task
    from resque.ledger import Ledger
    from resque.measures import gradient_norm, parameter_change, stop_epoch
    from resque.metrics import ProfileMetric, TaskMetric
    from resque.models import load_model
    from resque.profiles import Profile, profile
    from resque.recipes import Recipe, Retraining
    from resque.recording import record
    from resque.retraining import retrain
    from resque.scratch import beside_scratch
    from resque.tasks import TaskQuestion, task_index

_HOME = {
    "ClockMeter": "energy",
    "CodecarbonMeter": "energy",
    "Ledger": "ledger",
    "Profile": "profiles",
    "ProfileMetric": "metrics",
    "Recipe": "recipes",
    "ResqueError": "errors",
    "Retraining": "recipes",
    "TaskMetric": "metrics",
    "TaskQuestion": "tasks",
    "beside_scratch": "scratch",
    "forecast": "forecasting",
    "gradient_norm": "measures",
    "load_data": "data",
    "load_model": "models",
    "named_grid": "energy",
    "open_meter": "energy",
    "parameter_change": "measures",
    "probe": "asking",
    "profile": "profiles",
    "resque_dist": "indices",
    "resque_task": "indices",
    "record": "recording",
    "retrain": "retraining",
    "stop_epoch": "measures",
    "task_index": "tasks",
}

__version__ = "0.1.0"
__all__ = [
    "ClockMeter",
    "CodecarbonMeter",
    "Ledger",
    "Profile",
    "ProfileMetric",
    "Recipe",
    "ResqueError",
    "Retraining",
    "TaskMetric",
    "TaskQuestion",
    "beside_scratch",
    "forecast",
    "gradient_norm",
    "load_data",
    "load_model",
    "named_grid",
    "open_meter",
    "parameter_change",
    "probe",
    "profile",
    "record",
    "resque_dist",
    "resque_task",
    "retrain",
    "stop_epoch",
    "task_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
