"""Load what calibration runs need, plan them within a budget, and do them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from resque.data.spec import mixture_parts
from resque.energy.grid import Grid, named_grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.errors import DataError, SettingError
from resque.ledger.records import Update
from resque.ledger.store import Ledger
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.recipe import Recipe
from resque.workflows.calibration_defaults import default_target, shorten_recipe, split_for_calibration
from resque.workflows.calibration_runs import (
    UPDATES,
    CalibrationPlan,
    CalibrationRequest,
    plan_calibration,
    run_calibration,
)
from resque.workflows.forecast import LEDGER
from resque.workflows.inputs import InputLoader, ModelOptions, load_recipe
from resque.workflows.update import CHECKPOINTS

__all__ = ["Calibration", "CalibrationBudget", "calibrate"]


@dataclass(frozen=True)
class CalibrationBudget:
    """Limits of all calibration runs together; None for no limit.

    Attributes:
        max_hours: Time, evaluations included.
        max_kwh: Energy of the same.
    """

    max_hours: float | None = None
    max_kwh: float | None = None

    def check(self, meter: EnergyMeter) -> None:
        """Raise SettingError for a limit that is no number, or one of energy that the meter cannot measure."""
        for name, limit in (("max_hours", self.max_hours), ("max_kwh", self.max_kwh)):
            if limit is not None and not 0.0 <= limit < math.inf:
                raise SettingError(f"budget {name} is {limit}: expected a number from 0 on")
        if self.max_kwh is not None and not meter.methods:
            raise SettingError(
                "a budget in kWh needs a meter that measures energy: install resque[energy], or use --max-hours"
            )

    def exceeded_by(self, plan: CalibrationPlan) -> list[str]:
        """Return a sentence for each limit that the plan may exceed."""
        cost = plan.at_most
        limits = [("h", cost.wall_s / 3600.0, self.max_hours), ("kWh", cost.energy_kwh, self.max_kwh)]
        return [
            f"up to {value:.3g} {unit}, and the budget is {limit:g}; ask for fewer --updates or --max-epochs"
            for unit, value, limit in limits
            if value is not None and limit is not None and value > limit
        ]


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
        target_accuracy: Accuracy to reach on shifted test data; None is 3 % below the clean accuracy.
        updates: Number of runs.
        recipe: Recipe or its specification.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; None shortens the recipe's.
        seed: Seed of the data order.
        layer: Module whose output is the representation.
        reduction: How a representation is flattened.
        options: How the model and data are loaded.
    """

    model: str | nn.Module
    data: Any
    ledger: Ledger
    meter: EnergyMeter
    grid: Grid | None = None
    original: Any = None
    test: Any = None
    target_accuracy: float | None = None
    updates: int = UPDATES
    recipe: str | Recipe = "retrain-adam"
    evaluate_every: int | None = None
    max_epochs: int | None = None
    seed: int = 0
    layer: str | None = None
    reduction: str | None = None
    options: ModelOptions

    def plan(self) -> tuple[nn.Module, CalibrationPlan]:
        """Load the model and data, and choose the runs; nothing is trained."""
        recipe = load_recipe(self.recipe, self.evaluate_every)  # refused before anything is read
        if isinstance(self.data, str) and len(mixture_parts(self.data)) > 1:
            raise DataError(
                f"{self.data}: synthetic shifts are made of one source; name one, or join them in an archive"
            )
        loader = InputLoader(self.model, self.options)
        held_out = None if self.test is None else loader.data(self.test)
        original, train, test = split_for_calibration(loader.data(self.data), held_out)
        network = loader.network(train, self.seed)
        for part in (train, test):
            check_data_fits_model(network, part)
        source = original if self.original is None else self.original
        request = CalibrationRequest(
            train=train,
            test=test,
            original=loader.original_profile(network, source, self.layer, self.reduction),
            target_accuracy=self._target(network, test),
            recipe=shorten_recipe(recipe, len(train), self.max_epochs),
            updates=self.updates,
            seed=self.seed,
            model_name=loader.name,
        )
        with self.options.show_progress("planning") as show:
            history = self.ledger.updates(parent=fingerprint(network))
            return network, plan_calibration(
                network, request, meter=self.meter, grid=self.grid, history=history, on_progress=show
            )

    def run(self, network: nn.Module, plan: CalibrationPlan) -> Sequence[Update]:
        """Do the runs of a plan, or continue them after an interruption."""
        checkpoint = Checkpoint(Path(CHECKPOINTS), resume=True)
        with self.options.show_progress("calibrating") as show:
            return run_calibration(
                network, plan, self.ledger, meter=self.meter, grid=self.grid, checkpoint=checkpoint, on_progress=show
            )

    def _target(self, network: nn.Module, test: Any) -> float:
        if self.target_accuracy is not None:
            return self.target_accuracy
        return default_target(evaluate_dataset(network, test)[0])


def calibrate(
    model: str | nn.Module,
    data: Any,
    *,
    ledger: Ledger | str | Path = LEDGER,
    original: Any = None,
    test: Any = None,
    target_accuracy: float | None = None,
    updates: int = UPDATES,
    recipe: str | Recipe = "retrain-adam",
    evaluate_every: int | None = None,
    max_epochs: int | None = None,
    max_hours: float | None = None,
    max_kwh: float | None = None,
    seed: int = 0,
    layer: str | None = None,
    reduction: str | None = None,
    country: str | None = None,
    intensity: float | None = None,
    pue: float = 1.0,
    meter: EnergyMeter | None = None,
    options: ModelOptions | None = None,
) -> tuple[Update, ...]:
    """Retrain for synthetic shifts of the user's own data, to give forecasts an initial history.

    Runs that the ledger holds already are not repeated, so that an interrupted calibration continues. The model is left
    as it was; its updated copies are not kept.

    Args:
        model: Model or its specification.
        data: Images like those that the model was trained on: specification, dataset, or arrays ``(x, y)``.
        ledger: Ledger or its file; it gets the runs.
        original: Profile or data that the model was trained on; None takes a part of ``data``.
        test: Such images held out; None holds out 30 % of ``data``.
        target_accuracy: Accuracy to reach on shifted test data; None is 3 % below the clean accuracy.
        updates: Number of runs.
        recipe: Recipe or its specification.
        evaluate_every: Steps between evaluations; overrides the recipe's.
        max_epochs: Maximum number of epochs; None shortens the recipe's.
        max_hours: Limit of the time of all runs.
        max_kwh: Limit of the energy of all runs.
        seed: Seed of the data order.
        layer: Module whose output is the representation.
        reduction: How a representation is flattened.
        country: ISO alpha-3 code of the electricity grid.
        intensity: Carbon intensity in g CO2e per kWh; overrides the country's.
        pue: Power usage effectiveness of the site.
        meter: Energy meter; None opens the best one available.
        options: How a specified model and the data are loaded.

    Returns:
        The updates, in the order of the plan.

    Raises:
        SettingError: The runs may exceed a limit, or too few shifts start below the target.
    """
    history = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    history.check_writable()
    loader = InputLoader(model, options or ModelOptions())
    budget, meter = CalibrationBudget(max_hours, max_kwh), meter or open_meter(loader.device)
    budget.check(meter)
    calibration = Calibration(
        model=model, data=data, ledger=history, meter=meter, grid=named_grid(country, intensity, pue),
        original=original, test=test, target_accuracy=target_accuracy, updates=updates, recipe=recipe,
        evaluate_every=evaluate_every, max_epochs=max_epochs, seed=seed, layer=layer, reduction=reduction,
        options=options or ModelOptions(),
    )  # fmt: skip
    network, plan = calibration.plan()
    if reasons := budget.exceeded_by(plan):
        raise SettingError(f"beyond budget, nothing was trained: {'; '.join(reasons)}")
    return tuple(calibration.run(network, plan))
