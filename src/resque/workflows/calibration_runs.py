"""Calibration runs: retrainings on synthetic shifts of the user's own data, as an initial history.

:func:`plan_calibration` evaluates every shift type and level with forward passes alone, selects shifts that span the
RESQUE index, and gives an upper bound on the cost. :func:`run_calibration` does them, each from the same
model, and writes each to the ledger when it ends; after an interruption it resumes. Such a history cannot show how much
the next real shift differs from all synthetic ones.
"""

import contextlib
import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from resque.data.dataset import LabeledDataset
from resque.data.shifts import parse_shift
from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.errors import ModelError, SettingError, TooFewUpdatesError
from resque.forecasting.history import ForecastQuery, starts_at_target
from resque.forecasting.prediction import predict_cost
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.forecasting.selection import choose_predictors
from resque.indices.profile import Profile
from resque.indices.shift_features import shift_features
from resque.ledger.records import Features, StepCost, Update
from resque.ledger.store import Ledger
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.checkpoint import Checkpoint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob, evaluation_steps, is_update_of
from resque.training.probe import forecast_overhead, probe
from resque.training.recipe import Recipe
from resque.training.retrain import retrain
from resque.training.run import RunProgress
from resque.workflows.keeping import keep_update
from resque.workflows.shift_selection import (
    Candidate,
    ShowProgress,
    applicable_shifts,
    select_spread,
    shifts_below_target,
)

__all__ = [
    "UPDATES", "CalibrationCost", "CalibrationPlan", "CalibrationRequest", "PlannedRun", "plan_calibration",
    "run_calibration",
]  # fmt: skip

UPDATES = 12
"""Default number of calibration runs."""
_MIN_SHIFT_TYPES = 3
_ORIGINAL_EVALUATIONS = 2  # accuracy on the original data, before and after


@dataclass(frozen=True, eq=False)
class CalibrationRequest:
    """Calibration runs to plan.

    Attributes:
        train: Data like those that the model was trained on, to be shifted and trained on.
        test: Held-out data of the same kind, to be shifted and tested on.
        original: Profile of the data that the model was trained on.
        target_accuracy: Accuracy to reach on the shifted test data.
        recipe: Training recipe, see :func:`resque.workflows.calibration_defaults.shorten_recipe`.
        updates: Number of runs.
        seed: Seed of the data order.
        model_name: Name of the model in the updates.
    """

    train: LabeledDataset
    test: LabeledDataset
    original: Profile
    target_accuracy: float
    recipe: Recipe
    updates: int = UPDATES
    seed: int = 0
    model_name: str = ""

    def job(self, shift: str) -> RetrainingJob:
        """Return the job for one shift, e.g. ``"gaussian:5"``."""
        change = parse_shift(shift)
        train, test = self.train.shifted(change), self.test.shifted(change)
        return RetrainingJob(train, test, self.target_accuracy, self.recipe, self.seed, self.test, change.shift_type)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        shift: Shift type and level, e.g. ``"gaussian:5"``.
        features: Features of the update, from forward passes over all of the data.
        done: Id of the same run in the ledger; None if it is still to be done.
        expected_steps: Expected optimizer steps, from this model's updates in the ledger; None if they are too few.
        max_steps: Step budget.
    """

    shift: str
    features: Features
    done: str | None
    expected_steps: float | None
    max_steps: int


@dataclass(frozen=True)
class CalibrationCost:
    """Cost of several runs: training, and the evaluations that decide when a run ends.

    Attributes:
        runs: Number of runs.
        steps: Optimizer steps of all runs.
        training_s: Seconds of training, at the probed seconds per step.
        evaluation_s: Seconds of evaluation, at the time of one pass over the clean test data.
        energy_kwh: Energy of training and evaluation, at the probe's power; None if the meter measures no energy.
        carbon_kg: Emissions of both; None without a grid.
    """

    runs: int
    steps: int
    training_s: float
    evaluation_s: float
    energy_kwh: float | None
    carbon_kg: float | None

    @property
    def wall_s(self) -> float:
        """Seconds of training and evaluation."""
        return self.training_s + self.evaluation_s


@dataclass(frozen=True)
class CalibrationPlan:
    """Calibration runs and their cost, before anything is trained.

    Attributes:
        request: Request that the plan answers.
        clean_accuracy: Accuracy of the model on the clean test data.
        shifts: Number of shifts that were evaluated.
        candidates: Shifts with which the model starts below the target.
        runs: Selected runs, in the order in which they are done.
        step_cost: Probed cost of a step on this machine.
        at_most: Upper bound on the cost of the remaining runs: every run takes its step budget.
        typical: Expected cost of the remaining runs, from this model's updates in the ledger; None if they are too few.
        overhead: Cost of making the plan.
    """

    request: CalibrationRequest
    clean_accuracy: float
    shifts: int
    candidates: tuple[Candidate, ...]
    runs: tuple[PlannedRun, ...]
    step_cost: StepCost
    at_most: CalibrationCost
    typical: CalibrationCost | None
    overhead: EnergyReading


def plan_calibration(
    model: nn.Module,
    request: CalibrationRequest,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    history: Sequence[Update] = (),
    on_progress: ShowProgress = lambda done, total, detail: None,
) -> CalibrationPlan:
    """Evaluate every shift, select the runs, and compute their cost.

    Args:
        model: Model to retrain; unchanged.
        request: Data, target, recipe and number of runs.
        meter: Meter of the probe.
        grid: Electricity grid; None leaves carbon unknown.
        history: Updates in the ledger. Runs among them are not done again, and they give the expected cost.
        on_progress: Callback with ``(done, total, detail)``.

    Raises:
        DataError: The data are not images, or have values outside [0, 1].
        ModelError: The model is not better than a constant prediction on the clean data.
        SettingError: There are fewer runs than a forecast needs, or too few shifts start below the target.
    """
    device = device_of(model)
    start = now(device)
    _check_request(model, request)
    evaluation_start = now(device)
    clean_accuracy, _ = evaluate_dataset(model, request.test)
    evaluation_s = now(device) - evaluation_start
    _check_pretrained(clean_accuracy, request)
    candidates = shifts_below_target(
        model, request.train, request.test, request.original, request.target_accuracy, on_progress
    )
    runs = _select_runs(model, request, candidates, history, on_progress)
    passes_s = now(device) - start
    job = request.job(runs[0].shift)
    step_cost = probe(model, job.train, request.recipe, meter)
    remaining = [run for run in runs if run.done is None]
    expected_steps = [run.expected_steps for run in remaining if run.expected_steps is not None]

    def total_cost(steps: Sequence[float]) -> CalibrationCost:
        evaluations = sum(_count_evaluations(run_steps, job) for run_steps in steps)
        return _total_cost(steps, evaluations * evaluation_s, step_cost, grid)

    return CalibrationPlan(
        request,
        clean_accuracy,
        len(applicable_shifts(request.train)),
        tuple(candidates),
        runs,
        step_cost,
        at_most=total_cost([run.max_steps for run in remaining]),
        typical=total_cost(expected_steps) if len(expected_steps) == len(remaining) else None,
        overhead=forecast_overhead(passes_s, step_cost),
    )


def run_calibration(
    model: nn.Module,
    plan: CalibrationPlan,
    ledger: Ledger,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    checkpoint: Checkpoint | None = None,
    on_progress: ShowProgress = lambda done, total, detail: None,
) -> tuple[Update, ...]:
    """Do the runs of a plan, each from the same model, and write each to the ledger when it ends.

    Args:
        model: Model to retrain; unchanged, because every run trains a copy.
        plan: Plan made by :func:`plan_calibration`.
        ledger: Ledger of the updates; runs of the plan that it holds are not done again.
        meter: Meter of every run.
        grid: Electricity grid; None leaves carbon unknown.
        checkpoint: Settings of checkpoints; None starts an interrupted run from the beginning.
        on_progress: Callback with ``(done, total, detail)``.

    Returns:
        One update per run of the plan, in its order, including those done before.
    """
    parent, updates = fingerprint(model), []
    for done, run in enumerate(plan.runs):

        def show(progress: RunProgress, done: int = done, shift: str = run.shift) -> None:
            detail = f"{shift}, step {progress.step:,}, accuracy {progress.accuracy:.3f}"
            on_progress(done, len(plan.runs), detail)

        job = plan.request.job(run.shift)
        with contextlib.nullcontext() if checkpoint is None else checkpoint.hold(parent, job) as held:
            update = _find_update(ledger.updates(parent=parent), parent, job)
            if update is None:
                update = retrain(
                    copy.deepcopy(model),
                    job,
                    meter=meter,
                    grid=grid,
                    features=run.features,
                    step_cost=plan.step_cost,
                    model_name=plan.request.model_name,
                    checkpoint=held,
                    on_progress=show,
                )
                keep_update(ledger, update)
            if held is not None:
                held.remove(parent, job)
        updates.append(update)
    return tuple(updates)


def _check_request(model: nn.Module, request: CalibrationRequest) -> None:
    if request.updates < FEWEST_UPDATES:
        raise SettingError(f"{request.updates} updates: a forecast needs {FEWEST_UPDATES}; ask for --updates {UPDATES}")
    RetrainingJob.check_target(request.target_accuracy)
    applicable_shifts(request.test)
    for data in (request.train, request.test):
        check_data_fits_model(model, data)


def _check_pretrained(clean_accuracy: float, request: CalibrationRequest) -> None:
    """Raise an error for a model without its weights: retraining it is training from scratch."""
    n = len(request.test)
    majority = int(torch.bincount(request.test.labels).max()) / n
    if clean_accuracy <= majority + 3.0 * math.sqrt(majority * (1.0 - majority) / n):
        raise ModelError(
            f"accuracy {clean_accuracy:.3f} on {request.test.name}, and a constant prediction has {majority:.3f}: "
            "name the model's trained weights with --weights"
        )


def _select_runs(
    model: nn.Module,
    request: CalibrationRequest,
    candidates: Sequence[Candidate],
    history: Sequence[Update],
    on_progress: ShowProgress,
) -> tuple[PlannedRun, ...]:
    """Select shifts, and repeat without those that start at the target on all of the data."""
    runs: dict[Candidate, PlannedRun] = {}
    left = list(candidates)
    while True:
        selected = select_spread(left, request.updates)
        _check_enough(selected, left, request)
        for done, candidate in enumerate(selected):
            on_progress(done, len(selected), f"computing features of {candidate.shift}")
            if candidate not in runs:
                runs[candidate] = _plan_run(model, request, candidate.shift, history)
        at_target = [each for each in selected if starts_at_target(runs[each].features, request.target_accuracy)]
        if not at_target:
            return tuple(runs[each] for each in selected)
        left = [each for each in left if each not in at_target]


def _check_enough(selected: Sequence[Candidate], left: Sequence[Candidate], request: CalibrationRequest) -> None:
    n_types = len({candidate.shift_type for candidate in selected})
    if len(selected) < request.updates or n_types < _MIN_SHIFT_TYPES:
        raise SettingError(
            f"{len(left)} of {len(applicable_shifts(request.train))} shifts, of {n_types} types, bring the accuracy "
            f"below {request.target_accuracy:g}; expected {request.updates} of at least {_MIN_SHIFT_TYPES} types: "
            "ask for a higher --target-accuracy, or fewer --updates"
        )


def _plan_run(model: nn.Module, request: CalibrationRequest, shift: str, history: Sequence[Update]) -> PlannedRun:
    job, parent = request.job(shift), fingerprint(model)
    done = _find_update(history, parent, job)
    features = done.features if done is not None else shift_features(model, job, request.original)[0]
    own_updates = [update for update in history if update.parent == parent]
    query = ForecastQuery.of(job, features, parent, request.model_name)
    expected_steps: float | None = None
    with contextlib.suppress(TooFewUpdatesError):
        prediction = predict_cost(own_updates, "steps", query, choose_predictors(own_updates, query))
        expected_steps = math.exp(min(prediction.distribution.median, math.log(job.max_steps)))
    return PlannedRun(shift, features, None if done is None else done.id, expected_steps, job.max_steps)


def _find_update(history: Iterable[Update], parent: str, job: RetrainingJob) -> Update | None:
    return next((update for update in history if is_update_of(update, parent, job)), None)


def _count_evaluations(steps: float, job: RetrainingJob) -> int:
    return len(list(evaluation_steps(steps, job.steps_per_epoch, job.recipe))) + _ORIGINAL_EVALUATIONS


def _total_cost(steps: Sequence[float], evaluation_s: float, step_cost: StepCost, grid: Grid | None) -> CalibrationCost:
    total = round(math.fsum(steps))
    training_s, energy_kwh = total * step_cost.wall_s, None
    if step_cost.energy_kwh is not None:
        energy_kwh = step_cost.energy_kwh * (total + evaluation_s / step_cost.wall_s)
    carbon_kg = None if grid is None else grid.carbon_kg(energy_kwh)
    return CalibrationCost(len(steps), total, training_s, evaluation_s, energy_kwh, carbon_kg)
