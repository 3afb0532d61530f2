"""The job of an update and its recipe: what was asked for, and what its forecast says."""

import dataclasses
from typing import Any

from resque.errors import SettingError
from resque.ledger.records import Forecast
from resque.ledger.serialization import from_dict, from_dict_strict
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe, named_recipe
from resque.workflows.inputs import InputLoader
from resque.workflows.keeping import check_fields

__all__ = ["load_recipe", "requested_job"]


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


def load_recipe(
    recipe: str | Recipe | None, evaluate_every: int | None = None, max_epochs: int | None = None
) -> Recipe:
    """Return a recipe from its specification or object; settings that are given go before the recipe's."""
    if not isinstance(recipe, str | Recipe | None):
        raise SettingError(f"recipe is a {type(recipe).__name__}; expected a Recipe, or a name: 'retrain-adam'")
    if isinstance(recipe, Recipe):
        recipe = _checked_recipe(recipe)
        given: dict[str, Any] = {"evaluate_every": evaluate_every, "max_epochs": max_epochs}
        return dataclasses.replace(recipe, **{name: value for name, value in given.items() if value is not None})
    return named_recipe(recipe or "retrain-adam", evaluate_every, max_epochs)


def _checked_recipe(recipe: Recipe) -> Recipe:
    """Return a recipe with plain values; raise SettingError for a setting of another type."""
    try:
        return from_dict_strict(Recipe, check_fields({"recipe": recipe})["recipe"])
    except ValueError as error:
        raise SettingError(f"recipe: {error}") from error
