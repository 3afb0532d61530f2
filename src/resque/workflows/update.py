"""Do an update: retrain to a target, measure every cost, keep the model, settle the forecast, write the ledger."""

import dataclasses
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from resque._processes import current_processes
from resque.energy.grid import named_grid
from resque.energy.meters import EnergyMeter
from resque.energy.nodes import open_meter_of_nodes
from resque.energy.price import Tariff
from resque.errors import ResqueWarning, SettingError
from resque.forecasting.budget import CONFIDENCE, Budget
from resque.forecasting.evaluation.matching import check_settles
from resque.indices.compute_profile import check_labels
from resque.indices.profile import Profile
from resque.indices.shift_features import shift_features
from resque.ledger.records import Features, Forecast, Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.models.layers import representation_layer
from resque.models.loading import is_untrained
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.evaluation import check_data_fits_model
from resque.training.from_scratch import ScratchComparison, compare_with_scratch
from resque.training.job import RetrainingJob
from resque.training.new_task import EXTENSION, NEW_TASK, forgetting_risk, prepare_new_task
from resque.training.recipe import Recipe, recipe_to_dict
from resque.workflows.artifacts import check_new_folder, create_folder, no_empty_folder
from resque.workflows.budgets import RunLimits, forecast_first
from resque.workflows.forecast import LEDGER
from resque.workflows.forecast import forecast as forecast_update
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.keeping import check_fields
from resque.workflows.pilots import check_pilot, kept_pilot
from resque.workflows.requested_job import load_recipe, requested_job
from resque.workflows.restoring import change_of, restored
from resque.workflows.resuming import RunIdentity
from resque.workflows.running import UpdateRunner

__all__ = ["CHECKPOINTS", "UPDATES", "UpdateRequest", "update"]

UPDATES = Path("updates")
CHECKPOINTS = UPDATES / "checkpoints"


def update(
    model: str | nn.Module | None = None,
    train: Any = None,
    test: Any = None,
    target_accuracy: float | None = None,
    *,
    forecast: Forecast | str | None = None,
    original: Any = None,
    original_test: Any = None,
    new_task: bool = False,
    extend: bool = False,
    ledger: Ledger | str | Path = LEDGER,
    out: str | Path | None = None,
    resume: bool = False,
    checkpoint_every_s: float = 30.0,
    recipe: str | Recipe | None = None,
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    budget: Budget | None = None,
    confidence: float = CONFIDENCE,
    labels: str = "true",
    layer: str | None = None,
    reduction: str | None = None,
    shift_type: str | None = None,
    seed: int | None = None,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    tariff: Tariff | None = None,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
) -> Update:
    """Retrain a model to a target accuracy, measure every cost, and keep the result.

    The updated model, its profile and the profile of its root model are written to a folder, the update to the ledger,
    where it settles its forecast. Where the forecast has a pilot, the update goes on from there. A model that is passed
    as an object is trained in place, except for a new task, whose model with its new head is in the folder alone.

    Args:
        model: Model or its specification. A forecast has this and the next three, so that they may be left out.
        train: New training data: specification, dataset, or arrays ``(x, y)``.
        test: New test data, held out.
        target_accuracy: Accuracy to reach on the test data, in (0, 1].
        forecast: Forecast to settle, or its id. What is left out is taken from it: model, data, target, recipe, kind of
            task, seed, grid, tariff. Objects must be passed again.
        original: Original data of the model, or their profile, for the index and the lineage; ``replay`` needs data.
        original_test: Held-out original data, to measure forgetting.
        new_task: Whether the data are a new task: the model gets a new head.
        extend: Whether the new task keeps the old classes: the head is widened.
        ledger: Ledger or its file; it gets the update.
        out: New folder for the files; None makes one under ``updates/``.
        resume: Whether to continue an interrupted run of the same job.
        checkpoint_every_s: Seconds between checkpoints.
        recipe: Recipe or its specification; None takes the forecast's, else ``"retrain-adam"``.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; overrides the recipe's.
        budget: Limits that end the run as soon as it will exceed them or not reach its target. They are no part of the
            recipe, whose own limits stay. Without a forecast, one is made first.
        confidence: Confidence with which the budget ends the run, see :func:`resque.forecasting.budget.stop_reason`.
        labels: ``"true"``, or ``"pseudo"`` for the model's own predictions in the index.
        layer: Module whose output is the representation; None takes the profile's, else the paper's.
        reduction: Flattening of a representation; None takes the profile's, else that of :func:`resque.profile`.
        shift_type: Name of the shift type; None takes the forecast's, else that of the data's specification.
        seed: Seed of the data order; None takes that of the forecast's pilot, else 0.
        country: ISO alpha-3 code of the electricity grid; without country and intensity there is no carbon.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        tariff: Prices of energy and machine time.
        meter: Energy meter; None opens the best one available.
        options: Loading of a specified model and of the data.

    Returns:
        The update, complete whether or not it reached its target.

    Raises:
        SettingError: Options that contradict each other, or a forecast or pilot of another update.
        LedgerError: The ledger cannot be written, or the forecast is settled already.

    Example:
        >>> import os, tempfile, resque
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = resque.update(
        ...         "resque.networks:small_cnn", "digits@16px@train@300", "digits@16px@test", 0.3,
        ...         recipe="train-adam", ledger=folder + "/resque.db", out=folder + "/new", meter=resque.ClockMeter(),
        ...     )  # fmt: skip
        ...     sorted(os.listdir(folder + "/new"))
        ['model.safetensors', 'profile.safetensors']
        >>> result.reached, result.cost.steps > 0
        (True, True)
    """
    arguments = dict(locals())
    return UpdateRequest(**arguments | {"options": options or ModelOptions()}).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class UpdateRequest:
    """An update to be done. The attributes are the arguments of :func:`update`; nothing is read before it runs.

    Attributes:
        defaults: Values of what neither the request nor its forecast names, by argument.
        cwd: Folder that relative names of files are in, also if the user's model or data change the current one.
    """

    model: Any = None
    train: Any = None
    test: Any = None
    target_accuracy: Any = None
    forecast: Forecast | str | None = None
    original: Any = None
    original_test: Any = None
    new_task: bool = False
    extend: bool = False
    ledger: Ledger | str | Path = LEDGER
    out: str | Path | None = None
    resume: bool = False
    checkpoint_every_s: float = 30.0
    recipe: str | Recipe | None = None
    evaluate_every: int | None = None
    max_epochs: int | None = None
    budget: Budget | None = None
    confidence: float = CONFIDENCE
    labels: str = "true"
    layer: str | None = None
    reduction: str | None = None
    shift_type: str | None = None
    seed: int | None = None
    country: str | None = None
    intensity: float | None = None
    pue: float = 1.0
    tariff: Tariff | None = None
    meter: EnergyMeter | None = None
    options: ModelOptions = field(default_factory=ModelOptions)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    cwd: Path = field(default_factory=Path.cwd)

    @property
    def history(self) -> Ledger:
        """The ledger."""
        return self.ledger if isinstance(self.ledger, Ledger) else Ledger(self.cwd / self.ledger)

    def run(self) -> Update:
        """Do the update, or continue it, and keep it."""
        with no_empty_folder(self.cwd / (self.out or UPDATES)):
            loaded, runner = self._restored()._load()
            return runner.run(loaded.network, loaded.job)

    def run_beside_scratch(self, seeds: int = 3, recipe: str | Recipe | None = None) -> ScratchComparison:
        """Do the update, and train the same architecture from scratch to the same target, once for each seed.

        The first retraining is the update of :meth:`run`; the other runs are entries of the ledger alone.

        Args:
            seeds: Number of pairs, from the request's seed on.
            recipe: Recipe from scratch; None takes the paper's rates for the same optimizer.
        """
        if self.budget is not None and self.budget.is_given:
            raise SettingError("a run that its budget ends cannot be compared with scratch: leave the budget out")
        scratch = None if recipe is None else load_recipe(recipe, self.evaluate_every, self.max_epochs)
        loaded, runner = self._restored()._load(with_scratch=True)
        build = loaded.loader.random_networks(loaded.network, loaded.job.seed)
        every_seed = range(loaded.job.seed, loaded.job.seed + seeds)
        return compare_with_scratch(loaded.network, build, loaded.job, every_seed, runner.run, scratch)

    def folder(self, result: Update) -> Path:
        """Return the folder that holds the files of an update."""
        return UPDATES / result.id if self.out is None else Path(self.out)

    def _restored(self) -> "UpdateRequest":
        """Return the request with what it leaves out and its forecast has."""
        given, history = self.forecast, self.history
        if isinstance(given, str):
            return restored(self, current_processes().first(lambda: history.forecast(given)))
        return restored(self, given)

    def _load(self, with_scratch: bool = False) -> "tuple[_Loaded, UpdateRunner]":
        """Load everything, and refuse what can be refused before anything is trained."""
        processes, history = current_processes(), self.history
        processes.first(history.check_writable)
        grid = named_grid(self.country, self.intensity, self.pue)
        if grid is None and isinstance(self.forecast, Forecast):
            grid = self.forecast.grid
        check_fields({"seed": self.seed, "shift_type": self.shift_type, "tariff": self.tariff})
        limits = RunLimits.of(self.budget, self.confidence, self.tariff, grid)
        if not 0.0 <= self.checkpoint_every_s < math.inf:
            raise SettingError(f"{self.checkpoint_every_s} s between checkpoints: expected 0 or more")
        loaded = _Loaded.of(self)
        parent = loaded.job.parent or fingerprint(loaded.network)
        check_fields(loaded.stored_fields)
        if with_scratch and loaded.job.from_scratch:
            raise SettingError("this forecast is of training from scratch: leave --from-scratch out, or the forecast")
        if with_scratch and loaded.job.parent:
            raise SettingError("a new head has no counterpart from scratch: leave --new-head and --extend out")
        pilot = kept_pilot(history, loaded.forecast) if processes.count == 1 else None
        checkpoint = Checkpoint(self.cwd / CHECKPOINTS, self.checkpoint_every_s, self.resume)
        run = RunIdentity(history, checkpoint, parent, loaded.job)
        start, processes_n = "the beginning" if pilot is None else "its pilot", processes.count
        has_ended = processes.first(lambda: self._check_run(run, loaded.forecast, not with_scratch, start, processes_n))
        origin = None if loaded.original is None else loaded.original.origin
        layer = representation_layer(loaded.network, self.layer or (None if origin is None else origin.layer))
        reduction = self.reduction if origin is None else origin.reduction
        loaded.loader.check_profile(loaded.network, loaded.job.train, layer, reduction)
        meter, stop = self.meter or open_meter_of_nodes(device_of(loaded.network)), None
        if limits is not None and not has_ended:
            stop, of_one = limits.stop(loaded.network, loaded.job, meter), meter if processes.count == 1 else self.meter
            first = run, loaded.network, self._forecast, history, loaded, of_one
            made = loaded.forecast or processes.first(lambda: forecast_first(*first))
            loaded = dataclasses.replace(loaded, forecast=made)
            asked = None if made is None else made.asking(continued=pilot is not None)
            stop = dataclasses.replace(stop, asking=asked)
        if processes.rank == 0:
            create_folder(self.cwd / (self.out or UPDATES))
        features = loaded.features(meter)
        return loaded, UpdateRunner(
            self, history, loaded, checkpoint, pilot, meter, grid, layer, reduction, features, stop
        )

    def _check_run(
        self, run: RunIdentity, forecast: Forecast | None, begins_anew: bool, start: str, processes: int
    ) -> bool:
        """Refuse what ledger and files refuse; return whether the run is resumed and has ended."""
        has_ended = self.resume and run.ended() is not None
        if forecast is not None and not has_ended:
            run.history.pending(forecast.id)
        if not run.check_resumed(begins_anew, start):
            check_new_folder(None if self.out is None else self.cwd / self.out)
            if forecast is not None:
                check_pilot(run.history, forecast, run.parent, run.job, processes)
        return has_ended

    def _forecast(self, history: Ledger, loaded: "_Loaded", meter: EnergyMeter | None) -> Forecast:
        """Make the forecast that a budget needs; it is for one process."""
        shared = "original", "labels", "layer", "reduction", "shift_type", "country", "intensity", "pue", "options"
        known: dict[str, Any] = {name: getattr(self, name) for name in shared} | {"ledger": history, "meter": meter}
        known |= {"recipe": loaded.job.recipe, "seed": loaded.job.seed, "extend": loaded.extend}
        known["new_task"] = bool(loaded.job.parent) and not loaded.extend
        return forecast_update(self.model, self.train, self.test, self.target_accuracy, **known)


@dataclass(frozen=True, eq=False)
class _Loaded:
    """The objects that a request names.

    Attributes:
        request: The request.
        loader: Loads the model and data.
        forecast: Forecast to settle.
        model: Model as it is now.
        query: Job with the labels of the data.
        network: Model to be trained, with its new head where there is one.
        job: Job with the outputs of that model as labels.
        extend: Whether the head is widened.
        original: Profile before the shift.
    """

    request: UpdateRequest
    loader: InputLoader
    forecast: Forecast | None
    model: nn.Module
    query: RetrainingJob
    network: nn.Module
    job: RetrainingJob
    extend: bool
    original: Profile | None

    @classmethod
    def of(cls, request: UpdateRequest) -> "_Loaded":
        """Load what a request names."""
        forecast = request.forecast if isinstance(request.forecast, Forecast) else None
        changed = None if forecast is None else change_of(forecast)
        extend = request.extend or (changed == EXTENSION and not request.new_task)
        new_head = request.new_task or extend or changed == NEW_TASK
        if new_head and ((request.original is not None and not extend) or (request.new_task and request.extend)):
            raise SettingError("--new-head and --extend stand alone: without --from-scratch or each other, and a new "
                               "head without --original")  # fmt: skip
        check_labels(request.labels)
        loader = InputLoader(request.model, request.options, EXTENSION if extend else NEW_TASK if new_head else "shift")
        query = requested_job(request, loader, forecast)
        model = loader.network(None if new_head else query.train, query.seed)
        if forecast is not None and forecast.from_scratch:
            query = dataclasses.replace(query, from_scratch=True)
            model = _new_weights(loader, model, query.seed)
        network, job = prepare_new_task(model, query, extend) if new_head else (model, query)
        if extend and (risk := forgetting_risk(model, query)):
            warnings.warn(risk, ResqueWarning, stacklevel=5)
        replayed = job.replayed if job.recipe.replay else None
        for data in filter(None, (job.train, job.test, job.original_test, replayed)):
            check_data_fits_model(network, data)
        if forecast is not None:
            check_settles(network, job, forecast)
        original = None
        if request.original is not None and not extend:
            original = loader.original_profile(network, request.original, request.layer, request.reduction)
        return cls(request, loader, forecast, model, query, network, job, extend, original)

    def features(self, meter: EnergyMeter) -> Features:
        """Return the features of the update: those of its forecast, else from passes over the data."""
        if self.forecast is not None:
            return self.forecast.features
        request, processes = self.request, current_processes()
        if self.job.parent:
            of_task = self.loader.new_task_features
            found, _ = of_task(self.model, self.query, self.extend, request.layer, request.reduction, meter)
            return processes.first(lambda: found)
        with request.options.show_progress("passing the new data"):
            return processes.first(lambda: shift_features(self.network, self.job, self.original, request.labels)[0])

    @property
    def stored_fields(self) -> dict[str, Any]:
        """Fields of the update that its job decides."""
        job = self.job
        names = {"train_data": job.train.name, "test_data": job.test.name}
        return {**names, "shift_type": job.effective_shift_type, "recipe": recipe_to_dict(job.recipe)}


def _new_weights(loader: InputLoader, model: nn.Module, seed: int) -> nn.Module:
    """Return a model with the random weights of a seed; one that has them already is returned as it is."""
    if loader.spec is None or is_untrained(loader.spec, model, seed):
        return model
    return loader.random_networks(model, seed)(seed)
