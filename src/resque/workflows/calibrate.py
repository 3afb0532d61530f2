"""Load what calibration runs need, plan them within a budget, and do them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from resque.data.spec import mixture_parts
from resque.energy.grid import Grid, named_grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.errors import DataError, SettingError
from resque.indices.profile import Profile
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.finetuning import STATISTICS
from resque.training.recipe import Recipe
from resque.workflows.calibration_defaults import (
    Targets,
    default_target,
    parse_targets,
    shorten_recipe,
    split_for_calibration,
)
from resque.workflows.calibration_limits import CalibrationLimits, max_hours_of
from resque.workflows.calibration_outcome import CalibrationResult, calibration_result
from resque.workflows.calibration_plan import CalibrationPlan, plan_calibration
from resque.workflows.calibration_request import UPDATES, CalibrationRequest
from resque.workflows.calibration_runs import CalibrationRunner
from resque.workflows.engine import Engine, LocalEngine
from resque.workflows.forecast import LEDGER
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.ray_engine import open_engine
from resque.workflows.requested_job import load_recipe
from resque.workflows.update import CHECKPOINTS

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Calibration runs to be planned and done.

    Attributes:
        model: Model or its specification.
        data: Images like those that the model was trained on.
        ledger: Ledger of the runs.
        meter: Energy meter.
        grid: Electricity grid; None reports no carbon.
        original: Profile or data that the model was trained on; None takes a part of ``data``.
        test: Such images held out; None holds out 30 % of ``data``.
        like: Data of the update that is to be forecast, with labels or without; the runs are chosen around it.
        target_accuracy: Target that forecasts will be asked for, or lowest and highest; None is 3 % below the clean
            accuracy. Runs train to the highest.
        updates: Number of runs, at most.
        recipe: Recipe or its specification.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; None shortens the recipe's.
        seed: Seed of the data order.
        limits: Limits of the whole calibration.
        layer: Module whose output is the representation.
        reduction: How a representation is flattened.
        options: How the model and data are loaded.
        engine: Where the runs are.
        round_size: Number of runs that are chosen together, and can be done at the same time.
        cwd: Folder that holds the folder of checkpoints, also if the user's model or data change the current one.
    """

    model: str | nn.Module
    data: Any
    ledger: Ledger
    meter: EnergyMeter
    grid: Grid | None = None
    original: Any = None
    test: Any = None
    like: Any = None
    target_accuracy: float | Targets | str | None = None
    updates: int = UPDATES
    recipe: str | Recipe = "retrain-adam"
    evaluate_every: int | None = None
    max_epochs: int | None = None
    seed: int = 0
    limits: CalibrationLimits = field(default_factory=CalibrationLimits)
    layer: str | None = None
    reduction: str | None = None
    options: ModelOptions
    engine: Engine = field(default_factory=LocalEngine)
    round_size: int = 1
    cwd: Path = field(default_factory=Path.cwd)

    def plan(self) -> tuple[nn.Module, CalibrationPlan]:
        """Load the model and data, and measure the candidates; nothing is trained."""
        self._check()  # refused before anything is read
        recipe = load_recipe(self.recipe, self.evaluate_every)
        targets = None if self.target_accuracy is None else parse_targets(self.target_accuracy)
        if isinstance(self.data, str) and len(mixture_parts(self.data)) > 1:
            raise DataError(
                f"{self.data}: synthetic shifts are made of one source; name one, or join them in an archive"
            )
        if isinstance(self.like, Profile) or str(self.like).endswith(".safetensors"):
            raise DataError("a calibration is like new data, and this is a profile: name the data, e.g. npz:new.npz")
        loader = InputLoader(self.model, self.options)
        held_out = None if self.test is None else loader.data(self.test)
        if recipe.trains == STATISTICS:
            raise SettingError("trains=norm needs no history: `resque forecast` tries it; calibrate another recipe")
        original, train, test = split_for_calibration(loader.data(self.data), held_out)
        like = None if self.like is None else loader.data(self.like, for_training=False)
        if like is not None and like.labeled:
            like = loader.numbered(like)
        network = loader.network(train, self.seed)
        for part in (train, test):
            check_data_fits_model(network, part)
        source = original if self.original is None else self.original
        request = CalibrationRequest(
            train=train,
            test=test,
            original=loader.original_profile(network, source, self.layer, self.reduction),
            targets=targets or parse_targets(default_target(evaluate_dataset(network, test)[0])),
            recipe=shorten_recipe(recipe, len(train), self.max_epochs),
            updates=self.updates,
            seed=self.seed,
            model_name=loader.name,
            like=like,
        )
        with self.options.show_progress("planning") as show:
            history = self.ledger.updates(parent=fingerprint(network))
            return network, plan_calibration(
                network,
                request,
                meter=self.meter,
                grid=self.grid,
                history=history,
                limits=self.limits,
                on_progress=show,
            )

    def _check(self) -> None:
        self.limits.check(self.meter)
        if self.round_size < 1:
            raise SettingError(f"rounds of {self.round_size} runs: expected 1 or more")
        self.limits.checked(self.updates, "local" if isinstance(self.engine, LocalEngine) else "ray")

    def run(self, network: nn.Module, plan: CalibrationPlan) -> CalibrationResult:
        """Do the runs of a plan, or continue them after an interruption, and try the forecasts that follow."""
        checkpoint = Checkpoint(self.cwd / CHECKPOINTS, resume=True)
        with self.options.show_progress("calibrating") as show:
            runs = CalibrationRunner(
                network, plan, self.ledger, self.meter, self.grid, self.limits, checkpoint, show, self.engine,
                self.round_size,
            ).run()  # fmt: skip
        with self.options.show_progress("trying a forecast"):
            return calibration_result(plan, runs, self.ledger)


def calibrate(
    model: str | nn.Module,
    data: Any,
    *,
    ledger: Ledger | str | Path = LEDGER,
    original: Any = None,
    test: Any = None,
    like: Any = None,
    target_accuracy: float | tuple[float, float] | str | None = None,
    updates: int = UPDATES,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    max_hours: float | None = None,
    max_minutes: float | None = None,
    max_kwh: float | None = None,
    seed: int = 0,
    layer: str | None = None,
    reduction: str | None = None,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
    engine: str = "local",
    address: str | None = None,
    round_size: int = 1,
) -> tuple[Update, ...]:
    """Retrain for synthetic shifts of the user's own data, to give forecasts an initial history.

    After each run, the next one is chosen where forecasts are least certain: of the update that the calibration is
    like, or of the shifts themselves. Runs that the ledger holds already are not repeated, so that an interrupted
    calibration continues. The model is left as it was; its updated copies are not kept.

    Args:
        model: Model or its specification.
        data: Images like those that the model was trained on: specification, dataset, or arrays ``(x, y)``.
        ledger: Ledger or its file; it gets the runs.
        original: Profile or data that the model was trained on; None takes a part of ``data``.
        test: Such images held out; None holds out 30 % of ``data``.
        like: Data of the update that is to be forecast, with labels or without; the runs are chosen around it.
        target_accuracy: Target that forecasts will be asked for, or lowest and highest, e.g. ``(0.7, 0.85)``; None is
            3 % below the clean accuracy. Runs train to the highest.
        updates: Number of runs.
        recipe: Recipe or its specification.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; None shortens the recipe's.
        max_hours: Limit of the wall time of the whole call. A run that does not fit is not begun, and one that takes
            longer than expected ends there.
        max_minutes: The same in minutes; give one of them.
        max_kwh: Limit of the energy of that time.
        seed: Seed of the data order.
        layer: Module whose output is the representation.
        reduction: How a representation is flattened.
        country: ISO alpha-3 code of the electricity grid.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        meter: Energy meter; None opens the best one available.
        options: Loading of a specified model and of the data.
        engine: ``"local"`` does one run after the other; ``"ray"`` does those of a round on a cluster.
        address: Address of the Ray cluster; None starts Ray on this machine, and shuts it down.
        round_size: Number of runs that are chosen together. The results depend on it, and not on the engine.

    Returns:
        The updates, oldest first.

    Raises:
        SettingError: Not even one run fits into the limits, or too few shifts start below the target.
    """
    limits = CalibrationLimits(max_hours_of(max_hours, max_minutes), max_kwh).checked(updates, engine)
    history = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    history.check_writable()
    options = options or ModelOptions()
    device = InputLoader(model, options).device
    with open_engine(engine, address, gpus=int(device.type == "cuda")) as opened:
        calibration = Calibration(
            model=model, data=data, ledger=history, meter=meter or open_meter(device),
            grid=named_grid(country, intensity, pue), original=original, test=test, like=like,
            target_accuracy=target_accuracy, updates=updates, recipe=recipe, evaluate_every=evaluate_every,
            max_epochs=max_epochs, seed=seed, limits=limits, layer=layer, reduction=reduction, options=options,
            engine=opened, round_size=round_size,
        )  # fmt: skip
        runs = calibration.run(*calibration.plan()).runs
    if runs.is_refused:
        raise SettingError(f"beyond budget, nothing was trained: {runs.ended}")
    return runs.updates
