"""What calibration runs have brought: which of them are informative, and whether a forecast can be asked for now."""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from resque.errors import TooFewUpdatesError
from resque.forecasting.budget import WITHIN, exit_code
from resque.forecasting.forecaster import forecast_from_features
from resque.forecasting.history import starts_at_target
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import WOULD_NOT_REACH, Features, Update
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob
from resque.workflows.calibration_candidates import log_gap
from resque.workflows.calibration_defaults import Targets, accuracy_noise
from resque.workflows.calibration_plan import CalibrationPlan
from resque.workflows.calibration_runs import CalibrationRuns

__all__ = ["CalibrationResult", "Readiness", "RunOutcome", "calibration_result", "run_outcome"]


@dataclass(frozen=True)
class RunOutcome:
    """What a calibration run tells of the targets that may be asked for.

    Attributes:
        reached: Highest of these targets that the run reached, after starting below it by more than the noise of the
            accuracy; None if it reached none.
        gave_up: Whether its in-run forecast gave up the lowest target.
        is_informative: Whether it reached one of them, or ended below all of them without being given up.
    """

    reached: float | None
    gave_up: bool
    is_informative: bool


@dataclass(frozen=True)
class Readiness:
    """Whether a forecast can be asked for now.

    Attributes:
        asked: Shift or data for which the forecast was tried.
        targets: Target accuracies at which it would be reliable.
        missing: Reasons why it would not be at other ones, one sentence each.
    """

    asked: str
    targets: tuple[float, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration after its runs.

    Attributes:
        runs: The runs.
        outcomes: Information of each of them about the targets.
        readiness: Whether a forecast can be asked for now; None without any run.
    """

    runs: CalibrationRuns
    outcomes: tuple[RunOutcome, ...]
    readiness: Readiness | None


def run_outcome(update: Update, targets: Targets, test_samples: int) -> RunOutcome:
    """Return what a run tells of the targets.

    Args:
        update: The run.
        targets: Lowest and highest target.
        test_samples: Number of test samples, which sets the noise of an accuracy: its binomial standard error.

    Example:
        >>> update = bundled_updates()[0]
        >>> start, best = update.curve.accuracy[0], update.peak_accuracy
        >>> run_outcome(update, (start, best), test_samples=10_000).reached == best
        True
        >>> run_outcome(update, (start, start), test_samples=10_000).is_informative
        False
    """
    (low, high), start = targets, update.features.accuracy
    start = update.curve.accuracy[0] if start is None else start
    best, gave_up = min(update.peak_accuracy, high), update.stopped_by == WOULD_NOT_REACH
    if best >= low:
        is_above = start < best - accuracy_noise(best, test_samples)
        return RunOutcome(best if is_above else None, gave_up, is_above)
    starts_below = start < high - accuracy_noise(high, test_samples)
    return RunOutcome(None, gave_up, starts_below and not gave_up)


def calibration_result(plan: CalibrationPlan, runs: CalibrationRuns, ledger: Ledger) -> CalibrationResult:
    """Return what the runs have brought; the forecasts that will be asked for are tried.

    They are of the update that the calibration is like, or else of a candidate that was not run, whose starting gap is
    nearest to the middle of the runs.

    Args:
        plan: Plan of the calibration.
        runs: Its runs.
        ledger: Ledger with the runs.
    """
    request = plan.request
    outcomes = tuple(run_outcome(update, request.targets, len(request.test)) for update in runs.updates)
    return CalibrationResult(runs, outcomes, _readiness(plan, ledger, runs.updates) if runs.updates else None)


def _readiness(plan: CalibrationPlan, ledger: Ledger, done: Sequence[Update]) -> Readiness:
    name, features = _asked(plan, done)
    history = updates_to_learn_from(ledger, plan.parent, new_tasks=False)
    ready, missing = list[float](), list[str]()
    for target in dict.fromkeys(plan.request.targets):
        if starts_at_target(features, target):
            continue
        reasons = _reasons(plan, history, name, features, target)
        ready += [] if reasons else [target]
        missing += [f"at accuracy {target:g}, {reason}" for reason in reasons]
    return Readiness(name, tuple(ready), tuple(missing))


def _asked(plan: CalibrationPlan, done: Sequence[Update]) -> tuple[str, Features]:
    """Return name and features of the update for which a forecast is tried."""
    if plan.like is not None:
        return plan.like_name, plan.like
    target, prefix = plan.request.target_accuracy, f"{plan.request.train.name}+"
    runs = {update.train_data.removeprefix(prefix): update.features for update in done}
    rest = {each.shift: each.features for each in plan.shifts if each.shift not in runs} or runs
    gaps = {shift: log_gap(features.accuracy or 0.0, target) for shift, features in (runs | rest).items()}
    middle = statistics.median(gaps[shift] for shift in runs)
    nearest = min(rest, key=lambda shift: (abs(gaps[shift] - middle), shift))
    return nearest, rest[nearest]


def _reasons(
    plan: CalibrationPlan, history: Sequence[Update], name: str, features: Features, target: float
) -> tuple[str, ...]:
    """Return why a forecast at a target would not be reliable; empty if it would be."""
    request = plan.request
    if plan.like is None or request.like is None:
        job = request.job(name)
    else:
        job = RetrainingJob(request.like, request.like, target, request.recipe, request.seed)
    try:
        forecast = forecast_from_features(
            history,
            dataclasses.replace(job, target_accuracy=target),
            features,
            step_cost=plan.step_cost,
            overhead=plan.overhead,
            parent=plan.parent,
            model_name=request.model_name,
            bundled=bundled_updates(),
        )
    except TooFewUpdatesError as error:
        return (str(error),)
    if forecast.reliability_issues or exit_code(forecast, None) == WITHIN:
        return forecast.reliability_issues
    return (f"{forecast.n_history} of the runs can be used, and {FEWEST_UPDATES} are needed: do more runs",)
