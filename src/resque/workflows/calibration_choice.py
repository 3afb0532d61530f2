"""Choose the next calibration run: where the forecast that will be asked for is least certain.

With an update to be forecast, the next run is the one after which a mixed model is most certain of its steps. Without
one, it is the candidate whose own forecast is least certain. Forecasts between runs are cheap: they learn from a part
of the bundled history, and five candidates at most are compared.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from resque.forecasting.curve_history import CurveHistory, evaluations_until
from resque.forecasting.history import ForecastQuery, history_rows, is_same_change, starts_at_target
from resque.forecasting.intervals import LEVEL
from resque.forecasting.mixed_model import MixedModel
from resque.forecasting.predictors import HARDNESS
from resque.forecasting.reliability import FEWEST_UPDATES
from resque.forecasting.unknown_start import predict_from_start
from resque.ledger.bundled import bundled_updates
from resque.ledger.records import Features, Update
from resque.workflows.calibration_plan import CalibrationPlan, PlannedShift

__all__ = ["HOPELESS", "NextRuns", "RankedShift", "ShiftForecast", "choose_next", "forecast_shift"]

HOPELESS = 0.05
"""Probability of reaching the lowest target below which a run is given up."""
_NARROW = math.log(5.0)
_COMPARED, _OPENING, _SIDES = 5, 3, 2
_BUNDLED = 40
_SHARE_REACHED = 2.0 / 3.0


@dataclass(frozen=True)
class ShiftForecast:
    """What a forecast says of an update, as far as the choice of runs needs it.

    Attributes:
        steps: Median optimizer steps, at most the step budget.
        log_width: Log of the ratio between the ends of the interval of the steps.
        probability_reached: Probability of reaching the target within the step budget.

    Example:
        >>> ShiftForecast(100.0, 0.7, 0.99).is_decided, ShiftForecast(100.0, 2.5, 0.5).is_decided
        (True, False)
    """

    steps: float
    log_width: float
    probability_reached: float

    @property
    def is_decided(self) -> bool:
        """Whether more runs are of little use: the target is out of reach, or the interval is narrow."""
        return self.probability_reached <= HOPELESS or (
            self.log_width <= _NARROW and self.probability_reached >= 1.0 - HOPELESS
        )

    @property
    def uncertainty(self) -> float:
        """Width of the interval in units of a narrow one, and how near one half the probability is."""
        return self.log_width / _NARROW + 1.0 - abs(2.0 * self.probability_reached - 1.0)


@dataclass(frozen=True)
class RankedShift:
    """A candidate for the next run.

    Attributes:
        planned: The candidate.
        steps: Expected optimizer steps of its run.
    """

    planned: PlannedShift
    steps: float


@dataclass(frozen=True)
class NextRuns:
    """What may be done next.

    Attributes:
        ranked: Candidates, the best next run first.
        is_decided: Whether the forecasts that will be asked for are certain enough without it.
        forecasts: Number of forecasts that the choice took.
    """

    ranked: tuple[RankedShift, ...]
    is_decided: bool
    forecasts: int


def forecast_shift(history: CurveHistory, query: ForecastQuery) -> ShiftForecast:
    """Forecast an update.

    Args:
        history: Learning curves of comparable runs.
        query: The update.

    Example:
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> forecast = forecast_shift(CurveHistory(bundled_updates()[1:20], query), query)
        >>> 1.0 <= forecast.steps <= 1000.0, 0.0 <= forecast.probability_reached <= 1.0
        (True, True)
    """
    paths, _ = predict_from_start(history, query, [*evaluations_until(query.max_steps)])
    if paths is None:
        return ShiftForecast(float(query.max_steps), math.log(query.max_steps), 0.5)
    target = query.target_accuracy
    low, high = (max(1.0, paths.quantile(target, share)) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return ShiftForecast(paths.median_if_reached(target), math.log(high / low), paths.probability_reached(target))


def choose_next(
    plan: CalibrationPlan,
    done: Mapping[str, Update],
    history: Sequence[Update],
    skipped: Collection[str] = (),
    round_size: int = 1,
) -> NextRuns:
    """Order some of the candidates that are left for the next runs; it depends on the plan and the ledger alone.

    The first runs open the calibration: the smallest gap, the largest and one between; or the shifts with the nearest
    predicted steps below and above those of the update that is to be forecast. As long as fewer than two thirds of the
    runs have reached the highest target, shifts that are likely to reach it come first.

    Args:
        plan: The plan.
        done: Finished runs by shift.
        history: Updates that forecasts learn from.
        skipped: Shifts that are left out, because their runs do not fit into a limit.
        round_size: Number of runs that are chosen together.
    """
    left = [each for each in plan.shifts if each.shift not in {*done, *skipped}]
    if plan.like is None:  # shift types with the fewest runs come first
        left.sort(key=lambda each: sum(shift.startswith(f"{each.shift_type}:") for shift in done))
    left = left[: round_size if plan.like is None and len(done) < _OPENING else max(_COMPARED, round_size)]
    known = _curves(plan, history)
    forecasts = {
        each.shift: [forecast_shift(known, query) for query in _queries(plan, each.shift, each.features)]
        for each in left
    }
    steps = {shift: each[-1].steps for shift, each in forecasts.items()}
    if plan.like is None:
        asked = [forecast for each in forecasts.values() for forecast in each]
        order = {shift: -max(forecast.uncertainty for forecast in each) for shift, each in forecasts.items()}
    else:
        queries = _queries(plan, plan.like_name, plan.like)
        asked = [forecast_shift(known, query) for query in queries]
        order = _distances(steps, asked[-1].steps, len(done)) or _deviations_after(plan, left, queries[-1], history)
    wanted = sum(update.reached for update in done.values()) < _SHARE_REACHED * len(done)
    unlikely = {shift: wanted and each[-1].probability_reached < 0.5 for shift, each in forecasts.items()}
    ranked = sorted(left, key=lambda each: (unlikely[each.shift], order.get(each.shift, math.inf)))
    enough = len(done) >= FEWEST_UPDATES and (plan.like is not None or len(left) >= _OPENING)
    decided = enough and all(forecast.is_decided for forecast in asked)
    return NextRuns(tuple(RankedShift(each, steps[each.shift]) for each in ranked), decided, len(asked))


def _curves(plan: CalibrationPlan, history: Sequence[Update]) -> CurveHistory:
    """Return the learning curves that all forecasts of a choice share: own updates, and a part of the bundled ones."""
    query = plan.request.query("", Features(None, None, None), plan.parent, plan.request.target_accuracy)
    return CurveHistory(history, query, _bundled_part(query))


def _queries(plan: CalibrationPlan, name: str, features: Features) -> list[ForecastQuery]:
    """Return the forecasts that will be asked for: at the lowest and highest target, if the update starts below."""
    targets = dict.fromkeys(plan.request.targets)
    below = [target for target in targets if not starts_at_target(features, target)]
    return [plan.request.query(name, features, plan.parent, target) for target in below]


def _distances(steps: Mapping[str, float], wanted: float, done: int) -> dict[str, float]:
    """Return how far the predicted steps are from wanted ones: first of easier shifts, then of harder ones."""
    if done >= _SIDES:
        return {}
    return {
        shift: abs(math.log(each / wanted)) for shift, each in steps.items() if (each >= wanted) == (done == _SIDES - 1)
    }


def _deviations_after(
    plan: CalibrationPlan, left: Sequence[PlannedShift], asked: ForecastQuery, history: Sequence[Update]
) -> dict[str, float]:
    """Return how uncertain the steps that are asked for would be after each run, if it takes the steps expected."""
    bundled = _bundled_part(asked)
    predictors = [name for name in HARDNESS if asked.values([name]) is not None][:1]
    values = asked.values(predictors)
    examples = [row.example for row in history_rows(history, asked, predictors, bundled)]
    if values is None or len(examples) < 2:
        return {}
    model, deviations = MixedModel(examples), {}
    for each in left:
        query = _queries(plan, each.shift, each.features)[-1]
        known = query.values(predictors)
        if known is not None:
            run = query.example(known)
            run = dataclasses.replace(run, value=model.predict(run).mean)
            deviations[each.shift] = MixedModel([*examples, run]).predict(asked.example(values)).deviation
    return deviations


def _bundled_part(query: ForecastQuery) -> list[Update]:
    """Return bundled updates of the same kind as the query, evenly spaced."""
    same = [update for update in bundled_updates() if is_same_change(update, query)]
    return same[:: max(1, len(same) // _BUNDLED)]
