"""Sharpen a forecast by a pilot: the first steps of the update itself, with their learning curve.

Steps and the probability of reaching the target come from the in-run forecast after the pilot's last step. The other
costs follow the steps, and none is below what the pilot has measured. The forecast covers the whole update, pilot
included.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from resque._format import format_count
from resque.energy.reading import energy_share
from resque.forecasting import costs
from resque.forecasting.history import ForecastQuery, teachers
from resque.forecasting.landmarking import FIRST_LANDMARK
from resque.forecasting.reliability import beyond_earlier_runs, harder_after_pilot
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import COSTS, Estimate, Forecast, ForecastRevision, Pilot, StepCost, Update
from resque.training.cost_tracking import final_cost
from resque.training.job import RetrainingJob
from resque.types import Interval

__all__ = ["forecast_after_pilot"]

_GROWING = ("gradient_norm", "parameter_change")


def forecast_after_pilot(
    forecast: Forecast, pilot: Pilot, revision: ForecastRevision | None, job: RetrainingJob, history: Sequence[Update]
) -> Forecast:
    """Return the forecast of an update whose first steps have been trained.

    With a revision, reasons not to rely on the forecast no longer apply: they are about the user's own history, and the
    pilot is a run of the update itself. Three may stay. Two are of a forecast of success: the update is harder than all
    own ones and its pilot did not come close, or its steps are far beyond all earlier runs. The third is of a part that
    no own update trained, or of a first new task: its pilot did not come close, and failure is not sure. Without a
    revision, the forecast from features stands, with a note.

    Args:
        forecast: Forecast from features.
        pilot: The first steps.
        revision: In-run forecast after the pilot; None if there is none.
        job: Job of the update.
        history: The user's own finished updates, for the variation of the time per step: after a pilot, that between
            the first steps of a run and its rest.
    """
    measured = _measured_costs(forecast, pilot)
    reached = pilot.curve.first_at(forecast.target_accuracy) is not None
    if pilot.stopped_by is not None:
        return _ended(forecast, pilot, measured, reached)
    if revision is not None:
        steps, probability = revision.steps, revision.probability_reached
    elif reached:  # a recipe of a fixed number of epochs goes on
        steps, probability = forecast.estimates["steps"], 1.0
    else:
        return dataclasses.replace(forecast, pilot=pilot, notes=(*forecast.notes, _no_revision(pilot)))
    step_cost, measured_by = _step_cost(forecast, pilot, measured)
    query, trains = ForecastQuery.of_forecast(forecast), job.recipe.trains
    bundled = bundled_updates() if forecast.n_bundled else ()
    drift = costs.step_time_drift(history, step_cost.steps, bundled)
    known = pilot.steps if measured_by == "pilot" else 0
    spread = drift if known and drift is not None else costs.step_time_spread(history, drift)
    estimates = {"steps": steps}
    for cost in _GROWING:
        if cost in forecast.estimates:
            grown = costs.rescale_with_steps(forecast.estimates[cost], forecast.estimates["steps"], steps)
            interval = dataclasses.replace(grown.interval, guarantee=steps.interval.guarantee)
            estimates[cost] = dataclasses.replace(grown, interval=interval)
    estimates["epochs"] = costs.scale(steps, 1.0 / job.steps_per_epoch)
    estimates |= costs.estimates_by_step(steps, step_cost, forecast.grid, spread, measured_by, known)
    return dataclasses.replace(
        forecast,
        pilot=pilot,
        estimates={cost: _at_least(estimates[cost], measured.get(cost, 0.0)) for cost in COSTS if cost in estimates},
        probability_reached=probability,
        best_accuracy=forecast.best_accuracy if revision is None else revision.best_accuracy,
        reliability_issues=(
            *(() if reached else harder_after_pilot(history, query, pilot, trains, probability, forecast.level)),
            *beyond_earlier_runs(steps, probability, teachers(history, bundled, query), job.steps_per_epoch),
        ),
    )


def _measured_costs(forecast: Forecast, pilot: Pilot) -> dict[str, float]:
    """Return what the pilot has cost; its energy is the probe's where the pilot was too short for the meter."""
    energy_kwh = energy_share(pilot.reading, pilot.training_s)
    if energy_kwh is None:
        energy_kwh = forecast.step_cost.energy_after(pilot.steps)
    cost = final_cost(pilot.curve, energy_kwh, forecast.grid, samples=None)
    return {name: value for name in COSTS if (value := getattr(cost, name)) is not None}


def _step_cost(forecast: Forecast, pilot: Pilot, measured: Mapping[str, float]) -> tuple[StepCost, str]:
    """Return the cost of a step and what measured it: the longer of pilot and probe.

    An update that goes on from its pilot passes the data for its head once more.
    """
    probe = forecast.step_cost
    steps_s = pilot.training_s
    if probe.start_s:
        steps_s = pilot.steps * (costs.seconds_per_step(pilot.curve) or 0.0)
    again_s = pilot.training_s - steps_s + probe.start_s if probe.start_s else 0.0
    if steps_s < probe.steps * probe.wall_s:
        return dataclasses.replace(probe, start_s=2.0 * probe.start_s), "probe"
    energy_kwh = measured.get("energy_kwh")
    per_step = None if energy_kwh is None else energy_kwh * (steps_s / pilot.training_s) / pilot.steps
    cost = StepCost(steps_s / pilot.steps, per_step, pilot.steps, pilot.reading, max(0.0, again_s))
    return dataclasses.replace(cost, trainable_share=pilot.trainable_share), "pilot"


def _at_least(estimate: Estimate, measured: float) -> Estimate:
    """Return an estimate whose median and bounds are not below what has been measured."""
    interval, upper = estimate.interval, estimate.upper
    high = None if interval.high is None else max(interval.high, measured)
    interval = dataclasses.replace(interval, low=max(interval.low, measured), high=high)
    return Estimate(max(estimate.value, measured), interval, None if upper is None else max(upper, measured))


def _ended(forecast: Forecast, pilot: Pilot, measured: Mapping[str, float], reached: bool) -> Forecast:
    """Return the forecast of a run that ended within its pilot: what was measured."""
    outcome = "reached the target" if reached else f"ended below the target, stopped by {pilot.stopped_by}"
    guarantee = "measured: the run ended within its pilot"
    best = max(pilot.curve.accuracy)
    return dataclasses.replace(
        forecast,
        pilot=pilot,
        estimates={
            cost: Estimate(value, Interval(value, value, forecast.level, guarantee), value)
            for cost, value in measured.items()
        },
        probability_reached=float(reached),
        best_accuracy=Estimate(best, Interval(best, best, forecast.level, guarantee)),
        alternatives={},  # nothing is left to forecast
        notes=(*forecast.notes, f"the pilot {outcome}: there is nothing more to train"),
        reliability_issues=(),
    )


def _no_revision(pilot: Pilot) -> str:
    why = "there are too few learning curves of comparable updates: do more updates"
    if pilot.steps < FIRST_LANDMARK:
        why = f"it takes {FIRST_LANDMARK} steps or more, such as 100"
    return f"the pilot of {format_count(pilot.steps, 'step')} did not make the forecast sharper: {why}"
