"""Revise a forecast while its update runs, from the learning curve so far (dynamic prediction by landmarking)."""

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from resque.forecasting.curve_history import CurveHistory, UpdateCurve, best_accuracy, evaluations_until, total_steps
from resque.forecasting.history import ForecastQuery
from resque.forecasting.intervals import LEVEL
from resque.forecasting.selection import updates_to_learn_from
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, Forecast, ForecastRevision, LearningCurve, Update
from resque.ledger.serialization import from_dict
from resque.ledger.store import Ledger
from resque.training.job import RetrainingJob, evaluation_steps
from resque.training.recipe import Recipe

__all__ = ["FIRST_LANDMARK", "ForecastReviser", "known_evaluations", "revise_forecast"]

FIRST_LANDMARK = 8
"""First step at which a forecast is revised."""


def revise_forecast(
    update_curve: UpdateCurve | None,
    query: ForecastQuery,
    curve: LearningCurve,
    level: float = LEVEL,
    evaluations: Sequence[int] | None = None,
    confidence: float | None = None,
    n_history: int = 0,
) -> ForecastRevision | None:
    """Forecast the total steps of an update that is running, and its probability of reaching the target.

    Args:
        update_curve: Forecast curve of the update; None with too few earlier runs.
        query: Update that was forecast before it started.
        curve: Learning curve up to now.
        level: Nominal coverage of the interval.
        evaluations: Steps of the run's evaluations, at which alone it can end; None if they are unknown.
        confidence: Confidence of the lower bound of the steps, for a budget; None leaves it out.
        n_history: Number of the user's own runs that the curve was learned from.

    Returns:
        The revised forecast; None with too few earlier curves, or after the step budget.

    Example:
        >>> updates = bundled_updates()
        >>> running = updates[4]
        >>> query = ForecastQuery.of_update(running, target_accuracy=0.85, max_steps=1000)
        >>> update_curve = CurveHistory(updates[5:60], query).start(query)
        >>> revision = revise_forecast(update_curve, query, running.curve.until(40))
        >>> revision.step, 0.0 < revision.probability_reached < 1.0
        (40, True)
    """
    step, target = curve.steps[-1], query.target_accuracy
    if update_curve is None or step >= query.max_steps:
        return None
    to_come = evaluations_until(query.max_steps, step) if evaluations is None else evaluations
    to_come = [min(at, query.max_steps) for at in to_come if at > step] or [query.max_steps]
    prediction = update_curve.predict(to_come, curve)
    if prediction is None:
        return None
    guarantee = f"no coverage guarantee; revised after {step} steps"
    return ForecastRevision(
        step=step,
        accuracy=curve.accuracy[-1],
        steps=total_steps(prediction, target, to_come, level, guarantee),
        probability_reached=prediction.probability_reached(target),
        n_history=n_history,
        steps_lower=None if confidence is None else prediction.quantile(target, 1.0 - confidence),
        best_accuracy=best_accuracy(prediction, level, guarantee),
    )


def known_evaluations(update: Update, max_steps: int) -> list[int] | None:
    """Return the steps of all evaluations of a finished update's recipe; None if it does not say them.

    Example:
        >>> known_evaluations(bundled_updates()[0], max_steps=20)
        [0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15, 18, 21]
    """
    per_epoch = update.curve.steps_per_epoch
    if per_epoch is None or "evaluate_growth" not in update.recipe:
        return None
    return [*evaluation_steps(max_steps, per_epoch, from_dict(Recipe, update.recipe))]


class ForecastReviser:
    """Callback that revises a forecast at each evaluation from step 8 on.

    Args:
        history: The user's own finished updates.
        query: Update that was forecast.
        bundled: Updates from other models.
        level: Nominal coverage of the interval.
        job: Retraining job, whose evaluations end a run; None if these are unknown.
        confidence: Confidence of a budget, see :func:`revise_forecast`.

    Example:
        >>> updates = bundled_updates()
        >>> running = updates[4]
        >>> query = ForecastQuery.of_update(running, target_accuracy=0.85, max_steps=1000)
        >>> reviser = ForecastReviser(updates[5:60], query)
        >>> revisions = [reviser(running.curve.until(step)) for step in running.curve.steps]
        >>> [revision.step for revision in revisions if revision is not None][:3]
        [9, 15, 25]
    """

    def __init__(
        self,
        history: Sequence[Update],
        query: ForecastQuery,
        bundled: Sequence[Update] = (),
        level: float = LEVEL,
        job: RetrainingJob | None = None,
        confidence: float | None = None,
    ) -> None:
        self._updates, self._query, self._bundled, self._level = history, query, bundled, level
        self._evaluations = None if job is None else job.evaluations
        self._ends_at_once = job is not None and job.recipe.fixed_epochs is not None
        self._confidence = confidence
        self._update_curve: UpdateCurve | None = None
        self._n_own = 0

    @classmethod
    def of_forecast(
        cls,
        forecast: Forecast,
        history: Sequence[Update],
        job: RetrainingJob | None = None,
        confidence: float | None = None,
    ) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the bundled history if the forecast used it."""
        bundled = bundled_updates() if forecast.n_bundled else ()
        return cls(history, ForecastQuery.of_forecast(forecast), bundled, forecast.level, job, confidence)

    @classmethod
    def of_ledger(
        cls, forecast: Forecast, ledger: Ledger, job: RetrainingJob | None = None, confidence: float | None = None
    ) -> "ForecastReviser":
        """Return the reviser of a stored forecast, with the updates of a ledger that the forecast learns from."""
        updates = updates_to_learn_from(ledger, forecast.parent, ForecastQuery.of_forecast(forecast).is_new_task)
        return cls.of_forecast(forecast, updates, job, confidence)

    def __call__(self, curve: LearningCurve) -> ForecastRevision | None:
        """Revise the forecast.

        Args:
            curve: Learning curve up to now.

        Returns:
            The revision; None before step 8, at the target, or with too few earlier curves.
        """
        if curve.steps[-1] < FIRST_LANDMARK or curve.accuracy[-1] >= self._query.target_accuracy:
            return None
        with contextlib.suppress(np.linalg.LinAlgError):  # a failed forecast must not end the training
            if self._update_curve is None:
                known = CurveHistory(self._updates, self._query, self._bundled)
                self._update_curve, self._n_own = known.start(self._query), known.n_own
            ends, confidence = self._evaluations, self._confidence
            revision = revise_forecast(
                self._update_curve, self._query, curve, self._level, ends, confidence, self._n_own
            )
            return revision if revision is None or not self._ends_at_once else _at_the_end(revision, self._query)
        return None


def _at_the_end(revision: ForecastRevision, query: ForecastQuery) -> ForecastRevision:
    """Return the revision of a run whose length does not depend on its accuracy."""
    steps = float(query.max_steps)
    interval = dataclasses.replace(revision.steps.interval, low=steps, high=steps)
    lower = None if revision.steps_lower is None else steps
    return dataclasses.replace(revision, steps=Estimate(steps, interval, steps), steps_lower=lower)
