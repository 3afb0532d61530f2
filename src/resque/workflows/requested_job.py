"""The job of an update: what was asked for, and what its forecast says."""

import dataclasses
from typing import Any

from resque.ledger.records import Forecast
from resque.ledger.serialization import from_dict
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe
from resque.workflows.inputs import InputLoader, load_recipe

__all__ = ["requested_job"]


def requested_job(request: Any, loader: InputLoader, forecast: Forecast | None) -> RetrainingJob:
    """Load the job of a request; recipe, shift type, seed and replayed data that it leaves out are the forecast's.

    Args:
        request: Request as of :class:`resque.workflows.update.UpdateRequest`, which imports this module.
        loader: Loads the data.
        forecast: Forecast that the update settles; None without one.
    """
    recipe, shift_type, seed = request.recipe, request.shift_type, request.seed
    if seed is None:
        seed = 0 if forecast is None or forecast.pilot is None else forecast.pilot.seed
    if forecast is not None:
        recipe = from_dict(Recipe, forecast.recipe) if recipe is None else recipe
        if shift_type is None and forecast.shift_type not in (NEW_TASK, EXTENSION):
            shift_type = forecast.shift_type
    job = loader.job(
        request.train,
        request.test,
        request.target_accuracy,
        load_recipe(recipe, request.evaluate_every, request.max_epochs),
        original=request.original if forecast is None else loader.original_of(forecast, request.original),
        original_test=request.original_test,
        seed=seed,
    )
    return dataclasses.replace(job, shift_type=shift_type)
