"""Predict held-out updates from the rest of a history, and score the predictions."""

import math
import statistics
from collections.abc import Hashable, Iterator, Sequence

from resque.forecasting.cost_model import CostModel
from resque.forecasting.evaluation.metrics import (
    FEWEST_GROUPS,
    ScoredForecast,
)
from resque.forecasting.evaluation.settlement import FORECAST
from resque.forecasting.history import (
    ForecastQuery,
    HistoryRow,
    has_shift_type,
    history_rows,
    index_definition,
    update_group,
)
from resque.forecasting.intervals import PredictiveDistribution, predict
from resque.forecasting.predictors import PREDICTORS
from resque.forecasting.selection import choose_predictors, predictors_of_success
from resque.ledger.records import Update

OWN, BARE, CONSTANT, LONGEST = "by own updates alone", "no predictor", "constant median", "the longest run"


class TrainingFolds:
    """What is left of a history when some of it is left out; each law is fitted once.

    Args:
        rest: The user's updates.
        bundled: Those of others.
        level: Nominal coverage of the intervals.
    """

    def __init__(self, rest: Sequence[Update], bundled: Sequence[Update], level: float) -> None:
        self.rest, self.bundled, self.level = rest, bundled, level
        self.alone = TrainingFolds(rest, (), level) if bundled else None
        self._laws: dict[Hashable, tuple[CostModel, list[HistoryRow]] | None] = {}
        self._chosen: dict[Hashable, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def choose_predictors(self, query: ForecastQuery) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The predictors of the forecast and of its chance; what is known of a question decides."""
        key = *_asked(query), tuple(value is None for value in query.values(list(PREDICTORS)))
        if key not in self._chosen:
            of = self.rest, query, self.bundled
            self._chosen[key] = choose_predictors(*of), predictors_of_success(*of)
        return self._chosen[key]

    def outlook(
        self, query: ForecastQuery, names: tuple[str, ...], bundled: Sequence[Update] = ()
    ) -> PredictiveDistribution | None:
        """What the rest says; None where it says nothing."""
        if None in query.values(names):
            return None
        fitted = self._fitted(query, names, bundled)
        if fitted is None:
            return None
        law, rows = fitted
        known = has_shift_type((row.example for row in rows if row.own), query)
        return predict(law, query.example(names), [row.own for row in rows], known, self.level)

    def median(self, query: ForecastQuery) -> float | None:
        """Of the log steps, whatever is known; None where the rest says nothing."""
        fitted = self._fitted(query, ())
        return None if fitted is None else statistics.median(row.example.log_cost for row in fitted[1])

    def _fitted(
        self, query: ForecastQuery, names: tuple[str, ...], bundled: Sequence[Update] = ()
    ) -> tuple[CostModel, list[HistoryRow]] | None:
        key = names, bool(bundled), *_asked(query)
        if key not in self._laws:
            rows = history_rows(self.rest, "steps", query, names) + history_rows(
                bundled, "steps", query, names, own=False
            )
            self._laws[key] = (CostModel([row.example for row in rows]), rows) if len(rows) >= FEWEST_GROUPS else None
        return self._laws[key]

    def said(self, update: Update, query: ForecastQuery) -> ScoredForecast | None:
        """What a forecast would have said of an update, and what came."""
        whole = self.forecast(query)
        return None if whole is None else score_distribution(whole, update, query, self.level, self.reaching(query))

    def forecast(self, query: ForecastQuery) -> PredictiveDistribution | None:
        """As a forecast would say it."""
        names = self.choose_predictors(query)[0]
        return self.outlook(query, names, self.bundled) if names else None

    def reaching(self, query: ForecastQuery) -> PredictiveDistribution | None:
        """What the chance of reaching the target rests on, where it does not rest on the forecast of steps."""
        names = self.choose_predictors(query)[1]
        return self.outlook(query, names, self.bundled) if names else None


def _asked(query: ForecastQuery) -> tuple[Hashable, ...]:
    """What of a question decides which updates teach it, and how they are read."""
    features = query.features
    task = features.task_index is not None
    return (
        task,
        index_definition(features),
        query.group,
        query.parent,
        query.target_accuracy,
        query.max_steps,
    )


def fold_predictions(rest: TrainingFolds, update: Update, query: ForecastQuery) -> Iterator[tuple[str, ScoredForecast]]:
    """``(name, what it would have said)``: the forecast, each predictor alone and the simplest rules.

    Args:
        rest: Of the history.
        update: Which is not in it.
        query: That could have been asked before it.
    """
    for name, history in (FORECAST, rest), (OWN, rest.alone):
        word = None if history is None else history.said(update, query)
        if word is not None:
            yield name, word
    for name, names in {**{name: (name,) for name in PREDICTORS}, BARE: ()}.items():
        outlook = rest.outlook(query, names)
        if outlook is not None:
            yield name, score_distribution(outlook, update, query, rest.level)
    constant = rest.median(query)
    if constant is not None:
        yield CONSTANT, score_forecast(update, query, constant)
    yield LONGEST, score_forecast(update, query, math.log(query.max_steps))


def query_for_update(update: Update, target: float, longest: int) -> ForecastQuery:
    """What could have been asked before an update.

    Args:
        update: A finished one.
        target: Accuracy.
        longest: Steps of the longest run, where a loop of the user's own named none.
    """
    per_epoch = update.curve.steps_per_epoch
    epochs = update.recipe.get("fixed_epochs") or update.recipe.get("max_epochs")
    limit = per_epoch * int(epochs) if per_epoch and epochs else longest
    return ForecastQuery(
        update.features, target, update_group(update), update.shift_type, update.parent, update.train_data, limit
    )


def score_distribution(
    found: PredictiveDistribution,
    update: Update,
    query: ForecastQuery,
    level: float,
    reach_distribution: PredictiveDistribution | None = None,
) -> ScoredForecast:
    """Score a predictive distribution of log steps against a finished update."""
    longest = math.log(query.max_steps)
    chance = (reach_distribution or found).chance(longest)
    said = found.until(longest, chance, level)
    return score_forecast(update, query, said.center, said.low, said.high, chance)


def score_forecast(
    update: Update,
    query: ForecastQuery,
    center: float,
    low: float | None = None,
    high: float | None = None,
    chance: float | None = None,
) -> ScoredForecast:
    """Nothing is said beyond the longest run."""
    at_target, longest = update.cost_at(query.target_accuracy), math.log(query.max_steps)
    steps = math.log((at_target or update.cost).steps or 1)
    return ScoredForecast(
        update=update.id,
        shift_type=update.shift_type,
        forecast=min(center, longest),
        low=None if low is None else min(low, longest),
        high=None if high is None else min(high, longest),
        chance=chance,
        steps=steps,
        reached=at_target is not None,
    )
