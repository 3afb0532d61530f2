"""A forecast renewed while its update runs: by the curve so far, and by runs that stood where it stands.

Landmarking (van Houwelingen 2007): at a step, every run of the history that was still below its target then is an
example. What it knew is the gap that was left and how far the slope of its latest evaluations would have to be
followed; what it teaches is how many more steps it took. New tasks learn from new tasks, shifts from shifts.

Each evaluation renews. The law's variances, which take most of the time, are found when the steps have doubled.
"""

import contextlib
import dataclasses
import math
import statistics
from collections.abc import Sequence

import numpy as np

from resque.forecasting.cost_model import CostModel, TrainingExample
from resque.forecasting.costs import round_up_to_evaluation
from resque.forecasting.forecaster import reach_distribution
from resque.forecasting.history import (
    ForecastQuery,
    cost_or_lower_bound,
    evaluation_lag,
    group_for_query,
    has_shift_type,
    history_rows,
    is_same_change,
    starts_at_target,
)
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Estimate, Forecast, ForecastRevision, LearningCurve, Update
from resque.training.job import RetrainingJob
from resque.types import Interval

FEWEST_AT_RISK = 5
FIRST_LANDMARK, _EVERY = 8, 2.0
_WINDOW = 0.25  # of the steps so far, from where on evaluations are recent
_SMALLEST_GAP, _SMALLEST_SLOPE = 3e-3, 3e-3
_FURTHEST = 6.0  # log steps that a slope is followed


def landmark_state(curve: LearningCurve, step: int, target_accuracy: float) -> tuple[float, float] | None:
    """Where a run stands after a step: log of the gap that is left, and how far its slope has to be followed.

    Args:
        curve: Of the run; later evaluations are not looked at.
        step: The landmark.
        target_accuracy: To be reached.

    Returns:
        ``(log gap, log(1 + log steps to go))`` by a line through the recent evaluations over log steps; None where
        there are fewer than two, or none since half of the steps.

    Example:
        >>> nothing = (None,) * 3
        >>> curve = LearningCurve((0, 10, 20), (0.5, 0.7, 0.75), *[nothing] * 5, steps_per_epoch=None)
        >>> gap, to_go = landmark_state(curve, 20, 0.8)
        >>> round(math.exp(gap), 2), round(math.expm1(to_go), 2)
        (0.05, 0.65)
    """
    past = [place for place, at in enumerate(curve.steps) if at <= step]
    recent = [place for place in past if curve.steps[place] >= _WINDOW * step]
    places = recent if len(recent) > 1 else past[-2:]
    if len(places) < 2 or curve.steps[places[-1]] < step / 2:
        return None
    logs = [math.log1p(curve.steps[place]) for place in places]
    slope, level = statistics.linear_regression(logs, [curve.accuracy[place] for place in places])
    gap = max(target_accuracy - (level + slope * math.log1p(step)), _SMALLEST_GAP)
    return math.log(gap), math.log1p(min(gap / max(slope, _SMALLEST_SLOPE), _FURTHEST))


def revise_forecast(
    history: Sequence[Update],
    query: ForecastQuery,
    curve: LearningCurve,
    bundled: Sequence[Update] = (),
    level: float = 0.8,
    reach_distribution: PredictiveDistribution | None = None,
    like: CostModel | None = None,
) -> ForecastRevision | None:
    """What an update that is under way will cost in all.

    The curve so far says little of where it ends: the chance of reaching the target is that of the forecast, by the
    history as it is now, given that the target was not reached by now.

    Args:
        history: Finished updates.
        query: What was asked before it began.
        curve: What has been seen of it, up to now.
        bundled: Updates of others, see :func:`resque.forecasting.forecaster.forecast_from_features`.
        level: Nominal coverage of the interval.
        reach_distribution: See :func:`resque.forecasting.forecaster.reach_distribution`; None uses the risk set.
        like: Law of this step, or of an earlier one, whose variances are then taken; None finds them here.

    Returns:
        None where fewer than five runs of the history stood there.
    """
    step, stands = curve.steps[-1], landmark_state(curve, curve.steps[-1], query.target_accuracy)
    examples, own = _stood_there(history, bundled, query, step)
    if stands is None or len(examples) < FEWEST_AT_RISK or step >= query.max_steps:
        return None
    asked = TrainingExample(stands, math.nan, False, query.group, query.shift_type, query.condition, query.parent)
    seen = has_shift_type((row for row, mine in zip(examples, own, strict=True) if mine), query)
    law = like if like and like.examples == examples else CostModel(examples, like.amplitudes if like else None)
    found = predict(law, asked, own, seen, level)
    chance = _chance(reach_distribution, found, step, query.max_steps)
    to_go = found.until(math.log(query.max_steps - step), chance, level)
    return ForecastRevision(
        step=step,
        accuracy=curve.accuracy[-1],
        steps=_in_all(to_go, step, level, query.max_steps),
        probability_reached=chance,
        n_history=sum(own),
    )


class ForecastReviser:
    """Renews a forecast at each evaluation after the first few steps.

    Args:
        history: Finished updates.
        query: What was asked.
        bundled: Updates of others.
        level: Nominal coverage.
        job: What is done, if its looks at the test data are to end it; None where nobody knows when there will be one.
    """

    def __init__(
        self,
        history: Sequence[Update],
        query: ForecastQuery,
        bundled: Sequence[Update] = (),
        level: float = 0.8,
        job: RetrainingJob | None = None,
    ) -> None:
        self._history, self._query, self._bundled, self._level, self._job = history, query, bundled, level, job
        self._reach = reach_distribution(history, bundled, query)
        self._lag = evaluation_lag(
            history_rows(history, "steps", query, ()) + history_rows(bundled, "steps", query, (), own=False)
        )
        self._laws: dict[int, CostModel | None] = {}

    @classmethod
    def of_forecast(
        cls, said: Forecast, history: Sequence[Update], job: RetrainingJob | None = None
    ) -> "ForecastReviser":
        """As the forecast was made: with the history that ships with the package, if it was shaped by that."""
        return cls(
            history, ForecastQuery.of_forecast(said), bundled_updates() if said.n_bundled else (), said.level, job
        )

    def __call__(self, curve: LearningCurve) -> ForecastRevision | None:
        """The forecast as it stands; None where the run has just begun, or arrived, or where none can be given.

        Args:
            curve: Of the run, up to now.
        """
        step = curve.steps[-1]
        if step < FIRST_LANDMARK or curve.accuracy[-1] >= self._query.target_accuracy:
            return None
        with contextlib.suppress(np.linalg.LinAlgError):  # no forecast is worth a training that ends in the middle
            of = self._history, self._query, curve, self._bundled, self._level, self._reach
            return self._until_seen(revise_forecast(*of, self._law_at(_latest_doubling(curve))))
        return None

    def _law_at(self, step: int) -> CostModel | None:
        """Fitted once for each step; None where too few runs stood there."""
        if step not in self._laws:
            examples, _ = _stood_there(self._history, self._bundled, self._query, step)
            self._laws[step] = CostModel(examples) if len(examples) >= FEWEST_AT_RISK else None
        return self._laws[step]

    def _until_seen(self, said: ForecastRevision | None) -> ForecastRevision | None:
        """Of a run that ends at its next look, or later."""
        if said is None or self._job is None:
            return said
        return dataclasses.replace(said, steps=round_up_to_evaluation(said.steps, self._job, self._lag, said.step + 1))


def _latest_doubling(curve: LearningCurve) -> int:
    """Of those evaluations that lie twice as far as the one before, from the first few steps on, the last."""
    latest = 0
    for step in curve.steps:
        if step >= max(FIRST_LANDMARK, _EVERY * latest):
            latest = step
    return latest


def _stood_there(
    history: Sequence[Update], bundled: Sequence[Update], query: ForecastQuery, step: int
) -> tuple[list[TrainingExample], list[bool]]:
    """The runs that had not arrived by that step, and which of them are the user's."""
    rows = [(_landmark(update, query, step, own=True), True) for update in history]
    rows += [(_landmark(update, query, step, own=False), False) for update in bundled]
    return [row for row, _ in rows if row is not None], [own for row, own in rows if row is not None]


def _landmark(update: Update, query: ForecastQuery, step: int, own: bool) -> TrainingExample | None:
    """A run of the history at that step; None where it was over by then, or did not look."""
    target = query.target_accuracy if own else update.target_accuracy
    if update.from_scratch or not is_same_change(update, query) or starts_at_target(update.features, target):
        return None
    value, censored = cost_or_lower_bound(update, target, "steps", query.max_steps)
    stands = landmark_state(update.curve, step, target)
    if not value or value <= step or stands is None:
        return None
    group = group_for_query(update, query)
    return TrainingExample(
        stands, math.log(value - step), censored, group, update.shift_type, update.train_data, update.parent
    )


def _chance(
    reach_distribution: PredictiveDistribution | None, found: PredictiveDistribution, step: int, longest: int
) -> float:
    """Of reaching the target in the longest run, given that it was not reached yet."""
    if reach_distribution is None:
        return found.chance(math.log(longest - step))
    so_far, whole = reach_distribution.chance(math.log(step)), reach_distribution.chance(math.log(longest))
    return (whole - so_far) / (1.0 - so_far) if so_far < 1.0 else 0.0


def _in_all(to_go: PredictiveDistribution, step: int, level: float, longest: int) -> Estimate:
    """Steps so far and steps to come."""
    logs = to_go.center, to_go.low, to_go.high, to_go.upper
    value, low, high, upper = (min(step + math.exp(log), longest) for log in logs)
    promise = "jackknife+" if to_go.conformal else "empirical only, no guarantee"
    return Estimate(value, Interval(low, high, level, f"{promise}; renewed after {step} steps"), upper)
