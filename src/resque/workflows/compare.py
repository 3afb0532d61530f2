"""Compare the ways to update a model: measure what is nearly free, pilot the promising, choose the cheapest.

Forward passes tell the features of the update once; each way gets its own probe and forecast. Then pilots are made in
rounds (successive halving): after each, the hopeless are dropped, and the better half goes on for four times as many
steps, until one way is clearly the cheapest or the time is up. Each way is a stored forecast, which ``resque retrain
--forecast`` carries out from its pilot on.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

from torch import nn

from resque.data.dataset import LabeledDataset
from resque.energy.grid import named_grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.budget import BEYOND, UNSURE, WITHIN, Budget, Decision, decide
from resque.forecasting.comparison import BY_PILOT, Comparison
from resque.forecasting.intervals import check_level
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.recipe import Recipe
from resque.workflows.forecast import LEDGER
from resque.workflows.inputs import InputLoader, ModelOptions, is_profile, load_recipe
from resque.workflows.keeping import check_fields
from resque.workflows.passes import Passes
from resque.workflows.trials import Comparing

__all__ = ["compare", "decide_comparison"]


def compare(
    model: str | nn.Module,
    train: Any,
    test: Any,
    target_accuracy: float,
    *,
    original: Any = None,
    original_test: Any = None,
    ledger: Ledger | str | Path = LEDGER,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    max_minutes: float = 5.0,
    layer: str | None = None,
    reduction: str | None = None,
    shift_type: str | None = None,
    seed: int = 0,
    level: float = 0.8,
    bundled_history: bool = True,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    tariff: Tariff | None = None,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
) -> Comparison:
    """Compare the ways to bring a model to a target accuracy on new data, and choose the cheapest that suffices.

    The ways: do nothing; re-estimate normalization; retrain the head; adapters (LoRA); all layers, at three learning
    rates and with old data mixed in; from scratch. What the model's layers do not allow is left out. The model is left
    as it was.

    Args:
        model: Model or its specification; only with a specification can training from scratch be compared.
        train: New training data: specification, dataset, or arrays ``(x, y)``.
        test: New test data, held out.
        target_accuracy: Accuracy to reach on the test data, in (0, 1].
        original: Original data of the model, or their profile. Only data can be mixed in.
        original_test: Held-out original data: how much of the old accuracy each way keeps.
        ledger: Ledger or its file; it gets a forecast for each way.
        recipe: Recipe that trains all layers; the others follow from it.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; overrides the recipe's.
        max_minutes: Time for pilots. What has none by then is forecast from the history.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: How a representation is flattened; None takes the profile's, else that of :func:`resque.profile`.
        shift_type: Name of the shift type; None takes it from the data's specification.
        seed: Seed of the data order, and of new weights.
        level: Smallest chance that suffices, and nominal coverage of the intervals.
        bundled_history: Whether the bundled history shapes the forecasts.
        country: ISO alpha-3 code of the electricity grid; without country and intensity there is no carbon.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        tariff: Prices of energy and machine time.
        meter: Energy meter; None opens the best one available.
        options: How a specified model and the data are loaded.

    Returns:
        The ways beside each other, each with its costs, its chance, and how it is known.

    Raises:
        SettingError: Options that contradict each other.
        TooFewUpdatesError: The ledger and the bundled history hold too few usable updates.

    Example:
        >>> import tempfile, resque
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = resque.compare(
        ...         "resque.networks:small_cnn", "digits@16px@train@300+blur:5", "digits@16px@test+blur:5", 0.3,
        ...         recipe="train-adam", ledger=folder + "/resque.db", meter=resque.ClockMeter(), max_minutes=0.1,
        ...     )  # fmt: skip
        >>> result.options[0].id == result.best, result.option("nothing").chance
        (True, 0.0)
    """
    history, grid = ledger if isinstance(ledger, Ledger) else Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    check_level(level)
    check_fields({"seed": seed, "shift_type": shift_type})
    if not 0.0 <= max_minutes < math.inf:
        raise SettingError(f"{max_minutes} minutes for pilots: expected 0 or more")
    ends_at = time.monotonic() + 60.0 * max_minutes
    loader = InputLoader(model, options or ModelOptions())
    used = load_recipe(recipe, evaluate_every, max_epochs)
    job = loader.job(train, test, target_accuracy, used, original_test=original_test, seed=seed)
    mixed_in = _data_to_mix_in(loader, original)
    job = dataclasses.replace(job, shift_type=shift_type, replayed=mixed_in)
    check_fields({"train_data": job.train.name, "test_data": job.test.name})
    passes = Passes(loader, meter or open_meter(loader.device), layer, reduction)
    known = passes.over_shift(job, original, "true")
    parent = fingerprint(known.network)
    updates = updates_to_learn_from(history, parent, new_tasks=False)
    bundled = bundled_updates() if bundled_history else ()
    comparing = Comparing(passes, known, history, updates, bundled, grid, level, tariff or Tariff(), ends_at)
    return comparing.run()


def decide_comparison(comparison: Comparison, ledger: Ledger | str | Path, budget: Budget) -> Decision:
    """Compare the cost of the best way with a budget; where none suffices, the target is out of reach.

    Args:
        comparison: The comparison.
        ledger: Ledger with its forecasts.
        budget: Limits.
    """
    if comparison.best is None:
        unsure = all(option.how_known != BY_PILOT for option in comparison.options if option.recipe)
        return Decision(UNSURE if unsure else BEYOND, (comparison.recommendation,), ())
    if not comparison.option(comparison.best).recipe:
        return Decision(WITHIN, (), ())
    history = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    return decide(history.forecast(comparison.best), budget)


def _data_to_mix_in(loader: InputLoader, original: Any) -> LabeledDataset | None:
    """Return labeled original data; None for a profile, or without labels."""
    if original is None or is_profile(original):
        return None
    data = original if isinstance(original, LabeledDataset) else loader.data(original, for_training=False)
    return data if data.labeled else None
