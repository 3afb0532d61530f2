"""Plan calibration runs: measure candidates by forward passes alone, before anything is trained.

A few hundred samples under every shift tell which shifts start below the highest target by more than the noise of the
test accuracy. Of these, at most one and a half times as many as there are runs become candidates, whose features are
computed on at most 1,000 samples each. They span the starting gaps, or surround the update that is to be forecast.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from resque.energy.clock import now
from resque.energy.grid import Grid
from resque.energy.meters import EnergyMeter
from resque.energy.reading import EnergyReading
from resque.errors import ModelError, SettingError
from resque.forecasting.history import starts_at_target
from resque.indices.shift_features import shift_features
from resque.ledger.records import Features, StepCost, Update
from resque.models.inference import device_of
from resque.models.weights import fingerprint
from resque.training.evaluation import check_data_fits_model, evaluate_dataset
from resque.training.job import RetrainingJob
from resque.training.probe import forecast_overhead, probe
from resque.workflows.calibration_candidates import (
    Candidate,
    ShowProgress,
    applicable_shifts,
    log_gap,
    screen_shifts,
    select_around,
    select_spread,
)
from resque.workflows.calibration_defaults import accuracy_noise
from resque.workflows.calibration_limits import CalibrationLimits
from resque.workflows.calibration_request import SAMPLES, CalibrationRequest, check_updates

__all__ = ["CalibrationCost", "CalibrationPlan", "PlannedShift", "plan_calibration"]

_CANDIDATES_PER_RUN = 1.5
_MIN_SHIFT_TYPES = 3
_ORIGINAL_EVALUATIONS = 2  # accuracy on the original data, before and after


@dataclass(frozen=True)
class PlannedShift:
    """A candidate for a run.

    Attributes:
        shift: Shift type and level, e.g. ``"gaussian:5"``.
        features: Features of the update, from forward passes over at most 1,000 samples of each part.
    """

    shift: str
    features: Features

    @property
    def shift_type(self) -> str:
        """Type of the shift."""
        return self.shift.partition(":")[0]


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
    """Candidates for calibration runs and an upper bound on the cost, before anything is trained.

    Attributes:
        request: Request that the plan answers.
        parent: Fingerprint of the model.
        clean_accuracy: Accuracy of the model on the clean test data.
        evaluated: Number of shifts that were evaluated.
        below: Number of these that start below the highest target by more than noise.
        shifts: Candidates: each prefix spans the starting gaps, or surrounds the update that is to be forecast.
        like: Features of the update that is to be forecast; None without one.
        done: Runs that the ledger holds already, by shift.
        step_cost: Probed cost of a step on this machine.
        evaluation_s: Seconds of an evaluation.
        passes_s: Seconds of the passes over all of the data of one shift, from those over some of it.
        at_most: Upper bound on the cost of the remaining runs: every run takes its step budget.
        overhead: Cost of making the plan.
    """

    request: CalibrationRequest
    parent: str
    clean_accuracy: float
    evaluated: int
    below: int
    shifts: tuple[PlannedShift, ...]
    like: Features | None
    done: dict[str, Update]
    step_cost: StepCost
    evaluation_s: float
    passes_s: float
    at_most: CalibrationCost
    overhead: EnergyReading

    @property
    def like_name(self) -> str:
        """Name of the data of the update that is to be forecast; empty without one."""
        return "" if self.request.like is None else self.request.like.name


def plan_calibration(
    model: nn.Module,
    request: CalibrationRequest,
    *,
    meter: EnergyMeter,
    grid: Grid | None = None,
    history: Sequence[Update] = (),
    limits: CalibrationLimits | None = None,
    on_progress: ShowProgress = lambda done, total, detail: None,
) -> CalibrationPlan:
    """Evaluate the shifts, select the candidates for runs, and compute what the runs cost at most.

    Args:
        model: Model to retrain; unchanged.
        request: Data, targets, recipe and number of runs.
        meter: Meter of the probe.
        grid: Electricity grid; None leaves carbon unknown.
        history: Updates in the ledger. Runs among them are not done again.
        limits: Limits of the calibration; planning takes a third of the time at most.
        on_progress: Callback with ``(done, total, detail)``.

    Raises:
        DataError: The data are not images, or have values outside [0, 1].
        ModelError: The model is not better than a constant prediction on the clean data.
        SettingError: There are fewer runs than a forecast needs, too few shifts start below the target, or the update
            that is to be forecast starts at it.
    """
    device, parent, limits = device_of(model), fingerprint(model), limits or CalibrationLimits()
    start = now(device)
    _check_request(model, request)
    evaluation_start = now(device)
    clean_accuracy, _ = evaluate_dataset(model, request.test)
    evaluation_s = now(device) - evaluation_start
    _check_pretrained(clean_accuracy, request)
    candidates, evaluated = screen_shifts(
        model,
        request.train,
        request.test,
        request.original,
        request.below,
        on_progress,
        limits.plans_on,
    )
    like = None if request.like is None else _like_features(model, request)
    measuring_start = now(device)
    shifts = _measure(model, request, candidates, like, limits, on_progress)
    of_shift_s = (now(device) - measuring_start) / max(1, len(shifts))
    passes_s, done = now(device) - start, request.done(history, parent)
    step_cost = probe(model, request.train, request.recipe, meter)
    return CalibrationPlan(
        request,
        parent,
        clean_accuracy,
        evaluated,
        len(candidates),
        shifts,
        like,
        done,
        step_cost,
        evaluation_s,
        of_shift_s * max(1.0, len(request.train) / SAMPLES, len(request.test) / SAMPLES),
        at_most=_at_most(request, max(0, request.updates - len(done)), step_cost, evaluation_s, grid),
        overhead=forecast_overhead(passes_s, step_cost),
    )


def _check_request(model: nn.Module, request: CalibrationRequest) -> None:
    check_updates(request.updates)
    for target in request.targets:
        RetrainingJob.check_target(target)
    applicable_shifts(request.test)
    for data in (request.train, request.test):
        check_data_fits_model(model, data)
    if request.like is not None and request.like.labeled:
        check_data_fits_model(model, request.like)


def _check_pretrained(clean_accuracy: float, request: CalibrationRequest) -> None:
    """Raise an error for a model without its weights: retraining it is training from scratch."""
    n = len(request.test)
    majority = int(torch.bincount(request.test.labels).max()) / n
    if clean_accuracy <= majority + 3.0 * accuracy_noise(majority, n):
        raise ModelError(
            f"accuracy {clean_accuracy:.3f} on {request.test.name}, and a constant prediction has {majority:.3f}: "
            "name the model's trained weights with --weights"
        )


def _like_features(model: nn.Module, request: CalibrationRequest) -> Features:
    """Return the features of the update that is to be forecast; without labels, as a forecast estimates them."""
    assert request.like is not None
    data = request.like.limited(SAMPLES)
    job = RetrainingJob(data, data, request.target_accuracy, request.recipe, request.seed)
    features = shift_features(model, job, request.original, "true" if data.labeled else "pseudo")[0]
    if starts_at_target(features, request.target_accuracy):
        raise SettingError(
            f"{request.like.name} starts at accuracy {features.accuracy:.3f}, the target is "
            f"{request.target_accuracy:g}: there is nothing to forecast; ask for a higher --target-accuracy"
        )
    return dataclasses.replace(features, samples=len(request.like), classes=len(request.train.classes))


def _measure(
    model: nn.Module,
    request: CalibrationRequest,
    candidates: Sequence[Candidate],
    like: Features | None,
    limits: CalibrationLimits,
    on_progress: ShowProgress,
) -> tuple[PlannedShift, ...]:
    """Compute the features of the candidates, and leave out those that start at the target on more samples."""
    wanted, measured = round(_CANDIDATES_PER_RUN * request.updates), list[PlannedShift]()
    if like is None or like.accuracy is None:
        ordered = select_spread(candidates, len(candidates))
    else:
        ordered = select_around(candidates, len(candidates), log_gap(like.accuracy, request.below))
    for candidate in ordered:
        if len(measured) == wanted or not limits.plans_on():
            break
        on_progress(len(measured), wanted, f"computing features of {candidate.shift}")
        features = shift_features(model, request.job(candidate.shift, SAMPLES), request.original)[0]
        if features.accuracy is not None and features.accuracy < request.below:
            features = dataclasses.replace(features, samples=len(request.train))
            measured.append(PlannedShift(candidate.shift, features))
    types = {each.shift_type for each in measured}
    if limits.plans_on() and (len(measured) < request.updates or len(types) < _MIN_SHIFT_TYPES):
        raise SettingError(
            f"{len(measured)} of {len(applicable_shifts(request.train))} shifts, of {len(types)} types, bring the "
            f"accuracy below {request.target_accuracy:g} by more than its noise; expected {request.updates} of at "
            f"least {_MIN_SHIFT_TYPES} types: ask for a higher --target-accuracy, or fewer --updates"
        )
    return tuple(measured)


def _at_most(
    request: CalibrationRequest, runs: int, step_cost: StepCost, evaluation_s: float, grid: Grid | None
) -> CalibrationCost:
    job = request.clean_job
    steps = runs * job.max_steps
    evaluation_s *= runs * (len(job.evaluations) + _ORIGINAL_EVALUATIONS)
    energy_kwh = None
    if step_cost.energy_kwh is not None:
        energy_kwh = step_cost.energy_kwh * (steps + evaluation_s / step_cost.wall_s)
    carbon_kg = None if grid is None else grid.carbon_kg(energy_kwh)
    return CalibrationCost(runs, steps, steps * step_cost.wall_s, evaluation_s, energy_kwh, carbon_kg)
