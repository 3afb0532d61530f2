"""The steps at which a run is evaluated."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["EvaluationSchedule", "evaluation_steps"]


class _Evaluates(Protocol):
    """A recipe, or the part of it that decides when a run is evaluated."""

    @property
    def evaluate_every(self) -> int | None: ...

    @property
    def evaluate_growth(self) -> float: ...


@dataclass(frozen=True)
class EvaluationSchedule:
    """When a run is evaluated, as a recipe has it.

    Attributes:
        evaluate_every: Steps between evaluations, in addition to one after each epoch; None for that one alone.
        evaluate_growth: Least gap to the next evaluation, as a share of the steps taken so far.
    """

    evaluate_every: int | None = None
    evaluate_growth: float = 0.0


def evaluation_steps(steps: float, steps_per_epoch: int, recipe: _Evaluates) -> Iterator[int]:
    """Iterate over the steps at which a run is evaluated, up to the first one at or after ``steps``.

    A run can stop only at an evaluation.

    Example:
        >>> [list(evaluation_steps(9, 10, EvaluationSchedule(every))) for every in (None, 4)]
        [[0, 10], [0, 4, 8, 10]]
    """
    step, every = 0, recipe.evaluate_every or steps_per_epoch
    yield step
    while step < steps:
        earliest = max(step + 1, math.ceil(step * (1.0 + recipe.evaluate_growth)))
        step = min(-(-earliest // every) * every, (step // steps_per_epoch + 1) * steps_per_epoch)
        yield step
