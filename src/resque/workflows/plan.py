"""Plan the updates of a model from dated batches: a pass over each, a forecast of an update now, a year of updates."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from resque._waiting import command, waiting_since
from resque.data.dataset import LabeledDataset
from resque.data.spec import mixture_parts
from resque.energy.grid import named_grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.energy.price import Tariff
from resque.errors import DataError
from resque.forecasting.budget import Budget
from resque.forecasting.intervals import check_level
from resque.forecasting.objective import Objective
from resque.forecasting.plan import Plan, PlanWindow
from resque.forecasting.planner import make_plan
from resque.forecasting.windows import Calendar
from resque.indices.accuracy_estimate import estimate_accuracy
from resque.indices.distribution import resque_dist
from resque.indices.profile import Profile
from resque.ledger.components import MEASURED
from resque.ledger.store import Ledger
from resque.models.adaptation import adapt
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.recipe import Recipe
from resque.workflows.forecast import LEDGER, forecast
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.open_question import OpenQuestion
from resque.workflows.requested_job import load_recipe

__all__ = ["parse_batches", "plan"]

_SOURCES = {".npz": "npz", ".parquet": "parquet"}
Batches = Mapping[str, Any] | Sequence[tuple[str, Any]] | str | Path


def plan(
    model: str | nn.Module,
    batches: Batches,
    target_accuracy: float,
    *,
    original: Any = None,
    floor: float | None = None,
    price_per_error: float | None = None,
    samples_per_window: int | None = None,
    yearly: Budget | None = None,
    tariff: Tariff | None = None,
    ledger: Ledger | str | Path = LEDGER,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    layer: str | None = None,
    reduction: str | None = None,
    seed: int = 0,
    pilot: int | str = 0,
    level: float = 0.8,
    bundled_history: bool = True,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
) -> Plan:
    """Plan when to update a model: now, later or never, and what a year costs at several cadences.

    Each batch gives the index and the accuracy of its window; the accuracy of a batch without labels is estimated. An
    update on the newest batch is forecast, trained on 70 % of it and tested on the rest. The drift of the accuracy is
    extrapolated from three windows on. An update is assumed to bring the target accuracy, to start the drift anew, and
    to cost what one costs now.

    Args:
        model: Model or its specification; it is left as it was.
        batches: Date → data, the oldest first; dates as ``2026-01``, ``2026-W03`` or ``2026-01-15``. Or a folder whose
            file names are dates. Windows that are missing leave gaps.
        target_accuracy: Target accuracy of an update, in (0, 1].
        original: Original data of the model, or their profile; without it no RESQUE_dist.
        floor: Lowest accuracy that is accepted. Without a price per error, updates are as late as it allows.
        price_per_error: Price of a wrong prediction; it needs ``samples_per_window`` and a tariff.
        samples_per_window: Number of predictions per window.
        yearly: Budget of a year, for all its updates together.
        tariff: Prices of energy, machine time and labels.
        ledger: Ledger or its file; it gets the forecast of an update now.
        recipe: Recipe or its specification, e.g. ``"retrain-adam,batch_size=64"``.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; overrides the recipe's.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        seed: Seed of the data order of the update.
        pilot: Steps of a pilot of the update, or a share of the step budget such as ``"5%"``; 0 for none.
        level: Nominal coverage of the intervals.
        bundled_history: Whether the bundled history shapes the forecast.
        country: ISO alpha-3 code of the electricity grid; without country and intensity there is no carbon.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        meter: Energy meter; None opens the best one available.
        options: Loading of a specified model and of the data.

    Returns:
        The plan; ``now.forecast_id`` is a forecast in the ledger.

    Raises:
        DataError: There is no batch, or one is empty, undated, out of order, or there twice.
        SettingError: Neither floor nor price per error is given, or a price is missing.
        TooFewUpdatesError: The ledger and the bundled history hold too few usable updates.

    Example:
        >>> import tempfile, resque
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = resque.plan(
        ...         "resque.networks:small_cnn", {"2026-01": "digits@16px@400", "2026-02": "digits@16px@400+blur:5"},
        ...         target_accuracy=0.9, floor=0.8, ledger=folder + "/resque.db", meter=resque.ClockMeter(),
        ...     )  # fmt: skip
        >>> result.decision, [window.date for window in result.windows], result.drift
        ('now', ['2026-01', '2026-02'], None)
    """
    began_s = waiting_since()
    history, given = ledger if isinstance(ledger, Ledger) else Ledger(ledger), _pairs(batches)
    history.check_writable()
    check_level(level)
    prices = tariff or Tariff()
    objective = Objective(floor, price_per_error, samples_per_window, prices, (yearly or Budget()).priced(prices))
    RetrainingJob.check_target(target_accuracy)
    objective.check(target_accuracy)
    used = load_recipe(recipe, evaluate_every, max_epochs)
    calendar = Calendar.of([date for date, _ in given])
    loader = InputLoader(model, options or ModelOptions(), labels="pseudo")
    meter = meter or open_meter(loader.device)
    objective.check_measurable(bool(meter.methods))
    asked = loader.name, target_accuracy, given[-1][1] if isinstance(given[-1][1], str) else ""
    with OpenQuestion(history, began_s, *asked, named_grid(country, intensity, pue), prices) as question:
        windows, newest, profile = _pass_windows(loader, given, original, (layer, reduction), seed, question)
    train, test = _split(given[-1][1], newest)
    with command(began_s):  # the forecast takes what the user has waited for all of the plan
        made = forecast(
            model, train, test, target_accuracy,
            original=original if used.replay else profile, ledger=history, recipe=used,
            labels="true" if newest.labeled else "pseudo", layer=layer, reduction=reduction, seed=seed, pilot=pilot,
            level=level, bundled_history=bundled_history, country=country, intensity=intensity, pue=pue, meter=meter,
            options=options, budget=Budget(tariff=prices),
        )  # fmt: skip
    return make_plan(made, windows, calendar, objective)


def parse_batches(batches: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of date and data of texts ``DATE=DATA``.

    Raises:
        DataError: There is no sign between them.

    Example:
        >>> parse_batches(["2026-01=npz:jan.npz", "2026-02=npz:feb.npz@500"])
        [('2026-01', 'npz:jan.npz'), ('2026-02', 'npz:feb.npz@500')]
    """
    pairs = [batch.partition("=") for batch in batches]
    for date, sign, data in pairs:
        if not (date and sign and data):
            raise DataError(f"batch {date + sign + data!r:.60}: expected DATE=DATA, e.g. 2026-01=npz:jan.npz")
    return [(date, data) for date, _, data in pairs]


def _pairs(batches: Batches) -> list[tuple[str, Any]]:
    """Return the pairs of date and data of a mapping, of pairs, or of the files in a folder by their names."""
    if isinstance(batches, Mapping):
        return list(batches.items())
    if not isinstance(batches, str | Path):
        return list(batches)
    try:
        entries = sorted(
            (entry for entry in os.scandir(batches) if not entry.name.startswith(".")), key=lambda e: e.name
        )
    except OSError as error:
        raise DataError(f"cannot read the folder of batches {str(batches)!r:.60}: {error.strerror}") from error
    pairs = []
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        source = "folder" if entry.is_dir() else _SOURCES.get(suffix)
        if source is None:
            raise DataError(f"{entry.path!r} is no batch: expected files DATE.npz or DATE.parquet, or folders DATE")
        pairs.append((entry.name if entry.is_dir() else stem, f"{source}:{entry.path}"))
    return pairs


def _pass_windows(
    loader: InputLoader,
    batches: Sequence[tuple[str, Any]],
    original: Any,
    representation: tuple[str | None, str | None],
    seed: int,
    question: OpenQuestion,
) -> tuple[list[PlanWindow], LabeledDataset, Profile | None]:
    """Return index and accuracy of each window, the newest batch, and the original profile.

    One batch at a time is in memory.
    """
    newest = loader.data(batches[0][1])
    network, profile = loader.network(newest, seed), None
    question.parent = fingerprint(network)
    if original is not None:
        profile = loader.original_profile(network, original, *representation)
    windows: list[PlanWindow] = []
    for date, source in batches:
        newest = loader.data(source) if windows else newest
        check_data_fits_model(network, newest)
        windows.append(_window(loader, network, date, newest, profile))
    return windows, newest, profile


def _window(
    loader: InputLoader, network: nn.Module, date: str, data: LabeledDataset, original: Profile | None
) -> PlanWindow:
    """Pass one batch: RESQUE_dist with the labels that there are, and the accuracy, measured or estimated."""
    labels, index = "true" if data.labeled else "pseudo", None
    if original is not None:
        origin = original.origin
        found = loader.profile(network, data, origin.layer, origin.reduction, labels)
        index = resque_dist(original, found, undefined="skip").value
    accuracy, method, error = 0.0, MEASURED, None
    with loader.options.show_progress(f"accuracy of {date}"):
        if data.labeled:
            accuracy, _ = evaluate_dataset(network, data)
        else:
            channels = None if original is None else original.channels
            adapted = adapt(network, data.batches(device=device_of(network)), channels)
            estimate = estimate_accuracy(network, data, adapted)
            accuracy, method, error = estimate.accuracy, estimate.method, estimate.error_logit
    return PlanWindow(date, data.name, len(data), index, labels if index is not None else "", accuracy, method, error)


def _split(source: Any, data: LabeledDataset) -> tuple[Any, Any]:
    """Return training and test data of an update on a batch, as specifications where the batch has one."""
    if not isinstance(source, str):
        return data.part("train"), data.part("test")
    train, test = ("~".join(f"{each}@{part}" for each in mixture_parts(source)) for part in ("train", "test"))
    return train, test
