"""What a history of updates says of the one that is asked about: predictors, examples, what is comparable.

A predictor is a number that is known before the update, on a scale on which log cost runs nearly straight. Those of
:data:`CHOSEN` were chosen by the held-out errors of the project's own studies.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from resque.forecasting.cost_model import TrainingExample
from resque.forecasting.predictors import PREDICTORS
from resque.ledger.records import Features, Forecast, Update
from resque.training.job import RetrainingJob
from resque.training.recipe import recipe_to_dict

_PLATEAU = "tolerance"
_OF_RECIPE = ("optimizer", "learning_rate", "batch_size", "trains")
_NEAR = 5


@dataclass(frozen=True)
class HistoryRow:
    """One finished update, as evidence for one cost at one target.

    Attributes:
        example: For the law.
        per_step: The cost over the steps it went with.
        own: Whether it is the user's, and not another's.
        lag: Share of its steps since the evaluation before the last.
    """

    example: TrainingExample
    per_step: float
    own: bool
    lag: float = 0.0


@dataclass(frozen=True)
class ForecastQuery:
    """The update that is asked about.

    Attributes:
        features: What one pass told of it.
        target_accuracy: To be reached.
        group: Whose costs are of the size of its own.
        shift_type: Of shift.
        parent: The model.
        condition: Its training data.
        max_steps: Of its recipe's longest run.
    """

    features: Features
    target_accuracy: float
    group: tuple[object, ...]
    shift_type: str | None
    parent: str
    condition: str
    max_steps: int

    @classmethod
    def of(cls, job: RetrainingJob, features: Features, parent: str, model_name: str) -> "ForecastQuery":
        """What a job asks."""
        group = (model_name, *recipe_group(recipe_to_dict(job.recipe)))
        return cls(
            features, job.target_accuracy, group, job.effective_shift_type, parent, job.train.name, job.max_steps
        )

    @classmethod
    def of_forecast(cls, said: Forecast) -> "ForecastQuery":
        """What a forecast was asked."""
        group = (said.model, *recipe_group(said.recipe))
        return cls(
            said.features, said.target_accuracy, group, said.shift_type, said.parent, said.train_data, said.max_steps
        )

    def values(self, names: Sequence[str]) -> tuple[float | None, ...]:
        """Its predictors."""
        return tuple(PREDICTORS[name](self.features, self.target_accuracy) for name in names)

    def example(self, names: Sequence[str]) -> TrainingExample:
        """For the law; every predictor must be there."""
        known = tuple(value for value in self.values(names) if value is not None)
        return TrainingExample(known, math.nan, False, self.group, self.shift_type, self.condition, self.parent)


def history_rows(
    history: Sequence[Update], cost: str, query: ForecastQuery, names: Sequence[str], own: bool = True
) -> list[HistoryRow]:
    """The history's rows for one cost: every retraining that began below the target, read off its curve.

    An index of another layer, reduction or kind of labels is another quantity, and a new task is another question than
    a shift: those updates are left out. Those of others are read at targets of their own, because an accuracy of one
    data set means nothing on another.

    Args:
        history: Finished updates.
        cost: A field of :class:`resque.ledger.records.Cost`.
        query: What is asked.
        names: The predictors; an update without one of them is left out.
        own: Whether the history is the user's.
    """
    rows = []
    for update in history:
        target = query.target_accuracy if own else update.target_accuracy
        values = [PREDICTORS[name](update.features, target) for name in names]
        value, censored = cost_or_lower_bound(update, target, cost, query.max_steps)
        known = tuple(each for each in values if each is not None)
        if update.from_scratch or len(known) < len(values) or not value or starts_at_target(update.features, target):
            continue
        if "index" in names and not _same_index(update.features, query.features, own):
            continue
        if not is_same_change(update, query):
            continue
        spent = update.cost_at(target) or update.cost
        per_step = getattr(spent, cost) / spent.steps
        example = TrainingExample(
            known,
            math.log(value),
            censored,
            group_for_query(update, query),
            update.shift_type,
            update.train_data,
            update.parent,
        )
        before = max((step for step in update.curve.steps if step < spent.steps), default=0)
        rows.append(HistoryRow(example, per_step, own, 1.0 - before / spent.steps))
    return rows


def cost_or_lower_bound(update: Update, target_accuracy: float, cost: str, max_steps: int) -> tuple[float | None, bool]:
    """``(cost of reaching a target, False)``, or ``(what it took at least, True)`` where it never did.

    A run that ended on a plateau would not have reached it in the longest run that is asked about, either.

    Args:
        update: A finished one.
        target_accuracy: Read off its curve.
        cost: A field of :class:`resque.ledger.records.Cost`.
        max_steps: Of the longest run that is asked about.
    """
    reached = update.cost_at(target_accuracy)
    value = getattr(reached or update.cost, cost)
    if reached is None and value and update.stopped_by.startswith(_PLATEAU):
        value *= max(1.0, max_steps / update.cost.steps)
    return value, reached is None


def evaluation_lag(rows: Sequence[HistoryRow]) -> Callable[[float], float]:
    """Typical share of their steps since the look before, in runs that arrived after about as many; 0 without any."""
    seen = [row for row in rows if row.own and not row.example.censored] or list(rows)

    def of(steps: float) -> float:
        near = sorted(seen, key=lambda row: abs(row.example.log_cost - math.log(max(steps, 1.0))))
        return statistics.median(row.lag for row in near[:_NEAR]) if near else 0.0

    return of


def is_same_change(update: Update, query: ForecastQuery) -> bool:
    """New tasks learn from new tasks, shifts from shifts."""
    return (update.features.task_index is None) == (query.features.task_index is None)


def starts_at_target(features: Features, target_accuracy: float) -> bool:
    """Whether there is nothing to retrain."""
    return features.accuracy is not None and features.accuracy >= target_accuracy


def _same_index(one: Features, other: Features, own: bool) -> bool:
    """The layers of another's network have other names."""
    return (
        index_definition(one) == index_definition(other)
        if own
        else index_definition(one)[1:] == index_definition(other)[1:]
    )


def index_definition(features: Features) -> tuple[str, str, str]:
    """Which index it is; by its own labels, a model sees less than by the true ones."""
    return features.layer, features.reduction, features.labels


def group_for_query(update: Update, query: ForecastQuery) -> tuple[object, ...]:
    """Its group; the very same model may have had another name."""
    named, *recipe = update_group(update)
    return (query.group[0] if update.parent == query.parent else named, *recipe)


def has_shift_type(examples: Iterable[TrainingExample], query: ForecastQuery) -> bool:
    """Whether these hold the kind that is asked about, on the same model and by the same recipe."""
    asked = query.shift_type, query.parent, query.group
    return query.shift_type is not None and any(
        (each.shift_type, each.parent, each.group) == asked for each in examples
    )


def update_group(update: Update) -> tuple[object, ...]:
    """Whose costs are of the size of an update's: model and recipe."""
    return (update.model, *recipe_group(update.recipe))


def recipe_group(recipe: Mapping[str, object]) -> tuple[object, ...]:
    """What of a recipe makes costs comparable."""
    return tuple(recipe.get(name, "all" if name == "trains" else None) for name in _OF_RECIPE)
