"""One calibration run: the retraining for one shift, in this process or on a worker of a cluster."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter, open_meter
from resque.energy.reading import EnergyReading
from resque.forecasting.landmarking import ForecastReviser
from resque.indices.shift_features import shift_features
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import WOULD_NOT_REACH, Features, ForecastRevision, LearningCurve, Update
from resque.models.inference import device_of
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob
from resque.training.retrain import retrain
from resque.training.run import RunProgress
from resque.workflows.calibration_choice import HOPELESS
from resque.workflows.calibration_limits import BY_LIMIT, CalibrationLimits, CalibrationPace
from resque.workflows.calibration_plan import CalibrationPlan, PlannedShift
from resque.workflows.engine import ExperimentTask, Row
from resque.workflows.measured_tasks import measured_task

__all__ = ["CalibrationRound", "task_for_shift", "train_for_shift"]

_CHECK_GROWTH = 1.3  # growth of the steps between two in-run forecasts


@dataclass(frozen=True, eq=False)
class CalibrationRound:
    """What the runs of a round share.

    Attributes:
        plan: Plan of the calibration.
        history: Updates that in-run forecasts learn from: those before the round.
        grid: Electricity grid; None leaves carbon unknown.
        limits: Limits of the whole calibration.
        pace: Pace of the runs before the round.
        reserve_s: Seconds that are kept for what follows the runs.
    """

    plan: CalibrationPlan
    history: Sequence[Update]
    grid: Grid | None
    limits: CalibrationLimits
    pace: CalibrationPace
    reserve_s: float

    def shared(self) -> "CalibrationRound":
        """Return the round for other machines, whose limits go by the time of day."""
        limits = self.limits
        start = time.time() - (limits.clock() - limits.start)
        return dataclasses.replace(self, limits=dataclasses.replace(limits, start=start, clock=time.time))


def train_for_shift(
    model: nn.Module,
    planned: PlannedShift,
    common: CalibrationRound,
    meter: EnergyMeter,
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[[RunProgress], None] | None = None,
) -> Update | None:
    """Do a run, or continue it; return None if the limit ended it before its first step, which tells nothing.

    Args:
        model: Model to retrain; a copy is trained.
        planned: Shift of the run.
        common: Arguments that the runs of its round share.
        meter: Energy meter.
        checkpoint: Settings of checkpoints; None writes none.
        on_progress: Callback after each evaluation.
    """
    plan = common.plan
    job, features = plan.request.job(planned.shift), planned.features
    if not plan.request.is_small:
        features = shift_features(model, job, plan.request.original)[0]
    update = retrain(
        copy.deepcopy(model),
        job,
        meter=meter,
        grid=common.grid,
        features=features,
        step_cost=plan.step_cost,
        model_name=plan.request.model_name,
        checkpoint=checkpoint,
        on_progress=on_progress,
        stop=_RunEnd(common, job, planned.shift, features),
    )
    return None if not update.cost.steps and update.stopped_by in BY_LIMIT else update


def task_for_shift(
    model: nn.Module, planned: PlannedShift, common: CalibrationRound, meter: EnergyMeter, device: str
) -> ExperimentTask:
    """Return a run as a task for another process, which opens a meter of its own machine.

    Args:
        model: Model to retrain, on the CPU.
        planned: Shift of the run.
        common: Arguments that the runs of its round share, see :meth:`CalibrationRound.shared`.
        meter: Meter of the driver; one that reads hardware stands for that of the worker.
        device: Type of the device of the run.
    """
    arguments = {"model": model, "planned": planned, "common": common, "device": device}
    return measured_task(planned.shift, _train_elsewhere, meter, **arguments)


def _train_elsewhere(
    model: nn.Module, planned: PlannedShift, common: CalibrationRound, meter: EnergyMeter | None, device: str
) -> Row:
    """Do a run on a worker; return its update, and its seconds without training and evaluation."""
    start = time.perf_counter()
    model = model.to(device)
    update = train_for_shift(model, planned, common, meter or open_meter(device_of(model)))
    spent_s = 0.0 if update is None else update.cost.wall_s + (update.evaluation_s or 0.0)
    return {"update": update, "passes_s": time.perf_counter() - start - spent_s}


class _RunEnd:
    """Callback that ends a run at the limit of the calibration, or once it is unlikely to reach the lowest target."""

    def __init__(self, common: CalibrationRound, job: RetrainingJob, shift: str, features: Features) -> None:
        request = common.plan.request
        self._common, self._lowest, self._evaluations = common, request.targets[0], job.evaluations
        query = request.query(shift, features, common.plan.parent, self._lowest)
        self._revise = ForecastReviser(common.history, query, bundled_updates(), job=job)
        self._next_check = 0

    def __call__(
        self, curve: LearningCurve, revision: ForecastRevision | None, reading: EnergyReading | None = None
    ) -> str | None:
        common = self._common
        reason = common.limits.end_reason(curve, self._evaluations, common.pace, common.reserve_s)
        return reason or (WOULD_NOT_REACH if self._is_hopeless(curve) else None)

    def _is_hopeless(self, curve: LearningCurve) -> bool:
        step = curve.steps[-1]
        if step < self._next_check or curve.first_at(self._lowest) is not None:
            return False
        self._next_check = math.ceil(_CHECK_GROWTH * step)
        revision = self._revise(curve)
        return revision is not None and revision.probability_reached < HOPELESS
