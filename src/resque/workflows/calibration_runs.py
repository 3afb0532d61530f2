"""Calibration runs: retrainings on synthetic shifts of the user's own data, as an initial history.

Each run starts from the same model, trains to the highest target, and is written to the ledger when it ends. It ends
early if its in-run forecast gives up the lowest target, or at the limit of the whole calibration. The next run is
chosen after each. The ledger holds all that a choice depends on, so an interrupted calibration goes on as it would have
without the interruption. Such a history cannot show how much the next real shift differs from all synthetic ones.
"""

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.forecasting.landmarking import ForecastReviser
from resque.forecasting.selection import updates_to_learn_from
from resque.indices.shift_features import shift_features
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import WOULD_NOT_REACH, Features, ForecastRevision, LearningCurve, Update
from resque.ledger.store import Ledger
from resque.training.checkpoint import Checkpoint
from resque.training.job import RetrainingJob, is_update_of
from resque.training.retrain import retrain
from resque.training.run import RunProgress
from resque.workflows.calibration_candidates import ShowProgress
from resque.workflows.calibration_choice import HOPELESS, RankedShift, choose_next
from resque.workflows.calibration_limits import BY_LIMIT, CalibrationLimits, CalibrationPace
from resque.workflows.calibration_plan import CalibrationPlan, PlannedShift
from resque.workflows.keeping import keep_update

__all__ = ["CalibrationRunner", "CalibrationRuns"]

_FORECASTS_AFTERWARDS = 60  # what the forecast that is tried at the end takes, in units of one between runs
_CHECK_GROWTH = 1.3  # growth of the steps between two in-run forecasts
_FEWEST_EVALUATIONS = 4  # before and after, on new and original data


@dataclass(frozen=True)
class CalibrationRuns:
    """The runs of a calibration.

    Attributes:
        updates: All runs of its request in the ledger, oldest first.
        new: Number of these that were done now.
        ended: Reason for which there are no more.
        by_limit: Whether a limit of the calibration was the reason.
    """

    updates: tuple[Update, ...]
    new: int
    ended: str
    by_limit: bool = False

    @property
    def is_refused(self) -> bool:
        """Whether the limits allowed not even one run."""
        return self.by_limit and not self.new


@dataclass(frozen=True, eq=False)
class CalibrationRunner:
    """Does the runs of a plan.

    Attributes:
        model: Model to retrain; unchanged, because every run trains a copy.
        plan: Plan made by :func:`resque.workflows.calibration_plan.plan_calibration`.
        ledger: Ledger of the updates.
        meter: Meter of every run.
        grid: Electricity grid; None leaves carbon unknown.
        limits: Limits of the whole calibration.
        checkpoint: Settings of checkpoints; None starts an interrupted run from the beginning.
        on_progress: Callback with ``(done, total, detail)``.
    """

    model: nn.Module
    plan: CalibrationPlan
    ledger: Ledger
    meter: EnergyMeter
    grid: Grid | None = None
    limits: CalibrationLimits = dataclasses.field(default_factory=CalibrationLimits)
    checkpoint: Checkpoint | None = None
    on_progress: ShowProgress = lambda done, total, detail: None

    def run(self) -> CalibrationRuns:
        """Do the runs that are left."""
        plan, done, mine, skipped = self.plan, dict(self.plan.done), list[Update](), set[str]()
        ended, by_limit, passes_s = f"{plan.request.updates} runs were asked for", False, plan.passes_s
        if len(done) < plan.request.updates:  # the first forecast also pays for imports, which the time kept must not
            choose_next(plan, done, updates_to_learn_from(self.ledger, plan.parent, new_tasks=False))
        while len(done) < plan.request.updates:
            start = time.perf_counter()
            self.on_progress(len(done), plan.request.updates, "choosing the next shift")
            history = updates_to_learn_from(self.ledger, plan.parent, new_tasks=False)
            choice = choose_next(plan, done, history, skipped)
            if choice.is_decided:
                ended = "the forecasts that will be asked for are certain enough"
                break
            if not choice.ranked:
                by_limit = bool(skipped) or not self.limits.plans_on()
                ended = "no further run fits into the limit" if by_limit else "no candidate is left"
                break
            pace = CalibrationPace.of(mine, plan.step_cost, plan.evaluation_s, passes_s)
            reserve_s = _FORECASTS_AFTERWARDS * (time.perf_counter() - start) / max(1, choice.forecasts)
            fitting = [each for each in choice.ranked if _fits(plan, each, self.limits, pace, reserve_s)]
            if not fitting:
                skipped |= {each.planned.shift for each in choice.ranked}
                continue
            planned = fitting[0].planned
            start = time.perf_counter()
            update, is_new = self._run(planned, history, len(done), pace, reserve_s)
            if update is None:  # the limit came before its first step
                skipped.add(planned.shift)
                continue
            done[planned.shift] = update
            if is_new:
                mine.append(update)
                passes_s = time.perf_counter() - start - update.cost.wall_s - (update.evaluation_s or 0.0)
        return CalibrationRuns(tuple(done.values()), len(mine), ended, by_limit)

    def _run(
        self, planned: PlannedShift, history: Sequence[Update], done: int, pace: CalibrationPace, reserve_s: float
    ) -> tuple[Update | None, bool]:
        """Do a run, or continue it; return its update, and whether it was not in the ledger before.

        A run that the limit ended before its first step tells nothing, and is not kept.
        """
        plan, total = self.plan, self.plan.request.updates
        self.on_progress(done, total, f"passing {planned.shift}")
        job = plan.request.job(planned.shift)

        def show(progress: RunProgress) -> None:
            self.on_progress(done, total, f"{planned.shift}, step {progress.step:,}, accuracy {progress.accuracy:.3f}")

        with contextlib.nullcontext() if self.checkpoint is None else self.checkpoint.hold(plan.parent, job) as held:
            equal = (each for each in self.ledger.updates(parent=plan.parent) if is_update_of(each, plan.parent, job))
            update, is_new = next(equal, None), False
            if update is None:
                features, is_new = self._features(planned, job), True
                update = retrain(
                    copy.deepcopy(self.model),
                    job,
                    meter=self.meter,
                    grid=self.grid,
                    features=features,
                    step_cost=plan.step_cost,
                    model_name=plan.request.model_name,
                    checkpoint=held,
                    on_progress=show,
                    stop=_RunEnd(self, job, self._reviser(planned.shift, features, job, history), pace, reserve_s),
                )
                if not update.cost.steps and update.stopped_by in BY_LIMIT:
                    update = None
                else:
                    keep_update(self.ledger, update)
            if held is not None:
                held.remove(plan.parent, job)
        return update, is_new

    def _features(self, planned: PlannedShift, job: RetrainingJob) -> Features:
        """Return the features of a run from all of its data."""
        if self.plan.request.is_small:
            return planned.features
        return shift_features(self.model, job, self.plan.request.original)[0]

    def _reviser(
        self, shift: str, features: Features, job: RetrainingJob, history: Sequence[Update]
    ) -> ForecastReviser:
        """Return the in-run forecast of the lowest target."""
        query = self.plan.request.query(shift, features, self.plan.parent, self.plan.request.targets[0])
        return ForecastReviser(history, query, bundled_updates(), job=job)


class _RunEnd:
    """Callback that ends a run at the limit of the calibration, or once it is unlikely to reach the lowest target."""

    def __init__(
        self,
        runner: CalibrationRunner,
        job: RetrainingJob,
        revise: ForecastReviser,
        pace: CalibrationPace,
        reserve_s: float,
    ) -> None:
        self._limits, self._lowest, self._evaluations = runner.limits, runner.plan.request.targets[0], job.evaluations
        self._revise, self._pace, self._reserve_s, self._next_check = revise, pace, reserve_s, 0

    def __call__(
        self, curve: LearningCurve, revision: ForecastRevision | None, reading: EnergyReading | None = None
    ) -> str | None:
        reason = self._limits.end_reason(curve, self._evaluations, self._pace, self._reserve_s)
        return reason or (WOULD_NOT_REACH if self._is_hopeless(curve) else None)

    def _is_hopeless(self, curve: LearningCurve) -> bool:
        step = curve.steps[-1]
        if step < self._next_check or curve.first_at(self._lowest) is not None:
            return False
        self._next_check = math.ceil(_CHECK_GROWTH * step)
        revision = self._revise(curve)
        return revision is not None and revision.probability_reached < HOPELESS


def _fits(
    plan: CalibrationPlan, ranked: RankedShift, limits: CalibrationLimits, pace: CalibrationPace, reserve_s: float
) -> bool:
    """Return whether a run that takes its expected steps ends within the limits."""
    evaluations = sum(step <= ranked.steps for step in plan.request.clean_job.evaluations) + _FEWEST_EVALUATIONS
    return pace.seconds(ranked.steps, evaluations) <= limits.left_s(pace.power_kw) - reserve_s
