"""What a history of updates says of the one that is asked about: predictors, examples, what is comparable.

A predictor is a number that is known before the update, on a scale on which log cost runs nearly straight. Those of
:data:`CHOSEN` were chosen by the held-out errors of the project's own studies.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from resque.difficulty import Example
from resque.recipes import Retraining, plain_recipe
from resque.records import Features, Forecast, Update

Predictor = Callable[[Features, float], float | None]
_TINY = 1e-6
_SMALLEST_GAP = 1e-3
_PLATEAU = "tolerance"
_OF_RECIPE = ("optimizer", "learning_rate", "batch_size", "trains")


def _log(value: float | None) -> float | None:
    return None if value is None else math.log(max(value, _TINY))


def _gap(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else math.log(max(target - accuracy, _SMALLEST_GAP))


def _short(accuracy: float | None, target: float) -> float | None:
    return None if accuracy is None else target - accuracy


def _size(features: Features, target: float) -> float | None:
    """Parameters times samples: what an update costs if all are alike."""
    if not features.parameters or not features.samples:
        return None
    return math.log(features.parameters * features.samples)


def _overlap(features: Features, target: float) -> float | None:
    """The share of the features' variance that does not tell classes apart, from the shrunk H-score in [0, C - 1]."""
    found = features.scores.get("shrunk H-score")
    if found is None or not features.classes or features.classes < 2:
        return None
    return math.log(max(1.0 - found / (features.classes - 1), _TINY))


PREDICTORS: Mapping[str, Predictor] = {
    "recalibrated gap": lambda features, target: _gap(features.scores.get("recalibrated accuracy"), target),
    "recalibrated neighbours": lambda features, target: _short(features.scores.get("recalibrated neighbours"), target),
    "index": lambda features, target: _log(features.index_rad),
    "accuracy gap": lambda features, target: _gap(features.accuracy, target),
    "initial loss": lambda features, target: _log(features.loss),
    "neighbours": lambda features, target: _short(features.scores.get("neighbours"), target),
    "overlap": _overlap,
    "LogME": lambda features, target: features.scores.get("LogME"),
    "parameters × samples": _size,
    "task index": lambda features, target: _log(features.task_index),
    "warm-up gap": lambda features, target: _gap(features.scores.get("warm-up accuracy"), target),
    "warm-up neighbours": lambda features, target: _short(features.scores.get("warm-up neighbours"), target),
}
"""What a forecast can rest on, each known without training anything."""
CHOSEN = (
    ("task index", "warm-up gap"),
    ("recalibrated gap", "accuracy gap", "recalibrated neighbours"),
    ("index", "accuracy gap", "neighbours", "overlap", "LogME"),
)
"""Sets of predictors, the first for a change of task; the first whose leading one is known well enough is taken."""
REACHING = ("recalibrated gap", "neighbours", "LogME")
"""What the chance of reaching a target rests on: how far it is, and which accuracy the representations allow."""
FEW = 10
_NEAR = 5


@dataclass(frozen=True)
class Past:
    """One finished update, as evidence for one cost at one target.

    Attributes:
        example: For the law.
        per_step: The cost over the steps it went with.
        own: Whether it is the user's, and not another's.
        lag: Share of its steps since the evaluation before the last.
    """

    example: Example
    per_step: float
    own: bool
    lag: float = 0.0


@dataclass(frozen=True)
class Question:
    """The update that is asked about.

    Attributes:
        features: What one pass told of it.
        target_accuracy: To be reached.
        group: Whose costs are of the size of its own.
        kind: Of shift.
        parent: The model.
        condition: Its training data.
        max_steps: Of its recipe's longest run.
    """

    features: Features
    target_accuracy: float
    group: tuple[object, ...]
    kind: str | None
    parent: str
    condition: str
    max_steps: int

    @classmethod
    def of(cls, job: Retraining, features: Features, parent: str, model_name: str) -> "Question":
        """What a job asks."""
        group = (model_name, *of_recipe(plain_recipe(job.recipe)))
        return cls(features, job.target_accuracy, group, job.shift_kind, parent, job.train.name, job.max_steps)

    @classmethod
    def of_forecast(cls, said: Forecast) -> "Question":
        """What a forecast was asked."""
        group = (said.model, *of_recipe(said.recipe))
        return cls(said.features, said.target_accuracy, group, said.kind, said.parent, said.train_data, said.max_steps)

    def values(self, names: Sequence[str]) -> tuple[float | None, ...]:
        """Its predictors."""
        return tuple(PREDICTORS[name](self.features, self.target_accuracy) for name in names)

    def example(self, names: Sequence[str]) -> Example:
        """For the law; every predictor must be there."""
        known = tuple(value for value in self.values(names) if value is not None)
        return Example(known, math.nan, False, self.group, self.kind, self.condition, self.parent)


def pasts(
    history: Sequence[Update], cost: str, question: Question, names: Sequence[str], own: bool = True
) -> list[Past]:
    """The history's rows for one cost: every retraining that began below the target, read off its curve.

    An index of another layer, reduction or kind of labels is another quantity, and a new task is another question than
    a shift: those updates are left out. Those of others are read at targets of their own, because an accuracy of one
    data set means nothing on another.

    Args:
        history: Finished updates.
        cost: A field of :class:`resque.records.Cost`.
        question: What is asked.
        names: The predictors; an update without one of them is left out.
        own: Whether the history is the user's.
    """
    rows = []
    for update in history:
        target = question.target_accuracy if own else update.target_accuracy
        values = [PREDICTORS[name](update.features, target) for name in names]
        value, censored = lasted(update, target, cost, question.max_steps)
        known = tuple(each for each in values if each is not None)
        if update.from_scratch or len(known) < len(values) or not value or at_start(update.features, target):
            continue
        if "index" in names and not _same_index(update.features, question.features, own):
            continue
        if not same_change(update, question):
            continue
        spent = update.cost_at(target) or update.cost
        per_step = getattr(spent, cost) / spent.steps
        example = Example(
            known,
            math.log(value),
            censored,
            as_asked(update, question),
            update.kind,
            update.train_data,
            update.parent,
        )
        before = max((step for step in update.curve.steps if step < spent.steps), default=0)
        rows.append(Past(example, per_step, own, 1.0 - before / spent.steps))
    return rows


def lasted(update: Update, target_accuracy: float, cost: str, max_steps: int) -> tuple[float | None, bool]:
    """``(cost of reaching a target, False)``, or ``(what it took at least, True)`` where it never did.

    A run that ended on a plateau would not have reached it in the longest run that is asked about, either.

    Args:
        update: A finished one.
        target_accuracy: Read off its curve.
        cost: A field of :class:`resque.records.Cost`.
        max_steps: Of the longest run that is asked about.
    """
    reached = update.cost_at(target_accuracy)
    value = getattr(reached or update.cost, cost)
    if reached is None and value and update.stopped_by.startswith(_PLATEAU):
        value *= max(1.0, max_steps / update.cost.steps)
    return value, reached is None


def lag_of(rows: Sequence[Past]) -> Callable[[float], float]:
    """Typical share of their steps since the look before, in runs that arrived after about as many; 0 without any."""
    seen = [row for row in rows if row.own and not row.example.censored] or list(rows)

    def of(steps: float) -> float:
        near = sorted(seen, key=lambda row: abs(row.example.log_cost - math.log(max(steps, 1.0))))
        return statistics.median(row.lag for row in near[:_NEAR]) if near else 0.0

    return of


def chosen(history: Sequence[Update], question: Question, prior: Sequence[Update] = ()) -> tuple[str, ...]:
    """The predictors that a forecast rests on: of a set, those that enough updates know, and in which they differ.

    Where updates are few it is one of them alone: what most of them know, of those a predictor that leads its set.

    Args:
        history: The user's updates.
        question: What is asked.
        prior: Updates of others.
    """
    counts: dict[str, int] = {}
    for names in CHOSEN:
        seen = _seen(names, history, question, prior)
        enough = _enough(seen)
        if enough and (enough[0] == names[0] or names is CHOSEN[-1]):
            return enough
        counts |= {name: len(values) for name, values in seen.items()}
    leading = {names[0] for names in CHOSEN}
    return tuple(sorted(counts, key=lambda name: (-counts[name], name not in leading))[:1])


def of_reaching(history: Sequence[Update], question: Question, prior: Sequence[Update] = ()) -> tuple[str, ...]:
    """The predictors that the chance of reaching the target rests on; none where too few updates know them."""
    return _enough(_seen(REACHING, history, question, prior))


def _seen(
    names: Sequence[str], history: Sequence[Update], question: Question, prior: Sequence[Update]
) -> dict[str, list[float]]:
    """Those that are known of the question, each with its values in the updates that know it."""
    return {
        name: [
            row.example.features[0]
            for updates, own in ((history, True), (prior, False))
            for row in pasts(updates, "steps", question, [name], own)
        ]
        for name, value in zip(names, question.values(names), strict=True)
        if value is not None
    }


def _enough(seen: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    return tuple(name for name, found in seen.items() if len(found) >= FEW and max(found) - min(found) > _TINY)


def same_change(update: Update, question: Question) -> bool:
    """New tasks learn from new tasks, shifts from shifts."""
    return (update.features.task_index is None) == (question.features.task_index is None)


def at_start(features: Features, target_accuracy: float) -> bool:
    """Whether there is nothing to retrain."""
    return features.accuracy is not None and features.accuracy >= target_accuracy


def _same_index(one: Features, other: Features, own: bool) -> bool:
    """The layers of another's network have other names."""
    return of_index(one) == of_index(other) if own else of_index(one)[1:] == of_index(other)[1:]


def of_index(features: Features) -> tuple[str, str, str]:
    """Which index it is; by its own labels, a model sees less than by the true ones."""
    return features.layer, features.reduction, features.labels


def as_asked(update: Update, question: Question) -> tuple[object, ...]:
    """Its group; the very same model may have had another name."""
    named, *recipe = group_of(update)
    return (question.group[0] if update.parent == question.parent else named, *recipe)


def knows(examples: Iterable[Example], question: Question) -> bool:
    """Whether these hold the kind that is asked about, on the same model and by the same recipe."""
    asked = question.kind, question.parent, question.group
    return question.kind is not None and any((each.kind, each.parent, each.group) == asked for each in examples)


def group_of(update: Update) -> tuple[object, ...]:
    """Whose costs are of the size of an update's: model and recipe."""
    return (update.model, *of_recipe(update.recipe))


def of_recipe(recipe: Mapping[str, object]) -> tuple[object, ...]:
    """What of a recipe makes costs comparable."""
    return tuple(recipe.get(name, "all" if name == "trains" else None) for name in _OF_RECIPE)
