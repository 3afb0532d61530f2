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
        prior: Those of others.
        level: Nominal coverage of the intervals.
    """

    def __init__(self, rest: Sequence[Update], prior: Sequence[Update], level: float) -> None:
        self.rest, self.prior, self.level = rest, prior, level
        self.alone = TrainingFolds(rest, (), level) if prior else None
        self._laws: dict[Hashable, tuple[CostModel, list[HistoryRow]] | None] = {}
        self._chosen: dict[Hashable, tuple[tuple[str, ...], tuple[str, ...]]] = {}

    def choose_predictors(self, question: ForecastQuery) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The predictors of the forecast and of its chance; what is known of a question decides."""
        key = *_asked(question), tuple(value is None for value in question.values(list(PREDICTORS)))
        if key not in self._chosen:
            of = self.rest, question, self.prior
            self._chosen[key] = choose_predictors(*of), predictors_of_success(*of)
        return self._chosen[key]

    def outlook(
        self, question: ForecastQuery, names: tuple[str, ...], prior: Sequence[Update] = ()
    ) -> PredictiveDistribution | None:
        """What the rest says; None where it says nothing."""
        if None in question.values(names):
            return None
        fitted = self._fitted(question, names, prior)
        if fitted is None:
            return None
        law, rows = fitted
        known = has_shift_type((row.example for row in rows if row.own), question)
        return predict(law, question.example(names), [row.own for row in rows], known, self.level)

    def median(self, question: ForecastQuery) -> float | None:
        """Of the log steps, whatever is known; None where the rest says nothing."""
        fitted = self._fitted(question, ())
        return None if fitted is None else statistics.median(row.example.log_cost for row in fitted[1])

    def _fitted(
        self, question: ForecastQuery, names: tuple[str, ...], prior: Sequence[Update] = ()
    ) -> tuple[CostModel, list[HistoryRow]] | None:
        key = names, bool(prior), *_asked(question)
        if key not in self._laws:
            rows = history_rows(self.rest, "steps", question, names) + history_rows(
                prior, "steps", question, names, own=False
            )
            self._laws[key] = (CostModel([row.example for row in rows]), rows) if len(rows) >= FEWEST_GROUPS else None
        return self._laws[key]

    def said(self, update: Update, question: ForecastQuery) -> ScoredForecast | None:
        """What a forecast would have said of an update, and what came."""
        whole = self.forecast(question)
        return (
            None if whole is None else score_distribution(whole, update, question, self.level, self.reaching(question))
        )

    def forecast(self, question: ForecastQuery) -> PredictiveDistribution | None:
        """As a forecast would say it."""
        names = self.choose_predictors(question)[0]
        return self.outlook(question, names, self.prior) if names else None

    def reaching(self, question: ForecastQuery) -> PredictiveDistribution | None:
        """What the chance of reaching the target rests on, where it does not rest on the forecast of steps."""
        names = self.choose_predictors(question)[1]
        return self.outlook(question, names, self.prior) if names else None


def _asked(question: ForecastQuery) -> tuple[Hashable, ...]:
    """What of a question decides which updates teach it, and how they are read."""
    features = question.features
    task = features.task_index is not None
    return (
        task,
        index_definition(features),
        question.group,
        question.parent,
        question.target_accuracy,
        question.max_steps,
    )


def fold_predictions(
    rest: TrainingFolds, update: Update, question: ForecastQuery
) -> Iterator[tuple[str, ScoredForecast]]:
    """``(name, what it would have said)``: the forecast, each predictor alone and the simplest rules.

    Args:
        rest: Of the history.
        update: Which is not in it.
        question: That could have been asked before it.
    """
    for name, history in (FORECAST, rest), (OWN, rest.alone):
        word = None if history is None else history.said(update, question)
        if word is not None:
            yield name, word
    for name, names in {**{name: (name,) for name in PREDICTORS}, BARE: ()}.items():
        outlook = rest.outlook(question, names)
        if outlook is not None:
            yield name, score_distribution(outlook, update, question, rest.level)
    constant = rest.median(question)
    if constant is not None:
        yield CONSTANT, score_forecast(update, question, constant)
    yield LONGEST, score_forecast(update, question, math.log(question.max_steps))


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
    question: ForecastQuery,
    level: float,
    within_reach: PredictiveDistribution | None = None,
) -> ScoredForecast:
    """Score a predictive distribution of log steps against a finished update."""
    longest = math.log(question.max_steps)
    chance = (within_reach or found).chance(longest)
    said = found.until(longest, chance, level)
    return score_forecast(update, question, said.center, said.low, said.high, chance)


def score_forecast(
    update: Update,
    question: ForecastQuery,
    center: float,
    low: float | None = None,
    high: float | None = None,
    chance: float | None = None,
) -> ScoredForecast:
    """Nothing is said beyond the longest run."""
    at_target, longest = update.cost_at(question.target_accuracy), math.log(question.max_steps)
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
