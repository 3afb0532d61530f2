"""Forecast the cost of an update of a model: passes over the data, a probe of the machine, a pilot if one is asked for.

Each forecast is stored in the ledger.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from torch import nn

from resque._waiting import waiting_since
from resque.energy.grid import named_grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.energy.reading import extend_reading
from resque.errors import SettingError
from resque.forecasting.budget import Budget
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.forgetting import expected_forgetting
from resque.forecasting.history import starts_at_target
from resque.forecasting.intervals import check_level
from resque.forecasting.price import priced
from resque.forecasting.selection import updates_to_learn_from
from resque.indices.compute_profile import check_labels
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Forecast
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.finetuning import STATISTICS
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.keeping import check_fields
from resque.workflows.open_question import OpenQuestion
from resque.workflows.passes import WAITING, Passes, after_pilot
from resque.workflows.picture_strip import keep_strip
from resque.workflows.pilots import keep_pilot, parse_pilot
from resque.workflows.requested_job import load_recipe
from resque.workflows.restoring import inputs_of
from resque.workflows.sampling import check_precision

__all__ = ["forecast", "task_change"]

LEDGER = Path("resque.db")


def forecast(
    model: str | nn.Module,
    train: Any,
    test: Any,
    target_accuracy: float,
    *,
    original: Any = None,
    new_task: bool = False,
    extend: bool = False,
    ledger: Ledger | str | Path = LEDGER,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    labels: str = "true",
    layer: str | None = None,
    reduction: str | None = None,
    precision: str | float | None = None,
    shift_type: str | None = None,
    seed: int = 0,
    pilot: int | str = 0,
    level: float = 0.8,
    budget: Budget | None = None,
    bundled_history: bool = True,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
) -> Forecast:
    """Forecast every cost of an update before anything is trained, and store the forecast in the ledger.

    Passes over the data give the features; a probe of about a second gives the cost of a step on this machine; the
    ledger and the bundled history give the number of steps. A pilot trains a copy of the model for the first steps of
    the update, which makes the forecast sharper; :func:`resque.update` goes on from there. The model is left as it was.

    Args:
        model: Model or its specification.
        train: New training data: specification, dataset, or arrays ``(x, y)``; ``(x, None)`` without labels.
        test: New test data, held out; labels for a part of them are better than none.
        target_accuracy: Accuracy to reach on the test data, in (0, 1].
        original: Original data of the model, or their profile; without it no RESQUE_dist. ``replay`` needs the data,
            and an extension takes them for it alone.
        new_task: Whether the data are a new task: the model gets a new head.
        extend: Whether the new task keeps the old classes: the head is widened.
        ledger: Ledger or its file; it gets the forecast.
        recipe: Recipe or its specification, e.g. ``"retrain-adam,batch_size=64"``.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; overrides the recipe's and the budget's.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions on the training data. Then the new data may
            lack labels; without those of the test data the accuracy is estimated, and the intervals are wider.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        precision: Half width of the index's interval at which its pass ends, see :func:`resque.sampled_dist`; None
            passes all data. The index of a sample is a feature of its own, which no plain index is compared with.
        shift_type: Name of the shift type; None takes it from the data's specification.
        seed: Seed of the data order of the update.
        pilot: Steps of a pilot, or a share of the step budget such as ``"5%"``; 0 for none.
        level: Nominal coverage of the intervals.
        budget: Limits of the update; its ``max_epochs`` limits the run, and its tariff prices it. See
            :func:`resque.decide`.
        bundled_history: Whether the bundled history shapes the forecast.
        country: ISO alpha-3 code of the electricity grid; without country and intensity there is no carbon.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        meter: Energy meter; None opens the best one available.
        options: Loading of a specified model and of the data.

    Returns:
        The forecast, with an interval for each cost and the probability of reaching the target.

    Raises:
        SettingError: Options that contradict each other.
        TooFewUpdatesError: The ledger and the bundled history hold too few usable updates.

    Example:
        >>> import tempfile, resque
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = resque.forecast(
        ...         "resque.networks:small_cnn", "digits@16px@train@300+blur:5", "digits@16px@test+blur:5", 0.9,
        ...         recipe="train-adam", ledger=folder + "/resque.db", meter=resque.ClockMeter(),
        ...     )  # fmt: skip
        >>> sorted(result.estimates)[:3], 0 <= result.probability_reached <= 1
        (['epochs', 'gradient_norm', 'parameter_change'], True)
    """
    began_s = waiting_since()
    history, grid = ledger if isinstance(ledger, Ledger) else Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    check_level(level)
    check_labels(labels)
    check_fields({"seed": seed, "shift_type": shift_type})
    _check_options(new_task, extend, labels, original)
    check_precision(precision, original, new_task or extend)
    pilot_steps, state = parse_pilot(pilot), None
    if max_epochs is None and budget is not None and budget.max_epochs is not None:
        max_epochs = int(budget.max_epochs)
    loader = InputLoader(model, options or ModelOptions(), task_change(new_task, extend), labels)
    used = load_recipe(recipe, evaluate_every, max_epochs)
    job = loader.job(train, test, target_accuracy, used, original=original, seed=seed)
    job = dataclasses.replace(job, shift_type=shift_type)
    _check_pilot(job, pilot_steps(job.max_steps))
    check_fields({"train_data": job.train.name, "test_data": job.test.name})
    passes = Passes(loader, meter or open_meter(loader.device), layer, reduction, precision)
    is_new_task = new_task or extend
    tariff = None if budget is None else budget.tariff
    with OpenQuestion(history, began_s, loader.name, target_accuracy, job.train.name, grid, tariff) as question:
        known = passes.over_new_task(job, extend) if is_new_task else passes.over_shift(job, original, labels)
        parent = known.job.parent or fingerprint(known.network)
        question.parent = parent
        question.readings.append(known.overhead)
        updates = updates_to_learn_from(history, parent, is_new_task)
        result = forecast_from_features(
            updates,
            known.job,
            known.features,
            step_cost=known.step_cost,
            overhead=known.overhead,
            parent=parent,
            grid=grid,
            model_name=loader.name,
            level=level,
            bundled=bundled_updates() if bundled_history else (),
        )
        notes = [known.risk] if known.risk else []
        notes += [] if known.sampling is None else [f"index {known.sampling.sentence}"]
        if (n := history.count_updates(is_new_task)) > len(updates):
            notes.append(f"learned from {len(updates):,} of {n:,} updates: those of this model, then the newest")
        result = dataclasses.replace(result, notes=(*result.notes, *notes))
        is_tried = job.recipe.trains == STATISTICS and job.test.labeled  # one pass, nearly free
        steps = job.max_steps if is_tried else pilot_steps(job.max_steps)
        if steps and not starts_at_target(known.features, target_accuracy):
            made, state = passes.pilot(known, result, steps)
            result = after_pilot(result, made, job, updates)
    waited_s = time.perf_counter() - began_s - (result.pilot.reading.wall_s if result.pilot else 0.0)
    overhead = extend_reading(result.overhead, waited_s, WAITING)
    forgotten = expected_forgetting(updates, parent, result.recipe)
    inputs = inputs_of(loader, train=train, test=test, original=original, layer=layer, reduction=reduction, seed=seed)
    result = dataclasses.replace(result, overhead=overhead, expected_forgetting=forgotten, inputs=inputs)
    history.add(result := result if tariff is None else priced(result, tariff))
    if state is not None:
        keep_pilot(history, result, state)
    keep_strip(history, job.train, known.original)
    return result


def task_change(new_task: bool, extend: bool) -> str:
    """Return what an update changes: ``"shift"``, ``"new task"`` or ``"extension"``.

    Raises:
        SettingError: The head is to be replaced and widened.

    Example:
        >>> task_change(new_task=False, extend=True)
        'extension'
    """
    if new_task and extend:
        raise SettingError("a new head replaces the old classes and a widened one keeps them: choose one")
    return EXTENSION if extend else NEW_TASK if new_task else "shift"


def _check_options(new_task: bool, extend: bool, labels: str, original: Any) -> None:
    is_new_task = new_task or extend
    if is_new_task and labels != "true":
        raise SettingError("a new task needs its labels: leave --labels out")
    if new_task and original is not None:
        raise SettingError("a new task has no original data to compare with: leave --original out")


def _check_pilot(job: RetrainingJob, steps: int) -> None:
    for data in (job.train, job.test):
        if steps and not data.labeled:
            raise SettingError(f"a pilot trains and tests, and {data.name} has no labels: leave the pilot out, "
                               "label the data, then forecast with it")  # fmt: skip
