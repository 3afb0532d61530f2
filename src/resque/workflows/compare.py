"""Compare the ways to update one model or several: do what is nearly free, pilot the promising, choose the cheapest.

Of several models, forward passes choose a few in a first round. Forward passes tell the features of an update of each;
each way gets its own probe and forecast. Then pilots are made in
rounds (successive halving): after each, the hopeless are dropped, and the better half goes on for four times as many
steps, until one way is clearly the cheapest or the time is up. Each way is a stored forecast, which ``resque retrain
--forecast`` carries out from its pilot on.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from resque._format import shorten_names
from resque._waiting import waiting_since
from resque.energy.grid import named_grid
from resque.energy.meters import EnergyMeter
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.forecasting.budget import BEYOND, UNSURE, WITHIN, Budget, Decision, decide
from resque.forecasting.comparison import BY_PILOT, Comparison
from resque.forecasting.intervals import check_level
from resque.forecasting.scored_models import models_to_try
from resque.ledger.bundled import bundled_updates
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.training.new_task import EXTENSION, NEW_TASK
from resque.training.recipe import Recipe
from resque.workflows.asking import Asking
from resque.workflows.candidates import Candidate, as_candidates
from resque.workflows.comparing import Comparing
from resque.workflows.comparison_cache import ComparisonCache
from resque.workflows.first_round import first_round, with_names
from resque.workflows.forecast import LEDGER, task_change
from resque.workflows.inputs import ModelOptions, is_profile
from resque.workflows.keeping import check_fields
from resque.workflows.open_question import OpenQuestion
from resque.workflows.ray_engine import open_engine
from resque.workflows.requested_job import load_recipe
from resque.workflows.sampling import check_precision
from resque.workflows.sources import ComparisonRequest, OneNetwork, Source

__all__ = ["compare", "decide_comparison"]


def compare(
    model: str | nn.Module | Candidate | Sequence[str | nn.Module | Candidate],
    train: Any,
    test: Any,
    target_accuracy: float,
    *,
    original: Any = None,
    original_test: Any = None,
    new_task: bool = False,
    extend: bool = False,
    ledger: Ledger | str | Path = LEDGER,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    max_minutes: float = 5.0,
    layer: str | None = None,
    reduction: str | None = None,
    precision: str | float | None = None,
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
    engine: str = "local",
    address: str | None = None,
) -> Comparison:
    """Compare the ways to bring a model to a target accuracy on new data, and choose the cheapest that suffices.

    The ways: do nothing; re-estimate normalization; retrain the head; adapters (LoRA); all layers, at three learning
    rates and with old data mixed in; from scratch. What the model's layers do not allow is left out. A new task has
    neither the first two nor old data. An extension has ways with old data and without. The model is left as it was.

    Several models go through a first round of forward passes, and the ways of a few of them are compared. One that
    cannot be used is a row of the first round with its reason.

    Args:
        model: Model, its specification, ``"NAME=WEIGHTS"`` or a candidate with its license; or several of them. Only
            with a specification can training from scratch be compared.
        train: New training data: specification, dataset, or arrays ``(x, y)``.
        test: New test data, held out.
        target_accuracy: Accuracy to reach on the test data, in (0, 1].
        original: Original data of the model, or their profile. Only data can be mixed in.
        original_test: Held-out original data: how much of the old accuracy each way keeps.
        new_task: Whether the data are a new task: the model gets a new head.
        extend: Whether the new task keeps the old classes: the head is widened.
        ledger: Ledger or its file; it gets a forecast for each way. Scores and unfinished pilots are kept beside it.
        recipe: Recipe that trains all layers; the others follow from it.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; overrides the recipe's.
        max_minutes: Time for pilots. What has none by then is forecast from the history.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        precision: Half width of the index's interval at which its pass ends, see :func:`resque.sampled_dist`; None
            passes all data. The index of a sample is a feature of its own.
        shift_type: Name of the shift type; None takes it from the data's specification.
        seed: Seed of the data order, and of new weights.
        level: Smallest chance that suffices, and nominal coverage of the intervals.
        bundled_history: Whether the bundled history shapes the forecasts.
        country: ISO alpha-3 code of the electricity grid; without country and intensity there is no carbon.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        tariff: Prices of energy, machine time and labels.
        meter: Energy meter; None opens the best one available.
        options: Loading of a specified model and of the data.
        engine: ``"local"`` does one thing after the other in this process; ``"ray"`` passes candidates, probes and
            pilots on a cluster. The result depends on it by the times alone, and by how many pilots fit into theirs.
        address: Address of the Ray cluster; None starts Ray on this machine, and shuts it down.

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
    began_s = waiting_since()
    history, grid = ledger if isinstance(ledger, Ledger) else Ledger(ledger), named_grid(country, intensity, pue)
    history.check_writable()
    check_level(level)
    check_fields({"seed": seed, "shift_type": shift_type})
    if not 0.0 <= max_minutes < math.inf:
        raise SettingError(f"{max_minutes} minutes for pilots: expected 0 or more")
    options = options or ModelOptions()
    candidates = as_candidates(model, options.weights)
    used = load_recipe(recipe, evaluate_every, max_epochs)
    asked = ComparisonRequest(
        train, test, target_accuracy, used, original, original_test, task_change(new_task, extend), shift_type, seed,
        layer, reduction, meter, options, precision,
    )  # fmt: skip
    _check(asked, len(candidates))
    check_precision(precision, original, asked.is_new_task)
    bundled = bundled_updates() if bundled_history else ()
    with open_engine(engine, address, gpus=int(_needs_gpu(candidates, options))) as opened:
        cache = ComparisonCache.of(history)
        asked = dataclasses.replace(asked, engine=opened, cache=cache)
        named, data = with_names(candidates), train if isinstance(train, str) else ""
        with OpenQuestion(history, began_s, candidates[0].loaded_as, target_accuracy, data, grid, tariff) as question:
            scored = first_round(candidates, asked, cache, opened) if len(candidates) > 1 else []
            names = models_to_try(scored) if scored else [candidates[0].name]
            sources = [Source(each, asked, name) for name in names for each, own in named if own == name]
            short = shorten_names(name for _, name in named) if scored else {}
            asking = Asking(history, bundled, grid, level, tariff or Tariff(), OneNetwork(), short)
            return Comparing(sources, asking, question, 60.0 * max_minutes, scored, opened).run()


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
    best = comparison.option(comparison.best)
    if best.update_id:
        return Decision(WITHIN, (f"nothing is left to be spent: update {best.update_id} did it already",), ())
    if not best.recipe:
        return Decision(WITHIN, (), ())
    history = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    return decide(history.forecast(comparison.best), budget, fees=best.fees)


def _check(asked: ComparisonRequest, models: int) -> None:
    """Refuse what contradicts each other, before anything is loaded."""
    if asked.change == NEW_TASK and not asked.original is asked.original_test is None:
        raise SettingError("a new task has no original data to compare with: leave --original and --original-test out")
    if asked.change == EXTENSION and asked.original is not None and is_profile(asked.original):
        raise SettingError("an extension takes --original to mix old data in, which a profile does not hold: name data")
    if models > 1 and asked.original is not None and is_profile(asked.original):
        raise SettingError("a profile is of one model: name the original data of several models, or leave them out")


def _needs_gpu(candidates: Sequence[Candidate], options: ModelOptions) -> bool:
    """Return whether a model runs on a GPU, so that a task needs one."""
    models = (each.model for each in candidates)
    own = [device_of(model).type for model in models if isinstance(model, nn.Module) and options.device is None]
    return any(device.startswith("cuda") for device in (*own, options.device or "cpu"))
