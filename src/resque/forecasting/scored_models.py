"""Choose the models that deserve a pilot, by what forward passes tell of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from resque._plain import Serializable

__all__ = ["MOST_KEPT", "ScoredModel", "models_to_try"]

MOST_KEPT = 3
"""Most models that are kept for their scores; beside them the smallest of the others is kept."""
_RANKED = "LogME", "k-NN accuracy"


@dataclass(frozen=True)
class ScoredModel(Serializable):
    """What forward passes tell of a model to start from.

    Attributes:
        model: Name of the model, with its weights.
        scores: Transfer scores by name; the larger, the better its features fit the labels. Empty if it failed.
        index: RESQUE_task without a warm-up for a new task, RESQUE_dist in radians for a shift with original data; None
            if unknown. It does not decide, because it cannot tell trained weights from random ones.
        accuracy: Accuracy on the new data as the model is; None for a new task.
        parameters: Number of parameters.
        static_cost: Parameters × samples: the cost if all models needed the same number of epochs.
        is_trained: Whether the weights are trained, as far as can be told.
        license: License that the model card states; None if unknown.
        limitations: Limitations that the model card states; None if unknown.
        license_price: Price of the license.
        is_kept: Whether its ways were compared.
        note: Reason for which it was left out; empty if it was not.
    """

    model: str
    scores: Mapping[str, float] = field(default_factory=dict)
    index: float | None = None
    accuracy: float | None = None
    parameters: int | None = None
    static_cost: float | None = None
    is_trained: bool = True
    license: str | None = None
    limitations: str | None = None
    license_price: float = 0.0
    is_kept: bool = False
    note: str = ""


def models_to_try(scored: Sequence[ScoredModel]) -> list[str]:
    """Return the names of the models whose ways are compared, best first.

    Trained ones are ranked by the mean of their ranks in LogME and k-NN accuracy; three are kept, and the smallest of
    the others, because scores say nothing of cost. Of the untrained ones the smallest is kept: their scores are those
    of random features. The index decides nothing.

    Args:
        scored: The models; those without scores failed, and are left out.

    Example:
        >>> def row(name, score, size):
        ...     return ScoredModel(name, {"LogME": score, "k-NN accuracy": score}, parameters=size)
        >>> models_to_try([row("a", 0.1, 9), row("b", 0.4, 9), row("c", 0.2, 9), row("d", 0.3, 9), row("e", 0.0, 1)])
        ['b', 'd', 'c', 'e']
    """
    known = [model for model in scored if model.scores]
    trained = [model for model in known if model.is_trained]
    ranks = [_ranks([model.scores[name] for model in trained]) for name in _RANKED]
    total = {model.model: sum(rank[place] for rank in ranks) for place, model in enumerate(trained)}
    ranked = sorted(trained, key=lambda model: (total[model.model], model.parameters or 0))
    untrained = [model for model in known if not model.is_trained]
    kept = ranked[:MOST_KEPT] + _smallest(ranked[MOST_KEPT:]) + _smallest(untrained)
    return [model.model for model in kept]


def _ranks(values: Sequence[float]) -> list[int]:
    """Return for each value how many are larger."""
    return [sum(other > value for other in values) for value in values]


def _smallest(models: Sequence[ScoredModel]) -> list[ScoredModel]:
    return sorted(models, key=lambda model: model.parameters or 0)[:1]
