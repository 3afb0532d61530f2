"""Turn finished updates into training rows of the cost model for one forecast query."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from resque.forecasting.mixed_model import TrainingExample
from resque.forecasting.predictors import predictor_values
from resque.ledger.records import PLATEAU, Features, Forecast, Update
from resque.training.finetuning import STATISTICS
from resque.training.job import RetrainingJob
from resque.training.new_task import NEW_TASK
from resque.training.recipe import RECIPES, recipe_to_dict

__all__ = [
    "ForecastQuery", "HistoryRow", "evaluation_lag", "has_shift_type",
    "history_rows", "index_definition", "is_comparable", "is_new_task", "is_same_change", "of_like_part",
    "relative_rate", "starts_at_target", "steps_or_lower_bound", "target_for", "teachers", "telling",
    "training_example", "update_group",
]  # fmt: skip

_GROUP_SETTINGS = ("optimizer", "learning_rate", "batch_size", "trains")
_NEAREST = 5
_SAME_RATE = 0.1  # decimal log of learning rates that are told apart


@dataclass(frozen=True)
class HistoryRow:
    """One finished update with one cost at one target accuracy.

    Attributes:
        example: Training example for the cost model.
        own: Whether the update is the user's own, not a bundled one.
        lag: Share of its steps since the evaluation before the last one; the target was reached in between.
    """

    example: TrainingExample
    own: bool
    lag: float = 0.0


@dataclass(frozen=True)
class ForecastQuery:
    """Update to forecast.

    Attributes:
        features: Features from forward passes.
        target_accuracy: Accuracy to reach.
        group: Model name and the recipe settings that set the scale of its costs.
        shift_type: Shift type; None if unknown.
        parent: Fingerprint of the model.
        condition: Name of the training data.
        max_steps: Step budget of the recipe.
        steps_per_epoch: Steps in an epoch; None if unknown.
        from_scratch: Whether new weights are trained.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> query.shift_type, query.values(["index", "warm-up gap"])
        ('gaussian', None)
    """

    features: Features
    target_accuracy: float
    group: tuple[object, ...]
    shift_type: str | None
    parent: str
    condition: str
    max_steps: int
    steps_per_epoch: int | None = None
    from_scratch: bool = False

    @property
    def part(self) -> object:
        """Trained part."""
        return _part(self.group, self.from_scratch)

    @property
    def is_new_task(self) -> bool:
        """Whether the update is to a new task."""
        return is_new_task(self.features, self.shift_type)

    @classmethod
    def of(cls, job: RetrainingJob, features: Features, parent: str, model_name: str) -> "ForecastQuery":
        """Return the query for a retraining job."""
        group, shift_type = _group(model_name, recipe_to_dict(job.recipe)), job.effective_shift_type
        name, steps = job.train.name, job.steps_per_epoch
        target = job.target_accuracy
        return cls(features, target, group, shift_type, parent, name, job.max_steps, steps, job.from_scratch)

    @classmethod
    def of_forecast(cls, forecast: Forecast) -> "ForecastQuery":
        """Return the query that a stored forecast answered."""
        epochs = _epochs(forecast.recipe)
        return cls(
            forecast.features,
            forecast.target_accuracy,
            _group(forecast.model, forecast.recipe),
            forecast.shift_type,
            forecast.parent,
            forecast.train_data,
            forecast.max_steps,
            forecast.max_steps // epochs if epochs else None,
            forecast.from_scratch,
        )

    @classmethod
    def of_update(cls, update: Update, target_accuracy: float, max_steps: int) -> "ForecastQuery":
        """Return the query that could have been asked before a finished update.

        Args:
            update: Finished update.
            target_accuracy: Target accuracy of the query.
            max_steps: Step budget, if the update's recipe has none.
        """
        per_epoch = update.curve.steps_per_epoch
        epochs = _epochs(update.recipe)
        budget = per_epoch * epochs if per_epoch and epochs else max_steps
        group, data, part = update_group(update), update.train_data, (per_epoch, update.from_scratch)
        return cls(update.features, target_accuracy, group, update.shift_type, update.parent, data, budget, *part)

    def values(self, predictors: Sequence[str]) -> tuple[float, ...] | None:
        """Compute predictors of the update; return None if one of them is unknown."""
        return predictor_values(predictors, self.features, self.target_accuracy)

    def example(self, features: tuple[float, ...]) -> TrainingExample:
        """Return the queried update as input of the cost model, with these predictor values and an unknown cost."""
        where = self.group, self.shift_type, self.condition, self.parent, self.part
        return TrainingExample(features, math.nan, False, *where)


def history_rows(
    history: Sequence[Update], query: ForecastQuery, predictors: Sequence[str], bundled: Sequence[Update] = ()
) -> list[HistoryRow]:
    """Return the training rows for the steps: own updates first, then bundled ones.

    The steps are read off the learning curve at the query's target accuracy. Bundled updates are read at their own
    targets, because accuracies on different datasets are not comparable. Updates are left out if they trained another
    part than the query, all layers excepted, started at the target, lack a predictor, or define the index differently.
    A query for a shift uses no new tasks, and the reverse; trainings from scratch are used by their like alone.

    Args:
        history: The user's own finished updates.
        query: Update to forecast.
        predictors: Names of the predictors.
        bundled: Updates from other models.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> query = ForecastQuery.of_update(bundled_updates()[0], target_accuracy=0.8, max_steps=1000)
        >>> rows = history_rows(bundled_updates()[1:10], query, ["accuracy gap"])
        >>> len(rows), round(math.exp(rows[0].example.value)), rows[0].example.censored
        (9, 11, False)
    """
    own, others = of_like_part(history, query), telling(bundled, query)
    updates = [(update, True) for update in own] + [(update, False) for update in others]
    rows = (_history_row(update, query, predictors, own) for update, own in updates)
    return [row for row in rows if row is not None]


def _history_row(update: Update, query: ForecastQuery, predictors: Sequence[str], own: bool) -> HistoryRow | None:
    target = target_for(update, query, own)
    features = predictor_values(predictors, update.features, target)
    if features is None or not is_comparable(update, query, target):
        return None
    if {"index", "sampled index"}.intersection(predictors) and not _same_index(update.features, query.features, own):
        return None
    steps, censored = steps_or_lower_bound(update, target, query.max_steps)
    if not steps:
        return None
    spent = update.cost.steps if censored else steps
    before = max((step for step in update.curve.steps if step < spent), default=0)
    example = training_example(update, query, features, math.log(steps), censored)
    return HistoryRow(example, own, 1.0 - before / spent)


def telling(bundled: Sequence[Update], query: ForecastQuery) -> list[Update]:
    """Return the bundled updates that tell of a query: those of all layers and of its part.

    If its learning rate is the usual one, so is theirs. Those of other ways would mislead: with all of them, 80 %
    intervals for all layers of one network covered 72 % of its runs, without them 85 %.

    Args:
        bundled: Updates from other models.
        query: Update to forecast.
    """
    like = of_like_part(bundled, query)
    return [each for each in like if _is_usual_rate(update_group(each))] if _is_usual_rate(query.group) else like


def of_like_part(updates: Iterable[Update], query: ForecastQuery) -> list[Update]:
    """Return the updates of all layers and of the query's part: how far a head gets tells nothing of all layers.

    Args:
        updates: The updates.
        query: Update to forecast.
    """
    parts = "all", query.part
    return [each for each in updates if _part(update_group(each), each.from_scratch) in parts]


def teachers(history: Iterable[Update], bundled: Sequence[Update], query: ForecastQuery) -> list[Update]:
    """Return the updates that tell of a query: the user's own of its part and of all layers, and the bundled ones.

    Args:
        history: The user's own finished updates.
        bundled: Updates from other models.
        query: Update to forecast.
    """
    return [*of_like_part(history, query), *telling(bundled, query)]


def _is_usual_rate(group: tuple[object, ...]) -> bool:
    return abs(relative_rate(group)) < _SAME_RATE


def training_example(
    update: Update, query: ForecastQuery, features: tuple[float, ...], value: float, censored: bool = False
) -> TrainingExample:
    """Return a finished update as training example of a mixed model."""
    group = _group_for(update, query)
    where = group, update.shift_type, update.train_data, update.parent, _part(group, update.from_scratch)
    return TrainingExample(features, value, censored, *where)


def _group_for(update: Update, query: ForecastQuery) -> tuple[object, ...]:
    """Return model name and recipe settings of an update; the query's model may have had another name then."""
    return _group(query.group[0] if update.parent == query.parent else update.model, update.recipe)


def target_for(update: Update, query: ForecastQuery, own: bool) -> float:
    """Return the target accuracy at which an update is read: the query's, or its own for a bundled update."""
    return query.target_accuracy if own else update.target_accuracy


def is_comparable(update: Update, query: ForecastQuery, target_accuracy: float) -> bool:
    """Return whether an update started below the target, and tells of the query; see :func:`is_same_change`."""
    return is_same_change(update, query) and not starts_at_target(update.features, target_accuracy)


def is_same_change(update: Update, query: ForecastQuery) -> bool:
    """Return whether an update took gradient steps, and both are shifts or both new tasks.

    A training from scratch tells only of others.
    """
    if update.recipe.get("trains") == STATISTICS or update.from_scratch > query.from_scratch:
        return False
    return is_new_task(update.features, update.shift_type) == query.is_new_task


def is_new_task(features: Features, shift_type: object) -> bool:
    """Return whether an update is to a new task; from scratch it has no task index, and its shift type tells."""
    return features.task_index is not None or shift_type == NEW_TASK


def steps_or_lower_bound(update: Update, target_accuracy: float, max_steps: int) -> tuple[float, bool]:
    """Return ``(steps to the target, False)``, or ``(right-censored steps, True)`` if it was not reached.

    A run that ended on a plateau would not have reached the target within the step budget either. So its steps are
    extrapolated to that budget. A run that its budget ended is not: whether it would have come is unknown, and its cost
    is right-censored where it ended. It ended because it looked bad, so its true cost is above what such a bound says
    of it, and later forecasts are somewhat too low. Leaving these runs out would make them lower still.

    Args:
        update: Finished update.
        target_accuracy: Target accuracy, at which the learning curve is read.
        max_steps: Step budget of the query.

    Example:
        >>> from resque.ledger.bundled import bundled_updates
        >>> update = bundled_updates()[0]
        >>> [steps_or_lower_bound(update, target, 1000) for target in (0.8, 0.99)]
        [(5, False), (5, True)]
    """
    at = update.curve.first_at(target_accuracy)
    if at is not None:
        return update.curve.steps[at], False
    steps: float = update.cost.steps
    if steps and update.stopped_by.startswith(PLATEAU):
        steps *= max(1.0, max_steps / steps)
    return steps, True


def evaluation_lag(rows: Sequence[HistoryRow]) -> Callable[[float], float]:
    """Return a function from steps to the typical evaluation lag of runs with about as many steps.

    The evaluation lag is the share of a run's steps between its last two evaluations, in which the target was reached.
    The median of the five nearest runs that reached the target is taken, of own runs if there are any; 0 without runs.
    """
    relevant = [row for row in rows if row.own and not row.example.censored] or list(rows)

    def lag(steps: float) -> float:
        log_steps = math.log(max(steps, 1.0))
        nearest = sorted(relevant, key=lambda row: abs(row.example.value - log_steps))[:_NEAREST]
        return statistics.median(row.lag for row in nearest) if nearest else 0.0

    return lag


def starts_at_target(features: Features, target_accuracy: float) -> bool:
    """Return whether the model already has the target accuracy, as measured; an estimate does not tell."""
    return not features.is_estimated and features.accuracy is not None and features.accuracy >= target_accuracy


def index_definition(features: Features) -> tuple[str, str, str]:
    """Return layer, reduction and labels of the index; indices with other definitions are not comparable."""
    return features.layer, features.reduction, features.labels


def _same_index(one: Features, other: Features, own: bool) -> bool:
    """Compare index definitions, for bundled updates without the layer: other networks name layers differently."""
    start = 0 if own else 1
    return index_definition(one)[start:] == index_definition(other)[start:]


def has_shift_type(examples: Iterable[TrainingExample], query: ForecastQuery) -> bool:
    """Return whether an example has the query's shift type, model and recipe; False for an unknown shift type."""
    wanted = query.shift_type, query.parent, query.group
    return query.shift_type is not None and any((e.shift_type, e.parent, e.group) == wanted for e in examples)


def update_group(update: Update) -> tuple[object, ...]:
    """Return model name and recipe settings of an update: costs within a group have one scale."""
    return _group(update.model, update.recipe)


def _epochs(recipe: Mapping[str, object]) -> int | None:
    """Return the most epochs of a recipe; None if it does not say them."""
    if recipe.get("trains") == STATISTICS:
        return 1
    epochs = recipe.get("fixed_epochs") or recipe.get("max_epochs")
    return int(str(epochs)) if epochs else None


def relative_rate(group: object) -> float:
    """Return the decimal log of the learning rate over that of the optimizer's own recipe; 0 if one is unknown.

    Example:
        >>> round(relative_rate(("net", "adam", 1e-3, 32, "all")), 3)
        1.0
    """
    settings = dict(zip(_GROUP_SETTINGS, group[1:], strict=False)) if isinstance(group, tuple) else {}
    usual = RECIPES.get(f"retrain-{str(settings.get('optimizer')).removesuffix('w')}")
    rate = settings.get("learning_rate")
    return 0.0 if usual is None or not rate else math.log10(float(str(rate)) / usual.learning_rate)


def _part(group: tuple[object, ...], from_scratch: bool) -> object:
    """Return the trained part of an update in a group."""
    return "scratch" if from_scratch else group[-1]


def _group(model_name: object, recipe: Mapping[str, object]) -> tuple[object, ...]:
    return (model_name, *(recipe.get(name, "all" if name == "trains" else None) for name in _GROUP_SETTINGS))
